// Package filter is the OData filter language that picks connections: a server
// that sends a message, or changes groups in bulk, may add a filter such as
//
//	userId in ('ann','bo') and not ('muted' in groups)
//
// and only the connections for which it holds are concerned. [Parse] reads and
// checks a filter once; [Filter.Match] then judges any number of connections.
//
// # The language
//
// A filter is a boolean expression over four properties of a connection, whose
// names are not case-sensitive: userId, connectionId and protocol are strings
// (userId is null for an anonymous client, protocol for a raw one), groups is
// the collection of the groups the connection is in. Literals are text between
// single quotes, in which a quote is doubled, 32-bit integers, true,
// false and null. Operators, from the tightest binding to the loosest:
//
//	in                  'g' in groups, userId in ('a','b')
//	not
//	eq ne gt ge lt le   eq and ne compare anything, the others integers
//	and
//	or
//
// Parentheses group. The functions are length, tolower, toupper, trim,
// contains, startswith, endswith, indexof, concat and substring.
//
// Strings compare by code point, case included. Lengths and positions count
// UTF-16 units, as they do in the service. A comparison with null by gt, ge, lt
// or le is false; eq and ne of different types are false and true. The left and
// the right of and and or are always both evaluated, so a mistake in either is
// found.
//
// The language is described in "OData filter syntax in the Azure Web PubSub
// service"; precedence, null handling and the words of errors follow the
// service's public emulator.
package filter

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of a filter's text.
const (
	// MaxLength is how many bytes a filter may have.
	MaxLength = 16 << 10
	// MaxDepth is how deep parentheses, not and function calls may nest.
	MaxDepth = 100
)

// Subject is one connection as a filter sees it.
type Subject struct {
	ConnectionID string
	// UserID is the connection's user; empty means null.
	UserID string
	// Protocol is the connection's subprotocol; empty means null.
	Protocol string
	// Groups are those the connection is in; nil means none.
	Groups GroupSet
}

// GroupSet is the set of groups of a [Subject]. Its methods are called during
// [Filter.Match], by the caller's goroutine.
type GroupSet interface {
	// Has reports whether the connection is in the named group.
	Has(name string) bool
	// Len returns how many groups the connection is in.
	Len() int
}

// Filter is a parsed filter. It is immutable and safe for concurrent use.
type Filter struct {
	root *node
	text string
}

// Parse reads and checks a filter. The check evaluates it for a connection
// without a user, protocol or groups, so that a mistake is found before
// anything is delivered. Every error is an *[Error].
//
// An empty text is an error: where it means "everyone" is the caller's matter.
func Parse(text string) (*Filter, error) {
	if len(text) > MaxLength {
		return nil, &Error{
			Expr:   strings.ToValidUTF8(text[:64], "\uFFFD") + "...",
			Detail: fmt.Sprintf("The filter has %d bytes, at most %d are allowed.", len(text), MaxLength),
		}
	}
	if !utf8.ValidString(text) {
		return nil, &Error{Expr: strings.ToValidUTF8(text, "\uFFFD"), Detail: "The filter is not valid UTF-8."}
	}
	p := parser{text: text}
	root, err := p.parse()
	if err != nil {
		return nil, err
	}
	if err := check(root, text); err != nil {
		return nil, err
	}
	return &Filter{root, text}, nil
}

// Text returns the text that [Parse] read.
func (f *Filter) Text() string { return f.text }

// Match reports whether the filter holds for s. Simple comparisons do not
// allocate.
//
// Some mistakes show only once a value is not null, as in contains(userId, 1).
// A filter that makes such a mistake about s does not match s.
func (f *Filter) Match(s *Subject) bool {
	v := f.root.eval(s, nil)
	return v.kind == kindBool && v.b
}

// String returns the filter in its plainest form. Parsing that gives a filter
// of the same meaning.
func (f *Filter) String() string {
	var p printer
	p.print(f.root)
	return p.String()
}

// Error says why a text is no filter. It is safe to show to whoever sent the
// text, which it quotes.
type Error struct {
	// Expr is the part of the filter at fault, as the service prints it, or all
	// of its text.
	Expr string
	// Detail is what is wrong with it: a sentence.
	Detail string
}

// Error returns the sentence that the service answers with.
func (e *Error) Error() string {
	return "Invalid syntax for '" + e.Expr + "': " + e.Detail + " (Parameter 'filter')"
}
