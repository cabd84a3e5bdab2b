package entra_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/engine"
)

const (
	tenant   = "11111111-aaaa-4bbb-8ccc-222222222222"
	stranger = "99999999-aaaa-4bbb-8ccc-222222222222"
	robot    = "aaaaaaaa-0000-4000-8000-000000000001" // the object id of an application
	robotApp = "aaaaaaaa-0000-4000-8000-000000000002" // and its application id
	ann      = "bbbbbbbb-0000-4000-8000-000000000001" // a user
	crew     = "cccccccc-0000-4000-8000-000000000001" // a group
)

// rsaKeys are made once: making them takes most of the time that these tests take.
var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	keys := make([]*rsa.PrivateKey, 3)
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

// provider is a small Entra ID: one tenant's discovery document and keys.
type provider struct {
	url string // its authority

	mu       sync.Mutex // guards the rest
	keys     map[string]any
	document map[string]any                                // overrides members of the discovery document
	answer   func(http.ResponseWriter, *http.Request) bool // true: it has answered
	asked    map[string]int                                // requests by path
	times    []time.Time                                   // of requests for keys
}

const (
	discoveryPath = "/" + tenant + "/v2.0/.well-known/openid-configuration"
	keysPath      = "/" + tenant + "/discovery/v2.0/keys"
)

// newProvider returns a provider that has one key, "one", which is rsaKeys()[0].
func newProvider() *provider {
	p := &provider{url: "https://login.example.com", keys: map[string]any{}, document: map[string]any{}, asked: map[string]int{}}
	p.setKeys("one")
	return p
}

// serve makes the provider serve over TLS, and returns options that trust it.
func (p *provider) serve(t testing.TB) *entra.IssuerOptions {
	t.Helper()
	s := httptest.NewTLSServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &entra.IssuerOptions{TLS: &tls.Config{RootCAs: pool}}
}

// inMemory returns options that reach the provider without a socket, so that time
// can be virtual.
func (p *provider) inMemory() *entra.IssuerOptions {
	return &entra.IssuerOptions{Wrap: func(http.RoundTripper) http.RoundTripper { return roundTripper(p.ServeHTTP) }}
}

// inMemoryAtRoot is inMemory for a provider without tenants.
func (p *provider) inMemoryAtRoot() *entra.IssuerOptions {
	return &entra.IssuerOptions{Wrap: func(http.RoundTripper) http.RoundTripper {
		return roundTripper(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/.well-known/openid-configuration" {
				r.URL.Path = discoveryPath
			}
			p.ServeHTTP(w, r)
		})
	}}
}

type roundTripper http.HandlerFunc

func (h roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// setKeys replaces the keys: "one", "two" and "three" are those of rsaKeys.
func (p *provider) setKeys(names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.keys)
	for _, name := range names {
		p.keys[name] = jwk(name, &private(name).PublicKey)
	}
}

func private(name string) *rsa.PrivateKey {
	return rsaKeys()[map[string]int{"one": 0, "two": 1, "three": 2}[name]]
}

func jwk(id string, k *rsa.PublicKey) map[string]any {
	return map[string]any{
		"kty": "RSA", "use": "sig", "kid": id, "x5t": id, "issuer": "https://sts.windows.net/{tenantid}/",
		"n": base64.RawURLEncoding.EncodeToString(k.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(k.E)).Bytes()),
	}
}

// breakWith makes the provider answer otherwise; nil mends it.
func (p *provider) breakWith(answer func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func down(w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	return true
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked[r.URL.Path]++
	if r.URL.Path == keysPath {
		p.times = append(p.times, time.Now())
	}
	answer := p.answer
	document := map[string]any{
		"issuer": p.url + "/" + tenant + "/v2.0", "jwks_uri": p.url + keysPath,
		"id_token_signing_alg_values_supported": []string{"RS256"},
	}
	maps.Copy(document, p.document)
	keys := map[string]any{"keys": slices.Collect(maps.Values(p.keys))}
	p.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	switch r.URL.Path {
	case discoveryPath:
		json.NewEncoder(w).Encode(document)
	case keysPath:
		json.NewEncoder(w).Encode(keys)
	default:
		http.NotFound(w, r)
	}
}

// requests returns how often a path has been asked for.
func (p *provider) requests(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// claims are those of a token of the robot, of version 2.0, with what others say
// instead; a nil takes a claim out.
func (p *provider) claims(others ...map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{
		"aud": entra.Audience, "iss": p.url + "/" + tenant + "/v2.0", "iat": now, "nbf": now, "exp": now + 3600,
		"azp": robotApp, "azpacr": "1", "oid": robot, "sub": robot, "tid": tenant, "idtyp": "app", "ver": "2.0", "uti": "x",
	}
	for _, o := range others {
		maps.Copy(c, o)
	}
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// token signs claims with a key by its name.
func (p *provider) token(key string, others ...map[string]any) string {
	payload, err := json.Marshal(p.claims(others...))
	if err != nil {
		panic(err)
	}
	return signed(private(key), fmt.Sprintf(`{"typ":"JWT","alg":"RS256","kid":%q}`, key), string(payload))
}

// signed makes a token of any header and payload, signed with RS256.
func signed(key *rsa.PrivateKey, header, payload string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// newIssuer returns the tenant's issuer, closed with the test.
func newIssuer(t testing.TB, p *provider, o *entra.IssuerOptions) *entra.Issuer {
	t.Helper()
	i, err := entra.NewIssuer(p.url, tenant, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

// owners returns roles in which each principal is an owner of every hub.
func owners(t testing.TB, principals ...string) *entra.Roles {
	t.Helper()
	r := entra.NewRoles()
	for _, id := range principals {
		if err := r.Assign(id, entra.RoleOwner, "*"); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

type authorizer interface {
	Authorize(context.Context, engine.ServerRequest) (engine.Principal, error)
}

// show sends a request with the token.
func show(a authorizer, token string) (engine.Principal, error) {
	return a.Authorize(ctx, engine.ServerRequest{
		Method: "POST", Scheme: "https", Host: "rt.example.com", Target: "/api/hubs/chat/:send",
		Header: map[string][]string{"Authorization": {"Bearer " + token}},
	})
}

func ruleOf(err error) string {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Rule
	}
	return fmt.Sprint(err)
}

// refused checks a refusal, and that nothing of it shows the token.
func refused(t *testing.T, err error, code engine.Code, rule, token string) {
	t.Helper()
	var e *engine.Error
	if !errors.As(err, &e) || e.Rule != rule || e.Code != code {
		t.Errorf("got %v (%v); want %s, %v", err, engine.CodeOf(err), rule, code)
		return
	}
	if e.Message == "" {
		t.Errorf("%s says nothing", rule)
	}
	all := fmt.Sprint(e.Message, e.Detail, err)
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 20 && strings.Contains(all, part) {
			t.Errorf("a part of the token shows in %s", all)
		}
	}
}
