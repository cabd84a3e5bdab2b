package webhook_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

// request is what a server saw of one request.
type request struct {
	method, uri, proto, body string
	header                   http.Header
	at                       time.Time
}

// upstream is an application server: it grants every origin unless validate
// says otherwise, records the POSTs, and answers them by reply.
type upstream struct {
	validate http.HandlerFunc // nil grants
	reply    http.HandlerFunc // nil answers 204

	mu     sync.Mutex
	posts  []request
	checks []request
}

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	seen := request{r.Method, r.RequestURI, r.Proto, string(body), r.Header.Clone(), time.Now()}
	u.mu.Lock()
	list, answer := &u.posts, u.reply
	if r.Method != http.MethodPost {
		list, answer = &u.checks, u.validate
	}
	*list = append(*list, seen)
	u.mu.Unlock()
	switch {
	case answer != nil:
		answer(w, r)
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("WebHook-Allowed-Origin", "*")
	}
}

// now changes the answers while the server runs.
func (u *upstream) now(change func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change()
}

// Posts returns the events received so far; Checks the validation requests.
func (u *upstream) Posts() []request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.posts)
}

func (u *upstream) Checks() []request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.checks)
}

// last returns the last event received.
func (u *upstream) last(t *testing.T) request {
	t.Helper()
	posts := u.Posts()
	if len(posts) == 0 {
		t.Fatal("the server got no event")
	}
	return posts[len(posts)-1]
}

// serve starts u on a socket and returns its URL.
func serve(t testing.TB, u http.Handler) string {
	t.Helper()
	s := httptest.NewServer(u)
	t.Cleanup(s.Close)
	return s.URL
}

// newClient makes a client that is closed at the end of the test.
func newClient(t testing.TB, template string, o *webhook.Options) *webhook.Client {
	t.Helper()
	c, err := webhook.New(template, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pipes serves h over in-memory connections, so that a test may run in a
// synctest bubble, and returns what goes into Options.Wrap.
func pipes(t *testing.T, h http.Handler) func(http.RoundTripper) http.RoundTripper {
	t.Helper()
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	s := &http.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(l) })
	tr := &http.Transport{DialContext: l.dial, DisableCompression: true}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		s.Close()
		wg.Wait()
	})
	return func(http.RoundTripper) http.RoundTripper { return tr }
}

type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// roundTripper is an http.RoundTripper made of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

var eventTime = time.Date(2026, 3, 4, 5, 6, 7, 890e6, time.FixedZone("", 3600))

func about(id uint64) engine.EventContext {
	return engine.EventContext{Hub: "chat", ConnID: "c1", UserID: "ann", ID: id, Time: eventTime}
}

func text(s string) *engine.UserEvent {
	return &engine.UserEvent{EventContext: about(1), Name: "message", Payload: engine.Payload{Type: engine.Text, Data: []byte(s)}}
}

// refusal checks that err is an *engine.Error of the rule and returns it.
func refusal(t *testing.T, err error, rule string) *engine.Error {
	t.Helper()
	var e *engine.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *engine.Error of %s", err, rule)
	}
	if e.Rule != rule {
		t.Fatalf("got rule %s (%v; %s), want %s", e.Rule, e, e.Detail, rule)
	}
	return e
}
