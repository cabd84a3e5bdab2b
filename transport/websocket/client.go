package websocket

import (
	"errors"
	"io"
	"os"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/internal/netwire"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// client is one connection of the door: frames between a wire and a session.
type client struct {
	session Session

	// Owned by the wire's reading goroutine.
	reader reader
	window *window // nil unless compression was negotiated
}

// maxInflated is what a client's compressed messages may become before others get
// their turn: a few bytes may stand for very many.
const maxInflated = 64 << 10

type clientState uint8

const (
	clientOpen clientState = iota
	// clientDeaf broke the framing: its bytes mean nothing any more, and are
	// discarded until its close frame has come or it is gone. Unread, they would
	// make the kernel answer the close with a reset, which may destroy the close
	// frame on its way.
	clientDeaf
	// clientGone has said goodbye, or was lost.
	clientGone
)

var (
	_ netwire.Reader = (*client)(nil)
	_ receiver       = (*client)(nil)
)

// open makes a client of c and lets join make its session that of a connection. The
// connection's first message and the answer to the handshake go out together.
func (h *Handler) open(c *accepted, o *transport.SessionOptions, join func(*transport.Session, transport.Wire) error) error {
	cl := &struct { // one piece of memory
		client
		own transport.Session
		netwire.Space
	}{client: client{reader: newReader(h.limits.MessageBytes, c.agreed)}}
	cl.session = &cl.own
	w := h.wires.NewAfter(c.Conn, c.answer, &cl.client, &cl.Space)
	if cl.reader.deflate {
		cl.window = &window{size: c.agreed.kept()}
	}
	if kept := c.agreed.kept(); kept > 0 {
		w = &windowWire{Wire: w, windows: &h.windows, size: kept}
	}
	if o.Raw { // nothing is sent to it by itself
		w.OfferBytes(nil) //nolint:errcheck // the wire tells of its loss
	}
	if err := join(&cl.own, w); err != nil {
		w.OfferBytes(nil) //nolint:errcheck // it is being closed
		w.Close(true)
		return err
	}
	w.Start(c.rest)
	return nil
}

// Consume implements [netwire.Reader].
func (c *client) Consume(p []byte) (n int, more bool) {
	if c.reader.state != clientOpen {
		c.discard(p)
		return len(p), c.session.Control(1) // even what is discarded has its bound
	}
	if !c.session.Wants() {
		return 0, false
	}
	if len(p) == 0 {
		return 0, true
	}
	c.session.Heard()
	if c.window != nil {
		c.window.inflated = 0
	}
	before := c.reader.part
	n, more, err := c.reader.feed(p, c)
	if err != nil {
		c.reader.state = clientDeaf
		c.refuse(err)
	}
	if c.reader.state != clientOpen {
		begun := c.reader.begun()
		c.reader.part = nil
		c.track(before)
		c.discard(begun)
		c.discard(p[n:])
		return len(p), true
	}
	c.track(before)
	bare := int(c.reader.bare)
	if c.session.Over() {
		bare++ // nothing that comes is of any use
	}
	if bare > 0 && !c.session.Control(bare) {
		return n, false
	}
	return n, more
}

// discard drops what comes of a client that has broken the framing. Its close frame,
// the answer to the one it was sent, ends the connection at once (RFC 6455 section
// 7.1.1).
func (c *client) discard(p []byte) {
	if c.reader.state == clientDeaf && c.reader.discard(p) {
		c.leave(noStatus, "")
	}
}

// leave notes the client's close frame.
func (c *client) leave(code engine.CloseCode, text string) {
	c.reader.state = clientGone
	c.reader.part = nil
	c.session.Gone(code, text)
}

// message implements receiver.
func (c *client) message(op ws.OpCode, compressed bool, p []byte) (more bool) {
	if c.session.Over() {
		return true // before anything is spent on it
	}
	if compressed {
		in := inflaters.Get().(*inflater)
		defer in.free()
		var err *frameError
		if p, err = in.inflate(p, int(c.reader.limit), c.window); err != nil {
			c.refuse(err)
			return true
		}
		c.window.inflated += len(p)
	}
	frame := subprotocol.TextFrame
	if op == ws.OpBinary {
		frame = subprotocol.BinaryFrame
	}
	more = c.session.Message(frame, p)
	if more && compressed && c.window.inflated > maxInflated {
		c.session.Yield()
		return false
	}
	return more
}

// control implements receiver.
func (c *client) control(op ws.OpCode, p []byte) (more bool) {
	switch op {
	case ws.OpPing:
		c.session.WirePing(p)
	case ws.OpClose:
		code, text, err := parseClose(p)
		if err != nil {
			c.refuse(err)
			code, text = noStatus, "" // it is a close frame all the same
		}
		c.leave(code, text)
		return false
	}
	return true
}

// refuse implements receiver.
func (c *client) refuse(err *frameError) {
	c.session.Refuse(err.code, err.reason, err.detail)
}

// Lost implements [netwire.Reader].
func (c *client) Lost(err error) {
	// Also after a goodbye: the engine may still be writing what was queued.
	c.reader.state = clientGone
	before := c.reader.part
	c.reader.part = nil
	c.track(before)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.session.Stuck("nothing could be written to the client for too long")
		return
	}
	if errors.Is(err, io.EOF) && c.session.Over() {
		// It has no more to say, but may still read what it is told at the end.
		c.session.Gone(noStatus, "")
		return
	}
	c.session.Gone(engine.CloseAbnormal, "")
}

// Writable implements [netwire.Reader].
func (c *client) Writable() { c.session.Writable() }
