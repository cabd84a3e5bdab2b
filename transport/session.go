package transport

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// SessionOptions are what a [Session] needs to know of its connection. Sessions may
// share them, which saves memory. They must not be changed once one of them has begun.
type SessionOptions struct {
	// Decoder reads the client's messages. Required.
	Decoder subprotocol.Decoder
	// Encoding makes the bytes of messages to the client: the subprotocol in the
	// door's framing. Required.
	Encoding engine.Encoding
	// Subprotocol is the name of the negotiated subprotocol; empty for none.
	Subprotocol string
	// Raw says that the client has no envelope, and so no acknowledgements: a
	// request of its that fails ends the connection (Azure Web PubSub, raw
	// WebSocket clients).
	Raw bool
	// Reliable numbers what the connection gets. The Encoding must have parts of a
	// connection's own.
	Reliable bool
	// Recovery is how long a reliable connection outlives a wire that was lost, for
	// [Session.Recover]; 0 for not at all. If it is to, what the client has not
	// acknowledged is kept.
	Recovery time.Duration
	// WirePings says that the wire has pings of its own.
	WirePings bool
	// Received, if set, is called for each message of the client with its size
	// in bytes, before it is decoded. It must not block.
	Received func(bytes int)
	// Logger gets a line when a client is closed for what it sent. Default: discard.
	Logger *slog.Logger

	kind atomic.Pointer[kind] // made by the first session
}

// kind is what a session keeps of its options. Sessions with the same options share it.
type kind struct {
	decoder  subprotocol.Decoder
	received func(int)
	log      *slog.Logger
	raw      bool
	reliable bool
}

// shared returns the kind of o's sessions.
func (o *SessionOptions) shared() *kind {
	if k := o.kind.Load(); k != nil {
		return k
	}
	k := &kind{decoder: o.Decoder, received: o.Received, log: o.Logger, raw: o.Raw, reliable: o.Reliable}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	o.kind.Store(k)
	return k
}

// Reasons that clients are closed with, in the service's own words.
const (
	// ReasonInvalidFrame goes with [engine.CloseProtocolError].
	ReasonInvalidFrame = "The client frame is invalid."
	// ReasonTooLarge goes with [engine.CloseTooLarge].
	ReasonTooLarge = "The client message is too large."
	// ReasonInternal goes with [engine.CloseInternalError].
	ReasonInternal = "Internal server error"
	// ReasonNotRecovered goes with [engine.ClosePolicy], right after the door has
	// let the client in: it makes a client of a reliable subprotocol give up its
	// connection and begin a new one, where a refusal would make it try again.
	ReasonNotRecovered = "The connection could not be recovered."
)

// Session is a [Wire] joined to an [engine.Conn]. [Session.Open] begins it, or
// [Session.Recover].
//
// Message, WirePing, Control, Unfinished and Refuse are for the one goroutine that
// reads the wire; the other methods may be called at any time, by any goroutine. None of them blocks.
type Session struct {
	// Fixed by Open or Recover.
	wire Wire
	kind *kind

	conn  *engine.Conn
	id    engine.WireID // of the wire, among those of conn
	state atomic.Uint32

	invocations atomic.Pointer[invocations] // nil while there are none

	// Owned by the goroutine that reads the wire.
	control ControlRate
}

// The states of a session.
const (
	reading uint32 = iota
	paused         // the engine's lane is full; it will call resume
	resumed        // resume came before Do had returned to say that the lane is full
	ended          // the connection, or its use of this wire, is over; what comes in is discarded
)

// Open admits the connection: it makes s the session of w and a's connection.
// The door starts reading w once Open has returned. If Open fails the wire has
// not been used and still belongs to the door.
func (s *Session) Open(a *engine.Admission, w Wire, o *SessionOptions) error {
	_, err := a.Open(w, s.begin(w, o))
	return err
}

// Recover is Open for a connection that its client wants back: it makes s the
// session of w and r's connection. The session before it is over; if its wire is
// still there, nothing more is taken of it. What o says of the connection rather
// than of the wire stays as it was.
func (s *Session) Recover(r *engine.Recovery, w Wire, o *SessionOptions) error {
	_, err := r.Open(w, s.begin(w, o))
	return err
}

// begin sets s up and returns what the engine is to know of it.
func (s *Session) begin(w Wire, o *SessionOptions) *engine.OpenOptions {
	s.wire, s.kind = w, o.shared()
	return &engine.OpenOptions{
		Encoding:    o.Encoding,
		Subprotocol: o.Subprotocol,
		Numbered:    o.Reliable,
		Recovery:    o.Recovery,
		WirePings:   o.WirePings,
		Bind:        func(c *engine.Conn, id engine.WireID) { s.conn, s.id = c, id },
		Owner:       (*owner)(s),
	}
}

// owner is a Session as the engine sees it.
type owner Session

func (o *owner) Resume() { (*Session)(o).resume() }
func (o *owner) Ended()  { (*Session)(o).over() }

// Conn returns the engine's record of the connection; nil before Open.
func (s *Session) Conn() *engine.Conn { return s.conn }

// Over reports whether the logical connection has ended, or has another wire now.
// The wire may outlive that for a closing handshake; messages that come in are
// discarded.
func (s *Session) Over() bool { return s.state.Load() == ended }

// Wants reports whether the session takes messages now: the engine may have
// enough of them for the moment.
func (s *Session) Wants() bool { return s.state.Load() != paused }

// Message takes one whole message of the client, which arrived as f. It keeps
// nothing of p. It reports whether it wants more; if not, the door stops reading
// until the wire's Resume is called.
func (s *Session) Message(f subprotocol.Frame, p []byte) (more bool) {
	if s.Over() {
		return true
	}
	if s.kind.received != nil {
		s.kind.received(len(p))
	}
	in, err := s.kind.decoder.Decode(f, p)
	if err != nil {
		s.refuse(err)
		return true
	}
	switch in.Kind {
	case subprotocol.InRequest:
		if in.Invocation != "" {
			return s.invoke(in.Invocation, in.Request)
		}
		return s.do(in.Request)
	case subprotocol.InPing:
		s.conn.Post(pong)
		return s.Control(1)
	case subprotocol.InSequenceAck:
		if !s.kind.reliable || !s.conn.AckUpTo(in.Sequence) {
			return s.Control(1)
		}
	case subprotocol.InCancel:
		if !s.cancelInvocation(in.Invocation) {
			return s.Control(1)
		}
	}
	return true
}

// Control counts n frames or messages of the client that carry no data. It reports
// whether the door goes on reading; if not, the wire is resumed in time, or the
// connection ends.
func (s *Session) Control(n int) (more bool) {
	more, reason := s.control.Count(s.conn, s.wire, n)
	if reason != "" {
		s.conn.EndOn(s.id, engine.EndControlRate, engine.ClosePolicy, "", reason)
	}
	return more
}

// Unfinished notes that the door keeps a part of a message that is not complete.
func (s *Session) Unfinished() *engine.Unfinished { return s.conn.Unfinished(s.id) }

// pong is immutable, as all messages are, so all connections share it.
var pong = &engine.Message{Kind: engine.KindPong}

// do carries out a request that is answered as the client's protocol and the
// request itself ask for.
func (s *Session) do(r *engine.Request) (more bool) {
	r.CancelOnEnd = s.kind.raw
	if r.Refused != nil && !r.HasAck {
		s.logDropped(r.Refused)
	}
	return s.hand(r, s.completion(s.conn, r))
}

// logDropped writes the log's line about a request that fails without its client
// being told. There is one line for each wire: a client can send many.
func (s *Session) logDropped(why *engine.Refusal) {
	if !s.control.once() {
		return
	}
	s.kind.log.Info("dropped a message that asked for no ack; further ones on this wire are not logged",
		"connection", s.conn.ID(), "hub", s.conn.Hub().Name(), "rule", why.Rule, "error", why.Message)
}

// hand hands r to the engine and reports whether its lane has room for more.
func (s *Session) hand(r *engine.Request, done func(error)) (more bool) {
	if s.conn.Do(r, done) {
		return true
	}
	if s.state.CompareAndSwap(reading, paused) {
		return false
	}
	s.state.CompareAndSwap(resumed, reading)
	return true
}

// resume is called by the engine once for each time that Do returned false.
func (s *Session) resume() {
	if s.state.CompareAndSwap(paused, reading) {
		s.wire.Resume()
	} else if !s.state.CompareAndSwap(reading, resumed) && s.state.CompareAndSwap(paused, reading) {
		s.wire.Resume() // it became paused between the two looks
	}
}

// over is called by the engine when the connection has ended, or has another wire.
// This one is read on, for the far end's goodbye.
func (s *Session) over() {
	if s.state.Swap(ended) == paused {
		s.wire.Resume()
	}
}

// completion returns what is to be done with r's outcome. r belongs to the engine
// by the time it is known.
func (s *Session) completion(c *engine.Conn, r *engine.Request) func(error) {
	switch {
	case s.kind.raw:
		return s.rawDone
	case r.HasAck:
		id := r.AckID
		return func(err error) {
			c.Post(&engine.Message{Kind: engine.KindAck, AckID: id, Err: engineError(err)})
		}
	default:
		return ignore
	}
}

// ignore drops the outcome of a request that asked for no acknowledgement: the
// client is told nothing, not even of a failure.
func ignore(error) {}

// rawDone ends a raw client whose request failed: it has no acknowledgements to
// be told by.
func (s *Session) rawDone(err error) {
	if err == nil || engine.CodeOf(err) == engine.CodeClosed {
		return
	}
	c := s.conn
	if engine.CodeOf(err) == engine.CodeForbidden {
		s.kind.log.Info("closed a raw client for want of a permission", "rule", "client.permission", "connection", c.ID(), "hub", c.Hub().Name(), "error", err)
		c.EndOn(s.id, engine.EndProtocol, engine.ClosePolicy, "", "No permission to send to the group.")
		return
	}
	c.EndOn(s.id, engine.EndEvent, engine.CloseInternalError, "", ReasonInternal)
}

// engineError returns err as the engine's own type; nil for nil.
func engineError(err error) *engine.Error {
	if err == nil {
		return nil
	}
	var e *engine.Error
	if errors.As(err, &e) {
		return e
	}
	return &engine.Error{Code: engine.CodeInternal, Message: ReasonInternal, Err: err}
}

// Refuse closes the connection because of what the client sent: with code, and
// with reason, which the client sees. detail is for the log; it holds no payload.
// What comes in afterwards is discarded; what came before is still carried out and
// answered.
func (s *Session) Refuse(code engine.CloseCode, reason, detail string) {
	if s.Over() {
		return
	}
	c := s.conn
	s.kind.log.Info("closed a client that broke its protocol", "rule", "client.protocol", "connection", c.ID(), "hub", c.Hub().Name(),
		"code", int(code), "reason", reason, "detail", detail)
	s.over()
	c.EndAfter(s.id, func() { c.EndOn(s.id, engine.EndProtocol, code, "", reason) })
}

func (s *Session) refuse(err error) {
	var r *subprotocol.RefusedError
	if errors.As(err, &r) {
		s.Refuse(r.Code, r.Reason, r.Detail)
		return
	}
	s.Refuse(engine.CloseInternalError, ReasonInternal, err.Error())
}

// WirePing answers a ping of the wire itself, echoing payload, of which it keeps
// nothing.
func (s *Session) WirePing(payload []byte) {
	if s.Over() {
		return
	}
	s.conn.Post(&engine.Message{
		Kind:    engine.KindWirePong,
		Payload: engine.Payload{Type: engine.Binary, Data: append([]byte(nil), payload...)},
	})
}

// Heard notes a sign of life. A door calls it for whatever it reads.
func (s *Session) Heard() { s.conn.Heard() }

// Gone tells that the client said goodbye with code and text, or, with
// [engine.CloseAbnormal], that the wire is lost.
func (s *Session) Gone(code engine.CloseCode, text string) {
	s.state.Store(ended)
	s.conn.Gone(s.id, code, text)
}

// Yield lets other connections have their turn: the door stops reading, as if the
// session wanted no more, and goes on at once in the wire's next turn.
func (s *Session) Yield() { s.wire.Resume() }

// Stuck gives the wire up: the client has taken nothing for too long. It ends the
// connection, unless a client that is there after all can recover it.
func (s *Session) Stuck(detail string) {
	if s.kind.reliable {
		s.Gone(engine.CloseAbnormal, detail)
		return
	}
	s.conn.Abort(engine.EndSlow, detail)
}

// Writable passes on that the wire has room again. It may be called before Open
// has returned, since the engine writes the first message by then.
func (s *Session) Writable() { s.conn.Writable() }
