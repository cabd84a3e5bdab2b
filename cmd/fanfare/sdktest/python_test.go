package sdktest

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestPython runs what folder python holds: azure-messaging-webpubsubservice and
// azure-messaging-webpubsubclient. Its events are handled by the same express
// middleware as those of the JavaScript suites.
func TestPython(t *testing.T) {
	python := pythonWith(t, "python")
	handler := startHandler(t, nodeModules(t, "javascript"))
	bothSchemes(t, func(t *testing.T, s scheme) {
		n := startNode(t, s, map[string][]eventHandler{"events": allEvents(handler + "/eventhandler")})
		cmd := exec.Command(python, "-B", "-W", "ignore::ResourceWarning", "-m", "unittest", "discover", "--verbose", "--start-directory", "python")
		cmd.Env = append(os.Environ(), n.env()...)
		run(t, 5*time.Minute, cmd)
	})
}
