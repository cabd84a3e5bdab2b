package rest

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// identityOperation is one thing that the identity API does.
type identityOperation struct {
	name    string // group and operation, as the API's description has them
	method  string
	path    string
	action  engine.Action // what the caller must be allowed; empty: a user's own token is shown
	limit   limit
	success int
	missing string // the error code of a 404
	since   string // the version that brought it
	run     func(*identityCall) (any, error)
}

// has reports whether a version has the operation. No stable version has what a preview
// brought.
func (op *identityOperation) has(version string) bool {
	return version == op.since || version > op.since && !strings.HasSuffix(op.since, "-preview")
}

// versions lists the versions that have the operation.
func (op *identityOperation) versions() string {
	var all []string
	for _, v := range identityVersions {
		if op.has(v) {
			all = append(all, v)
		}
	}
	return strings.Join(all, ", ")
}

const (
	noIdentity   = "IdentityNotFound"
	noAssignment = "AssignmentNotFound"

	assignmentPath = "/access/teamsExtension/tenants/{tenantId}/assignments/{objectId}"
)

// identityOperations is the identity API.
var identityOperations = []identityOperation{
	{"Identity_Create", "POST", "/identities", engine.ActionIdentityWrite, limitOfBody, 201, noIdentity, firstVersion, createIdentity},
	{"Identity_Delete", "DELETE", "/identities/{id}", engine.ActionIdentityWrite, limitDelete, 204, noIdentity, firstVersion, deleteIdentity},
	{"Identity_IssueAccessToken", "POST", "/identities/{id}/:issueAccessToken", engine.ActionIdentityToken, limitIssue, 200, noIdentity, firstVersion, issueToken},
	{"Identity_RevokeAccessTokens", "POST", "/identities/{id}/:revokeAccessTokens", engine.ActionIdentityToken, limitRevoke, 204, noIdentity, firstVersion, revokeTokens},

	{"TeamsUser_ExchangeTeamsUserAccessToken", "POST", "/teamsUser/:exchangeAccessToken", engine.ActionIdentityToken, limitTeamsUser, 200, noIdentity,
		teamsUserVersion, exchangeTeamsUser},
	{"TeamsExtension_ExchangeToken", "POST", "/access/teamsExtension/:exchangeAccessToken", "", limitTeamsExtension, 200, noIdentity,
		teamsExtensionVersion, exchangeTeamsExtension},
	{"Entra_ExchangeToken", "POST", "/access/entra/:exchangeAccessToken", "", limitEntra, 200, noIdentity, entraVersion, exchangeEntra},

	{"TeamsExtension_GetAssignment", "GET", assignmentPath, engine.ActionIdentityRead, limitAssign, 200, noAssignment, teamsExtensionVersion, getAssignment},
	{"TeamsExtension_UpsertAssignment", "PUT", assignmentPath, engine.ActionIdentityWrite, limitAssign, 200, noAssignment, teamsExtensionVersion, putAssignment},
	{"TeamsExtension_DeleteAssignment", "DELETE", assignmentPath, engine.ActionIdentityWrite, limitAssign, 204, noAssignment, teamsExtensionVersion, deleteAssignment},
}

var identityRoutes = newRouter("identity API", identityOperations, func(op *identityOperation) (method, path string) { return op.method, op.path })

// identityReply is a user, perhaps with a token ("CommunicationIdentityAccessTokenResult").
type identityReply struct {
	Identity    identity     `json:"identity"`
	AccessToken *accessToken `json:"accessToken,omitempty"`
}

type identity struct {
	ID       engine.UserID `json:"id"`
	CustomID string        `json:"customId,omitempty"`
}

// accessToken is a token and its end ("CommunicationIdentityAccessToken").
type accessToken struct {
	Token     string `json:"token"`
	ExpiresOn string `json:"expiresOn"`
}

// token makes a reply of an issued token, which nobody on its way may keep.
func (c *identityCall) token(token string, expires time.Time, err error) (*accessToken, error) {
	if err != nil {
		return nil, err
	}
	c.w.Header().Set("Cache-Control", "no-store")
	// The service writes seven digits and an offset, never Z.
	return &accessToken{token, expires.UTC().Format("2006-01-02T15:04:05.0000000+00:00")}, nil
}

// Users.

func createIdentity(c *identityCall) (any, error) {
	// Permission and limit come before what is wrong with the body, but it says which these are.
	in, wrong := c.newIdentity()
	kind := limitCreate
	if len(in.scopes) > 0 {
		kind = limitCreateWithToken
		if err := c.caller.May(engine.ActionIdentityToken, ""); err != nil {
			return nil, err
		}
	}
	if err := c.take(kind); err != nil {
		return nil, err
	}
	if wrong != nil {
		return nil, wrong
	}
	var err error
	reply := &identityReply{Identity: identity{CustomID: in.customID}}
	if in.customID != "" {
		reply.Identity.ID, err = c.h.users.Named(c.r.Context(), "custom/"+in.customID)
	} else {
		reply.Identity.ID, err = c.h.users.Create(c.r.Context())
	}
	if err == nil && len(in.scopes) > 0 {
		// A user whose token cannot be issued stays, with an id that nobody has heard of.
		reply.AccessToken, err = c.token(c.h.users.Issue(c.r.Context(), reply.Identity.ID, in.scopes, in.lifetime))
	}
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// newIdentity is what is asked for of a user to be made.
type newIdentity struct {
	customID string   // empty: none
	scopes   []string // none: no token
	lifetime time.Duration
}

// newIdentity reads the body, which may be missing. JavaScript's SDK sends none, and those
// of Java and .NET an empty object.
func (c *identityCall) newIdentity() (newIdentity, error) {
	body, err := c.body.object()
	if err != nil {
		return newIdentity{}, err
	}
	var in newIdentity
	if in.lifetime, err = c.lifetime(body); err != nil {
		return newIdentity{}, err
	}
	if c.version == customIDVersion {
		if in.customID, err = customID(body); err != nil {
			return newIdentity{}, err
		}
	}
	if in.scopes, err = c.scopes(body, "createTokenWithScopes"); err != nil {
		return newIdentity{}, err
	}
	return in, nil
}

func customID(body object) (string, error) {
	const most = 256
	id, ok, err := body.text("customId")
	if n := utf8.RuneCountInString(id); err == nil && ok && (n == 0 || n > most) {
		return "", invalid("customId", "The body's customId has %d characters, expected 1 to %d.", n, most)
	}
	return id, err
}

func deleteIdentity(c *identityCall) (any, error) {
	return nil, c.h.users.Delete(c.r.Context(), c.id)
}

func issueToken(c *identityCall) (any, error) {
	body, err := c.body.object()
	if err != nil {
		return nil, err
	}
	lifetime, err := c.lifetime(body)
	if err != nil {
		return nil, err
	}
	scopes, err := c.scopes(body, "scopes")
	if err != nil {
		return nil, err
	}
	if len(scopes) == 0 {
		return nil, invalid("scopes", "The body's scopes are missing or empty: expected some of %s.", strings.Join(c.knownScopes(), ", "))
	}
	return orNil(c.token(c.h.users.Issue(c.r.Context(), c.id, scopes, lifetime)))
}

// orNil keeps a nil *T out of an interface.
func orNil[T any](v *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func revokeTokens(c *identityCall) (any, error) {
	return nil, c.h.users.Revoke(c.r.Context(), c.id)
}

// What a token is good for, and how long.

// tokenScopes are the scopes of tokens, and the versions that brought them.
var tokenScopes = []struct{ name, since string }{
	{"chat", firstVersion}, {"voip", firstVersion},
	{"chat.join", joinScopesVersion}, {"chat.join.limited", joinScopesVersion}, {"voip.join", joinScopesVersion},
}

// knownScopes returns the scopes of the request's version.
func (c *identityCall) knownScopes() []string {
	var known []string
	for _, s := range tokenScopes {
		if s.since <= c.version {
			known = append(known, s.name)
		}
	}
	return known
}

// scopes returns the scopes in a member of the body, each once.
func (c *identityCall) scopes(body object, member string) ([]string, error) {
	list, err := body.list(member)
	if err != nil {
		return nil, err
	}
	known := c.knownScopes()
	var scopes []string
	for i, s := range list {
		if !slices.Contains(known, s) {
			return nil, invalid(member, "The body's %s[%d] is %s, expected one of %s, which are what the api-version %s has.",
				member, i, excerpt(s), strings.Join(known, ", "), c.version)
		}
		if !slices.Contains(scopes, s) {
			scopes = append(scopes, s)
		}
	}
	return scopes, nil
}

// A token's life in minutes; the longest is the default.
const minLifetime, maxLifetime = 60, 1440

// lifetime returns how long a token is to live. Versions before 2022-10-01 do not know
// the member and so ignore it, whatever it holds, as they do any other.
func (c *identityCall) lifetime(body object) (time.Duration, error) {
	if c.version < lifetimeVersion {
		return maxLifetime * time.Minute, nil
	}
	minutes, err := body.integer("expiresInMinutes", minLifetime, maxLifetime, maxLifetime)
	return time.Duration(minutes) * time.Minute, err
}
