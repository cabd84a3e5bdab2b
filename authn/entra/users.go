package entra

import (
	"context"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// Users proves users by the access tokens that an issuer gave to an application
// for them, so that they can be exchanged for tokens of the service. It is safe
// for concurrent use.
type Users struct {
	verifier *verifier
}

// NewUsers returns the scheme. A token must be for one of the audiences; none
// means [AudienceTeams], [AudienceClients] and [AudienceCommunication], each with
// a slash at its end or without. It panics if issuer is nil.
func NewUsers(issuer *Issuer, audiences []string) *Users {
	if issuer == nil {
		panic("entra: NewUsers needs an issuer")
	}
	if len(audiences) == 0 {
		audiences = EitherSlash(AudienceTeams, AudienceClients, AudienceCommunication)
	}
	return &Users{verifier: newVerifier(issuer, audiences)}
}

// VerifyUser returns whose token it is. UserID is the object id, and Claims are
// "oid", "tid", "appid" (the application that the user came through, in tokens of
// either version) and "scp", one value for each scope; GUIDs are in lower case.
// Expires is the end of the token, which may lie up to [Skew] back.
//
// The rules are on the package's page; those of users alone come last. Roles do
// not matter. It may wait for the issuer's keys, within ctx. An error is an
// *engine.Error.
func (u *Users) VerifyUser(ctx context.Context, token string) (engine.Identity, error) {
	h, parts, refused := readHeader(token)
	if refused == nil {
		refused = h.check()
	}
	if refused != nil {
		return engine.Identity{}, refused
	}
	c, err := u.verifier.verify(ctx, h, parts)
	if err != nil {
		return engine.Identity{}, err
	}
	if !c.user() {
		e := refuse("entra.user", "The token is not of a user: expected one that an application got for a user who signed in (with scp, or idtyp user).")
		e.Detail = c.whose()
		return engine.Identity{}, e
	}
	object, _ := canonical(c.object)
	tenant, _ := canonical(c.tenant)
	application, _ := canonical(c.application)
	id, err := engine.ParseUserID(object)
	if err != nil || tenant == "" {
		e := refuse("entra.object", "The token does not say which user of which tenant it is of: expected the claims oid and tid.")
		e.Detail, e.Err = c.whose(), err
		return engine.Identity{}, e
	}
	return engine.Identity{
		UserID: id, Scheme: "EntraUser", Expires: c.expires,
		Claims: map[string][]string{
			"oid": {object}, "tid": {tenant}, "appid": {application}, "scp": strings.Fields(c.delegation),
		},
	}, nil
}
