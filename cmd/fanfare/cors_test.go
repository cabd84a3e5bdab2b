package main

import (
	"net/http"
	"strings"
	"testing"
)

// preflight asks as a browser does whether a page may call, and returns the status and
// the origin that is allowed.
func preflight(t *testing.T, n *command, origin, path string) (int, string, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodOptions, "http://"+n.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Origin": {origin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"authorization"}}
	reply, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text := make([]byte, 1<<10)
	length, _ := reply.Body.Read(text)
	return reply.StatusCode, reply.Header.Get("Access-Control-Allow-Origin"), string(text[:length])
}

// Pages of the origins that cors.allowedOrigins names may call, on each path of REST and
// the identity API, and a reload changes which. An origin is compared as browsers send it.
func TestCORSFollowsTheSettings(t *testing.T) {
	path := file(t, "fanfare.yaml", "listen: 127.0.0.1:0\ncors: { allowedOrigins: ['https://App.example.com:443', 'http://localhost:3000', 'https://*.example.org'] }\n")
	n := startNode(t, nil, "--config", path)
	paths := []string{"/api/hubs/chat/:send", "/identities", "/access/teamsExtension/:exchangeAccessToken", "/access/entra/:exchangeAccessToken"}
	check := func(origin string, allowed bool) {
		t.Helper()
		for _, path := range paths {
			status, got, said := preflight(t, n, origin, path)
			if allowed && (status != 204 || got != origin) || !allowed && (status != 403 || got != "" || !strings.Contains(said, "cors.allowedOrigins")) {
				t.Errorf("%s at %s: %d %q %s", origin, path, status, got, said)
			}
		}
	}
	for origin, allowed := range map[string]bool{
		"https://app.example.com": true, "http://localhost:3000": true, "https://a.example.org": true,
		"http://app.example.com": false, "https://example.org": false, "https://app.example.com.eve.example": false, "http://localhost": false, "null": false, "*": false,
	} {
		check(origin, allowed)
	}
	for _, path := range []string{"/identities/.well-known/jwks.json", "/identities/.well-known/openid-configuration"} {
		if status, got, _ := preflight(t, n, "https://eve.example", path); status != 204 || got != "*" {
			t.Errorf("%s: %d %q", path, status, got)
		}
	}
	rewrite(t, path, "listen: 127.0.0.1:0\ncors: { allowedOrigins: ['*'] }\n")
	reloaded(t, n)
	check("https://eve.example", true)
	check("null", true)
	rewrite(t, path, "listen: 127.0.0.1:0\n")
	reloaded(t, n)
	check("https://app.example.com", false)
}
