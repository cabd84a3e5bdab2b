package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Signer signs connection ids, so that a server can tell that an event comes
// from this service. Signature returns the value of ce-signature, and an empty
// string for none. It may be called concurrently and must not block.
type Signer interface {
	Signature(connectionID string) string
}

// TokenSource supplies bearer tokens. Token returns one that is valid now, for
// the resource (an App ID URI or a GUID) that becomes its audience. It is
// called for every event, concurrently, and should answer from a cache.
type TokenSource interface {
	Token(ctx context.Context, resource string) (string, error)
}

// SecretSource reads secrets that a URL template refers to by
// {@Microsoft.KeyVault(SecretUri=...)}. It is called for every event,
// concurrently, and should answer from a cache. Its errors must not hold the secret.
type SecretSource interface {
	Secret(ctx context.Context, uri string) (string, error)
}

// Options are the knobs of a [Client]. Nil and zero mean the defaults.
type Options struct {
	// Origin is the host by which servers know this service, with a port if it
	// has one. WebHook-Request-Origin is sent without the port; a server may grant
	// either form. Default "localhost".
	Origin string
	// Signer makes ce-signature; nil leaves the header out.
	Signer Signer
	// Tokens makes every event carry a bearer token for Resource (managed
	// identity); nil sends none. Over plain http such events are sent to loopback
	// addresses only.
	Tokens   TokenSource
	Resource string
	// Secrets reads what the URL template refers to. Without it, a template with
	// a reference is an error.
	Secrets SecretSource
	// Timeout bounds an event from the call to the headers of the reply, retries
	// and their waits included. The reply's body has as much again. Default 100 s.
	Timeout time.Duration
	// MaxCalls bounds the requests under way; further events wait, within their
	// Timeout. Default 1024.
	MaxCalls int
	// TLS configures connections to servers. Default: the system's trust.
	TLS *tls.Config
	// Wrap puts a RoundTripper around the one that this package made, for traces
	// say. The context of a request is that of the event. What it returns must
	// send through base, since base is what refuses forbidden addresses. The
	// names of ce- headers are spelled as on the wire, which is not how
	// http.Header.Get looks for them.
	Wrap func(base http.RoundTripper) http.RoundTripper
	// Observe is called after each HTTP exchange, for metrics. It must not block.
	Observe func(Attempt)
	// Logger gets a line when a validation in the background changes its mind, and
	// at debug level one for each retry. All other failures are returned. Default: discard.
	Logger *slog.Logger
}

const (
	defaultTimeout = 100 * time.Second
	defaultCalls   = 1024
)

// Attempt is one HTTP exchange, as [Options.Observe] sees it.
type Attempt struct {
	Hub engine.HubName
	// Event is "connect", "connected", "disconnected", "user" or "validate".
	Event string
	// Number counts the attempts of one event, or of one validation, from 1.
	Number int
	// Status is the HTTP status, 0 where none came.
	Status int
	// Outcome is "ok", "event.status" for a status other than 2xx, or the rule of the error.
	Outcome string
	// Took is the time from the request to the end of the reply.
	Took time.Duration
}

// Stats are the counters of a [Client]: first a gauge, then totals since it was made.
type Stats struct {
	InFlight    int64 // HTTP exchanges under way
	Events      int64 // events that were to be sent
	Failed      int64 // of these, how many failed
	Attempts    int64 // HTTP exchanges begun, for events and validations
	Retries     int64 // attempts after which another one was due
	Validations int64 // checks of a validation URL
}

// Client sends events to one event handler endpoint. Its methods may be called
// concurrently. It must be closed.
type Client struct {
	// Fixed at birth.
	template   *template
	origin     string // host or host:port
	originHost string
	signer     Signer
	tokens     TokenSource
	resource   string
	source     SecretSource
	timeout    time.Duration
	observe    func(Attempt)
	log        *slog.Logger
	base       *http.Transport
	rt         http.RoundTripper
	slots      chan struct{}
	life       context.Context // ends with Close
	end        context.CancelFunc

	events, failed, attempts, retries, validations, inFlight atomic.Int64

	checks sync.WaitGroup // validations under way; added to with mu held and closed false

	mu     sync.Mutex // guards the rest; held for a few lines only
	gates  map[string]*gate
	closed bool
	calls  int           // events under way
	idle   chan struct{} // closed when calls becomes 0; nil while nobody waits
}

var _ engine.EventHandler = (*Client)(nil)

// New returns a client for the endpoint that the URL template describes:
// an absolute http or https URL that may hold {hub} and {event} in its path and
// query, and {@Microsoft.KeyVault(SecretUri=...)} anywhere. It does no I/O. An
// error is an *[engine.Error] that shows nothing of the template's query.
// (Azure Web PubSub, event handler settings.)
func New(urlTemplate string, o *Options) (*Client, error) {
	if o == nil {
		o = &Options{}
	}
	t, err := parseTemplate(urlTemplate)
	if err != nil {
		return nil, err
	}
	if len(t.refs) > 0 && o.Secrets == nil {
		return nil, badTemplate(engine.CodeUnsupported, "The URL template of the event handler refers to a Key Vault secret, but no source of secrets is configured.",
			"configure one, or write the value itself into the template")
	}
	if o.Resource != "" && o.Tokens == nil {
		return nil, &engine.Error{Code: engine.CodeUnsupported, Rule: "event.token", Target: "auth",
			Message: "The event handler asks for a managed identity, but no source of tokens is configured.",
			Detail:  "resource " + o.Resource + "; configure an identity, or no authentication for this handler"}
	}
	if o.Tokens != nil && t.scheme == "http" {
		if err := t.loopback(); err != nil {
			return nil, err
		}
	}
	c := &Client{
		template: t, signer: o.Signer, tokens: o.Tokens, resource: o.Resource, source: o.Secrets,
		timeout: o.Timeout, observe: o.Observe, log: o.Logger, gates: map[string]*gate{},
	}
	if c.origin, c.originHost, err = parseOrigin(o.Origin); err != nil {
		return nil, err
	}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	calls := o.MaxCalls
	if calls <= 0 {
		calls = defaultCalls
	}
	c.slots = make(chan struct{}, calls)
	c.base = newTransport(calls, o.TLS)
	c.rt = c.base
	if o.Wrap != nil {
		c.rt = o.Wrap(c.base)
	}
	c.life, c.end = context.WithCancel(context.Background())
	return c, nil
}

// loopback refuses a literal address that is not a loopback address. What a
// name leads to, the guard sees when it is dialed.
func (t *template) loopback() error {
	u, err := t.render(placeholders(t.refs), "hub", "event")
	if err != nil {
		return err
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && !a.Unmap().IsLoopback() {
		e := errBearerInClear(u.Host)
		e.Code = engine.CodeInvalid
		return e
	}
	return nil
}

// parseOrigin splits host or host:port. An IPv6 host keeps its brackets, as it
// does in the URLs that servers compare it with.
func parseOrigin(s string) (origin, host string, err error) {
	if s == "" {
		s = "localhost"
	}
	host = s
	if h, port, serr := net.SplitHostPort(s); serr == nil {
		host = strings.TrimSuffix(s, ":"+port)
		if _, perr := strconv.ParseUint(port, 10, 16); perr != nil || h == "" {
			host = ""
		}
	}
	if host == "" || !isPrintable(s) || strings.ContainsAny(s, " \t/,?#@") || strings.Contains(host, ":") && host[0] != '[' {
		return "", "", &engine.Error{Code: engine.CodeInvalid, Rule: "event.origin", Target: "origin",
			Message: "The origin that event handlers are told is not valid.", Detail: "it should be a host name, or a host name and a port, and not a URL"}
	}
	return s, host, nil
}

// String returns the URL template up to its query.
func (c *Client) String() string { return c.template.shown }

// Stats returns a snapshot of the counters.
func (c *Client) Stats() Stats {
	return Stats{
		InFlight: c.inFlight.Load(), Events: c.events.Load(), Failed: c.failed.Load(),
		Attempts: c.attempts.Load(), Retries: c.retries.Load(), Validations: c.validations.Load(),
	}
}

// Connect asks the server whether a client may connect. Its status, where it
// is not 2xx, is the error's Status.
func (c *Client) Connect(ctx context.Context, e *engine.ConnectEvent) (*engine.ConnectReply, error) {
	body, err := connectBody(e)
	if err != nil {
		return nil, err
	}
	var reply *engine.ConnectReply
	ev := systemEvent(&e.EventContext, engine.SystemConnect, body)
	err = c.post(ctx, ev, func(a *answer) error {
		ch, err := a.change(true)
		if err != nil {
			return err
		}
		r, err := decodeConnect(a.body)
		if err != nil {
			return err
		}
		own, err := ev.own(a)
		if err != nil {
			return badReply("The event handler's reply to connect is not what the client's protocol takes.", "", err)
		}
		if r == nil && ch.empty() && own == nil {
			return nil
		}
		if r == nil {
			r = &engine.ConnectReply{}
		}
		r.State, r.Details = ch.apply(e.State), own
		reply = r
		return nil
	})
	return reply, err
}

// Connected tells the server that a connection is open. Of a reply only the
// cookies count.
func (c *Client) Connected(ctx context.Context, e *engine.ConnectedEvent) (*engine.NotifyReply, error) {
	return c.notify(ctx, systemEvent(&e.EventContext, engine.SystemConnected, []byte("{}")))
}

// Disconnected tells the server that a connection has ended.
func (c *Client) Disconnected(ctx context.Context, e *engine.DisconnectedEvent) (*engine.NotifyReply, error) {
	body, err := disconnectedBody(e.Reason)
	if err != nil {
		return nil, err
	}
	return c.notify(ctx, systemEvent(&e.EventContext, engine.SystemDisconnected, body))
}

func (c *Client) notify(ctx context.Context, e *event) (*engine.NotifyReply, error) {
	var reply *engine.NotifyReply
	err := c.post(ctx, e, func(a *answer) error {
		ch, err := a.change(false)
		if err == nil && !ch.empty() {
			reply = &engine.NotifyReply{UpdateState: ch.update()}
		}
		return err
	})
	return reply, err
}

// UserEvent hands a client's event to the server and returns its answer.
func (c *Client) UserEvent(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
	var reply *engine.EventReply
	ev := userEvent(e)
	err := c.post(ctx, ev, func(a *answer) error {
		ch, err := a.change(true)
		if err != nil {
			return err
		}
		if ev.exchange != nil {
			reply = &engine.EventReply{UpdateState: ch.update(), Attributes: ev.exchange.ReadReply(a.status, a.header, a.body)}
			return nil
		}
		m, err := a.metadata()
		if err != nil {
			return err
		}
		p, err := a.message(m)
		if err != nil {
			return err
		}
		if p != nil || !ch.empty() {
			reply = &engine.EventReply{Payload: p, Metadata: m, UpdateState: ch.update()}
		}
		return nil
	})
	return reply, err
}

// post sends an event and hands a successful answer to read.
func (c *Client) post(ctx context.Context, e *event, read func(*answer) error) error {
	if err := c.enter(); err != nil {
		return err
	}
	defer c.leave()
	c.events.Add(1)
	if e.label != labelUser {
		if err := e.say(); err != nil {
			c.failed.Add(1)
			return err
		}
	}
	ctx, d := c.withDeadline(ctx, c.timeout)
	defer d.release()
	a, cl, err := c.send(ctx, d, e)
	if err == nil && !a.ok() {
		err = &engine.Error{Code: engine.CodeInternal, Rule: "event.status", Status: a.status, Reply: e.refusal(a),
			Message: "The event handler did not accept the event.",
			Detail:  c.detail(cl, fmt.Sprintf("it answered %d, in attempt %d; 2xx would pass", a.status, cl.attempts))}
	}
	if err == nil {
		if err = read(a); err != nil {
			if re := new(engine.Error); errors.As(err, &re) {
				re.Detail = c.detail(cl, re.Detail)
			}
		}
	}
	if err != nil {
		c.failed.Add(1)
	}
	return err
}

// send does all that precedes the answer to an event.
func (c *Client) send(ctx context.Context, d *deadline, e *event) (*answer, *call, error) {
	st := stateOf(e.State)
	cl := &call{hub: e.Hub, label: e.label, what: e.name, method: http.MethodPost, body: e.body, bounded: true, wantBody: true, wantRefusal: e.minds(), left: e.Left}
	if e.label == labelUser {
		cl.what = "user event " + e.name
	}
	// Before anything leaves: an event that cannot be sent need not be asked about.
	var err error
	if cl.header, err = c.eventHeaders(e, st); err != nil {
		return nil, cl, err
	}
	if cl.target, err = c.template.resolve(ctx, c.source, string(e.Hub), e.name); err != nil {
		return nil, cl, c.orEnded(ctx, cl, err)
	}
	ctx = c.confine(ctx, cl.target)
	if err = c.allowed(ctx, e, cl.target); err != nil {
		return nil, cl, c.orEnded(ctx, cl, err)
	}
	if c.tokens != nil {
		token, err := c.tokens.Token(ctx, c.resource)
		if err == nil && (token == "" || !isPrintable(token)) {
			err = errBadToken
		}
		if err != nil {
			return nil, cl, c.orEnded(ctx, cl, &engine.Error{Code: engine.CodeInternal, Rule: "event.token",
				Message: "There is no token to show to the event handler.", Detail: c.detail(cl, "resource "+c.resource), Err: err})
		}
		cl.header["Authorization"] = []string{"Bearer " + token}
		t := *cl.target // a validation under way beside this event reads the other one
		t.hidden = append(t.hidden[:len(t.hidden):len(t.hidden)], token)
		cl.target = &t
	}
	if cookies := cookieHeader(st.cookies, cl.target.url, time.Now()); cookies != "" {
		cl.header["Cookie"] = []string{cookies}
	}
	a, err := c.exchange(ctx, d, cl)
	return a, cl, err
}

// confine makes the guard refuse what a bearer token must not be sent to. It
// holds for everything sent to a handler that gets tokens, since connections
// are shared.
func (c *Client) confine(ctx context.Context, t *target) context.Context {
	if c.tokens != nil && t.url.Scheme == "http" {
		return context.WithValue(ctx, loopbackOnly{}, true)
	}
	return ctx
}

// orEnded returns err, or that ctx is over where this is why err came about.
func (c *Client) orEnded(ctx context.Context, cl *call, err error) error {
	if ctx.Err() != nil {
		return c.ended(ctx, cl, "before it was sent")
	}
	return err
}

// enter counts an event in; leave counts it out.
func (c *Client) enter() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.closedError()
	}
	c.calls++
	return nil
}

func (c *Client) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls--
	if c.calls == 0 && c.idle != nil {
		close(c.idle)
		c.idle = nil
	}
}

// waitIdle returns once no event is under way, or with ctx's error.
func (c *Client) waitIdle(ctx context.Context) error {
	c.mu.Lock()
	if c.calls == 0 {
		c.mu.Unlock()
		return nil
	}
	if c.idle == nil {
		c.idle = make(chan struct{})
	}
	idle := c.idle
	c.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown waits until no event is under way, or until ctx ends, and then
// closes the client. Take it out of its rules first: events that still come
// are served, and waited for. It may be called again.
func (c *Client) Shutdown(ctx context.Context) error {
	err := c.waitIdle(ctx)
	c.Close()
	return err
}

// Close ends the events under way with an error, waits for them, and lets the
// connections go. Later events fail. It always returns nil and may be called again.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.waitIdle(context.Background()) //nolint:errcheck // this context does not end
	c.checks.Wait()
	c.base.CloseIdleConnections()
	return nil
}
