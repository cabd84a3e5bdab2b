package rest

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/fanfare/fanfare/engine"
)

// entraUser is who shows a token of Microsoft Entra ID to be exchanged.
type entraUser struct {
	tenant, object, app string // UUIDs in lower case
	scopes              []string
	expires             time.Time
}

// verify proves a user's token.
func (h *IdentityHandler) verify(ctx context.Context, token string) (*entraUser, error) {
	if h.entra == nil {
		return nil, engine.Errorf(engine.CodeUnsupported, "rest.entraUsers",
			"This node exchanges no tokens: it knows no tenant of Microsoft Entra ID by whose keys its users could be proven.")
	}
	proven, err := h.entra.VerifyUser(ctx, token)
	if err != nil {
		return nil, err
	}
	if time.Until(proven.Expires) < time.Minute {
		return nil, engine.Errorf(engine.CodeUnauthenticated, "rest.userToken",
			"The access token ends at %s, expected a minute of its life to be left.", proven.Expires.UTC().Format(time.RFC3339))
	}
	u := &entraUser{scopes: proven.Claims["scp"], expires: proven.Expires}
	for _, c := range []struct {
		name  string
		value *string
	}{{"tid", &u.tenant}, {"oid", &u.object}, {"appid", &u.app}} {
		if values := proven.Claims[c.name]; len(values) == 1 {
			*c.value, err = parseEntraID(c.name, values[0])
		}
		if err != nil || *c.value == "" {
			return nil, engine.Errorf(engine.CodeUnauthenticated, "rest.userToken",
				"The access token has the %s %s, expected a UUID, which all users' tokens of Microsoft Entra ID have.", c.name, excerpt(strings.Join(proven.Claims[c.name], " ")))
		}
	}
	return u, nil
}

// parseEntraID returns an id of Microsoft Entra ID in the one spelling that is compared:
// a UUID in lower case.
func parseEntraID(name, s string) (string, error) {
	if len(s) != len(uuid.UUID{})*2+4 || uuid.Validate(s) != nil {
		return "", invalid(name, "The %s %s is not valid: expected a UUID, 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.", name, excerpt(s))
	}
	return strings.ToLower(s), nil
}

// entraScope is a scope of Entra tokens, and what it becomes.
type entraScope struct{ entra, scope string }

// teamsScopes are those of https://auth.msft.communication.azure.com. Those of the Teams
// extension that are published today are about calls alone.
var teamsScopes = []entraScope{
	{"Teams.ManageChats", "chat"}, {"TeamsExtension.ManageChats", "chat"},
	{"Teams.ManageCalls", "voip"}, {"TeamsExtension.ManageCalls", "voip"},
}

// clientScopes are those of https://communication.azure.com/clients, which bear the names
// of what they become.
var clientScopes = []entraScope{
	{"Chat", "chat"}, {"Chat.Join", "chat.join"}, {"Chat.Join.Limited", "chat.join.limited"},
	{"VoIP", "voip"}, {"VoIP.Join", "voip.join"},
}

// exchange issues a token that ends with the Entra token, or after a day if that is sooner.
func (c *identityCall) exchange(u *entraUser, table []entraScope) (engine.UserID, *accessToken, error) {
	var scopes, known []string
	for _, s := range table {
		known = append(known, s.entra)
		if slices.Contains(u.scopes, s.entra) && !slices.Contains(scopes, s.scope) {
			scopes = append(scopes, s.scope)
		}
	}
	if len(scopes) == 0 {
		return "", nil, engine.Errorf(engine.CodeForbidden, "rest.entraScopes", "The access token of Microsoft Entra ID has the scopes %s, expected at least one of %s.",
			excerpt(strings.Join(u.scopes, " ")), strings.Join(known, ", "))
	}
	id, err := c.h.users.Named(c.r.Context(), "entra/"+u.tenant+"/"+u.object)
	if err != nil {
		return "", nil, err
	}
	end := u.expires
	if most := time.Now().Add(24 * time.Hour); end.After(most) {
		end = most
	}
	token, err := c.token(c.h.users.IssueUntil(c.r.Context(), id, scopes, end))
	return id, token, err
}

// exchangeTeamsUser is for servers, which show whose token it is that they exchange.
func exchangeTeamsUser(c *identityCall) (any, error) {
	body, err := c.body.object()
	if err != nil {
		return nil, err
	}
	var token, app, object string
	for _, m := range []struct {
		name, what string
		value      *string
	}{
		{"token", "the access token of a user of Microsoft Entra ID", &token},
		{"appId", "the client application that the token was issued through", &app},
		{"userId", "the user's object id", &object},
	} {
		var ok bool
		if *m.value, ok, err = body.text(m.name); err != nil {
			return nil, err
		} else if !ok {
			return nil, invalid(m.name, "The body's %s is missing: expected %s.", m.name, m.what)
		}
	}
	u, err := c.h.verify(c.r.Context(), token)
	switch {
	case err != nil && engine.CodeOf(err) == engine.CodeUnauthenticated:
		e := *asError(err)
		e.Target = "token"
		// What the service says, as its SDKs' recordings have it; wrong ids are 400 there.
		return nil, &refusal{
			status: http.StatusUnauthorized, code: "InvalidAccessToken", words: "Provided access token is not valid.", err: &e,
		}
	case err != nil:
		return nil, err
	}
	if !strings.EqualFold(app, u.app) {
		return nil, invalid("appId", "The body's appId is %s, expected the token's appid, %s.", excerpt(app), u.app)
	}
	if !strings.EqualFold(object, u.object) {
		return nil, invalid("userId", "The body's userId is %s, expected the token's oid, %s.", excerpt(object), u.object)
	}
	_, issued, err := c.exchange(u, teamsScopes)
	return orNil(issued, err)
}

// exchangeTeamsExtension is for users themselves, where they are assigned.
func exchangeTeamsExtension(c *identityCall) (any, error) { return c.exchangeOwn(teamsScopes) }

// exchangeEntra is the same for the scopes that SDKs ask for unless told otherwise. The
// service keeps assignments of its own for it, and lists them, which the users here
// cannot be; those of the Teams extension count instead.
func exchangeEntra(c *identityCall) (any, error) { return c.exchangeOwn(clientScopes) }

// exchangeOwn issues a token to the user whose own token the request shows.
func (c *identityCall) exchangeOwn(table []entraScope) (any, error) {
	// Members are for versions to come; whether it is an object at all is not.
	if _, err := c.body.object(); err != nil {
		return nil, err
	}
	_, clients, err := c.h.users.Assignment(c.r.Context(), c.user.tenant, c.user.object)
	if err != nil && engine.CodeOf(err) != engine.CodeNotFound {
		return nil, err
	}
	if !slices.Contains(clients, c.user.app) {
		return nil, engine.Errorf(engine.CodeForbidden, "rest.assignment",
			"The object %s of the tenant %s has no assignment that names the client application %s, through which its token was issued.",
			c.user.object, c.user.tenant, c.user.app)
	}
	id, issued, err := c.exchange(c.user, table)
	if err != nil {
		return nil, err
	}
	return &identityReply{Identity: identity{ID: id}, AccessToken: issued}, nil
}

// Assignments.

// assignment is who may exchange tokens of which applications ("TeamsExtensionAssignmentResponse").
type assignment struct {
	ObjectID      string   `json:"objectId"`
	TenantID      string   `json:"tenantId"`
	PrincipalType string   `json:"principalType"`
	ClientIDs     []string `json:"clientIds"`
}

// maxClients is how many client applications an assignment may name.
const maxClients = 250

// principalTypes are the kinds of principals. The last word is that of the service's
// articles for what its description calls the second.
var principalTypes = map[string]string{"user": "user", "resourceAccount": "resourceAccount", "teamsResourceAccount": "resourceAccount"}

func getAssignment(c *identityCall) (any, error) {
	kind, clients, err := c.h.users.Assignment(c.r.Context(), c.tenant, c.object)
	return orNil(c.assignment(kind, clients), err)
}

func (c *identityCall) assignment(kind string, clients []string) *assignment {
	if clients == nil {
		clients = []string{}
	}
	return &assignment{c.object, c.tenant, kind, clients}
}

func putAssignment(c *identityCall) (any, error) {
	body, err := c.body.object()
	if err != nil {
		return nil, err
	}
	word, ok, err := body.text("principalType")
	if err != nil {
		return nil, err
	}
	kind := principalTypes[word]
	if kind == "" {
		if !ok {
			return nil, invalid("principalType", "The body's principalType is missing: expected user or resourceAccount.")
		}
		return nil, invalid("principalType", "The body's principalType is %s, expected user or resourceAccount.", excerpt(word))
	}
	list, err := body.list("clientIds")
	if err != nil {
		return nil, err
	}
	if len(list) > maxClients {
		return nil, invalid("clientIds", "The body's clientIds are %d, expected at most %d.", len(list), maxClients)
	}
	var clients []string
	for _, s := range list {
		id, err := parseEntraID("clientIds", s)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(clients, id) {
			clients = append(clients, id)
		}
	}
	created, err := c.h.users.Assign(c.r.Context(), c.tenant, c.object, kind, clients)
	if created {
		c.status = http.StatusCreated
	}
	return orNil(c.assignment(kind, clients), err)
}

func deleteAssignment(c *identityCall) (any, error) {
	return nil, c.h.users.Unassign(c.r.Context(), c.tenant, c.object)
}
