package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestNetty runs what folder java/netty holds: Netty's WebSocket client, which Java's SDKs
// bring along, against a node that compresses.
func TestNetty(t *testing.T) {
	java := need(t, "java")
	classPath := compiled(t, jars(t, "java"), filepath.Join("java", "netty", "*.java"))
	key := randomKey()
	endpoint := serve(t, map[string]any{
		"accessKeys": map[string]string{"primary": key}, "compression": map[string]any{"enabled": true},
	}).waitFor(t, endpointLine)
	n := node{Endpoint: endpoint, Key: key}
	cmd := exec.Command(java, "-Dfile.encoding=UTF-8", "-cp", classPath, "NettyCompression")
	cmd.Env = append(os.Environ(), n.env()...)
	run(t, 2*time.Minute, cmd)
}
