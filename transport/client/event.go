package client

import "github.com/fanfare/fanfare/engine"

// Event is what [Client.Receive] returns: one of [Connected], [Message],
// [GroupState], [Disconnected], [Recovered], [Lost] and [RejoinFailed].
type Event interface{ event() }

// Connected says that the connection is open. It is the first event of a
// client with a subprotocol of this package, and comes again after each
// reconnection, but not when a connection was recovered. Raw connections have no
// such event, since the server sends them none.
type Connected struct {
	ConnectionID string
	// UserID is empty for a client without one.
	UserID string
}

// Message is data from a group or from the server.
type Message struct {
	// Group is the group it was published to; empty for a message that the
	// server (a REST call, an event handler's reply) addressed to this
	// connection, user or hub. Always empty on a raw connection.
	Group string
	// FromUserID is who published it; empty for a server, an anonymous client, on
	// a raw connection, and with the protobuf subprotocols, which do not tell.
	FromUserID string
	// Payload is the content: text as UTF-8, JSON as its author spelled it, and
	// binary data (or a serialized Any) with base64 already removed. On a raw
	// connection a text frame is Text and a binary one Binary. It belongs to
	// the receiver.
	Payload engine.Payload
	// Metadata is nil where there is none.
	Metadata map[string]string
	// Stream says which part of which group stream it is; nil for a message that
	// is whole. Stream.End marks the last part, whose payload may be empty, and
	// Stream.Err says why the stream ended, if not well.
	Stream *engine.StreamPart
}

// GroupState is the state that connections have set in a group which this client
// watches ([Client.WatchGroupState]).
type GroupState struct {
	Group string
	// Snapshot says that States are all there is in the group, in place of what was
	// known before. Otherwise they are what has changed.
	Snapshot bool
	// States are one for each connection; State is nil where it was cleared.
	States []engine.GroupState
}

// Disconnected is the server's word just before it ends the connection.
type Disconnected struct{ Text string }

// Recovered says that the connection, whose wire was lost, is back on a new one:
// nothing was missed, nothing comes twice. It comes before what was sent meanwhile.
type Recovered struct {
	// Err is why the wire was lost.
	Err error
}

// Lost says that the connection broke and that a new one is being made. What
// is published meanwhile is missed. It comes only with Options.Reconnect.
type Lost struct {
	// Err is a [*RecoveryError] where the connection could have been recovered.
	Err error
}

// RejoinFailed says that a group which the client was in before the connection
// was lost could not be joined again, or that the state of one could not be watched
// again. It comes only with Options.Reconnect.
type RejoinFailed struct {
	Group string
	// Watch tells that it is about the group's state.
	Watch bool
	Err   error
}

func (Connected) event()    {}
func (Message) event()      {}
func (GroupState) event()   {}
func (Disconnected) event() {}
func (Recovered) event()    {}
func (Lost) event()         {}
func (RejoinFailed) event() {}
