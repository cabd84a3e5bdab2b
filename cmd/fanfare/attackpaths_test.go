package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/transport/client"
)

// attackPaths is what is tried by names: in tokens, in paths of REST and the identity
// API, and in what a request says of itself. Each row states the status, and the rule
// that the refused caller is told, or the operator where only the log says it.
func attackPaths(t *testing.T) {
	up := newUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Hub") == "renames" {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"userId":"ann\r\nX-Evil: 1"}`)
		}
	}
	handler := "{ eventHandlers: [ { urlTemplate: '" + up.URL + "', systemEvents: [connect] } ] }"
	key := keyOf("one")
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", "listen: 127.0.0.1:0\naccessKeys: { primary: '"+key+"' }\nhubs: { asked: "+handler+", renames: "+handler+" }\n"))
	tokenOf := func(path, sub string) string {
		return forged(`{"alg":"HS256"}`, fmt.Sprintf(`{"aud":"http://%s%s","exp":%d,"sub":"%s"}`, n.address, path, time.Now().Add(time.Hour).Unix(), sub), byHMAC([]byte(key)))
	}
	// as connects a client whose token has that sub, overMQTT asks for its upgrade.
	as := func(hub, sub string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			path := "/client/hubs/" + hub
			c, err := client.Dial(t.Context(), "ws://"+n.address+path+"?access_token="+tokenOf(path, sub), nil)
			return answered(t, c, err)
		}
	}
	overMQTT := func(sub string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			const path = "/clients/mqtt/hubs/plain"
			r, err := http.NewRequest("GET", "http://"+n.address+path+"?access_token="+tokenOf(path, sub), nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "mqtt",
			} {
				r.Header.Set(name, value)
			}
			reply, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer reply.Body.Close()
			if reply.StatusCode == http.StatusSwitchingProtocols {
				return reply.StatusCode, ""
			}
			text, _ := io.ReadAll(reply.Body)
			return reply.StatusCode, string(text)
		}
	}
	// rest calls the data plane with a token for another URL, or for its own.
	rest := func(line, aud string, headers ...string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			method, path, _ := strings.Cut(line, " ")
			if aud == "" {
				aud = path
			}
			r, err := http.NewRequest(method, "http://"+n.address+path, strings.NewReader(`{"groups":["g"]}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Authorization", "Bearer "+sign(t, key, "http://"+n.address+aud, time.Now().Add(time.Hour)))
			for i := 0; i < len(headers); i += 2 {
				r.Header.Set(headers[i], headers[i+1])
			}
			return answer(t, r, nil)
		}
	}
	signedWith := func(date, msDate time.Time, headers ...string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			r := newRequest(t, "http://"+n.address, "POST /identities", "")
			signing{key: key, at: date}.sign(t, r, "")
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "=x-ms-date;", "=date;", 1))
			r.Header.Set("Date", date.UTC().Format(http.TimeFormat))
			r.Header.Set("X-Ms-Date", msDate.UTC().Format(http.TimeFormat))
			for i := 0; i < len(headers); i += 2 {
				r.Header.Set(headers[i], headers[i+1])
			}
			return answer(t, r, nil)
		}
	}
	ask := func(path string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			r, err := http.NewRequest(http.MethodOptions, "http://"+n.address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Origin", "https://eve.example")
			r.Header.Set("Access-Control-Request-Method", "POST")
			return answer(t, r, nil)
		}
	}
	check := func(template string) func(t *testing.T) (int, string) {
		path := file(t, "fanfare.yaml", "hubs: { chat: { eventHandlers: [ { urlTemplate: '"+template+"', systemEvents: [connect] } ] } }\n")
		return func(t *testing.T) (int, string) {
			t.Helper()
			code, out, said := finish(t, nil, "check", "--config", path)
			return code, out + said
		}
	}
	const address = "a link-local or metadata address"
	now, old := time.Now(), time.Now().Add(-time.Hour)
	letIn(t, 101, as("plain", "ann"))
	letIn(t, 101, as("asked", "ann"))
	letIn(t, 101, overMQTT("ann"))
	letIn(t, 202, rest("POST /api/hubs/chat/groups/a%2Fb/:send", ""))
	letIn(t, 201, signedWith(now, old))
	rows := []attack{
		{"a user id of only an escape that is cut", as("plain", `\u001b`), 401, "token.sub"},
		{"a user id that ends a line, over MQTT", overMQTT(`ann\n`), 401, "token.sub"},
		{"a user id of a connect handler that ends a line", logged(n, "event.reply", as("renames", "ann")), 500, "event.reply"},
		{"a user in a path that ends a line", rest("POST /api/hubs/chat/users/a%0D%0AX-Evil:1/:send", ""), 400, "name.userId"},
		{"a user in a path with an escape", rest("PUT /api/hubs/chat/users/%1B%5B2J/groups/g", ""), 400, "name.userId"},

		{"a token for a group whose name only looks like another's", rest("POST /api/hubs/chat/groups/a%2Fb/:send", "/api/hubs/chat/groups/a%252Fb/:send"), 401, "token.audience"},
		{"a token for a group's name, for its member", rest("PUT /api/hubs/chat/groups/a/connections/b", "/api/hubs/chat/groups/a%2Fconnections%2Fb"), 401, "token.audience"},
		{"a token for a member, for a group's name", rest("GET /api/hubs/chat/groups/a%2Fconnections%2Fb/connections", "/api/hubs/chat/groups/a/connections/b/connections"), 401, "token.audience"},
		{"a way out of the hub, escaped", rest("POST /api/hubs/chat%2F..%2Fother/:send", ""), 400, "name.hub"},

		{"a compressed message", rest("POST /api/hubs/chat/:send", "", "Content-Encoding", "gzip"), 415, "rest.contentEncoding"},
		{"a compressed list of groups", rest("POST /api/hubs/chat/:addToGroups", "", "Content-Encoding", "identity, br"), 415, "rest.contentEncoding"},
		{"a compressed request for a user", signedWith(now, now, "Content-Encoding", "deflate"), 415, "rest.contentEncoding"},

		{"a stale date beside a fresh one that is not signed", signedWith(old, now), 401, "signed.skew"},

		{"a page of another origin, to REST", ask("/api/hubs/chat/:send"), 403, "cors.allowedOrigins"},
		{"a page of another origin, to users", ask("/identities"), 403, "cors.allowedOrigins"},
		{"a page of another origin, to an exchange", ask("/access/entra/:exchangeAccessToken"), 403, "cors.allowedOrigins"},

		{"another metadata address", check("http://192.0.0.192/opc/"), exitFailed, address},
		{"another metadata address as IPv6", check("http://[::ffff:192.0.0.192]/opc/"), exitFailed, address},
		{"another metadata address by 6to4", check("http://[2002:c000:c0::1]/opc/"), exitFailed, address},
	}
	for name, c := range map[string]string{"CR": `a\rb`, "LF": `a\nX-Evil: 1`, "NUL": `ann\u0000`, "ESC": `\u001b[2J`} {
		rows = append(rows,
			attack{"a user id with " + name, as("plain", c), 401, "token.sub"},
			attack{"a user id with " + name + " where a handler is asked", as("asked", c), 401, "token.sub"})
	}
	attackAll(t, rows)
}
