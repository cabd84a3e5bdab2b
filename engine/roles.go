package engine

import (
	"strconv"
	"strings"
	"sync"
)

// Permission is what a role allows for a group.
type Permission uint8

// The permissions.
const (
	SendToGroup Permission = iota + 1
	JoinLeaveGroup
	SetGroupState
	GetGroupState
)

// String returns the wire's name of the permission.
func (p Permission) String() string {
	switch p {
	case SendToGroup:
		return "sendToGroup"
	case JoinLeaveGroup:
		return "joinLeaveGroup"
	case SetGroupState:
		return "setGroupState"
	default:
		return "getGroupState"
	}
}

// The role strings of Azure Web PubSub's permission model. A suffix ".{group}"
// narrows a role to that group; the plural forms take a pattern.
const (
	RoleSendToGroup    = "webpubsub.sendToGroup"
	RoleJoinLeaveGroup = "webpubsub.joinLeaveGroup"
	RoleSetGroupState  = "webpubsub.setGroupState"
	RoleGetGroupState  = "webpubsub.getGroupState"
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
type grants struct {
	roles []string // what it was compiled from
	rules [len(roleNames)]rule
}

// roleNames are the base names of roles, by permission.
var roleNames = [...]string{
	SendToGroup: RoleSendToGroup, JoinLeaveGroup: RoleJoinLeaveGroup,
	SetGroupState: RoleSetGroupState, GetGroupState: RoleGetGroupState,
}

func (g *grants) of(p Permission) *rule { return &g.rules[p] }

var (
	noGrants  = &grants{}
	allGrants = compileRoles(roleNames[SendToGroup:])
)

// compileRoles reads the roles it knows and skips the others, the invalid
// patterns and what is over the bounds, as Azure does.
func compileRoles(roles []string) *grants {
	if len(roles) == 0 {
		return noGrants
	}
	g := &grants{roles: roles}
	for _, role := range roles {
		for p := SendToGroup; int(p) < len(roleNames); p++ {
			g.rules[p].add(role, roleNames[p])
		}
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
	var room [256]byte
	key := room[:0]
	for _, role := range roles { // with lengths: a role may hold any character
		key = strconv.AppendInt(key, int64(len(role)), 10)
		key = append(key, ':')
		key = append(key, role...)
	}
	if len(key) > maxCachedRoleKey {
		return compileRoles(roles)
	}
	rc.mu.RLock()
	g := rc.m[string(key)]
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
	rc.m[string(key)] = g
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
