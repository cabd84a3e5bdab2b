package sdktest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// node is a Fanfare node that runs as a process of its own, as its users run it.
type node struct {
	Endpoint  string // scheme://127.0.0.1:port
	Key       string // the primary access key
	Secondary string
	CAFile    string // the CA that signed its certificate; empty over plain HTTP
	certs     certs  // that certificate, for who answers in the node's place
}

// ConnectionString is what an application would be configured with.
func (n *node) ConnectionString() string {
	return fmt.Sprintf("Endpoint=%s;AccessKey=%s;Version=1.0;", n.Endpoint, n.Key)
}

// env is how a suite in another language learns about the node and trusts its
// certificate: each runtime and HTTP library has a variable of its own for that.
func (n *node) env() []string {
	env := []string{
		"FANFARE_CONNECTION_STRING=" + n.ConnectionString(),
		"FANFARE_ENDPOINT=" + n.Endpoint,
		"FANFARE_KEY=" + n.Key,
		"FANFARE_SECONDARY_KEY=" + n.Secondary,
		"NO_PROXY=127.0.0.1,localhost",
	}
	if n.CAFile != "" {
		env = append(env,
			"FANFARE_CA_FILE="+n.CAFile,
			"NODE_EXTRA_CA_CERTS="+n.CAFile,
			"SSL_CERT_FILE="+n.CAFile,
			"REQUESTS_CA_BUNDLE="+n.CAFile,
			"WEBSOCKET_CLIENT_CA_BUNDLE="+n.CAFile,
		)
	}
	return env
}

// binary is the node's program, built once for all tests of the package.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("SDKTEST_NODE"); path != "" { // a node that was built before
		return path, nil
	}
	dir, err := os.MkdirTemp("", "fanfare-sdktest-")
	if err != nil {
		return "", err
	}
	buildDir = dir
	path := filepath.Join(dir, "fanfare")
	args := append(append([]string{"build"}, buildFlags...), "-o", path, "..")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/fanfare: %w\n%s", err, out)
	}
	return path, nil
})

// buildDir is where binary put the node; empty if no test asked for it.
var buildDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// scheme says how the clients of a test reach the node.
type scheme string

const (
	plain scheme = "http"
	tls   scheme = "https"
)

// bothSchemes runs test over plain HTTP and over TLS.
func bothSchemes(t *testing.T, test func(t *testing.T, s scheme)) {
	for _, s := range []scheme{plain, tls} {
		t.Run(string(s), func(t *testing.T) { test(t, s) })
	}
}

// eventHandler is one entry of a hub's eventHandlers.
type eventHandler struct {
	URLTemplate      string   `json:"urlTemplate"`
	UserEventPattern string   `json:"userEventPattern"`
	SystemEvents     []string `json:"systemEvents"`
}

// allEvents sends every event of a hub to url.
func allEvents(url string) []eventHandler {
	return []eventHandler{{URLTemplate: url, UserEventPattern: "*", SystemEvents: []string{"connect", "connected", "disconnected"}}}
}

// endpointLine finds the address in the connection string that a node prints
// when it serves.
var endpointLine = regexp.MustCompile(`Endpoint=(https?://[^;\s]+)`)

// startNode runs a node on a port of the kernel's choice, with the given event
// handlers for each hub, until the test ends.
func startNode(t *testing.T, s scheme, hubs map[string][]eventHandler) *node {
	t.Helper()
	n := &node{Key: randomKey(), Secondary: randomKey()}
	settings := map[string]any{"accessKeys": map[string]string{"primary": n.Key, "secondary": n.Secondary}}
	if s == tls {
		c := certificates(t)
		n.CAFile, n.certs = c.caFile, c
		settings["tls"] = map[string]string{"certFile": c.certFile, "keyFile": c.keyFile}
	}
	if len(hubs) > 0 {
		of := map[string]any{}
		for name, handlers := range hubs {
			of[name] = map[string]any{"eventHandlers": handlers}
		}
		settings["hubs"] = of
	}
	n.Endpoint = serve(t, settings).waitFor(t, endpointLine)
	if got, _, _ := strings.Cut(n.Endpoint, ":"); got != string(s) {
		t.Fatalf("the node serves %s, want a %s address", n.Endpoint, s)
	}
	t.Logf("node: %s", n.Endpoint)
	return n
}

// serve runs a node with settings, on a port of the kernel's choice, until the
// test ends. It then stops in order: an exit status other than 0 fails the test.
func serve(t *testing.T, settings map[string]any, env ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	settings["listen"] = "127.0.0.1:0"
	text, err := json.MarshalIndent(settings, "", "  ") // JSON is YAML, and quotes what needs quoting
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "fanfare.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--config", file, "--log-level", "debug")
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "FANFARE_") })
	cmd.Env = append(cmd.Env, env...)
	p := start(t, cmd)
	p.inOrder = true
	return p
}

func randomKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

// patience is how long a test waits for what must come.
const patience = time.Minute

// process is a program that a test runs beside itself.
type process struct {
	name    string
	lines   chan string // what it prints, until waitFor has found what it waits for
	inOrder bool        // it must end with status 0 when asked to stop

	mu  sync.Mutex
	out []string // guarded by mu: everything it printed
}

// start runs cmd until the test ends, and shows what it printed if the test
// failed. The program is then asked to stop, and must.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: filepath.Base(cmd.Path), lines: make(chan string, 1024)}
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	read := make(chan struct{})
	go func() { // ends when the program has ended and w is closed
		defer close(read)
		defer close(p.lines)
		p.read(r)
	}()
	exited := make(chan error, 1)
	go func() { // ends with the program
		err := cmd.Wait()
		_ = w.Close()
		exited <- err
	}()
	t.Cleanup(func() {
		interrupt(cmd)
		select {
		case err := <-exited:
			if p.inOrder && err != nil {
				t.Errorf("%s: stopped with %v, want status 0", p.name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s: still running %s after it was asked to stop", p.name, patience)
			kill(cmd)
			<-exited
		}
		<-read
		if t.Failed() {
			t.Logf("%s printed:\n%s", p.name, p.printed())
		}
	})
	return p
}

func (p *process) read(r io.Reader) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		p.mu.Lock()
		p.out = append(p.out, s.Text())
		p.mu.Unlock()
		select {
		case p.lines <- s.Text():
		default: // nobody waits any more
		}
	}
	_, _ = io.Copy(io.Discard, r) // an endless line must not stop the program
}

func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	const most = 150
	out := p.out
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return strings.Join(out, "\n")
}

// waitFor returns the first group of the first printed line that matches.
func (p *process) waitFor(t *testing.T, re *regexp.Regexp) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, more := <-p.lines:
			if !more {
				t.Fatalf("%s ended before it printed %s:\n%s", p.name, re, p.printed())
			}
			if m := re.FindStringSubmatch(line); m != nil {
				return m[1]
			}
		case <-deadline:
			t.Fatalf("%s has not printed %s within %s:\n%s", p.name, re, patience, p.printed())
		}
	}
}

// run carries out a program to its end, logging each line it prints, and fails
// the test if it fails.
func run(t *testing.T, limit time.Duration, cmd *exec.Cmd) {
	t.Helper()
	if err := runErr(t, limit, cmd); err != nil {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
}

// runErr is run for those who judge the failure themselves.
func runErr(t *testing.T, limit time.Duration, cmd *exec.Cmd) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { // ends with the program
		err := cmd.Wait()
		_ = w.Close()
		exited <- err
	}()
	stop := context.AfterFunc(ctx, func() { kill(cmd) })
	defer stop()
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		t.Log(s.Text())
	}
	_, _ = io.Copy(io.Discard, r)
	err := <-exited
	if ctx.Err() != nil {
		return fmt.Errorf("ended after %v: %w", limit, err)
	}
	return err
}
