package engine

import "context"

// The engine declares four interfaces and nothing more: EventHandler (ask
// upstream), Backplane (tell and ask other nodes), Encoding (a message as
// bytes) and Sink (where bytes go). All else is a plain call from the outside in.

// EventHandler is asked, or told, about what happens to connections: by HTTP
// (transport/webhook) or in plain Go. [HandlerFuncs] makes one from functions.
//
// All methods may be called concurrently. Events of one connection come in
// this order: Connect first, user events one at a time, and Disconnected after the
// last of them has returned; Connected runs beside them. ctx ends with the engine's own
// deadline, for Connect with the client's request, and for a user event of a
// connection that has ended when the time or the room for it is up
// ([Limits].EventTimeout, [Limits].PendingEventBytesPerUser). A method must return
// soon after that: until then the connection's next event waits.
type EventHandler interface {
	// Connect decides about a client that has proven its identity. A nil reply
	// accepts it as it is. An *Error refuses; its Status, if set, is what the
	// client sees.
	Connect(ctx context.Context, e *ConnectEvent) (*ConnectReply, error)
	// Connected tells that a connection is open. The error is logged.
	Connected(ctx context.Context, e *ConnectedEvent) (*NotifyReply, error)
	// Disconnected tells that a connection has ended. The error is logged.
	Disconnected(ctx context.Context, e *DisconnectedEvent) (*NotifyReply, error)
	// UserEvent handles an event that a client raised. A nil reply, or one
	// without a payload, sends nothing back.
	UserEvent(ctx context.Context, e *UserEvent) (*EventReply, error)
}

// Backplane joins this engine to the others of a cluster.
//
// An engine asks it for the verbs whose target may be elsewhere and tells it
// what to pass on; the backplane hands what other nodes say to the receiver
// that Start was given. All methods may be called concurrently.
type Backplane interface {
	// Start connects and delivers to r from then on. r may be called
	// concurrently for different origins; commands told by one goroutine of one
	// node arrive in order.
	Start(ctx context.Context, r Receiver) error
	// Tell passes c on to the nodes that may have its target, and returns once
	// it is queued. It never waits for a node: a full queue is an error of
	// CodeUnavailable. It must not keep c after it returns, but may keep what c
	// points to, which is immutable.
	Tell(ctx context.Context, c *Command) error
	// Ask passes c on likewise and collects every node's answer. An error means
	// that at least one node that may be concerned did not answer.
	Ask(ctx context.Context, c *Command) ([]*Answer, error)
	// Interest declares that this node has, or no longer has, a target: a hub's
	// connections, a group, a user. Single connections are not declared; whoever
	// has connections of the hub may have them. A node without interest need not
	// be told or asked. When Interest(on) returns nil, what others tell from
	// then on arrives here. Calls for one target come one at a time.
	Interest(ctx context.Context, hub HubName, t Target, on bool) error
	// Close leaves the cluster. Nothing is delivered after it returned.
	Close() error
}

// Receiver is the engine's end of a [Backplane]: it carries out, on this node
// alone, what another node said. It does not block on clients.
type Receiver func(ctx context.Context, c *Command) *Answer

// Encoding turns messages into the bytes of one subprotocol in one framing,
// compression included. Values must be comparable: connections whose Encoding
// values are equal share bytes.
//
// A message's bytes are AppendPrefix's followed by AppendBody's. Methods may be
// called concurrently, must not keep dst or m, and must be deterministic.
type Encoding interface {
	// AppendBody appends the part of m that all connections with this encoding
	// share. It reports false, with dst unchanged, for a message that this
	// protocol does not send. A reported body may be empty.
	AppendBody(dst []byte, m *Message) ([]byte, bool)
	// AppendPrefix appends what precedes a body of bodyLen bytes: the frame's
	// header, and whatever is this connection's own. For shared bytes own is
	// the zero Own.
	AppendPrefix(dst []byte, m *Message, own Own, bodyLen int) []byte
	// Own reports whether each connection has a prefix of its own: then
	// AppendPrefix is called for each of them.
	Own() bool
}

// Own is what distinguishes one connection's delivery of a message from another's.
type Own struct {
	// Seq is the sequence id of the delivery, 0 for one that is not numbered.
	Seq SequenceID
	// Again says that it may have been delivered before, on a wire that was lost.
	Again bool
	// Membership is the opaque option that the connection joined the message's
	// group with; nil if there is none.
	Membership any
}

// Sink is where one connection's bytes go: a socket, a stream, a Go program.
// Its methods are called by the connection's shard alone, one at a time, and
// never block. A sink that again has room calls [Conn.Writable].
type Sink interface {
	// Offer presents messages of b: those in the half-open ranges of spans, in
	// order. It takes what it can: n whole messages, and then part bytes of the
	// next one (0 unless the sink is a byte stream that wrote at once). Having
	// taken less than all, the sink owes a call of Conn.Writable. A sink that
	// keeps b's memory after it returned must hold a reference ([Batch.Retain]).
	// An error means that the sink is dead; the connection is then ended.
	Offer(b *Batch, spans []Span) (n, part int, err error)
	// OfferBytes presents what is left of a message that was taken in part, and
	// reports how much of it was taken now; if not all, the sink owes a call of
	// Conn.Writable. It must not keep p.
	OfferBytes(p []byte) (int, error)
	// Held returns how many bytes the sink has taken and still holds. They count
	// against the connection's bounds while it also owes more, so a sink keeps
	// them few: beyond some 64 KiB it takes no further messages.
	Held() int
	// Close frees what the sink stands on. It is the last call, made once. A
	// sink that still holds messages passes them on first if polite is true, in
	// bounded time and without blocking the caller.
	Close(polite bool)
}
