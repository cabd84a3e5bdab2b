package authn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"

	"github.com/fanfare/fanfare/engine"
)

// GuardOptions are the knobs of [Guard]. Nil and zero mean the defaults.
type GuardOptions struct {
	// MaxBody is how many bytes a body may have that a scheme asks the hash of.
	// Default 1 MiB. Other bodies are not looked at.
	MaxBody int
	// Origin returns the scheme ("http" or "https") and the host that the caller
	// addressed, which behind a proxy only its headers tell. The default takes
	// those of the request itself.
	Origin func(*http.Request) (scheme, host string)
	// Logger hears of refusals, at level Debug. Default: nobody does.
	Logger *slog.Logger
}

// Guard returns a handler that hands on the requests which a proves, and refuses
// all others. [Caller] tells next who is calling; what that caller may do is for
// next to ask. A body of which the hash was needed is read again from memory.
//
// A refusal is what Azure Communication Services answers: 401 with
//
//	{"error":{"code":"Denied","message":"Denied by the resource provider.","innererror":{...}}}
//
// for credentials that do not hold, where innererror has the rule as its code and
// what would have passed as its message; 403 for those that do not suffice, 400 and
// 413 for bodies that cannot be read, 503 where nobody can judge at present.
//
// It panics if a or next is nil.
func Guard(a Authorizer, next http.Handler, o *GuardOptions) http.Handler {
	if a == nil || next == nil {
		panic("authn: Guard needs an authorizer and a handler")
	}
	g := &guard{auth: a, next: next}
	if o != nil {
		g.opts = *o
	}
	if g.opts.MaxBody <= 0 {
		g.opts.MaxBody = 1 << 20
	}
	if g.opts.Origin == nil {
		g.opts.Origin = func(r *http.Request) (scheme, host string) {
			if r.TLS != nil {
				return "https", r.Host
			}
			return "http", r.Host
		}
	}
	if g.opts.Logger == nil {
		g.opts.Logger = slog.New(slog.DiscardHandler)
	}
	return g
}

type guard struct {
	auth Authorizer
	next http.Handler
	opts GuardOptions
}

type callerKey struct{}

// Caller returns who is calling, in a handler behind a [Guard].
func Caller(ctx context.Context) (engine.Principal, bool) {
	p, ok := ctx.Value(callerKey{}).(engine.Principal)
	return p, ok
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	scheme, host := g.opts.Origin(r)
	remote, _ := netip.ParseAddrPort(r.RemoteAddr) // zero where it is not one
	var body []byte
	hash := sync.OnceValues(func() (sum []byte, err error) {
		if body, err = g.read(w, r); err != nil {
			return nil, err
		}
		all := sha256.Sum256(body)
		return all[:], nil
	})
	p, err := g.auth.Authorize(r.Context(), engine.ServerRequest{
		Method: r.Method, Scheme: scheme, Host: host, Target: sentTarget(r),
		Header: r.Header, BodyHash: hash, RemoteAddr: remote,
	})
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), callerKey{}, p))
	if body != nil {
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	g.next.ServeHTTP(w, r)
}

// read returns the body, which is not nil.
func (g *guard) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return []byte{}, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(g.opts.MaxBody)))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, engine.Errorf(engine.CodeTooLarge, "guard.body", "The body has more than the %d bytes that are allowed.", g.opts.MaxBody)
	case err != nil:
		return nil, &engine.Error{Code: engine.CodeInvalid, Rule: "guard.body", Message: "The body ended before it was complete.", Err: err}
	}
	return body, nil
}

// sentTarget returns the path and query as they were sent.
func sentTarget(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		return r.RequestURI
	}
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil { // the absolute form
		return u.RequestURI()
	}
	return r.URL.RequestURI()
}

// denial is the service's shape of an error.
type denial struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Inner   *denial `json:"innererror,omitempty"`
}

func (g *guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var e *engine.Error
	if !errors.As(err, &e) {
		e = &engine.Error{Code: engine.CodeInternal, Rule: "guard.failed", Message: "The caller could not be judged.", Err: err}
	}
	status, d := http.StatusInternalServerError, denial{Code: "InternalServerError", Message: "The caller could not be judged."}
	switch e.Code {
	case engine.CodeUnauthenticated:
		status, d = http.StatusUnauthorized, denial{Code: "Denied", Message: "Denied by the resource provider."}
	case engine.CodeForbidden:
		status, d = http.StatusForbidden, denial{Code: "Forbidden", Message: "The caller lacks the permission."}
	case engine.CodeInvalid:
		status, d = http.StatusBadRequest, denial{Code: "BadRequest", Message: "The request cannot be read."}
	case engine.CodeTooLarge:
		status, d = http.StatusRequestEntityTooLarge, denial{Code: "RequestTooLarge", Message: "The request is too large."}
	case engine.CodeUnavailable, engine.CodeTimeout:
		status, d = http.StatusServiceUnavailable, denial{Code: "ServiceUnavailable", Message: "The caller cannot be judged at present."}
	}
	d.Inner = &denial{Code: e.Rule, Message: e.Message}
	g.opts.Logger.LogAttrs(r.Context(), slog.LevelDebug, "refused", slog.Int("status", status),
		slog.String("rule", e.Rule), slog.String("detail", e.Detail), slog.Any("error", err))
	text, err := json.Marshal(map[string]denial{"error": d})
	if err != nil {
		http.Error(w, "this error cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(text)
}
