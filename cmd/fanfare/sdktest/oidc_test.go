package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestOIDC runs what folder oidc holds: event handlers that check the tokens of a
// node with ordinary OpenID middleware. The suite starts the node itself: its
// handlers must be there first.
func TestOIDC(t *testing.T) {
	nodejs := need(t, "node")
	modules := nodeModules(t, "oidc")
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nodejs, nodeTest(filepath.Join("oidc", "issuer.test.js"))...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "FANFARE_BINARY="+path, "NO_PROXY=127.0.0.1,localhost")
	run(t, 2*time.Minute, cmd)
}
