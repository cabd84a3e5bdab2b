package subprotocol

import (
	"fmt"

	"github.com/fanfare/fanfare/engine"
)

// Frame says how a door carries a message: in WebSocket as a text or a binary
// frame; stream doors have a flag for it.
type Frame uint8

// The frames.
const (
	// TextFrame carries UTF-8.
	TextFrame Frame = iota
	// BinaryFrame carries any bytes.
	BinaryFrame
)

// String returns "text" or "binary".
func (f Frame) String() string {
	if f == TextFrame {
		return "text"
	}
	return "binary"
}

// Encoder is the outgoing half of a subprotocol. Values are comparable, and
// connections whose encoders are equal share bytes. All methods may be called
// concurrently, keep nothing and are deterministic.
type Encoder interface {
	// Name returns the subprotocol's name on the wire, "" for raw.
	Name() string
	// Frame says how m travels. It means nothing for a message that AppendBody
	// does not send.
	Frame(m *engine.Message) Frame
	// AppendBody appends the part of m that all connections with this encoder
	// share, without any framing. It reports false, with dst unchanged, for a
	// message that this protocol does not send; a reported body may be empty.
	AppendBody(dst []byte, m *engine.Message) ([]byte, bool)
	// AppendOwn appends the connection's own part, which stands between the
	// frame's header and the body. It appends nothing where Own is false.
	AppendOwn(dst []byte, m *engine.Message, own engine.Own) []byte
	// Own reports whether connections have a part of their own.
	Own() bool
}

// Decoder is the incoming half of a subprotocol, one value per kind of
// connection. Decode may be called concurrently.
type Decoder interface {
	// Decode parses one whole message, which arrived as f. It keeps nothing of
	// p and checks that text is UTF-8, so its caller need not. An error is
	// always a [*RefusedError].
	Decode(f Frame, p []byte) (Inbound, error)
}

// InboundKind says what an [Inbound] is.
type InboundKind uint8

// The kinds of client message.
const (
	// InRequest is a request for the engine, in Inbound.Request.
	InRequest InboundKind = iota + 1
	// InPing asks for an [engine.KindPong].
	InPing
	// InSequenceAck acknowledges deliveries up to Inbound.Sequence. A connection
	// without sequence ids ignores it.
	InSequenceAck
	// InCancel cancels the invocation that Inbound.Invocation names.
	InCancel
)

// Inbound is one client message.
type Inbound struct {
	Kind InboundKind
	// Request is set for InRequest, newly made and the caller's to hand on. One with
	// Request.Refused set is well formed, and fails without ending its connection.
	Request *engine.Request
	// Sequence is set for InSequenceAck.
	Sequence engine.SequenceID
	// Invocation is the client's name for an invocation. Set for InCancel, and for
	// an InRequest of OpEvent whose outcome is to be told by a
	// [engine.KindInvokeResponse].
	Invocation string
}

// RefusedError is a client message that ends its connection.
type RefusedError struct {
	// Code and Reason are for the close frame. Reason is a fixed text of the
	// protocol, short enough for a WebSocket close frame.
	Code   engine.CloseCode
	Reason string
	// Detail says what was wrong and where, for the log. It quotes names and
	// never a payload.
	Detail string
}

// Error returns the detail and the close code.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("subprotocol: %s (close %d)", e.Detail, e.Code)
}

// The names of Azure's subprotocols.
const (
	NameJSON             = "json.webpubsub.azure.v1"
	NameReliableJSON     = "json.reliable.webpubsub.azure.v1"
	NameProtobuf         = "protobuf.webpubsub.azure.v1"
	NameReliableProtobuf = "protobuf.reliable.webpubsub.azure.v1"
)

// Protocol is one of Azure's subprotocols. It is shared and must not be changed.
type Protocol struct {
	// Name is Azure's spelling.
	Name string
	// Reliable says that deliveries have sequence ids, and that a client can have
	// its connection back on a new wire.
	Reliable bool
	Encoder  Encoder
	Decoder  Decoder
}

// protocols are all of them.
var protocols = [...]*Protocol{
	{NameJSON, false, jsonEncoder{}, jsonDecoder{}},
	{NameReliableJSON, true, reliableJSONEncoder{}, jsonDecoder{}},
	{NameProtobuf, false, protobufEncoder{}, protobufDecoder{}},
	{NameReliableProtobuf, true, protobufEncoder{reliable: true}, protobufDecoder{}},
}

// Find returns the subprotocol that a client offered as name, without regard to
// case. A name that is none of Azure's is a custom protocol, carried raw where an
// event handler chooses it.
func Find(name string) (*Protocol, bool) {
	for _, p := range protocols {
		if equalFold(name, p.Name) {
			return p, true
		}
	}
	return nil, false
}

// equalFold compares without regard to the case of ASCII letters. It does not use
// the standard library's folding, which takes U+212A for a k.
func equalFold[S ~string | ~[]byte](s S, want string) bool {
	if len(s) != len(want) {
		return false
	}
	for i := range len(want) {
		if lower(s[i]) != lower(want[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}
