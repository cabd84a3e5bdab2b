package rest

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Users are those that the service keeps, as the identity API asks for them. Its
// functions may be called concurrently. They refuse with an *engine.Error, of
// CodeNotFound where there is no such user or assignment, and of CodeUnavailable where
// that cannot be told at present.
type Users interface {
	// Create makes a user.
	Create(ctx context.Context) (engine.UserID, error)
	// Named returns the user of a name, and makes one if there is none. A name is
	// "custom/" and what an application calls its user, or "entra/", the tenant, a slash
	// and the object id.
	Named(ctx context.Context, name string) (engine.UserID, error)
	// Issue signs a token for a user, with at least one scope, none of them twice, and a
	// lifetime of 60 to 1440 whole minutes.
	Issue(ctx context.Context, id engine.UserID, scopes []string, lifetime time.Duration) (token string, expires time.Time, err error)
	// IssueUntil is Issue with an end in place of a lifetime: at least a minute and at
	// most 24 hours ahead.
	IssueUntil(ctx context.Context, id engine.UserID, scopes []string, end time.Time) (token string, expires time.Time, err error)
	// Revoke ends all tokens that a user has.
	Revoke(ctx context.Context, id engine.UserID) error
	// Delete removes a user and ends all its tokens.
	Delete(ctx context.Context, id engine.UserID) error
	// Assignment returns what [Users.Assign] was told of an object of an Entra tenant.
	Assignment(ctx context.Context, tenant, object string) (principalType string, clientIDs []string, err error)
	// Assign lets an object of a tenant exchange its tokens that were issued through one of
	// the client applications, in place of those that were assigned before, if any were.
	// All ids are UUIDs in lower case, of the applications none to 250; principalType is
	// "user" or "resourceAccount". It must not keep clientIDs.
	Assign(ctx context.Context, tenant, object, principalType string, clientIDs []string) (created bool, err error)
	// Unassign takes an assignment back.
	Unassign(ctx context.Context, tenant, object string) error
}

// EntraUsers proves access tokens of users of Microsoft Entra ID, which the identity
// API exchanges.
type EntraUsers interface {
	// VerifyUser returns whose token it is. Claims hold "oid", "tid", "appid" (also where
	// the token calls it azp) and, one value for each scope, "scp"; Expires is the token's
	// end. An *engine.Error of CodeUnauthenticated refuses the token. It may be called
	// concurrently.
	VerifyUser(ctx context.Context, token string) (engine.Identity, error)
}

// IdentityOptions are the knobs of an [IdentityHandler]. Nil and zero mean the defaults.
type IdentityOptions struct {
	// Fallback gets the requests whose path is none of the identity API. Default: 404.
	Fallback http.Handler
	// EntraUsers proves the tokens to be exchanged. Without one, the operations that
	// exchange tokens answer 501.
	EntraUsers EntraUsers
	// Origin returns the scheme and host that a request addressed, as in [Options].
	Origin func(*http.Request) (scheme, host string)
	// AllowOrigin tells whose pages may send requests and read the replies, as in [Options].
	AllowOrigin func(origin string) bool
	// MaxBody is the largest body in bytes. Default: 64 KiB.
	MaxBody int
	// Limits are how many requests are carried out.
	Limits IdentityLimits
	// Logger gets one line for each refusal and failure; see transport/sampling for a
	// bound on them. Default: discard.
	Logger *slog.Logger
	// Observer is told what metrics count.
	Observer Observer
}

// IdentityHandler serves the identity API. It is safe for concurrent use.
type IdentityHandler struct {
	door   door
	users  Users
	entra  EntraUsers // may be nil
	limits limiters
}

var _ http.Handler = (*IdentityHandler)(nil)

// NewIdentityHandler returns the identity API of users, for callers whom auth lets in.
// It panics if users or auth is nil.
func NewIdentityHandler(users Users, auth Authorizer, o *IdentityOptions) *IdentityHandler {
	if users == nil || auth == nil {
		panic("rest: NewIdentityHandler needs users and an authorizer")
	}
	if o == nil {
		o = &IdentityOptions{}
	}
	h := &IdentityHandler{
		door: door{
			auth: auth, fallback: o.Fallback, origin: o.Origin, allowOrigin: o.AllowOrigin, maxBody: o.MaxBody, tooLarge: "rest.bodyBytes",
			logger: o.Logger, observer: o.Observer,
		},
		users: users, entra: o.EntraUsers, limits: o.Limits.limiters(),
	}
	h.door.setDefaults(64 << 10)
	return h
}

// identityPaths begin the paths of the identity API. Another path below /access/ may be
// anybody's.
var identityPaths = []string{"/identities/", "/teamsUser/", "/access/entra/", "/access/teamsExtension/"}

// wellKnown begins the paths of what is published about users' tokens, by another handler.
const wellKnown = "/identities/.well-known/"

func isIdentityPath(path string) bool {
	return path == "/identities" || !strings.HasPrefix(path, wellKnown) &&
		slices.ContainsFunc(identityPaths, func(p string) bool { return strings.HasPrefix(path, p) })
}

// ServeHTTP answers the requests whose path is /identities, or below it (but not below
// /identities/.well-known/), /teamsUser/, /access/teamsExtension/ or /access/entra/, and
// hands all others to the fallback. It sets r.Pattern to the operation's path template, as
// http.ServeMux would.
func (h *IdentityHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := sentPath(r.URL)
	if !isIdentityPath(path) {
		h.door.fallback.ServeHTTP(w, r)
		return
	}
	started := time.Now()
	w.Header()["Api-Supported-Versions"] = supportedIdentityVersions
	echoRequestID(w.Header(), r.Header)

	c := &identityCall{request: h.door.request(w, r, path), h: h}
	if asked, err := c.crossOrigin(); err != nil {
		c.status = c.fail(err)
	} else if asked {
		c.status = c.reply(http.StatusNoContent, nil)
	} else if reply, err := c.serve(); err != nil {
		c.status = c.fail(err)
	} else {
		c.reply(c.status, reply)
	}
	c.replied(c.status, started)
}

// echoRequestID tells a caller who asks for it which request is answered.
func echoRequestID(reply, request http.Header) {
	const most = 128 // SDKs send a UUID
	id := request.Get("X-Ms-Client-Request-Id")
	if strings.EqualFold(request.Get("X-Ms-Return-Client-Request-Id"), "true") && id != "" && len(id) <= most && isASCII(id) {
		reply.Set("X-Ms-Client-Request-Id", id)
	}
}

// The versions of the identity API that brought something. Versions compare as text.
const (
	firstVersion          = "2021-03-07"
	teamsUserVersion      = "2022-06-01"
	lifetimeVersion       = "2022-10-01" // expiresInMinutes
	joinScopesVersion     = "2023-10-01" // chat.join, chat.join.limited, voip.join
	customIDVersion       = "2025-03-02-preview"
	entraVersion          = customIDVersion
	teamsExtensionVersion = "2025-06-30"
)

// identityVersions are all versions of the identity API that are served, the latest
// last. Of the preview, customId and the exchange of Entra tokens are served, which no
// stable version has: its other operations would list what users' stores cannot list.
var identityVersions = []string{
	firstVersion, teamsUserVersion, lifetimeVersion, joinScopesVersion, customIDVersion, teamsExtensionVersion,
	"2026-07-22", "2026-09-23",
}

// supportedIdentityVersions is shared by all replies, and never changed.
var supportedIdentityVersions = []string{strings.Join(identityVersions, ", ")}

// identityCall is one request on its way.
type identityCall struct {
	request
	h *IdentityHandler

	// Set in this order by serve.
	op             *identityOperation
	version        string
	id             engine.UserID
	tenant, object string
	caller         engine.Principal // who proved itself to the authorizer,
	user           *entraUser       // or who shows a token to be exchanged

	status int // of the reply
}

// serve judges the request in the order that the package promises, and carries
// it out. It returns what the reply holds besides the status.
func (c *identityCall) serve() (any, error) {
	rt, values, err := identityRoutes.match(c.path)
	if err != nil {
		return nil, err
	}
	if c.op, err = rt.operation(c.r.Method); err != nil {
		return nil, err
	}
	c.operation, c.r.Pattern, c.status = c.op.name, c.op.path, c.op.success
	if err := c.parseVersion(); err != nil {
		return nil, err
	}
	if err := c.parseNames(rt, values); err != nil {
		return nil, err
	}
	if c.op.action != "" {
		c.caller, err = c.authorize(c.op.action, "")
	} else {
		c.user, err = c.bearer()
	}
	if err != nil {
		return nil, err
	}
	if c.op.limit != limitOfBody {
		if err := c.take(c.op.limit); err != nil {
			return nil, err
		}
	}
	return c.op.run(c)
}

// parseVersion reads the api-version, which must have the operation.
func (c *identityCall) parseVersion() error {
	q, err := parseQuery(c.r.URL.RawQuery, nil)
	if err != nil {
		return err
	}
	v, ok, err := q.one(apiVersion)
	switch {
	case err != nil:
		return err
	case !ok:
		return invalid(apiVersion.name, "The api-version is missing: expected one of %s.", c.op.versions())
	case !slices.Contains(identityVersions, v):
		return invalid(apiVersion.name, "The api-version %s is not supported: expected one of %s.", excerpt(v), c.op.versions())
	case !c.op.has(v):
		return invalid(apiVersion.name, "The api-version %s does not have %s: expected one of %s.", v, c.op.name, c.op.versions())
	}
	c.version = v
	return nil
}

// parseNames reads the variable parts of the path.
func (c *identityCall) parseNames(rt *route[identityOperation], values []string) error {
	for i, name := range rt.params {
		v, err := decodeSegment(values[i])
		if err != nil {
			return err
		}
		switch name {
		case "id":
			// Which spellings an id can have is for the users to know.
			if c.id, err = engine.ParseUserID(v); err != nil {
				return invalid(name, "The id %s is not valid: expected 1 to %d characters of UTF-8, not only white space, without control characters.", excerpt(v), engine.MaxUserID)
			}
		case "tenantId":
			c.tenant, err = parseEntraID(name, v)
		case "objectId":
			c.object, err = parseEntraID(name, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bearer proves the user whose own token is what the request shows.
func (c *identityCall) bearer() (*entraUser, error) {
	if n := len(c.r.Header["Authorization"]); n > 1 {
		return nil, engine.Errorf(engine.CodeUnauthenticated, "rest.userToken", "The request has %d Authorization headers: expected one.", n)
	}
	scheme, token, _ := strings.Cut(c.r.Header.Get("Authorization"), " ")
	if c.h.entra != nil && !strings.EqualFold(scheme, "Bearer") {
		return nil, engine.Errorf(engine.CodeUnauthenticated, "rest.userToken",
			"The access token of a user of Microsoft Entra ID is missing: expected it in the header Authorization, after Bearer.")
	}
	return c.h.verify(c.r.Context(), strings.TrimSpace(token))
}
