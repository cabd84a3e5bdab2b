package engine

import (
	"strings"
	"unicode/utf8"
)

// Pattern is a compiled wildcard pattern over dot-separated names, the language
// of Azure Web PubSub's wildcard group roles: ? is one character but a dot, *
// any number of them, ** any characters at all, and \ takes the next of * ? \
// literally. The zero Pattern matches only the empty name.
type Pattern struct {
	tokens []token
}

type tokenKind uint8

const (
	tokLiteral tokenKind = iota
	tokOne               // ?
	tokSome              // *
	tokAll               // **
)

type token struct {
	kind tokenKind
	text string // of tokLiteral
}

// ParsePattern compiles s, which holds at most 1024 characters and 5 asterisks.
func ParsePattern(s string) (Pattern, error) {
	bad := func(why string) (Pattern, error) {
		return Pattern{}, &Error{Code: CodeInvalid, Rule: "pattern", Message: "Pattern " + excerpt(s) + " is not valid: " + why + "."}
	}
	if s == "" || utf8.RuneCountInString(s) > maxPatternLen || !utf8.ValidString(s) {
		return bad("expected 1 to 1024 characters of UTF-8")
	}
	var p Pattern
	var lit strings.Builder
	flush := func() {
		if lit.Len() > 0 {
			p.tokens = append(p.tokens, token{tokLiteral, lit.String()})
			lit.Reset()
		}
	}
	stars := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) || strings.IndexByte(`*?\`, s[i]) < 0 {
				return bad(`a backslash must precede one of * ? \`)
			}
			lit.WriteByte(s[i])
		case '?':
			flush()
			p.tokens = append(p.tokens, token{kind: tokOne})
		case '*':
			flush()
			n := 1
			for i+1 < len(s) && s[i+1] == '*' {
				i, n = i+1, n+1
			}
			stars += n
			kind := tokSome
			if n > 1 {
				kind = tokAll
			}
			p.tokens = append(p.tokens, token{kind: kind})
		default:
			lit.WriteByte(s[i])
		}
	}
	flush()
	if stars > maxAsterisks {
		return bad("at most 5 asterisks are allowed")
	}
	return p, nil
}

// literal returns the one name that p matches, if it has no wildcard.
func (p Pattern) literal() (string, bool) {
	if len(p.tokens) == 1 && p.tokens[0].kind == tokLiteral {
		return p.tokens[0].text, true
	}
	return "", false
}

// Match reports whether all of name matches. Its time is bounded by the product
// of the lengths: a table over positions, not backtracking.
func (p Pattern) Match(name string) bool {
	// reach[i] is set if the tokens so far can end at byte i of name.
	var small [129]bool
	reach := small[:]
	if len(name) >= len(small) {
		reach = make([]bool, len(name)+1)
	}
	reach = reach[:len(name)+1]
	reach[0] = true
	for _, t := range p.tokens {
		switch t.kind {
		case tokLiteral:
			for i := len(name); i >= 0; i-- {
				j := i - len(t.text)
				reach[i] = j >= 0 && reach[j] && name[j:i] == t.text
			}
		case tokOne:
			for i := len(name); i >= 0; i-- {
				j := i - 1
				for j > 0 && !utf8.RuneStart(name[j]) {
					j--
				}
				reach[i] = j >= 0 && reach[j] && name[j] != '.' && (i == len(name) || utf8.RuneStart(name[i]))
			}
		case tokSome, tokAll:
			for i := 1; i <= len(name); i++ {
				reach[i] = reach[i] || reach[i-1] && (t.kind == tokAll || name[i-1] != '.')
			}
		}
	}
	return reach[len(name)]
}
