package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestServerless has two tabs of a browser chat by the functions of
// examples/serverless.
func TestServerless(t *testing.T) {
	need(t, "chromium", "chromium-browser", "google-chrome")
	folder := filepath.Join("..", "..", "..", "examples", "serverless")
	cmd := exec.Command(need(t, "node"), filepath.Join(folder, "host.js"))
	modules := nodeModules(t, folder)

	functions := newRelay(t) // the node must know where they are before they know where it is
	n := startNode(t, plain, map[string][]eventHandler{"serverless": {
		{URLTemplate: "http://" + functions.addr() + "/api/{event}", UserEventPattern: "message", SystemEvents: []string{"connect"}},
	}})
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "CONNECTION_STRING="+n.ConnectionString(), "PORT=0")
	url := start(t, cmd).waitFor(t, listening)
	functions.forwardTo(url[len("http://"):])
	inBrowser(t, "serverless.test.js", "SERVERLESS_URL="+url+"/api")
}
