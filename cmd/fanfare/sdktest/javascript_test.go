package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// listening finds the address that a JavaScript, Python or Java server prints.
var listening = regexp.MustCompile(`listening on (http://127\.0\.0\.1:\d+)`)

// startHandler runs the official express middleware as an event handler and
// returns its address.
func startHandler(t *testing.T, modules string) string {
	t.Helper()
	cmd := exec.Command(need(t, "node"), filepath.Join("javascript", "handler.js"))
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	return start(t, cmd).waitFor(t, listening)
}

// TestJavaScript runs what folder javascript holds: @azure/web-pubsub,
// @azure/web-pubsub-client and MQTT.js against a node whose hubs "events" and
// "mqtt" are handled by @azure/web-pubsub-express.
func TestJavaScript(t *testing.T) {
	nodejs := need(t, "node")
	modules := nodeModules(t, "javascript")
	handler := startHandler(t, modules)
	suites, err := filepath.Glob(filepath.Join("javascript", "*.test.js"))
	if err != nil || len(suites) == 0 {
		t.Fatalf("no suites in folder javascript (%v)", err)
	}
	bothSchemes(t, func(t *testing.T, s scheme) {
		n := startNode(t, s, map[string][]eventHandler{
			"events": allEvents(handler + "/eventhandler"),
			"mqtt":   allEvents(handler + "/mqtt"),
		})
		cmd := exec.Command(nodejs, nodeTest(suites...)...)
		cmd.Env = append(os.Environ(), n.env()...)
		cmd.Env = append(cmd.Env, "NODE_PATH="+modules, "FANFARE_HANDLER="+handler)
		run(t, 5*time.Minute, cmd)
	})
}

// nodeTest are the arguments that make Node run test files. The SDK's timers
// outlive its clients by minutes, so the runner leaves once the tests are done.
func nodeTest(files ...string) []string {
	return append([]string{"--test", "--test-reporter=spec", "--test-force-exit", "--test-concurrency=2"}, files...)
}
