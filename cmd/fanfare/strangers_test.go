package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// The development key never opens an address that strangers reach, whatever a
// reload's settings say of where the node will listen next.
func TestReloadKeepsTheDevelopmentKeyIn(t *testing.T) {
	const own = "own-own-own-own-own-own-own-own-own-own-own"
	path := file(t, "fanfare.yaml", "listen: 0.0.0.0:0\naccessKeys: { primary: "+own+" }\n")
	n := startNode(t, nil, "--config", path)
	_, port, _ := net.SplitHostPort(n.address)
	n.address = "127.0.0.1:" + port
	rewrite(t, path, "listen: 127.0.0.1:0\n")
	n.signals <- syscall.SIGHUP
	eventually(t, "the reload has ended", func() bool {
		return strings.Contains(n.err.String(), "the settings were read again") || strings.Contains(n.err.String(), "stay in force")
	})
	if _, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat"); !refusedWith(err, 401) {
		t.Errorf("with the development key: %v; want 401", err)
	}
	if _, err := dial(t, n.environ(own), "--hub", "chat"); err != nil {
		t.Errorf("with the node's own key: %v", err)
	}
}

// What takes a restart is told until there is one.
func TestRestartIsToldOf(t *testing.T) {
	path := file(t, "fanfare.yaml", "listen: 127.0.0.1:0\n")
	n := startNode(t, nil, "--config", path)
	rewrite(t, path, "listen: 127.0.0.1:0\nlimits: { handshakeTimeout: 1m, unauthenticatedConnections: 7 }\n")
	for i := range 2 {
		n.signals <- syscall.SIGHUP
		eventually(t, "the settings are read again", func() bool { return strings.Count(n.err.String(), "the settings were read again") == i+1 })
		if got := strings.Count(n.err.String(), "keys=limits"); got != i+1 {
			t.Errorf("told %d times, want %d:\n%s", got, i+1, n.err)
		}
	}
}

// A stranger who announces a body and does not send it is not served for ever.
type deadlines struct {
	*httptest.ResponseRecorder
	read time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { return nil }

func TestBodiesHaveAnEnd(t *testing.T) {
	n := startNode(t, nil)
	for _, path := range []string{"/client/hubs/chat", "/client/", "/clients/mqtt/hubs/chat", "/api/hubs/chat/:send", "/healthz", "/x"} {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		n.node.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader("x")))
		if w.read.IsZero() {
			t.Errorf("%s: no end", path)
		}
	}
}

// A stranger who has had its answer does not hold a drain up.
func TestDrainDoesNotWaitForDawdlers(t *testing.T) {
	for name, request := range map[string]string{
		"rest":   "POST /api/hubs/chat/:send HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"client": "POST /client/hubs/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"silent": "",
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, []string{"FANFARE_DRAIN_TIMEOUT=3s", "FANFARE_LOG_LEVEL=debug"})
			c, err := net.Dial("tcp", n.address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, request)
			if request != "" {
				n.err.wait(t, "refused")
			} else {
				get(t, "http://"+n.address+"/healthz")
			}
			n.signals <- syscall.SIGTERM
			if code := n.wait(t); code != exitOK {
				t.Errorf("exit code %d: %s", code, n.err)
			}
		})
	}
}

// Ctrl-C ends pub while it waits for what to send.
func TestInterruptPub(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Shells let what they start in the background ignore interrupts, and so would
	// the program: it begins with what this process listens to at its default.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	cmd := exec.Command(program, "pub", "--hub", "chat", "--all", "-")
	cmd.Env = append(os.Environ(), "RUN_AS_PROGRAM=1")
	in, _ := cmd.StdinPipe()
	defer in.Close()
	var told bytes.Buffer
	cmd.Stderr = &told
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// More than a pipe holds: once it is written, pub reads.
	if _, err := in.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	cmd.Process.Signal(os.Interrupt)
	select {
	case <-done:
	case <-time.After(patience):
		cmd.Process.Kill()
		<-done
		t.Fatal("pub does not heed an interrupt")
	}
}

func TestLongTokens(t *testing.T) {
	// 307445735 minutes wrap around to 26 seconds.
	code, out, stderr := finish(t, nil, "token", "--hub", "chat", "--minutes", "307445735")
	if code != exitUsage || !strings.Contains(stderr, "--minutes") {
		t.Errorf("exit code %d: %s%s", code, out, stderr)
	}
}

func TestEndpointForms(t *testing.T) {
	for _, tt := range []struct{ endpoint, url string }{
		{"HTTPS://rt.example.com", "wss://rt.example.com/client/hubs/chat?"},
		{"https://rt.example.com?", "wss://rt.example.com/client/hubs/chat?"},
		{"https://rt.example.com:", "wss://rt.example.com/client/hubs/chat?"},
	} {
		code, out, stderr := finish(t, []string{"FANFARE_PUBLIC_ENDPOINT=" + tt.endpoint}, "token", "--hub", "chat")
		if code != exitOK || !strings.HasPrefix(out, tt.url) {
			t.Errorf("%s: exit code %d, %s%s", tt.endpoint, code, out, stderr)
		}
	}
	code, _, stderr := finish(t, []string{"FANFARE_PUBLIC_ENDPOINT=https://rt.example.com:99999"}, "check")
	if code != exitFailed || !strings.Contains(stderr, "publicEndpoint") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
