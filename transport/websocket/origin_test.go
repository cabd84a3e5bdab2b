package websocket_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/websocket"
)

func TestParseOriginPattern(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"*", "*"},
		{"https://app.example.com", "https://app.example.com"},
		{"HTTPS://App.Example.COM:443", "https://app.example.com"},
		{"http://app.example.com:80", "http://app.example.com"},
		{"http://app.example.com:443", "http://app.example.com:443"},
		{"https://app.example.com:08443", "https://app.example.com:8443"},
		{"https://*.example.com", "https://*.example.com"},
		{"https://*.example.com:8443", "https://*.example.com:8443"},
		{"http://[::1]:3000", "http://[::1]:3000"},
		{"http://[0:0::1]", "http://[::1]"},
		{"http://127.0.0.1", "http://127.0.0.1"},
		{"https://xn--bcher-kva.example", "https://xn--bcher-kva.example"},
		{"https://example.com.", "https://example.com."},
		{"capacitor://localhost", "capacitor://localhost"},
		{"chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"},
	} {
		p, err := websocket.ParseOriginPattern(c.text)
		if err != nil || p.String() != c.want {
			t.Errorf("%s is read as %q, %v; want %q", c.text, p, err, c.want)
		}
	}
	for _, text := range []string{
		"", "null", "NULL", "app.example.com", "//app.example.com", "https://", "https:///", "https://app.example.com/", "https://app.example.com/path",
		"https://ann@app.example.com", "https://app.example.com?x", "https://app.example.com#x", "https://app.example.com:", "https://app.example.com:0",
		"https://app.example.com:65536", "https://app.example.com:+1", "https://a..example.com", "https://bücher.example", "https://*", "https://*.", "https://*.*.com",
		"https://a.*.example.com", "*.example.com", "*://example.com", "https://*.127.0.0.1", "https://*.[::1]", "https://[::1", "https://::1", "https://[127.0.0.1]",
		"https://[fe80::1%25eth0]", "wss://app.example.com", "ws://app.example.com", "https://app.example.com https://other.example.com", "https ://a", "1https://a.example",
		"https://" + strings.Repeat("a", 300), "https://a.example.com\n", " https://a.example.com",
	} {
		if p, err := websocket.ParseOriginPattern(text); err == nil {
			t.Errorf("%q is read as %s; want an error", text, p)
		}
	}
}

func patterns(t *testing.T, texts ...string) []websocket.OriginPattern {
	t.Helper()
	var all []websocket.OriginPattern
	for _, text := range texts {
		p, err := websocket.ParseOriginPattern(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// A page whose origin may not connect is refused before anybody looks at its
// user's credentials.
func TestAllowedOrigins(t *testing.T) {
	listed := &websocket.Origins{Patterns: patterns(t, "https://app.example.com", "https://*.example.org", "http://[::1]:3000", "capacitor://localhost", "https://d.example.com:8443"), Setting: "allowedOrigins"}
	loopback := &websocket.Origins{Loopback: true}
	own := &websocket.Origins{Own: true}
	for _, c := range []struct {
		name    string
		allowed *websocket.Origins
		pass    []string
		refuse  []string
		says    string
	}{
		{"no choice", nil, []string{"https://eve.example", "null", "?"}, nil, ""},
		{"a list", listed,
			[]string{"", "https://app.example.com", "https://app.example.com:443", "HTTPS://APP.EXAMPLE.COM", "https://a.example.org", "https://a.b.example.org", "http://[::1]:3000", "capacitor://localhost", "https://d.example.com:8443"},
			[]string{"null", "https://eve.example", "http://app.example.com", "https://app.example.com:8443", "https://app.example.com.", "https://app.example.com.eve.example", "https://eveapp.example.com",
				"https://example.org", "https://eveexample.org", "https://a.example.org:444", "http://[::1]", "http://localhost", "capacitor://localhost:1", "file://", "https://app.example.com/", "https://app.example.com ", "https://d.example.com",
				"https://app.example.com https://eve.example", "https://eve.example, https://app.example.com", "https://" + strings.Repeat("a", 400)},
			"expected https://app.example.com, or https://*.example.org, or http://[::1]:3000, or one of 2 others. The setting allowedOrigins can allow it. [allowedOrigins]"},
		{"all", &websocket.Origins{Patterns: patterns(t, "*")}, []string{"https://eve.example", "null", "file://", "?"}, nil, ""},
		{"loopback", loopback,
			[]string{"", "http://localhost", "https://localhost:8443", "http://LOCALHOST:3000", "http://app.localhost:5173", "http://127.0.0.1:1", "http://127.8.9.10", "http://[::1]", "http://[::1]:3000", "http://[::ffff:127.0.0.1]"},
			[]string{"null", "https://eve.example", "http://localhost.eve.example", "http://notlocalhost", "http://127.0.0.1.eve.example", "http://128.0.0.1", "http://10.0.0.1", "http://0.0.0.0", "http://[::2]", "http://[::ffff:10.0.0.1]", "ftp://localhost", "capacitor://localhost", "http://2130706433"},
			"expected an origin of this machine, such as http://localhost:3000. The setting websocket.allowedOrigins can allow it. [websocket.allowedOrigins]"},
		{"its own", own,
			[]string{"", "http://rt.example.com", "http://rt.example.com:80", "http://RT.example.com"},
			[]string{"null", "https://rt.example.com", "http://rt.example.com:8080", "http://eve.example", "http://a.rt.example.com", "http://localhost"},
			`expected the service's own origin, "http://rt.example.com". The setting`},
		{"none", &websocket.Origins{}, []string{""}, []string{"null", "https://eve.example", "http://rt.example.com", "http://localhost"}, "expected none. The setting"},
	} {
		asked := false
		auth := transport.AuthenticatorFunc(func(context.Context, engine.Credentials) (engine.Identity, error) {
			asked = true
			return engine.Identity{}, engine.Errorf(engine.CodeUnauthenticated, "test", "Stop here.")
		})
		h := websocket.NewHandler(echoEngine(t, engine.Options{}), auth, &websocket.Options{
			AllowedOrigins: func(r websocket.OriginRequest) *websocket.Origins {
				if want := (websocket.OriginRequest{Hub: "chat", Token: true}); r != want {
					t.Errorf("asked for %+v, want %+v", r, want)
				}
				return c.allowed
			},
			Protocols: []websocket.Protocol{{Path: "/clients/other/hubs/", Name: "other"}},
		})
		for _, path := range []string{"/client/hubs/chat", "/client/?hub=chat", "/clients/other/hubs/chat"} {
			try := func(origins ...string) (int, string) {
				asked = false
				r := httptest.NewRequest("GET", path, nil)
				r.Host = "rt.example.com"
				r.Header = upgradeHeader("other")
				r.Header.Set("Authorization", "Bearer x")
				r.Header["Origin"] = origins
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				return w.Code, w.Body.String()
			}
			for _, origin := range c.pass {
				if status, said := try(origin); status != 401 || !asked {
					t.Errorf("%s, %s: %s is answered with %d %s; want it to pass", c.name, path, origin, status, said)
				}
			}
			for _, origin := range c.refuse {
				if status, said := try(origin); status != 403 || asked || !strings.Contains(said, c.says) || len(origin) < 64 && !strings.Contains(said, `"`+origin+`"`) {
					t.Errorf("%s, %s: %s is answered with %d %s(asked: %v); want 403, it, and %s", c.name, path, origin, status, said, asked, c.says)
				}
			}
			if c.refuse != nil {
				if status, said := try("http://localhost", "https://app.example.com"); status != 403 || asked || !strings.Contains(said, "2 Origin headers") {
					t.Errorf("%s, %s: two headers are answered with %d %s", c.name, path, status, said)
				}
			}
		}
	}
}

// What a choice of origins can depend on does not depend on what any page can add
// to its request.
func TestOriginRequest(t *testing.T) {
	var saw []websocket.OriginRequest
	auth := transport.AuthenticatorFunc(func(context.Context, engine.Credentials) (engine.Identity, error) {
		return engine.Identity{}, engine.Errorf(engine.CodeUnauthenticated, "test", "Stop here.")
	})
	h := websocket.NewHandler(echoEngine(t, engine.Options{}), auth, &websocket.Options{
		AllowedOrigins: func(r websocket.OriginRequest) *websocket.Origins {
			saw = append(saw, r)
			return &websocket.Origins{}
		},
		Protocols: []websocket.Protocol{{Path: "/clients/other/hubs/", Name: "other"}},
	})
	for target, token := range map[string]bool{
		"/client/hubs/chat":                                                       false,
		"/client/hubs/chat?access_token=":                                         false,
		"/client/hubs/chat?access_token=x":                                        true,
		"/client/hubs/chat?ACCESS_TOKEN=x":                                        true,
		"/client/hubs/chat?awps_connection_id=":                                   false,
		"/client/hubs/chat?awps_connection_id=x":                                  true, // whose own token is all the proof there is
		"/client/hubs/chat?awps_reconnection_token=x":                             false,
		"/clients/other/hubs/chat?awps_connection_id=x&awps_reconnection_token=x": false,
		"/clients/other/hubs/chat?access_token=x":                                 true,
	} {
		saw = nil
		r := httptest.NewRequest("GET", target, nil)
		r.Header = upgradeHeader("other")
		r.Header.Set("Origin", "https://eve.example")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 403 || len(saw) != 1 || saw[0] != (websocket.OriginRequest{Hub: "chat", Token: token}) {
			t.Errorf("%s: asked for %+v, answered with %d; want a token: %v, and 403", target, saw, w.Code, token)
		}
	}
}

// upgradeHeader returns the headers of a handshake.
func upgradeHeader(protocols string) http.Header {
	return http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {protocols},
	}
}
