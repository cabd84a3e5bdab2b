package filter

import (
	"strings"
	"unicode/utf8"
)

// kind is a value's type.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindString
	kindCollection // the subject's groups
	kindFailed     // a mistake: the whole filter does not match
)

// String returns the word that errors use.
func (k kind) String() string {
	return [...]string{"null", "bool", "int", "string", "collection", "failed"}[k]
}

// value is what a part of a filter comes to.
type value struct {
	kind kind
	b    bool
	// null marks a string that is null. A property without a value is one: it
	// keeps its type, while functions of null give the null that has none.
	null bool
	i    int
	s    string
}

var failed = value{kind: kindFailed}

func boolean(b bool) value   { return value{kind: kindBool, b: b} }
func text(s string) value    { return value{kind: kindString, s: s} }
func (v value) isNull() bool { return v.kind == kindNull || v.null }

// property returns the string s, which is null if empty.
func property(s string) value { return value{kind: kindString, s: s, null: s == ""} }

// checker collects the mistake that the check at parse time finds. During a
// match there is none, and mistakes only make the result a failure.
type checker struct {
	raw    string
	detail string
	expr   string
	placed bool // expr is set
}

// check evaluates the filter for a connection that has nothing.
func check(root *node, raw string) error {
	c := checker{raw: raw}
	if v := root.eval(&Subject{}, &c); v.kind != kindFailed {
		c.want(root, v, kindBool)
	}
	switch {
	case c.detail == "":
		return nil
	case !c.placed:
		c.expr = raw
	}
	return &Error{Expr: c.expr, Detail: c.detail}
}

// want reports whether v is of kind k, and otherwise notes the mistake, at n.
func (c *checker) want(n *node, v value, k kind) bool {
	if v.kind == k {
		return true
	}
	if c != nil {
		c.detail = "Type '" + v.kind.String() + "', expect '" + k.String() + "'."
		c.place(n)
	}
	return false
}

// invalid notes that n itself makes no sense.
func (c *checker) invalid(n *node, what string) value {
	if c != nil {
		c.detail = "Invalid token '" + what + "'."
		c.place(n)
	}
	return failed
}

// unsupported notes that what is beyond the language. Where that is, the
// nearest operator or function around it says; not and parentheses stay silent.
func (c *checker) unsupported(what string) value {
	if c != nil {
		c.detail = "Token '" + what + "' is not supported."
	}
	return failed
}

// place says that the mistake is at n, unless a part of n already claimed it.
func (c *checker) place(n *node) {
	if c == nil || c.placed {
		return
	}
	c.expr, c.placed = render(n), true
}

// eval returns what n comes to for s.
func (n *node) eval(s *Subject, c *checker) value {
	switch n.op {
	case opLiteral:
		return n.lit
	case opUserID:
		return property(s.UserID)
	case opConnectionID:
		return text(s.ConnectionID)
	case opProtocol:
		return property(s.Protocol)
	case opGroups:
		return value{kind: kindCollection}
	case opUnsupported:
		return c.unsupported(n.text)
	case opNot:
		v := n.kids[0].eval(s, c)
		if v.kind == kindFailed || !c.want(n, v, kindBool) {
			return failed
		}
		return boolean(!v.b)
	case opArith:
		return n.arith(s, c)
	case opCall:
		v := n.call(s, c)
		if v.kind == kindFailed {
			c.place(n)
		}
		return v
	case opIn:
		v := n.in(s, c)
		if v.kind == kindFailed {
			c.place(n)
		}
		return v
	}
	left := n.kids[0].eval(s, c)
	if left.kind == kindFailed {
		c.place(n)
		return failed
	}
	right := n.kids[1].eval(s, c)
	if right.kind == kindFailed {
		c.place(n)
		return failed
	}
	switch n.op {
	case opEq:
		return boolean(equal(left, right))
	case opNe:
		return boolean(!equal(left, right))
	case opAnd, opOr:
		if !c.want(n, left, kindBool) || !c.want(n, right, kindBool) {
			return failed
		}
		if n.op == opAnd {
			return boolean(left.b && right.b)
		}
		return boolean(left.b || right.b)
	}
	if left.kind == kindNull || right.kind == kindNull {
		return boolean(false)
	}
	if !c.want(n, left, kindInt) || !c.want(n, right, kindInt) {
		return failed
	}
	switch n.op {
	case opGt:
		return boolean(left.i > right.i)
	case opGe:
		return boolean(left.i >= right.i)
	case opLt:
		return boolean(left.i < right.i)
	}
	return boolean(left.i <= right.i)
}

// arith refuses an operator that filters do not have, after any mistake in its
// operands. The service cannot print such an expression and quotes the filter.
func (n *node) arith(s *Subject, c *checker) value {
	for _, k := range n.kids {
		if k.eval(s, c).kind == kindFailed {
			break
		}
	}
	if c != nil && c.detail == "" {
		c.unsupported(n.text)
	}
	if c != nil && !c.placed {
		c.expr, c.placed = c.raw, true
	}
	return failed
}

// equal compares any two values; those of different types differ.
func equal(a, b value) bool {
	if a.isNull() || b.isNull() {
		return a.isNull() && b.isNull()
	}
	return a.kind == b.kind && a.b == b.b && a.i == b.i && a.s == b.s
}

// in evaluates membership, in the subject's groups or in a list.
func (n *node) in(s *Subject, c *checker) value {
	left, right := n.kids[0].eval(s, c), n.kids[1]
	if left.kind == kindFailed {
		return failed
	}
	if right.op == opList {
		return right.holds(left, s, c)
	}
	switch v := right.eval(s, c); v.kind {
	case kindFailed:
		return failed
	case kindCollection:
		return boolean(left.kind == kindString && !left.null && s.Groups != nil && s.Groups.Has(left.s))
	case kindString:
		// The service takes a string here for the text of a list.
		return c.invalid(n, v.s)
	default:
		c.want(n, v, kindString)
		return failed
	}
}

// holds reports whether the list n holds v. The check looks at every item, to
// find all mistakes; a match stops where v is found.
func (n *node) holds(v value, s *Subject, c *checker) value {
	if n.set != nil {
		_, ok := n.set[v.s]
		return boolean(ok && v.kind == kindString && !v.null)
	}
	found := false
	for _, k := range n.kids {
		item := k.eval(s, c)
		if item.kind == kindFailed {
			return failed
		}
		if found = found || equal(v, item); found && c == nil {
			break
		}
	}
	return boolean(found)
}

// function is one of the language's functions: how many arguments it takes, and
// what it does with them.
type function struct {
	min, max int
	do       func(n *node, s *Subject, c *checker, args [3]value) value
}

// functions are all there are. Their names are case-sensitive.
var functions = map[string]function{
	"length":     {1, 1, length},
	"tolower":    {1, 1, transform(strings.ToLower)},
	"toupper":    {1, 1, transform(strings.ToUpper)},
	"trim":       {1, 1, transform(strings.TrimSpace)},
	"contains":   {2, 2, predicate(strings.Contains)},
	"startswith": {2, 2, predicate(strings.HasPrefix)},
	"endswith":   {2, 2, predicate(strings.HasSuffix)},
	"indexof":    {2, 2, indexOf},
	"concat":     {2, 2, concat},
	"substring":  {2, 3, substring},
}

func (n *node) call(s *Subject, c *checker) value {
	if n.fn.do == nil {
		if c != nil {
			return c.unsupported(render(n))
		}
		return failed
	}
	if len(n.kids) < n.fn.min || len(n.kids) > n.fn.max {
		if c != nil {
			return c.invalid(n, render(n))
		}
		return failed
	}
	var args [3]value
	for i, k := range n.kids {
		if args[i] = k.eval(s, c); args[i].kind == kindFailed {
			return failed
		}
	}
	return n.fn.do(n, s, c, args)
}

func length(n *node, s *Subject, c *checker, args [3]value) value {
	switch v := args[0]; {
	case v.isNull():
		return value{}
	case v.kind == kindString:
		return value{kind: kindInt, i: units(v.s)}
	case v.kind == kindCollection && s.Groups == nil:
		return value{kind: kindInt}
	case v.kind == kindCollection:
		return value{kind: kindInt, i: s.Groups.Len()}
	}
	if c != nil {
		return c.invalid(n, render(n))
	}
	return failed
}

func transform(f func(string) string) func(*node, *Subject, *checker, [3]value) value {
	return func(n *node, _ *Subject, c *checker, args [3]value) value {
		if args[0].isNull() {
			return value{}
		}
		if !c.want(n, args[0], kindString) {
			return failed
		}
		return text(f(args[0].s))
	}
}

func predicate(f func(s, t string) bool) func(*node, *Subject, *checker, [3]value) value {
	return func(n *node, _ *Subject, c *checker, args [3]value) value {
		if args[0].isNull() || args[1].isNull() {
			return boolean(false)
		}
		if !c.want(n, args[0], kindString) || !c.want(n, args[1], kindString) {
			return failed
		}
		return boolean(f(args[0].s, args[1].s))
	}
}

func indexOf(n *node, _ *Subject, c *checker, args [3]value) value {
	if args[0].isNull() || args[1].isNull() {
		return value{kind: kindInt, i: -1}
	}
	if !c.want(n, args[0], kindString) || !c.want(n, args[1], kindString) {
		return failed
	}
	i := strings.Index(args[0].s, args[1].s)
	if i > 0 {
		i = units(args[0].s[:i])
	}
	return value{kind: kindInt, i: i}
}

func concat(n *node, _ *Subject, c *checker, args [3]value) value {
	a, b := args[0], args[1]
	switch {
	case a.isNull() && b.isNull():
		return value{}
	case a.isNull() && b.kind == kindString:
		return b
	case b.isNull() && a.kind == kindString:
		return a
	case !c.want(n, a, kindString) || !c.want(n, b, kindString):
		return failed
	}
	return text(a.s + b.s)
}

func substring(n *node, _ *Subject, c *checker, args [3]value) value {
	v, from, count := args[0], args[1], args[2]
	counted := len(n.kids) == 3
	if !c.want(n, from, kindInt) || counted && !c.want(n, count, kindInt) {
		return failed
	}
	if v.isNull() {
		return value{}
	}
	if !c.want(n, v, kindString) {
		return failed
	}
	if c != nil {
		return text("") // the check's connection is shorter than real ones
	}
	have := units(v.s)
	if !counted {
		count.i = have - from.i
	}
	if from.i < 0 || from.i > have || count.i < 0 || count.i > have-from.i {
		return value{}
	}
	return text(cut(v.s, from.i, from.i+count.i))
}

// units returns the length of s in UTF-16 units.
func units(s string) int {
	n := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 0xF0:
			n += 2 // the first byte of four: a surrogate pair
		case c < 0x80 || c >= 0xC0:
			n++
		}
	}
	return n
}

// cut returns the UTF-16 units [from, to) of s. Half of a surrogate pair, which
// UTF-8 cannot hold, becomes U+FFFD: it equals nothing a client is called, and
// still counts as one unit.
func cut(s string, from, to int) string {
	if len(s) == units(s) { // all of it is ASCII
		return s[from:to]
	}
	out, at := make([]byte, 0, len(s)), 0
	for _, r := range s {
		if r <= 0xFFFF {
			if at >= from && at < to {
				out = utf8.AppendRune(out, r)
			}
			at++
			continue
		}
		first, second := at >= from && at < to, at+1 >= from && at+1 < to
		switch {
		case first && second:
			out = utf8.AppendRune(out, r)
		case first || second:
			out = utf8.AppendRune(out, utf8.RuneError)
		}
		at += 2
	}
	return string(out)
}
