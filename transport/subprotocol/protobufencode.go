package subprotocol

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fanfare/fanfare/engine"
)

// Protobuf returns the codec of protobuf.webpubsub.azure.v1: one UpstreamMessage
// or DownstreamMessage (proto/azure/webpubsub/v1) per binary message, without
// sequence ids.
func Protobuf() (Encoder, Decoder) { return protobufEncoder{}, protobufDecoder{} }

// ReliableProtobuf returns the codec of protobuf.reliable.webpubsub.azure.v1: as
// [Protobuf], with sequence ids and a reconnection token.
func ReliableProtobuf() (Encoder, Decoder) {
	return protobufEncoder{reliable: true}, protobufDecoder{}
}

// protobufEncoder writes DownstreamMessages by hand: delivery to many needs
// neither reflection nor a message in between. TestProtobufEncode holds it to the
// generated types.
//
// A numbered message is a head, its field number in DownstreamMessage and its
// size, and then its fields. Between the two stands the sequence id of a reliable
// connection, which makes head and sequence id the connection's own part.
type protobufEncoder struct{ reliable bool }

var _ Encoder = protobufEncoder{}

func (e protobufEncoder) Name() string {
	if e.reliable {
		return NameReliableProtobuf
	}
	return NameProtobuf
}

func (protobufEncoder) Frame(*engine.Message) Frame { return BinaryFrame }

func (e protobufEncoder) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	if !m.Kind.Numbered() {
		return e.appendUnnumbered(dst, m)
	}
	if !e.reliable {
		dst = appendHead(dst, m, 0)
	}
	if m.Kind == engine.KindData {
		return appendDataFields(dst, m), true
	}
	return appendStatesFields(dst, m), true
}

func (e protobufEncoder) AppendOwn(dst []byte, m *engine.Message, own engine.Own) []byte {
	if !e.reliable || !m.Kind.Numbered() {
		return dst
	}
	return appendHead(dst, m, own.Seq)
}

func (e protobufEncoder) Own() bool { return e.reliable }

// appendHead appends what precedes the fields of a numbered message, and the
// sequence id unless it is 0. It is called for every delivery: what it looks at
// is the sizes of things, never the bytes of a payload.
func appendHead(dst []byte, m *engine.Message, seq engine.SequenceID) []byte {
	var num, seqNum protowire.Number
	var size int
	switch m.Kind {
	case engine.KindStateSnapshot:
		num, seqNum, size = 10, 3, statesSize(m)
	case engine.KindStateUpdate:
		num, seqNum, size = 9, 3, statesSize(m)
	default:
		num, seqNum, size = 2, 4, dataSize(m)
	}
	dst = appendSize(dst, num, size+uintSize(uint64(seq)))
	return appendUintField(dst, seqNum, uint64(seq))
}

const (
	fromGroup  = "group"
	fromServer = "server"
)

func dataSize(m *engine.Message) int {
	n := fieldSize(len(fromServer))
	if m.Group != "" {
		n = fieldSize(len(fromGroup)) + fieldSize(len(m.Group))
	}
	n += fieldSize(payloadSize(&m.Payload)) + pairsSize(m.Metadata)
	if m.Stream != nil {
		n += fieldSize(streamSize(m.Stream))
	}
	return n
}

func appendDataFields(dst []byte, m *engine.Message) []byte {
	if m.Group == "" {
		dst = appendTextField(dst, 1, fromServer)
	} else {
		dst = appendTextField(dst, 1, fromGroup)
		dst = appendTextField(dst, 2, m.Group)
	}
	dst = appendPayloadField(dst, 3, &m.Payload)
	dst = appendPairsField(dst, 5, m.Metadata)
	if s := m.Stream; s != nil {
		dst = appendSize(dst, 6, streamSize(s))
		dst = appendTextField(dst, 1, s.ID)
		dst = appendUintField(dst, 2, s.Seq)
		dst = appendBoolField(dst, 3, s.End)
		if s.Err != nil {
			dst = appendSize(dst, 4, streamErrorSize(s.Err))
			dst = appendTextField(dst, 1, s.Err.Name)
			dst = appendTextField(dst, 2, s.Err.Message)
			dst = appendTextField(dst, 3, s.Err.UserCode)
		}
	}
	return dst
}

func streamSize(s *engine.StreamPart) int {
	n := textSize(s.ID) + uintSize(s.Seq)
	if s.End {
		n += uintSize(1)
	}
	if s.Err != nil {
		n += fieldSize(streamErrorSize(s.Err))
	}
	return n
}

func streamErrorSize(e *engine.StreamError) int {
	return textSize(e.Name) + textSize(e.Message) + textSize(e.UserCode)
}

func statesSize(m *engine.Message) int {
	n := textSize(m.Group)
	for i := range m.States {
		n += fieldSize(stateSize(&m.States[i]))
	}
	return n
}

func stateSize(s *engine.GroupState) int {
	n := textSize(s.ConnID) + textSize(s.UserID) + uintSize(uint64(s.UpdatedAt.UnixMilli()))
	if s.State != nil {
		n += fieldSize(pairsSize(s.State))
	}
	return n
}

func appendStatesFields(dst []byte, m *engine.Message) []byte {
	dst = appendTextField(dst, 1, m.Group)
	for i := range m.States {
		s := &m.States[i]
		dst = appendSize(dst, 2, stateSize(s))
		dst = appendTextField(dst, 1, s.ConnID)
		dst = appendTextField(dst, 2, s.UserID)
		if s.State != nil { // an empty state is not a cleared one
			dst = appendSize(dst, 3, pairsSize(s.State))
			dst = appendPairsField(dst, 1, s.State)
		}
		dst = appendUintField(dst, 4, uint64(s.UpdatedAt.UnixMilli()))
	}
	return dst
}

// appendUnnumbered appends a message of a kind that has no sequence id.
func (e protobufEncoder) appendUnnumbered(dst []byte, m *engine.Message) ([]byte, bool) {
	var at, inner int
	switch m.Kind {
	case engine.KindAck:
		dst, at = openMessage(dst, 1)
		dst = appendUintField(dst, 1, uint64(m.AckID))
		dst = appendBoolField(dst, 2, m.Err == nil)
		dst = appendErrorField(dst, 3, m.Err)
	case engine.KindConnected:
		dst, at = openMessage(dst, 3)
		dst, inner = openMessage(dst, 1)
		dst = appendTextField(dst, 1, m.ConnID)
		dst = appendTextField(dst, 2, m.User) // "" for anonymous
		if e.reliable {
			dst = appendTextField(dst, 3, m.ReconnectionToken)
		}
		dst = closeMessage(dst, inner)
	case engine.KindDisconnected:
		dst, at = openMessage(dst, 3)
		dst, inner = openMessage(dst, 2)
		dst = appendTextField(dst, 2, m.Text)
		dst = closeMessage(dst, inner)
	case engine.KindPong:
		dst, at = openMessage(dst, 4)
	case engine.KindInvokeResponse:
		dst, at = openMessage(dst, 5)
		dst = appendTextField(dst, 1, m.Invocation)
		dst = appendBoolField(dst, 2, m.Err == nil)
		if m.Err == nil && m.Payload.Data != nil {
			dst = appendPayloadField(dst, 3, &m.Payload)
		}
		dst = appendErrorField(dst, 4, m.Err)
		dst = appendPairsField(dst, 5, m.Metadata)
	case engine.KindStreamAck, engine.KindStreamNack, engine.KindStreamClosed:
		if m.Stream == nil {
			return dst, false // it names no stream
		}
		return appendStreamNews(dst, m.Kind, m.Stream), true
	default:
		return dst, false
	}
	return closeMessage(dst, at), true
}

// appendStreamNews appends what a publisher is told about its stream.
func appendStreamNews(dst []byte, kind engine.Kind, s *engine.StreamPart) []byte {
	var at int
	switch kind {
	case engine.KindStreamAck:
		dst, at = openMessage(dst, 6)
		dst = appendTextField(dst, 1, s.ID)
		dst = appendUintField(dst, 2, s.Seq)
	case engine.KindStreamNack:
		dst, at = openMessage(dst, 7)
		dst = appendTextField(dst, 1, s.ID)
		if s.Err != nil {
			dst = appendTextField(dst, 2, s.Err.Name)
			dst = appendTextField(dst, 3, s.Err.Message)
		}
		dst = appendUintField(dst, 4, s.Seq)
	default:
		dst, at = openMessage(dst, 8)
		dst = appendTextField(dst, 1, s.ID)
		if s.Err != nil {
			dst = appendNameAndText(dst, 2, s.Err.Name, s.Err.Message)
		}
	}
	return closeMessage(dst, at)
}

func appendErrorField(dst []byte, num protowire.Number, e *engine.Error) []byte {
	if e == nil {
		return dst
	}
	name, text := ackError(e)
	return appendNameAndText(dst, num, name, text)
}

// appendNameAndText appends a field that holds an Error.
func appendNameAndText(dst []byte, num protowire.Number, name, text string) []byte {
	dst, at := openMessage(dst, num)
	dst = appendTextField(dst, 1, name)
	dst = appendTextField(dst, 2, text)
	return closeMessage(dst, at)
}

// payloadData returns what stands in a MessageData for p.
func payloadData(p *engine.Payload) []byte {
	if p.Type == engine.JSON && len(p.Data) == 0 {
		return []byte("null") // no JSON text; this is what JSON clients get, too
	}
	return p.Data
}

func payloadSize(p *engine.Payload) int { return fieldSize(len(payloadData(p))) }

// appendPayloadField appends a field that holds p as a MessageData. Empty text and
// empty bytes are written: which case is set is the data's type.
func appendPayloadField(dst []byte, num protowire.Number, p *engine.Payload) []byte {
	dst = appendSize(dst, num, payloadSize(p))
	data := payloadData(p)
	switch {
	case p.Type == engine.Text:
		dst = appendSize(dst, 1, len(data))
		return appendMended(dst, data)
	case p.Type == engine.JSON:
		dst = appendSize(dst, 4, len(data))
		return appendMended(dst, data)
	case p.Type == engine.Protobuf && checkAny(fieldsOf("Any", data)) == nil:
		dst = appendSize(dst, 3, len(data))
	default:
		// An Any that is none would make the whole message unreadable.
		dst = appendSize(dst, 2, len(data))
	}
	return append(dst, data...)
}

func pairsSize(pairs map[string]string) int {
	n := 0
	for k, v := range pairs {
		n += fieldSize(fieldSize(len(k)) + fieldSize(len(v)))
	}
	return n
}

// appendPairsField appends a map's entries in the order of their keys.
func appendPairsField(dst []byte, num protowire.Number, pairs map[string]string) []byte {
	if len(pairs) == 0 {
		return dst
	}
	for _, k := range engine.Metadata(pairs).Keys() {
		v := pairs[k]
		dst = appendSize(dst, num, fieldSize(len(k))+fieldSize(len(v)))
		dst = appendMended(appendSize(dst, 1, len(k)), k)
		dst = appendMended(appendSize(dst, 2, len(v)), v)
	}
	return dst
}

// All field numbers of a DownstreamMessage fit into a tag of one byte.
const tagSize = 1

// fieldSize is the size of a field that holds n bytes.
func fieldSize(n int) int { return tagSize + protowire.SizeBytes(n) }

// appendSize appends the beginning of a field that holds n bytes.
func appendSize(dst []byte, num protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.BytesType), uint64(n))
}

// A text, number or truth that is "", 0 or false is not written: that is what a
// missing field means. Where presence means more, there is nothing to say.

func textSize[S ~string](s S) int {
	if s == "" {
		return 0
	}
	return fieldSize(len(s))
}

func appendTextField[S ~string](dst []byte, num protowire.Number, s S) []byte {
	if s == "" {
		return dst
	}
	return appendMended(appendSize(dst, num, len(s)), s)
}

func uintSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return tagSize + protowire.SizeVarint(v)
}

func appendUintField(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

func appendBoolField(dst []byte, num protowire.Number, v bool) []byte {
	return appendUintField(dst, num, protowire.EncodeBool(v))
}

// openMessage begins a field that holds a message of unknown size, which ends with
// closeMessage.
func openMessage(dst []byte, num protowire.Number) (_ []byte, at int) {
	dst = append(protowire.AppendTag(dst, num, protowire.BytesType), 0)
	return dst, len(dst)
}

func closeMessage(dst []byte, at int) []byte {
	n := len(dst) - at
	if more := protowire.SizeVarint(uint64(n)) - 1; more > 0 { // than the byte that was kept for it
		dst = append(dst, make([]byte, more)...)
		copy(dst[at+more:], dst[at:at+n])
	}
	protowire.AppendVarint(dst[:at-1], uint64(n))
	return dst
}

// appendMended appends s with a question mark for each byte that is not UTF-8,
// which no reader would take as a string. That changes no size, so a size is
// known without a look at the bytes.
func appendMended[S ~string | ~[]byte](dst []byte, s S) []byte {
	i := len(dst)
	dst = append(dst, s...)
	if utf8.Valid(dst[i:]) {
		return dst
	}
	for i < len(dst) {
		r, size := utf8.DecodeRune(dst[i:])
		if r == utf8.RuneError && size == 1 {
			dst[i] = '?'
		}
		i += size
	}
	return dst
}
