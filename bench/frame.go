package main

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strconv"

	"github.com/gobwas/ws"
)

// appendHeader appends the header of a whole frame of n bytes, unmasked.
func appendHeader(b []byte, op ws.OpCode, n int) []byte {
	b = append(b, 0x80|byte(op))
	switch {
	case n < 126:
		return append(b, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
}

// appendMasked appends a client's frame.
func appendMasked(b []byte, op ws.OpCode, p []byte) []byte {
	at := len(b)
	b = appendHeader(b, op, len(p))
	b[at+1] |= 0x80
	var mask [4]byte
	binary.NativeEndian.PutUint32(mask[:], rand.Uint32())
	b = append(b, mask[:]...)
	at = len(b)
	b = append(b, p...)
	ws.Cipher(b[at:], mask, 0)
	return b
}

// frame is a server's frame as it lies in a read buffer.
type frame struct {
	op   ws.OpCode
	body []byte
}

// split takes the first whole frame off b; ok is false if b holds none yet. bad
// tells that what is there is not a frame that a server may send here: the load
// generator wants no fragments, masks or extensions.
func split(b []byte) (f frame, rest []byte, ok, bad bool) {
	if len(b) < 2 {
		return frame{}, b, false, false
	}
	if b[0]&0xf0 != 0x80 || b[1]&0x80 != 0 {
		return frame{}, b, false, true
	}
	n, at := uint64(b[1]), 2
	switch n {
	case 126:
		if len(b) < 4 {
			return frame{}, b, false, false
		}
		n, at = uint64(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		if len(b) < 10 {
			return frame{}, b, false, false
		}
		n, at = binary.BigEndian.Uint64(b[2:]), 10
	}
	if n > maxFrame {
		return frame{}, b, false, true
	}
	if uint64(len(b)-at) < n {
		return frame{}, b, false, false
	}
	end := at + int(n)
	return frame{op: ws.OpCode(b[0] & 15), body: b[at:end:end]}, b[end:], true, false
}

// maxFrame is more than any frame of a run: the largest payload in its envelope.
const maxFrame = 128 << 10

var (
	dataField  = []byte(`"data":"`)
	ackField   = []byte(`"ackId":`)
	ackType    = []byte(`"type":"ack"`)
	successful = []byte(`"success":true`)
	seqField   = []byte(`{"sequenceId":`)
)

// sequenceOf returns the sequence id of a delivery that begins with it, as a node's
// do, and what stands behind it.
func sequenceOf(body []byte) (seq uint64, rest []byte, ok bool) {
	if !bytes.HasPrefix(body, seqField) {
		return 0, nil, false
	}
	at := len(seqField)
	for ; at < len(body) && '0' <= body[at] && body[at] <= '9'; at++ {
		seq = seq*10 + uint64(body[at]-'0')
	}
	return seq, body[at:], at > len(seqField)
}

// payloadOf returns the payload of a group message, which is size bytes of
// text without escapes; nil if body is something else.
func payloadOf(body []byte, size int) []byte {
	// As a rule the data comes last.
	if at := len(body) - size - 2; at >= len(dataField) && string(body[at-len(dataField):at]) == string(dataField) {
		return body[at : at+size]
	}
	if at := bytes.Index(body, dataField); at >= 0 {
		if at += len(dataField); len(body) > at+size && body[at+size] == '"' {
			return body[at : at+size]
		}
	}
	return nil
}

// ackOf returns the id of an ack and whether it is one of success.
func ackOf(body []byte) (id uint64, success, ok bool) {
	if !bytes.Contains(body, ackType) {
		return 0, false, false
	}
	at := bytes.Index(body, ackField)
	if at < 0 {
		return 0, false, false
	}
	for _, c := range body[at+len(ackField):] {
		if c < '0' || c > '9' {
			break
		}
		id = id*10 + uint64(c-'0')
	}
	return id, bytes.Contains(body, successful), true
}

// appendEnvelope appends a group message as a node with the JSON subprotocol
// frames it, for the bare loop to write: header, envelope and payload.
func appendEnvelope(b []byte, payload []byte) []byte {
	const head = `{"type":"message","from":"group","group":"bench","fromUserId":"publisher","dataType":"text","data":"`
	b = appendHeader(b, ws.OpText, len(head)+len(payload)+2)
	b = append(b, head...)
	b = append(b, payload...)
	return append(b, `"}`...)
}

// appendPublish appends a client's sendToGroup frame.
func appendPublish(b, scratch []byte, group string, ackID uint64, acked, noEcho bool, payload []byte) (out, scratchOut []byte) {
	s := append(scratch[:0], `{"type":"sendToGroup","group":"`...)
	s = append(s, group...)
	s = append(s, '"')
	if acked {
		s = append(s, `,"ackId":`...)
		s = strconv.AppendUint(s, ackID, 10)
	}
	if noEcho {
		s = append(s, `,"noEcho":true`...)
	}
	s = append(s, `,"dataType":"text","data":"`...)
	s = append(s, payload...)
	s = append(s, `"}`...)
	return appendMasked(b, ws.OpText, s), s
}
