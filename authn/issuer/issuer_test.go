package issuer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/issuer"
)

func derive(t testing.TB, n int) issuer.Key {
	t.Helper()
	k, err := issuer.DeriveKey([]byte(fmt.Sprintf("a secret of more than sixteen bytes, number %d", n)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newIssuer(t testing.TB, url string, o *issuer.Options, keys ...issuer.Key) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New(url, o, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// read returns a page of the issuer.
func read(t testing.TB, i *issuer.Issuer, path string, into any) http.Header {
	t.Helper()
	w := httptest.NewRecorder()
	i.Handler(nil).ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %d %v", path, w.Code, w.Header())
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Fatal(err)
	}
	return w.Header()
}

// ids returns the ids of the published keys.
func ids(t testing.TB, i *issuer.Issuer) []string {
	t.Helper()
	var set struct{ Keys []map[string]string }
	read(t, i, "/.well-known/jwks.json", &set)
	var all []string
	for _, k := range set.Keys {
		all = append(all, k["kid"])
	}
	return all
}

// kid returns the id of the key that a token names.
func kid(t testing.TB, i *issuer.Issuer, resource string) string {
	t.Helper()
	text, err := i.Token(t.Context(), resource)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := jwt.NewParser().ParseUnverified(text, jwt.MapClaims{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Header["kid"].(string)
}

// An ordinary handler finds the keys by discovery and checks a token with them.
func TestValidation(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	byRSA, err := issuer.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		alg  string
		keys []issuer.Key
		all  []string
	}{
		{"ES256", []issuer.Key{derive(t, 1), derive(t, 2)}, []string{"ES256"}},
		{"RS256", []issuer.Key{byRSA, derive(t, 1)}, []string{"RS256", "ES256"}},
	} {
		t.Run(test.alg, func(t *testing.T) {
			mux := http.NewServeMux()
			s := httptest.NewServer(mux)
			t.Cleanup(s.Close)
			i := newIssuer(t, s.URL+"/", nil, test.keys...)
			mux.Handle("/", i.Handler(nil))

			resp, err := http.Get(i.URL() + "/.well-known/openid-configuration")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var found struct {
				Issuer     string   `json:"issuer"`
				JWKS       string   `json:"jwks_uri"`
				Algorithms []string `json:"id_token_signing_alg_values_supported"`
			}
			if err := json.NewDecoder(resp.Body).Decode(&found); err != nil || found.Issuer != s.URL || !slices.Equal(found.Algorithms, test.all) {
				t.Fatalf("%+v, %v", found, err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			keys, err := keyfunc.NewDefaultCtx(ctx, []string{found.JWKS})
			if err != nil {
				t.Fatal(err)
			}
			check := func(text, audience string) (jwt.MapClaims, error) {
				claims := jwt.MapClaims{}
				_, err := jwt.ParseWithClaims(text, claims, keys.Keyfunc, jwt.WithValidMethods(found.Algorithms[:1]),
					jwt.WithIssuer(found.Issuer), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
				return claims, err
			}
			text, err := i.Token(t.Context(), "api://my-handler/.default")
			if err != nil {
				t.Fatal(err)
			}
			claims, err := check(text, "api://my-handler")
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]any{"sub": "fanfare", "azp": "fanfare", "appid": "fanfare", "idtyp": "app", "ver": "2.0"} {
				if claims[name] != want {
					t.Errorf("%s is %v; want %v", name, claims[name], want)
				}
			}
			if life := claims["exp"].(float64) - claims["iat"].(float64); life != 3600 || claims["jti"] == "" {
				t.Errorf("a life of %v s: %v", life, claims)
			}
			if _, err := check(text, "api://another"); err == nil {
				t.Error("accepted for another audience")
			}
			other := newIssuer(t, s.URL, nil, derive(t, 3))
			forged, _ := other.Token(t.Context(), "api://my-handler")
			if _, err := check(forged, "api://my-handler"); err == nil {
				t.Error("accepted with a stranger's key")
			}
		})
	}
}

// A new key is published before it signs, and the one before it until its last
// token has expired.
func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, three := derive(t, 1), derive(t, 2), derive(t, 3)
		i := newIssuer(t, "https://rt.example.com", nil, one, two)
		is := func(signer issuer.Key, all ...issuer.Key) {
			t.Helper()
			if got := kid(t, i, "api://x"); got != signer.ID() {
				t.Errorf("%s signs; want %s", got, signer.ID())
			}
			var want []string
			for _, k := range all {
				want = append(want, k.ID())
			}
			if got := ids(t, i); !slices.Equal(got, want) {
				t.Errorf("published are %v; want %v", got, want)
			}
		}
		is(one, one, two)
		time.Sleep(5 * time.Minute)

		// Two is known to all already: one has expired 60 minutes after its last
		// token, and 5 for clocks.
		i.Use(two)
		is(two, two, one)
		time.Sleep(60 * time.Minute)
		is(two, two, one)
		time.Sleep(time.Second)
		is(two, two)

		// Three is new.
		i.Use(three)
		is(two, three, two)
		time.Sleep(10*time.Minute - time.Second)
		is(two, three, two)
		time.Sleep(time.Second)
		is(three, three, two)
		time.Sleep(55*time.Minute - 2*time.Second) // two's last token is of an hour after its first
		is(three, three, two)
		time.Sleep(2 * time.Second)
		is(three, three)

		// One that comes back before it was due to sign, and one that never did.
		i.Use(one, three)
		i.Use(three)
		is(three, three)
		i.Use(two, three)
		time.Sleep(5 * time.Minute)
		i.Use(two, three, three)
		time.Sleep(5 * time.Minute)
		is(two, two, three)
	})
}

// A token is used until 5 minutes before its end.
func TestTokensAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t, "https://rt.example.com", &issuer.Options{Subject: "chat", Lifetime: 20 * time.Minute}, derive(t, 1))
		token := func() string {
			text, err := i.Token(t.Context(), "api://x")
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		first := token()
		time.Sleep(15*time.Minute - time.Second)
		if token() != first {
			t.Error("minted too soon")
		}
		time.Sleep(time.Second)
		if token() == first {
			t.Error("not renewed")
		}
		for n := range 1000 {
			i.Token(t.Context(), fmt.Sprintf("api://%d", n))
		}
		if s := i.Stats(); s.Minted != 1002 || s.Keys != 1 {
			t.Errorf("%+v", s)
		}
		claims := jwt.MapClaims{}
		jwt.NewParser().ParseUnverified(first, claims)
		if claims["sub"] != "chat" || claims["exp"].(float64)-claims["iat"].(float64) != 1200 || claims["iat"].(float64)-claims["nbf"].(float64) != 300 {
			t.Errorf("%v", claims)
		}
	})
}

// The same secret makes the same key, now and in every later version.
func TestDerivedKey(t *testing.T) {
	k := derive(t, 1)
	if got, want := k.ID(), "66hhuKyEDAfmavENAJ86Z8dNnLZre4tIJOB5cqV6-Hw"; got != want {
		t.Errorf("the key's id is %s; want %s", got, want)
	}
	if derive(t, 1).ID() != k.ID() || derive(t, 2).ID() == k.ID() {
		t.Error("keys are not told apart by their secrets")
	}
	if _, err := issuer.DeriveKey([]byte("fifteen bytes..")); err == nil {
		t.Error("a short secret was accepted")
	}
}

// Only what can sign tokens safely is a key, and it shows its public half alone.
func TestKeys(t *testing.T) {
	small, _ := rsa.GenerateKey(rand.Reader, 1024)
	another, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	for name, private := range map[string]any{"a small RSA key": small, "another curve": another, "Ed25519": edwards, "a symmetric key": []byte("secret"), "nothing": nil} {
		if _, err := issuer.NewKey(private); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	k := derive(t, 1)
	i := newIssuer(t, "https://rt.example.com", nil, k)
	var set struct{ Keys []map[string]any }
	header := read(t, i, "/.well-known/jwks.json", &set)
	if header.Get("Cache-Control") != "public, max-age=300" {
		t.Errorf("%v", header)
	}
	var names []string
	for name := range set.Keys[0] {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"alg", "crv", "kid", "kty", "use", "x", "y"}; !slices.Equal(names, want) {
		t.Errorf("a key has the members %v; want %v", names, want)
	}
	private, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	given, err := issuer.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := private.Bytes()
	number := new(big.Int).SetBytes(raw)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", given)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", given, given, given, given), log.String()} {
		if !strings.Contains(text, given.ID()) || strings.Contains(text, number.String()) || strings.Contains(text, fmt.Sprint(raw)) {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestRefusals(t *testing.T) {
	k := derive(t, 1)
	for _, url := range []string{"", "rt.example.com", "ftp://x", "https://", "https://u@x", "https://x/base?y", "https://x?y", "https://x#y"} {
		if _, err := issuer.New(url, nil, k); err == nil {
			t.Errorf("the URL %q was accepted", url)
		}
	}
	i := newIssuer(t, "https://rt.example.com", nil, k)
	for _, keys := range [][]issuer.Key{nil, {{}}, make([]issuer.Key, 17)} {
		if err := i.Use(keys...); err == nil {
			t.Errorf("%d keys were accepted", len(keys))
		}
	}
	for _, resource := range []string{"", "/.default", "a b", "a\n", strings.Repeat("x", 1025)} {
		if _, err := i.Token(t.Context(), resource); err == nil {
			t.Errorf("the resource %.20q was accepted", resource)
		}
	}
	// However often keys change, no more are published than there is room for.
	for n := range 40 {
		i.Use(derive(t, n))
		kid(t, i, "api://x")
	}
	if n := len(ids(t, i)); n > 17 {
		t.Errorf("%d keys are published", n)
	}
}

// An issuer may be below a path, where its pages then are.
func TestIssuerBelowAPath(t *testing.T) {
	key, err := issuer.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	i, err := issuer.New("https://example.com/rt/", nil, key)
	if err != nil {
		t.Fatal(err)
	}
	var page struct {
		Issuer string
		Keys   string `json:"jwks_uri"`
	}
	read(t, i, "/rt/.well-known/openid-configuration", &page)
	if page.Issuer != "https://example.com/rt" || page.Keys != "https://example.com/rt/.well-known/jwks.json" {
		t.Errorf("%+v", page)
	}
	w := httptest.NewRecorder()
	if i.Handler(nil).ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/openid-configuration", nil)); w.Code != 404 {
		t.Errorf("above the path: %d", w.Code)
	}
}

// Other paths are not the issuer's, and its pages are only read.
func TestHandler(t *testing.T) {
	h := newIssuer(t, "https://rt.example.com", nil, derive(t, 1)).Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "fallback") }))
	for _, test := range []struct {
		method, path string
		status       int
		fallback     bool
	}{
		{"GET", "/.well-known/openid-configuration", 200, false},
		{"HEAD", "/.well-known/jwks.json", 200, false},
		{"POST", "/.well-known/jwks.json", 405, false},
		{"GET", "/.well-known/jwks.json/", 200, true},
		{"GET", "/.well-known%2Fjwks.json", 200, true},
		{"GET", "/healthz", 200, true},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		if w.Code != test.status || (w.Body.String() == "fallback") != test.fallback {
			t.Errorf("%s %s: %d %s", test.method, test.path, w.Code, w.Body)
		}
	}
}

// Tokens are minted while keys change and are read.
func TestConcurrently(t *testing.T) {
	i := newIssuer(t, "https://rt.example.com", &issuer.Options{Lead: time.Nanosecond}, derive(t, 0))
	keys := []issuer.Key{derive(t, 1), derive(t, 2), derive(t, 3)}
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for m := range 20 {
				i.Use(keys[(n+m)%3])
				if signer := kid(t, i, "api://x"); !slices.Contains(ids(t, i), signer) {
					t.Error("a key signs that is not published")
				}
			}
		})
	}
	wg.Wait()
}
