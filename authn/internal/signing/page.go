package signing

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// CacheFor is how long readers of the keys may keep them.
const CacheFor = 5 * time.Minute

// KeySet is a JWKS.
type KeySet struct {
	Keys []JWK `json:"keys"`
}

// The paths of discovery, below the issuer's (OpenID Connect Discovery 1.0 section 4).
const (
	pathConfiguration = "/.well-known/openid-configuration"
	pathKeys          = "/.well-known/jwks.json"
)

// configuration is what readers need; there is nowhere to log in.
type configuration struct {
	Issuer        string   `json:"issuer"`
	Keys          string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	Claims        []string `json:"claims_supported"`
}

// Discovery serves the configuration of an issuer, and its keys as they are at the
// time, below the path of its URL, and hands all other requests to fallback, which may
// be nil for not found. An issuer that is no http or https URL is served nowhere.
func Discovery(issuer string, claims []string, keys func() KeySet, fallback http.Handler) http.Handler {
	if fallback == nil {
		fallback = http.NotFoundHandler()
	}
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return fallback
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.EscapedPath() {
		case path + pathConfiguration:
			c := configuration{
				Issuer: issuer, Keys: strings.TrimSuffix(issuer, "/") + pathKeys,
				ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}, Algorithms: []string{}, Claims: claims,
			}
			for _, k := range keys().Keys {
				if !slices.Contains(c.Algorithms, k.Algorithm) {
					c.Algorithms = append(c.Algorithms, k.Algorithm)
				}
			}
			ServePage(w, r, c)
		case path + pathKeys:
			ServePage(w, r, keys())
		default:
			fallback.ServeHTTP(w, r)
		}
	})
}

// ServePage answers a request with a page that readers of tokens may cache. It is public,
// so that pages of every origin may read it (Fetch, section 3.3: "CORS protocol").
func ServePage(w http.ResponseWriter, r *http.Request, page any) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != "" {
		w.Header().Set("Access-Control-Allow-Methods", "GET, HEAD")
		w.Header().Set("Access-Control-Allow-Headers", "*")
		w.Header().Set("Access-Control-Max-Age", "3600")
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this page is read with GET", http.StatusMethodNotAllowed)
		return
	}
	text, err := json.Marshal(page)
	if err != nil {
		http.Error(w, "this page cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(CacheFor.Seconds())))
	w.Write(text)
}
