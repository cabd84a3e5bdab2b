package token_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

const (
	secret   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH"
	other    = "another-key-of-at-least-thirty-two-bytes"
	endpoint = "http://localhost:8080/client/hubs/chat"
)

var key = token.NewKey([]byte(secret))

// keys are the keys of a test, whatever the key id.
type keys []*token.Key

func (k keys) Keys(string) []*token.Key { return k }

func mint(tb testing.TB, c token.Claims) string {
	tb.Helper()
	text, err := token.Mint(key, c)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// sign makes a token by hand, of any header and payload, with HMAC-SHA256.
func sign(header, payload, secret string) string {
	signed := enc(header) + "." + enc(payload)
	sum, err := jwt.SigningMethodHS256.Sign(signed, []byte(secret))
	if err != nil {
		panic(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sum)
}

func enc(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

const plainHeader = `{"alg":"HS256","typ":"JWT"}`

// claims returns a payload for the endpoint that is valid for an hour, with more
// members put before the rest.
func claims(more string) string {
	return fmt.Sprintf(`{%s"aud":%q,"exp":%d}`, more, endpoint, time.Now().Unix()+3600)
}

// read proves a token for a client of hub chat as the client schemes do.
func read(text string) (engine.Identity, error) {
	t, err := token.Verify(text, time.Now(), keys{key})
	if err != nil {
		return engine.Identity{}, err
	}
	if err := t.CheckAudience(engine.Credentials{Hub: "chat", Audience: endpoint}, nil); err != nil {
		return engine.Identity{}, err
	}
	return t.Identity()
}

func ruleOf(err error) string {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Rule
	}
	return fmt.Sprint(err)
}

// TestAttacks is what those who hold no key, or stretch one, may try.
func TestAttacks(t *testing.T) {
	now := time.Now().Unix()
	good := sign(plainHeader, claims(""), secret)
	if _, err := read(good); err != nil {
		t.Fatal(err)
	}
	at := func(i int) string { return strings.Split(good, ".")[i] }
	body := func(format string, args ...any) string {
		return sign(plainHeader, fmt.Sprintf(format, args...), secret)
	}
	for _, tt := range []struct{ name, text, rule string }{
		{"nothing", "", "token.missing"},
		{"no token", "secret", "token.malformed"},
		{"two parts", at(0) + "." + at(1), "token.malformed"},
		{"trailing dot", good + ".", "token.malformed"},
		{"five parts, as encrypted ones have", good + ".a.b", "token.malformed"},
		{"huge", good + strings.Repeat("A", token.MaxLength), "token.length"},
		{"only dots", "..", "token.malformed"},

		{"alg none", enc(`{"alg":"none","typ":"JWT"}`) + "." + at(1) + ".", "token.alg"},
		{"alg None with a good signature", sign(`{"alg":"None"}`, claims(""), secret), "token.alg"},
		{"alg RS256 signed by HMAC", sign(`{"alg":"RS256","typ":"JWT"}`, claims(""), secret), "token.alg"},
		{"alg hs256", sign(`{"alg":"hs256"}`, claims(""), secret), "token.alg"},
		{"alg HS512", sign(`{"alg":"HS512"}`, claims(""), secret), "token.alg"},
		{"alg missing", sign(`{"typ":"JWT"}`, claims(""), secret), "token.alg"},
		{"alg in an array", sign(`{"alg":["HS256"]}`, claims(""), secret), "token.alg"},
		{"alg twice", sign(`{"alg":"HS256","alg":"none"}`, claims(""), secret), "token.malformed"},
		{"alg twice, once escaped", sign(`{"alg":"HS256","\u0061lg":"none"}`, claims(""), secret), "token.malformed"},
		{"another type of token", sign(`{"alg":"HS256","typ":"at+jwt"}`, claims(""), secret), "token.typ"},
		{"a critical extension", sign(`{"alg":"HS256","crit":["b64"],"b64":false}`, claims(""), secret), "token.malformed"},
		{"kid that is no string", sign(`{"alg":"HS256","kid":{}}`, claims(""), secret), "token.malformed"},
		{"header is no object", sign(`[]`, claims(""), secret), "token.malformed"},
		{"header is no JSON", sign(`{"alg":"HS256"`, claims(""), secret), "token.malformed"},
		{"header with more behind", sign(plainHeader+"{}", claims(""), secret), "token.malformed"},
		{"deep header", sign(`{"alg":"HS256","x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`}`, claims(""), secret), "token.malformed"},

		{"signed with another key", sign(plainHeader, claims(""), other), "token.signature"},
		{"signed with the decoded key", sign(plainHeader, claims(""), decoded(secret)), "token.signature"},
		{"signed with no key", sign(plainHeader, claims(""), ""), "token.signature"},
		{"empty signature", at(0) + "." + at(1) + ".", "token.signature"},
		{"half a signature", good[:len(good)-20], "token.signature"},
		{"longer signature", good + "AAAA", "token.signature"},
		{"padded signature", good + "=", "token.signature"},
		{"another payload under the signature", at(0) + "." + enc(claims(`"sub":"root",`)) + "." + at(2), "token.signature"},
		{"another header under the signature", enc(`{"alg":"HS256"}`) + "." + at(1) + "." + at(2), "token.signature"},
		{"signature in the other alphabet", good[:len(good)-2] + "+/", "token.malformed"},
		{"signature not canonical", nonCanonical(good), "token.malformed"},
		{"line break in the signature", good[:len(good)-1] + "\n", "token.malformed"},

		{"payload not canonical", resign(at(0) + "." + at(1) + "A"), "token.malformed"},
		{"line break in the payload", resign(at(0) + "." + at(1)[:4] + "\n" + at(1)[4:]), "token.malformed"},
		{"payload is no object", body(`"x"`), "token.malformed"},
		{"payload is empty", resign(at(0) + "."), "token.malformed"},
		{"payload with more behind", sign(plainHeader, claims("")+" x", secret), "token.malformed"},
		{"payload is not UTF-8", sign(plainHeader, claims("\"x\":\"\xff\","), secret), "token.malformed"},
		{"half a surrogate pair", sign(plainHeader, claims(`"x":"\ud800",`), secret), "token.malformed"},
		{"deeply nested claim", sign(plainHeader, claims(`"x":`+strings.Repeat(`[`, 100)+strings.Repeat("]", 100)+","), secret), "token.malformed"},
		{"deeply nested objects", sign(plainHeader, claims(`"x":`+strings.Repeat(`{"a":`, 100)+"1"+strings.Repeat("}", 100)+","), secret), "token.malformed"},
		{"sub twice", sign(plainHeader, claims(`"sub":"ann","sub":"root",`), secret), "token.malformed"},
		{"exp twice", sign(plainHeader, claims(`"exp":99999999999,`), secret), "token.malformed"},
		{"aud twice, once escaped", sign(plainHeader, claims(`"\u0061ud":"x",`), secret), "token.malformed"},
		{"custom claim twice", sign(plainHeader, claims(`"x":null,"x":null,`), secret), "token.malformed"},

		{"expired", body(`{"aud":%q,"exp":%d}`, endpoint, now-301), "token.expired"},
		{"expired in 1970", body(`{"aud":%q,"exp":0}`, endpoint), "token.expired"},
		{"not yet valid", body(`{"aud":%q,"exp":%d,"nbf":%d}`, endpoint, now+9000, now+310), "token.notyet"},
		{"no exp", body(`{"aud":%q}`, endpoint), "token.exp"},
		{"exp null", body(`{"aud":%q,"exp":null}`, endpoint), "token.exp"},
		{"exp as a string", body(`{"aud":%q,"exp":"%d"}`, endpoint, now+60), "token.exp"},
		{"exp in an array", body(`{"aud":%q,"exp":[%d]}`, endpoint, now+60), "token.exp"},
		{"exp true", body(`{"aud":%q,"exp":true}`, endpoint), "token.exp"},
		{"exp negative", body(`{"aud":%q,"exp":-1}`, endpoint), "token.exp"},
		{"exp huge", body(`{"aud":%q,"exp":99999999999999999999999}`, endpoint), "token.exp"},
		{"exp infinite", body(`{"aud":%q,"exp":1e999}`, endpoint), "token.exp"},
		{"exp beyond int64 of seconds", body(`{"aud":%q,"exp":9223372036854775807}`, endpoint), "token.exp"},
		{"nbf as a string", body(`{"aud":%q,"exp":%d,"nbf":"0"}`, endpoint, now+60), "token.nbf"},
		{"nbf huge", body(`{"aud":%q,"exp":%d,"nbf":1e300}`, endpoint, now+60), "token.nbf"},

		{"no aud", body(`{"exp":%d}`, now+60), "token.audience"},
		{"aud null", body(`{"aud":null,"exp":%d}`, now+60), "token.audience"},
		{"aud empty", body(`{"aud":[],"exp":%d}`, now+60), "token.audience"},
		{"aud an object", body(`{"aud":{"x":%q},"exp":%d}`, endpoint, now+60), "token.audience"},
		{"aud nested", body(`{"aud":[[%q]],"exp":%d}`, endpoint, now+60), "token.audience"},
		{"aud among other things", body(`{"aud":[%q,5],"exp":%d}`, endpoint, now+60), "token.audience"},
		{"aud of others", body(`{"aud":["http://a/client/hubs/chat","x"],"exp":%d}`, now+60), "token.audience"},
		{"another hub's token", body(`{"aud":"http://localhost:8080/client/hubs/admin","exp":%d}`, now+60), "token.audience"},
		{"a server's token", body(`{"aud":"http://localhost:8080/api/hubs/chat/:send","exp":%d}`, now+60), "token.audience"},

		{"sub a number", sign(plainHeader, claims(`"sub":5,`), secret), "token.sub"},
		{"sub an array", sign(plainHeader, claims(`"sub":["ann"],`), secret), "token.sub"},
		{"sub an empty array", sign(plainHeader, claims(`"sub":[],`), secret), "token.sub"},
		{"sub blank", sign(plainHeader, claims(`"sub":"  ",`), secret), "token.sub"},
		{"sub too long", sign(plainHeader, claims(`"sub":"`+strings.Repeat("a", 1025)+`",`), secret), "token.sub"},
		{"sub with a carriage return", sign(plainHeader, claims(`"sub":"a\rb",`), secret), "token.sub"},
		{"sub with a line feed", sign(plainHeader, claims(`"sub":"a\nX-Evil: 1",`), secret), "token.sub"},
		{"sub with a line feed at its end", sign(plainHeader, claims(`"sub":"ann\n",`), secret), "token.sub"},
		{"sub with a NUL", sign(plainHeader, claims(`"sub":"ann\u0000",`), secret), "token.sub"},
		{"sub with an escape", sign(plainHeader, claims(`"sub":"\u001b[2Jann",`), secret), "token.sub"},
		{"sub with a tab", sign(plainHeader, claims(`"sub":"a\tb",`), secret), "token.sub"},
		{"sub with DEL", sign(plainHeader, claims(`"sub":"a\u007f",`), secret), "token.sub"},
		{"sub with CSI", sign(plainHeader, claims(`"sub":"a\u009b2J",`), secret), "token.sub"},
		{"role a number", sign(plainHeader, claims(`"role":5,`), secret), "token.role"},
		{"role with a null", sign(plainHeader, claims(`"role":["a",null],`), secret), "token.role"},
		{"group a number", sign(plainHeader, claims(`"webpubsub.group":5,`), secret), "token.group"},
		{"group blank", sign(plainHeader, claims(`"webpubsub.group":" ",`), secret), "token.group"},
		{"group empty", sign(plainHeader, claims(`"webpubsub.group":["a",""],`), secret), "token.group"},
		{"group null among groups", sign(plainHeader, claims(`"webpubsub.group":["a",null],`), secret), "token.group"},
		{"group too long", sign(plainHeader, claims(`"webpubsub.group":"`+strings.Repeat("a", 1025)+`",`), secret), "token.group"},
	} {
		id, err := read(tt.text)
		if err == nil {
			t.Errorf("%s: accepted as %+v", tt.name, id)
			continue
		}
		if ruleOf(err) != tt.rule {
			t.Errorf("%s: %v, want the rule %s", tt.name, err, tt.rule)
		}
		code := engine.CodeUnauthenticated
		if tt.rule == "token.group" {
			code = engine.CodeInvalid
		}
		if engine.CodeOf(err) != code {
			t.Errorf("%s: code %v, want %v", tt.name, engine.CodeOf(err), code)
		}
		var e *engine.Error
		errors.As(err, &e)
		if len(e.Message) < 20 || len(e.Message) > 1000 || len(e.Detail) > 1000 {
			t.Errorf("%s: message %q, detail %q", tt.name, e.Message, e.Detail)
		}
		if strings.Contains(e.Message+e.Detail, secret) {
			t.Errorf("%s: shows the key", tt.name)
		}
		if len(tt.text) > 60 && strings.Contains(e.Message+e.Detail, tt.text[len(tt.text)-40:]) {
			t.Errorf("%s: shows the signature", tt.name)
		}
	}
}

func decoded(key string) string {
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// resign puts a good signature behind what it is given.
func resign(signed string) string {
	sum, err := jwt.SigningMethodHS256.Sign(signed, []byte(secret))
	if err != nil {
		panic(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sum)
}

// nonCanonical sets unused bits in the last character of a signature: most
// decoders make the same bytes of it.
func nonCanonical(text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, text[len(text)-1])
	return text[:len(text)-1] + string(alphabet[last|1])
}

// TestAccepted is what real SDKs sign.
func TestAccepted(t *testing.T) {
	now := time.Now().Unix()
	for _, tt := range []struct{ name, text string }{
		{"Java: no typ", sign(`{"alg":"HS256"}`, claims(""), secret)},
		{"Python: typ first", sign(`{"typ":"JWT","alg":"HS256"}`, claims(""), secret)},
		{"a key id of one's own", sign(`{"alg":"HS256","kid":"mine","typ":"jwt"}`, claims(""), secret)},
		{"blanks", sign(" {\n\"alg\" : \"HS256\"\t}\r\n", "\n"+strings.ReplaceAll(claims(""), ",", " ,\n")+" ", secret)},
		{"expired within the skew", sign(plainHeader, fmt.Sprintf(`{"aud":%q,"exp":%d}`, endpoint, now-299), secret)},
		{"early within the skew", sign(plainHeader, fmt.Sprintf(`{"aud":%q,"exp":%d,"nbf":%d}`, endpoint, now+9, now+299), secret)},
		{"exp with a fraction", sign(plainHeader, fmt.Sprintf(`{"aud":%q,"exp":%d.75}`, endpoint, now+9), secret)},
		{"exp with an exponent", sign(plainHeader, fmt.Sprintf(`{"aud":%q,"exp":1e11}`, endpoint), secret)},
		{"the longest that can be asked for", sign(plainHeader, fmt.Sprintf(`{"aud":%q,"exp":%d}`, endpoint, now+2147483647*60), secret)},
		{"nbf null", sign(plainHeader, claims(`"nbf":null,`), secret)},
		{"null for nothing", sign(plainHeader, claims(`"sub":null,"role":null,"webpubsub.group":null,`), secret)},
		{"aud among others", sign(plainHeader, fmt.Sprintf(`{"aud":["x",%q],"exp":%d}`, endpoint, now+9), secret)},
		{"iat from the future", sign(plainHeader, claims(`"iat":99999999999,`), secret)},
		{"deep, but not too deep", sign(plainHeader, claims(`"x":`+strings.Repeat("[", 15)+strings.Repeat("]", 15)+","), secret)},
	} {
		if _, err := read(tt.text); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestIdentity(t *testing.T) {
	exp := time.Now().Unix() + 3600
	text := sign(plainHeader, fmt.Sprintf(`{"aud":%q,"exp":%d,"sub":"\u00fcser \ud83d\ude00/1","role":"webpubsub.sendToGroup",
		"webpubsub.group":["a","b\n"],"custom":["one","two"],"n":-1.5e3,"flag":true,"none":null,"empty":[],"obj":{"a":[1,"x"]},"mixed":["x",2,null,{"y":[]}],
		"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier":"u","nameid":"u","":"unnamed"}`, endpoint, exp), secret)
	id, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	want := engine.Identity{
		UserID: "üser \U0001F600/1", Roles: []string{"webpubsub.sendToGroup"}, Groups: []engine.GroupName{"a", "b\n"},
		Expires: time.Unix(exp, 0),
		Claims: map[string][]string{
			"aud": {endpoint}, "exp": {fmt.Sprint(exp)}, "sub": {"üser \U0001F600/1"}, "role": {"webpubsub.sendToGroup"},
			"webpubsub.group": {"a", "b\n"}, "custom": {"one", "two"}, "n": {"-1.5e3"}, "flag": {"true"}, "none": {""}, "empty": {},
			"obj": {`{"a":[1,"x"]}`}, "mixed": {"x", "2", "", `{"y":[]}`},
			"http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier": {"u"}, "nameid": {"u"}, "": {"unnamed"},
		},
	}
	if !reflect.DeepEqual(id, want) {
		t.Errorf("got  %+v\nwant %+v", id, want)
	}

	for _, tt := range []struct{ more, user, roles, groups string }{
		{``, "", "[]", "[]"},
		{`"sub":"",`, "", "[]", "[]"},
		{`"role":[],"webpubsub.group":"lobby",`, "", "[]", "[lobby]"},
		{`"role":["a","b"],"webpubsub.group":[],`, "", "[a b]", "[]"},
		{`"group":"lobby","roles":["x"],`, "", "[]", "[]"},
	} {
		id, err := read(sign(plainHeader, claims(tt.more), secret))
		if err != nil || string(id.UserID) != tt.user || fmt.Sprint(id.Roles) != tt.roles || fmt.Sprint(id.Groups) != tt.groups {
			t.Errorf("%s: %+v, %v", tt.more, id, err)
		}
	}
}

func TestAudience(t *testing.T) {
	const (
		escaped = "http://h:8080/client/hubs/a%5B1%5D.b%60"
		raw     = "http://h:8080/client/hubs/a[1].b`"
	)
	hosts := newHosts(t, "gw.example.com", "alias:9000")
	for _, tt := range []struct {
		aud, addressed string
		hub            engine.HubName
		ok             bool
	}{
		// Schemes, ports, case, query.
		{"https://h/client/hubs/chat", "ws://h/client/hubs/chat", "chat", true},
		{"wss://h/client/hubs/chat", "http://h:80/client/hubs/chat", "chat", true},
		{"ws://H:443/CLIENT/Hubs/CHAT", "http://h/client/hubs/Chat", "chat", true},
		{"http://h/client/hubs/chat?x=y", "http://h/client/hubs/chat", "chat", true},
		{"http://h/client/hubs/chat/", "http://h/client/hubs/chat", "chat", true},
		{"http://h/client/hubs/chat", "http://h/client/hubs/chat/", "chat", true},
		{"http://[::1]:80/client/hubs/chat", "ws://[::1]/client/hubs/chat", "chat", true},
		{"ftp://h/client/hubs/chat", "http://h/client/hubs/chat", "chat", false},
		{"//h/client/hubs/chat", "http://h/client/hubs/chat", "chat", false},
		{"h/client/hubs/chat", "http://h/client/hubs/chat", "chat", false},
		{"https://h:8443/client/hubs/chat", "https://h/client/hubs/chat", "chat", false},
		{"https://hclient/hubs/chat", "https://h/client/hubs/chat", "chat", false},
		{"https://h.evil/client/hubs/chat", "https://h/client/hubs/chat", "chat", false},
		{"https://evil@h/client/hubs/chat", "https://h/client/hubs/chat", "chat", false},
		// Hub names, raw and escaped.
		{raw, escaped, "a[1].b`", true},
		{escaped, raw, "a[1].b`", true},
		{raw, raw, "a[1].b`", true},
		{"http://h:8080/client/hubs/a{1}.b`", raw, "a[1].b`", false},
		// Other hubs and paths.
		{"http://h/client/hubs/chat", "http://h/client/hubs/admin", "admin", false},
		{"http://h/client/hubs/cha", "http://h/client/hubs/chat", "chat", false},
		{"http://h/client/hubs/chat2", "http://h/client/hubs/chat", "chat", false},
		{"http://h/client/hubs/chat/x", "http://h/client/hubs/chat", "chat", false},
		{"http://h/client/hubs", "http://h/client/hubs/chat", "chat", false},
		{"http://h/client/hubs/../hubs/chat", "http://h/client/hubs/chat", "chat", false},
		{"http://h//client/hubs/chat", "http://h/client/hubs/chat", "chat", false},
		{"http://h/client/hubs%2Fchat", "http://h/client/hubs/chat", "chat", false},
		{"http://h", "http://h/client/hubs/chat", "chat", false},
		{"http://h/?/client/hubs/chat", "http://h/client/hubs/chat", "chat", false},
		{"http://h/api/hubs/chat", "http://h/client/hubs/chat", "chat", false},
		// Other client doors, and a path before them all.
		{"http://h/clients/mqtt/hubs/chat", "http://h/clients/mqtt/hubs/chat", "chat", true},
		{"http://h/client/hubs/chat", "http://h/clients/mqtt/hubs/chat", "chat", false},
		{"http://h/clients/socketio/hubs/chat", "http://h/clients/socketio/hubs/chat/", "chat", true},
		{"http://h/rt/client/hubs/chat", "http://h/rt/client/hubs/chat", "chat", true},
		{"http://h/client/hubs/chat", "http://h/rt/client/hubs/chat", "chat", false},
		// The older form, whose hub is in the query.
		{"http://h/client/hubs/chat", "http://h/client/", "chat", true},
		{"http://h/client/hubs/chat", "http://h/client", "chat", true},
		{"http://h/client/hubs/admin", "http://h/client/", "chat", false},
		{"http://h/client/?hub=chat", "http://h/client/", "chat", false},
		{"http://h/client/hubs/client", "http://h/client/hubs/client", "client", true},
		{"http://h/client/hubs/client", "http://h/Client/Hubs/Client", "client", true},
		// The path must be this hub's, whatever the door says.
		{"http://h/client/hubs/chat", "http://h/client/hubs/chat", "admin", false},
		// Further hosts.
		{"https://gw.example.com/client/hubs/chat", "http://10.0.0.1:8080/client/hubs/chat", "chat", true},
		{"https://GW.example.com:443/client/hubs/chat", "http://10.0.0.1:8080/client/hubs/chat", "chat", true},
		{"https://gw.example.com:8443/client/hubs/chat", "http://10.0.0.1:8080/client/hubs/chat", "chat", false},
		{"https://alias:9000/client/hubs/chat", "http://10.0.0.1:8080/client/hubs/chat", "chat", true},
		{"https://alias/client/hubs/chat", "http://10.0.0.1:8080/client/hubs/chat", "chat", false},
		// A door that says nothing of use.
		{"http://h/client/hubs/chat", "", "chat", false},
		{"", "", "chat", false},
		{"/client/hubs/chat", "/client/hubs/chat", "chat", false},
	} {
		tok, err := token.Verify(mint(t, token.Claims{Audience: orX(tt.aud)}), time.Now(), keys{key})
		if err != nil {
			t.Fatal(err)
		}
		err = tok.CheckAudience(engine.Credentials{Hub: tt.hub, Audience: tt.addressed}, hosts)
		if (err == nil) != tt.ok {
			t.Errorf("aud %s at %s, hub %s: %v", tt.aud, tt.addressed, tt.hub, err)
		}
		if err != nil && ruleOf(err) != "token.audience" {
			t.Errorf("aud %s: rule %s", tt.aud, ruleOf(err))
		}
	}
	// The refusal says both sides.
	tok, err := token.Verify(mint(t, token.Claims{Audience: "http://a/client/hubs/b"}), time.Now(), keys{key})
	if err != nil {
		t.Fatal(err)
	}
	err = tok.CheckAudience(engine.Credentials{Hub: "chat", Audience: "http://h/client/"}, hosts)
	var e *engine.Error
	if !errors.As(err, &e) || e.Message != `The token is for "http://a/client/hubs/b"; here it must be for "http://h/client/hubs/chat".` ||
		!strings.Contains(e.Detail, "gw.example.com, alias:9000") {
		t.Errorf("%#v", err)
	}
}

func orX(aud string) string {
	if aud == "" {
		return "x"
	}
	return aud
}

// TestTimes runs through a token's life.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := mint(t, token.Claims{Audience: endpoint, Lifetime: 2 * time.Minute})
		for _, step := range []struct {
			wait time.Duration
			rule string
		}{
			{0, ""},
			{2*time.Minute + token.Skew, ""},
			{time.Second, "token.expired"},
		} {
			time.Sleep(step.wait)
			_, err := read(text)
			if err == nil && step.rule == "" {
				continue
			}
			if err == nil || ruleOf(err) != step.rule {
				t.Errorf("after another %s: %v, want %q", step.wait, err, step.rule)
			}
		}
	})
}

func TestMint(t *testing.T) {
	want := token.Claims{
		Audience: token.Audience("http://localhost:8080/", "chat"), User: "ann", Roles: []string{"webpubsub.sendToGroup.a", "b"},
		Groups: []engine.GroupName{"g", "h/ü"}, Lifetime: 7 * time.Minute, Issuer: "me", KeyID: "k",
		Custom: map[string][]string{"one": {"1"}, "two": {"1", "2"}, "none": {}},
	}
	text := mint(t, want)
	id, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	if id.UserID != want.User || !reflect.DeepEqual(id.Roles, want.Roles) || !reflect.DeepEqual(id.Groups, want.Groups) {
		t.Errorf("%+v", id)
	}
	for name, values := range want.Custom {
		if !reflect.DeepEqual(id.Claims[name], values) {
			t.Errorf("claim %s: %q", name, id.Claims[name])
		}
	}
	if left := time.Until(id.Expires); left < 6*time.Minute || left > 7*time.Minute {
		t.Errorf("expires in %s", left)
	}
	// Another library reads the same.
	var other jwt.MapClaims
	parsed, err := jwt.ParseWithClaims(text, &other, func(*jwt.Token) (any, error) { return []byte(secret), nil },
		jwt.WithAudience(endpoint), jwt.WithIssuer("me"), jwt.WithExpirationRequired(), jwt.WithValidMethods([]string{"HS256"}))
	if err != nil || parsed.Header["kid"] != "k" || other["sub"] != "ann" {
		t.Errorf("%v, %v, %v", parsed, other, err)
	}

	for name, c := range map[string]token.Claims{
		"mint.audience": {},
		"mint.lifetime": {Audience: "x", Lifetime: -time.Minute},
		"mint.claim":    {Audience: "x", Custom: map[string][]string{"sub": {"root"}}},
		"mint.length":   {Audience: "x", Custom: map[string][]string{"x": {strings.Repeat("x", token.MaxLength)}}},
	} {
		if text, err := token.Mint(key, c); err == nil || ruleOf(err) != name || engine.CodeOf(err) != engine.CodeInvalid {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
	if _, err := read(mint(t, token.Claims{Audience: endpoint, Lifetime: math.MaxInt64})); err != nil {
		t.Errorf("the longest lifetime: %v", err)
	}
	if _, err := token.Mint(key, token.Claims{Audience: "x", Lifetime: time.Millisecond}); ruleOf(err) != "mint.lifetime" {
		t.Errorf("a millisecond: %v", err)
	}
}

func TestKeysStayHidden(t *testing.T) {
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if out := fmt.Sprintf(verb, key); strings.Contains(out, secret[:8]) || strings.Contains(out, "65, 66") {
			t.Errorf("%s prints %s", verb, out)
		}
	}
}

func TestConcurrentVerify(t *testing.T) {
	good, bad := mint(t, token.Claims{Audience: endpoint, User: "ann"}), sign(plainHeader, claims(`"sub":"bo",`), other)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 300 {
				if id, err := read(good); err != nil || id.UserID != "ann" {
					t.Errorf("%v, %v", id, err)
					return
				}
				if _, err := read(bad); err == nil {
					t.Error("accepted a token of another key")
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzVerify has strangers send tokens: none without the key gets in.
func FuzzVerify(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	f.Add(sign(plainHeader, `{"aud":"x","exp":1800000000}`, other))
	f.Add(enc(`{"alg":"none"}`) + "." + enc(`{"aud":"x","exp":1800000000}`) + ".")
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, text string) {
		token.KeyID(text)
		tok, err := token.Verify(text, now, keys{key})
		if err == nil {
			t.Fatalf("%q was accepted: %+v", text, tok.Audience())
		}
		if code := engine.CodeOf(err); code != engine.CodeUnauthenticated || ruleOf(err) == "" {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// FuzzClaims has those who do hold a key send any payload: it is read as
// encoding/json reads it, or refused.
func FuzzClaims(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	for _, more := range []string{
		`"sub":"ann","role":["a"],"webpubsub.group":"g",`, `"x":{"y":[1,2.5e-7,true,null,"\u00e9\n"]},`, "\"x\" :\t\"\U0001F600\" ,",
		`"x":"\ud83d\ude00",`, `"x":01,`, `"x":[],"x":[],`, `"x":"` + "\x01" + `",`,
	} {
		f.Add(`{` + more + `"aud":"x","exp":1800000000}`)
	}
	f.Add(`{}`)
	f.Add(`{"aud":["a","b"],"exp":1.8e9,"nbf":0}`)
	f.Fuzz(func(t *testing.T, payload string) {
		tok, err := token.Verify(sign(plainHeader, payload, secret), now, keys{key})
		if err != nil {
			if engine.CodeOf(err) != engine.CodeUnauthenticated || ruleOf(err) == "" {
				t.Fatalf("%q: %v", payload, err)
			}
			return
		}
		var want map[string]any
		d := json.NewDecoder(strings.NewReader(payload))
		d.UseNumber() // in what a claim holds that nobody reads, a number may be of any size
		if err := d.Decode(&want); err != nil || !json.Valid([]byte(payload)) || !utf8.ValidString(payload) {
			t.Fatalf("%q was accepted, and encoding/json says %v", payload, err)
		}
		id, err := tok.Identity()
		if err != nil {
			if engine.CodeOf(err) != engine.CodeUnauthenticated && engine.CodeOf(err) != engine.CodeInvalid {
				t.Fatalf("%q: %v", payload, err)
			}
			return
		}
		if len(id.Claims) != len(want) {
			t.Fatalf("%q: %d claims, want %d", payload, len(id.Claims), len(want))
		}
		for name, v := range want {
			got := id.Claims[name]
			switch v := v.(type) {
			case string:
				if len(got) != 1 || got[0] != v {
					t.Fatalf("%q: claim %q is %q, want %q", payload, name, got, v)
				}
			case []any:
				if len(got) != len(v) {
					t.Fatalf("%q: claim %q is %q, want %v", payload, name, got, v)
				}
			default:
				if len(got) != 1 {
					t.Fatalf("%q: claim %q is %q, want %v", payload, name, got, v)
				}
			}
		}
		if sub, _ := want["sub"].(string); string(id.UserID) != sub {
			t.Fatalf("%q: user %q", payload, id.UserID)
		}
	})
}
