package subprotocol

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how many objects and arrays may stand inside one another, the
// message itself included. It is where the parser of the .NET clients and of
// Azure's emulator stops by default (System.Text.Json), so nothing deeper could
// reach all receivers anyway.
const maxDepth = 64

// scanner reads one JSON text (RFC 8259, strictly) in a single pass, in place and
// without allocating. The text must be valid UTF-8. Its methods stop at the first
// fault and leave it in fault, with i where it is.
type scanner struct {
	p     []byte
	i     int
	fault string
}

// span is where a value stands in the text, quotes and brackets included.
type span struct {
	from, to int  // to is 0 for a value that is not there
	escaped  bool // a string with at least one escape
}

func (v span) missing() bool { return v.to == 0 }

func (s *scanner) fail(fault string) bool {
	s.fault = fault
	return false
}

// peek returns the byte at i, and 0 at the end of the text. No JSON token
// contains a zero byte, so callers need not tell the two apart.
func (s *scanner) peek() byte {
	if s.i < len(s.p) {
		return s.p[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.p) {
		if c := s.p[s.i]; c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return
		}
		s.i++
	}
}

// end reports whether nothing but white space follows.
func (s *scanner) end() bool {
	if s.space(); s.i < len(s.p) {
		return s.fail("text after the end of the message")
	}
	return true
}

// value reads a value that lies inside depth objects and arrays.
func (s *scanner) value(depth int) (v span, ok bool) {
	s.space()
	v.from = s.i
	switch s.peek() {
	case '"':
		v.escaped, ok = s.str()
	case '{':
		ok = s.object(depth + 1)
	case '[':
		ok = s.array(depth + 1)
	case 't':
		ok = s.word("true")
	case 'f':
		ok = s.word("false")
	case 'n':
		ok = s.word("null")
	default:
		ok = s.number()
	}
	v.to = s.i
	return v, ok
}

func (s *scanner) object(depth int) bool {
	if !s.open(depth) {
		return false
	}
	for first := true; ; first = false {
		if _, more := s.member(first); !more {
			return s.fault == ""
		}
		if _, ok := s.value(depth); !ok {
			return false
		}
	}
}

func (s *scanner) array(depth int) bool {
	if !s.open(depth) {
		return false
	}
	if s.space(); s.peek() == ']' {
		s.i++
		return true
	}
	for {
		if _, ok := s.value(depth); !ok {
			return false
		}
		s.space()
		switch s.peek() {
		case ']':
			s.i++
			return true
		case ',':
			s.i++
		default:
			return s.fail("expected , or ] in an array")
		}
	}
}

// open steps over the bracket that opens the object or array number depth.
func (s *scanner) open(depth int) bool {
	if depth > maxDepth {
		return s.fail("objects and arrays nested deeper than 64")
	}
	s.i++
	return true
}

// member reads the name of an object's next member and its colon. more is false at
// the end of the object, and at a fault.
func (s *scanner) member(first bool) (name span, more bool) {
	s.space()
	switch c := s.peek(); {
	case c == '}':
		s.i++
		return name, false
	case first:
	case c == ',':
		s.i++
		s.space()
	default:
		return name, s.fail("expected , or } in an object")
	}
	if s.peek() != '"' {
		return name, s.fail("expected the name of a member")
	}
	name.from = s.i
	if name.escaped, more = s.str(); !more {
		return name, false
	}
	name.to = s.i
	if s.space(); s.peek() != ':' {
		return name, s.fail("expected : after the name of a member")
	}
	s.i++
	return name, true
}

// str reads the string whose quote is at i.
func (s *scanner) str() (escaped, ok bool) {
	s.i++
	for {
		s.i += plainRun(s.p[s.i:])
		switch c := s.peek(); {
		case c == '"':
			s.i++
			return escaped, true
		case c == '\\':
			if escaped = true; !s.escape() {
				return escaped, s.fail("bad escape in a string")
			}
		case s.i == len(s.p):
			return escaped, s.fail("unfinished string")
		default:
			return escaped, s.fail("control character in a string")
		}
	}
}

// escape reads the escape whose backslash is at i. It looks at syntax only:
// surrogates need not pair up.
func (s *scanner) escape() bool {
	s.i++
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i++
		return true
	case 'u':
		for k := 1; k <= 4; k++ {
			if s.i+k >= len(s.p) || hexDigit(s.p[s.i+k]) < 0 {
				return false
			}
		}
		s.i += 5
		return true
	}
	return false
}

func (s *scanner) word(w string) bool {
	if len(s.p)-s.i < len(w) || string(s.p[s.i:s.i+len(w)]) != w {
		return s.fail("expected a value")
	}
	s.i += len(w)
	return true
}

func (s *scanner) number() bool {
	start := s.i
	if s.peek() == '-' {
		s.i++
	}
	switch c := s.peek(); {
	case c == '0':
		s.i++
	case '1' <= c && c <= '9':
		s.digits()
	case s.i == start:
		return s.fail("expected a value")
	default:
		return s.fail("bad number")
	}
	if s.peek() == '.' {
		if s.i++; !s.digits() {
			return s.fail("bad number")
		}
	}
	if s.peek()|0x20 == 'e' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.fail("bad number")
		}
	}
	return true
}

// digits steps over digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.i
	for '0' <= s.peek() && s.peek() <= '9' {
		s.i++
	}
	return s.i > start
}

// plainRun returns how many bytes at the start of p stand for themselves in a JSON
// string: anything but quotes, backslashes and control characters. Eight bytes at
// a time: BenchmarkDecode with a payload of 1 KiB asked for it.
func plainRun(p []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(p); i += 8 {
		// A subtraction sets the top bit of each byte that it borrows into; &^
		// drops the bytes that had it before. A borrow can spill into the bytes
		// above, so only the lowest mark is sure, and only that is used.
		x := binary.LittleEndian.Uint64(p[i:])
		quote, slash := x^ones*'"', x^ones*'\\'
		if hit := ((x-ones*0x20)&^x | (quote-ones)&^quote | (slash-ones)&^slash) & tops; hit != 0 {
			return i + bits.TrailingZeros64(hit)/8
		}
	}
	for ; i < len(p); i++ {
		if c := p[i]; c < 0x20 || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// unquote appends what the inside of a scanned string stands for. A surrogate
// without its other half, which UTF-8 cannot hold, becomes U+FFFD, and lone is
// true.
func unquote(dst, inside []byte) (_ []byte, lone bool) {
	for i := 0; i < len(inside); {
		if n := plainRun(inside[i:]); n > 0 {
			dst = append(dst, inside[i:i+n]...)
			i += n
			continue
		}
		c := inside[i+1]
		if c != 'u' {
			dst = append(dst, unescaped(c))
			i += 2
			continue
		}
		r := hex4(inside[i+2:])
		i += 6
		if utf16.IsSurrogate(r) {
			low := rune(-1)
			if len(inside)-i >= 6 && inside[i] == '\\' && inside[i+1] == 'u' {
				low = hex4(inside[i+2:])
			}
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				lone = true
			} else {
				i += 6
			}
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, lone
}

func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

func hex4(p []byte) rune {
	return rune(hexDigit(p[0])<<12 | hexDigit(p[1])<<8 | hexDigit(p[2])<<4 | hexDigit(p[3]))
}

// hexDigit returns c's value, -1 for anything but a hexadecimal digit.
func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
