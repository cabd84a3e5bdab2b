package accesskey_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/engine"
)

// What the JavaScript SDK was seen to send, with this key.
const (
	recordedKey  = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	recordedHost = "127.0.0.1:33137"
	recordedDate = "Sun, 22 Nov 2026 02:23:28 GMT"
	signedScheme = "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="
	emptyHash    = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
)

// request is one that may have been signed.
type request struct {
	method, scheme, host, target, body string
	header                             map[string][]string
}

func (r request) server() engine.ServerRequest {
	return engine.ServerRequest{
		Method: r.method, Scheme: r.scheme, Host: r.host, Target: r.target, Header: r.header,
		BodyHash: func() ([]byte, error) {
			sum := sha256.Sum256([]byte(r.body))
			return sum[:], nil
		},
	}
}

// signRequest returns the headers of a request, of which target and host are signed.
func signRequest(key, method, target, host, body string, at time.Time) map[string][]string {
	secret, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256([]byte(body))
	hash, date := base64.StdEncoding.EncodeToString(sum[:]), at.UTC().Format(http.TimeFormat)
	h := hmac.New(sha256.New, secret)
	io.WriteString(h, method+"\n"+target+"\n"+date+";"+host+";"+hash)
	return map[string][]string{
		"X-Ms-Date": {date}, "X-Ms-Content-Sha256": {hash},
		"Authorization": {signedScheme + base64.StdEncoding.EncodeToString(h.Sum(nil))},
	}
}

// byDate makes the headers of a signed request those of an SDK that signs the Date
// header: what is signed is the same.
func byDate(header map[string][]string) {
	header["Date"] = header["X-Ms-Date"]
	delete(header, "X-Ms-Date")
	header["Authorization"] = []string{strings.Replace(header["Authorization"][0], "SignedHeaders=x-ms-date;", "SignedHeaders=date;", 1)}
}

// at runs f in a bubble whose clock shows the given date.
func at(t *testing.T, date string, f func(t *testing.T)) {
	t.Helper()
	want, err := time.Parse(http.TimeFormat, date)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(want))
		f(t)
	})
}

// Requests that the JavaScript SDK has really signed pass, and pass again: SDKs
// repeat a request without signing it anew.
func TestSignedRecorded(t *testing.T) {
	at(t, recordedDate, func(t *testing.T) {
		s := accesskey.NewSigned(accesskey.NewRing(accesskey.Generate(), parseKey(t, recordedKey)), nil)
		for _, r := range []struct{ method, target, body, hash, signature string }{
			{
				"POST", "/identities?api-version=2023-10-01", `{"createTokenWithScopes":["chat","voip"]}`,
				"fYTayOkxDFdoXd25BoJTvoTLLr5+QVfLFXvdJep6oNs=", "Y1z/DCUPGbRkilFuUM43e2hduJL3cxRANJ6/GI5qV6Y=",
			},
			{
				"DELETE", "/identities/8%3Aacs%3A1234_5678?api-version=2023-10-01", "",
				emptyHash, "p8JQLTLFDMQ9df2VMQKW6yNPp9u7FJC0lhqIKhotNX4=",
			},
		} {
			sent := request{r.method, "http", recordedHost, r.target, r.body, map[string][]string{
				"X-Ms-Date": {recordedDate}, "X-Ms-Content-Sha256": {r.hash}, "Authorization": {signedScheme + r.signature},
			}}
			for range 3 {
				p, err := s.Authorize(ctx, sent.server())
				if err != nil || p.ID != "secondary" || p.Scheme != "AccessKey" || p.May(engine.ActionGenerateToken, "chat") != nil {
					t.Errorf("%s: %+v, %v", r.method, p, err)
				}
			}
			sent.method = "PUT"
			if _, err := s.Authorize(ctx, sent.server()); ruleOf(err) != "signed.signature" {
				t.Errorf("another method: %v", err)
			}
		}
	})
}

// candidate is a request, and what was signed for its target and its host.
type candidate struct {
	name, scheme, sent, signed, host, signedHost string
	ok                                           bool
}

const encoded, plain = "/identities/8%3Aacs%3A1_2?api-version=1&x=%20", "/identities/8:acs:1_2?api-version=1&x=%20"

func testCandidates(t *testing.T, all []candidate) { testCandidatesWith(t, nil, all) }

func testCandidatesWith(t *testing.T, o *accesskey.SignedOptions, all []candidate) {
	t.Helper()
	s := accesskey.NewSigned(accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{}), o)
	for _, c := range all {
		sent := request{"POST", c.scheme, c.host, c.sent, "{}", signRequest(recordedKey, "POST", c.signed, c.signedHost, "{}", time.Now())}
		_, err := s.Authorize(ctx, sent.server())
		if c.ok != (err == nil) || err != nil && ruleOf(err) != "signed.signature" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// Of a host whose port is not the scheme's own the port may be signed or not.
func TestIdentity10PortOfTheHost(t *testing.T) {
	testCandidates(t, []candidate{
		{"JavaScript", "https", encoded, encoded, "h.example:8443", "h.example:8443", true},
		{"Java", "https", encoded, encoded, "h.example:8443", "h.example", true},
		{"Java, in the Host header too", "https", encoded, encoded, "h.example", "h.example", true},
		{"an address", "https", encoded, encoded, "[::1]:8443", "[::1]:8443", true},
		{"an address without its port", "https", encoded, encoded, "[::1]:8443", "[::1]", true},
		{"another port", "https", encoded, encoded, "h.example:1", "h.example:2", false},
		{"a port that was not sent", "https", encoded, encoded, "h.example", "h.example:8443", false},
		{"another host", "https", encoded, encoded, "h.example", "i.example", false},
	})
}

// Behind a proxy, what callers call the service may be signed too, where it was set.
func TestSignedHosts(t *testing.T) {
	hosts, err := authn.NewHosts("rt.example.com", "rt.example.com:8443")
	if err != nil {
		t.Fatal(err)
	}
	testCandidatesWith(t, &accesskey.SignedOptions{Hosts: hosts}, []candidate{
		{"as it was sent", "https", encoded, encoded, "10.0.0.1:8080", "10.0.0.1:8080", true},
		{"as it is called", "https", encoded, encoded, "10.0.0.1:8080", "rt.example.com", true},
		{"as it is called, with a port", "https", encoded, encoded, "10.0.0.1:8080", "rt.example.com:8443", true},
		{"another port", "https", encoded, encoded, "10.0.0.1:8080", "rt.example.com:9443", false},
		{"another host", "https", encoded, encoded, "10.0.0.1:8080", "eve.example", false},
		{"no host", "https", encoded, encoded, "10.0.0.1:8080", "", false},
	})
}

// Of a path its escapes may be signed or what they stand for, where that is not another
// path, and over http what Python's SDK leaves of it.
func TestIdentity11EscapedPath(t *testing.T) {
	testCandidates(t, []candidate{
		{"as it was sent", "https", encoded, encoded, "h.example", "h.example", true},
		{"decoded", "https", encoded, plain, "h.example", "h.example", true},
		{"Python over http", "http", encoded, encoded[1:], "h.example", "h.example", true},
		{"Python's cut over https", "https", encoded, encoded[1:], "h.example", "h.example", false},
		{"plain to encoded", "https", plain, encoded, "h.example", "h.example", false},
		{"a slash of a name", "https", "/identities/a%2Fb?v", "/identities/a/b?v", "h.example", "h.example", false},
		{"a question mark of a name", "https", "/identities/a%3Fv", "/identities/a?v", "h.example", "h.example", false},
		{"a line feed", "https", "/identities/a%0Ab", "/identities/a\nb", "h.example", "h.example", false},
	})
}

// Nothing else of a target is lenient.
func TestSignedTargets(t *testing.T) {
	testCandidates(t, []candidate{
		{"absolute target", "https", "https://h.example" + encoded, encoded, "h.example", "h.example", true},
		{"another path", "https", encoded, plain + "x", "h.example", "h.example", false},
		{"no query", "https", encoded, "/identities/8%3Aacs%3A1_2", "h.example", "h.example", false},
	})
}

// A request's date may be 5 minutes off, either way.
func TestIdentity12ClockSkew(t *testing.T) {
	at(t, recordedDate, func(t *testing.T) {
		s := accesskey.NewSigned(accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{}), nil)
		for off, rule := range map[time.Duration]string{
			-301 * time.Second: "signed.skew", -300 * time.Second: "", 0: "", 300 * time.Second: "", 301 * time.Second: "signed.skew",
		} {
			r := request{"POST", "https", "h.example", encoded, "{}", signRequest(recordedKey, "POST", encoded, "h.example", "{}", time.Now().Add(off))}
			if _, err := s.Authorize(ctx, r.server()); rule == "" && err != nil || rule != "" && ruleOf(err) != rule {
				t.Errorf("%s off: %v", off, err)
			}
		}
	})
}

// A signature holds what stands between names and values around it. The names of the
// headers come in one order, and another is refused even where it was signed.
func TestIdentity13SignatureAndNames(t *testing.T) {
	s := accesskey.NewSigned(accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{}), nil)
	all := ""
	for n := 0; !strings.Contains(all, "+") || !strings.Contains(all, "/") || n < 8; n++ {
		target := fmt.Sprint("/identities?n=", n)
		r := request{"POST", "https", "h.example", target, "{}", signRequest(recordedKey, "POST", target, "h.example", "{}", time.Now())}
		signature := strings.TrimPrefix(r.header["Authorization"][0], signedScheme)
		if _, err := s.Authorize(ctx, r.server()); err != nil || !strings.HasSuffix(signature, "=") {
			t.Errorf("%s: %v", signature, err)
		}
		all += signature
	}

	secret, err := base64.StdEncoding.DecodeString(recordedKey)
	if err != nil {
		t.Fatal(err)
	}
	r := request{"POST", "https", "h.example", "/identities", "{}", signRequest(recordedKey, "POST", "/identities", "h.example", "{}", time.Now())}
	values := map[string]string{"x-ms-date": r.header["X-Ms-Date"][0], "host": r.host, "x-ms-content-sha256": r.header["X-Ms-Content-Sha256"][0]}
	for _, order := range [][]string{
		{"x-ms-date", "x-ms-content-sha256", "host"}, {"host", "x-ms-date", "x-ms-content-sha256"}, {"host", "x-ms-content-sha256", "x-ms-date"},
		{"x-ms-content-sha256", "x-ms-date", "host"}, {"x-ms-content-sha256", "host", "x-ms-date"}, {"x-ms-date", "host", "x-ms-content-sha256"},
	} {
		names := strings.Join(order, ";")
		asNamed := hmac.New(sha256.New, secret)
		io.WriteString(asNamed, "POST\n/identities\n"+values[order[0]]+";"+values[order[1]]+";"+values[order[2]])
		usual := strings.TrimPrefix(r.header["Authorization"][0], signedScheme)
		for _, signature := range []string{usual, base64.StdEncoding.EncodeToString(asNamed.Sum(nil))} {
			sent := r
			sent.header = maps.Clone(r.header)
			sent.header["Authorization"] = []string{"HMAC-SHA256 SignedHeaders=" + names + "&Signature=" + signature}
			_, err := s.Authorize(ctx, sent.server())
			if names == "x-ms-date;host;x-ms-content-sha256" {
				if err != nil {
					t.Errorf("%s: %v", names, err)
				}
			} else if ruleOf(err) != "signed.header" || engine.CodeOf(err) != engine.CodeUnauthenticated {
				t.Errorf("%s: %v", names, err)
			}
		}
	}
}

// Every refusal names its rule, in the order in which they are looked at.
func TestSignedRefusals(t *testing.T) {
	const other = "b3RoZXIgYmFzZTY0IGtleSBvZiAzMiBieXRlcyAhISE="
	sign := func(change func(h map[string][]string)) request {
		r := request{"POST", "https", "h.example", "/identities?api-version=1", "{}", nil}
		r.header = signRequest(recordedKey, r.method, r.target, r.host, r.body, time.Now())
		change(r.header)
		return r
	}
	set := func(name string, values ...string) func(map[string][]string) {
		return func(h map[string][]string) { h[name] = values }
	}
	drop := func(name string) func(map[string][]string) {
		return func(h map[string][]string) { delete(h, name) }
	}
	signature := func(change func(string) string) func(map[string][]string) {
		return func(h map[string][]string) { h["Authorization"] = []string{change(h["Authorization"][0])} }
	}
	for _, c := range []struct {
		name   string
		rule   string
		change func(map[string][]string)
	}{
		{"no header", "signed.missing", drop("Authorization")},
		{"bearer", "signed.missing", set("Authorization", "Bearer x")},
		{"two headers", "signed.header", func(h map[string][]string) { h["Authorization"] = append(h["Authorization"], "x") }},
		{"nothing", "signed.header", set("Authorization", "HMAC-SHA256")},
		{"no list", "signed.header", set("Authorization", "HMAC-SHA256 Signature=x")},
		{"fewer headers", "signed.header", signature(func(s string) string { return strings.Replace(s, "host;", "", 1) })},
		{"no signature", "signed.header", signature(func(s string) string { return s[:strings.Index(s, "&Signature")] })},
		{"short signature", "signed.header", signature(func(s string) string { return s[:len(s)-4] })},
		{"no base64", "signed.header", signature(func(s string) string { return s[:len(s)-4] + "-_-=" })},
		{"no date", "signed.date", drop("X-Ms-Date")},
		{"two dates", "signed.date", set("X-Ms-Date", "a", "b")},
		{"another form of date", "signed.date", set("X-Ms-Date", "2026-11-22T02:23:28Z")},
		{"of another year", "signed.skew", set("X-Ms-Date", "Sun, 06 Nov 1994 08:49:37 GMT")},
		{"no hash", "signed.body", drop("X-Ms-Content-Sha256")},
		{"hash of another body", "signed.body", set("X-Ms-Content-Sha256", emptyHash)},
		{"another date than signed", "signed.signature", set("X-Ms-Date", time.Now().Add(-30*time.Second).UTC().Format(http.TimeFormat))},
	} {
		s := accesskey.NewSigned(accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{}), nil)
		_, err := s.Authorize(ctx, sign(c.change).server())
		if ruleOf(err) != c.rule || engine.CodeOf(err) != engine.CodeUnauthenticated || strings.Contains(err.Error(), recordedKey) {
			t.Errorf("%s: %v", c.name, err)
		}
		if mine := !strings.Contains(err.Error(), authn.ErrNotMine.Error()); mine != (c.rule != "signed.missing") {
			t.Errorf("%s: mine %v", c.name, mine)
		}
	}

	good := sign(func(map[string][]string) {})
	closed := accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{})
	closed.SetLocalAuth(false)
	for _, c := range []struct {
		rule string
		ring *accesskey.Ring
	}{
		{"signed.signature", accesskey.NewRing(parseKey(t, other), accesskey.Key{})},
		{"signed.key", accesskey.NewRing(parseKey(t, "no base64!"), accesskey.Key{})},
		{"accesskey.disabled", closed},
		{"accesskey.disabled", accesskey.NewRing(accesskey.Key{}, accesskey.Key{})},
	} {
		if _, err := accesskey.NewSigned(c.ring, nil).Authorize(ctx, good.server()); ruleOf(err) != c.rule {
			t.Errorf("%s: %v", c.rule, err)
		}
	}
	// Skew is a setting, and a Date will do where there is no x-ms-date.
	late := request{"GET", "https", "h.example", "/", "", signRequest(recordedKey, "GET", "/", "h.example", "", time.Now().Add(-14*time.Minute))}
	late.header["Date"] = late.header["X-Ms-Date"]
	delete(late.header, "X-Ms-Date")
	ring := accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{})
	if _, err := accesskey.NewSigned(ring, &accesskey.SignedOptions{Skew: 15 * time.Minute}).Authorize(ctx, late.server()); err != nil {
		t.Error(err)
	}
}

// Of the two dates that a request can have, the one that is named as signed counts, for
// the signature and for the time.
func TestSignedDateIsTheNamedOne(t *testing.T) {
	s := accesskey.NewSigned(accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{}), nil)
	now, stale := time.Now(), time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		name   string
		signed time.Time
		change func(header map[string][]string)
		rule   string
	}{
		{"x-ms-date", now, func(h map[string][]string) {}, ""},
		{"x-ms-date, beside a stale Date", now, func(h map[string][]string) { h["Date"] = []string{stale} }, ""},
		{"date", now, byDate, ""},
		{"date, beside a stale x-ms-date", now, func(h map[string][]string) { byDate(h); h["X-Ms-Date"] = []string{stale} }, ""},
		{"date, beside two x-ms-date", now, func(h map[string][]string) { byDate(h); h["X-Ms-Date"] = []string{stale, stale} }, ""},
		{"date, of which there is none", now, func(h map[string][]string) { x := h["X-Ms-Date"]; byDate(h); delete(h, "Date"); h["X-Ms-Date"] = x }, "signed.date"},
		{"date, of which there are two", now, func(h map[string][]string) { byDate(h); h["Date"] = append(h["Date"], h["Date"][0]) }, "signed.date"},
		{"a stale date, beside a fresh x-ms-date", now.Add(-time.Hour), func(h map[string][]string) {
			byDate(h)
			h["X-Ms-Date"] = []string{now.UTC().Format(http.TimeFormat)}
		}, "signed.skew"},
		{"a stale x-ms-date, beside a fresh Date", now.Add(-time.Hour), func(h map[string][]string) { h["Date"] = []string{now.UTC().Format(http.TimeFormat)} }, "signed.skew"},
		{"date, changed", now, func(h map[string][]string) {
			byDate(h)
			h["Date"] = []string{now.Add(time.Minute).UTC().Format(http.TimeFormat)}
		}, "signed.signature"},
		{"Date, in another case", now, func(h map[string][]string) {
			byDate(h)
			h["Authorization"] = []string{strings.Replace(h["Authorization"][0], "=date;", "=Date;", 1)}
		}, "signed.header"},
		{"both", now, func(h map[string][]string) {
			h["Authorization"] = []string{strings.Replace(h["Authorization"][0], "=x-ms-date;", "=date;x-ms-date;", 1)}
		}, "signed.header"},
	} {
		r := request{"POST", "https", "h.example", encoded, "{}", signRequest(recordedKey, "POST", encoded, "h.example", "{}", c.signed)}
		c.change(r.header)
		if _, err := s.Authorize(ctx, r.server()); c.rule == "" && err != nil || c.rule != "" && ruleOf(err) != c.rule {
			t.Errorf("%s: %v; want %q", c.name, err, c.rule)
		}
	}
}

// A changed ring counts at once.
func TestSignedRotation(t *testing.T) {
	ring := accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{})
	s := accesskey.NewSigned(ring, nil)
	send := func(key accesskey.Key) error {
		r := request{"GET", "https", "h.example", "/", "", signRequest(key.Reveal(), "GET", "/", "h.example", "", time.Now())}
		_, err := s.Authorize(ctx, r.server())
		return err
	}
	first := ring.Primary()
	next := ring.RegenerateSecondary()
	if err := send(first); err != nil {
		t.Error(err)
	}
	if err := send(next); err != nil {
		t.Error(err)
	}
	ring.RegeneratePrimary()
	if err := send(first); ruleOf(err) != "signed.signature" {
		t.Error(err)
	}
}

// Any handler can stand behind the scheme: it sees the body and the caller, and
// refusals look like the service's.
func TestSignedMiddleware(t *testing.T) {
	s := accesskey.NewSigned(accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{}), nil)
	h := s.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		p, ok := authn.Caller(r.Context())
		if err != nil || !ok {
			t.Error(err, ok)
		}
		io.WriteString(w, p.ID+" "+string(body))
	}))
	call := func(target, body string, header map[string][]string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", target, strings.NewReader(body))
		r.Host, r.TLS = "h.example:8443", &tls.ConnectionState{}
		maps.Copy(r.Header, header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	header := signRequest(recordedKey, "POST", "/a%3Ab?x", "h.example", "hello", time.Now())
	if w := call("/a%3Ab?x", "hello", header); w.Code != 200 || w.Body.String() != "primary hello" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for body, rule := range map[string]string{"hellO": "signed.body", strings.Repeat("x", 1<<20+1): "guard.body"} {
		w := call("/a%3Ab?x", body, header)
		var answer struct {
			Error struct {
				Code, Message string
				Inner         struct{ Code, Message string } `json:"innererror"`
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Error.Inner.Code != rule || answer.Error.Inner.Message == "" {
			t.Errorf("%v, %s", err, w.Body)
		}
		if rule == "guard.body" {
			if w.Code != 413 {
				t.Error(w.Code)
			}
		} else if w.Code != 401 || answer.Error.Code != "Denied" || answer.Error.Message != "Denied by the resource provider." {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	// Beside another scheme.
	both := authn.Servers(s, accesskey.NewServers(accesskey.NewRing(parseKey(t, recordedKey), accesskey.Key{}), nil))
	if _, err := both.Authorize(ctx, engine.ServerRequest{Header: map[string][]string{"Authorization": {"Bearer x.y.z"}}}); ruleOf(err) != "token.malformed" {
		t.Error(err)
	}
}

// FuzzSigned shows any text for a signature. Only the genuine one gets in, whatever
// the case of the scheme's name and the blanks around.
func FuzzSigned(f *testing.F) {
	r := request{"POST", "https", "h.example", "/identities?api-version=1", "{}", nil}
	r.header = signRequest(recordedKey, r.method, r.target, r.host, r.body, time.Now())
	good := r.header["Authorization"][0]
	key, err := accesskey.ParseKey(recordedKey)
	if err != nil {
		f.Fatal(err)
	}
	s := accesskey.NewSigned(accesskey.NewRing(key, accesskey.Key{}), &accesskey.SignedOptions{Skew: time.Hour})
	f.Add(good)
	f.Add("hmac-sha256  " + good[len("HMAC-SHA256 "):])
	f.Add(good + "&Signature=" + good[len(signedScheme):])
	f.Add(good[:len(good)-1])
	f.Add(strings.Replace(good, ";", ",", 1))
	f.Add(good[:len(signedScheme)] + strings.Repeat("\n", 44))
	f.Add("HMAC-SHA256")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		sent := r
		sent.header = maps.Clone(r.header)
		sent.header["Authorization"] = []string{text}
		_, err := s.Authorize(ctx, sent.server())
		word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
		genuine := strings.EqualFold(word, "HMAC-SHA256") && strings.TrimLeft(rest, " ") == good[len("HMAC-SHA256 "):]
		if genuine != (err == nil) {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && !strings.HasPrefix(ruleOf(err), "signed.") {
			t.Errorf("%q: refused without a rule: %v", text, err)
		}
	})
}
