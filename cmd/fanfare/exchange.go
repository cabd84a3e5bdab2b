package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/rest"
)

// mostUnauthenticated is how many requests a connection may send of which none is
// authorized: health checks, mostly. Then it is closed, and the client may connect again.
const mostUnauthenticated = 100

// mostStreams is how many HTTP/2 streams a connection may have at a time.
const mostStreams = 100

// The resets of HTTP/2 streams that a connection may have: so many at once, and so many
// a second.
const (
	resetBurst = 2 * mostStreams // a connection that ends resets those that are open
	resetRate  = 20
)

// exchange is a request that is being served, and the writer of its response.
//
// Until the request is authorized, its body and its response have the time of a handshake;
// from then on they have bodyTime. The response to a request that was not authorized is
// sent before the body has come. It is the last one on its connection if the request was
// refused, or had a body.
type exchange struct {
	http.ResponseWriter
	r         *http.Request
	in        *inbound // nil where no admission accepted the connection
	handshake time.Duration
	answered  bool // the final status is written, or the connection is not HTTP any more

	mu      sync.Mutex // guards the rest
	reads   bool       // reading has a deadline
	writes  bool       // writing has one of our own
	granted bool       // the request is authorized
}

var (
	_ http.Hijacker = (*exchange)(nil)
	_ http.Flusher  = (*exchange)(nil)
)

// exchangeKey is the context's key of an exchange that its connection does not know.
type exchangeKey struct{}

// newExchange returns the exchange of a request, and the request as it is to be served.
// The caller calls finish, if serving did not panic, and then end.
func newExchange(w http.ResponseWriter, r *http.Request, handshake time.Duration, behind proxies) (*exchange, *http.Request) {
	x := &exchange{ResponseWriter: w, r: r, handshake: handshake}
	x.in, _ = r.Context().Value(inboundKey{}).(*inbound)
	if x.in != nil && r.ProtoMajor == 1 {
		// A connection has one request at a time, so it can know the exchange: a
		// context of the request's own would cost each handshake two allocations.
		x.in.current.Store(x)
		if x.in.meter != nil {
			x.in.meter.stop()
		}
	} else {
		r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		x.r = r
	}
	if x.in == nil {
		return x, r
	}
	if x.in.meter != nil && r.ProtoMajor > 1 {
		r.Body = meteredBody{r.Body, x.in.meter, isStream(r)}
	}
	var client netip.Addr
	if x.in.proxy && r.ProtoMajor == 1 {
		if ap, err := netip.ParseAddrPort(behind.client(r)); err == nil {
			client = ap.Addr().Unmap()
		}
	}
	x.in.admission.begin(x.in, client, isHealth(r))
	return x, r
}

// exchangeOf returns the exchange that a context is of; nil for none.
func exchangeOf(ctx context.Context) *exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	if in, ok := ctx.Value(inboundKey{}).(*inbound); ok {
		return in.current.Load()
	}
	return nil
}

// grant says that the request that ctx is of is authorized: by a credential if proven is
// set, or else because none is asked for.
func grant(ctx context.Context, proven bool) {
	x := exchangeOf(ctx)
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.granted {
		return
	}
	x.granted = true
	if x.in != nil {
		x.in.admission.grant(x.in, proven)
	}
	x.setDeadlines(bodyTime)
}

// bound gives reading the body an end, and, with writes, writing the response. It cannot
// be the HTTP server's own, which would cut a client whose connect handler takes its time.
func (x *exchange) bound(writes bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reads, x.writes = true, x.writes || writes
	if x.granted {
		x.setDeadlines(bodyTime)
	} else {
		x.setDeadlines(x.handshake)
	}
}

// setDeadlines sets those that there are.
func (x *exchange) setDeadlines(after time.Duration) {
	end := time.Now().Add(after)
	control := http.NewResponseController(x.ResponseWriter)
	// An in-memory writer has no deadlines, and needs none.
	if x.reads {
		_ = control.SetReadDeadline(end)
	}
	if x.writes {
		// Later, so that a body that did not come in time can be refused.
		_ = control.SetWriteDeadline(end.Add(linger))
	}
}

func (x *exchange) isGranted() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.granted
}

// stream notes that the request has become a WebSocket, over a stream of HTTP/2. It has
// no times of its own any more, and its connection needs no place while it lives: what
// proves a client that recovers is not a credential.
func (x *exchange) stream() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.reads, x.writes = false, false
	if !x.granted {
		x.granted = true
		if x.in != nil {
			x.in.admission.grant(x.in, false)
		}
	}
}

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	if status >= 200 && !x.answered {
		x.answered = true
		if status == http.StatusOK && isStream(x.r) {
			x.stream()
		}
		if x.isLast(status) {
			// net/http then sends the response without waiting for the body, and
			// on HTTP/2 says GOAWAY.
			x.Header().Set("Connection", "close")
			if x.in != nil && x.in.meter != nil {
				x.in.meter.finish()
			}
		}
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(p []byte) (int, error) {
	if !x.answered {
		x.WriteHeader(http.StatusOK)
	}
	return x.ResponseWriter.Write(p)
}

// Flush implements http.Flusher.
func (x *exchange) Flush() { _ = x.FlushError() } // as http.Flusher does with errors

// FlushError is for http.ResponseController.
func (x *exchange) FlushError() error {
	if !x.answered {
		x.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err == nil {
		x.answered = true
	}
	return c, rw, err
}

// Unwrap is for http.ResponseController.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// isLast reports whether the connection is to be closed after a response with status.
func (x *exchange) isLast(status int) bool {
	one := x.r.ProtoMajor == 1
	if one && len(x.r.TransferEncoding) > 0 {
		// RFC 9112 section 6.1: a server closes the connection after a request with
		// Content-Length and Transfer-Encoding. Whether there was a Content-Length,
		// net/http does not tell.
		return true
	}
	if x.isGranted() {
		return false
	}
	if one && x.r.ContentLength != 0 {
		return true
	}
	if x.in == nil || x.in.proxy {
		return false
	}
	authenticated, requests := x.in.admission.isAuthenticated(x.in)
	return !authenticated && (status >= http.StatusBadRequest || requests >= mostUnauthenticated)
}

// finish ends a response that was served without a panic.
func (x *exchange) finish() {
	if !x.answered {
		x.WriteHeader(http.StatusOK)
	}
}

// end ends the exchange.
func (x *exchange) end() {
	if x.in == nil {
		return
	}
	x.in.current.CompareAndSwap(x, nil)
	// On HTTP/1 a request under way ends with its connection alone.
	reset := x.r.ProtoMajor > 1 && x.r.Context().Err() != nil
	if m := x.in.meter; m != nil && !reset {
		m.request(meterRequest)
	}
	x.in.admission.end(x.in, x.isGranted(), reset)
}

// isHealth reports whether r is a health check.
func isHealth(r *http.Request) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && (r.URL.Path == "/healthz" || r.URL.Path == "/readyz")
}

// isStream reports whether r asks for a WebSocket over a stream of HTTP/2 (RFC 8441).
func isStream(r *http.Request) bool { return r.ProtoMajor == 2 && r.Method == http.MethodConnect }

// meteredBody is a request's body, whose bytes a meter gives back.
type meteredBody struct {
	io.ReadCloser
	meter  *meter
	stream bool // of WebSocket frames
}

// Read implements io.Reader.
func (b meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.stream {
		// A WebSocket frame has 6 bytes or more. Around each there may be 9 of HTTP/2
		// and 22 of TLS.
		b.meter.request(8 * n)
	} else {
		b.meter.request(n + n/8)
	}
	return n, err
}

// grantingServers is an authorizer of servers' requests, whose yes also counts for the
// connection.
type grantingServers struct{ next authn.Authorizer }

// Authorize implements authn.Authorizer.
func (g grantingServers) Authorize(ctx context.Context, r engine.ServerRequest) (engine.Principal, error) {
	p, err := g.next.Authorize(ctx, r)
	if err == nil {
		grant(ctx, true)
	}
	return p, err
}

// grantingClients is likewise for clients. proven says that they show a credential.
type grantingClients struct {
	next   authn.Authenticator
	proven bool
}

// Authenticate implements authn.Authenticator.
func (g grantingClients) Authenticate(ctx context.Context, c engine.Credentials) (engine.Identity, error) {
	id, err := g.next.Authenticate(ctx, c)
	if err == nil {
		grant(ctx, g.proven)
	}
	return id, err
}

// grantingUsers is likewise for users whose tokens are exchanged.
type grantingUsers struct{ next rest.EntraUsers }

// VerifyUser implements rest.EntraUsers.
func (g grantingUsers) VerifyUser(ctx context.Context, token string) (engine.Identity, error) {
	id, err := g.next.VerifyUser(ctx, token)
	if err == nil {
		grant(ctx, true)
	}
	return id, err
}
