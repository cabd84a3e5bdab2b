package clientcert

import (
	"context"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
)

// Clients proves clients by their certificates.
type Clients struct {
	policy func(engine.HubName) *Policy
}

var _ authn.Authenticator = (*Clients)(nil)

// NewClients returns the scheme. policy returns what a hub asks of certificates,
// or nil for a hub that leaves them to its connect handler. It is called for each
// client, concurrently, and must not block.
func NewClients(policy func(engine.HubName) *Policy) *Clients { return &Clients{policy} }

// Authenticate implements authn.Authenticator. A client with a token or without a
// certificate, and all of a hub without a policy, are of another kind.
//
// The identity has the policy's roles and no claims: the connect event shows the
// certificate itself.
func (s *Clients) Authenticate(_ context.Context, c engine.Credentials) (engine.Identity, error) {
	notMine := func(rule, message string) (engine.Identity, error) {
		return engine.Identity{}, authn.NotMine(&engine.Error{Code: engine.CodeUnauthenticated, Rule: rule, Message: message})
	}
	if c.Token != "" {
		return notMine("clientcert.token", "A client with a token is judged by it.")
	}
	p := s.policy(c.Hub)
	if p == nil {
		return notMine("clientcert.hub", "The hub "+string(c.Hub)+" does not go by client certificates.")
	}
	if len(c.PeerCertificates) == 0 {
		return notMine("clientcert.missing", "No client certificate was shown.")
	}
	user, err := p.judge(c.PeerCertificates, time.Now())
	if err != nil {
		return engine.Identity{}, err
	}
	return engine.Identity{
		UserID: user, Roles: p.roles, Claims: map[string][]string{},
		Expires: c.PeerCertificates[0].NotAfter, Scheme: "ClientCertificate",
	}, nil
}
