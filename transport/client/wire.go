package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

const (
	// maxRefusal bounds what is kept of a refused handshake's text, and
	// maxRefusalHead its status line and headers.
	maxRefusal     = 4 << 10
	maxRefusalHead = 64 << 10
	// writeTimeout bounds one write: a server that has not read for so long is gone.
	writeTimeout = 10 * time.Second
	// maxReason is the room for text in a close frame (RFC 6455 section 5.5).
	maxReason = ws.MaxControlFramePayloadSize - 2
	// keptBuffer is the largest read buffer that is kept between messages.
	keptBuffer = 64 << 10
)

// wire is one WebSocket connection.
type wire struct {
	// Fixed at birth.
	link  net.Conn
	br    *bufio.Reader
	limit int
	tls   bool
	open  chan struct{} // closed when requests may use it
	over  chan struct{} // closed by end
	turn  chan struct{} // holds one value while someone writes
	held  *frame        // what was read before the wire was put into use; nil for nothing

	// Set before the wire is used.
	conn *conn

	// Owned by the reading goroutine.
	buf bytes.Buffer

	heard    atomic.Int64 // when something was last read, in nanoseconds since start
	stalled  atomic.Bool  // the reading goroutine waits for the program
	start    time.Time
	saidGood atomic.Bool // a close frame was sent

	mu          sync.Mutex               // guards the rest
	pongs       []chan struct{}          // who waits for a pong, oldest first
	invocations map[string]chan<- *frame // each holds one
	err         error                    // why it ended
}

// dialWire connects and upgrades. ctx and timeout bound both.
func dialWire(ctx context.Context, target string, o *Options) (*wire, error) {
	u, err := url.Parse(target)
	if err != nil {
		// The error of url.Parse holds the URL, and the URL a token.
		return nil, errors.New("client: dial: the URL cannot be parsed")
	}
	switch u.Scheme {
	case "http":
		u.Scheme = "ws"
	case "https":
		u.Scheme = "wss"
	case "ws", "wss":
	default:
		return nil, errors.New("client: dial: the URL's scheme is not ws, wss, http or https")
	}
	u.Fragment = ""
	var refused *HandshakeError
	d := ws.Dialer{
		Timeout:   o.DialTimeout,
		TLSConfig: o.TLS,
		NetDial:   o.NetDial,
		Header:    ws.HandshakeHeaderHTTP(o.Header),
		OnStatusError: func(status int, _ []byte, r io.Reader) {
			refused = &HandshakeError{Status: status}
			resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(r, maxRefusalHead)), nil)
			if err != nil {
				return
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal)) // whatever of it arrived is worth showing
			refused.Body = string(bytes.ToValidUTF8(b, []byte("\uFFFD")))
		},
	}
	if o.Subprotocol != Raw {
		d.Protocols = []string{o.Subprotocol}
	}
	conn, br, hs, err := d.Dial(ctx, u.String())
	if refused != nil {
		return nil, refused
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // the context's, which sockets keep, too
		err = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	if err != nil {
		return nil, fmt.Errorf("client: dial: %w", err)
	}
	if _, known := protocols[o.Subprotocol]; known && hs.Protocol != o.Subprotocol {
		conn.Close()
		return nil, errors.New("client: dial: the server did not choose subprotocol " + o.Subprotocol)
	}
	if br == nil {
		br = bufio.NewReader(conn)
	}
	_, isTLS := conn.(*tls.Conn)
	return &wire{
		link: conn, br: br, limit: o.ReadLimit, tls: isTLS, start: time.Now(),
		open: make(chan struct{}), over: make(chan struct{}), turn: make(chan struct{}, 1),
		invocations: make(map[string]chan<- *frame),
	}, nil
}

func (w *wire) hear() { w.heard.Store(int64(time.Since(w.start))) }

// write sends one frame. ctx bounds the wait for one's turn and, by its
// deadline, the write. A frame that was written in part ends the wire.
func (w *wire) write(ctx context.Context, op ws.OpCode, p []byte) error {
	var head bytes.Buffer
	mask := ws.NewMask()
	h := ws.Header{Fin: true, OpCode: op, Masked: true, Mask: mask, Length: int64(len(p))}
	head.Grow(ws.MaxHeaderSize + len(p))
	if err := ws.WriteHeader(&head, h); err != nil {
		return err
	}
	start := head.Len()
	head.Write(p)
	ws.Cipher(head.Bytes()[start:], mask, 0)

	select {
	case w.turn <- struct{}{}:
	case <-w.over:
		return w.cause()
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-w.turn }()
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline, impatient := time.Now().Add(writeTimeout), false
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline, impatient = d, true
	}
	w.link.SetWriteDeadline(deadline)
	n, err := w.link.Write(head.Bytes())
	switch {
	case err == nil:
		return nil
	case n == 0 && impatient && !w.tls && errors.Is(err, os.ErrDeadlineExceeded):
		// Nothing was written, which leaves a plain connection whole; TLS does
		// not survive a timeout.
		return context.DeadlineExceeded
	}
	w.end(fmt.Errorf("client: connection lost: write: %w", err))
	return w.cause()
}

// next returns the next data message; it answers the control frames before it.
// The bytes are valid until the next call.
func (w *wire) next(ctx context.Context) (ws.OpCode, []byte, error) {
	if w.buf.Cap() > keptBuffer {
		w.buf = bytes.Buffer{}
	}
	w.buf.Reset()
	state := ws.StateClientSide
	var op ws.OpCode
	for {
		h, err := ws.ReadHeader(w.br)
		if err != nil {
			return 0, nil, err
		}
		w.hear()
		if err := ws.CheckHeader(h, state); err != nil {
			return 0, nil, w.breach(ctx, engine.CloseProtocolError, "the server's frame is invalid: "+err.Error())
		}
		if h.OpCode.IsControl() {
			if err := w.control(ctx, h); err != nil {
				return 0, nil, err
			}
			continue
		}
		if h.Length > int64(w.limit-w.buf.Len()) {
			return 0, nil, w.breach(ctx, engine.CloseTooLarge, "the server's message is too large")
		}
		if h.OpCode != ws.OpContinuation {
			op = h.OpCode
		}
		// Copying grows the buffer with what arrives, not with what was announced.
		if _, err := io.CopyN(&w.buf, w.br, h.Length); err != nil {
			return 0, nil, noEOF(err)
		}
		if !h.Fin {
			state = state.Set(ws.StateFragmented)
			continue
		}
		if op == ws.OpText && !utf8.Valid(w.buf.Bytes()) {
			return 0, nil, w.breach(ctx, engine.CloseInvalidData, "the server's text is not valid UTF-8")
		}
		return op, w.buf.Bytes(), nil
	}
}

// control answers a control frame whose header was read. It returns a
// [*CloseError] for a close.
func (w *wire) control(ctx context.Context, h ws.Header) error {
	p := make([]byte, h.Length) // at most 125, by CheckHeader
	if _, err := io.ReadFull(w.br, p); err != nil {
		return noEOF(err)
	}
	switch h.OpCode {
	case ws.OpPing:
		return w.write(ctx, ws.OpPong, p)
	case ws.OpPong:
		if string(p) == pingMark {
			w.ponged()
		}
		return nil
	}
	code, reason := ws.ParseCloseFrameData(p)
	if len(p) > 0 {
		if err := ws.CheckCloseFrameData(code, reason); err != nil {
			return w.breach(ctx, engine.CloseProtocolError, "the server's close frame is invalid: "+err.Error())
		}
	}
	w.sayGoodbye(ctx, p)
	return &CloseError{Code: engine.CloseCode(code), Reason: reason}
}

// breach ends the wire because the server broke the protocol.
func (w *wire) breach(ctx context.Context, code engine.CloseCode, reason string) *CloseError {
	reason = reason[:min(len(reason), maxReason)]
	w.sayGoodbye(ctx, ws.NewCloseFrameBody(ws.StatusCode(code), reason))
	return &CloseError{Code: code, Reason: reason, ByClient: true}
}

// sayGoodbye sends a close frame, once. A failure to do so changes nothing: the wire
// is at its end.
func (w *wire) sayGoodbye(ctx context.Context, body []byte) {
	if w.saidGood.Swap(true) {
		return
	}
	_ = w.write(ctx, ws.OpClose, body)
}

// invoke registers an invocation. Its channel gets the answer, or is closed when
// the wire ends before there is one.
func (w *wire) invoke(id string) (<-chan *frame, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	answer := make(chan *frame, 1)
	w.invocations[id] = answer
	return answer, nil
}

// answer hands f to the invocation that it answers, if someone still waits.
func (w *wire) answer(f *frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ch := w.invocations[f.id]; ch != nil {
		delete(w.invocations, f.id)
		ch <- f
	}
}

// abandon gives an invocation up.
func (w *wire) abandon(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.invocations, id)
}

// awaitPong registers a waiter for the next pong that nobody else waits for.
func (w *wire) awaitPong() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan struct{})
	w.pongs = append(w.pongs, ch)
	return ch
}

func (w *wire) ponged() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pongs) > 0 {
		close(w.pongs[0])
		w.pongs = w.pongs[1:]
	}
}

// end closes the wire, once, and fails all who wait on it; with a subprotocol that
// has no recovery the connection ends with it.
func (w *wire) end(err error) {
	w.mu.Lock()
	if w.err != nil {
		w.mu.Unlock()
		return
	}
	w.err = err
	for _, ch := range w.invocations {
		close(ch)
	}
	w.invocations, w.pongs = nil, nil
	close(w.over)
	w.mu.Unlock()
	w.link.Close()
	if w.conn != nil && !w.conn.reliable {
		w.conn.end(err)
	}
}

// ended reports whether the wire is over.
func (w *wire) ended() bool {
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}

// cause returns why the wire ended.
func (w *wire) cause() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// noEOF turns an end between two bytes of one frame into what it is: a cut.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
