package identity

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
)

// Grant is what a scope is worth at the client doors.
type Grant struct {
	// Hubs are those that it opens; nil for all.
	Hubs []engine.HubName
	// Roles are role strings, such as "webpubsub.sendToGroup.news".
	Roles []string
	// Groups are joined as the client connects.
	Groups []engine.GroupName
}

// Clients proves clients by user access tokens. The user of such a client is the whole
// id, 8:acs:... It is safe for concurrent use.
type Clients struct {
	users  *Users
	grants map[string]Grant
}

var _ authn.Authenticator = (*Clients)(nil)

// NewClients returns the scheme. A client may enter a hub that the grant of one of its
// scopes opens, and has the roles and groups of all such grants. A scope without a
// grant opens nothing. The caller must not change grants afterwards.
func NewClients(users *Users, grants map[string]Grant) *Clients {
	return &Clients{users, maps.Clone(grants)}
}

// Authenticate implements authn.Authenticator. The rules are on the package's page.
func (a *Clients) Authenticate(ctx context.Context, c engine.Credentials) (engine.Identity, error) {
	p, err := a.users.Verify(ctx, c.Token)
	if err != nil {
		return engine.Identity{}, err
	}
	id := engine.Identity{UserID: p.ID, Claims: p.claims, Expires: p.Expires, Scheme: "UserToken", Standing: p.standing}
	entered := false
	for _, s := range p.Scopes {
		g, ok := a.grants[s]
		if !ok || g.Hubs != nil && !slices.Contains(g.Hubs, c.Hub) {
			continue
		}
		entered = true
		id.Roles = appendNew(id.Roles, g.Roles)
		id.Groups = appendNew(id.Groups, g.Groups)
	}
	if !entered {
		return engine.Identity{}, a.closed(p, c.Hub)
	}
	return id, nil
}

func appendNew[T comparable](list, more []T) []T {
	for _, x := range more {
		if !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	return list
}

// closed refuses a proven user whose scopes do not open a hub.
func (a *Clients) closed(p Proof, hub engine.HubName) error {
	var open []string
	for _, s := range scopes {
		if g, ok := a.grants[s]; ok && (g.Hubs == nil || slices.Contains(g.Hubs, hub)) {
			open = append(open, s)
		}
	}
	pass := "no scope does"
	if len(open) > 0 {
		pass = "expected one of " + strings.Join(open, ", ")
	}
	e := engine.Errorf(engine.CodeForbidden, "user.hub", "The token's scopes, %s, do not open hub %s: %s.", strings.Join(p.Scopes, ", "), hub, pass)
	e.Detail = "The user is " + string(p.ID) + "."
	return e
}
