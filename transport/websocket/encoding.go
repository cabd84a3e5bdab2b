package websocket

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// encoding is a subprotocol in WebSocket frames, one frame a message. Connections
// whose encodings are equal share bytes, compressed ones too: each message is
// compressed by itself, without a context that would make it one connection's own.
type encoding struct {
	codec  subprotocol.Encoder
	window uint8 // bits of the window that messages are compressed with; 0 for not at all
}

var _ engine.Encoding = encoding{}

// AppendBody implements [engine.Encoding].
func (e encoding) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	switch m.Kind {
	case engine.KindWirePing, engine.KindWirePong:
		return append(dst, m.Payload.Data[:min(len(m.Payload.Data), maxControl)]...), true
	case engine.KindClose:
		if p, ok := e.codec.(Parting); ok {
			return appendParting(dst, p, m), true
		}
		return appendClose(dst, m.CloseCode, m.Text), true
	}
	if !e.compresses(m) {
		return e.codec.AppendBody(dst, m)
	}
	at := len(dst)
	dst, ok := e.codec.AppendBody(dst, m)
	if !ok {
		return dst, false
	}
	return deflate(dst, at, e.window), true
}

// AppendPrefix implements [engine.Encoding]: the frame's header, and what is the
// connection's own.
func (e encoding) AppendPrefix(dst []byte, m *engine.Message, own engine.Own, bodyLen int) []byte {
	switch m.Kind {
	case engine.KindWirePing:
		return appendHeader(dst, ws.OpPing, false, bodyLen)
	case engine.KindWirePong:
		return appendHeader(dst, ws.OpPong, false, bodyLen)
	case engine.KindClose:
		if _, ok := e.codec.(Parting); ok {
			return dst // the body is whole frames
		}
		return appendHeader(dst, ws.OpClose, false, bodyLen)
	}
	op := ws.OpText
	if e.codec.Frame(m) == subprotocol.BinaryFrame {
		op = ws.OpBinary
	}
	if !e.codec.Own() {
		return appendHeader(dst, op, e.compresses(m), bodyLen)
	}
	at := len(dst)
	dst = e.codec.AppendOwn(dst, m, own)
	mine := len(dst) - at
	if e.compresses(m) {
		// The own part precedes the shared, compressed body as blocks that are not
		// compressed: a deflate stream may be put together so at byte boundaries.
		dst = store(dst, at)
		mine = len(dst) - at
	}
	// The header, whose size depends on what follows, comes last and goes to the
	// front. Nothing is allocated for a delivery.
	var room [serverHeader]byte
	return slices.Insert(dst, at, appendHeader(room[:0], op, e.compresses(m), mine+bodyLen)...)
}

// Own implements [engine.Encoding].
func (e encoding) Own() bool { return e.codec.Own() }

// minCompressed is the payload from which compression is worth its header: below
// it, what is saved is less than what it costs both ends.
const minCompressed = 256

// compresses decides by the message alone, so that header and body agree.
func (e encoding) compresses(m *engine.Message) bool {
	return e.window != 0 && m.Kind == engine.KindData && len(m.Payload.Data) >= minCompressed
}

// maxControl is the most that a control frame may carry (RFC 6455 section 5.5).
const maxControl = 125

// serverHeader is the longest header of a frame that is not masked.
const serverHeader = 10

// appendHeader appends the header of an unmasked, final frame.
func appendHeader(dst []byte, op ws.OpCode, compressed bool, length int) []byte {
	first := 0x80 | byte(op)
	if compressed {
		first |= 0x40
	}
	switch {
	case length < 126:
		return append(dst, first, byte(length))
	case length <= 0xffff:
		return append(dst, first, 126, byte(length>>8), byte(length))
	default:
		return binary.BigEndian.AppendUint64(append(dst, first, 127), uint64(length))
	}
}

// appendClose appends the payload of a close frame. A code that must not travel,
// such as the one that stands for a client's close frame without a status, makes
// it an empty one.
func appendClose(dst []byte, code engine.CloseCode, text string) []byte {
	if !sendable(code) {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	if len(text) > maxControl-2 {
		cut := maxControl - 2
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	if !utf8.ValidString(text) {
		return dst
	}
	return append(dst, text...)
}
