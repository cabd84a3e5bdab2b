package websocket

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// pseudoProtocol is where net/http keeps the :protocol of an extended CONNECT
// (RFC 8441 section 4). No client can send a header of that name.
const pseudoProtocol = ":protocol"

// checkExtendedConnect checks that this is a WebSocket handshake over HTTP/2 (RFC
// 8441 section 5), which has neither an Upgrade header nor a key.
func (k *knock) checkExtendedConnect() error {
	r := k.r
	protocol := strings.Join(r.Header[pseudoProtocol], ", ")
	delete(r.Header, pseudoProtocol) // it is no header
	switch {
	case protocol == "":
		return engine.Errorf(engine.CodeInvalid, "websocket.upgrade",
			"This is no WebSocket handshake: it is a %s over %s, which has no upgrade; expected a GET over HTTP/1.1 (a client that does TLS offers http/1.1 alone by ALPN), "+
				"or an extended CONNECT (RFC 8441), which the server takes if its process was started with GODEBUG=http2xconnect=1.", excerpt(r.Method), r.Proto)
	case protocol != "websocket":
		return &refusal{http.StatusNotImplemented, engine.Errorf(engine.CodeUnsupported, "websocket.protocol",
			"The :protocol of the request is %s, expected websocket.", excerpt(protocol))}
	case len(r.Header["Content-Length"]) > 0:
		return engine.Errorf(engine.CodeInvalid, "websocket.body", "A WebSocket handshake cannot have a Content-Length: the stream's data are the frames.")
	}
	return k.checkVersion()
}

// acceptStream answers 200 and returns the client's end.
func (k *knock) acceptStream(protocol, extension string) (*accepted, error) {
	header := k.w.Header()
	if protocol != "" {
		header["Sec-Websocket-Protocol"] = []string{protocol} // HTTP/2 has lower case alone
	}
	if extension != "" {
		header["Sec-Websocket-Extensions"] = []string{extension}
	}
	c := &streamConn{
		body: k.r.Body, w: k.w, control: http.NewResponseController(k.w), ended: k.r.Context().Done(), closed: make(chan struct{}),
		local: k.r.Context().Value(http.LocalAddrContextKey), remote: k.r.RemoteAddr,
	}
	// A server that ends requests by time would end this one.
	err := errors.Join(c.control.SetReadDeadline(time.Time{}), c.control.SetWriteDeadline(time.Time{}))
	if err != nil {
		http.Error(k.w, "The stream cannot be used as a connection.", http.StatusInternalServerError)
	} else {
		err = c.open(k.h.o.HandshakeTimeout)
	}
	if err != nil {
		k.h.o.Logger.Debug("a handshake failed", "hub", k.hub, "remote", k.r.RemoteAddr, "error", err)
		return nil, err
	}
	k.stream = c
	return &accepted{Conn: c}, nil
}

// streamConn is the server's end of an HTTP/2 stream as a [net.Conn]. The handler of
// the request must stay until it is closed, since the stream ends with it: over
// HTTP/2 a connection has a goroutine more.
//
// The deadlines of an HTTP/2 stream are those of a request: one that passes ends the
// stream, whether anybody is reading or writing or not. So the deadlines of a
// streamConn are kept here, and the stream is ended when one passes during a call.
// There is no reading after a read that timed out.
type streamConn struct {
	body    io.ReadCloser
	w       http.ResponseWriter
	control *http.ResponseController
	local   any // net.Addr
	remote  string
	ended   <-chan struct{} // closed when the stream has ended
	closed  chan struct{}   // closed by Close

	writes sync.Mutex // held during a write, which it guards against the handler's end

	mu       sync.Mutex // guards the rest
	isClosed bool
	gone     bool // the handler is about to return: w is out of use
	in, out  callTime
}

// callTime is the deadline of one direction, and its call that is under way.
type callTime struct {
	deadline time.Time
	busy     bool
	timer    *time.Timer // ends the call; nil while there is no call, or no deadline
	passed   bool
	end      func() // ends the call that is under way
}

// begin notes a call.
func (t *callTime) begin(c *streamConn, end func()) {
	t.busy, t.passed, t.end = true, false, end
	t.arm(c)
}

// finish notes the end of a call and reports whether its deadline had passed.
func (t *callTime) finish() (passed bool) {
	t.busy, t.end = false, nil
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	return t.passed
}

// set sets the deadline, which counts for a call that is under way, too.
func (t *callTime) set(c *streamConn, deadline time.Time) {
	t.deadline = deadline
	if t.busy {
		t.arm(c)
	}
}

// arm starts the timer of the call that is under way.
func (t *callTime) arm(c *streamConn) {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	if t.deadline.IsZero() {
		return
	}
	var own *time.Timer
	own = time.AfterFunc(time.Until(t.deadline), func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t.timer == own { // else the call has ended, or has another deadline
			t.passed = true
			t.end()
		}
	})
	t.timer = own
}

// open answers 200.
func (c *streamConn) open(timeout time.Duration) error {
	_ = c.SetWriteDeadline(time.Now().Add(timeout)) // fails once it is closed, as the write does
	_, err := c.write(func() (int, error) {
		c.w.WriteHeader(http.StatusOK)
		return 0, c.control.Flush()
	})
	_ = c.SetWriteDeadline(time.Time{})
	return err
}

// wait returns when the connection is closed, or its stream has ended. From then on
// nothing is written to the stream.
func (c *streamConn) wait() {
	select {
	case <-c.closed:
	case <-c.ended:
	}
	c.writes.Lock() // a write that is under way is cut off, or fails, if it cannot go on
	defer c.writes.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
}

// Read implements [net.Conn].
func (c *streamConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if c.isClosed {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	c.in.begin(c, func() { c.body.Close() })
	c.mu.Unlock()
	n, err := c.body.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	return n, c.outcome(err, c.in.finish())
}

// Write implements [net.Conn].
func (c *streamConn) Write(p []byte) (int, error) {
	return c.write(func() (int, error) {
		n, err := c.w.Write(p)
		if err == nil {
			err = c.control.Flush()
		}
		return n, err
	})
}

// write runs do, which uses w.
func (c *streamConn) write(do func() (int, error)) (int, error) {
	c.writes.Lock()
	defer c.writes.Unlock()
	c.mu.Lock()
	if c.isClosed || c.gone {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	c.out.begin(c, c.reset)
	c.mu.Unlock()
	n, err := do()
	c.mu.Lock()
	defer c.mu.Unlock()
	return n, c.outcome(err, c.out.finish())
}

// reset ends the stream, and with it a write. c.mu is held, so w is in use.
func (c *streamConn) reset() { _ = c.control.SetWriteDeadline(time.Unix(1, 0)) }

// outcome returns what a call that ended with err returns. c.mu is held.
func (c *streamConn) outcome(err error, passed bool) error {
	switch {
	case err == nil:
		return nil
	case c.isClosed:
		return net.ErrClosed
	case passed:
		return os.ErrDeadlineExceeded
	}
	return err
}

// Close implements [net.Conn]. It cuts calls off that are under way. The handler
// returns then, which ends the stream.
func (c *streamConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed {
		return net.ErrClosed
	}
	c.isClosed = true
	for _, t := range []*callTime{&c.in, &c.out} {
		if t.busy {
			t.end()
		}
	}
	close(c.closed)
	return nil
}

// LocalAddr implements [net.Conn].
func (c *streamConn) LocalAddr() net.Addr {
	if a, ok := c.local.(net.Addr); ok {
		return a
	}
	return &net.TCPAddr{}
}

// RemoteAddr implements [net.Conn].
func (c *streamConn) RemoteAddr() net.Addr {
	a, _ := netip.ParseAddrPort(c.remote)
	return net.TCPAddrFromAddrPort(a)
}

// SetDeadline implements [net.Conn].
func (c *streamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements [net.Conn].
func (c *streamConn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.in, t) }

// SetWriteDeadline implements [net.Conn].
func (c *streamConn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.out, t) }

func (c *streamConn) setDeadline(d *callTime, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed {
		return net.ErrClosed
	}
	d.set(c, t)
	return nil
}

var _ net.Conn = (*streamConn)(nil)
