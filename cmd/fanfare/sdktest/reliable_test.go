package sdktest

import (
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	stdtls "crypto/tls"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// The full size is -kills 200 -messages 5000.
var (
	kills    = flag.Int("kills", 50, "how often a client of the reliable protocol loses its connection")
	messages = flag.Int("messages", 1250, "how many messages it is sent meanwhile")
)

// pace is the time between two messages. A client may leave 1,000 of them
// unacknowledged, and both SDKs acknowledge once a second.
const pace = 10 * time.Millisecond

// TestReliableJavaScript has @azure/web-pubsub-client, with the protocol that is
// its default, lose its connection again and again.
func TestReliableJavaScript(t *testing.T) {
	nodejs, modules := need(t, "node"), nodeModules(t, "javascript")
	bothSchemes(t, func(t *testing.T, s scheme) {
		cmd := exec.Command(nodejs, filepath.Join("javascript", "reliable.js"))
		cmd.Env = []string{"NODE_PATH=" + modules}
		testReliable(t, s, cmd, ordeal{*kills, *messages, true})
	})
}

// TestReliablePython does the same to azure-messaging-webpubsubclient. It calls
// its listeners on threads of their own, so that only the sequence ids tell the
// order of what it hands out.
func TestReliablePython(t *testing.T) {
	python := pythonWith(t, "python")
	bothSchemes(t, func(t *testing.T, s scheme) {
		testReliable(t, s, exec.Command(python, "-B", filepath.Join("python", "reliable.py")), ordeal{*kills, *messages, false})
	})
}

// ordeal is what a client goes through.
type ordeal struct {
	kills    int  // how often its connection is lost
	messages int  // how many it is sent meanwhile
	inOrder  bool // it hands them out in order, rather than on a thread for each
}

// testReliable sends numbered messages to a group whose one member is client,
// while its connection is lost at random moments, in the middle of a frame or
// not, and checks that the client gets each exactly once and in order, on one
// logical connection.
func testReliable(t *testing.T, s scheme, client *exec.Cmd, o ordeal) {
	if o.kills >= o.messages {
		t.Fatalf("%d kills need more than %d messages", o.kills, o.messages)
	}
	n := startNode(t, s, nil)
	lossy := newRelay(t)
	lossy.forwardTo(strings.TrimPrefix(n.Endpoint, string(s)+"://"))
	through := *n
	through.Endpoint = string(s) + "://" + lossy.addr()
	client.Env = append(append(os.Environ(), client.Env...), through.env()...)
	p := start(t, client)
	r := &receiver{lines: p.lines, inOrder: o.inOrder, seen: make([]bool, o.messages+1)}
	r.begin(t)

	rng := rand.New(rand.NewPCG(1, 2))
	// The first message comes before any cut: the client has its reconnection token by then.
	cuts := map[int]bool{}
	for _, i := range rng.Perm(o.messages - 1)[:o.kills] {
		cuts[i+2] = true
	}
	send := n.sender(t, "reliable/groups/room")
	tick := time.NewTicker(pace)
	defer tick.Stop()
	began, last := time.Now(), 1
	for i := 1; i <= o.messages; i++ {
		<-tick.C
		if cuts[i] {
			// What was sent at the last cut can only have come over a later connection.
			r.wait(t, last)
			lossy.arm(cut{share: rng.Float64(), reset: rng.IntN(2) == 0})
			last = i
		}
		send(fmt.Sprint(i))
		r.judgeAll(t)
	}
	r.waitAll(t)
	p.inOrder = true // from here on it has to end well
	send("bye")
	r.end(t)
	made, lost := lossy.counts()
	t.Logf("%d messages over %d connections, %d of them lost, in %.1f s", r.count, made, lost, time.Since(began).Seconds())
	if lost != o.kills || made <= lost {
		t.Errorf("%d connections, %d of them lost; want %d lost and one more at least", made, lost, o.kills)
	}
}

// sender returns a function that sends a text to target, which is HUB or
// HUB/groups/GROUP, and returns once that is answered.
func (n *node) sender(t *testing.T, target string) func(text string) {
	t.Helper()
	cs, err := accesskey.ParseConnectionString(n.ConnectionString())
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("%s/api/hubs/%s/:send?api-version=2024-12-01", n.Endpoint, target)
	token, err := cs.ServerToken(url)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: n.trust(t)}
	t.Cleanup(transport.CloseIdleConnections)
	c := &http.Client{Transport: transport, Timeout: patience}
	return func(text string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "text/plain")
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		_ = res.Body.Close()
		if res.StatusCode != http.StatusAccepted {
			t.Fatalf("send %q: %s %s", text, res.Status, answer)
		}
	}
}

// trust is the TLS of a client that trusts the node's certificate; nil over plain
// HTTP.
func (n *node) trust(t *testing.T) *stdtls.Config {
	t.Helper()
	if n.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(n.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &stdtls.Config{RootCAs: roots, MinVersion: stdtls.VersionTLS12}
}

// receiver judges what a client prints: "connected" and "joined" when it begins,
// then "got ID TEXT" for each message with its sequence id, then "stopped". Any
// other line is a fault. Message n must be "got n n".
type receiver struct {
	lines   <-chan string
	inOrder bool   // lines must be in the order of the sequence ids
	seen    []bool // by sequence id
	count   int
}

func (r *receiver) begin(t *testing.T) {
	t.Helper()
	for _, want := range []string{"connected", "joined"} {
		if got := r.line(t); got != want {
			t.Fatalf("the client printed %q, want %q", got, want)
		}
	}
}

// wait returns when the client has message n.
func (r *receiver) wait(t *testing.T, n int) {
	t.Helper()
	for !r.seen[n] {
		r.judge(t, r.line(t))
	}
}

func (r *receiver) waitAll(t *testing.T) {
	t.Helper()
	for r.count < len(r.seen)-1 {
		r.judge(t, r.line(t))
	}
}

// judgeAll judges what has been printed by now.
func (r *receiver) judgeAll(t *testing.T) {
	t.Helper()
	for len(r.lines) > 0 {
		r.judge(t, r.line(t))
	}
}

// end checks that the client stops, and has nothing more before.
func (r *receiver) end(t *testing.T) {
	t.Helper()
	if got := r.line(t); got != "stopped" {
		t.Fatalf("after the last message the client printed %q, want %q", got, "stopped")
	}
	if line, more := <-r.lines; more {
		t.Fatalf("after it had stopped the client printed %q", line)
	}
}

func (r *receiver) judge(t *testing.T, line string) {
	t.Helper()
	var id, text int
	if _, err := fmt.Sscanf(line, "got %d %d", &id, &text); err != nil {
		t.Fatalf("after %d messages the client printed %q", r.count, line)
	}
	switch {
	case id != text || id < 1 || id >= len(r.seen):
		t.Fatalf("sequence id %d came with message %d", id, text)
	case r.seen[id]:
		t.Fatalf("message %d came twice", id)
	case r.inOrder && id != r.count+1:
		t.Fatalf("message %d came after %d messages", id, r.count)
	}
	r.seen[id] = true
	r.count++
}

// line returns the next line, and fails the test if there is none for long.
func (r *receiver) line(t *testing.T) string {
	t.Helper()
	select {
	case line, more := <-r.lines:
		if !more {
			t.Fatalf("the client ended after %d messages", r.count)
		}
		return line
	case <-time.After(patience):
		t.Fatalf("the client has printed nothing for %s, after %d messages", patience, r.count)
	}
	return ""
}
