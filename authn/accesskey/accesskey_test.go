package accesskey_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

var ctx = context.Background()

func parseKey(t *testing.T, text string) accesskey.Key {
	t.Helper()
	k, err := accesskey.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func devRing(t *testing.T) *accesskey.Ring {
	return accesskey.NewRing(parseKey(t, accesskey.DevelopmentKey), parseKey(t, "secondary-key-0123456789"))
}

func newHosts(t *testing.T, hosts ...string) *authn.Hosts {
	t.Helper()
	h, err := authn.NewHosts(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// sign signs any claims as SDKs do: with the bytes of the key's text.
func sign(key string, claims jwt.MapClaims) string {
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(key))
	if err != nil {
		panic(err)
	}
	return text
}

func inAnHour() int64 { return time.Now().Add(time.Hour).Unix() }

func ruleOf(err error) string {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Rule
	}
	return fmt.Sprint(err)
}

func TestParseKey(t *testing.T) {
	for _, text := range []string{accesskey.DevelopmentKey, "x", "Ab+/=", "geheim mit Umlaut ä", accesskey.Generate().Reveal()} {
		if k, err := accesskey.ParseKey(text); err != nil || k.Reveal() != text {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", " s3cret", "s3cret\n", "a;b", "a\x00b", "a\u0085b", "\xff", strings.Repeat("x", 1025)} {
		_, err := accesskey.ParseKey(text)
		if ruleOf(err) != "accesskey.text" || engine.CodeOf(err) != engine.CodeInvalid {
			t.Errorf("%q: %v", text, err)
		}
		if len(text) > 2 && strings.Contains(err.Error(), text) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	if !parseKey(t, "short").Weak() || parseKey(t, accesskey.DevelopmentKey).Weak() {
		t.Error("Weak")
	}
}

func TestGenerate(t *testing.T) {
	a, b := accesskey.Generate(), accesskey.Generate()
	raw, err := base64.StdEncoding.DecodeString(a.Reveal())
	if err != nil || len(raw) != 32 || a == b || a.Weak() {
		t.Errorf("%d bytes, %v", len(raw), err)
	}
}

// A key gets into no output that did not ask for it.
func TestKeysStayHidden(t *testing.T) {
	k := parseKey(t, accesskey.DevelopmentKey)
	c := accesskey.ConnectionString{Endpoint: "http://h", Key: k}
	ring := devRing(t)
	var log strings.Builder
	l := slog.New(slog.NewJSONHandler(&log, nil))
	l.Info("x", "key", k, "conn", c, "ring", ring)
	l = slog.New(slog.NewTextHandler(&log, nil))
	l.Info("x", "key", k, "conn", c, "ring", ring)
	blob, err := json.Marshal([]any{k, c, &c, ring})
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(blob)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		out += fmt.Sprintf(verb, k) + fmt.Sprintf(verb, c) + fmt.Sprintf(verb, &c) + fmt.Sprintf(verb, ring) + fmt.Sprintf(verb, accesskey.NewClients(ring, nil))
	}
	if strings.Contains(out, accesskey.DevelopmentKey[:12]) {
		t.Errorf("the key shows in %s", out)
	}
}

func TestConnectionString(t *testing.T) {
	const key = "AccessKey=a+b/c==;"
	for _, tt := range []struct{ text, endpoint string }{
		{"Endpoint=https://host;" + key + "Version=1.0;", "https://host"},
		{"Endpoint=http://localhost:8080;" + key, "http://localhost:8080"},
		{"endpoint = https://Host.Example.COM:443/ ; ACCESSKEY = a+b/c== ", "https://host.example.com"},
		{key + "Port=8443;Endpoint=https://host:1234/;;", "https://host:8443"},
		{key + "Endpoint=http://host;Port=80", "http://host"},
		{key + "Endpoint=http://test/sub%20path/", "http://test/sub%20path"},
		{key + "Endpoint=http://[::1]:8080;Unknown=x", "http://[::1]:8080"},
	} {
		c, err := accesskey.ParseConnectionString(tt.text)
		if err != nil || c.Endpoint != tt.endpoint || c.Key.Reveal() != "a+b/c==" {
			t.Errorf("%s: %+v, %v", tt.text, c, err)
			continue
		}
		back, err := accesskey.ParseConnectionString(c.Reveal())
		if err != nil || back != c {
			t.Errorf("%s prints as %s: %+v, %v", tt.text, c.Reveal(), back, err)
		}
	}
	for _, tt := range []struct{ text, rule string }{
		{"", "connectionstring.endpoint"},
		{"Endpoint=https://h", "connectionstring.accesskey"},
		{"Endpoint=https://h;AccessKey=", "connectionstring.accesskey"},
		{key, "connectionstring.endpoint"},
		{key + "Endpoint=h", "connectionstring.endpoint"},
		{key + "Endpoint=localhost:8080", "connectionstring.endpoint"},
		{key + "Endpoint=ftp://h", "connectionstring.endpoint"},
		{key + "Endpoint=https://", "connectionstring.endpoint"},
		{key + "Endpoint=https://u:p@h", "connectionstring.endpoint"},
		{key + "Endpoint=https://h?x", "connectionstring.endpoint"},
		{key + "Endpoint=https://h:99999", "connectionstring.port"},
		{key + "Endpoint=https://h;Port=0", "connectionstring.port"},
		{key + "Endpoint=https://h;Port=x", "connectionstring.port"},
		{key + "Endpoint=https://h;endpoint=https://i", "connectionstring.twice"},
		{"Endpoint=https://h;" + accesskey.DevelopmentKey, "connectionstring.part"},
		{"Endpoint=https://h;AuthType=azure", "connectionstring.authtype"},
		{"Endpoint=https://h;AccessKey=" + accesskey.DevelopmentKey + "\x01x", "accesskey.text"},
	} {
		c, err := accesskey.ParseConnectionString(tt.text)
		if ruleOf(err) != tt.rule || engine.CodeOf(err) != engine.CodeInvalid {
			t.Errorf("%s: %v, %v, want %s", tt.text, c, err, tt.rule)
		} else if strings.Contains(err.Error(), "a+b") || strings.Contains(err.Error(), accesskey.DevelopmentKey) {
			t.Errorf("%s: the error shows the key: %v", tt.text, err)
		}
	}
}

func TestConnectionStringUse(t *testing.T) {
	for _, tt := range []struct{ endpoint, addr, url string }{
		{"https://h", "h:443", "wss://h/client/hubs/a%5B1%5D?access_token="},
		{"http://h:8080", "h:8080", "ws://h:8080/client/hubs/a%5B1%5D?access_token="},
		{"http://[::1]", "[::1]:80", "ws://[::1]/client/hubs/a%5B1%5D?access_token="},
		{"http://[::1]:81/p", "[::1]:81", "ws://[::1]:81/p/client/hubs/a%5B1%5D?access_token="},
	} {
		c, err := accesskey.ParseConnectionString("AccessKey=" + accesskey.DevelopmentKey + ";Endpoint=" + tt.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if c.Addr() != tt.addr {
			t.Errorf("%s: addr %s", tt.endpoint, c.Addr())
		}
		url, err := c.ClientURL("a[1]", token.Claims{User: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		text, ok := strings.CutPrefix(url, tt.url)
		if !ok {
			t.Errorf("%s: url %s", tt.endpoint, url)
			continue
		}
		audience, _, _ := strings.Cut(url, "?")
		id, err := accesskey.NewClients(devRing(t), nil).Authenticate(ctx, engine.Credentials{Hub: "a[1]", Audience: audience, Token: text})
		if err != nil || id.UserID != "ann" || id.Scheme != "AccessToken" {
			t.Errorf("%s: %+v, %v", tt.endpoint, id, err)
		}
		text, err = c.ServerToken(tt.endpoint + "/api/hubs/chat/:send?api-version=2024-12-01")
		if err != nil {
			t.Fatal(err)
		}
		path := "/api/hubs/chat/:send"
		if strings.HasSuffix(tt.endpoint, "/p") {
			path = "/p" + path
		}
		p, err := accesskey.NewServers(devRing(t), nil).Authorize(ctx, engine.ServerRequest{
			Method: "POST", Scheme: "http", Host: c.Host(), Target: path, Header: map[string][]string{"Authorization": {"Bearer " + text}},
		})
		if err != nil || p.ID != "primary" {
			t.Errorf("%s: %+v, %v", tt.endpoint, p, err)
		}
	}
}

// The signature of events, with values computed by other means.
func TestSignature(t *testing.T) {
	ring := devRing(t)
	const primary = "sha256=dd527c793428b58b71b037644217fc6bb0164a08513c39f37ac6c2cad55f9023"
	const secondary = "sha256=f146cb6dbedf9b0ee47d059cdb36ef94080a75e11f609bfcc86653f6b131992e"
	if got := ring.Signature("c1"); got != primary+","+secondary {
		t.Errorf("both keys: %s", got)
	}
	ring.SetLocalAuth(false)
	if got := ring.Signature("c1"); got != "" {
		t.Errorf("closed: %s", got)
	}
	ring.SetLocalAuth(true)
	ring.Set(ring.Primary(), accesskey.Key{})
	if got := ring.Signature("c1"); got != primary {
		t.Errorf("one key: %s", got)
	}
	ring.Set(accesskey.Key{}, accesskey.Key{})
	if got := ring.Signature("c1"); got != "" {
		t.Errorf("no key: %s", got)
	}
}

// Keys are exchanged one at a time, and each change takes effect at once.
func TestRotation(t *testing.T) {
	ring := devRing(t)
	clients := accesskey.NewClients(ring, nil)
	servers := accesskey.NewServers(ring, nil)
	const at = "http://h/client/hubs/chat"
	const url = "http://h/api/hubs/chat/:send"
	enter := func(key string) (string, error) {
		_, err := clients.Authenticate(ctx, engine.Credentials{Hub: "chat", Audience: at, Token: sign(key, jwt.MapClaims{"aud": at, "exp": inAnHour()})})
		p, err2 := servers.Authorize(ctx, engine.ServerRequest{
			Scheme: "http", Host: "h", Target: "/api/hubs/chat/:send",
			Header: map[string][]string{"Authorization": {"bearer  " + sign(key, jwt.MapClaims{"aud": url, "exp": inAnHour()}) + " "}},
		})
		if (err == nil) != (err2 == nil) {
			t.Errorf("clients: %v; servers: %v", err, err2)
		}
		return p.ID, err2
	}
	want := func(key, name string) {
		t.Helper()
		if got, err := enter(key); err != nil || got != name {
			t.Errorf("got %q, %v, want %s", got, err, name)
		}
	}
	refused := func(key, rule string) {
		t.Helper()
		if got, err := enter(key); ruleOf(err) != rule || engine.CodeOf(err) != engine.CodeUnauthenticated {
			t.Errorf("got %q, %v, want %s", got, err, rule)
		}
	}
	oldPrimary, oldSecondary := ring.Primary().Reveal(), ring.Secondary().Reveal()
	want(oldPrimary, "primary")
	want(oldSecondary, "secondary")
	refused("a key of somebody else", "token.signature")

	fresh := ring.RegeneratePrimary().Reveal()
	want(fresh, "primary")
	want(oldSecondary, "secondary")
	refused(oldPrimary, "token.signature")
	fresh2 := ring.RegenerateSecondary().Reveal()
	want(fresh2, "secondary")
	refused(oldSecondary, "token.signature")

	ring.SetLocalAuth(false)
	refused(fresh, "accesskey.disabled")
	if ring.LocalAuth() || len(ring.Keys("")) != 0 {
		t.Error("a closed ring has keys")
	}
	ring.SetLocalAuth(true)
	want(fresh, "primary")
	ring.Set(accesskey.Key{}, parseKey(t, fresh2))
	want(fresh2, "secondary")
	refused(fresh, "token.signature")
	ring.Set(accesskey.Key{}, accesskey.Key{})
	refused(fresh2, "accesskey.disabled")
	refused("", "accesskey.disabled") // an absent key is not an empty one
}

// Rotation under load: every handshake sees either the old keys or the new ones.
func TestRotationUnderLoad(t *testing.T) {
	ring := devRing(t)
	clients := accesskey.NewClients(ring, nil)
	const at = "http://h/client/hubs/chat"
	steady := sign(ring.Secondary().Reveal(), jwt.MapClaims{"aud": at, "exp": inAnHour()})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := clients.Authenticate(ctx, engine.Credentials{Hub: "chat", Audience: at, Token: steady}); err != nil {
					t.Errorf("the key that stays: %v", err)
					return
				}
				ring.Signature("c")
			}
		})
	}
	for range 200 {
		ring.RegeneratePrimary()
	}
	close(stop)
	wg.Wait()
}

// A generated token outlives the switch-off of access keys, but not the access
// key that its own key is derived from; and it opens no door to servers.
func TestIssuerKeys(t *testing.T) {
	ring := devRing(t)
	const at = "http://h/client/hubs/chat"
	issuer := token.NewIssuer(ring.IssuerKeys, nil)
	clients := authn.Clients(issuer, accesskey.NewClients(ring, nil), authn.Anonymous{})
	text, err := issuer.IssueClientToken(ctx, engine.Identity{UserID: "ann"}, at, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	enter := func() error {
		_, err := clients.Authenticate(ctx, engine.Credentials{Hub: "chat", Audience: at, Token: text})
		return err
	}
	if err := enter(); err != nil {
		t.Fatal(err)
	}
	// Another node with the same keys knows it too.
	if _, err := token.NewIssuer(devRing(t).IssuerKeys, nil).Authenticate(ctx, engine.Credentials{Hub: "chat", Audience: at, Token: text}); err != nil {
		t.Error(err)
	}
	// It proves no server, not even for a URL that it is for.
	server, err := issuer.IssueClientToken(ctx, engine.Identity{}, "http://h/api/hubs/chat/:send", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	_, err = accesskey.NewServers(ring, nil).Authorize(ctx, engine.ServerRequest{
		Scheme: "http", Host: "h", Target: "/api/hubs/chat/:send", Header: map[string][]string{"Authorization": {"Bearer " + server}},
	})
	if ruleOf(err) != "token.signature" {
		t.Errorf("a generated token as a server's: %v", err)
	}
	ring.SetLocalAuth(false)
	if err := enter(); err != nil {
		t.Errorf("with access keys switched off: %v", err)
	}
	ring.SetLocalAuth(true)
	ring.RegenerateSecondary()
	if err := enter(); err != nil {
		t.Errorf("after the other key changed: %v", err)
	}
	ring.RegeneratePrimary()
	if err := enter(); ruleOf(err) != "token.signature" {
		t.Errorf("after its key changed: %v", err)
	}
}

func TestClients(t *testing.T) {
	clients := accesskey.NewClients(devRing(t), newHosts(t, "gw.example.com"))
	const at = "ws://h:8080/client/hubs/chat"
	for _, tt := range []struct{ name, text, rule string }{
		{"ours", sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": "http://h:8080/client/hubs/CHAT", "exp": inAnHour()}), ""},
		{"by the gateway's name", sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": "https://gw.example.com/client/hubs/chat", "exp": inAnHour()}), ""},
		{"none", "", "token.missing"},
		{"another hub's", sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": "http://h:8080/client/hubs/x", "exp": inAnHour()}), "token.audience"},
		{"another host's", sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": "http://i:8080/client/hubs/chat", "exp": inAnHour()}), "token.audience"},
		{"a bad group", sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": at, "exp": inAnHour(), "webpubsub.group": " "}), "token.group"},
	} {
		_, err := clients.Authenticate(ctx, engine.Credentials{Hub: "chat", Audience: at, Token: tt.text})
		if err == nil && tt.rule == "" {
			continue
		}
		if ruleOf(err) != tt.rule || errors.Is(err, authn.ErrNotMine) != (tt.text == "") {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.rule)
		}
	}
}

func TestServersAudience(t *testing.T) {
	const page = "/api/hubs/chat/groups/g/connections"
	for _, tt := range []struct {
		target, aud string // what follows http://h; a whole URL stands for itself
		ok          bool
	}{
		// What SDKs sign: the whole URL.
		{"/api/hubs/chat/:send?api-version=2024-12-01&excluded=c%202", "/api/hubs/chat/:send?api-version=2024-12-01&excluded=c%202", true},
		{page + "?maxpagesize=1", "https://h" + page, true},
		{page + "?maxpagesize=1", "https://h:443" + page + "?maxpagesize=99", true},
		{page, "ws://H" + page + "/", true},
		{page + "/?maxpagesize=1", "http://h" + page, true},
		{page + "/", "wss://h" + page + "/child", true},
		{page, "http://h" + strings.ToUpper(page), true},
		{"http://h" + page + "?x", page, true},
		// Not this one.
		{page, "ftp://h" + page, false},
		{page, page + "Suffix", false},
		{page, page + "%253Fquery", false},
		{page, page + "%3Fquery", false},
		{page, page + "%2Fchild", false},
		{page, "/api/hubs/chat/groups/g", false},
		{page, "/api/hubs/chat/groups/h/connections", false},
		{page, "/api/hubs/admin/groups/g/connections", false},
		{page, "http://i" + page, false},
		{page, "http://h:8080" + page, false},
		{page, "http://h.evil" + page, false},
		{page, "http://x@h" + page, false},
		{page, "http://h", false},
		{page, "x?http://h" + page, false},
		{page, "https://webpubsub.azure.com", false},
		{"/", page, false},
		{"/", "", false},
		{"/", "/", true},
		// Escapes: the request's path decoded once, against the audience as it is
		// and decoded once.
		{"/api/hubs/chat/groups/room%2Fpart/connections", "/api/hubs/chat/groups/room%2Fpart/connections", true},
		{"/api/hubs/chat/groups/room%2fpart/connections", "/api/hubs/chat/groups/room%2Fpart/connections", true},
		{"/api/hubs/chat/groups/room%252Fpart/connections", "/api/hubs/chat/groups/room%252Fpart/connections", true},
		{"/api/hubs/chat/groups/room%252Fpart/connections", "/api/hubs/chat/groups/room%2Fpart/connections", true},
		{"/api/hubs/chat/groups/room%2Fpart/connections", "/api/hubs/chat/groups/room%252Fpart/connections", false}, // another group's
		{"/api/hubs/chat/groups/literal%2520value/connections", "/api/hubs/chat/groups/literal%20value/connections", true},
		{"/api/hubs/chat/groups/room%20name/connections", "/api/hubs/chat/groups/room name/connections", true},
		{"/api/hubs/chat/groups/room+part/connections", "/api/hubs/chat/groups/room+part/connections", true},
		{"/api/hubs/chat%5B1%5D/groups/room%2Fpart/connections", "/api/hubs/chat%5B1%5D/groups/room%2Fpart/connections", true},
		{"/api/hubs/chat%5B1%5D/groups/room+part/connections", "/api/hubs/chat%5b1%5d/groups/room+part/connections", true},
		{"/api/hubs/chat%5B1%5D/groups/room%3Fpart/connections?maxpagesize=1", "/api/hubs/chat%5B1%5D/groups/room%3Fpart/connections?maxpagesize=1", true},
		{"/api/hubs/chat%5B1%5D/groups/room%3Fpart/connections", "/api/hubs/chat[1]/groups/room?part/connections", true},
		{"/api/hubs/chat/groups/room%2Fpart/connections", "/api/hubs/chat/groups/room/part/connections", false},
		{"/api/hubs/chat/users/%C3%BC", "/api/hubs/chat/users/ü", true},
		// A token for a child opens its parent.
		{"/api/hubs/chat/connections/x", "/api/hubs/chat/connections/x/:send", true},
		{"/api/hubs/chat/connections/x/:send", "/api/hubs/chat/connections/x", false},
		// By another name.
		{page, "https://gw.example.com" + page, true},
		{page, "https://gw.example.com:8443" + page, false},
	} {
		aud := tt.aud
		if !strings.Contains(aud, "://") {
			aud = "http://h" + aud
		}
		_, err := accesskey.NewServers(devRing(t), newHosts(t, "gw.example.com")).Authorize(ctx, engine.ServerRequest{
			Method: "POST", Scheme: "http", Host: "h", Target: tt.target,
			Header: map[string][]string{"Authorization": {"Bearer " + sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": aud, "exp": inAnHour()})}},
		})
		if (err == nil) != tt.ok || err != nil && ruleOf(err) != "token.audience" {
			t.Errorf("%s for %s: %v", tt.target, aud, err)
		}
	}
}

func TestServers(t *testing.T) {
	const url = "http://h/api/hubs/chat/:generateToken"
	good := sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": []string{"x", url}, "exp": inAnHour()})
	for _, tt := range []struct {
		name    string
		headers []string
		rule    string
		notMine bool
	}{
		{"good", []string{"Bearer " + good}, "", false},
		{"lower case, and blanks", []string{"  bearer \t" + good + "  "}, "", false},
		{"no header", nil, "token.missing", true},
		{"empty header", []string{" "}, "token.missing", true},
		{"no token", []string{"Bearer"}, "token.missing", true},
		{"only blanks", []string{"Bearer   "}, "token.missing", true},
		{"another scheme", []string{"HMAC-SHA256 SignedHeaders=x"}, "token.missing", true},
		{"no scheme", []string{good}, "token.missing", true},
		{"two headers", []string{"Bearer " + good, "Bearer " + good}, "token.malformed", false},
		{"a comma", []string{"Bearer " + good + ", Bearer " + good}, "token.malformed", false},
		{"for Entra ID too", []string{"Bearer " + sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": []string{"https://webpubsub.azure.com", url}, "exp": inAnHour()})}, "token.audience", false},
		{"a client's", []string{"Bearer " + sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": "http://h/client/hubs/chat", "exp": inAnHour()})}, "token.audience", false},
		{"no exp", []string{"Bearer " + sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": url})}, "token.exp", false},
		{"expired", []string{"Bearer " + sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": url, "exp": time.Now().Add(-6 * time.Minute).Unix()})}, "token.expired", false},
		{"expired within the skew", []string{"Bearer " + sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": url, "exp": time.Now().Add(-4 * time.Minute).Unix()})}, "", false},
		{"early within the skew", []string{"Bearer " + sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": url, "exp": inAnHour(), "nbf": time.Now().Add(4 * time.Minute).Unix()})}, "", false},
	} {
		p, err := accesskey.NewServers(devRing(t), nil).Authorize(ctx, engine.ServerRequest{
			Method: "POST", Scheme: "http", Host: "h", Target: "/api/hubs/chat/:generateToken?api-version=2024-12-01",
			Header: map[string][]string{"Authorization": tt.headers},
		})
		if tt.rule == "" {
			if err != nil || p.ID != "primary" || p.Scheme != "AccessKey" {
				t.Errorf("%s: %+v, %v", tt.name, p, err)
				continue
			}
			if err := p.May(engine.ActionHubSend, "chat"); err != nil {
				t.Errorf("%s: may not send: %v", tt.name, err)
			}
			if err := p.May(engine.ActionGenerateToken, "chat"); engine.CodeOf(err) != engine.CodeUnauthenticated || ruleOf(err) != "accesskey.generatetoken" {
				t.Errorf("%s: may generate tokens: %v", tt.name, err)
			}
			continue
		}
		if ruleOf(err) != tt.rule || engine.CodeOf(err) != engine.CodeUnauthenticated || errors.Is(err, authn.ErrNotMine) != tt.notMine {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func FuzzParseConnectionString(f *testing.F) {
	f.Add("Endpoint=https://host;AccessKey=a+b/c==;Version=1.0;")
	f.Add("endpoint=http://[::1]:80/x%20y;accesskey=k;port=8080")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := accesskey.ParseConnectionString(text)
		if err != nil {
			if engine.CodeOf(err) != engine.CodeInvalid {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		back, err := accesskey.ParseConnectionString(c.Reveal())
		if err != nil || back != c {
			t.Fatalf("%q prints as %q: %+v, %v", text, c.Reveal(), back, err)
		}
		c.Addr()
	})
}

// FuzzAuthorize has strangers who know no key send any request.
func FuzzAuthorize(f *testing.F) {
	ring := accesskey.NewRing(accesskey.Generate(), accesskey.Generate())
	servers := accesskey.NewServers(ring, nil)
	f.Add("Bearer "+sign(accesskey.DevelopmentKey, jwt.MapClaims{"aud": "http://h/", "exp": 99999999999}), "h", "/")
	f.Add("Bearer x.y.z", "[::1]:443", "/%2F?x")
	f.Fuzz(func(t *testing.T, header, host, target string) {
		_, err := servers.Authorize(ctx, engine.ServerRequest{Scheme: "http", Host: host, Target: target, Header: map[string][]string{"Authorization": {header}}})
		if engine.CodeOf(err) != engine.CodeUnauthenticated {
			t.Fatalf("%q: %v", header, err)
		}
	})
}

// BenchmarkClients is a client's proof as the client door asks for it. With more
// goroutines it scales: nothing in it is locked.
func BenchmarkClients(b *testing.B) {
	k, err := accesskey.ParseKey(accesskey.DevelopmentKey)
	if err != nil {
		b.Fatal(err)
	}
	clients := accesskey.NewClients(accesskey.NewRing(k, accesskey.Generate()), nil)
	const at = "http://localhost:8080/client/hubs/chat"
	c := engine.Credentials{Hub: "chat", Audience: at, Token: sign(accesskey.DevelopmentKey, jwt.MapClaims{
		"aud": at, "exp": inAnHour(), "iat": time.Now().Unix(), "sub": "user-1",
		"role": []string{"webpubsub.sendToGroup", "webpubsub.joinLeaveGroup"}, "webpubsub.group": []string{"lobby"},
	})}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := clients.Authenticate(ctx, c); err != nil {
				b.Error(err)
			}
		}
	})
}
