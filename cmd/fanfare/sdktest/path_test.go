package sdktest

import (
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestEndpointWithAPath runs SDKs whose connection string has an Endpoint with a path,
// through a reverse proxy that keeps the path and through one that removes it.
func TestEndpointWithAPath(t *testing.T) {
	for name, keeps := range map[string]bool{"kept": true, "removed": false} {
		t.Run(name, func(t *testing.T) {
			n := startBehindPath(t, keeps)
			t.Run("JavaScript", func(t *testing.T) {
				var suites []string
				for _, s := range []string{"access", "messages", "membership", "closing", "client"} {
					suites = append(suites, filepath.Join("javascript", s+".test.js"))
				}
				cmd := exec.Command(need(t, "node"), nodeTest(suites...)...)
				cmd.Env = append(append(os.Environ(), n.env()...), "NODE_PATH="+nodeModules(t, "javascript"))
				run(t, 3*time.Minute, cmd)
			})
			t.Run("Python", func(t *testing.T) {
				cmd := exec.Command(pythonWith(t, "python"), "-B", "-W", "ignore::ResourceWarning", "-m", "unittest", "--verbose", "test_service")
				cmd.Env = append(append(os.Environ(), n.env()...), "PYTHONPATH=python")
				run(t, 3*time.Minute, cmd)
			})
		})
	}
}

// listeningOn finds where a node listens, which its endpoint does not say here.
var listeningOn = regexp.MustCompile(`Listening on +(\S+)`)

// startBehindPath runs a node that is called by the URL of a proxy and a path, which the
// proxy keeps in what it sends on, or removes.
func startBehindPath(t *testing.T, keeps bool) *node {
	t.Helper()
	const path = "/real-time/v1"
	var target atomic.Pointer[url.URL]
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target.Load())
		r.Out.Host = r.In.Host
		if !keeps {
			r.Out.URL.Path, r.Out.URL.RawPath = strings.TrimPrefix(r.In.URL.Path, path), strings.TrimPrefix(r.In.URL.EscapedPath(), path)
		}
	}})
	t.Cleanup(proxy.Close)
	n := &node{Key: randomKey(), Secondary: randomKey(), Endpoint: proxy.URL + path}
	p := serve(t, map[string]any{
		"accessKeys":     map[string]string{"primary": n.Key, "secondary": n.Secondary},
		"publicEndpoint": n.Endpoint,
	})
	target.Store(&url.URL{Scheme: "http", Host: p.waitFor(t, listeningOn)})
	t.Logf("node: %s behind %s", target.Load().Host, n.Endpoint)
	return n
}
