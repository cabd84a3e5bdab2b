package identity_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/identity"
)

// get reads a page.
func get(t *testing.T, url string) (status int, body []byte) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if body, err = io.ReadAll(r.Body); err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, body
}

// Whoever knows the issuer alone can prove a token.
func TestDiscovery(t *testing.T) {
	for name, key := range map[string]identity.Key{"ES256": derive(t, 1), "RS256": byRSA(t)} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			server := httptest.NewServer(mux)
			defer server.Close()
			issuer := server.URL + "/identities"
			u, err := identity.New(t.Context(), identity.NewMemoryStore(), &identity.Options{Issuer: issuer}, key)
			if err != nil {
				t.Fatal(err)
			}
			fallback := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "fallback") })
			mux.Handle("/", u.Discovery(fallback))
			text := issue(t, u, create(t, u))

			// From here on as a stranger would, with the token and the issuer.
			status, body := get(t, issuer+"/.well-known/openid-configuration")
			var page struct {
				Issuer     string   `json:"issuer"`
				Keys       string   `json:"jwks_uri"`
				Algorithms []string `json:"id_token_signing_alg_values_supported"`
				Claims     []string `json:"claims_supported"`
			}
			if err := json.Unmarshal(body, &page); err != nil || status != 200 || page.Issuer != issuer || !slices.Equal(page.Algorithms, []string{name}) {
				t.Fatalf("%d, %s, %v", status, body, err)
			}
			keys, err := keyfunc.NewDefaultCtx(t.Context(), []string{page.Keys})
			if err != nil {
				t.Fatal(err)
			}
			claims := jwt.MapClaims{}
			_, err = jwt.ParseWithClaims(text, claims, keys.Keyfunc, jwt.WithValidMethods(page.Algorithms), jwt.WithIssuer(issuer), jwt.WithExpirationRequired())
			if err != nil {
				t.Error(err)
			}
			for claim := range claims {
				if !slices.Contains(page.Claims, claim) {
					t.Errorf("the page does not list the claim %s", claim)
				}
			}
			if len(page.Claims) != len(claims) {
				t.Errorf("the page lists %v; a token has %v", page.Claims, claims)
			}
			for _, path := range []string{"/.well-known/jwks.json", "/identities", "/identities/.well-known/x", "/identities%2F.well-known/jwks.json"} {
				if _, body := get(t, server.URL+path); string(body) != "fallback" {
					t.Errorf("%s: %s", path, body)
				}
			}
		})
	}
}

// Pages are for reading, and an issuer that is no URL has none.
func TestDiscoveryRefusals(t *testing.T) {
	u := newUsers(t, identity.NewMemoryStore())
	w := httptest.NewRecorder()
	u.Discovery(nil).ServeHTTP(w, httptest.NewRequest("GET", "/.well-known/jwks.json", nil))
	if w.Code != 404 {
		t.Errorf("%d, %s", w.Code, w.Body)
	}
	u, err := identity.New(t.Context(), identity.NewMemoryStore(), &identity.Options{Issuer: "http://rt.example.com/identities/"}, derive(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "DELETE": 405} {
		for _, page := range []string{"jwks.json", "openid-configuration"} {
			w := httptest.NewRecorder()
			u.Discovery(nil).ServeHTTP(w, httptest.NewRequest(method, "/identities/.well-known/"+page, nil))
			if w.Code != want || want == 200 && (w.Header().Get("Cache-Control") != "public, max-age=300" || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/json")) {
				t.Errorf("%s %s: %d, %v", method, page, w.Code, w.Header())
			}
		}
	}
}

// Public keys are for pages of every origin, and a browser's question whether a page may
// ask is answered.
func TestDiscoveryIsOpenToPages(t *testing.T) {
	u, err := identity.New(t.Context(), identity.NewMemoryStore(), &identity.Options{Issuer: "http://rt.example.com/identities"}, derive(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]http.Handler{"Discovery": u.Discovery(nil), "Handler": u.Handler()} {
		for _, page := range []string{"jwks.json", "openid-configuration"} {
			ask := func(method string, header ...string) *httptest.ResponseRecorder {
				w, r := httptest.NewRecorder(), httptest.NewRequest(method, "/identities/.well-known/"+page, nil)
				r.Header.Set("Origin", "https://anybody.example")
				for i := 0; i < len(header); i += 2 {
					r.Header.Set(header[i], header[i+1])
				}
				h.ServeHTTP(w, r)
				return w
			}
			if w := ask("GET"); w.Code != 200 || w.Header().Get("Access-Control-Allow-Origin") != "*" || w.Header().Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s %s: %d %v", name, page, w.Code, w.Header())
			}
			w := ask("OPTIONS", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "x-trace")
			if w.Code != 204 || w.Header().Get("Access-Control-Allow-Origin") != "*" || w.Header().Get("Access-Control-Allow-Methods") != "GET, HEAD" || w.Header().Get("Access-Control-Allow-Headers") != "*" {
				t.Errorf("%s %s: %d %v", name, page, w.Code, w.Header())
			}
			if w := ask("OPTIONS"); w.Code != 405 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s %s: OPTIONS without a question: %d %v", name, page, w.Code, w.Header())
			}
		}
	}
}
