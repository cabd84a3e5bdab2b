package authn

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// Authenticator proves clients. See the package's page for the three answers it
// may give. It is called concurrently.
type Authenticator interface {
	Authenticate(ctx context.Context, c engine.Credentials) (engine.Identity, error)
}

// Authorizer proves application servers, likewise.
type Authorizer interface {
	Authorize(ctx context.Context, r engine.ServerRequest) (engine.Principal, error)
}

// ErrNotMine is in the chain of an error that says: these credentials are not of
// the kind that this scheme knows, ask the next one.
var ErrNotMine = errors.New("credentials of another kind")

// NotMine makes e such an error. e is the refusal that the caller sees if no
// scheme, or only this one, was there to be asked.
func NotMine(e *engine.Error) error {
	e.Err = ErrNotMine
	return e
}

// Clients returns an authenticator that asks schemes in order and takes the
// first answer that is not [NotMine]. If none knows the credentials, the refusal
// is that of the first scheme, which is the one to put first for it; what the
// others said is in its Detail. The result is itself a scheme.
func Clients(schemes ...Authenticator) Authenticator { return clients(schemes) }

type clients []Authenticator

func (s clients) Authenticate(ctx context.Context, c engine.Credentials) (engine.Identity, error) {
	var no nobody
	for _, scheme := range s {
		id, err := scheme.Authenticate(ctx, c)
		if err == nil || !errors.Is(err, ErrNotMine) {
			return id, err
		}
		no.add(err)
	}
	return engine.Identity{}, no.refusal()
}

// Servers is for application servers what [Clients] is for clients, but that the
// refusal's message says what each scheme would have taken.
func Servers(schemes ...Authorizer) Authorizer { return servers(schemes) }

type servers []Authorizer

func (s servers) Authorize(ctx context.Context, r engine.ServerRequest) (engine.Principal, error) {
	no := nobody{aloud: true}
	for _, scheme := range s {
		p, err := scheme.Authorize(ctx, r)
		if err == nil || !errors.Is(err, ErrNotMine) {
			return p, err
		}
		no.add(err)
	}
	return engine.Principal{}, no.refusal()
}

// nobody gathers the answers of schemes none of which knew the credentials.
type nobody struct {
	aloud    bool // whether the caller hears of all
	first    *engine.Error
	messages []string // each once, but for the first one's
	others   []string
}

func (n *nobody) add(err error) {
	var e *engine.Error
	if !errors.As(err, &e) {
		e = &engine.Error{Code: engine.CodeUnauthenticated, Rule: "authn.none", Message: "No scheme knows these credentials.", Detail: err.Error(), Err: err}
	}
	if n.first == nil {
		n.first = e
		return
	}
	if e.Message != n.first.Message && !slices.Contains(n.messages, e.Message) {
		n.messages = append(n.messages, e.Message)
	}
	n.others = append(n.others, strings.TrimSpace(e.Rule+": "+e.Message+" "+e.Detail))
}

func (n *nobody) refusal() error {
	if n.first == nil {
		return NotMine(&engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "authn.none",
			Message: "This node is set up to accept no credentials at all.",
		})
	}
	if len(n.others) == 0 {
		return n.first
	}
	e := *n.first
	if n.aloud && len(n.messages) > 0 {
		e.Message += " Or: " + strings.Join(n.messages, " Or: ")
	}
	e.Detail = strings.TrimSpace(e.Detail + " Also asked: " + strings.Join(n.others, "; "))
	return &e
}

// Anonymous admits clients that show no token, to the hubs that allow it. Such a
// client has no user, roles or groups but those that a connect handler gives.
//
// Whoever shows a token is not anonymous, so a bad one is refused rather than
// ignored. Put this scheme last: a client that shows no token but something
// else, such as a certificate, belongs to another.
type Anonymous struct {
	// Allow reports whether a hub admits anonymous clients. It is asked each
	// time, concurrently. Nil means that none does.
	Allow func(engine.HubName) bool
	// Besides says what else than a token opens a hub, such as "a client
	// certificate", for the refusal of those who show nothing. Nil and an empty
	// answer mean that nothing does.
	Besides func(engine.HubName) string
}

// Authenticate implements [Authenticator].
func (a Anonymous) Authenticate(_ context.Context, c engine.Credentials) (engine.Identity, error) {
	if c.Token != "" {
		return engine.Identity{}, NotMine(&engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "anonymous.token",
			Message: "A client with a token is not anonymous.",
		})
	}
	if a.Allow == nil || !a.Allow(c.Hub) {
		or := ""
		if a.Besides != nil {
			if what := a.Besides(c.Hub); what != "" {
				or = ", or show " + what
			}
		}
		return engine.Identity{}, &engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "token.missing",
			Message: "No access token was sent, and hub " + string(c.Hub) + " admits no anonymous clients. " +
				"Send a token in the access_token query parameter or in an Authorization: Bearer header" + or + ".",
			Detail: "The hub's anonymousConnectPolicy is deny; allow would have admitted this client.",
		}
	}
	return engine.Identity{Claims: map[string][]string{}, Scheme: "Anonymous"}, nil
}
