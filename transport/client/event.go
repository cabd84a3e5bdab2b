package client

import "github.com/fanfare/fanfare/engine"

// Event is what [Client.Receive] returns: one of [Connected], [Message],
// [Disconnected], [Lost] and [RejoinFailed].
type Event interface{ event() }

// Connected says that the connection is open. It is the first event of a
// client with the JSON subprotocol, and comes again after each reconnection.
// Raw connections have no such event, since the server sends them none.
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
	// FromUserID is who published it; empty for a server, an anonymous client,
	// and on a raw connection.
	FromUserID string
	// Payload is the content: text as UTF-8, JSON as its author spelled it, and
	// binary data (or a serialized Any) with base64 already removed. On a raw
	// connection a text frame is Text and a binary one Binary. It belongs to
	// the receiver.
	Payload engine.Payload
	// Metadata is nil where there is none.
	Metadata map[string]string
}

// Disconnected is the server's word just before it ends the connection.
type Disconnected struct{ Text string }

// Lost says that the connection broke and that a new one is being made. What
// is published meanwhile is missed. It comes only with Options.Reconnect.
type Lost struct{ Err error }

// RejoinFailed says that a group which the client was in before the connection
// was lost could not be joined again. It comes only with Options.Reconnect.
type RejoinFailed struct {
	Group string
	Err   error
}

func (Connected) event()    {}
func (Message) event()      {}
func (Disconnected) event() {}
func (Lost) event()         {}
func (RejoinFailed) event() {}
