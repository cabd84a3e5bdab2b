package subprotocol

import (
	"bytes"
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// JSON returns the codec of json.webpubsub.azure.v1: one JSON object per text
// message, without sequence ids.
func JSON() (Encoder, Decoder) { return jsonEncoder{}, jsonDecoder{} }

type jsonEncoder struct{}

var _ Encoder = jsonEncoder{}

func (jsonEncoder) Name() string { return NameJSON }

func (jsonEncoder) Frame(*engine.Message) Frame { return TextFrame }

func (jsonEncoder) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	n := len(dst)
	dst, ok := appendMembers(append(dst, '{'), m)
	if !ok {
		return dst[:n], false
	}
	return append(dst, '}'), true
}

func (jsonEncoder) AppendOwn(dst []byte, _ *engine.Message, _ engine.Own) []byte { return dst }

func (jsonEncoder) Own() bool { return false }

// appendMembers appends m's members without the braces around them. They stand in
// no order that matters, so that what is a connection's own can come first.
func appendMembers(dst []byte, m *engine.Message) ([]byte, bool) {
	switch m.Kind {
	case engine.KindData:
		return appendDataMembers(dst, m), true
	case engine.KindAck:
		return appendAckMembers(dst, m), true
	case engine.KindConnected:
		dst = append(dst, `"type":"system","event":"connected","userId":`...)
		dst = appendString(dst, m.User) // "" for anonymous
		dst = append(dst, `,"connectionId":`...)
		return appendString(dst, m.ConnID), true
	case engine.KindDisconnected:
		dst = append(dst, `"type":"system","event":"disconnected","message":`...)
		return appendString(dst, m.Text), true
	case engine.KindPong:
		return append(dst, `"type":"pong"`...), true
	case engine.KindStreamAck, engine.KindStreamNack, engine.KindStreamClosed:
		return appendStreamMembers(dst, m)
	case engine.KindStateSnapshot, engine.KindStateUpdate:
		return appendStateMembers(dst, m), true
	case engine.KindInvokeResponse:
		return appendInvokeMembers(dst, m), true
	}
	return dst, false
}

func appendDataMembers(dst []byte, m *engine.Message) []byte {
	if m.Group == "" {
		dst = append(dst, `"type":"message","from":"server"`...)
	} else {
		dst = append(dst, `"type":"message","from":"group","group":`...)
		dst = appendString(dst, m.Group)
		if m.From != "" {
			dst = append(dst, `,"fromUserId":`...)
			dst = appendString(dst, m.From)
		}
	}
	p, part := m.Payload, m.Stream
	if part != nil && part.End && len(p.Data) == 0 {
		// The official client drops whole what comes without a dataType that it knows,
		// and takes a null for a part. An empty text is the end alone.
		p.Type = engine.Text
	}
	dst = appendPayload(dst, p)
	dst = appendMetadata(dst, m.Metadata)
	if part != nil {
		dst = appendStreamPart(dst, part)
	}
	return dst
}

// appendPayload appends the members dataType and data, and the comma before them.
func appendPayload(dst []byte, p engine.Payload) []byte {
	data := p.Data
	switch p.Type {
	case engine.Text:
		dst = append(dst, `,"dataType":"text","data":`...)
		return appendString(dst, data)
	case engine.JSON:
		dst = append(dst, `,"dataType":"json","data":`...)
		if len(data) == 0 {
			data = []byte("null") // no JSON text; without one the envelope would not be JSON either
		}
		return appendUTF8(dst, data)
	default: // an Any travels like other bytes, under its own name
		dst = append(dst, `,"dataType":"`...)
		dst = append(dst, p.Type.String()...)
		dst = append(dst, `","data":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, data)
		return append(dst, '"')
	}
}

// appendMetadata appends the member metadata and the comma before it; nothing if
// there is no metadata.
func appendMetadata(dst []byte, m engine.Metadata) []byte {
	if len(m) == 0 {
		return dst
	}
	return appendPairs(append(dst, `,"metadata":`...), m)
}

// appendPairs appends an object of strings.
func appendPairs(dst []byte, pairs engine.Metadata) []byte {
	dst = append(dst, '{')
	for i, key := range pairs.Keys() {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, key)
		dst = appendString(append(dst, ':'), pairs[key])
	}
	return append(dst, '}')
}

// appendInvokeMembers always says whether it is a success: to clients a response
// that does not say so is a broken one.
func appendInvokeMembers(dst []byte, m *engine.Message) []byte {
	dst = appendString(append(dst, `"type":"invokeResponse","invocationId":`...), m.Invocation)
	dst = appendOutcome(dst, m.Err)
	if m.Err != nil {
		return dst
	}
	if m.Payload.Data != nil {
		dst = appendPayload(dst, m.Payload)
	}
	return appendMetadata(dst, m.Metadata)
}

func appendAckMembers(dst []byte, m *engine.Message) []byte {
	dst = append(dst, `"type":"ack","ackId":`...)
	dst = strconv.AppendUint(dst, uint64(m.AckID), 10)
	return appendOutcome(dst, m.Err)
}

// appendOutcome appends the members success and, for a failure, error, and the
// comma before them.
func appendOutcome(dst []byte, e *engine.Error) []byte {
	if e == nil {
		return append(dst, `,"success":true`...)
	}
	name, text := ackError(e)
	dst = append(dst, `,"success":false,"error":{"name":"`...)
	dst = append(dst, name...)
	dst = append(dst, `","message":`...)
	dst = appendString(dst, text)
	return append(dst, '}')
}

const (
	ackInternal = "InternalServerError"

	// ackInternalText is all that a client is told of a failure inside.
	ackInternalText = "Internal server error"
)

// ackNames are the names that acks give to errors. Clients know these few; what
// has no name among them gets the nearest.
var ackNames = [...]string{
	engine.CodeInternal:        ackInternal,
	engine.CodeInvalid:         "BadRequest",
	engine.CodeUnauthenticated: "Forbidden",
	engine.CodeForbidden:       "Forbidden",
	engine.CodeNotFound:        "NotFound",
	engine.CodeDuplicate:       "Duplicate",
	engine.CodeConflict:        "BadRequest",
	engine.CodeTooLarge:        "BadRequest",
	engine.CodeUnavailable:     ackInternal,
	engine.CodeUnsupported:     "BadRequest",
	engine.CodeClosed:          ackInternal,
	engine.CodeTimeout:         ackInternal,
}

// ackError returns the name and the text of an ack's error. An event handler's own
// refusal, which shows in Status, is an internal error to the client, whatever its
// code; its words stay inside, and so do those of our own failures.
func ackError(e *engine.Error) (name, text string) {
	if e.Status != 0 || int(e.Code) >= len(ackNames) || e.Code == engine.CodeInternal || e.Code == engine.CodeTimeout {
		return ackInternal, ackInternalText
	}
	if e.Message == "" {
		return ackNames[e.Code], e.Code.String()
	}
	return ackNames[e.Code], e.Message
}

// appendString appends s as a JSON string: escaped no more than RFC 8259 section 7
// asks for, with U+FFFD for what is not UTF-8. It copies first and looks then,
// since nearly every string is its own escaped form.
func appendString[S ~string | ~[]byte](dst []byte, s S) []byte {
	dst = append(dst, '"')
	n := len(dst)
	dst = append(dst, s...)
	copied := dst[n:]
	valid := utf8.Valid(copied)
	if valid && plainRun(copied) == len(copied) {
		return append(dst, '"')
	}
	k := len(dst)
	if !valid {
		copied = bytes.ToValidUTF8(copied, []byte("\uFFFD"))
	}
	dst = appendEscaped(dst, copied)
	dst = append(dst[:n], dst[k:]...) // close the gap that the copy leaves
	return append(dst, '"')
}

// appendEscaped appends s, which may lie in dst's memory below its end.
func appendEscaped(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	for {
		n := plainRun(s)
		dst = append(dst, s[:n]...)
		if n == len(s) {
			return dst
		}
		switch c := s[n]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
		}
		s = s[n+1:]
	}
}
