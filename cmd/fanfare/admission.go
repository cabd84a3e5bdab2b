package main

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/fanfare/fanfare/transport/sampling"
)

// The rules that close a connection.
const (
	ruleUnauthenticated  = "limits.unauthenticatedConnections"
	ruleHandshakeTimeout = "limits.handshakeTimeout"
	ruleOverhead         = "http2.overhead"
	ruleResets           = "http2.resets"
)

// admission is a listener that bounds the connections which have not authenticated. It
// always accepts: when all places are taken, the oldest unauthenticated connection of the
// address prefix with the most places is closed, and the new one takes its place.
//
// A connection is unauthenticated from the moment that it is accepted until one of its
// requests is authorized, or becomes a WebSocket. It is so during the TLS handshake, while
// its headers come, while it waits for its next request after a refusal, and while the
// body of a refused request comes.
//
// A client that sends its request at once is served unless as many connections as there
// are places come before that. Health checks have places of their own from their first
// request on, which other connections cannot take.
//
// An address of a trusted proxy stands for many clients. Its connections have places of
// their own, without shares, but while they carry a request whose headers name another
// client's address: then they have one in that client's share.
//
// It goes with an http.Server whose ConnState and ConnContext are its methods.
type admission struct {
	net.Listener
	o      admissionOptions
	closed chan struct{} // closed once no connections are accepted any more
	once   sync.Once

	mu      sync.Mutex // guards the rest, and what it says of an inbound
	conns   map[net.Conn]*inbound
	clients *places
	proxies *places
	health  *places
	order   list.List // of *inbound that have a place, by since
	timer   *time.Timer
}

// admissionOptions are what an admission is made for.
type admissionOptions struct {
	// Places is how many unauthenticated connections there may be, those for health
	// checks included. As many more are for trusted proxies.
	Places int
	// Timeout is how long a connection may take until its first request is there, and
	// how long it may wait for the next one after its request was refused.
	Timeout time.Duration
	// TLS says that what comes in is TLS.
	TLS bool
	// Trusts reports whether an address is that of a trusted proxy. Nil: none is.
	Trusts func(netip.Addr) bool
	// Closed is called for each connection that is closed, with the rule that says so.
	// It must not block. Nil: nobody is told.
	Closed func(remote net.Addr, rule, text string)
}

// inbound is a connection that was accepted.
type inbound struct {
	// Fixed when it was accepted.
	admission *admission
	conn      net.Conn // as Accept returned it
	addr      netip.Addr
	proxy     bool   // its address is a trusted proxy's
	meter     *meter // nil without TLS

	// current is the exchange under way on HTTP/1, which has one at a time.
	current atomic.Pointer[exchange]

	// Guarded by admission.mu.
	place         place
	inOrder       *list.Element
	since         time.Time // when it was accepted, or began to wait for its next request
	fresh         bool      // has not sent a request
	serving       int       // requests that are being served
	requests      int
	exempt        int // of serving: requests that need no place
	authenticated bool
	closed        bool
	resets        *rate.Limiter // of HTTP/2 streams; nil until the first one
}

func newAdmission(l net.Listener, o admissionOptions) *admission {
	health := max(o.Places/16, 1)
	return &admission{
		Listener: l, o: o, closed: make(chan struct{}), conns: make(map[net.Conn]*inbound),
		clients: newPlaces(max(o.Places-health, 1)), proxies: newPlaces(o.Places), health: newPlaces(health),
	}
}

// Accept implements net.Listener.
func (a *admission) Accept() (net.Conn, error) {
	for {
		c, err := a.Listener.Accept()
		if err == nil {
			return a.admit(c), nil
		}
		// Out of descriptors: an unauthenticated connection has to give its own.
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) || !a.evictOldest() {
			return nil, err
		}
		time.Sleep(time.Millisecond) // until the descriptor is free
	}
}

// Close implements net.Listener. Connections that were accepted stay.
func (a *admission) Close() error {
	err := a.Listener.Close()
	a.once.Do(func() { close(a.closed) })
	return err
}

// admit gives a new connection a place.
func (a *admission) admit(c net.Conn) net.Conn {
	in := &inbound{admission: a, conn: c, since: time.Now(), fresh: true}
	if ap, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		in.addr = ap.Addr().Unmap()
		in.proxy = a.o.Trusts != nil && a.o.Trusts(in.addr)
	}
	if a.o.TLS {
		in.meter = newMeter(c, func() {
			a.drop(in, ruleOverhead, "The connection sent more than its requests needed, such as HTTP/2 PING, SETTINGS or RST_STREAM frames.")
		})
		in.conn = in.meter
	}
	a.mu.Lock()
	a.conns[in.conn] = in
	evicted := a.settle(in)
	a.mu.Unlock()
	a.evict(evicted)
	return in.conn
}

// settle gives in the place that is its due when no request of its own says otherwise.
func (a *admission) settle(in *inbound) (evicted *inbound) {
	if in.closed || in.authenticated || in.exempt > 0 {
		return nil
	}
	if in.proxy {
		return a.put(in, a.proxies, netip.Prefix{})
	}
	return a.put(in, a.clients, sampling.Prefix(in.addr))
}

// put moves in to a place, as the youngest there.
func (a *admission) put(in *inbound, to *places, prefix netip.Prefix) (evicted *inbound) {
	a.remove(in)
	in.inOrder = a.order.PushBack(in)
	evicted = to.add(in, prefix)
	if evicted != nil {
		a.forget(evicted)
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(a.o.Timeout, a.sweep)
	}
	return evicted
}

// remove takes in's place away.
func (a *admission) remove(in *inbound) {
	in.place.leave()
	if in.inOrder != nil {
		a.order.Remove(in.inOrder)
		in.inOrder = nil
	}
}

// forget ends what is known of a connection that is over or no longer HTTP.
func (a *admission) forget(in *inbound) {
	a.remove(in)
	in.closed = true
	delete(a.conns, in.conn)
}

// evict closes a connection that lost its place; nil for none.
func (a *admission) evict(in *inbound) {
	if in == nil {
		return
	}
	a.close(in, http.StatusServiceUnavailable, ruleUnauthenticated, fmt.Sprintf(
		"%d connections that have not authenticated are allowed, and this was the oldest one of the address prefix with the most of them. Send the request at once, and try again.", a.o.Places))
}

// evictOldest closes the oldest unauthenticated connection, and reports whether there
// was one.
func (a *admission) evictOldest() bool {
	a.mu.Lock()
	var oldest *inbound
	if e := a.order.Front(); e != nil {
		oldest = e.Value.(*inbound)
		a.forget(oldest)
	}
	a.mu.Unlock()
	a.evict(oldest)
	return oldest != nil
}

// close tells the client why, where nothing has been said yet and it can be said
// without waiting, and closes the connection.
func (a *admission) close(in *inbound, status int, rule, text string) {
	if in.fresh && in.meter == nil && status != 0 {
		// The buffers of a socket that nothing was written to have room for this.
		_ = in.conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
		fmt.Fprintf(in.conn, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n%s [%s]\n",
			status, http.StatusText(status), text, rule)
	}
	in.conn.Close()
	if a.o.Closed != nil {
		a.o.Closed(in.conn.RemoteAddr(), rule, text)
	}
}

// drop closes a connection for what it did.
func (a *admission) drop(in *inbound, rule, text string) {
	a.mu.Lock()
	over := in.closed
	a.forget(in)
	a.mu.Unlock()
	if !over {
		a.close(in, 0, rule, text)
	}
}

// sweep closes the connections that have waited for too long.
func (a *admission) sweep() {
	now := time.Now()
	var late []*inbound
	a.mu.Lock()
	a.timer = nil
	for e := a.order.Front(); e != nil; {
		in := e.Value.(*inbound)
		e = e.Next()
		if left := a.o.Timeout - now.Sub(in.since); left > 0 {
			// No sooner than in a while, since many are a little younger.
			a.timer = time.AfterFunc(max(left, a.o.Timeout/16), a.sweep)
			break
		}
		if a.waits(in) {
			a.forget(in)
			late = append(late, in)
		}
	}
	if a.timer == nil && a.order.Len() > 0 {
		a.timer = time.AfterFunc(a.o.Timeout, a.sweep)
	}
	a.mu.Unlock()
	for _, in := range late {
		a.close(in, http.StatusRequestTimeout, ruleHandshakeTimeout,
			fmt.Sprintf("No whole request came within %s.", a.o.Timeout))
	}
}

// waits reports whether in may be closed for waiting. Requests that are being served have
// their own bounds. What proxies and health checks keep open is closed after the
// server's own time for that, or else a request could meet its connection's end.
func (a *admission) waits(in *inbound) bool {
	return in.serving == 0 && (in.fresh || !in.proxy && in.place.in != a.health)
}

// state follows what an http.Server says of a connection.
func (a *admission) state(c net.Conn, s http.ConnState) {
	a.mu.Lock()
	in := a.conns[accepted(c)]
	if in == nil {
		a.mu.Unlock()
		return
	}
	if s == http.StateHijacked || s == http.StateClosed {
		a.forget(in)
		if in.meter != nil {
			in.meter.stop()
		}
	}
	a.mu.Unlock()
}

// accepted returns the connection below c that Accept returned.
func accepted(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// inboundKey is the context's key of the *inbound that a request came on.
type inboundKey struct{}

// context is an http.Server's ConnContext.
func (a *admission) context(ctx context.Context, c net.Conn) context.Context {
	a.mu.Lock()
	in := a.conns[accepted(c)]
	a.mu.Unlock()
	if in == nil {
		return ctx
	}
	return context.WithValue(ctx, inboundKey{}, in)
}

// begin notes that a request is being served: of the client with the given address, if
// the connection is a proxy's, and whether it is a health check.
func (a *admission) begin(in *inbound, client netip.Addr, health bool) {
	a.mu.Lock()
	if !in.closed { // what close reads then stays as it is
		in.fresh = false
	}
	in.serving++
	in.requests++
	var evicted *inbound
	switch {
	case in.closed || in.authenticated || in.exempt > 0:
	case in.proxy:
		// Of several requests at a time none can have the connection's place.
		if in.serving == 1 && client.IsValid() && client != in.addr {
			evicted = a.put(in, a.clients, sampling.Prefix(client))
		}
	case health:
		evicted = a.put(in, a.health, sampling.Prefix(in.addr))
	case in.place.in == a.health:
		evicted = a.settle(in)
	}
	a.mu.Unlock()
	a.evict(evicted)
}

// end notes that a request has been served. exempt says that grant was called for it, reset
// that its client did not wait for the response.
func (a *admission) end(in *inbound, exempt, reset bool) {
	a.mu.Lock()
	in.serving--
	tooMany := false
	if reset {
		if in.resets == nil {
			in.resets = rate.NewLimiter(resetRate, resetBurst)
		}
		tooMany = !in.resets.Allow()
	}
	var evicted *inbound
	if exempt {
		in.exempt--
	}
	in.since = time.Now()
	switch {
	case in.serving > 0:
	case in.place.in == a.health:
		evicted = a.put(in, a.health, sampling.Prefix(in.addr))
	default:
		evicted = a.settle(in)
	}
	a.mu.Unlock()
	a.evict(evicted)
	if tooMany {
		a.drop(in, ruleResets, fmt.Sprintf("The connection reset more than %d of its HTTP/2 streams, and more than %d a second.", resetBurst, resetRate))
	}
}

// grant notes that a request needs no place any more: it is authorized. If proven is
// set its sender has shown a credential, and its connection needs no place from then on,
// unless it is a proxy's.
func (a *admission) grant(in *inbound, proven bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	in.exempt++
	if proven && !in.proxy {
		in.authenticated = true
		if in.meter != nil {
			in.meter.trust()
		}
	}
	a.remove(in)
}

// isAuthenticated reports whether one of in's requests has shown a credential, and how
// many requests it has had.
func (a *admission) isAuthenticated(in *inbound) (authenticated bool, requests int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return in.authenticated, in.requests
}

// unauthenticated returns how many connections have a place.
func (a *admission) unauthenticated() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.clients.taken + a.proxies.taken + a.health.taken
}
