package sdktest

import (
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
