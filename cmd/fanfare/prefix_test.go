package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/transport/client"
)

// frontOf is a reverse proxy that serves a node below /rt. It keeps that path in what it
// sends on, or removes it.
type frontOf struct {
	*httptest.Server
	node atomic.Pointer[url.URL]
}

func newFront(t *testing.T, keeps bool) *frontOf {
	f := new(frontOf)
	f.Server = httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(f.node.Load())
		r.Out.Host = r.In.Host
		if !strings.HasPrefix(r.In.URL.EscapedPath(), "/rt/") {
			r.Out.URL.Path, r.Out.URL.RawPath = "/what/else/the/proxy/serves", ""
		} else if !keeps {
			r.Out.URL.Path, r.Out.URL.RawPath = strings.TrimPrefix(r.In.URL.Path, "/rt"), strings.TrimPrefix(r.In.URL.EscapedPath(), "/rt")
		}
	}})
	t.Cleanup(f.Close)
	return f
}

// A service may be called by a URL with a path, which a proxy keeps or removes: clients,
// commands, REST with its links, users with signed requests and tokens, and what issuers
// publish work either way, and without the path where the node is called directly.
func TestPublicEndpointWithAPath(t *testing.T) {
	for name, keeps := range map[string]bool{"kept": true, "removed": false} {
		t.Run(name, func(t *testing.T) { testPublicPath(t, newFront(t, keeps)) })
	}
}

func testPublicPath(t *testing.T, front *frontOf) {
	key := keyOf("one")
	n := startNode(t, []string{
		"FANFARE_ACCESS_KEYS_PRIMARY=" + key, "FANFARE_PUBLIC_ENDPOINT=" + front.URL + "/rt/", "FANFARE_IDENTITY_TYPE=Local",
	})
	front.node.Store(&url.URL{Scheme: "http", Host: n.address})
	public := front.URL + "/rt"
	if banner := n.out.String(); !strings.Contains(banner, "Endpoint="+public+";AccessKey=") || !strings.Contains(banner, "ws"+public[len("http"):]+"/client/hubs/{hub}") {
		t.Errorf("the banner says:\n%s", banner)
	}

	// The commands, and a client that is recovered.
	environ := []string{"FANFARE_CONNECTION_STRING=Endpoint=" + public + ";AccessKey=" + key + ";Version=1.0;"}
	sub := start(t, environ, "sub", "--hub", "chat", "--group", "home/temp", "--count", "2")
	sub.err.wait(t, "connected to hub chat")
	if code, _, said := finish(t, environ, "pub", "--hub", "chat", "--group", "home/temp", "through the proxy"); code != exitOK {
		t.Fatal(said)
	}
	direct := n.environ(key)
	if code, _, said := finish(t, direct, "pub", "--hub", "chat", "--group", "home/temp", "past it"); code != exitOK {
		t.Fatal(said)
	}
	if code := sub.wait(t); code != exitOK || !strings.Contains(sub.out.String(), "through the proxy") || !strings.Contains(sub.out.String(), "past it") {
		t.Errorf("exit code %d; the client got:\n%s%s", code, sub.out, sub.err)
	}
	for _, environ := range [][]string{environ, direct} {
		c, err := dial(t, environ, "--hub", "chat", "--user", "ann", "--group", "g")
		if err != nil {
			t.Fatal(err)
		}
		mustReceive[client.Connected](t, c)
	}

	// REST: a listing whose next link is followed as it is.
	list := func(at string) (status int, connections int, next string) {
		t.Helper()
		signed, err := (accesskey.ConnectionString{Key: parsed(t, key)}).ServerToken(at)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequest("GET", at, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+signed)
		status, text := answer(t, r, nil)
		var page struct {
			Value    []struct{ ConnectionID string }
			NextLink string
		}
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			t.Errorf("%d %s: %v", status, text, err)
		}
		return status, len(page.Value), page.NextLink
	}
	const members = "/api/hubs/chat/groups/g/connections?maxpagesize=1&api-version=2024-12-01"
	for _, at := range []string{public, "http://" + n.address, "http://" + n.address + "/rt"} {
		status, found, next := list(at + members)
		if status != 200 || found != 1 || !strings.HasPrefix(next, public+"/api/hubs/chat/groups/g/connections?") {
			t.Errorf("%s: %d, %d members, and then %q", at, status, found, next)
		}
		if status, found, next := list(next); status != 200 || found != 1 || next != "" {
			t.Errorf("the next page: %d, %d members, and then %q", status, found, next)
		}
	}
	// A token is for one path, with the service's own before it or without.
	for aud, want := range map[string]int{
		public + "/api/hubs/chat/:send": 202, front.URL + "/api/hubs/chat/:send": 202,
		front.URL + "/rt2/api/hubs/chat/:send": 401, front.URL + "/rt/rt/api/hubs/chat/:send": 401, public + "/api/hubs/other/:send": 401,
	} {
		reply, body := callAt(t, public+"/api/hubs/chat/:send", sign(t, key, aud, time.Now().Add(time.Hour)))
		if reply.StatusCode != want {
			t.Errorf("a token for %s: %d %s; want %d", aud, reply.StatusCode, body, want)
		}
	}
	for aud, want := range map[string]int{
		public + "/client/hubs/chat": 101, front.URL + "/client/hubs/chat": 101, front.URL + "/rt2/client/hubs/chat": 401, public + "/client/hubs/other": 401,
	} {
		c, err := client.Dial(t.Context(), "ws"+public[len("http"):]+"/client/hubs/chat?access_token="+sign(t, key, aud, time.Now().Add(time.Hour)), nil)
		if status, said := answered(t, c, err); status != want {
			t.Errorf("a token for %s: %d %s; want %d", aud, status, said, want)
		}
	}

	// Users: a request that is signed for the path as the caller sees it.
	var made struct {
		Identity    struct{ ID string }
		AccessToken struct{ Token string }
	}
	for _, at := range []string{public, "http://" + n.address, "http://" + n.address + "/rt"} {
		const body = `{"createTokenWithScopes":["chat"]}`
		r := newRequest(t, at, "POST /identities", body)
		signing{key: key}.sign(t, r, body)
		status, text := answer(t, r, nil)
		if err := json.Unmarshal([]byte(text), &made); err != nil || status != http.StatusCreated {
			t.Fatalf("%s: %d %s", at, status, text)
		}
	}
	other := newRequest(t, public, "POST /identities", "")
	signing{key: key, target: "/rt2/identities?api-version=2023-10-01"}.sign(t, other, "")
	status, text := answer(t, other, nil)
	denied(t, "signed for another path", status, text)

	// Whoever has a user's token finds its issuer and the keys, and so do event handlers.
	for _, issuer := range []string{public + "/identities", public} {
		var page struct {
			Issuer string
			Keys   string `json:"jwks_uri"`
		}
		status, text := get(t, issuer+"/.well-known/openid-configuration")
		if err := json.Unmarshal([]byte(text), &page); err != nil || status != 200 || page.Issuer != issuer || page.Keys != issuer+"/.well-known/jwks.json" {
			t.Fatalf("%s: %d %s", issuer, status, text)
		}
		if status, jwks := get(t, page.Keys); status != 200 || !strings.Contains(jwks, `"keys":[{`) {
			t.Errorf("%s: %d %s", page.Keys, status, jwks)
		}
	}
	c, err := client.Dial(t.Context(), "ws"+public[len("http"):]+"/client/hubs/chat?access_token="+made.AccessToken.Token, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	mustReceive[client.Connected](t, c)

	// Nothing else is below the path, and what only begins like it is not.
	for path, want := range map[string]int{"/rt/healthz": 200, "/rt/readyz": 200, "/rt/rt/healthz": 404, "/rt/nothing": 404, "/rtx/healthz": 404, "/rt": 404} {
		if status, _ := get(t, "http://"+n.address+path); status != want {
			t.Errorf("%s: %d; want %d", path, status, want)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/.well-known/jwks.json": 200, "/identities/.well-known/jwks.json": 200} {
		if status, _ := get(t, "http://"+n.address+path); status != want {
			t.Errorf("%s: %d; want %d", path, status, want)
		}
	}
}

// What stands behind the public path is left as it was sent.
func TestPublicPathIsCutAsItIs(t *testing.T) {
	for sent, want := range map[string]string{
		"/rt/api/x":                "/api/x  /rt/api/x",
		"/rt/a%2Fb/%252F/c%20d":    "/a/b/%2F/c d /a%2Fb/%252F/c%20d /rt/a%2Fb/%252F/c%20d",
		"/rt/hubs/a`/groups/x%2Fy": "/hubs/a`/groups/x/y /hubs/a`/groups/x%2Fy /rt/hubs/a`/groups/x%2Fy",
		"/rt//x/../y":              "//x/../y  /rt//x/../y",
		"/rt":                      "/rt  /rt",
		"/rtx/api":                 "/rtx/api  /rtx/api",
		"/%72t/api":                "/rt/api /%72t/api /%72t/api",
		"/api/rt/x":                "/api/rt/x  /api/rt/x",
	} {
		var got string
		h := stripPrefix("/rt", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = r.URL.Path + " " + r.URL.RawPath + " " + r.RequestURI
		}))
		u, err := url.ParseRequestURI(sent)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{Method: "GET", URL: u, RequestURI: sent}
		h.ServeHTTP(nil, r)
		if got != want || r.URL.Path != u.Path {
			t.Errorf("%s: %s; want %s", sent, got, want)
		}
	}
}

func parsed(t *testing.T, key string) accesskey.Key {
	t.Helper()
	k, err := accesskey.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// callAt sends a text to a URL of REST.
func callAt(t *testing.T, to, token string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest("POST", to, strings.NewReader("hi"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	reply, err := (&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	line, _ := bufio.NewReader(reply.Body).ReadString('\n')
	return reply, line
}

// An event handler is told which host calls, whatever path the service is behind.
func TestEventHandlersGetTheHostOfAPublicPath(t *testing.T) {
	up := newUpstream(t)
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", "listen: 127.0.0.1:0\npublicEndpoint: https://example.com/rt\nhubs: { chat: { eventHandlers: [ { urlTemplate: '"+up.URL+"', systemEvents: [connect] } ] } }\n"))
	if _, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat"); err != nil {
		t.Fatal(err)
	}
	if got := (<-up.checks).Header.Get("WebHook-Request-Origin"); got != "example.com" {
		t.Errorf("the origin is %q", got)
	}
	if got := up.event(t, "connect").Header.Get("WebHook-Request-Origin"); got != "example.com" {
		t.Errorf("the origin is %q", got)
	}
}
