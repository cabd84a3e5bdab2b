package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

// patience bounds every wait for something that ought to happen at once.
const patience = time.Minute

// TestMain lets the test binary be the program itself, for tests that need a
// process with signals and an exit code.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_AS_PROGRAM") == "1" {
		main()
		return
	}
	os.Exit(m.Run())
}

// output gathers what a command prints, and lets tests wait for it.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wait returns once the output holds text.
func (o *output) wait(t *testing.T, text string) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		o.mu.Lock()
		have, changed := o.text.String(), o.changed
		o.mu.Unlock()
		if strings.Contains(have, text) {
			return have
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%q did not come; the output is:\n%s", text, have)
		}
	}
}

// command is one command line that runs in this process.
type command struct {
	out, err *output
	signals  chan os.Signal
	done     chan struct{}
	code     int // once done is closed
	nodes    chan *node
	node     *node  // of startNode
	address  string // where its node listens
}

// start runs a command. Its environment is what is given, and nothing else.
func start(t *testing.T, environ []string, args ...string) *command {
	t.Helper()
	c := &command{out: newOutput(), err: newOutput(), signals: make(chan os.Signal, 4), done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	c.nodes = make(chan *node, 1)
	go func() {
		defer close(c.done)
		c.code = run(ctx, &world{
			Self: "fanfare", Environ: environ, Stdin: strings.NewReader("from standard input"), Stdout: c.out, Stderr: c.err,
			Signals: c.signals, Node: func(n *node) { c.nodes <- n },
		}, args...)
	}()
	t.Cleanup(func() {
		cancel()
		c.wait(t)
	})
	return c
}

// wait returns the exit code.
func (c *command) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-c.done:
		return c.code
	case <-time.After(patience):
		t.Fatalf("the command does not end; it said:\n%s%s", c.out, c.err)
		return -1
	}
}

// finish runs a command to its end.
func finish(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c := start(t, environ, args...)
	code = c.wait(t)
	return code, c.out.String(), c.err.String()
}

var listening = regexp.MustCompile(`(?m)^  Listening on +(\S+)$`)

// startNode runs a node on a port of the kernel's choice.
func startNode(t *testing.T, environ []string, args ...string) *command {
	t.Helper()
	told := strings.Join(append(environ[:len(environ):len(environ)], args...), " ")
	if !strings.Contains(told, "FANFARE_LISTEN=") && !strings.Contains(told, "--listen") && !strings.Contains(told, "--config") {
		args = append([]string{"--listen", "127.0.0.1:0"}, args...)
	}
	c := start(t, environ, args...)
	select {
	case c.node = <-c.nodes:
	case <-c.done:
		t.Fatalf("the node did not start; exit code %d:\n%s%s", c.code, c.out, c.err)
	case <-time.After(patience):
		t.Fatalf("the node does not start:\n%s%s", c.out, c.err)
	}
	found := listening.FindStringSubmatch(c.out.String())
	if found == nil {
		t.Fatalf("no address in the banner:\n%s", c.out)
	}
	c.address = found[1]
	return c
}

// environ returns the environment of commands that talk to the node.
func (c *command) environ(key string) []string {
	return []string{"FANFARE_CONNECTION_STRING=Endpoint=http://" + c.address + ";AccessKey=" + key + ";Version=1.0;"}
}

// file writes a file of the test's own.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	rewrite(t, path, text)
	return path
}

// rewrite replaces a file at once, as an editor does.
func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// get returns a page's status and text.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

// eventually calls ok until it returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen in %s: %s", patience, what)
		}
		<-tick.C
	}
}

// clientURL returns the URL that the token command prints.
func clientURL(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	code, url, stderr := finish(t, environ, append([]string{"token"}, args...)...)
	if code != exitOK {
		t.Fatalf("token: exit code %d: %s", code, stderr)
	}
	return strings.TrimSpace(url)
}

// dial connects a client by the URL that the token command prints.
func dial(t *testing.T, environ []string, args ...string) (*client.Client, error) {
	t.Helper()
	url := clientURL(t, environ, args...)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, url, nil)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// receive returns the next event of a client.
func receive(t *testing.T, c *client.Client) (client.Event, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.Receive(ctx)
}

func mustReceive[E client.Event](t *testing.T, c *client.Client) E {
	t.Helper()
	e, err := receive(t, c)
	if err != nil {
		t.Fatal(err)
	}
	want, ok := e.(E)
	if !ok {
		t.Fatalf("received %#v; want a %T", e, want)
	}
	return want
}

// upstream is an event handler that grants every origin and notes what it gets.
type upstream struct {
	*httptest.Server
	events chan *http.Request // with a name: ce-eventname; the body can be read
	checks chan *http.Request // of origins
	// answer, if set, answers an event.
	answer func(w http.ResponseWriter, r *http.Request)
}

func newUpstream(t *testing.T) *upstream {
	u := &upstream{events: make(chan *http.Request, 100), checks: make(chan *http.Request, 100)}
	u.Server = httptest.NewServer(u)
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		u.checks <- r
		w.Header().Set("WebHook-Allowed-Origin", "*")
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	u.events <- r
	if u.answer != nil {
		u.answer(w, r)
	}
}

// event returns the next event, which must have the given name.
func (u *upstream) event(t *testing.T, name string) *http.Request {
	t.Helper()
	select {
	case r := <-u.events:
		if got := r.Header.Get("Ce-Eventname"); got != name {
			t.Fatalf("the handler got the event %q; want %q", got, name)
		}
		return r
	case <-time.After(patience):
		t.Fatalf("the handler did not get the event %q", name)
		return nil
	}
}

func text(s string) engine.Payload { return engine.Payload{Type: engine.Text, Data: []byte(s)} }

// writeCertificate writes a self-signed certificate for loopback with the
// given serial number.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "fanfare test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	rewrite(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
