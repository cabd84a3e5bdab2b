package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/transport/client"
)

// attack is a row of the table: what a stranger tries, the status of the refusal
// and the reason that it gives, by the rule where it has one.
type attack struct {
	name   string
	try    func(t *testing.T) (status int, said string)
	status int
	reason string
}

// TestAttack is the table of what strangers try on whole nodes, one door after the
// other. Each door first lets in what it gets without an attack, so that a refusal
// is that of the attack.
func TestAttack(t *testing.T) {
	t.Run("server door", attackServers)
	t.Run("client door", attackClients)
	t.Run("users", attackUsers)
	t.Run("issuer", attackIssuers)
	t.Run("key rotation", attackOldKeys)
	t.Run("client certificates", attackCertificates)
	t.Run("forwarded headers", attackForwarded)
	t.Run("settings", attackSettings)
	t.Run("event handlers", attackHandlers)
	t.Run("events", attackEvents)
	t.Run("secrets", attackSecrets)
	t.Run("listener", attackFront)
	t.Run("origins", attackOrigins)
	t.Run("handshake", attackHandshake)
	t.Run("reading", attackReading)
	t.Run("reload", attackReload)
	t.Run("paths", attackPaths)
}

func attackAll(t *testing.T, rows []attack) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			// As whole words: one rule's name may begin another's.
			reason := regexp.MustCompile(`\b` + regexp.QuoteMeta(row.reason) + `\b`)
			if status, said := row.try(t); status != row.status || !reason.MatchString(said) {
				t.Errorf("%d %s; want %d and %q", status, said, row.status, row.reason)
			}
		})
	}
}

// logged is an attack of which only the operator is told why it failed.
func logged(n *command, reason string, try func(t *testing.T) (int, string)) func(t *testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		before := len(n.err.String())
		status, _ := try(t)
		said := func() string { return n.err.String()[before:] }
		eventually(t, "the log says "+reason, func() bool { return strings.Contains(said(), reason) })
		return status, said()
	}
}

// eve is a server of the attacker's, which nobody should ever call. It has the
// public key of a pair that she made.
type eve struct {
	*httptest.Server
	calls atomic.Int64
}

var eveKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func newEve(t *testing.T) *eve {
	e := &eve{}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		e.calls.Add(1)
		w.Header().Set("WebHook-Allowed-Origin", "*")
		fmt.Fprintf(w, `{"keys":[%s]}`, eveJWK())
	}))
	t.Cleanup(func() {
		e.Close()
		if n := e.calls.Load(); n > 0 {
			t.Errorf("the attacker's server was called %d times", n)
		}
	})
	return e
}

func eveJWK() string {
	k := eveKey().PublicKey
	return fmt.Sprintf(`{"kty":"RSA","use":"sig","kid":"eve","n":%q,"e":%q}`,
		base64.RawURLEncoding.EncodeToString(k.N.Bytes()), base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.E)).Bytes()))
}

// signer makes a token's signature.
type signer func(signed string) []byte

func unsigned(string) []byte { return nil }

func byHMAC(secret []byte) signer {
	return func(signed string) []byte {
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(signed))
		return m.Sum(nil)
	}
}

func byRSA(key *rsa.PrivateKey) signer {
	return func(signed string) []byte {
		sum, err := jwt.SigningMethodRS256.Sign(signed, key)
		if err != nil {
			panic(err)
		}
		return sum
	}
}

// forged makes a token of texts that no library would write.
func forged(header, claims string, by signer) string {
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return signed + "." + base64.RawURLEncoding.EncodeToString(by(signed))
}

// loosened returns a token whose signature is another text for the same bytes: the
// last character's bits that stand for nothing are not zero.
func loosened(token string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := len(token) - 1
	return token[:last] + string(digits[strings.IndexByte(digits, token[last])|1])
}

// claimsOf returns the claims of a token as they are written.
func claimsOf(t *testing.T, token string) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// nested is JSON that is deep, and nothing else.
func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// atREST tries a token at the data plane.
func atREST(n *command, line, token string) func(t *testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		reply, body := call(t, n, line, token)
		return reply.StatusCode, body
	}
}

// asClient knocks at the client door, with a token in the query, the header, or both.
func asClient(n *command, query, header string) func(t *testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		o := &client.Options{}
		if header != "" {
			o.Header = http.Header{"Authorization": {"Bearer " + header}}
		}
		target := "ws://" + n.address + "/client/hubs/chat"
		if query != "" {
			target += "?access_token=" + query
		}
		c, err := client.Dial(t.Context(), target, o)
		return answered(t, c, err)
	}
}

// answered returns the status and the text that a client was refused with; 101
// if it was not.
func answered(t *testing.T, c *client.Client, err error) (int, string) {
	t.Helper()
	if err == nil {
		c.Close()
		return http.StatusSwitchingProtocols, ""
	}
	refused, ok := errors.AsType[*client.HandshakeError](err)
	if !ok {
		t.Fatal(err)
	}
	return refused.Status, refused.Body
}

// letIn expects what makes an attack fail to be the attack, and nothing else.
func letIn(t *testing.T, want int, try func(t *testing.T) (int, string)) {
	t.Helper()
	if status, said := try(t); status != want {
		t.Fatalf("without an attack: %d %s; want %d", status, said, want)
	}
}

// What is tried on a node that lets servers in by tokens of Entra ID, and by
// access keys too.
func attackServers(t *testing.T) {
	const send = "POST /api/hubs/chat/:send"
	d, e := newDirectoryServer(t), newEve(t)
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", d.settings("accessKeys: { primary: "+ownKey+" }\n")))
	n.err.wait(t, "the issuer's keys were read")
	good := d.token(t, entraOwner, nil)
	claims, header := claimsOf(t, good), `{"alg":"RS256","typ":"JWT","kid":"one"}`
	right := byRSA(entraKey())
	with := func(c jwt.MapClaims) func(*testing.T) (int, string) {
		return atREST(n, send, d.token(t, entraOwner, c))
	}
	raw := func(header, claims string, by signer) func(*testing.T) (int, string) {
		return atREST(n, send, forged(header, claims, by))
	}
	issuer := d.URL + "/" + entraTenant + "/v2.0"
	now := time.Now().Unix()

	public, err := x509.MarshalPKIXPublicKey(&entraKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	hs256 := `{"alg":"HS256","typ":"JWT","kid":"one"}`

	letIn(t, 202, atREST(n, send, good))
	letIn(t, 202, raw(header, claims, right))
	letIn(t, 202, atREST(n, send, serverToken(t, n, ownKey, "/api/hubs/chat/:send")))
	generated := generate(t, n, good)
	ann, err := enter(t, n, generated)
	if err != nil {
		t.Fatal(err)
	}
	mustReceive[client.Connected](t, ann)

	attackAll(t, []attack{
		{"no token", atREST(n, send, ""), 401, "token.missing"},
		{"a token in the query", atREST(n, send+"?access_token="+good, ""), 401, "token.missing"},
		{"alg none", raw(`{"alg":"none","typ":"JWT","kid":"one"}`, claims, unsigned), 401, "entra.alg"},
		{"alg nOnE, with a signature", raw(`{"alg":"nOnE","typ":"JWT","kid":"one"}`, claims, right), 401, "entra.alg"},
		{"no alg", raw(`{"typ":"JWT","kid":"one"}`, claims, right), 401, "entra.alg"},
		{"RS256 in the header, and no signature", raw(header, claims, unsigned), 401, "entra.signature"},
		{"HS256 by the RSA public key as PEM", raw(hs256, claims, byHMAC(asPEM)), 401, "token.signature"},
		{"HS256 by the RSA public key as DER", raw(hs256, claims, byHMAC(public)), 401, "token.signature"},
		{"HS256 by the RSA public key's modulus", raw(hs256, claims, byHMAC(entraKey().N.Bytes())), 401, "token.signature"},
		{"HS256 by an empty key", raw(hs256, claims, byHMAC(nil)), 401, "token.signature"},
		{"RS384", raw(`{"alg":"RS384","typ":"JWT","kid":"one"}`, claims, right), 401, "entra.alg"},
		{"a foreign kid", raw(`{"alg":"RS256","kid":"eve"}`, claims, byRSA(eveKey())), 401, "entra.kid"},
		{"a kid that is a path", raw(`{"alg":"RS256","kid":"../../../dev/null"}`, claims, byHMAC(nil)), 401, "entra.kid"},
		{"a foreign key under the issuer's kid", raw(header, claims, byRSA(eveKey())), 401, "entra.signature"},
		{"jku", raw(`{"alg":"RS256","kid":"one","jku":"`+e.URL+`/keys"}`, claims, byRSA(eveKey())), 401, "entra.signature"},
		{"jku with a kid of its own", raw(`{"alg":"RS256","kid":"eve","jku":"`+e.URL+`/keys"}`, claims, byRSA(eveKey())), 401, "entra.kid"},
		{"x5u", raw(`{"alg":"RS256","kid":"one","x5u":"`+e.URL+`/cert"}`, claims, byRSA(eveKey())), 401, "entra.signature"},
		{"a key in the header", raw(`{"alg":"RS256","kid":"one","jwk":`+eveJWK()+`}`, claims, byRSA(eveKey())), 401, "entra.signature"},
		{"critical extensions", raw(`{"alg":"RS256","kid":"one","crit":["b64"],"b64":false}`, claims, right), 401, "entra.crit"},
		{"another issuer", with(jwt.MapClaims{"iss": e.URL + "/" + entraTenant + "/v2.0"}), 401, "entra.issuer"},
		{"another tenant of the same issuer", with(jwt.MapClaims{"iss": d.URL + "/" + entraReader + "/v2.0", "tid": entraReader}), 401, "entra.issuer"},
		{"another tenant, only in tid", with(jwt.MapClaims{"tid": entraReader}), 401, "entra.tenant"},
		{"no tid", with(jwt.MapClaims{"tid": nil}), 401, "entra.tenant"},
		{"the tenant's name with something after it", with(jwt.MapClaims{"iss": issuer + "/"}), 401, "entra.issuer"},
		{"the tenant below another's host", with(jwt.MapClaims{"iss": "https://sts.windows.net.eve.example/" + entraTenant + "/"}), 401, "entra.issuer"},
		{"the tenant as a user of another's host", with(jwt.MapClaims{"iss": d.URL + "@eve.example/" + entraTenant + "/v2.0"}), 401, "entra.issuer"},
		{"the issuer of one version, the ver of the other", with(jwt.MapClaims{"ver": "1.0"}), 401, "entra.version"},
		{"an audience that begins alike", with(jwt.MapClaims{"aud": entra.Audience + ".eve.example"}), 401, "entra.audience"},
		{"an audience in other letter case", with(jwt.MapClaims{"aud": strings.ToUpper(entra.Audience)}), 401, "entra.audience"},
		{"audiences in one string", with(jwt.MapClaims{"aud": "https://graph.microsoft.com " + entra.Audience}), 401, "entra.audience"},
		{"an array of others' audiences", with(jwt.MapClaims{"aud": []string{"", "*", entra.Audience + "/"}}), 401, "entra.audience"},
		{"an empty array of audiences", with(jwt.MapClaims{"aud": []string{}}), 401, "entra.audience"},
		{"an array in the array of audiences", with(jwt.MapClaims{"aud": []any{[]string{entra.Audience}}}), 401, "entra.malformed"},
		{"an audience as an object", with(jwt.MapClaims{"aud": map[string]any{entra.Audience: true}}), 401, "entra.malformed"},
		{"no audience", with(jwt.MapClaims{"aud": nil}), 401, "entra.audience"},
		{"expired", with(jwt.MapClaims{"exp": now - 600}), 401, "entra.expired"},
		{"not yet valid", with(jwt.MapClaims{"nbf": now + 600}), 401, "entra.notyet"},
		{"exp that is null", with(jwt.MapClaims{"exp": nil}), 401, "entra.exp"},
		{"no exp", raw(header, strings.Replace(claims, `"exp":`, `"Exp":`, 1), right), 401, "entra.exp"},
		{"exp as a string", with(jwt.MapClaims{"exp": "9999999999"}), 401, "entra.malformed"},
		{"exp beyond all dates", with(jwt.MapClaims{"exp": json.Number("1e300")}), 401, "entra.malformed"},
		{"an ID token", with(jwt.MapClaims{"azp": nil}), 401, "entra.caller"},
		{"a token of 24 KiB", with(jwt.MapClaims{"x": strings.Repeat("x", 18<<10)}), 401, "token.length"},
		{"a token of 1 MiB", atREST(n, send, strings.Repeat("x", 1<<20)), 431, "Request Header Fields Too Large"},
		{"claims nested 4,000 deep", raw(header, `{"x":`+nested(4000)+`}`, byRSA(eveKey())), 401, "entra.malformed"},
		{"an audience nested 4,000 deep", raw(header, strings.Replace(claims, `"aud":`, `"aud":`+nested(4000)+`,"x":`, 1), right), 401, "entra.malformed"},
		{"claims that never end", raw(header, `{"x":`+strings.Repeat("[", 11000), right), 401, "entra.malformed"},
		{"a claim twice", raw(header, strings.Replace(claims, "{", `{"oid":"`+entraReader+`",`, 1), right), 401, "entra.malformed"},
		{"a claim twice, once in escapes", raw(header, strings.Replace(claims, "{", `{"\u006fid":"`+entraReader+`",`, 1), right), 401, "entra.malformed"},
		{"a header's member twice", raw(`{"alg":"HS256","alg":"RS256","kid":"one"}`, claims, right), 401, "token.malformed"},
		{"an access key's token for :generateToken", atREST(n, "POST /api/hubs/chat/:generateToken", serverToken(t, n, ownKey, "/api/hubs/chat/:generateToken")), 401, "accesskey.generatetoken"},
		{"an access key's token for another request", atREST(n, send, serverToken(t, n, ownKey, "/api/hubs/other/:send")), 401, "token.audience"},
		{"a client's token", atREST(n, send, generated), 401, "token.signature"},
		{"a client's token of an access key", atREST(n, send, sign(t, ownKey, "http://"+n.address+"/client/hubs/chat", time.Now().Add(time.Hour))), 401, "token.audience"},
		{"a signature with loose bits", atREST(n, send, loosened(good)), 401, "entra.malformed"},
		{"an access key's signature with loose bits", atREST(n, send, loosened(serverToken(t, n, ownKey, "/api/hubs/chat/:send"))), 401, "token.malformed"},
		{"a role that generates no tokens", atREST(n, "POST /api/hubs/chat/:generateToken", d.token(t, entraReader, nil)), 403, "entra.role"},
		{"a way from a role's hub into another", atREST(n, "GET /api/hubs/chat/../other/groups/g/connections", d.token(t, entraReader, nil)), 404, "rest.path"},
		{"a way from a role's hub into another, escaped", atREST(n, "GET /api/hubs/chat%2f..%2fother/groups/g/connections", d.token(t, entraReader, nil)), 400, "name.hub"},
		{"a role in another hub", atREST(n, "GET /api/hubs/other/groups/g/connections", d.token(t, entraReader, nil)), 403, "entra.role"},
		{"a role for something else", atREST(n, send, d.token(t, entraReader, nil)), 403, "entra.role"},
	})

	// Of all that was sent in these attacks nothing has come to anybody.
	letIn(t, 200, atREST(n, "PUT /api/hubs/chat/users/ann/groups/g", good))
	letIn(t, 202, atREST(n, "POST /api/hubs/chat/groups/g/:send", good))
	if m := mustReceive[client.Message](t, ann); m.Group != "g" {
		t.Errorf("an attack came through: %+v", m)
	}
}

// What is tried on the door of clients.
func attackClients(t *testing.T) {
	d, e := newDirectoryServer(t), newEve(t)
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", d.settings("accessKeys: { primary: "+ownKey+" }\n")))
	at, now := "http://"+n.address+"/client/hubs/chat", time.Now()
	good := sign(t, ownKey, at, now.Add(time.Hour))
	expired := sign(t, ownKey, at, now.Add(-time.Hour))
	claims, header := claimsOf(t, good), `{"alg":"HS256","typ":"JWT"}`
	right, foreign := byHMAC([]byte(ownKey)), byHMAC([]byte("eve-eve-eve-eve-eve-eve-eve-eve-eve-eve"))
	raw := func(header, claims string, by signer) func(*testing.T) (int, string) {
		return asClient(n, forged(header, claims, by), "")
	}
	// with replaces the text of one claim by another.
	with := func(name, value string) func(*testing.T) (int, string) {
		var c map[string]json.RawMessage
		if err := json.Unmarshal([]byte(claims), &c); err != nil {
			t.Fatal(err)
		}
		delete(c, name)
		if value != "" {
			c[name] = json.RawMessage(value)
		}
		changed, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		return raw(header, string(changed), right)
	}
	generated := generate(t, n, d.token(t, entraOwner, nil))
	generatedHeader, err := base64.RawURLEncoding.DecodeString(strings.Split(generated, ".")[0])
	if err != nil {
		t.Fatal(err)
	}

	for _, way := range []func(*testing.T) (int, string){asClient(n, good, ""), asClient(n, "", good), asClient(n, good, expired), asClient(n, generated, ""), raw(header, claims, right), with("x", "1")} {
		letIn(t, 101, way)
	}
	attackAll(t, []attack{
		{"no token", asClient(n, "", ""), 401, "token.missing"},
		{"a bad token in the query, a good one in the header", asClient(n, expired, good), 401, "token.expired"},
		{"a bad token and a good one in the query", asClient(n, expired+"&access_token="+good, ""), 401, "token.malformed"},
		{"a good token and a bad one in the query", asClient(n, good+"&Access_Token="+expired, ""), 401, "token.malformed"},
		{"a signature with loose bits", asClient(n, loosened(good), ""), 401, "token.malformed"},
		{"a signature with a line break", asClient(n, good[:len(good)-4]+"%0A"+good[len(good)-4:], ""), 401, "token.signature"},
		{"alg none", raw(`{"alg":"none"}`, claims, unsigned), 401, "token.alg"},
		{"alg none, with a signature", raw(`{"alg":"none"}`, claims, right), 401, "token.alg"},
		{"no signature", raw(header, claims, unsigned), 401, "token.signature"},
		{"a foreign signature", raw(header, claims, foreign), 401, "token.signature"},
		{"jku", raw(`{"alg":"HS256","jku":"`+e.URL+`/keys"}`, claims, foreign), 401, "token.signature"},
		{"x5u", raw(`{"alg":"HS256","x5u":"`+e.URL+`/cert"}`, claims, foreign), 401, "token.signature"},
		{"critical extensions", raw(`{"alg":"HS256","crit":["b64"],"b64":false}`, claims, right), 401, "token.malformed"},
		{"a token of Entra ID", asClient(n, d.token(t, entraOwner, jwt.MapClaims{"aud": at}), ""), 401, "token.alg"},
		{"HS256 by the RSA public key", raw(`{"alg":"HS256","kid":"one"}`, claims, byHMAC(x509.MarshalPKCS1PublicKey(&entraKey().PublicKey))), 401, "token.signature"},
		{"a generated token's kid, by an access key", raw(string(generatedHeader), claims, right), 401, "token.signature"},
		{"a token for REST", asClient(n, serverToken(t, n, ownKey, "/api/hubs/chat/:send"), ""), 401, "token.audience"},
		{"another hub's token", asClient(n, sign(t, ownKey, "http://"+n.address+"/client/hubs/other", now.Add(time.Hour)), ""), 401, "token.audience"},
		{"a hub whose name begins alike", with("aud", `"`+at+`ter"`), 401, "token.audience"},
		{"another hub's token with a way back", with("aud", `"http://`+n.address+`/client/hubs/other/../chat"`), 401, "token.audience"},
		{"another node's token", with("aud", `"http://eve.example/client/hubs/chat"`), 401, "token.audience"},
		{"a host that begins alike", with("aud", `"http://`+n.address+`.eve.example/client/hubs/chat"`), 401, "token.audience"},
		{"the host as a user of another", with("aud", `"http://`+n.address+`@eve.example/client/hubs/chat"`), 401, "token.audience"},
		{"an array of others' audiences", with("aud", `["","*","http://`+n.address+`"]`), 401, "token.audience"},
		{"an array in the array of audiences", with("aud", `[["`+at+`"]]`), 401, "token.audience"},
		{"an array with a number among the audiences", with("aud", `["`+at+`",1]`), 401, "token.audience"},
		{"no audience", with("aud", ""), 401, "token.audience"},
		{"expired", asClient(n, expired, ""), 401, "token.expired"},
		{"not yet valid", with("nbf", fmt.Sprint(now.Unix()+600)), 401, "token.notyet"},
		{"no exp", with("exp", ""), 401, "token.exp"},
		{"exp as a string", with("exp", `"9999999999"`), 401, "token.exp"},
		{"exp beyond all dates", with("exp", "1e300"), 401, "token.exp"},
		{"a user who is a list", with("sub", `["ann","bo"]`), 401, "token.sub"},
		{"a token of 24 KiB", with("x", `"`+strings.Repeat("x", 18<<10)+`"`), 401, "token.length"},
		{"claims nested 4,000 deep", with("x", nested(4000)), 401, "token.malformed"},
		{"claims that never end", raw(header, `{"x":`+strings.Repeat("[", 11000), right), 401, "token.malformed"},
		{"a claim twice", raw(header, strings.Replace(claims, "{", `{"sub":"root",`, 1), right), 401, "token.malformed"},
		{"a claim twice, once in escapes", raw(header, strings.Replace(claims, "{", `{"\u0073ub":"root",`, 1), right), 401, "token.malformed"},
		{"two texts of JSON", raw(header, claims+claims, right), 401, "token.malformed"},
	})
}

// What an issuer tries that was taken over, or whose name leads elsewhere.
func attackIssuers(t *testing.T) {
	e := newEve(t)
	judged := func(says string, answer http.HandlerFunc) func(*testing.T) (int, string) {
		d := &directoryServer{Server: httptest.NewServer(answer)}
		t.Cleanup(d.Close)
		n := startNode(t, nil, "--config", file(t, "fanfare.yaml", d.settings("")))
		n.err.wait(t, says)
		return atREST(n, "POST /api/hubs/chat/:send", d.token(t, entraOwner, nil))
	}
	keysAt := func(url string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			json.NewEncoder(w).Encode(map[string]any{"issuer": "http://" + r.Host + "/" + entraTenant + "/v2.0", "jwks_uri": url})
		}
	}
	attackAll(t, []attack{
		{"a document that is elsewhere", judged("answered 307", http.RedirectHandler(e.URL, http.StatusTemporaryRedirect).ServeHTTP), 503, "entra.keys"},
		{"keys at a metadata service", judged("link-local", keysAt("https://169.254.169.254/keys")), 503, "entra.keys"},
		{"keys without TLS", judged("http://192.0.2.1", keysAt("http://192.0.2.1/keys")), 503, "entra.keys"},
	})
}

// What those try who had a key once.
func attackOldKeys(t *testing.T) {
	const newKey = "new-new-new-new-new-new-new-new-new-new"
	settings := func(primary string) string {
		return "listen: 127.0.0.1:0\naccessKeys: { primary: " + primary + " }\n"
	}
	path := file(t, "fanfare.yaml", settings(ownKey))
	n := startNode(t, nil, "--config", path)
	token := sign(t, ownKey, "http://"+n.address+"/client/hubs/chat", time.Now().Add(time.Hour))
	letIn(t, 101, asClient(n, token, ""))
	letIn(t, 202, atREST(n, "POST /api/hubs/chat/:send", serverToken(t, n, ownKey, "/api/hubs/chat/:send")))
	reread(t, n, path, settings(newKey))
	letIn(t, 202, atREST(n, "POST /api/hubs/chat/:send", serverToken(t, n, newKey, "/api/hubs/chat/:send")))
	attackAll(t, []attack{
		{"a client's token from before", asClient(n, token, ""), 401, "token.signature"},
		{"a server's token of the key before", atREST(n, "POST /api/hubs/chat/:send", serverToken(t, n, ownKey, "/api/hubs/chat/:send")), 401, "token.signature"},
		{"the development key", atREST(n, "POST /api/hubs/chat/:send", serverToken(t, n, accesskey.DevelopmentKey, "/api/hubs/chat/:send")), 401, "token.signature"},
	})
}

// What is tried with certificates on a node that trusts one authority.
func attackCertificates(t *testing.T) {
	var nobody *person
	root := nobody.authority(t, "root")
	valid, revoked := root.issue(t, "ann", nil), root.issue(t, "ann", nil)
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", tlsNode(t, ", clientCertEnabled: true")+`hubs:
  plant: { clientCertificates: { caFile: `+file(t, "ca.pem", root.pem())+`, crlFile: `+file(t, "ca.crl", root.revokes(t, time.Hour, revoked))+` } }
`))
	shown := func(who *person) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			c, err := who.enter(t, n.address, "plant", "", client.Options{})
			return answered(t, c, err)
		}
	}
	letIn(t, 101, shown(valid))
	attackAll(t, []attack{
		{"none", shown(nobody), 401, "token.missing"},
		{"expired", shown(root.issue(t, "ann", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), 401, "clientcert.expired"},
		{"not yet valid", shown(root.issue(t, "ann", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })), 401, "clientcert.notyet"},
		{"self-signed", shown(nobody.issue(t, "ann", nil)), 401, "clientcert.authority"},
		{"of another authority", shown(nobody.authority(t, "foreign").issue(t, "ann", nil)), 401, "clientcert.authority"},
		{"of another authority of the same name", shown(nobody.authority(t, "root").issue(t, "ann", nil)), 401, "clientcert.authority"},
		{"signed by a client", shown(valid.issue(t, "root", nil)), 401, "clientcert.authority"},
		{"a server's", shown(root.issue(t, "ann", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), 401, "clientcert.usage"},
		{"revoked", shown(revoked), 401, "clientcert.revoked"},
		{"a valid one beside a bad token", func(t *testing.T) (int, string) {
			c, err := valid.enter(t, n.address, "plant", "bad", client.Options{})
			return answered(t, c, err)
		}, 401, "token.malformed"},
	})
}

// What is tried with headers that proxies set.
func attackForwarded(t *testing.T) {
	var nobody *person
	root := nobody.authority(t, "root")
	ann := root.issue(t, "ann", nil)
	start := func(proxy string) *command {
		return startNode(t, nil, "--config", file(t, "fanfare.yaml", `listen: 127.0.0.1:0
trustedProxies: [`+proxy+`]
clientCertHeader: client-cert
hubs: { plant: { clientCertificates: { caFile: `+file(t, "ca.pem", root.pem())+` } } }
`))
	}
	wary, behind := start("192.0.2.1"), start("127.0.0.1")
	front := frontend(t, behind.address).Listener.Addr().String()
	certificate := http.Header{"Client-Cert": {":" + base64.StdEncoding.EncodeToString(ann.Raw) + ":"}}
	through := func(who *person, header http.Header) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			c, err := who.enter(t, front, "plant", "", client.Options{Header: header})
			return answered(t, c, err)
		}
	}
	past := func(token string, header http.Header) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			c, err := client.Dial(t.Context(), "ws://"+wary.address+"/client/hubs/plant?access_token="+token, &client.Options{Header: header})
			return answered(t, c, err)
		}
	}
	elsewhere := sign(t, accesskey.DevelopmentKey, "https://rt.example.com/client/hubs/plant", time.Now().Add(time.Hour))
	letIn(t, 101, through(ann, nil))
	attackAll(t, []attack{
		{"a certificate, past the proxy", past("", certificate), 401, "token.missing"},
		{"a certificate, through the proxy", through(nobody, certificate), 401, "token.missing"},
		{"a certificate beside one's own, through the proxy", through(nobody.issue(t, "eve", nil), certificate), 401, "clientcert.authority"},
		{"another node's host, past the proxy", past(elsewhere, http.Header{"X-Forwarded-Host": {"rt.example.com"}, "X-Forwarded-Proto": {"https"}}), 401, "token.audience"},
	})
}

// What a node does not start with: whoever may write a URL into its settings has
// not the run of its network.
func attackSettings(t *testing.T) {
	judge := func(template, more string) func(*testing.T) (int, string) {
		path := file(t, "fanfare.yaml", `identity: { type: SystemAssigned }
hubs: { chat: { eventHandlers: [ { urlTemplate: "`+template+`", systemEvents: [connect]`+more+` } ] } }
`)
		return func(t *testing.T) (int, string) {
			t.Helper()
			code, out, said := finish(t, nil, "check", "--config", path)
			return code, out + said
		}
	}
	check := func(template string) func(*testing.T) (int, string) { return judge(template, "") }
	bearer := func(template string) func(*testing.T) (int, string) {
		return judge(template, `, auth: { type: ManagedIdentity, managedIdentity: { resource: "api://handler" } }`)
	}
	vault := func(uri string) func(*testing.T) (int, string) {
		return check("https://handler.example/?code={@Microsoft.KeyVault(SecretUri=" + uri + ")}")
	}
	const param, address, foreign = "has a parameter in its host part", "a link-local or metadata address", "it is none of Azure's"
	letIn(t, exitOK, check("https://handler.example/{hub}/{event}"))
	letIn(t, exitOK, bearer("https://192.0.2.1/"))
	letIn(t, exitOK, vault("https://ours.vault.azure.net/secrets/code"))
	attackAll(t, []attack{
		{"a host that is the hub", check("https://{hub}/"), exitFailed, param},
		{"a host that begins with the event", check("https://{event}.handler.example/"), exitFailed, param},
		{"a port that is the event", check("https://handler.example:{event}/"), exitFailed, param},
		{"a user that is the event", check("https://{event}@handler.example/"), exitFailed, param},
		{"a link-local host", check("http://169.254.169.254/metadata"), exitFailed, address},
		{"a link-local host as IPv6", check("http://[::ffff:169.254.169.254]/metadata"), exitFailed, address},
		{"a link-local host by NAT64", check("http://[64:ff9b::a9fe:a9fe]/metadata"), exitFailed, address},
		{"Azure's platform endpoint", check("http://168.63.129.16/"), exitFailed, address},
		{"a user before the host", check("https://handler.example@eve.example/"), exitFailed, "and no user name or password"},
		{"a file", check("file:///etc/passwd"), exitFailed, "neither http nor https"},
		{"a token in clear text to another machine", bearer("http://192.0.2.1/"), exitFailed, "A bearer token is sent to an event handler over https"},
		{"a vault elsewhere", vault("https://eve.example/secrets/code"), exitFailed, foreign},
		{"a vault whose host begins alike", vault("https://ours.vault.azure.net.eve.example/secrets/code"), exitFailed, foreign},
		{"a vault whose host ends alike", vault("https://evilvault.azure.net/secrets/code"), exitFailed, foreign},
		{"a vault at a link-local address", vault("https://169.254.169.254/secrets/code"), exitFailed, foreign},
		{"a vault as a user", vault("https://ours.vault.azure.net@eve.example/secrets/code"), exitFailed, "names no secret"},
		{"a vault without TLS", vault("http://ours.vault.azure.net/secrets/code"), exitFailed, "names no secret"},
	})
}

// What event handlers try that were given up, or taken over: to have the token
// that is for them, or what is behind the node.
func attackHandlers(t *testing.T) {
	e, up := newEve(t), newUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, e.URL+"/handler", http.StatusTemporaryRedirect)
		}
	}
	gone := httptest.NewServer(http.RedirectHandler(e.URL+"/handler", http.StatusTemporaryRedirect))
	t.Cleanup(gone.Close)
	handler := func(at string) string {
		return `{ anonymousConnectPolicy: allow, eventHandlers: [ { urlTemplate: "` + at + `", systemEvents: [connect], auth: { type: ManagedIdentity } } ] }`
	}
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", `listen: 127.0.0.1:0
identity: { type: Local, defaultResource: "api://handler" }
hubs:
  good: `+handler(up.URL+"/stays")+`
  moved: `+handler(up.URL+"/moved")+`
  gone: `+handler(gone.URL)+`
`))
	enter := func(hub string) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			c, err := client.Dial(t.Context(), "ws://"+n.address+"/client/hubs/"+hub, nil)
			return answered(t, c, err)
		}
	}
	letIn(t, 101, enter("good"))
	if r := up.event(t, "connect"); !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") {
		t.Fatalf("the handler got Authorization %q", r.Header.Get("Authorization"))
	}
	attackAll(t, []attack{
		{"an event is sent on to another host", logged(n, "event.status", enter("moved")), 307, "event.status"},
		{"a client is sent on to another host", logged(n, "event.status", func(t *testing.T) (int, string) {
			location := "none came"
			d := ws.Dialer{Timeout: patience, OnHeader: func(name, value []byte) error {
				if strings.EqualFold(string(name), "Location") {
					location = string(value)
				}
				return nil
			}}
			_, _, _, err := d.Dial(t.Context(), "ws://"+n.address+"/client/hubs/moved")
			if location != "none came" {
				t.Errorf("the client is told where to: %s", location)
			}
			status, _ := errors.AsType[ws.StatusError](err)
			return int(status), ""
		}), 307, "event.status"},
		{"the validation is sent on to another host", logged(n, "event.validation", enter("gone")), 500, "event.validation"},
	})
	for range 2 {
		if r := up.event(t, "connect"); r.URL.Path != "/moved" || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") {
			t.Errorf("the handler that moved got %s %v", r.URL, r.Header)
		}
	}
}

// What is tried by secrets that supply a part of a URL, and by vaults.
func attackSecrets(t *testing.T) {
	e, v := newEve(t), newVault(t)
	v.moved = e.URL + "/secrets/code"
	up := newUpstream(t)
	v.set("/secrets/good/", up.URL)
	v.set("/secrets/metadata/", "http://169.254.169.254")
	v.set("/secrets/scheme/", "http://")
	handler := func(secret, rest string) string {
		return `{ anonymousConnectPolicy: allow, eventHandlers: [ { urlTemplate: "` + v.reference("/secrets/"+secret) + rest + `", systemEvents: [connect] } ] }`
	}
	path := file(t, "fanfare.yaml", v.settings(`
hubs:
  good: `+handler("good", "/{event}")+`
  metadata: `+handler("metadata", "/{event}")+`
  scheme: `+handler("scheme", "{hub}/")+`
  moved: `+handler("elsewhere", "/{event}")+`
`))
	n := startProcess(t, v.environ(t), "--config", path)
	enter := func(hub string) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			c, err := client.Dial(t.Context(), "ws://"+n.address+"/client/hubs/"+hub, nil)
			return answered(t, c, err)
		}
	}
	letIn(t, 101, enter("good"))
	attackAll(t, []attack{
		{"a secret that is a metadata service's address", logged(n.command, "event.address", enter("metadata")), 500, "event.address"},
		{"a secret that makes the hub's name the host", logged(n.command, "event.template", enter("scheme")), 500, "event.template"},
		{"a vault that sends its reader on to another host", logged(n.command, "event.secret", enter("moved")), 500, "event.secret"},
	})
	if len(v.wrong) > 0 {
		t.Errorf("the vault got %v", v.wrong)
	}
}
