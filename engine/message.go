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
)

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
	// Attributes are a protocol's own, opaque to the engine (an MQTT QoS, say).
	Attributes any

	// Of the other kinds.

	AckID             AckID
	Err               *Error
	ConnID            ConnID
	User              UserID
	ReconnectionToken string
	CloseCode         CloseCode
	Text              string
}

// size is what m counts for in the bounds of queues.
func (m *Message) size() int {
	n := len(m.Payload.Data) + len(m.Group) + len(m.From) + len(m.Text) + messageOverhead
	for k, v := range m.Metadata {
		n += len(k) + len(v)
	}
	return n
}

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
	// CloseAbnormal is never sent: the wire was cut, by either side.
	CloseAbnormal      CloseCode = 1006
	CloseInvalidData   CloseCode = 1007
	ClosePolicy        CloseCode = 1008
	CloseTooLarge      CloseCode = 1009
	CloseInternalError CloseCode = 1011
)
