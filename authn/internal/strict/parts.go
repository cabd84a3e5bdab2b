// Package strict takes JSON Web Tokens apart in the one way that all readers
// agree on: base64url in its canonical spelling, and JSON as RFC 8259 has it, with
// nothing guessed and nothing mended. It proves nothing, and what it refuses it
// leaves to its callers to put into words.
package strict

import (
	"encoding/base64"
	"strings"
)

// Parts are those of a token in compact form (RFC 7515, section 7.1), encoded as
// they came.
type Parts struct {
	Signed                     string // header, dot and payload
	Header, Payload, Signature string
}

// Split returns the parts of a token, and how many there were between dots. Unless
// these are 3, the parts are empty.
func Split(text string) (p Parts, n int) {
	if n = strings.Count(text, ".") + 1; n != 3 {
		return p, n
	}
	first, last := strings.IndexByte(text, '.'), strings.LastIndexByte(text, '.')
	return Parts{text[:last], text[:first], text[first+1 : last], text[last+1:]}, n
}

// encoding refuses a text whose unused bits are not zero.
var encoding = base64.RawURLEncoding.Strict()

// EncodedLen returns the length of the encoding of n bytes.
func EncodedLen(n int) int { return encoding.EncodedLen(n) }

// Decode appends to dst the bytes of one part of a token, for which there is
// exactly one accepted spelling.
func Decode(dst []byte, part string) ([]byte, bool) {
	// The decoder would skip over line breaks.
	if strings.IndexByte(part, '\n') >= 0 || strings.IndexByte(part, '\r') >= 0 {
		return nil, false
	}
	out, err := encoding.AppendDecode(dst, []byte(part))
	return out, err == nil
}
