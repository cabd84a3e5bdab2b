package entra

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/internal/strict"
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
	rooms     sync.Pool // of *scratch
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
		rooms: sync.Pool{New: func() any { return new(scratch) }},
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
	keys, err := s.issuer.find(ctx, h.kid)
	if err != nil {
		return engine.Principal{}, err
	}
	c, refused := s.prove(parts, keys.keys[h.kid])
	if refused != nil {
		return engine.Principal{}, refused
	}
	if refused := s.check(c, keys, time.Now()); refused != nil {
		refused.Detail += c.whose()
		return engine.Principal{}, refused
	}
	p := &caller{claims: c, grants: s.roles.of(c, s.issuer.tenant != "")}
	return engine.Principal{ID: p.id(), Scheme: "Entra", Allow: p.allow}, nil
}

// prove returns the claims of a token that the key signed.
func (s *Servers) prove(p strict.Parts, key *rsa.PublicKey) (*claims, *engine.Error) {
	room := s.rooms.Get().(*scratch)
	defer s.rooms.Put(room)
	c, refused := readClaims(p.Payload, room)
	if refused != nil {
		return nil, refused
	}
	text := append(room[:0], p.Signed...)
	signature, ok := strict.Decode(text[len(text):], p.Signature)
	if !ok {
		return nil, malformed("its parts cannot be read")
	}
	sum := sha256.Sum256(text)
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature); err != nil {
		e := refuse("entra.signature", "The key that the token names did not sign it.")
		e.Err = err
		return nil, e
	}
	return c, nil
}

// check returns nil if a proven token counts here and now.
func (s *Servers) check(c *claims, keys *keySet, now time.Time) *engine.Error {
	switch {
	case c.expires.IsZero():
		return refuse("entra.exp", "The token has no exp claim: expected seconds since 1970, as a number.")
	case !now.Before(c.expires.Add(Skew)):
		e := refuse("entra.expired", "The token expired at %s.", stamp(c.expires))
		e.Detail = fmt.Sprintf("Clocks may differ by %s. ", Skew)
		return e
	case now.Before(c.begins.Add(-Skew)):
		e := refuse("entra.notyet", "The token is not valid before %s.", stamp(c.begins))
		e.Detail = fmt.Sprintf("Clocks may differ by %s. ", Skew)
		return e
	case !slices.ContainsFunc(c.audience, s.meant):
		return refuse("entra.audience", "The token is for %s; here it must be for %s.", excerpts(c.audience), strings.Join(s.audiences, " or "))
	}
	if e := s.issuer.check(c, keys); e != nil {
		return e
	}
	if c.application == "" {
		return refuse("entra.caller",
			"The token does not name the application that it was issued to (appid or azp): expected an access token; this may be an ID token.")
	}
	return nil
}

// meant reports whether a token for that audience is meant for us. One for nobody
// never is.
func (s *Servers) meant(audience string) bool {
	return audience != "" && slices.Contains(s.audiences, audience)
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
