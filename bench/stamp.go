package main

import (
	"fmt"
	"hash/crc32"
)

// stamp is what a payload says about itself, in its first bytes as hexadecimal
// digits, so that the payload is text in every subprotocol. A checksum over all
// that precedes it ends the payload.
type stamp struct {
	k      uint64 // the message's number in the run
	stream uint32 // which sequence it belongs to: one publisher in one group
	seq    uint64 // its number in that sequence, from 0
	due    int64  // when it was due, in Unix nanoseconds
}

// minPayload is the smallest payload that has room for a stamp.
const minPayload = 16 + 8 + 16 + 16 + 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const hexDigits = "0123456789abcdef"

// put writes the stamp into p, whole: what is left between stamp and checksum
// is filled with letters that differ from message to message.
func (s stamp) put(p []byte) {
	putHex(p[0:16], s.k)
	putHex(p[16:24], uint64(s.stream))
	putHex(p[24:40], s.seq)
	putHex(p[40:56], uint64(s.due))
	body := p[: len(p)-8 : len(p)-8]
	for i := 56; i < len(body); i++ {
		body[i] = 'a' + byte((uint64(i)+s.k)%26)
	}
	putHex(p[len(p)-8:], uint64(crc32.Checksum(body, castagnoli)))
}

// readStamp checks p and returns its stamp.
func readStamp(p []byte) (stamp, error) {
	if len(p) < minPayload {
		return stamp{}, fmt.Errorf("a payload of %d bytes, at least %d expected", len(p), minPayload)
	}
	sum, ok := hex(p[len(p)-8:])
	if got := crc32.Checksum(p[:len(p)-8], castagnoli); !ok || uint64(got) != sum {
		return stamp{}, fmt.Errorf("a damaged payload %.80q", p)
	}
	var s stamp
	s.k, _ = hex(p[0:16]) // the checksum vouches for the digits
	stream, _ := hex(p[16:24])
	s.stream = uint32(stream)
	s.seq, _ = hex(p[24:40])
	due, _ := hex(p[40:56])
	s.due = int64(due)
	return s, nil
}

func putHex(dst []byte, v uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = hexDigits[v&15]
		v >>= 4
	}
}

// nibbles maps a lower-case hexadecimal digit to its value and all else to 255.
var nibbles = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i, c := range []byte(hexDigits) {
		t[c] = byte(i)
	}
	return t
}()

func hex(p []byte) (v uint64, ok bool) {
	var bad byte
	for _, c := range p {
		n := nibbles[c]
		bad |= n
		v = v<<4 | uint64(n&15)
	}
	return v, bad < 16
}
