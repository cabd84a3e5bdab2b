package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake, or one thing worth saying, in the settings.
type Problem struct {
	// Where is the place to mend: "fanfare.yaml:3:5", "environment
	// FANFARE_LISTEN", "flag --listen", or "defaults" where nothing was set.
	Where string
	// Path is the key, as in "hubs.chat.eventHandlers[0].urlTemplate"; empty for
	// the file as a whole.
	Path string
	// Text says what is wrong and what would pass. It holds no secret.
	Text string
	// NeedsKey marks the refusal of a node that has no access key of its own and
	// listens where strangers are; the remedy is a new key.
	NeedsKey bool

	order  place
	unread bool // there was no value to be had from it
}

// String returns the problem as one line: place, key, text.
func (p Problem) String() string {
	s := p.Where + ": "
	if p.Path != "" {
		s += p.Path + ": "
	}
	return s + p.Text
}

// Problems are all mistakes that were found, in the order of the file first,
// then the environment, the command line and the defaults.
type Problems []Problem

// Error returns one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

func (p Problems) sort() {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.order.layer, b.order.layer),
			cmp.Compare(a.order.line, b.order.line),
			cmp.Compare(a.order.column, b.order.column),
			cmp.Compare(a.Where, b.Where),
		)
	})
}

// layer is where a setting came from, in the order in which problems are told.
type layer int

const (
	fromFile layer = iota
	fromEnvironment
	fromFlag
	fromDefault
)

// place is where a value was written.
type place struct {
	layer        layer
	name         string // file, variable or flag
	line, column int    // 0 where the name says it all
}

func (p place) String() string {
	switch p.layer {
	case fromEnvironment:
		return "environment " + p.name
	case fromFlag:
		return "flag --" + p.name
	case fromDefault:
		return "defaults"
	}
	if p.line == 0 {
		return p.name
	}
	return fmt.Sprintf("%s:%d:%d", p.name, p.line, p.column)
}
