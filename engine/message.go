package engine

import (
	"sort"
	"time"
)

// DataType says what the bytes of a [Payload] are.
type DataType uint8

// The data types.
const (
	// Text is UTF-8 text.
	Text DataType = iota
	// JSON is one JSON text, kept exactly as its author spelled it.
	JSON
	// Binary is bytes.
	Binary
	// Protobuf is a serialized google.protobuf.Any.
	Protobuf
)

// String returns the wire's word for the type: "text", "json", "binary", "protobuf".
func (t DataType) String() string {
	return [...]string{"text", "json", "binary", "protobuf"}[t&3]
}

// Payload is what a message carries. Data must not change once it is handed over,
// and must be what Type says: doors validate what strangers send, but the
// engine, which knows no JSON, takes a Go program's word.
type Payload struct {
	Type DataType
	Data []byte
}

// Metadata is a message's key-value pairs. It must not change once handed over.
type Metadata map[string]string

// Keys returns the keys in order, so that encodings are reproducible.
func (m Metadata) Keys() []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// Kind says what a [Message] is.
type Kind uint8

// The kinds. An [Encoding] leaves out the kinds that its protocol lacks.
const (
	// KindData is a payload, from a group or from the server.
	KindData Kind = iota
	// KindAck answers a request: AckID, and Err where it failed.
	KindAck
	// KindConnected is the first message of a connection: ConnID, User, ReconnectionToken.
	KindConnected
	// KindDisconnected precedes an end that the server decided on: Text says why.
	KindDisconnected
	// KindPong answers the protocol's own ping.
	KindPong
	// KindWirePing asks the far end's wire for a sign of life.
	KindWirePing
	// KindWirePong answers a ping of the wire; Payload.Data echoes its bytes.
	KindWirePong
	// KindClose is the last message: CloseCode and Text.
	KindClose
	// KindControl is something only the connection's own protocol understands,
	// held in Attributes.
	KindControl
	// KindStreamAck tells a publisher that its stream has everything below
	// Stream.Seq.
	KindStreamAck
	// KindStreamNack tells a publisher that a part of its stream was not taken
	// (Stream.Err says why) and that Stream.Seq is expected. The stream goes on.
	KindStreamNack
	// KindStreamClosed tells a publisher that its stream is over; Stream.Err says
	// why, if not by its own wish.
	KindStreamClosed
	// KindStateSnapshot is the state of a whole group: Group and States.
	KindStateSnapshot
	// KindStateUpdate is what changed in a group's state: Group and States.
	KindStateUpdate
	// KindInvokeResponse answers an invocation: Invocation, and Err where it
	// failed; else Payload, whose Data is nil if there is none.
	KindInvokeResponse
)

// Numbered reports whether deliveries of the kind have sequence ids on a numbered
// connection.
func (k Kind) Numbered() bool {
	return k == KindData || k == KindStateSnapshot || k == KindStateUpdate
}

// Message is one thing that the engine hands to connections. It is immutable
// once it has been handed to the engine, and shared by all who receive it.
type Message struct {
	Kind Kind

	// Of KindData.

	// Group is the group it was published to; empty if the server sent it.
	Group GroupName
	// From is the user who published it; empty for a server or an anonymous client.
	From UserID
	// Sender is the connection that published it; empty for a server. Together
	// with NoEcho it leaves that connection out.
	Sender ConnID
	NoEcho bool
	// Payload is the content.
	Payload  Payload
	Metadata Metadata
	// Expires is when it is not worth delivering any more; zero for never.
	Expires time.Time
	// Attributes are a protocol's own, opaque to the engine (a quality of service, say). They
	// count in the bounds of queues by their Size, if they are [Sized].
	Attributes any
	// Stream says which part of which stream it is; nil for one that is whole.
	Stream *StreamPart

	// Of the other kinds.

	AckID             AckID
	Err               *Error
	ConnID            ConnID
	User              UserID
	ReconnectionToken string
	CloseCode         CloseCode
	Text              string
	// Reason is why the connection ends (KindClose), for protocols with words for that.
	Reason EndReason
	// Invocation is the client's name for what is answered.
	Invocation string
	States     []GroupState
}

// StreamPart says where in a group stream a message belongs, or what a publisher
// is told about its stream.
type StreamPart struct {
	// ID is the publisher's name for the stream, unique among its own.
	ID string
	// Seq is the part's number, 1 for the first; in what a publisher is told, the
	// number that is expected next.
	Seq uint64
	// End marks the last part, whose payload may be empty.
	End bool
	// Err says why the stream ended, or why a part was not taken; nil if all is well.
	Err *StreamError
}

// StreamError is what went wrong with a stream.
type StreamError struct {
	// Name is one of the StreamError names.
	Name string
	// Message is for people.
	Message string
	// UserCode is the publisher's own code (StreamUserError only).
	UserCode string
}

// The names of stream errors, those of Azure's client protocol.
const (
	StreamNotFound    = "StreamNotFound"
	StreamForbidden   = "Forbidden"
	StreamBadRequest  = "BadRequest"
	StreamInternal    = "InternalServerError"
	StreamIdleTimeout = "IdleTimeout"
	StreamCancelled   = "Cancelled"
	StreamUserError   = "UserError"
	StreamInvalidSeq  = "InvalidSequenceId"
	StreamTransient   = "TransientError"
)

// GroupState is what one connection has set in one group.
type GroupState struct {
	ConnID ConnID
	UserID UserID
	// State is nil once it has been cleared. It is immutable.
	State map[string]string
	// UpdatedAt rises from each of a connection's updates to the next, by a
	// millisecond at least.
	UpdatedAt time.Time
}

// size is what m counts for in the bounds of queues.
func (m *Message) size() int {
	n := len(m.Payload.Data) + len(m.Group) + len(m.From) + len(m.Text) + messageOverhead + mapSize(m.Metadata) + sizeOf(m.Attributes)
	for i := range m.States {
		n += stateOverhead + mapSize(m.States[i].State)
	}
	return n
}

// Sized is what opaque attributes implement that a stranger can make large. Size is
// about what they hold in memory, in bytes; it must not block.
type Sized interface{ Size() int }

// sizeOf is what attributes count for.
func sizeOf(attributes any) int {
	if s, ok := attributes.(Sized); ok {
		return s.Size()
	}
	return 0
}

// mapSize is what a map of strings counts for: tiny keys and values must not hide
// what it costs to keep them.
func mapSize(m map[string]string) int {
	n := 0
	for k, v := range m {
		n += len(k) + len(v) + mapOverhead
	}
	return n
}

// mapOverhead is the size of an entry without its bytes, in a map that is not full.
const mapOverhead = 64

// stateOverhead is the size of a GroupState and its ids.
const stateOverhead = 128

// messageOverhead is the size of a Message and of the entry that refers to it.
const messageOverhead = 256

// CloseCode says how a connection ended, in the numbers of RFC 6455 section
// 7.4.1, which doors that are not WebSocket translate into their own.
type CloseCode uint16

// The close codes in use.
const (
	CloseNormal        CloseCode = 1000
	CloseGoingAway     CloseCode = 1001
	CloseProtocolError CloseCode = 1002
	CloseUnsupported   CloseCode = 1003
	// CloseNoStatus stands for a goodbye without a code, which is CloseNormal said
	// shortly: a browser's close() and the official JavaScript client end so.
	CloseNoStatus CloseCode = 1005
	// CloseAbnormal is never sent: the wire was cut, by either side.
	CloseAbnormal      CloseCode = 1006
	CloseInvalidData   CloseCode = 1007
	ClosePolicy        CloseCode = 1008
	CloseTooLarge      CloseCode = 1009
	CloseInternalError CloseCode = 1011
)
