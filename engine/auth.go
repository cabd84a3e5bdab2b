package engine

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"
)

// Credentials are what a client showed while it knocked, for an authenticator
// to judge. An authenticator has the method
//
//	Authenticate(ctx context.Context, c engine.Credentials) (engine.Identity, error)
//
// and refuses with an *Error of [CodeUnauthenticated] (or [CodeInvalid] for a
// proven identity that asks for something impossible) that names the rule.
type Credentials struct {
	// Hub is the hub that the client wants to enter.
	Hub HubName
	// Audience is the URL the client addressed, without a query:
	// scheme://host[:port]/path, as it was sent.
	Audience string
	// Token is the bearer token, from the query or the header; empty if none.
	Token string
	// PeerCertificates is the client's certificate chain, leaf first, as TLS
	// (or a trusted proxy) delivered it. It has not been verified.
	PeerCertificates []*x509.Certificate
	// RemoteAddr is the client's address.
	RemoteAddr netip.AddrPort
	// Header holds the request's headers under their canonical names.
	Header map[string][]string
}

// Identity is who a client is, as proven by an authenticator.
type Identity struct {
	// UserID is the user, or empty for a client without one.
	UserID UserID
	// Roles are the role strings of Azure Web PubSub, such as "webpubsub.sendToGroup.news". Unknown ones are ignored.
	Roles []string
	// Groups are joined when the connection opens; no role is needed for them.
	Groups []GroupName
	// Claims is everything the credential said, for the connect event.
	Claims map[string][]string
	// Expires is when the credential ends; zero if it does not.
	Expires time.Time
	// Scheme names how the client was proven: "AccessToken", "Anonymous", ...
	Scheme string
	// Standing, if set, says whether the credential still counts. It is asked once the
	// connection can be found by its user, so that a credential which is revoked while
	// its client comes in lets nobody in: whoever revokes closes the user's connections
	// afterwards. An error ends the connection. The user of such a client is fixed: a
	// connect handler that names another one refuses it.
	Standing func(context.Context) error
}

// ServerRequest is what an application server sent, for an authorizer to judge.
// An authorizer has the method
//
//	Authorize(ctx context.Context, r engine.ServerRequest) (engine.Principal, error)
type ServerRequest struct {
	// Method is the HTTP method.
	Method string
	// Scheme is "http" or "https", as the caller addressed the service.
	Scheme string
	// Host is the host, with its port if one was given.
	Host string
	// Target is the request target exactly as it was sent: escaped path and query.
	Target string
	// Header holds the request's headers under their canonical names.
	Header map[string][]string
	// BodyHash returns the SHA-256 of the body. It reads the body into memory
	// the first time, within the door's size limit.
	BodyHash func() ([]byte, error)
	// RemoteAddr is the caller's address.
	RemoteAddr netip.AddrPort
}

// Action is one thing a server may be allowed to do: the name of an Azure data
// action below Microsoft.SignalRService/WebPubSub/, or one of the actions on users.
type Action string

// The actions of the data plane, those of Azure role-based access control.
const (
	ActionGenerateToken   Action = "clientConnection/generateToken/action"
	ActionHubSend         Action = "hub/send/action"
	ActionGroupSend       Action = "group/send/action"
	ActionUserSend        Action = "user/send/action"
	ActionConnectionSend  Action = "clientConnection/send/action"
	ActionConnectionRead  Action = "clientConnection/read"
	ActionConnectionWrite Action = "clientConnection/write"
	ActionGroupRead       Action = "group/read"
	ActionGroupWrite      Action = "group/write"
	ActionUserRead        Action = "user/read"
)

// The actions on users that the service keeps. Azure has no data actions for them;
// these are below Microsoft.Communication/CommunicationServices/ here. They are of
// no hub: the one that an authorizer is asked about is empty.
const (
	ActionIdentityRead  Action = "identity/read"         // look at a user's assignment
	ActionIdentityWrite Action = "identity/write"        // create and delete users, assign them
	ActionIdentityToken Action = "identity/token/action" // issue, exchange and revoke tokens
)

// Principal is an application server whose credentials hold.
type Principal struct {
	// ID names the caller in logs: an object id, a key's name. Never a secret.
	ID string
	// Scheme names how the caller was proven: "AccessKey", "Entra", ...
	Scheme string
	// Allow decides about an action in a hub and returns nil to allow it. A nil
	// Allow allows everything.
	Allow func(Action, HubName) error
}

// May returns nil if the principal may do a in hub, and otherwise an *Error of
// [CodeForbidden] (known, lacks the action) or [CodeUnauthenticated] (this way
// of proving oneself does not open this door).
func (p Principal) May(a Action, hub HubName) error {
	if p.Allow == nil {
		return nil
	}
	return p.Allow(a, hub)
}
