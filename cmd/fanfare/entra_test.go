package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

const (
	entraTenant = "11111111-aaaa-4bbb-8ccc-222222222222"
	entraOwner  = "aaaaaaaa-0000-4000-8000-000000000001"
	entraReader = "bbbbbbbb-0000-4000-8000-000000000001"
	ownKey      = "own-own-own-own-own-own-own-own-own-own"
)

var entraKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// directoryServer is a tenant of Entra ID, on loopback and so without TLS.
type directoryServer struct {
	*httptest.Server
	down  atomic.Bool
	asked atomic.Int64
}

func newDirectoryServer(t *testing.T) *directoryServer {
	d := &directoryServer{}
	public := entraKey().PublicKey
	mux := http.NewServeMux()
	mux.HandleFunc("/"+entraTenant+"/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		d.asked.Add(1)
		json.NewEncoder(w).Encode(map[string]any{"issuer": d.URL + "/" + entraTenant + "/v2.0", "jwks_uri": d.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "use": "sig", "kid": "one",
			"n": base64.RawURLEncoding.EncodeToString(public.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(public.E)).Bytes()),
		}}})
	})
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(d.Close)
	return d
}

// token makes a token of the caller with the given object id.
func (d *directoryServer) token(t *testing.T, oid string, others jwt.MapClaims) string {
	t.Helper()
	now := time.Now().Unix()
	claims := jwt.MapClaims{
		"aud": entra.Audience, "iss": d.URL + "/" + entraTenant + "/v2.0", "nbf": now, "exp": now + 3600,
		"azp": "cccccccc-0000-4000-8000-000000000001", "oid": oid, "sub": oid, "tid": entraTenant, "ver": "2.0",
	}
	maps.Copy(claims, others)
	made := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
	made.Header["kid"] = "one"
	text, err := made.SignedString(entraKey())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// settings are those of a node that lets the owner and the reader in.
func (d *directoryServer) settings(more string) string {
	return fmt.Sprintf(`listen: 127.0.0.1:0
entra:
  tenantId: %s
  authority: %s
  roleAssignments:
    - { principalId: %s, role: Web PubSub Service Owner, hub: "*" }
    - { principalId: %s, role: Web PubSub Service Reader, hub: chat }
%s`, entraTenant, d.URL, entraOwner, entraReader, more)
}

// call sends a request to the data plane.
func call(t *testing.T, n *command, line, token string) (*http.Response, string) {
	t.Helper()
	method, path, _ := strings.Cut(line, " ")
	r, err := http.NewRequest(method, "http://"+n.address+path, strings.NewReader("hi"))
	if err != nil {
		t.Fatal(err)
	}
	if method != "POST" || strings.Contains(path, ":generateToken") {
		r.Body, r.ContentLength = http.NoBody, 0
	} else {
		r.Header.Set("Content-Type", "text/plain")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply, string(body)
}

// serverToken is a REST token that an access key signed.
func serverToken(t *testing.T, n *command, key, path string) string {
	t.Helper()
	c, err := accesskey.ParseConnectionString(strings.TrimPrefix(n.environ(key)[0], "FANFARE_CONNECTION_STRING="))
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.ServerToken(c.Endpoint + path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// generate asks the node for a client token.
func generate(t *testing.T, n *command, by string) string {
	t.Helper()
	reply, body := call(t, n, "POST /api/hubs/chat/:generateToken?userId=ann&minutesToExpire=5", by)
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(body), &made); err != nil || reply.StatusCode != 200 || made.Token == "" {
		t.Fatalf("no token was generated: %d %s", reply.StatusCode, body)
	}
	return made.Token
}

// enter connects a client with a token.
func enter(t *testing.T, n *command, token string) (*client.Client, error) {
	t.Helper()
	c, err := client.Dial(t.Context(), "ws://"+n.address+"/client/hubs/chat?access_token="+token, nil)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// reread makes the node read other settings.
func reread(t *testing.T, n *command, path, text string) {
	t.Helper()
	const done = "the settings were read again"
	before := strings.Count(n.err.String(), done)
	rewrite(t, path, text)
	n.signals <- syscall.SIGHUP
	eventually(t, done, func() bool { return strings.Count(n.err.String(), done) > before })
}

// A node without local authentication: servers come in by Entra ID and by nothing
// else, with exactly the rights that they have, and clients by the tokens that
// such a server has generated.
func TestEntra(t *testing.T) {
	d := newDirectoryServer(t)
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", d.settings("disableLocalAuth: true\naccessKeys: { primary: "+ownKey+" }\nlog: { level: debug }\nmetrics: { listen: 127.0.0.1:0 }\n")))
	if strings.Contains(n.err.String(), "REST has no way in") || !strings.Contains(n.out.String(), d.URL+"/"+entraTenant) {
		t.Errorf("the node says:\n%s%s", n.out, n.err)
	}
	owner, reader := d.token(t, entraOwner, nil), d.token(t, entraReader, nil)
	nobody := d.token(t, "99999999-0000-4000-8000-000000000001", jwt.MapClaims{"_claim_names": map[string]any{"groups": "src1"}})
	const send, list = "POST /api/hubs/chat/:send", "GET /api/hubs/chat/groups/g/connections"
	forbidden := func(action, rule string) string {
		return `{"code":"Error.Forbidden","message":"Microsoft.SignalRService/WebPubSub/` + action +
			` permission is required to access this API. Please check your role assignments.","details":[{"code":"` + rule + `","message":"`
	}
	for name, test := range map[string]struct {
		line, token string
		status      int
		rule, body  string
	}{
		"an owner sends":              {send, owner, 202, "", ""},
		"an owner in another hub":     {"POST /api/hubs/other/:send", owner, 202, "", ""},
		"an owner lists":              {list, owner, 200, "", `{"value":[],"nextLink":null}`},
		"a reader lists":              {list, reader, 200, "", `{"value":[],"nextLink":null}`},
		"a reader asks for a group":   {"HEAD /api/hubs/chat/groups/g", reader, 404, "", ""},
		"a reader sends":              {send, reader, 403, "entra.role", forbidden("hub/send/action", "entra.role")},
		"a reader sends to a group":   {"POST /api/hubs/chat/groups/g/:send", reader, 403, "entra.role", forbidden("group/send/action", "entra.role")},
		"a reader closes":             {"DELETE /api/hubs/chat/connections/c", reader, 403, "entra.role", forbidden("clientConnection/write", "entra.role")},
		"a reader asks for a token":   {"POST /api/hubs/chat/:generateToken", reader, 403, "entra.role", forbidden("clientConnection/generateToken/action", "entra.role")},
		"a reader in another hub":     {"GET /api/hubs/other/groups/g/connections", reader, 403, "entra.role", forbidden("group/read", "entra.role")},
		"somebody of too many groups": {list, nobody, 403, "entra.groups", forbidden("group/read", "entra.groups")},
		"an expired token":            {send, d.token(t, entraOwner, jwt.MapClaims{"exp": 1}), 401, "entra.expired", ""},
		"a token for another service": {send, d.token(t, entraOwner, jwt.MapClaims{"aud": "https://management.azure.com"}), 401, "entra.audience", ""},
		"a token of another tenant":   {send, d.token(t, entraOwner, jwt.MapClaims{"tid": entraReader}), 401, "entra.tenant", ""},
		"no token":                    {send, "", 401, "token.missing", ""},
		"an access key":               {send, serverToken(t, n, ownKey, "/api/hubs/chat/:send"), 401, "accesskey.disabled", ""},
		"the development key":         {send, serverToken(t, n, accesskey.DevelopmentKey, "/api/hubs/chat/:send"), 401, "accesskey.disabled", ""},
	} {
		t.Run(name, func(t *testing.T) {
			reply, body := call(t, n, test.line, test.token)
			if reply.StatusCode != test.status || !strings.HasPrefix(body, test.body) {
				t.Fatalf("got %d %s; want %d %s", reply.StatusCode, body, test.status, test.body)
			}
			if test.rule != "" && !strings.Contains(body, `"inner":{"code":"`+test.rule+`"}`) {
				t.Errorf("the body does not name %s: %s", test.rule, body)
			}
			challenge := reply.Header.Get("WWW-Authenticate")
			switch test.status {
			case 401:
				if !strings.HasPrefix(challenge, `Bearer error="invalid_token", error_description="`+test.rule+`: `) {
					t.Errorf("WWW-Authenticate: %s", challenge)
				}
			case 403:
				if challenge != "" || reply.Header.Get("X-Ms-Error-Code") != "Error.Forbidden" {
					t.Errorf("headers: %v", reply.Header)
				}
			}
		})
	}

	// Clients: by generated tokens alone.
	ann, err := enter(t, n, generate(t, n, owner))
	if err != nil {
		t.Fatalf("with a generated token: %v", err)
	}
	if hello := mustReceive[client.Connected](t, ann); hello.UserID != "ann" {
		t.Errorf("got %+v", hello)
	}
	at, later := "http://"+n.address+"/client/hubs/chat", time.Now().Add(time.Hour)
	for name, text := range map[string]string{
		"of an access key": sign(t, ownKey, at, later), "of the development key": sign(t, accesskey.DevelopmentKey, at, later), "of Entra ID": owner,
	} {
		if _, err := enter(t, n, text); !refusedWith(err, 401) {
			t.Errorf("a client with a token %s: %v; want 401", name, err)
		}
	}

	// The log has who it was, and never the token.
	log := n.err.wait(t, "entra.groups")
	for _, want := range []string{entraReader, "Web PubSub Service Reader in chat", "entra.audience", "accesskey.disabled", "the issuer's keys were read"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	for _, text := range []string{owner, reader, nobody} {
		for part := range strings.SplitSeq(text, ".") {
			if strings.Contains(log, part) && part != strings.SplitN(owner, ".", 2)[0] || strings.Contains(log, text) {
				t.Errorf("a token shows in the log")
			}
		}
	}
	got := samples(t, metricsAt.FindStringSubmatch(n.out.String())[1])
	for name, want := range map[string]float64{
		"fanfare_entra_keys": 1, "fanfare_entra_key_readings_total": 1, "fanfare_entra_key_reading_failures_total": 0,
		`fanfare_auth_refusals_total{door="rest",rule="entra.groups"}`: 1,
		`fanfare_auth_refusals_total{door="rest",rule="entra.role"}`:   5,
	} {
		if got[name] != want {
			t.Errorf("%s is %v; want %v", name, got[name], want)
		}
	}
	if n := d.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked %d times; want once", n)
	}
}

// Local authentication goes off and on again while the node runs: generated tokens
// work all the time, access keys while it is on, and nobody is thrown out. The
// issuer is not asked again.
func TestSwitchLocalAuth(t *testing.T) {
	d := newDirectoryServer(t)
	keys := "accessKeys: { primary: " + ownKey + " }\n"
	path := file(t, "fanfare.yaml", d.settings(keys))
	n := startNode(t, nil, "--config", path)
	owner := d.token(t, entraOwner, nil)
	generated := generate(t, n, owner)
	local := sign(t, ownKey, "http://"+n.address+"/client/hubs/chat", time.Now().Add(time.Hour))
	ann, err := enter(t, n, local)
	if err != nil {
		t.Fatal(err)
	}
	mustReceive[client.Connected](t, ann)

	for _, on := range []bool{true, false, true, false} {
		reread(t, n, path, d.settings(keys+fmt.Sprintf("disableLocalAuth: %t\n", !on)))
		if _, err := enter(t, n, generated); err != nil {
			t.Errorf("local authentication %t: a generated token: %v", on, err)
		}
		if _, err := enter(t, n, generate(t, n, owner)); err != nil {
			t.Errorf("local authentication %t: one generated now: %v", on, err)
		}
		if _, err := enter(t, n, local); on && err != nil || !on && !refusedWith(err, 401) {
			t.Errorf("local authentication %t: a token of the access key: %v", on, err)
		}
		reply, body := call(t, n, "POST /api/hubs/chat/:send", serverToken(t, n, ownKey, "/api/hubs/chat/:send"))
		if want := map[bool]int{true: 202, false: 401}[on]; reply.StatusCode != want {
			t.Errorf("local authentication %t: REST by access key: %d %s", on, reply.StatusCode, body)
		}
		if err := ann.Ping(t.Context()); err != nil {
			t.Errorf("local authentication %t: a connection was dropped: %v", on, err)
		}
	}
	if n := d.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked %d times; want once", n)
	}
}

// Without an access key of its own such a node still generates tokens, with a key
// that nobody has: not the development key, which everyone could forge them with.
func TestGeneratedTokensNeedNoAccessKey(t *testing.T) {
	d := newDirectoryServer(t)
	path := file(t, "fanfare.yaml", d.settings("disableLocalAuth: true\n"))
	n := startNode(t, nil, "--config", path)
	n.err.wait(t, "client tokens that this node generates end with its process")
	generated := generate(t, n, d.token(t, entraOwner, nil))
	n.signals <- syscall.SIGHUP // which changes no key
	n.err.wait(t, "the settings were read again")
	if _, err := enter(t, n, generated); err != nil {
		t.Errorf("a generated token: %v", err)
	}
	key, err := accesskey.ParseKey(accesskey.DevelopmentKey)
	if err != nil {
		t.Fatal(err)
	}
	forger := token.NewIssuer(accesskey.NewRing(key, accesskey.Key{}).IssuerKeys, nil)
	forged, err := forger.IssueClientToken(t.Context(), engine.Identity{UserID: "eve"}, "http://"+n.address+"/client/hubs/chat", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enter(t, n, forged); !refusedWith(err, 401) {
		t.Errorf("a token forged with the development key: %v; want 401", err)
	}
}

// A node starts while its issuer is out of reach: it says so, serves those with an
// access key, and tells the others to come again.
func TestEntraOutOfReach(t *testing.T) {
	d := newDirectoryServer(t)
	d.down.Store(true)
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", d.settings("accessKeys: { primary: "+ownKey+" }\n")))
	n.err.wait(t, "the issuer's keys cannot be read")
	reply, body := call(t, n, "POST /api/hubs/chat/:send", d.token(t, entraOwner, nil))
	if reply.StatusCode != 503 || !strings.Contains(body, "entra.keys") || reply.Header.Get("Retry-After") == "" {
		t.Errorf("a token of Entra ID: %d %s", reply.StatusCode, body)
	}
	if reply, body := call(t, n, "POST /api/hubs/chat/:send", serverToken(t, n, ownKey, "/api/hubs/chat/:send")); reply.StatusCode != 202 {
		t.Errorf("a token of an access key: %d %s", reply.StatusCode, body)
	}
}

// Roles, audiences and the tenant follow the file of a running node.
func TestEntraReload(t *testing.T) {
	d, other := newDirectoryServer(t), newDirectoryServer(t)
	path := file(t, "fanfare.yaml", d.settings(""))
	n := startNode(t, nil, "--config", path)
	want := func(name, token string, status int) {
		t.Helper()
		if reply, body := call(t, n, "POST /api/hubs/chat/:send", token); reply.StatusCode != status {
			t.Errorf("%s: %d %s; want %d", name, reply.StatusCode, body, status)
		}
	}
	want("the owner", d.token(t, entraOwner, nil), 202)
	want("the reader", d.token(t, entraReader, nil), 403)
	reread(t, n, path, strings.ReplaceAll(d.settings(""), "Service Reader", "Service Owner"))
	want("the reader, promoted", d.token(t, entraReader, nil), 202)
	reread(t, n, path, strings.ReplaceAll(d.settings(""), "  roleAssignments", "  audiences: [api://fanfare]\n  roleAssignments"))
	want("for the audience before", d.token(t, entraOwner, nil), 401)
	want("for the audience now", d.token(t, entraOwner, jwt.MapClaims{"aud": "api://fanfare"}), 202)
	if n := d.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked %d times; want once", n)
	}
	reread(t, n, path, other.settings(""))
	want("of the tenant before", d.token(t, entraOwner, nil), 401)
	want("of the tenant now", other.token(t, entraOwner, nil), 202)
	reread(t, n, path, "listen: 127.0.0.1:0\n")
	want("of no tenant any more", other.token(t, entraOwner, nil), 401)
}

// Both access keys are changed, one after the other, as operators rotate them: no
// connection is dropped, and a key that is gone opens no door from then on.
func TestRotateAccessKeys(t *testing.T) {
	key := func(name string) string { return strings.Repeat(name+"-", 10) }
	settings := func(primary, secondary string) string {
		return "listen: 127.0.0.1:0\naccessKeys: { primary: " + key(primary) + ", secondary: " + key(secondary) + " }\n"
	}
	path := file(t, "fanfare.yaml", settings("one", "two"))
	n := startNode(t, nil, "--config", path)
	clients := map[string]*client.Client{}
	// check tries every key at both doors, with a token made now.
	check := func(step string, good ...string) {
		t.Helper()
		for _, name := range []string{"one", "two", "three", "four"} {
			want := 401
			for _, g := range good {
				if g == name {
					want = 202
				}
			}
			reply, _ := call(t, n, "POST /api/hubs/chat/:send", serverToken(t, n, key(name), "/api/hubs/chat/:send"))
			if reply.StatusCode != want {
				t.Errorf("%s: REST by key %s: %d; want %d", step, name, reply.StatusCode, want)
			}
			c, err := enter(t, n, sign(t, key(name), "http://"+n.address+"/client/hubs/chat", time.Now().Add(time.Hour)))
			if want == 202 && err != nil || want == 401 && !refusedWith(err, 401) {
				t.Errorf("%s: a client by key %s: %v", step, name, err)
			}
			if err == nil {
				clients[step+" by "+name] = c
			}
		}
		for name, c := range clients {
			if err := c.Ping(t.Context()); err != nil {
				t.Errorf("%s: the client of %s was dropped: %v", step, name, err)
			}
		}
	}
	check("at first", "one", "two")
	reread(t, n, path, settings("three", "two"))
	check("with a new primary key", "three", "two")
	reread(t, n, path, settings("three", "four"))
	check("with a new secondary key", "three", "four")
	reread(t, n, path, settings("four", "three"))
	check("with both exchanged", "three", "four")
	if len(clients) != 8 {
		t.Errorf("%d clients came in; want 8", len(clients))
	}
}
