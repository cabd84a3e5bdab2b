package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// ErrClosed is what a client that was closed by its own program returns.
var ErrClosed = errors.New("client: closed")

// ErrNotConnected is what a request returns while the connection is lost and a
// new one is being made.
var ErrNotConnected = errors.New("client: not connected, reconnecting")

// HandshakeError is a server's refusal to upgrade.
type HandshakeError struct {
	// Status is the HTTP status.
	Status int
	// Body is the text of the answer, cut after 4 KiB.
	Body string
}

// Error returns the status and the text on one line.
func (e *HandshakeError) Error() string {
	s := fmt.Sprintf("client: the server refused the connection with status %d", e.Status)
	if b := strings.Join(strings.Fields(e.Body), " "); b != "" {
		s += ": " + b
	}
	return s
}

// AckError is a server's refusal of one request. The connection stays open.
type AckError struct {
	// Name is the kind of refusal: "Forbidden", "InternalServerError", ...
	// "Duplicate" is none: it says that the request has been carried out.
	Name string
	// Message is the server's explanation.
	Message string
	// AckID is the request's number.
	AckID uint64
}

// Error returns the name and the message.
func (e *AckError) Error() string {
	return fmt.Sprintf("client: the server refused request %d: %s: %s", e.AckID, e.Name, e.Message)
}

// InvocationError is a server's refusal of an invocation, or its handler's failure.
type InvocationError struct {
	// Name is the kind of failure: "InternalServerError", ...
	Name string
	// Message is the server's explanation.
	Message string
}

// Error returns the name and the message.
func (e *InvocationError) Error() string {
	return fmt.Sprintf("client: the invocation failed: %s: %s", e.Name, e.Message)
}

// StreamError is why the server closed a stream that this client publishes.
type StreamError struct {
	// Name is the kind of failure: "Forbidden", "IdleTimeout", "StreamNotFound", ...
	Name string
	// Message is the server's explanation.
	Message string
}

// Error returns the name and the message.
func (e *StreamError) Error() string {
	return fmt.Sprintf("client: the server closed the stream: %s: %s", e.Name, e.Message)
}

// RecoveryError says that a connection could not be recovered: what was sent to it
// since it was lost is missed. It unwraps to both of its errors.
type RecoveryError struct {
	// Lost is why the wire was lost.
	Lost error
	// Err is what became of the last attempt: a [*CloseError] with
	// [engine.ClosePolicy] if the server has given the connection up.
	Err error
}

// Error returns both reasons.
func (e *RecoveryError) Error() string {
	return fmt.Sprintf("client: the connection was not recovered: %v; it had been lost: %v", e.Err, e.Lost)
}

// Unwrap returns both reasons.
func (e *RecoveryError) Unwrap() []error { return []error{e.Lost, e.Err} }

// CloseError is the end of a connection by a close frame (RFC 6455 section
// 5.5.1): the server's, or the one with which this client answered a breach of
// the protocol.
type CloseError struct {
	Code engine.CloseCode
	// Reason is the close frame's text, at most 123 bytes.
	Reason string
	// ByClient tells that the client found the breach and ended the connection.
	ByClient bool

	detail error // what the breach was, where Reason does not say it
}

// Error returns the code and the reason.
func (e *CloseError) Error() string {
	who := "the server"
	if e.ByClient {
		who = "this client"
	}
	s := fmt.Sprintf("client: %s closed the connection with code %d", who, e.Code)
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.detail != nil {
		s += ": " + e.detail.Error()
	}
	return s
}

// Unwrap returns what the breach was, if it is known.
func (e *CloseError) Unwrap() error { return e.detail }
