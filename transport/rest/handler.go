package rest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Authorizer says which application server is calling. It is asked once for
// each request whose path, api-version and names are in order, except for the
// health operation.
//
// An *engine.Error of CodeUnauthenticated refuses with 401, naming its rule; an
// error of another code is answered with that code's status. Authorize may be
// called concurrently. It must not keep r, nor call r.BodyHash after it returned.
type Authorizer interface {
	Authorize(ctx context.Context, r engine.ServerRequest) (engine.Principal, error)
}

// TokenIssuer signs the client access tokens of :generateToken. audience is the
// URL that the client will address. lifetime is at least a minute and at most
// some 292 years, which is what a time.Duration holds. It may be called
// concurrently.
type TokenIssuer interface {
	IssueClientToken(ctx context.Context, id engine.Identity, audience string, lifetime time.Duration) (string, error)
}

// Options are the knobs of a [Handler]. Nil and zero mean the defaults.
type Options struct {
	// Fallback gets the requests whose path is not below /api/. Default: 404.
	Fallback http.Handler
	// Tokens signs client access tokens. Without one, :generateToken answers 501.
	Tokens TokenIssuer
	// PublicEndpoint is the URL, perhaps with a path, under which servers and
	// clients know this service: the links and the audiences of tokens begin
	// with it. Default: what the request addressed.
	PublicEndpoint string
	// Origin returns the scheme ("http" or "https") and host that a request
	// addressed. A caller who trusts a proxy looks into its headers here.
	// Default: by whether the request came over TLS, and its Host header.
	Origin func(*http.Request) (scheme, host string)
	// AllowOrigin tells whether pages of an origin, such as https://app.example.com,
	// may send requests and read the replies (CORS). Default: none may.
	AllowOrigin func(origin string) bool
	// MaxBody is the largest body in bytes. Default: the engine's limit for one
	// message.
	MaxBody int
	// PagingKey authenticates continuation tokens. Nodes that serve one
	// endpoint share it. Default: random, so that tokens end with the process.
	PagingKey []byte
	// Logger gets one line for each refusal and failure; see transport/sampling for a
	// bound on them. Default: discard.
	Logger *slog.Logger
	// Observer is told what metrics count.
	Observer Observer
}

// Handler serves the data plane. It is safe for concurrent use.
type Handler struct {
	door     door
	engine   *engine.Engine
	tokens   TokenIssuer
	endpoint string // without a slash at its end; empty: what is addressed
	pages    pager
}

var _ http.Handler = (*Handler)(nil)

// NewHandler returns the data plane of e, for callers whom auth lets in. It
// panics if e or auth is nil.
func NewHandler(e *engine.Engine, auth Authorizer, o *Options) *Handler {
	if e == nil || auth == nil {
		panic("rest: NewHandler needs an engine and an authorizer")
	}
	if o == nil {
		o = &Options{}
	}
	h := &Handler{
		door: door{
			auth: auth, fallback: o.Fallback, origin: o.Origin, allowOrigin: o.AllowOrigin, maxBody: o.MaxBody, tooLarge: "limits.messageBytes",
			logger: o.Logger, observer: o.Observer,
		},
		engine: e, tokens: o.Tokens, endpoint: strings.TrimRight(o.PublicEndpoint, "/"),
	}
	h.door.setDefaults(e.Limits().MessageBytes)
	key := o.PagingKey
	if len(key) == 0 {
		key = make([]byte, sha256.Size)
		rand.Read(key) // never fails
	}
	h.pages = pager{key}
	return h
}

// supportedVersions is shared by all replies, and never changed.
var supportedVersions = []string{strings.Join(apiVersions, ", ")}

// ServeHTTP answers requests below /api/ and hands all others to the fallback.
// It sets r.Pattern to the operation's path template, as http.ServeMux would.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := sentPath(r.URL)
	if path != "/api" && !strings.HasPrefix(path, "/api/") {
		h.door.fallback.ServeHTTP(w, r)
		return
	}
	started := time.Now()
	// The constant is in canonical form, so this is Header.Set without its slice.
	w.Header()["Api-Supported-Versions"] = supportedVersions

	c := &call{request: h.door.request(w, r, path), h: h}
	var status int
	if asked, err := c.crossOrigin(); err != nil {
		status = c.fail(err)
	} else if asked {
		status = c.reply(http.StatusNoContent, nil)
	} else if reply, err := c.serve(); err != nil {
		status = c.fail(err)
	} else {
		status = c.reply(c.op.success, reply)
	}
	c.replied(status, started)
}

// call is one request on its way.
type call struct {
	request
	h *Handler

	// Set in this order by serve.
	op         *operation
	query      query
	hubName    engine.HubName
	group      engine.GroupName
	user       engine.UserID
	conn       engine.ConnID
	permission engine.Permission
	ttl        time.Duration
}

// serve judges the request in the order that the package promises, and carries
// it out. It returns what the reply holds besides the operation's own status.
func (c *call) serve() (any, error) {
	rt, values, err := routes.match(c.path)
	if err != nil {
		return nil, err
	}
	if c.op, err = rt.operation(c.r.Method); err != nil {
		return nil, err
	}
	c.operation, c.r.Pattern = c.op.name, c.op.path
	if c.query, err = parseQuery(c.r.URL.RawQuery, c.op.params); err != nil {
		return nil, err
	}
	if err := c.query.checkVersion(); err != nil {
		return nil, err
	}
	if err := c.parseNames(rt, values); err != nil {
		return nil, err
	}
	seconds, err := c.query.integer(messageTTL, 0, 300, 0)
	if err != nil {
		return nil, err
	}
	c.ttl = time.Duration(seconds) * time.Second

	if c.op.action != "" {
		if _, err := c.authorize(c.op.action, c.hubName); err != nil {
			return nil, err
		}
	}
	return c.op.run(c)
}

// parseNames reads the variable parts of the path.
func (c *call) parseNames(rt *route[operation], values []string) (err error) {
	for i, name := range rt.params {
		var v string
		if v, err = decodeSegment(values[i]); err != nil {
			return err
		}
		switch name {
		case "hub":
			c.hubName, err = engine.ParseHubName(v)
		case "group":
			c.group, err = engine.ParseGroupName(v)
		case "userId":
			c.user, err = engine.ParseUserID(v)
		case "connectionId":
			c.conn, err = engine.ParseConnID(v)
		case "permission":
			c.permission, err = parsePermission(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hub returns the hub of the request. It is called only once the caller is
// known to have a say in it, since it makes hubs.
func (c *call) hub() *engine.Hub { return c.h.engine.Hub(c.hubName) }

// endpoint returns the URL under which the caller knows this service, without
// a slash at its end.
func (c *call) endpoint() string {
	if c.h.endpoint != "" {
		return c.h.endpoint
	}
	scheme, host := c.door.origin(c.r)
	// Whatever a handler in front has cut off (http.StripPrefix) belongs to it.
	sent, _, _ := strings.Cut(sentTarget(c.r), "?")
	base, ok := strings.CutSuffix(sent, c.path)
	if !ok {
		base = ""
	}
	return scheme + "://" + host + base
}
