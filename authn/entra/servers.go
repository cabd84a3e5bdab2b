package entra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
)

// Audience is what tokens for Azure Web PubSub are for, outside sovereign clouds.
const Audience = "https://webpubsub.azure.com"

// Servers proves application servers by tokens of an issuer. It claims every
// bearer token that is signed with anything but HS256, so it stands before the
// scheme of the access keys. It is safe for concurrent use.
type Servers struct {
	issuer    *Issuer
	audiences []string
	roles     *Roles
	parser    *jwt.Parser
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
	return &Servers{
		issuer: issuer, audiences: slices.Clone(audiences), roles: roles,
		parser: jwt.NewParser(jwt.WithValidMethods([]string{algorithm}), jwt.WithStrictDecoding(),
			jwt.WithExpirationRequired(), jwt.WithLeeway(Skew), jwt.WithAudience(audiences...)),
	}
}

// Authorize implements authn.Authorizer. The rules are on the package's page. A
// request without a bearer token, and a token that is none or is signed with
// HS256, is of another kind. It may wait for the issuer's keys, within ctx.
func (s *Servers) Authorize(ctx context.Context, r engine.ServerRequest) (engine.Principal, error) {
	text, err := authn.Bearer(r.Header)
	if err != nil {
		return engine.Principal{}, err
	}
	h, refused := readHeader(text)
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
	keys, err := s.issuer.find(ctx, h.kid)
	if err != nil {
		return engine.Principal{}, err
	}
	c := new(claims)
	if _, err := s.parser.ParseWithClaims(text, c, keys.keyfunc.Keyfunc); err != nil {
		return engine.Principal{}, s.refusal(err, c)
	}
	refused = s.issuer.check(c, keys)
	if refused == nil && c.application == "" {
		refused = refuse("entra.caller",
			"The token does not name the application that it was issued to (appid or azp): expected an access token; this may be an ID token.")
	}
	if refused != nil {
		refused.Detail = c.whose()
		return engine.Principal{}, refused
	}
	p := &caller{claims: c, grants: s.roles.of(c, s.issuer.tenant != "")}
	return engine.Principal{ID: p.id(), Scheme: "Entra", Allow: p.allow}, nil
}

// refusal says by which of our rules the library refused a token.
func (s *Servers) refusal(err error, c *claims) *engine.Error {
	e := malformed("its parts cannot be read")
	switch {
	case c.unread != nil:
		e = malformed("of its claims, %s", c.unread)
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		e = refuse("entra.signature", "The key that the token names did not sign it.")
	case errors.Is(err, jwt.ErrTokenMalformed):
	// From here on the signature has held.
	case c.expires == nil:
		e = refuse("entra.exp", "The token has no exp claim: expected seconds since 1970, as a number.")
		e.Detail = c.whose()
	case errors.Is(err, jwt.ErrTokenExpired):
		e = refuse("entra.expired", "The token expired at %s.", stamp(c.expires))
		e.Detail = fmt.Sprintf("Clocks may differ by %s. %s", Skew, c.whose())
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		e = refuse("entra.notyet", "The token is not valid before %s.", stamp(c.begins))
		e.Detail = fmt.Sprintf("Clocks may differ by %s. %s", Skew, c.whose())
	default: // all that remains
		e = refuse("entra.audience", "The token is for %s; here it must be for %s.", excerpts(c.audience), strings.Join(s.audiences, " or "))
		e.Detail = c.whose()
	}
	e.Err = err
	return e
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
	c := p.claims
	e := engine.Errorf(engine.CodeForbidden, "entra.role", "No role that this caller has in hub %s includes %s.", hub, action)
	if c.overage {
		e = engine.Errorf(engine.CodeForbidden, "entra.groups",
			"No role that this caller has in hub %s includes %s. The caller is in more groups than its token holds, so roles of groups do not count: assign the role to the caller itself, or to an app role.", hub, action)
	}
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
