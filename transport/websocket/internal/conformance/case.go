package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// The opcodes of RFC 6455 section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// The close codes that cases are about (RFC 6455 section 7.4.1).
const (
	codeNormal      = 1000
	codeProtocol    = 1002
	codeInvalidData = 1007
)

// Case is one conversation of a client with a server.
type Case struct {
	ID    string
	About string

	// Steps are what the client does, in order.
	Steps []Step
	// Want is what comes back.
	Want []Event
	// Less is what may come back instead, which is non-strict; nil for nothing else.
	Less []Event
	// End is how the connection ends.
	End End

	// Offer is the value of Sec-WebSocket-Extensions; empty for none. The server must
	// accept it.
	Offer string
	// Rounds follow the steps.
	Rounds *Rounds
	// Informational cases are OK whatever comes back.
	Informational bool
}

// Step is one thing that the client does: it sends frames, or it waits.
type Step struct {
	// Frames are sent: at once, in pieces of Chop bytes, or each in a write of its own.
	Frames []Frame
	Chop   int
	Apart  bool
	// Raw is sent as it is, behind the frames.
	Raw []byte

	// Await waits until so many events have come.
	Await int
	// Quiet waits for a moment in which the server must not give up.
	Quiet bool
	// FailFast waits for the server to give up. If it does not, the case goes on and
	// is non-strict.
	FailFast bool
}

// Frame is one frame of a client.
type Frame struct {
	Op       byte
	More     bool // FIN is not set
	RSV      byte // the three reserved bits
	Payload  []byte
	Unmasked bool
	Length   int // what the header states, if not len(Payload)
	Form     int // bytes of the extended length, if not the fewest: 2 or 8
}

// mask is the key of all frames. Which one it is makes no difference to a server.
var mask = [4]byte{0x5a, 0x93, 0xe1, 0x2c}

// append appends the frame as it travels.
func (f *Frame) append(dst []byte) []byte {
	first := f.Op | f.RSV<<4
	if !f.More {
		first |= 0x80
	}
	masked := byte(0x80)
	if f.Unmasked {
		masked = 0
	}
	length := len(f.Payload)
	if f.Length != 0 {
		length = f.Length
	}
	switch {
	case f.Form == 8 || f.Form == 0 && length > 0xffff:
		dst = binary.BigEndian.AppendUint64(append(dst, first, masked|127), uint64(length))
	case f.Form == 2 || f.Form == 0 && length > 125:
		dst = binary.BigEndian.AppendUint16(append(dst, first, masked|126), uint16(length))
	default:
		dst = append(dst, first, masked|byte(length))
	}
	if f.Unmasked {
		return append(dst, f.Payload...)
	}
	at := len(dst) + 4
	dst = append(append(dst, mask[:]...), f.Payload...)
	xor(dst[at:])
	return dst
}

// xor masks p.
func xor(p []byte) {
	key := uint64(binary.LittleEndian.Uint32(mask[:]))
	key |= key << 32
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^key)
	}
	for i := range p {
		p[i] ^= mask[i%4]
	}
}

// EventKind is what has come from the server.
type EventKind string

// The kinds of events.
const (
	Text   EventKind = "text"
	Binary EventKind = "binary"
	Ping   EventKind = "ping"
	Pong   EventKind = "pong"
)

// Event is a message or a control frame of the server.
type Event struct {
	Kind    EventKind
	Payload []byte
}

// String shows the event in short.
func (e Event) String() string {
	if len(e.Payload) > 40 {
		return fmt.Sprintf("%s of %d bytes, %.20q...", e.Kind, len(e.Payload), e.Payload)
	}
	return fmt.Sprintf("%s %q", e.Kind, e.Payload)
}

func (e Event) equal(o Event) bool { return e.Kind == o.Kind && bytes.Equal(e.Payload, o.Payload) }

// End is how a connection ends.
type End struct {
	// ByClient says that the client closes: with its steps, or with 1000 once all
	// that it wants has come. Otherwise the server does.
	ByClient bool
	// Codes are the statuses that the server's close frame may have. It may always
	// have none.
	Codes []int
	// Clean says that the server must send a close frame.
	Clean bool
}

// Rounds are messages of which each is sent when the one before has come back.
type Rounds struct {
	Count int
	// Data is what messages are cut from, each of Size characters; the next one
	// begins where the last one ended.
	Data *Data
	Size int
	// Fragment is the most bytes of a frame; 0 for one frame a message.
	Fragment int
}
