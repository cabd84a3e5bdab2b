package main

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// publicPath returns the path of publicEndpoint, empty or like /rt: what the service's
// own paths stand behind where its clients see them.
func publicPath(c *config.Config) string {
	u, err := url.Parse(c.PublicEndpoint)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Path, "/")
}

// stripPrefix removes the public path from requests, which a proxy in front may keep or
// remove: both /rt/api/... and /api/... are served. RequestURI stays as it was sent,
// since tokens and signatures are compared with it (see authn.Hosts).
func stripPrefix(prefix string, next http.Handler) http.Handler {
	if prefix == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, below := strings.CutPrefix(r.URL.Path, prefix)
		raw, rawBelow := strings.CutPrefix(r.URL.RawPath, prefix) // empty where no escape needs it
		if below && strings.HasPrefix(path, "/") && (rawBelow || r.URL.RawPath == "") {
			r = withPath(r, path, raw)
		}
		next.ServeHTTP(w, r)
	})
}

// addPrefix is the opposite of stripPrefix, for a handler that expects the public path.
func addPrefix(prefix string, next http.Handler) http.Handler {
	if prefix == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw := r.URL.RawPath
		if raw != "" {
			raw = prefix + raw
		}
		next.ServeHTTP(w, withPath(r, prefix+r.URL.Path, raw))
	})
}

// withPath returns r with another path, and its escaped form where it needs one.
func withPath(r *http.Request, path, raw string) *http.Request {
	other, u := *r, *r.URL
	u.Path, u.RawPath = path, raw
	other.URL = &u
	return &other
}
