package websocket

import (
	"encoding/binary"
	"math"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
)

// receiver is told what a reader makes of a client's bytes. p is valid during the
// call alone and may be changed. Each method reports whether it wants more.
type receiver interface {
	// message is called for each whole data message; op is OpText or OpBinary.
	// Text is UTF-8 as far as the reader looked at it: messages that arrived
	// whole are left to the receiver.
	message(op ws.OpCode, compressed bool, p []byte) (more bool)
	// control is called for each control frame, also between the fragments of a
	// message.
	control(op ws.OpCode, p []byte) (more bool)
	// refuse is called once for a message that is too large or not UTF-8. The
	// frames are in order, so the reader goes on, without data messages, for the
	// client's close frame.
	refuse(err *frameError)
}

// frameError is a frame that breaks RFC 6455, or a bound. It ends the connection.
type frameError struct {
	code   engine.CloseCode
	reason string // for the close frame
	detail string // for the log
}

func invalidFrame(detail string) *frameError {
	return &frameError{engine.CloseProtocolError, transport.ReasonInvalidFrame, detail}
}

const reasonNotUTF8 = "The client message is not valid UTF-8 text."

var (
	errReserved   = invalidFrame("reserved bits are set without an extension that means them")
	errOpcode     = invalidFrame("the opcode is reserved")
	errUnmasked   = invalidFrame("a client's frame is not masked")
	errControl    = invalidFrame("a control frame is fragmented or longer than 125 bytes")
	errContinued  = invalidFrame("a continuation frame without a message to continue")
	errInterleave = invalidFrame("a new message before the last fragment of the one before")
	errLength     = invalidFrame("a length that is not written in the fewest bytes, or too long to exist")
	errNotUTF8    = &frameError{engine.CloseInvalidData, reasonNotUTF8, "a text message is not UTF-8"}
	errTooLarge   = &frameError{engine.CloseTooLarge, transport.ReasonTooLarge, "the message is longer than the limit"}
)

// reader makes frames and messages of a client's bytes as they come in (RFC 6455
// section 5). It is the server's end: it wants frames masked.
//
// Between messages it holds nothing but its settings. While one is incomplete it
// holds what has arrived of it, never room for what was announced.
type reader struct {
	part    *partial
	limit   int32 // of a message, over all its fragments
	deflate bool  // permessage-deflate was negotiated
	mute    bool  // refuse was called: data is discarded
	bare    uint8 // frames without data that feed came across: control frames and empty ones

	state clientState // of the client, which would need 8 bytes for it
}

func newReader(limit int, a agreement) reader {
	return reader{limit: int32(min(limit, math.MaxInt32)), deflate: a.server != 0}
}

// partial is a message, or a frame, that has not arrived whole.
type partial struct {
	header [maxHeader]byte // of the frame under way, as far as it has arrived
	have   int             // how much of it; 0 between frames

	in   bool // inside the payload of the frame that head describes
	head header
	done int // bytes of that payload that have arrived

	message    ws.OpCode // of the message under way; OpContinuation for none
	compressed bool
	data       []byte // of the message
	valid      int    // bytes of data that are known to be UTF-8
	ctl        []byte // of a control frame that has not arrived whole

	held *engine.Unfinished // nil until the end of the turn in which it began

	// Of discard alone.
	skip    uint64 // bytes of the frame's payload that have not arrived
	closing bool   // the frame is a close frame
}

// maxHeader is the length of the longest header of a masked frame.
const maxHeader = 2 + 8 + 4

// header is a frame's header.
type header struct {
	fin        bool
	compressed bool
	op         ws.OpCode
	mask       [4]byte
	length     int
}

// room returns the most bytes that the frames of one message may have. The limit is
// for what a message says, which deflate may make longer: by an eighth with fixed
// codes, and by a header for each block and flush.
func (r *reader) room(compressed bool) int {
	limit := int64(r.limit)
	if compressed {
		limit += limit/8 + limit/64 + 1024
	}
	return int(min(limit, math.MaxInt))
}

// framesPerTurn is how many frames a client gets handled before others have their
// turn: with small ones, one read brings thousands.
const framesPerTurn = 64

// feed reads b and reports how much of it was taken: all, unless it holds more than
// framesPerTurn frames, or the receiver wanted no more, or the client broke a rule.
// Then what was begun of a header, and what was not taken, are for [reader.discard].
func (r *reader) feed(b []byte, to receiver) (n int, more bool, err *frameError) {
	r.bare = 0
	for frames := 0; n < len(b) && frames < framesPerTurn; frames++ {
		if r.part == nil {
			took, more, err := r.whole(b[n:], to)
			n += took
			if err != nil || !more {
				return n, more, err
			}
			if took > 0 {
				continue
			}
			r.part = &partial{}
		}
		took, more, err := r.piece(b[n:], to)
		n += took
		if err != nil || !more {
			return n, more, err
		}
	}
	return n, true, nil
}

// whole takes one frame from the beginning of b if it is there whole and is a
// message of its own or a control frame; otherwise nothing.
func (r *reader) whole(b []byte, to receiver) (n int, more bool, err *frameError) {
	h, size, err := parseHeader(b, r.deflate)
	if err == nil && size > 0 {
		err = check(h, ws.OpContinuation)
	}
	switch {
	case err != nil:
		return 0, false, err
	case size == 0 || !h.fin || len(b)-size < h.length:
		return 0, true, nil
	}
	p := b[size : size+h.length]
	n, more = size+h.length, true
	r.count(h)
	switch {
	case h.op.IsControl():
		ws.Cipher(p, h.mask, 0)
		more = to.control(h.op, p)
	case h.length > r.room(h.compressed):
		r.refuse(errTooLarge, to)
	case !r.mute:
		ws.Cipher(p, h.mask, 0)
		more = to.message(h.op, h.compressed, p)
	}
	return n, more, nil
}

// piece takes the next part of what is incomplete: the rest of a header, or of a
// payload, as far as b goes.
func (r *reader) piece(b []byte, to receiver) (n int, more bool, err *frameError) {
	p := r.part
	if !p.in {
		n = copy(p.header[p.have:], b)
		h, size, err := parseHeader(p.header[:p.have+n], r.deflate)
		if err == nil && size > 0 {
			err = check(h, p.message)
		}
		if err != nil {
			return 0, false, err
		}
		if size == 0 {
			p.have += n
			return n, true, nil
		}
		n, p.have = size-p.have, 0
		p.head, p.done, p.in = h, 0, true
		r.count(h)
		if !h.op.IsControl() && h.op != ws.OpContinuation {
			p.message, p.compressed = h.op, h.compressed
		}
		if !h.op.IsControl() && h.length > r.room(p.compressed)-len(p.data) {
			r.refuse(errTooLarge, to)
		}
		b = b[n:]
	}
	b = b[:min(len(b), p.head.length-p.done)]
	ws.Cipher(b, p.head.mask, p.done)
	p.done += len(b)
	n += len(b)
	if p.head.op.IsControl() {
		p.ctl = append(p.ctl, b...)
	} else if !r.mute && !p.append(b) {
		r.refuse(errNotUTF8, to)
	}
	if p.done < p.head.length {
		return n, true, nil
	}
	p.in = false
	switch {
	case p.head.op.IsControl():
		ctl := p.ctl
		p.ctl = nil
		if p.message == ws.OpContinuation {
			r.part = nil
		}
		return n, to.control(p.head.op, ctl), nil
	case !p.head.fin:
		return n, true, nil
	}
	r.part = nil
	if p.message == ws.OpText && !p.compressed && p.valid < len(p.data) {
		r.refuse(errNotUTF8, to) // it ends inside a character
	}
	if r.mute {
		return n, true, nil
	}
	return n, to.message(p.message, p.compressed, p.data), nil
}

// count notes a frame that carries no data. An empty one that ends a message is as
// good as one that has some: an empty message is a message.
func (r *reader) count(h header) {
	if h.op.IsControl() || h.length == 0 && !h.fin {
		r.bare++
	}
}

// refuse gives up on what the client says. What is under way is let go.
func (r *reader) refuse(err *frameError, to receiver) {
	if r.mute {
		return
	}
	r.mute = true
	if r.part != nil {
		r.part.data, r.part.valid = nil, 0
	}
	to.refuse(err)
}

// begun returns what has arrived of a header that is not complete.
func (r *reader) begun() []byte {
	if r.part == nil {
		return nil
	}
	return r.part.header[:r.part.have]
}

// discard reads what comes after the end of the conversation, of which only the
// client's close frame means anything, and reports whether that has arrived. It
// finds frames by the lengths that their headers state, also those of frames that
// break other rules. A client whose bytes are not frames is read until it is gone.
func (r *reader) discard(b []byte) (closed bool) {
	if r.part == nil {
		r.part = &partial{}
	}
	p := r.part
	if p.in { // of the message that was under way
		p.skip, p.closing = uint64(p.head.length-p.done), p.head.op == ws.OpClose
		p.in = false
	}
	p.data, p.ctl = nil, nil
	for len(b) > 0 {
		if p.skip == 0 {
			n := copy(p.header[p.have:], b)
			size, length := extent(p.header[:p.have+n])
			if size == 0 {
				p.have += n
				return false
			}
			b = b[size-p.have:]
			p.have, p.skip, p.closing = 0, length, ws.OpCode(p.header[0]&0x0f) == ws.OpClose
		}
		n := min(p.skip, uint64(len(b)))
		p.skip -= n
		b = b[n:]
		if p.skip == 0 && p.closing {
			return true
		}
	}
	return false
}

// extent returns the size of the frame's header at the beginning of b, 0 if b is too
// short, and the length that it states, whatever else it says.
func extent(b []byte) (size int, length uint64) {
	if len(b) < 2 {
		return 0, 0
	}
	size, length = 2, uint64(b[1]&0x7f)
	switch length {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	mask := 0
	if b[1]&0x80 != 0 {
		mask = 4
	}
	switch {
	case len(b) < size+mask:
		return 0, 0
	case length == 126:
		length = uint64(binary.BigEndian.Uint16(b[2:]))
	case length == 127:
		length = binary.BigEndian.Uint64(b[2:])
	}
	if length > math.MaxInt64 {
		length = 0 // RFC 6455 section 5.2: there is no such payload
	}
	return size + mask, length
}

// append adds b to the message. It reports false for text that can no longer
// become UTF-8, at once and not when the message is complete.
func (p *partial) append(b []byte) bool {
	p.data = append(p.data, b...)
	if p.message != ws.OpText || p.compressed {
		return true
	}
	rest := p.data[p.valid:]
	if utf8.Valid(rest) {
		p.valid = len(p.data)
		return true
	}
	for len(rest) > 0 {
		c, size := utf8.DecodeRune(rest)
		if c == utf8.RuneError && size <= 1 {
			return !utf8.FullRune(rest) // the rest of the character may follow
		}
		rest = rest[size:]
		p.valid += size
	}
	return true
}

// check applies the rules that depend on what came before: message is the one
// under way.
func check(h header, message ws.OpCode) *frameError {
	switch {
	case h.op.IsControl():
		return nil
	case h.op == ws.OpContinuation && message == ws.OpContinuation:
		return errContinued
	case h.op != ws.OpContinuation && message != ws.OpContinuation:
		return errInterleave
	}
	return nil
}

// parseHeader reads the header of a client's frame at the beginning of b and
// returns its size, 0 if b is too short. It refuses as soon as there is reason to.
func parseHeader(b []byte, deflate bool) (h header, size int, err *frameError) {
	if len(b) < 2 {
		return h, 0, nil
	}
	h.fin, h.op = b[0]&0x80 != 0, ws.OpCode(b[0]&0x0f)
	length := b[1] & 0x7f
	switch {
	case h.op.IsReserved():
		return h, 0, errOpcode
	case b[0]&0x30 != 0:
		return h, 0, errReserved
	case b[0]&0x40 != 0:
		// Per-message compression, on the first frame of a message alone (RFC
		// 7692 section 6).
		if !deflate || h.op.IsControl() || h.op == ws.OpContinuation {
			return h, 0, errReserved
		}
		h.compressed = true
	}
	switch {
	case b[1]&0x80 == 0:
		return h, 0, errUnmasked
	case h.op.IsControl() && (!h.fin || length > 125):
		return h, 0, errControl
	}
	at := 2
	switch length {
	case 126:
		if at += 2; len(b) < at {
			return h, 0, nil
		}
		if h.length = int(binary.BigEndian.Uint16(b[2:])); h.length < 126 {
			return h, 0, errLength
		}
	case 127:
		if at += 8; len(b) < at {
			return h, 0, nil
		}
		long := binary.BigEndian.Uint64(b[2:])
		if long <= 0xffff || long > maxInt {
			return h, 0, errLength
		}
		h.length = int(long)
	default:
		h.length = int(length)
	}
	if len(b) < at+4 {
		return h, 0, nil
	}
	copy(h.mask[:], b[at:])
	return h, at + 4, nil
}

const maxInt = uint64(math.MaxInt)

// parseClose reads the payload of a close frame (RFC 6455 sections 5.5.1, 7.4).
// Without a status it is [noStatus].
func parseClose(p []byte) (code engine.CloseCode, text string, err *frameError) {
	switch {
	case len(p) == 0:
		return noStatus, "", nil
	case len(p) == 1:
		return 0, "", invalidFrame("a close frame with half a status")
	}
	code = engine.CloseCode(binary.BigEndian.Uint16(p))
	if !sendable(code) {
		return 0, "", invalidFrame("a close frame with a status that must not be sent")
	}
	if !utf8.Valid(p[2:]) {
		return 0, "", &frameError{engine.CloseInvalidData, reasonNotUTF8, "the reason of a close frame is not UTF-8"}
	}
	return code, string(p[2:]), nil
}

// noStatus stands for a close frame without a status. It never travels.
const noStatus engine.CloseCode = 1005

// sendable reports whether a close frame may hold code: those of RFC 6455 and of
// the IANA registry that are meant for it, and the ranges left to libraries and
// applications.
func sendable(code engine.CloseCode) bool {
	return code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 && code <= 4999
}
