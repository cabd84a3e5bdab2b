package engine

import (
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Permission is what a role allows for a group.
type Permission uint8

// The permissions.
const (
	SendToGroup Permission = iota + 1
	JoinLeaveGroup
)

// String returns the wire's name of the permission.
func (p Permission) String() string {
	if p == SendToGroup {
		return "sendToGroup"
	}
	return "joinLeaveGroup"
}

// The role strings of Azure Web PubSub's permission model. A suffix ".{group}"
// narrows a role to that group; the plural forms take a pattern.
const (
	RoleSendToGroup    = "webpubsub.sendToGroup"
	RoleJoinLeaveGroup = "webpubsub.joinLeaveGroup"
)

// Bounds of roles and grants (Azure's wildcard group roles, and its limit of
// literal rules for each permission of a connection).
const (
	maxPatterns      = 9
	maxPatternLen    = 1024
	maxAsterisks     = 5
	maxLiteralGrants = 1000
)

// rule is what one permission's roles allow. It is immutable once compiled.
type rule struct {
	any      bool
	literals map[string]struct{}
	patterns []Pattern
}

func (r *rule) allows(g GroupName) bool {
	if r.any {
		return true
	}
	if _, ok := r.literals[string(g)]; ok {
		return true
	}
	for i := range r.patterns {
		if r.patterns[i].Match(string(g)) {
			return true
		}
	}
	return false
}

// grants is a compiled list of roles, shared by all connections that have it.
type grants struct{ send, join rule }

func (g *grants) of(p Permission) *rule {
	if p == SendToGroup {
		return &g.send
	}
	return &g.join
}

var (
	noGrants  = &grants{}
	allGrants = &grants{send: rule{any: true}, join: rule{any: true}}
)

// compileRoles reads the roles it knows and skips the others, the invalid
// patterns and what is over the bounds, as Azure does.
func compileRoles(roles []string) *grants {
	if len(roles) == 0 {
		return noGrants
	}
	g := &grants{}
	for _, role := range roles {
		g.send.add(role, RoleSendToGroup)
		g.join.add(role, RoleJoinLeaveGroup)
	}
	return g
}

func (r *rule) add(role, base string) {
	rest, ok := strings.CutPrefix(role, base)
	switch {
	case !ok:
	case rest == "":
		r.any = true
	case rest[0] == '.':
		r.addLiteral(rest[1:])
	case strings.HasPrefix(rest, "s."):
		p, err := ParsePattern(rest[2:])
		if err != nil {
			return
		}
		if lit, ok := p.literal(); ok {
			r.addLiteral(lit)
		} else if len(r.patterns) < maxPatterns {
			r.patterns = append(r.patterns, p)
		}
	}
}

func (r *rule) addLiteral(name string) {
	if name == "" || len(r.literals) >= maxLiteralGrants {
		return
	}
	if r.literals == nil {
		r.literals = make(map[string]struct{})
	}
	r.literals[name] = struct{}{}
}

// rolesCache compiles equal lists of roles once: most clients of a hub have the
// same few. It is emptied when full, so that strangers cannot make it grow.
type rolesCache struct {
	mu sync.RWMutex
	m  map[string]*grants
}

const (
	maxCachedRoles   = 1024
	maxCachedRoleKey = 1024
)

func (rc *rolesCache) compile(roles []string) *grants {
	if len(roles) == 0 {
		return noGrants
	}
	var b strings.Builder
	for _, role := range roles { // with lengths: a role may hold any character
		b.WriteString(strconv.Itoa(len(role)))
		b.WriteByte(':')
		b.WriteString(role)
	}
	key := b.String()
	if len(key) > maxCachedRoleKey {
		return compileRoles(roles)
	}
	rc.mu.RLock()
	g := rc.m[key]
	rc.mu.RUnlock()
	if g != nil {
		return g
	}
	g = compileRoles(roles)
	rc.mu.Lock()
	defer rc.mu.Unlock()
	if rc.m == nil || len(rc.m) >= maxCachedRoles {
		rc.m = make(map[string]*grants)
	}
	rc.m[key] = g
	return g
}

// overrides are one connection's run-time grants and revocations of literal
// groups: they beat every role until changed again. Keys join the permission
// with the group.
type overrides map[overrideKey]bool

type overrideKey struct {
	permission Permission
	group      GroupName
}

// set notes that p on g is allowed or denied, and reports false if the
// connection has too many rules for p already.
func (o *overrides) set(p Permission, g GroupName, allowed bool) bool {
	key := overrideKey{p, g}
	if _, ok := (*o)[key]; !ok {
		n := 0
		for k := range *o {
			if k.permission == p {
				n++
			}
		}
		if n >= maxLiteralGrants {
			return false
		}
	}
	if *o == nil {
		*o = make(overrides)
	}
	(*o)[key] = allowed
	return true
}

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
