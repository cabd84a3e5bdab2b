package keyvault_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/authn/keyvault"
	"github.com/fanfare/fanfare/engine"
)

const (
	current   = "https://v.vault.azure.net/secrets/code"
	versioned = "https://v.vault.azure.net/secrets/code/0123456789abcdef0123456789abcdef"
)

func newVault() *vault {
	return &vault{values: map[string]string{"/secrets/code/": "s3cret-1", "/secrets/code/0123456789abcdef0123456789abcdef": "s3cret-0"}}
}

// A vault is asked without a token first, and with one for what it says; from then
// on with one. A path without a version ends with a slash. A vault that says that it
// wants a token for another domain gets none.
func TestIdentity08Challenge(t *testing.T) {
	v, source := newVault(), &tokens{}
	roots, transport := v.serve(t)
	s := secretsOf(t, nil, source, &keyvault.Options{Transport: transport(&tls.Config{RootCAs: roots})})
	want(t, s, current, "s3cret-1")
	want(t, s, versioned, "s3cret-0")
	if got := fmt.Sprint(v.Bare(), v.Shown(), source.Asked()); got != "1 [/secrets/code/ /secrets/code/0123456789abcdef0123456789abcdef] [https://vault.azure.net https://vault.azure.net]" {
		t.Errorf("the vault was asked %s", got)
	}

	for _, resource := range []string{"https://management.azure.com", "https://vault.azure.net.eve.example", "https://eve.vault.azure.net"} {
		v, source := newVault(), &tokens{}
		v.challenge = `Bearer authorization="https://login.microsoftonline.com/72f988bf", resource="` + resource + `"`
		roots, transport := v.serve(t)
		s := secretsOf(t, nil, source, &keyvault.Options{Transport: transport(&tls.Config{RootCAs: roots})})
		got, err := s.Secret(t.Context(), current)
		if got != "" || err == nil || !strings.Contains(err.Error(), "wants a token for \""+resource) || len(source.Asked()) > 0 || v.Bare() != 1 || len(v.Shown()) > 0 {
			t.Errorf("for %s: %q, %v; %d requests and %d with a token for %q", resource, got, err, v.Bare(), len(v.Shown()), source.Asked())
		}
	}
}

// What was read is kept, however its URI is spelled.
func TestKept(t *testing.T) {
	v := newVault()
	s := secretsOf(t, v, &tokens{}, nil)
	for _, uri := range []string{current, current + "/", "https://V.Vault.Azure.Net:443/Secrets/code"} {
		want(t, s, uri, "s3cret-1")
	}
	want(t, s, versioned, "s3cret-0")
	if got := s.Stats(); got.Kept != 2 || got.Fetches != 2 || got.Failures != 0 || len(v.Shown()) != 2 {
		t.Errorf("%+v, %d requests", got, len(v.Shown()))
	}
}

// One fetch serves all who ask meanwhile.
func TestOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		v.fail = func(http.ResponseWriter, *http.Request) bool { time.Sleep(time.Second); return false }
		s := secretsOf(t, v, &tokens{}, nil)
		defer s.Close()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() { want(t, s, current, "s3cret-1") })
		}
		wg.Wait()
		if n := len(v.Shown()); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// Which vault and which secret a URI names, and who may be asked.
func TestURIs(t *testing.T) {
	hosts, err := keyvault.NewHosts("Vault.Example.com", "localhost:8443", "[::1]:8443")
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 128)
	for _, test := range []struct {
		uri, is string // empty: no URI of a secret
		rule    string // of who refuses to ask
	}{
		{"https://v.vault.azure.net/secrets/a", "https://v.vault.azure.net/secrets/a", ""},
		{"https://v.vault.azure.net/secrets/a-1/", "https://v.vault.azure.net/secrets/a-1", ""},
		{"HTTPS://v.vault.azure.net/secrets/A/12ab", "https://v.vault.azure.net/secrets/A/12ab", ""},
		{"https://v.vault.azure.cn/secrets/a", "https://v.vault.azure.cn/secrets/a", ""},
		{"https://v.vault.usgovcloudapi.net/secrets/a", "https://v.vault.usgovcloudapi.net/secrets/a", ""},
		{"https://vault.example.com/secrets/a", "https://vault.example.com/secrets/a", ""},
		{"https://vault.example.com:443/secrets/a", "https://vault.example.com/secrets/a", ""},
		{"https://localhost:8443/secrets/a", "https://localhost:8443/secrets/a", ""},
		{"https://[::1]:8443/secrets/a", "https://[::1]:8443/secrets/a", ""},
		{"https://localhost/secrets/a", "https://localhost/secrets/a", "keyvault.host"},
		{"https://vault.example.com:8443/secrets/a", "https://vault.example.com:8443/secrets/a", "keyvault.host"},
		{"https://vault.azure.net/secrets/a", "https://vault.azure.net/secrets/a", "keyvault.host"},
		{"https://a.b.vault.azure.net/secrets/a", "https://a.b.vault.azure.net/secrets/a", "keyvault.host"},
		{"https://evil-vault.azure.net/secrets/a", "https://evil-vault.azure.net/secrets/a", "keyvault.host"},
		{"https://v.vault.azure.net.evil.example/secrets/a", "https://v.vault.azure.net.evil.example/secrets/a", "keyvault.host"},
		{"https://v.vault.azure.net:8443/secrets/a", "https://v.vault.azure.net:8443/secrets/a", "keyvault.host"},
		{"http://v.vault.azure.net/secrets/a", "", ""},
		{"https://v.vault.azure.net/keys/a", "", ""},
		{"https://v.vault.azure.net/secrets/", "", ""},
		{"https://v.vault.azure.net/secrets//a", "", ""},
		{"https://v.vault.azure.net/secrets/a/b/c", "", ""},
		{"https://v.vault.azure.net/secrets/a%2Fb", "", ""},
		{"https://v.vault.azure.net/secrets/..", "", ""},
		{"https://v.vault.azure.net/secrets/" + long, "", ""},
		{"https://v.vault.azure.net/secrets/a?x", "", ""},
		{"https://v.vault.azure.net/secrets/a?", "", ""},
		{"https://v.vault.azure.net/secrets/a#x", "", ""},
		{"https://u:p@v.vault.azure.net/secrets/a", "", ""},
		{"https:///secrets/a", "", ""},
		{"https://v:0/secrets/a", "", ""},
		{"https://v:99999/secrets/a", "", ""},
		{"https://exa mple/secrets/a", "", ""},
		{"/secrets/a", "", ""},
		{"", "", ""},
	} {
		u, err := keyvault.ParseURI(test.uri)
		if test.is == "" {
			if e, _ := errors.AsType[*engine.Error](err); e == nil || e.Rule != "keyvault.uri" || e.Code != engine.CodeInvalid {
				t.Errorf("%q: %v, %v", test.uri, u, err)
			}
			continue
		}
		if err != nil || u.String() != test.is {
			t.Errorf("%q is %v, %v; want %s", test.uri, u, err, test.is)
		}
		e, _ := errors.AsType[*engine.Error](hosts.Check(u))
		if got := map[bool]string{true: "keyvault.host", false: ""}[e != nil]; got != test.rule {
			t.Errorf("%q: %v", test.uri, e)
		}
	}
	for _, bad := range []string{"", "a b", "https://a", "a/b", "a:b", "a:0", "*.example.com"} {
		if _, err := keyvault.NewHosts("ok", bad); err == nil {
			t.Errorf("the host %q was accepted", bad)
		}
	}
	s := secretsOf(t, newVault(), &tokens{}, nil)
	for _, uri := range []string{"https://vault.example.com/secrets/code", "http://v.vault.azure.net/secrets/code"} {
		if got, err := s.Secret(t.Context(), uri); err == nil {
			t.Errorf("%s is %q", uri, got)
		}
	}
}

// A secret without a version is read again beside its use, one with a version is
// not; a doubt hastens it, and settings that are read again do so for both.
func TestIdentity08Rotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		s := secretsOf(t, v, &tokens{}, nil)
		defer s.Close()
		rotate := func(n int) {
			v.now(func(v *vault) { v.values["/secrets/code/"] = fmt.Sprintf("s3cret-%d", n) })
		}
		is := func(n int) { t.Helper(); want(t, s, current, fmt.Sprintf("s3cret-%d", n)); synctest.Wait() }
		is(1)
		want(t, s, versioned, "s3cret-0")

		rotate(2)
		time.Sleep(5*time.Minute - time.Second)
		is(1)
		time.Sleep(time.Second)
		is(1) // and begins to read
		is(2)

		rotate(3)
		time.Sleep(time.Hour) // nobody asked: this is waited for
		is(3)

		rotate(4)
		for range 10 {
			s.Doubt(current + "/")
			s.Doubt(versioned)
			s.Doubt("no URI")
			synctest.Wait()
		}
		is(4)
		rotate(5)
		s.Doubt(current) // too soon
		synctest.Wait()
		is(4)
		s.Reload()
		is(5)
		want(t, s, versioned, "s3cret-0")
		if n := len(v.Shown()); n != 7 {
			t.Errorf("read %d times: %v", n, v.Shown())
		}
	})
}

// While a vault fails, the last value stays in use, and the log says why.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault()
		var log strings.Builder
		s := secretsOf(t, v, &tokens{}, &keyvault.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		want(t, s, current, "s3cret-1")
		v.now(func(v *vault) {
			v.fail = func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(403)
				fmt.Fprint(w, `{"error":{"code":"Forbidden","message":"x","innererror":{"code":"SecretDisabled"}}}`)
				return true
			}
		})
		time.Sleep(24 * time.Hour)
		want(t, s, current, "s3cret-1")
		s.Reload()
		want(t, s, current, "s3cret-1")
		s.Close()
		if got := log.String(); !strings.Contains(got, "answered 403: Forbidden: SecretDisabled") || !strings.Contains(got, current) || strings.Contains(got, "s3cret") {
			t.Errorf("the log says %s", got)
		}
	})
}

// Without a value there is an error that says why, on one line, and holds no
// secret.
func TestFailures(t *testing.T) {
	answer := func(status int, header, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			if name, value, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
			return true
		}
	}
	for _, test := range []struct {
		name   string
		fail   func(http.ResponseWriter, *http.Request) bool
		tokens *tokens
		uri    string
		says   string
	}{
		{"missing", nil, &tokens{}, "https://v.vault.azure.net/secrets/other", "answered 404: SecretNotFound: A secret with (name/id) x was not found in this key vault."},
		{"disabled", answer(403, "", `{"error":{"code":"Forbidden","innererror":{"code":"SecretDisabled"}}}`), &tokens{}, current, "answered 403: Forbidden: SecretDisabled"},
		{"throttled for good", answer(429, "Retry-After: 1", `{"error":{"code":"Throttled"}}`), &tokens{}, current, "answered 429: Throttled"},
		{"broken for good", answer(500, "", "s3cret"), &tokens{}, current, "answered 500"},
		{"no token", nil, &tokens{err: errors.New("identity not found")}, current, "identity not found"},
		{"a token that does not do", nil, &tokens{text: "expired"}, current, "answered 401"},
		{"no JSON", answer(200, "", "s3cret"), &tokens{}, current, "no secret"},
		{"no value", answer(200, "", `{"id":"s3cret"}`), &tokens{}, current, "without a value"},
		{"an empty value", answer(200, "", `{"value":""}`), &tokens{}, current, "without a value"},
		{"a value of another kind", answer(200, "", `{"value":{"s3cret":1}}`), &tokens{}, current, "no secret"},
		{"a value too long", answer(200, "", `{"value":"`+strings.Repeat("s3cret", 5000)+`"}`), &tokens{}, current, "30000 bytes"},
		{"elsewhere", answer(302, "Location: https://evil.example/", ""), &tokens{}, current, "answered 302"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // for the pauses between attempts
				v := newVault()
				v.fail = test.fail
				s := secretsOf(t, v, test.tokens, nil)
				defer s.Close()
				got, err := s.Secret(t.Context(), test.uri)
				if got != "" || err == nil || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %q, %v; want an error that says %s", got, err, test.says)
				}
				if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.ContainsAny(err.Error(), "\r\n")) {
					t.Errorf("the error shows too much: %q", err)
				}
				before := len(v.Shown())
				if _, again := s.Secret(t.Context(), test.uri); fmt.Sprint(again) != fmt.Sprint(err) || len(v.Shown()) != before {
					t.Errorf("then %v", again)
				}
			})
		})
	}
}

// A vault that was throttled or broken for a moment is asked again.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, n := newVault(), 0
		v.fail = func(w http.ResponseWriter, _ *http.Request) bool {
			n++
			switch n {
			case 1:
				w.Header().Set("Retry-After", "2")
				w.WriteHeader(429)
			case 2:
				w.WriteHeader(503)
			}
			return n <= 2
		}
		s := secretsOf(t, v, &tokens{}, nil)
		defer s.Close()
		want(t, s, current, "s3cret-1")
	})
}

// challenges are what a vault may say it wants a token for, and whether it gets one.
var challenges = []struct {
	name, host, challenge string
	resource              string // asked of the identity; empty for a refusal
}{
	{"Azure's", "v.vault.azure.net", azureChallenge, "https://vault.azure.net"},
	{"with a scope", "v.vault.azure.net", `Bearer authorization="https://l/t", scope="https://vault.azure.net/.default", resource="https://x"`, "https://vault.azure.net"},
	{"China's", "v.vault.azure.cn", `Bearer authorization="https://l/t", resource="https://vault.azure.cn"`, "https://vault.azure.cn"},
	{"of another cloud", "v.vault.azure.net", `Bearer authorization="https://l/t", resource="https://vault.azure.cn"`, ""},
	{"another's domain", "v.vault.azure.net", `Bearer authorization="https://l/t", resource="https://management.azure.com"`, ""},
	{"a parent of the vault's domain", "v.vault.azure.net", `Bearer authorization="https://l/t", resource="https://azure.net"`, ""},
	{"an allowed host's own", "vault.example.com", `Bearer authorization="https://l/t", resource="https://vault.example.com"`, "https://vault.example.com"},
	{"an allowed host's own with a port", "localhost:8443", `Bearer authorization="https://localhost:8443/t" resource="https://localhost:8443"`, "https://localhost:8443"},
	{"an allowed host's parent", "vault.example.com", `Bearer authorization="https://l/t", resource="https://example.com"`, "https://example.com"},
	{"an allowed host that is a vault of Azure's by another name", "vault.example.com", azureChallenge, "https://vault.azure.net"},
	{"an allowed host that wants another's", "vault.example.com", `Bearer authorization="https://l/t", resource="https://graph.microsoft.com"`, ""},
	{"an allowed host's top domain", "vault.example.com", `Bearer authorization="https://l/t", resource="https://com"`, ""},
	{"over http", "vault.example.com", `Bearer authorization="https://l/t", resource="http://vault.example.com"`, ""},
	{"authority without a tenant", "v.vault.azure.net", `Bearer authorization="x", resource="https://vault.azure.net"`, "https://vault.azure.net"},
	{"no authority", "v.vault.azure.net", `Bearer resource="https://vault.azure.net"`, "https://vault.azure.net"},
	{"no resource", "v.vault.azure.net", `Bearer authorization="https://l/t"`, ""},
	{"resource that splits", "vault.example.com", `Bearer authorization="https://l/t", resource="https://vault.example.com/ x=y"`, ""},
	{"Basic", "v.vault.azure.net", `Basic realm="x"`, ""},
	{"a user in front of the host", "vault.example.com", `Bearer scope="https://vault@example.com/.default"`, ""},
	{"nothing", "v.vault.azure.net", ` `, ""},
	{"endless", "v.vault.azure.net", "Bearer " + strings.Repeat(" ", 5000) + azureChallenge[7:], ""},
}

// A vault gets a token for a vault's domain and for nothing else, whatever it asks for.
func TestChallenges(t *testing.T) {
	hosts, err := keyvault.NewHosts("vault.example.com", "localhost:8443")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range challenges {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // so that a pause between attempts costs nothing
				v, source := newVault(), &tokens{}
				v.challenge = test.challenge
				s := secretsOf(t, v, source, &keyvault.Options{Hosts: hosts})
				defer s.Close()
				got, err := s.Secret(t.Context(), "https://"+test.host+"/secrets/code")
				asked := source.Asked()
				switch {
				case test.resource == "" && (err == nil || len(asked) > 0 || len(v.Shown()) > 0):
					t.Errorf("got %q with tokens for %q", got, asked)
				case test.resource != "" && (err != nil || got != "s3cret-1" || !slices.Equal(asked, []string{test.resource})):
					t.Errorf("got %q, %v, with tokens for %q", got, err, asked)
				}
				if test.resource == "" && v.Bare() != 1 {
					t.Errorf("asked %d times: %v", v.Bare(), err)
				}
			})
		})
	}
}

// Whatever a vault answers at first, nothing panics, and no token is asked for
// that is not for a vault's domain.
func FuzzChallenge(f *testing.F) {
	for _, c := range challenges {
		f.Add(c.challenge)
	}
	f.Add(`Bearer authorization=, resource="https://vault.example.com"`)
	f.Add(`bearer scope="https://vault.example.com/.default",authorization="/"`)
	hosts, err := keyvault.NewHosts("vault.example.com")
	if err != nil {
		f.Fatal(err)
	}
	may := []string{"https://vault.example.com", "https://example.com", "https://vault.azure."}
	f.Fuzz(func(t *testing.T, challenge string) {
		v, source := newVault(), &tokens{}
		v.challenge = challenge
		s := secretsOf(t, v, source, &keyvault.Options{Hosts: hosts})
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := s.Secret(ctx, "https://vault.example.com/secrets/code"); err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error is %v", err)
		}
		for _, resource := range source.Asked() {
			lower := strings.ToLower(resource)
			if !slices.ContainsFunc(may, func(p string) bool { return strings.HasPrefix(lower, p) }) && !strings.HasPrefix(lower, "https://vault.usgovcloudapi.net") {
				t.Errorf("a token for %q", resource)
			}
		}
	})
}

// Over the network it is TLS, with a certificate of the vault's own name, or
// nothing.
func TestTLS(t *testing.T) {
	v := newVault()
	roots, transport := v.serve(t)
	hosts, err := keyvault.NewHosts("vault.example.com")
	if err != nil {
		t.Fatal(err)
	}
	good := secretsOf(t, nil, &tokens{}, &keyvault.Options{Hosts: hosts, Transport: transport(&tls.Config{RootCAs: roots})})
	want(t, good, current, "s3cret-1")
	for name, c := range map[string]struct {
		s   *keyvault.Secrets
		uri string
	}{
		"another's certificate": {good, "https://vault.example.com/secrets/code"},
		"nobody's certificate":  {secretsOf(t, nil, &tokens{}, &keyvault.Options{Transport: transport(&tls.Config{RootCAs: x509.NewCertPool()})}), current},
	} {
		before := len(v.Shown())
		if got, err := c.s.Secret(t.Context(), c.uri); err == nil || !strings.Contains(err.Error(), "certificate") || got != "" || len(v.Shown()) != before {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

// After the end there are no secrets.
func TestClose(t *testing.T) {
	s := secretsOf(t, newVault(), &tokens{}, nil)
	want(t, s, current, "s3cret-1")
	s.Close()
	s.Close()
	if got, err := s.Secret(t.Context(), current); err == nil {
		t.Errorf("got %q", got)
	}
}
