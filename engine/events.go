package engine

import (
	"context"
	"crypto/x509"
	"time"
)

// EventContext is what every event says about its connection.
type EventContext struct {
	Hub         HubName
	ConnID      ConnID
	UserID      UserID
	Subprotocol string
	// ID counts the events of one connection: 0 for connect, then 1, 2, ...
	ID uint64
	// Time is when the event was raised.
	Time time.Time
	// State is what the handler stored with the connection.
	State HandlerState
	// Details is what the connection's door adds for handlers that know its
	// protocol; nil if nothing.
	Details any
	// Left, of connected and user events, is closed when the connection ends. A handler
	// that tries again after a failure stops then, so that disconnected is the last of
	// the connection's events. It is nil in connect and disconnected events.
	Left <-chan struct{}
}

// HandlerState is bytes that an event handler keeps with a connection: the
// engine stores, moves and returns them unread. Treat it as immutable.
type HandlerState []byte

// ConnectEvent asks whether a client may connect, and as whom.
type ConnectEvent struct {
	EventContext
	Claims map[string][]string
	Query  map[string][]string
	// Header holds the request's headers under their canonical names, those of
	// [net/textproto.CanonicalMIMEHeaderKey]. An EventHandler that passes the event
	// on to another program may spell them otherwise.
	Header           map[string][]string
	Subprotocols     []string
	PeerCertificates []*x509.Certificate
}

// ConnectReply accepts a client and may change who it is. Nil members keep what
// the client's credential said.
type ConnectReply struct {
	// UserID replaces the user id; a pointer to "" clears it.
	UserID *UserID
	// Roles replaces the roles; an empty, non-nil slice removes them all.
	Roles []string
	// Groups replaces the initial groups if it is not empty.
	Groups []GroupName
	// Subprotocol chooses the subprotocol; empty leaves it to the door.
	Subprotocol string
	// State is stored with the connection.
	State HandlerState
	// Details is handed to the connection's door.
	Details any
}

// ConnectedEvent tells that a connection is open.
type ConnectedEvent struct{ EventContext }

// DisconnectedEvent tells that a connection has ended.
type DisconnectedEvent struct {
	EventContext
	// Reason says why, in words that may be shown to people.
	Reason string
}

// UserEvent is an event that a client raised.
type UserEvent struct {
	EventContext
	Name     EventName
	Payload  Payload
	Metadata Metadata
	// Attributes are the request's own, opaque to the engine.
	Attributes any
}

// NotifyReply is what a handler leaves behind after being told of something.
type NotifyReply struct {
	// UpdateState, if not nil, is called with the state as it is then and
	// returns the new one. It must not block.
	UpdateState func(HandlerState) HandlerState
}

// EventReply answers a user event.
type EventReply struct {
	// Payload is sent to the client that raised the event; nil sends nothing.
	Payload  *Payload
	Metadata Metadata
	// UpdateState is as in [NotifyReply].
	UpdateState func(HandlerState) HandlerState
	// Attributes are for the connection's door, opaque to the engine.
	Attributes any
}

// HandlerFuncs is an [EventHandler] made of functions. A nil function does
// nothing: a nil OnConnect accepts.
type HandlerFuncs struct {
	OnConnect      func(context.Context, *ConnectEvent) (*ConnectReply, error)
	OnConnected    func(context.Context, *ConnectedEvent)
	OnDisconnected func(context.Context, *DisconnectedEvent)
	OnUserEvent    func(context.Context, *UserEvent) (*EventReply, error)
}

var _ EventHandler = (*HandlerFuncs)(nil)

// Connect calls OnConnect.
func (h *HandlerFuncs) Connect(ctx context.Context, e *ConnectEvent) (*ConnectReply, error) {
	if h.OnConnect == nil {
		return nil, nil
	}
	return h.OnConnect(ctx, e)
}

// Connected calls OnConnected.
func (h *HandlerFuncs) Connected(ctx context.Context, e *ConnectedEvent) (*NotifyReply, error) {
	if h.OnConnected != nil {
		h.OnConnected(ctx, e)
	}
	return nil, nil
}

// Disconnected calls OnDisconnected.
func (h *HandlerFuncs) Disconnected(ctx context.Context, e *DisconnectedEvent) (*NotifyReply, error) {
	if h.OnDisconnected != nil {
		h.OnDisconnected(ctx, e)
	}
	return nil, nil
}

// UserEvent calls OnUserEvent.
func (h *HandlerFuncs) UserEvent(ctx context.Context, e *UserEvent) (*EventReply, error) {
	if h.OnUserEvent == nil {
		return nil, nil
	}
	return h.OnUserEvent(ctx, e)
}

// Names of the system events, for [HandlerRule].
const (
	SystemConnect      = "connect"
	SystemConnected    = "connected"
	SystemDisconnected = "disconnected"
)

// HandlerRule gives the events it matches to a handler. Of a hub's rules the
// first that matches gets the event, and no other.
type HandlerRule struct {
	// SystemEvents lists "connect", "connected", "disconnected", in any case.
	SystemEvents []string
	// UserEvents is "*", a list "a,b,c" or one name; names may hold the
	// wildcards of a [Pattern] and compare without case. Empty matches none.
	UserEvents string
	// Handler gets the events.
	Handler EventHandler
}

// ListenerRule gives copies of the events it matches to a listener, which
// cannot answer. All that match are told, before the handler is asked.
// "connect" is never told.
type ListenerRule struct {
	// SystemEvents lists "connected", "disconnected", in any case.
	SystemEvents []string
	// UserEvents is "*" or a list of literal names that compare without case.
	UserEvents string
	// Listener is told. A match alone makes a user event succeed. It must not block.
	Listener func(context.Context, ListenedEvent)
}

// ListenedEvent is one of *ConnectedEvent, *DisconnectedEvent, *UserEvent.
type ListenedEvent any
