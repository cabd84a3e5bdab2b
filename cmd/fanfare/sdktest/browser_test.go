package sdktest

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// inBrowser runs one of the files of folder javascript/browser.
func inBrowser(t *testing.T, file string, env ...string) {
	t.Helper()
	chromium := need(t, "chromium", "chromium-browser", "google-chrome")
	cmd := exec.Command(need(t, "node"), nodeTest(filepath.Join("javascript", "browser", file))...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+nodeModules(t, "javascript"), "FANFARE_CHROMIUM="+chromium)
	cmd.Env = append(cmd.Env, env...)
	run(t, 3*time.Minute, cmd)
}

// TestBrowserAndSDKInOneGroup joins a browser's own WebSockets, an SDK client
// and the REST door.
func TestBrowserAndSDKInOneGroup(t *testing.T) {
	need(t, "chromium", "chromium-browser", "google-chrome")
	inBrowser(t, "group.test.js", startNode(t, plain, nil).env()...)
}

// TestPagesOfOtherOrigins has a browser's pages call REST, the identity API and the
// public keys: those of an allowed origin, and those of another one.
func TestPagesOfOtherOrigins(t *testing.T) {
	need(t, "chromium", "chromium-browser", "google-chrome")
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }))
	t.Cleanup(app.Close)
	n := &node{Key: randomKey(), Secondary: randomKey()}
	n.Endpoint = serve(t, map[string]any{
		"accessKeys": map[string]string{"primary": n.Key, "secondary": n.Secondary},
		"cors":       map[string]any{"allowedOrigins": []string{app.URL}},
	}).waitFor(t, endpointLine)
	inBrowser(t, "cors.test.js", append(n.env(), "FANFARE_PAGE="+app.URL)...)
}
