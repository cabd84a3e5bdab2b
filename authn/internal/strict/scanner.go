package strict

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep the values of a token's header and claims may nest.
const maxDepth = 16

// Kind is the type of a JSON value.
type Kind uint8

// The types of JSON values.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// Scanner reads JSON (RFC 8259) strictly and one value at a time. It exists
// because decoding a token's claims with encoding/json costs several times what
// proving an HMAC does, and a third of what proving an RSA signature does;
// BenchmarkVerify and BenchmarkAuthorize of the rooms that use it tell. Strings
// it returns share memory unless they hold escapes.
//
// Whether a member comes twice is for the caller to find, who keeps their names
// anyway.
type Scanner struct {
	// Err is what was wrong first; empty if nothing.
	Err string

	s      string
	i      int
	inside bool // Next has seen the opening brace
	plain  bool // see plain
}

// NewScanner returns a scanner of a copy of text. It reports false if text is
// not UTF-8.
func NewScanner(text []byte) (sc Scanner, ok bool) {
	easy := plain(text)
	if !easy && !utf8.Valid(text) {
		return sc, false
	}
	return Scanner{s: string(text), plain: easy}, true
}

// plain reports whether text is ASCII without backslashes and control
// characters, as most tokens are: then a string in it ends at the next quote.
// It looks at eight bytes at once.
func plain(text []byte) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	rest := text
	for ; len(rest) >= 8; rest = rest[8:] {
		x := binary.LittleEndian.Uint64(rest)
		// A byte of 0x80 or more has its top bit set; one below 0x20 gets it by
		// the subtraction, or else the one it borrowed from was below too.
		if (x|(x-ones*' ')&^x)&tops != 0 {
			return false
		}
	}
	for _, c := range rest {
		if c < ' ' || c >= utf8.RuneSelf {
			return false
		}
	}
	return bytes.IndexByte(text, '\\') < 0
}

// Fail takes note of what is wrong, if nothing was before. It returns false.
func (sc *Scanner) Fail(what string) bool {
	if sc.Err == "" {
		sc.Err = what
	}
	return false
}

// space skips blanks, of which compact JSON has none.
func (sc *Scanner) space() {
	if sc.i < len(sc.s) && sc.s[sc.i] <= ' ' {
		sc.blanks()
	}
}

func (sc *Scanner) blanks() {
	for sc.i < len(sc.s) {
		switch sc.s[sc.i] {
		case ' ', '\t', '\n', '\r':
			sc.i++
		default:
			return
		}
	}
}

// take skips blanks and then c, and reports whether it was there.
func (sc *Scanner) take(c byte) bool {
	sc.space()
	if sc.i < len(sc.s) && sc.s[sc.i] == c {
		sc.i++
		return true
	}
	return false
}

// Next reads the name of the next member of an object that is all of the text;
// the caller reads the value. It reports false at the end, and where something
// is wrong, which Err then says.
func (sc *Scanner) Next() (name string, ok bool) {
	switch {
	case sc.Err != "":
		return "", false
	case !sc.inside:
		if !sc.take('{') {
			return "", sc.Fail("it is not an object")
		}
		sc.inside = true
		if !sc.take('}') {
			return sc.name()
		}
	case !sc.take('}'):
		if !sc.take(',') {
			return "", sc.Fail("a comma or a closing brace is missing")
		}
		return sc.name()
	}
	if sc.space(); sc.i != len(sc.s) {
		sc.Fail("something follows the object")
	}
	return "", false
}

// name reads a member's name and the colon.
func (sc *Scanner) name() (string, bool) {
	sc.space()
	name, ok := sc.str()
	if ok && !sc.take(':') {
		ok = sc.Fail("a colon is missing")
	}
	return name, ok
}

// Peek returns the kind of the value that comes next. It reports false where none
// does.
func (sc *Scanner) Peek() (Kind, bool) {
	sc.space()
	if sc.i == len(sc.s) {
		return 0, sc.Fail("a value is missing")
	}
	switch c := sc.s[sc.i]; c {
	case '"':
		return String, true
	case '{':
		return Object, true
	case '[':
		return Array, true
	case 't', 'f':
		return Bool, true
	case 'n':
		return Null, true
	default:
		if c == '-' || '0' <= c && c <= '9' {
			return Number, true
		}
	}
	return 0, sc.Fail("a value is missing")
}

// Value reads any value, which stands in as many objects and arrays as depth
// says, and returns it as text: a string's content, and the JSON of anything
// else. It reports false where something is wrong.
func (sc *Scanner) Value(depth int) (string, Kind, bool) {
	k, ok := sc.Peek()
	if !ok {
		return "", k, false
	}
	start := sc.i
	switch k {
	case String:
		s, ok := sc.str()
		return s, k, ok
	case Number:
		ok = sc.number()
	case Bool, Null:
		ok = sc.word()
	default:
		ok = sc.nested(depth)
	}
	return sc.s[start:sc.i], k, ok
}

// Item goes to the next item of an array, or to the first one of the array that
// Peek saw; the caller reads the item. It reports false at the end, and where
// something is wrong.
func (sc *Scanner) Item(first bool) bool {
	if first {
		sc.i++
		return !sc.take(']')
	}
	switch {
	case sc.take(']'):
		return false
	case sc.take(','):
		return true
	}
	return sc.Fail("a comma or a closing bracket is missing")
}

func (sc *Scanner) word() bool {
	for _, w := range [...]string{"true", "false", "null"} {
		if strings.HasPrefix(sc.s[sc.i:], w) {
			sc.i += len(w)
			return true
		}
	}
	return sc.Fail("a value is misspelt")
}

// nested skips an array or object.
func (sc *Scanner) nested(depth int) bool {
	if depth >= maxDepth {
		return sc.Fail("it nests too deep")
	}
	closing, object := byte(']'), sc.s[sc.i] == '{'
	if object {
		closing = '}'
	}
	sc.i++
	if sc.take(closing) {
		return true
	}
	for {
		if object {
			if _, ok := sc.name(); !ok {
				return false
			}
		}
		if _, _, ok := sc.Value(depth + 1); !ok {
			return false
		}
		if sc.take(closing) {
			return true
		}
		if !sc.take(',') {
			return sc.Fail("a comma or a closing bracket is missing")
		}
	}
}

func (sc *Scanner) digits() bool {
	start := sc.i
	for sc.i < len(sc.s) && '0' <= sc.s[sc.i] && sc.s[sc.i] <= '9' {
		sc.i++
	}
	return sc.i > start
}

func (sc *Scanner) at(c byte) bool { return sc.i < len(sc.s) && sc.s[sc.i] == c }

func (sc *Scanner) number() bool {
	if sc.at('-') {
		sc.i++
	}
	zero := sc.at('0')
	start := sc.i
	if !sc.digits() || zero && sc.i > start+1 {
		return sc.Fail("a number is malformed")
	}
	if sc.at('.') {
		sc.i++
		if !sc.digits() {
			return sc.Fail("a number is malformed")
		}
	}
	if sc.at('e') || sc.at('E') {
		sc.i++
		if sc.at('+') || sc.at('-') {
			sc.i++
		}
		if !sc.digits() {
			return sc.Fail("a number is malformed")
		}
	}
	return true
}

// str reads a string.
func (sc *Scanner) str() (string, bool) {
	if !sc.at('"') {
		return "", sc.Fail("a string is missing")
	}
	sc.i++
	start := sc.i
	if sc.plain {
		n := strings.IndexByte(sc.s[start:], '"')
		if n < 0 {
			return "", sc.Fail("a string has no end")
		}
		sc.i += n + 1
		return sc.s[start : start+n], true
	}
	for i := start; i < len(sc.s); i++ {
		c := sc.s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		sc.i = i
		switch c {
		case '"':
			sc.i++
			return sc.s[start:i], true
		case '\\':
			return sc.escaped(start)
		}
		return "", sc.Fail("a string holds a control character")
	}
	return "", sc.Fail("a string has no end")
}

// escaped reads the rest of a string that holds an escape and began at start.
func (sc *Scanner) escaped(start int) (string, bool) {
	out := append(make([]byte, 0, 2*(sc.i-start)+32), sc.s[start:sc.i]...)
	for sc.i < len(sc.s) {
		c := sc.s[sc.i]
		sc.i++
		switch {
		case c == '"':
			return string(out), true
		case c < ' ':
			return "", sc.Fail("a string holds a control character")
		case c != '\\':
			out = append(out, c)
			continue
		}
		if sc.i == len(sc.s) {
			break
		}
		e := sc.s[sc.i]
		sc.i++
		switch e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := sc.hex4()
			if utf16.IsSurrogate(r) && sc.at('\\') && strings.HasPrefix(sc.s[sc.i:], `\u`) {
				sc.i += 2
				r = utf16.DecodeRune(r, sc.hex4())
				if r == utf8.RuneError {
					r = -1
				}
			}
			if r < 0 || utf16.IsSurrogate(r) {
				return "", sc.Fail("a string holds a malformed \\u escape")
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", sc.Fail("a string holds an unknown escape")
		}
	}
	return "", sc.Fail("a string has no end")
}

// hex4 reads four hexadecimal digits, and returns -1 if they are not there.
func (sc *Scanner) hex4() rune {
	if len(sc.s)-sc.i < 4 {
		return -1
	}
	var r rune
	for range 4 {
		c := sc.s[sc.i]
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return -1
		}
		sc.i++
	}
	return r
}
