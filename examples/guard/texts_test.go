package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/entra"
)

const (
	tenant = "11111111-aaaa-4bbb-8ccc-222222222222"
	robot  = "aaaaaaaa-0000-4000-8000-000000000001" // may send
	eve    = "eeeeeeee-0000-4000-8000-000000000001" // may not
)

// directory is a small Entra ID: one tenant and one key.
type directory struct {
	*httptest.Server
	key *rsa.PrivateKey
}

func newDirectory(t *testing.T) *directory {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	d := &directory{key: key}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var document any = map[string]string{"issuer": d.URL + "/" + tenant + "/v2.0", "jwks_uri": d.URL + "/keys"}
		if r.URL.Path == "/keys" {
			document = map[string]any{"keys": []map[string]string{{
				"kty": "RSA", "use": "sig", "kid": "one",
				"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
			}}}
		}
		_ = json.NewEncoder(w).Encode(document)
	}))
	t.Cleanup(d.Close)
	return d
}

// token is one of an application, of version 2.0.
func (d *directory) token(t *testing.T, object, audience string, lives time.Duration) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": d.URL + "/" + tenant + "/v2.0", "aud": audience, "exp": time.Now().Add(lives).Unix(),
		"tid": tenant, "oid": object, "azp": object, "idtyp": "app", "ver": "2.0",
	})
	token.Header["kid"] = "one"
	text, err := token.SignedString(d.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// open serves texts until the test ends.
func open(t *testing.T) (url string, key accesskey.Key, d *directory, out *bytes.Buffer) {
	t.Helper()
	d = newDirectory(t)
	issuer, err := entra.NewIssuer(d.URL, tenant, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { issuer.Close() })
	key, out = accesskey.Generate(), new(bytes.Buffer) // written to before an answer, read after it
	s := &texts{
		callers: authn.Servers(
			accesskey.NewSigned(accesskey.NewRing(key, accesskey.Key{}), nil),
			entra.NewServers(issuer, entra.EitherSlash(entra.AudienceCommunication), entra.NewRoles()),
		),
		senders: map[string]bool{robot: true}, outbox: newOutbox(out), log: slog.New(slog.DiscardHandler),
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return server.URL, key, d, out
}

const hello = `{"from":"+14255550100","message":"hello","smsRecipients":[{"to":"+14255550123","repeatabilityRequestId":"r1"}]}`

// newRequest is a request that proves nothing yet.
func newRequest(t *testing.T, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	return r
}

// sign is what Microsoft's page on HMAC for Communication Services says, step by step.
func sign(t *testing.T, r *http.Request, body, key string, at time.Time) {
	t.Helper()
	secret, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	sum, date := sha256.Sum256([]byte(body)), at.UTC().Format(http.TimeFormat)
	hash := base64.StdEncoding.EncodeToString(sum[:])
	mac := hmac.New(sha256.New, secret)
	io.WriteString(mac, r.Method+"\n"+r.URL.RequestURI()+"\n"+date+";"+r.URL.Host+";"+hash)
	r.Header.Set("x-ms-date", date)
	r.Header.Set("x-ms-content-sha256", hash)
	r.Header.Set("Authorization", "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// answer is what either of the two shapes holds.
type answer struct {
	Value []result
	Error struct {
		Code, Message string
		Inner         struct{ Code, Message string } `json:"innererror"`
	}
}

// ask sends a request.
func ask(t *testing.T, r *http.Request) (status int, a answer) {
	t.Helper()
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if err := json.NewDecoder(reply.Body).Decode(&a); err != nil {
		t.Fatalf("%s: %v", reply.Status, err)
	}
	return reply.StatusCode, a
}

func TestWhoMaySend(t *testing.T) {
	url, key, d, out := open(t)
	target := url + "/sms?api-version=2021-03-07"
	for caller, prove := range map[string]func(*http.Request){
		"primary": func(r *http.Request) { sign(t, r, hello, key.Reveal(), time.Now()) },
		robot: func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+d.token(t, robot, "https://communication.azure.com/", time.Hour))
		},
	} {
		out.Reset()
		r := newRequest(t, target, hello)
		prove(r)
		status, a := ask(t, r)
		if status != http.StatusAccepted || len(a.Value) != 1 || !a.Value[0].Successful || a.Value[0].MessageID == "" || a.Value[0].To != "+14255550123" {
			t.Errorf("%s: %d %+v", caller, status, a)
		}
		if want := fmt.Sprintf("text from \"+14255550100\" to +14255550123 for %q: \"hello\"\n", caller); out.String() != want {
			t.Errorf("%s: the carrier has %q; want %q", caller, out, want)
		}
	}
}

// Whoever may not send is told why, and nothing is sent.
func TestWhoMayNot(t *testing.T) {
	url, key, d, out := open(t)
	target := url + "/sms?api-version=2021-03-07"
	bearer := func(token string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	}
	for name, test := range map[string]struct {
		prove        func(*http.Request)
		status       int
		code, reason string
	}{
		"nothing shown":   {func(*http.Request) {}, 401, "Denied", "signed.missing"},
		"another key":     {func(r *http.Request) { sign(t, r, hello, accesskey.Generate().Reveal(), time.Now()) }, 401, "Denied", "signed.signature"},
		"another body":    {func(r *http.Request) { sign(t, r, hello+" ", key.Reveal(), time.Now()) }, 401, "Denied", "signed.body"},
		"signed long ago": {func(r *http.Request) { sign(t, r, hello, key.Reveal(), time.Now().Add(-6*time.Minute)) }, 401, "Denied", "signed.skew"},
		"signed for another path": {func(r *http.Request) {
			u := *r.URL
			r.URL.Path = "/sms2"
			sign(t, r, hello, key.Reveal(), time.Now())
			*r.URL = u
		}, 401, "Denied", "signed.signature"},
		"a token for something else": {bearer(d.token(t, robot, entra.Audience, time.Hour)), 401, "Denied", "entra.audience"},
		"an expired token":           {bearer(d.token(t, robot, entra.AudienceCommunication, -time.Hour)), 401, "Denied", "entra.expired"},
		"another directory's token":  {bearer(newDirectory(t).token(t, robot, entra.AudienceCommunication, time.Hour)), 401, "Denied", "entra.signature"},
		"one who is not listed":      {bearer(d.token(t, eve, entra.AudienceCommunication, time.Hour)), 403, "Forbidden", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, target, hello)
			test.prove(r)
			status, a := ask(t, r)
			if status != test.status || a.Error.Code != test.code || a.Error.Inner.Code != test.reason || a.Error.Message == "" {
				t.Errorf("got %d %+v", status, a.Error)
			}
			if test.reason == "" && !strings.Contains(a.Error.Message, eve) {
				t.Errorf("the caller is told %q", a.Error.Message)
			}
		})
	}
	if out.Len() > 0 {
		t.Errorf("sent: %s", out)
	}
}

func TestRequests(t *testing.T) {
	url, key, _, out := open(t)
	post := func(t *testing.T, target, body string) (int, answer) {
		r := newRequest(t, url+target, body)
		sign(t, r, body, key.Reveal(), time.Now())
		return ask(t, r)
	}
	long := strings.Repeat("x", maxMessage+1)
	for name, test := range map[string]struct{ target, body, says string }{
		"no version":         {"/sms", hello, "api-version"},
		"no JSON":            {"/sms?api-version=1", "hello", "JSON"},
		"from nobody":        {"/sms?api-version=1", strings.Replace(hello, "from", "form", 1), "as from"},
		"no message":         {"/sms?api-version=1", strings.Replace(hello, `"hello"`, `""`, 1), "0 characters"},
		"too long":           {"/sms?api-version=1", strings.Replace(hello, "hello", long, 1), "2049 characters"},
		"for nobody":         {"/sms?api-version=1", `{"from":"a","message":"b","smsRecipients":[]}`, "0 recipients"},
		"for everybody":      {"/sms?api-version=1", `{"from":"a","message":"b","smsRecipients":[{}` + strings.Repeat(",{}", 100) + `]}`, "101 recipients"},
		"an id without end":  {"/sms?api-version=1", strings.Replace(hello, "r1", long[:65], 1), "65 bytes"},
		"a name without end": {"/sms?api-version=1", strings.Replace(hello, "+14255550100", long[:33], 1), "as from"},
	} {
		if status, a := post(t, test.target, test.body); status != http.StatusBadRequest || a.Error.Code != "BadRequest" || !strings.Contains(a.Error.Message, test.says) {
			t.Errorf("%s: %d %+v", name, status, a.Error)
		}
	}
	if out.Len() > 0 {
		t.Errorf("sent: %s", out)
	}
	// The guard reads no more than it must to judge a signature.
	if status, a := post(t, "/sms?api-version=1", strings.Repeat(" ", maxBody+1)); status != http.StatusRequestEntityTooLarge || a.Error.Inner.Code != "guard.body" {
		t.Errorf("a large body: %d %+v", status, a.Error)
	}

	// One bad number does not keep the others from their text.
	two := strings.Replace(hello, `"smsRecipients":[`, `"smsRecipients":[{"to":"4255550123"},`, 1)
	status, a := post(t, "/sms?api-version=1", two)
	if status != http.StatusAccepted || len(a.Value) != 2 || a.Value[0].Status != 400 || a.Value[0].Error == "" || a.Value[0].Successful || !a.Value[1].Successful {
		t.Errorf("a bad number among good ones: %d %+v", status, a)
	}
	// What is repeated is not sent again.
	_, again := post(t, "/sms?api-version=1", hello)
	if len(again.Value) != 1 || again.Value[0].MessageID != a.Value[1].MessageID || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("repeated: %+v after %+v, and sent %q", again, a, out)
	}
}

// The outbox forgets the oldest text first, and knows it no more then.
func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox(io.Discard)
	first := o.send(text{"a", "", "+1", ""}, "r")
	if o.send(text{"b", "", "+1", ""}, "r") == first {
		t.Error("two callers met")
	}
	if o.send(text{"a", "", "+1", ""}, "r") != first {
		t.Error("sent again at once")
	}
	for range kept {
		o.send(text{"a", "", "+1", ""}, "")
	}
	if len(o.sent) != kept || len(o.byID) > kept {
		t.Errorf("it holds %d texts and %d ids", len(o.sent), len(o.byID))
	}
	if o.send(text{"a", "", "+1", ""}, "r") == first {
		t.Error("a text that was forgotten is known")
	}
}

// The program as it is started.
func TestRun(t *testing.T) {
	t.Setenv("ACCESS_KEY", "")
	var help bytes.Buffer
	if err := run(t.Context(), []string{"--help"}, &help); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
	for _, name := range []string{"ACCESS_KEY", "-listen", "-cert", "-key", "-tenant", "-authority", "-allow"} {
		if !strings.Contains(help.String(), name) {
			t.Errorf("the help does not speak of %s", name)
		}
	}
	for _, args := range [][]string{{"-tenant", "contoso.com"}, {"nonsense"}, {"-listen", "nowhere:1:2"}, {"-cert", "none.pem"}, {"-cert", "none.pem", "-key", "none.key"}, {"-allow", robot}} {
		if err := run(t.Context(), append([]string{"-listen", "127.0.0.1:0"}, args...), io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}

	ctx, stop := context.WithCancel(t.Context())
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { // ends with ctx
		if err := run(ctx, []string{"-listen", "127.0.0.1:0"}, w); err != nil {
			t.Errorf("run: %v", err)
		}
		w.Close()
	})
	lines := bufio.NewReader(r)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	endpoint, key, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "connection string: endpoint="), ";accesskey=")
	if u, err := url.Parse(endpoint); !ok || err != nil || u.Scheme != "http" {
		t.Fatalf("it prints %q", line)
	}
	wg.Go(func() { _, _ = io.Copy(io.Discard, lines) }) // ends with w
	request := newRequest(t, endpoint+"sms?api-version=2021-03-07", hello)
	sign(t, request, hello, key, time.Now())
	if status, a := ask(t, request); status != http.StatusAccepted {
		t.Errorf("got %d %+v", status, a)
	}
	stop()
	wg.Wait()
}
