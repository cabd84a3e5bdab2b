package filter

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// op is what a node of the tree does.
type op uint8

const (
	opLiteral op = iota
	opUserID
	opConnectionID
	opProtocol
	opGroups
	opList        // the right side of in
	opCall        // text is the function's name
	opUnsupported // an identifier or literal of OData that filters do not have; text is it
	opArith       // an operator of OData that filters do not have; text is it
	opNot
	opIn
	opEq
	opNe
	opGt
	opGe
	opLt
	opLe
	opAnd
	opOr
)

// node is one part of a filter's tree. It does not change after parsing.
type node struct {
	op   op
	text string // the identifier, function or list as it was written
	lit  value  // of opLiteral
	fn   function
	kids []*node
	// set holds the items of a list of many strings, which would be slow to scan.
	set map[string]struct{}
}

// comparisons are the operators of one level of precedence.
var comparisons = map[string]op{"eq": opEq, "ne": opNe, "gt": opGt, "ge": opGe, "lt": opLt, "le": opLe}

// arithmetic are operators that OData knows and filters do not: they are parsed,
// so that the refusal can name them.
var arithmetic = map[string]bool{"add": true, "sub": true, "mul": true, "div": true, "mod": true, "has": true}

// tokenKind is what a token is.
type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokIdent
	tokNumber // starts with a digit, or a sign before one
	tokString
	tokPunct // one character of anything else
)

// token is one word of a filter's text.
type token struct {
	kind tokenKind
	text string // as written
	pos  int    // in bytes from the start of the filter
}

// parser is a recursive descent over a filter's text.
type parser struct {
	text  string
	pos   int // after tok
	tok   token
	depth int
}

func (p *parser) parse() (*node, error) {
	if err := p.next(); err != nil {
		return nil, err
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokEnd {
		return nil, p.unexpected("an operator or the end of the filter")
	}
	return n, nil
}

func (p *parser) fail(format string, args ...any) error {
	return &Error{Expr: p.text, Detail: fmt.Sprintf(format, args...)}
}

func (p *parser) unexpected(want string) error {
	return p.fail("Invalid token '%s'. Expected %s at position %d.", p.tok.text, want, p.tok.pos)
}

// next reads the token after the present one.
func (p *parser) next() error {
	for p.pos < len(p.text) {
		r, n := utf8.DecodeRuneInString(p.text[p.pos:])
		if !unicode.IsSpace(r) {
			break
		}
		p.pos += n
	}
	rest, start := p.text[p.pos:], p.pos
	if rest == "" {
		p.tok = token{tokEnd, "", start}
		return nil
	}
	var n int
	kind := tokPunct
	switch r, size := utf8.DecodeRuneInString(rest); {
	case r == '\'':
		if n = stringEnd(rest); n < 0 {
			return p.fail("Invalid token '%s'. The string that starts at position %d has no closing quote.", rest, start)
		}
		kind = tokString
	case isDigit(rest[0]), (r == '-' || r == '+') && len(rest) > 1 && isDigit(rest[1]):
		// Takes in whatever sticks to the digits, so that a date, a guid or a
		// number of another type is refused as one thing.
		n = 1
		for n < len(rest) && (isDigit(rest[n]) || isLetter(rest[n]) || strings.IndexByte(".:-_", rest[n]) >= 0) {
			n++
		}
		kind = tokNumber
	case identStart(r):
		n = size
		for n < len(rest) {
			r, size := utf8.DecodeRuneInString(rest[n:])
			if !identStart(r) && !unicode.IsDigit(r) && r != '.' {
				break
			}
			n += size
		}
		kind = tokIdent
	default:
		n = size
	}
	p.tok = token{kind, rest[:n], start}
	p.pos += n
	return nil
}

// stringEnd returns the length of the quoted string that s starts with, or -1.
func stringEnd(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			i++ // a doubled quote stands for one
			continue
		}
		return i + 1
	}
	return -1
}

func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isLetter(c byte) bool   { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func identStart(r rune) bool { return unicode.IsLetter(r) || r == '_' || r == '$' || r == '@' }

func (p *parser) word(w string) bool  { return p.tok.kind == tokIdent && p.tok.text == w }
func (p *parser) punct(c string) bool { return p.tok.kind == tokPunct && p.tok.text == c }

// deeper counts one level of nesting, until its result is called.
func (p *parser) deeper() (func(), error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, p.fail("The filter nests deeper than %d levels at position %d.", MaxDepth, p.tok.pos)
	}
	return func() { p.depth-- }, nil
}

// binary parses a run of operands of the next level, joined from the left.
func (p *parser) binary(operand func() (*node, error), operator func() (op, bool)) (*node, error) {
	left, err := operand()
	if err != nil {
		return nil, err
	}
	for {
		o, ok := operator()
		if !ok {
			return left, nil
		}
		word := p.tok.text
		if err := p.next(); err != nil {
			return nil, err
		}
		right, err := operand()
		if err != nil {
			return nil, err
		}
		left = &node{op: o, text: word, kids: []*node{left, right}}
	}
}

func (p *parser) or() (*node, error) {
	return p.binary(p.and, func() (op, bool) { return opOr, p.word("or") })
}

func (p *parser) and() (*node, error) {
	return p.binary(p.comparison, func() (op, bool) { return opAnd, p.word("and") })
}

func (p *parser) comparison() (*node, error) {
	return p.binary(p.arith, func() (op, bool) {
		o, ok := comparisons[p.tok.text]
		return o, ok && p.tok.kind == tokIdent
	})
}

func (p *parser) arith() (*node, error) {
	return p.binary(p.unary, func() (op, bool) { return opArith, p.tok.kind == tokIdent && arithmetic[p.tok.text] })
}

func (p *parser) unary() (*node, error) {
	negate := p.punct("-") || p.punct("+")
	if !negate && !p.word("not") {
		return p.in()
	}
	back, err := p.deeper()
	if err != nil {
		return nil, err
	}
	defer back()
	word := p.tok.text
	if err := p.next(); err != nil {
		return nil, err
	}
	kid, err := p.unary()
	if err != nil {
		return nil, err
	}
	if negate {
		return &node{op: opArith, text: word, kids: []*node{kid}}, nil
	}
	return &node{op: opNot, kids: []*node{kid}}, nil
}

func (p *parser) in() (*node, error) {
	left, err := p.primary()
	if err != nil {
		return nil, err
	}
	for p.word("in") {
		if err := p.next(); err != nil {
			return nil, err
		}
		var right *node
		if p.punct("(") {
			right, err = p.list()
		} else {
			right, err = p.primary()
		}
		if err != nil {
			return nil, err
		}
		left = &node{op: opIn, kids: []*node{left, right}}
	}
	return left, nil
}

// list parses what follows in, from its opening parenthesis on. An empty list
// holds nothing.
func (p *parser) list() (*node, error) {
	start := p.tok.pos
	kids, err := p.items()
	if err != nil {
		return nil, err
	}
	n := &node{op: opList, text: p.text[start : p.tok.pos+1], kids: kids}
	if len(kids) > 8 {
		n.set = stringSet(kids)
	}
	return n, p.next() // past the closing parenthesis
}

// stringSet returns the values of kids if all are literal strings, and else nil.
func stringSet(kids []*node) map[string]struct{} {
	set := make(map[string]struct{}, len(kids))
	for _, k := range kids {
		if k.op != opLiteral || k.lit.kind != kindString {
			return nil
		}
		set[k.lit.s] = struct{}{}
	}
	return set
}

// items parses expressions between commas, from the opening parenthesis up to
// the closing one, which it leaves as the present token.
func (p *parser) items() ([]*node, error) {
	back, err := p.deeper()
	if err != nil {
		return nil, err
	}
	defer back()
	if err := p.next(); err != nil {
		return nil, err
	}
	if p.punct(")") {
		return nil, nil
	}
	var kids []*node
	for {
		kid, err := p.or()
		if err != nil {
			return nil, err
		}
		kids = append(kids, kid)
		if p.punct(")") {
			return kids, nil
		}
		if !p.punct(",") {
			return nil, p.unexpected("a comma, an operator or a closing parenthesis")
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
}

func (p *parser) primary() (*node, error) {
	t := p.tok
	switch {
	case p.punct("("):
		back, err := p.deeper()
		if err != nil {
			return nil, err
		}
		defer back()
		if err := p.next(); err != nil {
			return nil, err
		}
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		if !p.punct(")") {
			return nil, p.unexpected("an operator or a closing parenthesis")
		}
		return n, p.next()
	case t.kind == tokString:
		s := strings.ReplaceAll(t.text[1:len(t.text)-1], "''", "'")
		return literal(value{kind: kindString, s: s}), p.next()
	case t.kind == tokNumber:
		i, err := strconv.ParseInt(t.text, 10, 32)
		if err != nil {
			return &node{op: opUnsupported, text: t.text}, p.next()
		}
		return literal(value{kind: kindInt, i: int(i)}), p.next()
	case t.kind == tokIdent:
		if err := p.next(); err != nil {
			return nil, err
		}
		return p.named(t.text)
	}
	return nil, p.unexpected("an operand")
}

// named parses what begins with an identifier, which is behind the parser.
func (p *parser) named(name string) (*node, error) {
	switch {
	case p.punct("("):
		kids, err := p.items()
		if err != nil {
			return nil, err
		}
		return &node{op: opCall, text: name, fn: functions[name], kids: kids}, p.next()
	case p.punct("/"):
		// A path, such as a lambda over groups. What follows is not parsed: no
		// path is supported, whatever it says.
		if err := p.next(); err != nil {
			return nil, err
		}
		return nil, p.fail("Token '%s/%s' is not supported.", name, p.tok.text)
	}
	switch name {
	case "null":
		return literal(value{kind: kindNull}), nil
	case "true", "false":
		return literal(value{kind: kindBool, b: name == "true"}), nil
	}
	for o, property := range properties {
		if strings.EqualFold(name, property) {
			return &node{op: o, text: name}, nil
		}
	}
	return &node{op: opUnsupported, text: name}, nil
}

func literal(v value) *node { return &node{op: opLiteral, lit: v} }

// properties are what a filter can ask about a connection.
var properties = map[op]string{
	opUserID: "userId", opConnectionID: "connectionId", opProtocol: "protocol", opGroups: "groups",
}
