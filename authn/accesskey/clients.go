package accesskey

import (
	"context"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// Clients proves clients by tokens that an access key signed. It claims every
// token, so schemes that know tokens of their own stand before it.
type Clients struct {
	ring  *Ring
	hosts *authn.Hosts
}

var _ authn.Authenticator = (*Clients)(nil)

// NewClients returns the scheme. hosts are further hosts that tokens may be for;
// it may be nil.
func NewClients(ring *Ring, hosts *authn.Hosts) *Clients { return &Clients{ring, hosts} }

// Authenticate implements authn.Authenticator. The rules are those of package
// token, and accesskey.disabled where there are no access keys. A client without
// a token is of another kind.
func (a *Clients) Authenticate(_ context.Context, c engine.Credentials) (engine.Identity, error) {
	if c.Token == "" {
		return engine.Identity{}, authn.NotMine(&engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "token.missing",
			Message: "No access token was sent. Send one in the access_token query parameter or in an Authorization: Bearer header.",
		})
	}
	if !a.ring.LocalAuth() {
		return engine.Identity{}, closed("ask the application server for a token that the service generates.")
	}
	t, err := token.Verify(c.Token, time.Now(), a.ring)
	if err != nil {
		return engine.Identity{}, err
	}
	if err := t.CheckAudience(c, a.hosts); err != nil {
		return engine.Identity{}, err
	}
	id, err := t.Identity()
	if err != nil {
		return engine.Identity{}, err
	}
	id.Scheme = "AccessToken"
	return id, nil
}
