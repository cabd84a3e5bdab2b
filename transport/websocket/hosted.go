package websocket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// Protocol is another protocol than Azure's own that clients speak over this
// door's wires, with a first message of its own before a connection begins. The
// door does the handshake, authenticates and frames; the rest is the protocol's.
type Protocol struct {
	// Path is what precedes the hub's name in the path of its clients, such as
	// "/clients/name/hubs/".
	Path string
	// Name is the subprotocol, which its clients must offer.
	Name string
	// Serve is called, on the goroutine of the request, with a client that has
	// been authenticated and answered 101. It may wait. A guest whose Start or
	// Refuse was not called when it returns is cut off.
	Serve func(ctx context.Context, g *Guest)
}

// Session is what the door tells about a wire. Wants, Message, WirePing, Control,
// Unfinished and Refuse are called by the one goroutine that reads the wire; the
// others at any time. [transport.Session] says what they mean. None may block.
//
// A session that has kept back a part of a message for a later turn goes on with it
// in Wants, which is called in each of the wire's turns.
type Session interface {
	Over() bool
	Wants() bool
	Control(n int) (more bool)
	Unfinished() *engine.Unfinished
	Message(f subprotocol.Frame, p []byte) (more bool)
	WirePing(payload []byte)
	Refuse(code engine.CloseCode, reason, detail string)
	Heard()
	Gone(code engine.CloseCode, text string)
	Yield()
	Stuck(detail string)
	Writable()
}

var _ Session = (*transport.Session)(nil)

// Parting is an [subprotocol.Encoder] with a last message of its own, before the
// close frame.
type Parting interface {
	// AppendParting appends the last message for m, of KindClose, or nothing, and
	// returns what the close frame behind it says.
	AppendParting(dst []byte, m *engine.Message) (_ []byte, code engine.CloseCode, text string)
}

// Frames returns c's messages in WebSocket frames.
func Frames(c subprotocol.Encoder) engine.Encoding { return encoding{codec: c} }

// appendParting appends p's last message and the close frame.
func appendParting(dst []byte, p Parting, m *engine.Message) []byte {
	var room [256]byte
	last, code, text := p.AppendParting(room[:0], m)
	return appendLast(dst, last, code, text)
}

// appendLast appends a last message, if there is one, and the close frame.
func appendLast(dst, last []byte, code engine.CloseCode, text string) []byte {
	if len(last) > 0 {
		dst = append(appendHeader(dst, ws.OpBinary, false, len(last)), last...)
	}
	var room [maxControl]byte
	body := appendClose(room[:0], code, text)
	return append(appendHeader(dst, ws.OpClose, false, len(body)), body...)
}

// hosted finds the protocol whose clients use the path.
func (h *Handler) hosted(u *url.URL) (*Protocol, target, bool) {
	path := u.EscapedPath()
	for i := range h.o.Protocols {
		p := &h.o.Protocols[i]
		segment, ok := strings.CutPrefix(path, p.Path)
		if !ok || strings.Contains(segment, "/") {
			continue
		}
		hub, err := url.PathUnescape(segment)
		if err != nil {
			hub = segment
		}
		return p, target{hub: hub, path: path}, true
	}
	return nil, target{}, false
}

// host lets a client of p in, or says why not. After the answer 101 it returns nil
// whatever happens.
func (k *knock) host(p *Protocol, t target) error {
	offered, err := k.open(t)
	if err != nil {
		return err
	}
	chosen := ""
	for _, name := range offered {
		if chosen == "" && strings.EqualFold(name, p.Name) {
			chosen = name
		}
	}
	if chosen == "" {
		return engine.Errorf(engine.CodeUnsupported, "websocket.subprotocol",
			"Clients of %s must offer the subprotocol %s; this one offers %s.", t.path, p.Name, excerpt(strings.Join(offered, ", ")))
	}
	if err := k.checkOrigin(k.token != ""); err != nil {
		return err
	}
	identity, err := k.authenticate(t)
	if err != nil {
		return err
	}
	g := &Guest{knock: k, request: k.request(identity, offered)}
	defer g.leave()
	c, err := k.accept(chosen, "")
	if err == nil {
		err = k.send(c) // it speaks first
	}
	if err != nil {
		return nil // the log was told, and there is nobody left to answer
	}
	g.conn, g.rest = c.Conn, c.rest
	g.client.reader = newReader(k.h.limits.MessageBytes, false)
	p.Serve(k.r.Context(), g)
	return nil
}

// Guest is a client of a [Protocol]. Its methods are for the goroutine that
// [Protocol].Serve was called on: Receive first, then Refuse, or Wire and Start.
type Guest struct {
	knock   *knock
	request *engine.AdmitRequest
	conn    net.Conn // nil once it is somebody else's
	rest    []byte   // has been read of conn, and not taken
	wire    transport.Wire
	start   func()
	client  client
}

// Hub returns the hub that the client wants to enter.
func (g *Guest) Hub() *engine.Hub { return g.knock.h.engine.Hub(g.knock.hub) }

// Request returns what [engine.Hub.Admit] is to be asked, for the protocol to
// complete.
func (g *Guest) Request() *engine.AdmitRequest { return g.request }

// Limits returns the engine's limits.
func (g *Guest) Limits() engine.Limits { return g.knock.h.limits }

// Received returns what is to be called with the size of each of the client's
// messages, once its connection has begun.
func (g *Guest) Received() func(bytes int) {
	hub, received := g.knock.hub, g.knock.h.o.Observer.Received
	if received == nil {
		return func(int) {}
	}
	return func(n int) { received(hub, n) }
}

// ErrGuest is the error of a guest that is gone, or that broke the framing and has
// been told: there is nothing left to do for it.
var ErrGuest = errors.New("websocket: the client is gone")

// Receive hands the client's binary messages to take until that wants no more. It
// waits for them no longer than the handshake time. p is valid during the call
// alone. An error is [ErrGuest].
func (g *Guest) Receive(take func(p []byte) (more bool)) error {
	h := g.knock.h
	g.conn.SetDeadline(time.Now().Add(h.o.HandshakeTimeout))
	waiting := h.waiting.add(g.conn, h.o.UnauthenticatedConnections)
	defer h.waiting.remove(waiting)
	r := &greeter{guest: g, take: take}
	hold := newGuestHold(g)
	defer hold.done()
	var buf [4096]byte
	for p := g.rest; ; {
		n, more, bad := g.client.reader.feed(p, r)
		if bad != nil {
			r.refuse(bad)
		}
		r.bare += int(g.client.reader.bare)
		g.rest = p[n:]
		switch most := 2 * g.Limits().ControlRate; {
		case r.bad != nil:
			g.client.reader = reader{} // what follows is at best frames again
			g.Refuse(engine.Errorf(engine.CodeInvalid, "websocket.frame", "%s", r.bad.detail), nil, r.bad.code, r.bad.reason)
			return ErrGuest
		case r.gone:
			return ErrGuest
		case r.bare > most:
			err := engine.Errorf(engine.CodeInvalid, "limits.controlRate", "The client sends more than %d pings and empty frames before its first packet.", most)
			g.Refuse(err, nil, engine.ClosePolicy, err.Message+" [limits.controlRate]")
			return ErrGuest
		case !more:
			g.rest = bytes.Clone(g.rest)
			return nil
		}
		if p = g.rest; len(p) > 0 {
			continue
		}
		n, err := g.conn.Read(buf[:])
		if reason := hold.add(n); reason != "" {
			g.Refuse(engine.Errorf(engine.CodeUnavailable, "limits.totalUnfinishedBytes", "%s", reason), nil, engine.ClosePolicy, reason)
			return ErrGuest
		}
		if err != nil && h.waiting.remove(waiting) {
			err := engine.Errorf(engine.CodeUnavailable, "limits.unauthenticatedConnections",
				"More than %d clients have not sent a first message.", h.o.UnauthenticatedConnections)
			g.Refuse(err, nil, engine.ClosePolicy, err.Message+" [limits.unauthenticatedConnections]")
			return ErrGuest
		}
		if err != nil {
			g.knock.note(http.StatusSwitchingProtocols, &engine.Error{Code: engine.CodeTimeout, Rule: "limits.handshakeTimeout", Err: err,
				Message: fmt.Sprintf("The client did not say what it wants within %s.", g.knock.h.o.HandshakeTimeout)})
			return ErrGuest
		}
		p = buf[:n]
	}
}

// greeter is the receiver of what a guest says before its connection begins.
type greeter struct {
	guest *Guest
	take  func([]byte) bool
	gone  bool
	bad   *frameError
	bare  int // frames without data so far, pings mostly
}

var errNotBinary = &frameError{engine.CloseUnsupported, "The subprotocol requires binary messages.", "a text message"}

func (r *greeter) message(op ws.OpCode, _ bool, p []byte) bool {
	if op != ws.OpBinary {
		r.bad = errNotBinary
		return false
	}
	return r.take(p)
}

func (r *greeter) control(op ws.OpCode, p []byte) bool {
	switch op {
	case ws.OpPing:
		_, err := r.guest.conn.Write(append(appendHeader(nil, ws.OpPong, false, len(p)), p...))
		r.gone = err != nil
	case ws.OpClose:
		code, _, err := parseClose(p)
		if err != nil {
			r.bad = err
			return false
		}
		r.guest.conn.Write(appendLast(nil, nil, code, "")) //nolint:errcheck // it is on its way out
		r.gone = true
	}
	return !r.gone
}

func (r *greeter) refuse(err *frameError) { r.bad = err }

// Refuse sends a last message, if there is one, and a close frame, and waits a
// moment for the client's. err is for the log. It may also be called after Wire, if
// no connection could be opened on that.
func (g *Guest) Refuse(err error, last []byte, code engine.CloseCode, text string) {
	h := g.knock.h
	g.knock.note(http.StatusSwitchingProtocols, err)
	if g.wire != nil {
		_, werr := g.wire.OfferBytes(appendLast(nil, last, code, text))
		g.wire.Close(werr == nil)
		g.wire = nil
		return
	}
	c := g.conn
	g.conn = nil
	defer c.Close()
	defer h.leaving.Add(-1)
	crowded := h.leaving.Add(1) > int64(h.o.UnauthenticatedConnections)
	c.SetDeadline(time.Now().Add(h.limits.CloseTimeout))
	if _, err := c.Write(appendLast(nil, last, code, text)); err == nil && !crowded {
		awaitClose(c, g.client.reader, g.rest)
	}
}

// Wire returns the client's end for [engine.Admission.Open]. s is told about it,
// at once of what the engine makes it write, and from Start on of what comes in.
func (g *Guest) Wire(s Session) transport.Wire {
	g.conn.SetDeadline(time.Time{})
	g.client.session = s
	w := g.knock.h.wires.New(g.conn, &g.client)
	rest := g.rest
	g.conn, g.rest, g.wire = nil, nil, w
	g.start = func() { w.Start(rest) }
	return w
}

// Start begins reading. It is called once a connection has been opened on the wire.
func (g *Guest) Start() {
	g.start()
	g.wire = nil
}

// leave cuts off a guest that was not settled, and lets go of what only the
// beginning needed.
func (g *Guest) leave() {
	switch {
	case g.conn != nil:
		g.conn.Close()
	case g.wire != nil:
		g.wire.Close(false)
	}
	g.knock, g.request, g.conn, g.rest, g.wire, g.start = nil, nil, nil, nil, nil, nil
}
