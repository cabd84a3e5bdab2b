package filter

import (
	"strconv"
	"strings"
)

// words are the operators between two operands, as they are written.
var words = map[op]string{
	opIn: " in ", opEq: " eq ", opNe: " ne ", opGt: " gt ", opGe: " ge ", opLt: " lt ", opLe: " le ",
	opAnd: " and ", opOr: " or ",
}

// render prints n as the service's errors do: operands that are operations
// stand in parentheses, needed or not, strings are not escaped, booleans are
// capitalised, and lists are as they were written.
func render(n *node) string {
	var b strings.Builder
	renderTo(&b, n)
	return b.String()
}

func renderTo(b *strings.Builder, n *node) {
	switch n.op {
	case opLiteral:
		switch n.lit.kind {
		case kindNull:
			b.WriteString("null")
		case kindBool:
			if n.lit.b {
				b.WriteString("True")
			} else {
				b.WriteString("False")
			}
		case kindInt:
			b.WriteString(strconv.Itoa(n.lit.i))
		default:
			b.WriteString("'" + n.lit.s + "'")
		}
	case opNot:
		b.WriteString("not ")
		renderOperand(b, n.kids[0])
	case opCall:
		b.WriteString(n.text)
		b.WriteByte('(')
		for i, k := range n.kids {
			if i > 0 {
				b.WriteByte(',')
			}
			renderTo(b, k)
		}
		b.WriteByte(')')
	case opIn:
		renderTo(b, n.kids[0])
		b.WriteString(words[opIn])
		renderTo(b, n.kids[1])
	case opArith:
		if len(n.kids) == 1 {
			b.WriteString(n.text)
			renderOperand(b, n.kids[0])
			return
		}
		renderOperand(b, n.kids[0])
		b.WriteString(" " + n.text + " ")
		renderOperand(b, n.kids[1])
	case opEq, opNe, opGt, opGe, opLt, opLe, opAnd, opOr:
		renderOperand(b, n.kids[0])
		b.WriteString(words[n.op])
		renderOperand(b, n.kids[1])
	default:
		b.WriteString(n.text)
	}
}

func renderOperand(b *strings.Builder, n *node) {
	if n.op < opArith {
		renderTo(b, n)
		return
	}
	b.WriteByte('(')
	renderTo(b, n)
	b.WriteByte(')')
}

// printer writes the plainest text that parses to the same tree.
type printer struct{ strings.Builder }

// strength says how tightly an operation holds its operands together.
func strength(o op) int {
	switch o {
	case opOr:
		return 1
	case opAnd:
		return 2
	case opEq, opNe, opGt, opGe, opLt, opLe:
		return 3
	case opNot:
		return 4
	case opIn:
		return 5
	}
	return 6
}

func (p *printer) print(n *node) {
	switch n.op {
	case opLiteral:
		switch n.lit.kind {
		case kindNull:
			p.WriteString("null")
		case kindBool:
			p.WriteString(strconv.FormatBool(n.lit.b))
		case kindInt:
			p.WriteString(strconv.Itoa(n.lit.i))
		default:
			p.WriteString("'" + strings.ReplaceAll(n.lit.s, "'", "''") + "'")
		}
	case opCall, opList:
		if n.op == opCall {
			p.WriteString(n.text)
		}
		p.WriteByte('(')
		for i, k := range n.kids {
			if i > 0 {
				p.WriteByte(',')
			}
			p.print(k)
		}
		p.WriteByte(')')
	case opNot:
		p.WriteString("not ")
		p.operand(n.kids[0], 4)
	case opIn:
		// A parenthesis to the right of in opens a list, so there the operand
		// is never put into one: the parser made it a list or a plain operand.
		p.operand(n.kids[0], 5)
		p.WriteString(words[opIn])
		p.print(n.kids[1])
	case opEq, opNe, opGt, opGe, opLt, opLe, opAnd, opOr:
		p.operand(n.kids[0], strength(n.op))
		p.WriteString(words[n.op])
		p.operand(n.kids[1], strength(n.op)+1)
	default:
		p.WriteString(properties[n.op])
	}
}

// operand prints n, in parentheses if it holds together less than least.
func (p *printer) operand(n *node, least int) {
	if strength(n.op) >= least {
		p.print(n)
		return
	}
	p.WriteByte('(')
	p.print(n)
	p.WriteByte(')')
}
