package entra

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
)

// Servers proves application servers by tokens of an issuer. It claims every
// bearer token that is signed with anything but HS256, so it stands before the
// scheme of the access keys. It is safe for concurrent use.
type Servers struct {
	verifier *verifier
	roles    *Roles
}

var _ authn.Authorizer = (*Servers)(nil)

// NewServers returns the scheme. A token must be for one of the audiences; none
// means [Audience]. It panics if issuer or roles is nil.
func NewServers(issuer *Issuer, audiences []string, roles *Roles) *Servers {
	if issuer == nil || roles == nil {
		panic("entra: NewServers needs an issuer and roles")
	}
	if len(audiences) == 0 {
		audiences = []string{Audience}
	}
	return &Servers{verifier: newVerifier(issuer, audiences), roles: roles}
}

// Middleware hands on the requests that show a token which holds, and refuses all
// others; see [authn.Guard]. What the caller may do is for next to ask.
func (s *Servers) Middleware(next http.Handler) http.Handler { return authn.Guard(s, next, nil) }

// Authorize implements authn.Authorizer. The rules are on the package's page. A
// request without a bearer token, and a token that is none or is signed with
// HS256, is of another kind. It may wait for the issuer's keys, within ctx.
func (s *Servers) Authorize(ctx context.Context, r engine.ServerRequest) (engine.Principal, error) {
	text, err := authn.Bearer(r.Header)
	if err != nil {
		return engine.Principal{}, err
	}
	h, parts, refused := readHeader(text)
	if refused != nil {
		return engine.Principal{}, authn.NotMine(refused)
	}
	refused = h.check()
	switch {
	case refused != nil && h.alg == "HS256":
		return engine.Principal{}, authn.NotMine(refused)
	case refused != nil:
		return engine.Principal{}, refused
	}
	c, err := s.verifier.verify(ctx, h, parts)
	if err != nil {
		return engine.Principal{}, err
	}
	p := &caller{claims: c, grants: s.roles.of(c, s.verifier.issuer.tenant != "")}
	return engine.Principal{ID: p.id(), Scheme: "Entra", Allow: p.allow}, nil
}

// caller is one whose token holds.
type caller struct {
	claims *claims
	grants []*grant
}

// id names the caller in logs.
func (p *caller) id() string {
	for _, id := range []string{p.claims.object, p.claims.application} {
		if id != "" {
			return id
		}
	}
	return p.claims.subject
}

// allow decides about one action by the roles that the caller has.
func (p *caller) allow(action engine.Action, hub engine.HubName) error {
	for _, g := range p.grants {
		if g.allows(action, hub) {
			return nil
		}
	}
	c, rule, why := p.claims, "entra.role", ""
	if c.overage {
		rule, why = "entra.groups", " The caller is in more groups than its token holds, so roles of groups do not count: assign the role to the caller itself, or to an app role."
	}
	where := "in hub " + string(hub)
	if slices.Contains(ofUsers, action) {
		where = "in every hub (*)"
	}
	e := engine.Errorf(engine.CodeForbidden, rule, "No role that this caller has %s includes %s.%s", where, inFull(action), why)
	var have []string
	for _, g := range p.grants {
		where := string(g.hub)
		if g.all {
			where = "*"
		}
		have = append(have, g.role.name+" in "+where)
	}
	e.Detail = fmt.Sprintf("%s It has the roles: %s.", c.whose(), excerpts(have))
	return e
}
