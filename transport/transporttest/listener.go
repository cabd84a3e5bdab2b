package transporttest

import (
	"context"
	"crypto/rand"
	"net"
	"sync"

	"github.com/fanfare/fanfare/engine"
)

// Listener is a network inside the process: each Dial makes a [net.Pipe], whose
// other end comes out of Accept. It may be used concurrently.
type Listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

var _ net.Listener = (*Listener)(nil)

// Listen returns a new listener.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Dial connects. It waits for Accept and fails once the listener is closed.
func (l *Listener) Dial() (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.done:
		near.Close()
		return nil, net.ErrClosed
	}
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener]. Connections stay.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements [net.Listener].
func (l *Listener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

// Guests is an authenticator that lets in whom it has invited. The zero value
// knows nobody. It may be used concurrently.
type Guests struct {
	mu     sync.Mutex
	guests map[string]engine.Identity
}

// Invite returns a token that proves its holder to be id.
func (g *Guests) Invite(id engine.Identity) (token string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.guests == nil {
		g.guests = make(map[string]engine.Identity)
	}
	token = rand.Text()
	g.guests[token] = id
	return token
}

// Authenticate returns the identity that c.Token was made for, and refuses all
// others with [engine.CodeUnauthenticated].
func (g *Guests) Authenticate(_ context.Context, c engine.Credentials) (engine.Identity, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id, ok := g.guests[c.Token]; ok {
		return id, nil
	}
	return engine.Identity{}, &engine.Error{
		Code: engine.CodeUnauthenticated, Rule: "token.missing",
		Message: "No token that this service made: expected one in access_token.",
	}
}
