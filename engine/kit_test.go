package engine_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// patience is how long a test waits for what must come, on the slowest machine.
const patience = time.Minute

// start returns a running engine that the test ends, checking that nothing is
// left of it.
func start(t *testing.T, o *engine.Options) *engine.Engine {
	t.Helper()
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if st := e.Stats(); st.Connections != 0 || st.Groups != 0 || st.Memberships != 0 ||
			st.QueuedMessages != 0 || st.QueuedBytes != 0 || st.PendingEventBytes != 0 || st.GroupBytes != 0 || st.Opened != st.Ended {
			t.Errorf("the closed engine still counts %+v", st)
		}
	})
	return e
}

// startNodes returns the hub chat of each of n engines that share a backplane, or of
// a lone one.
func startNodes(t *testing.T, n int) []*engine.Hub {
	t.Helper()
	var hubs []*engine.Hub
	for _, bp := range enginetest.NewCluster(n) {
		o := &engine.Options{}
		if n > 1 {
			o.Backplane = bp
		}
		hubs = append(hubs, start(t, o).Hub("chat"))
	}
	return hubs
}

// client is a connection with a far end that the test reads.
type client struct {
	*engine.Conn
	*enginetest.Wire
	t *testing.T
}

type open struct {
	user   engine.UserID
	roles  []string
	groups []engine.GroupName
	id     engine.ConnID
	take   bool
	lines  enginetest.Lines
	wire   *enginetest.Wire
	sub    string
	pings  bool
	resume func()

	recovery time.Duration
	session  any
	silence  time.Duration
	window   int
	counted  func(*engine.Message, any) bool
	certs    []*x509.Certificate
}

var anything = []string{engine.RoleSendToGroup, engine.RoleJoinLeaveGroup}

func tryConnect(t *testing.T, h *engine.Hub, o open) (*client, error) {
	t.Helper()
	a, err := h.Admit(t.Context(), &engine.AdmitRequest{
		Identity: engine.Identity{UserID: o.user, Roles: o.roles, Groups: o.groups}, ConnID: o.id, TakeOver: o.take,
		PeerCertificates: o.certs,
	})
	if err != nil {
		return nil, err
	}
	w := o.wire
	if w == nil {
		w = &enginetest.Wire{}
	}
	c, err := a.Open(w, &engine.OpenOptions{
		Encoding: o.lines, Numbered: o.lines.Numbered, Subprotocol: o.sub, WirePings: o.pings, Bind: w.Bind, Resume: o.resume,
		Recovery: o.recovery, Session: o.session, Silence: o.silence, Window: o.window, Counted: o.counted,
	})
	if err != nil {
		return nil, err
	}
	return &client{Conn: c, Wire: w, t: t}, nil
}

// durable opens a connection that may be recovered within half a minute.
func durable(t *testing.T, h *engine.Hub, o open) *client {
	t.Helper()
	o.lines.Numbered = true
	if o.recovery == 0 {
		o.recovery = 30 * time.Second
	}
	c := connect(t, h, o)
	c.lines(0) // a wire that is lost before its hello leaves nobody who could come back
	return c
}

// token returns the reconnection token of the client's hello.
func (c *client) token() string {
	c.t.Helper()
	c.lines(0)
	words := strings.Fields(strings.SplitN(string(c.Bytes()), "\n", 2)[0])
	if len(words) != 3 {
		c.t.Fatalf("the hello is %q", words)
	}
	return words[2]
}

// lose makes the client's wire end without a goodbye.
func (c *client) lose() { c.Gone(c.WireID(), engine.CloseAbnormal, "") }

// recover puts the client's connection onto another wire.
func (c *client) recover(w *enginetest.Wire, lines enginetest.Lines) *client {
	c.t.Helper()
	next, err := c.tryRecover(c.Hub(), &engine.RecoverRequest{ConnID: c.ID(), Token: c.token()}, w, lines)
	must(c.t, err)
	return next
}

func (c *client) tryRecover(h *engine.Hub, r *engine.RecoverRequest, w *enginetest.Wire, lines enginetest.Lines) (*client, error) {
	rec, err := h.Recover(c.t.Context(), r)
	if err != nil {
		return nil, err
	}
	lines.Numbered = true
	conn, err := rec.Open(w, &engine.OpenOptions{Encoding: lines, Bind: w.Bind})
	if err != nil {
		return nil, err
	}
	return &client{Conn: conn, Wire: w, t: c.t}, nil
}

func connect(t *testing.T, h *engine.Hub, o open) *client {
	t.Helper()
	c, err := tryConnect(t, h, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lines waits until the client has n lines after its hello, and returns them.
func (c *client) lines(n int) []string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	var lines []string
	err := c.Wire.Await(ctx, func(got []byte, _ bool) bool {
		lines, _ = enginetest.SplitLines(got)
		return len(lines) > n
	})
	if err != nil {
		c.t.Fatalf("%v: waiting for %d lines, got %q", err, n, lines)
	}
	if !strings.HasPrefix(lines[0], "connected ") {
		c.t.Fatalf("the first line is %q", lines[0])
	}
	return lines[1:]
}

func (c *client) expect(want ...string) {
	c.t.Helper()
	if got := c.lines(len(want)); !slices.Equal(got, want) {
		c.t.Fatalf("got  %q\nwant %q", got, want)
	}
}

func (c *client) awaitClosed() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.Wire.Await(ctx, func(_ []byte, closed bool) bool { return closed }); err != nil {
		c.t.Fatalf("%v: the sink was not closed; it got %q", err, c.Bytes())
	}
}

func text(s string) engine.Payload { return engine.Payload{Data: []byte(s)} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code engine.Code) {
	t.Helper()
	if err == nil || engine.CodeOf(err) != code {
		t.Fatalf("got %v, want %v", err, code)
	}
}

// goroutines waits until there are n again.
func goroutines(t *testing.T, n int) {
	t.Helper()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > n && time.Now().Before(end); runtime.Gosched() {
	}
	if got := runtime.NumGoroutine(); got > n {
		buf := make([]byte, 1<<16)
		t.Fatalf("%d goroutines, want %d:\n%s", got, n, buf[:runtime.Stack(buf, true)])
	}
}

func numbered(format string, n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf(format, i)
	}
	return lines
}

// eventually returns once ok is true, which other goroutines bring about.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("it did not come about within %s", patience)
		}
	}
}
