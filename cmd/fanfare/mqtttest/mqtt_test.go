// Package mqtttest tries a node with MQTT.js, the client that Node programs and
// browsers use, beside the official server SDKs.
package mqtttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// need returns a program's path. On a machine without it the test is skipped, or
// fails where CI=true: there every client must be tried.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no %s on this machine, and CI=true asks for every client", name)
	}
	t.Skipf("no %s on this machine: skipped", name)
	return ""
}

// run carries out a program within limit and logs what it prints.
func run(t *testing.T, limit time.Duration, dir string, env []string, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
}

// modules installs what package-lock.json pins, once for each version of it, below
// the user's cache. The folder gets its name when it is complete.
func modules(t *testing.T) string {
	t.Helper()
	npm := need(t, "npm")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	files := map[string][]byte{"package.json": nil, "package-lock.json": nil}
	for _, name := range []string{"package.json", "package-lock.json"} {
		if files[name], err = os.ReadFile(filepath.Join("javascript", name)); err != nil {
			t.Fatal(err)
		}
		h.Write(files[name])
	}
	parent := filepath.Join(cache, "fanfare-mqtttest")
	dir := filepath.Join(parent, hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(dir); err == nil {
		return filepath.Join(dir, "node_modules")
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(parent, "installing-") //nolint:usetesting // t.TempDir may lie on another disk
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(work, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, 5*time.Minute, work, nil, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	if err := os.Rename(work, dir); err != nil {
		if _, there := os.Stat(dir); there != nil { // else another run was faster
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "node_modules")
}

// TestMQTTjs runs what folder javascript holds, which starts the node itself: its
// event handler must be there first.
func TestMQTTjs(t *testing.T) {
	node := need(t, "node")
	binary := filepath.Join(t.TempDir(), "fanfare")
	run(t, 5*time.Minute, "", nil, "go", "build", "-o", binary, "..")
	env := []string{"NODE_PATH=" + modules(t), "MQTTTEST_NODE=" + binary, "NO_PROXY=127.0.0.1,localhost"}
	run(t, 3*time.Minute, "javascript", env, node, "--test", "--test-reporter=spec", "--test-force-exit", "mqtt.test.js")
}
