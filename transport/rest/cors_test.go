package rest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/rest"
)

const page = "https://app.example.com" // whose pages may call

func allowPage(origin string) bool { return origin == page }

// crossOrigin sends a request of a page, to the data plane and the identity API.
func crossOrigin(t *testing.T, allow func(string) bool, method, target string, header map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	e, err := engine.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	h := rest.NewHandler(e, &authorizer{}, &rest.Options{
		AllowOrigin: allow,
		Fallback:    rest.NewIdentityHandler(newUsers(), &authorizer{}, &rest.IdentityOptions{AllowOrigin: allow}),
	})
	r := httptest.NewRequest(method, target, nil)
	for name, value := range header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if got := w.Header().Get("Access-Control-Allow-Credentials"); got != "" {
		t.Errorf("credentials are allowed: %s", got)
	}
	return w
}

var crossOriginTargets = []struct{ method, target string }{
	{"POST", "/api/hubs/chat/:send"},
	{"GET", "/api/hubs/chat/groups/g/connections"},
	{"DELETE", "/api/hubs/chat/connections/c"},
	{"POST", "/api/hubs/chat/no/such/path"},
	{"POST", "/identities?api-version=2026-09-23"},
	{"DELETE", "/identities/8:acs:x?api-version=2026-09-23"},
	{"POST", "/access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30"},
	{"POST", "/access/entra/:exchangeAccessToken?api-version=2025-03-02-preview"},
}

// A browser's question is answered before credentials are looked at, for origins that
// may call.
func TestPreflightsAreAnswered(t *testing.T) {
	for _, to := range crossOriginTargets {
		ask := map[string]string{
			"Origin": page, "Access-Control-Request-Method": to.method,
			"Access-Control-Request-Headers": "authorization,content-type, x-ms-client-request-id,x-webpubsub-metadata-trace",
		}
		w := crossOrigin(t, allowPage, http.MethodOptions, to.target, ask)
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin":  page,
			"Access-Control-Allow-Headers": "authorization, content-type, x-ms-client-request-id, x-webpubsub-metadata-trace",
			"Access-Control-Allow-Methods": "DELETE, GET, HEAD, POST, PUT",
			"Access-Control-Max-Age":       "3600",
		} {
			if got := w.Header().Get(name); w.Code != 204 || got != want {
				t.Errorf("%s: %d, %s is %q", to.target, w.Code, name, got)
			}
		}
		if vary := strings.Join(w.Header().Values("Vary"), " "); !strings.Contains(vary, "Origin") || !strings.Contains(vary, "Access-Control-Request-Headers") {
			t.Errorf("%s varies by %q", to.target, vary)
		}
		for name, refused := range map[string]struct {
			allow  func(string) bool
			origin string
		}{
			"another origin":         {allowPage, "https://eve.example"},
			"an opaque one":          {allowPage, "null"},
			"no origins are allowed": {nil, page},
		} {
			ask["Origin"] = refused.origin
			w := crossOrigin(t, refused.allow, http.MethodOptions, to.target, ask)
			if w.Code != 403 || !strings.Contains(w.Body.String(), "cors.allowedOrigins") || !strings.Contains(w.Body.String(), refused.origin) ||
				w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s of %s: %d %v %s", to.target, name, w.Code, w.Header(), w.Body)
			}
		}
	}
	for _, names := range []string{"a b", strings.Repeat("x,", 65) + "x", "authorization;"} {
		w := crossOrigin(t, allowPage, http.MethodOptions, "/api/hubs/chat/:send", map[string]string{
			"Origin": page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": names,
		})
		if w.Code != 400 || !strings.Contains(w.Body.String(), "cors.headers") {
			t.Errorf("%.20q: %d %s", names, w.Code, w.Body)
		}
	}
	// An OPTIONS request that is no question is a method like others.
	if w := crossOrigin(t, allowPage, http.MethodOptions, "/api/hubs/chat/:send", map[string]string{"Origin": page}); w.Code != 405 {
		t.Errorf("OPTIONS: %d %s", w.Code, w.Body)
	}
}

// A page may read replies, and refusals with the headers that say what to do.
func TestPagesReadReplies(t *testing.T) {
	read := func(w *httptest.ResponseRecorder) bool {
		return w.Header().Get("Access-Control-Allow-Origin") == page && strings.Contains(w.Header().Get("Access-Control-Expose-Headers"), "Retry-After")
	}
	for _, to := range crossOriginTargets {
		for _, bearer := range []string{"Bearer owner", "Bearer nobody"} {
			w := crossOrigin(t, allowPage, to.method, to.target, map[string]string{"Origin": page, "Authorization": bearer})
			if !read(w) || w.Header().Get("Vary") != "Origin" {
				t.Errorf("%s as %s: %d %v", to.target, bearer, w.Code, w.Header())
			}
			for _, origin := range []string{"https://eve.example", "null", ""} {
				header := map[string]string{"Authorization": bearer}
				if origin != "" {
					header["Origin"] = origin
				}
				w := crossOrigin(t, allowPage, to.method, to.target, header)
				if w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("Vary") != "Origin" {
					t.Errorf("%s of %q: %v", to.target, origin, w.Header())
				}
			}
		}
	}
	if w := crossOrigin(t, nil, "POST", "/api/hubs/chat/:send", map[string]string{"Origin": page, "Authorization": "Bearer owner"}); w.Code != 202 || w.Header().Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}
