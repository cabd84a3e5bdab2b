package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Observer is told what happens. Any member may be nil. The functions may be
// called concurrently and must not block.
type Observer struct {
	// Replied is called after each reply that was not the fallback's. operation is
	// the name of the operation, or empty where the path or method has none.
	Replied func(operation string, status int, took time.Duration)
	// Refused is called when credentials did not hold or did not suffice, with
	// the rule that said so.
	Refused func(operation, rule string)
}

// door is what the handlers of this package have in common: whom they ask, whom
// they tell, and how much they read.
type door struct {
	auth     Authorizer
	fallback http.Handler
	origin   func(*http.Request) (scheme, host string)
	// allowOrigin tells whether pages of an origin may call; nil: none may.
	allowOrigin func(origin string) bool
	maxBody     int
	tooLarge    string // the rule that a larger body breaks
	logger      *slog.Logger
	observer    Observer
}

func (d *door) setDefaults(maxBody int) {
	if d.fallback == nil {
		d.fallback = http.NotFoundHandler()
	}
	if d.origin == nil {
		d.origin = origin
	}
	if d.maxBody <= 0 {
		d.maxBody = maxBody
	}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
}

func origin(r *http.Request) (scheme, host string) {
	if r.TLS != nil {
		return "https", r.Host
	}
	return "http", r.Host
}

// request is one request that a door answers.
type request struct {
	door *door
	w    http.ResponseWriter
	r    *http.Request
	path string // as it was sent
	body bodyReader

	operation string // its name, once it is known
}

func (d *door) request(w http.ResponseWriter, r *http.Request, path string) request {
	return request{door: d, w: w, r: r, path: path, body: bodyReader{r: r, limit: d.maxBody, rule: d.tooLarge}}
}

// authorize asks who is calling, and whether they may.
func (q *request) authorize(action engine.Action, hub engine.HubName) (engine.Principal, error) {
	scheme, host := q.door.origin(q.r)
	remote, _ := netip.ParseAddrPort(q.r.RemoteAddr) // zero where it is not one
	p, err := q.door.auth.Authorize(q.r.Context(), engine.ServerRequest{
		Method: q.r.Method, Scheme: scheme, Host: host, Target: sentTarget(q.r),
		Header: q.r.Header, BodyHash: q.body.hash, RemoteAddr: remote,
	})
	if err != nil {
		return p, err
	}
	return p, p.May(action, hub)
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

// reply answers with status and v as JSON, or without a body if v is nil. The
// reply to HEAD has no body, and so nothing that would describe one.
func (q *request) reply(status int, v any) int {
	if v == nil || q.r.Method == http.MethodHead {
		q.w.WriteHeader(status)
		return status
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // links are for reading, too
	if err := enc.Encode(v); err != nil {
		panic(err) // our own types always encode
	}
	q.w.Header().Set("Content-Type", "application/json")
	q.w.WriteHeader(status)
	q.w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n"))) // a caller who is gone needs no answer
	return status
}

// replied tells the observer of a reply.
func (q *request) replied(status int, started time.Time) {
	if f := q.door.observer.Replied; f != nil {
		f(q.operation, status, time.Since(started))
	}
}

// gone reports whether err is that the caller did not wait.
func (q *request) gone(err error) bool {
	return errors.Is(err, context.Canceled) && q.r.Context().Err() != nil
}

// refused tells the observer and the log of a refusal.
func (q *request) refused(status int, e *engine.Error) {
	if f := q.door.observer.Refused; f != nil && (status == http.StatusUnauthorized || status == http.StatusForbidden) {
		f(q.operation, e.Rule)
	}
	q.log(status, e)
}

// log writes the line about a refusal. A missing target is an answer, not a
// refusal, and is worth a line only to those who look closely.
func (q *request) log(status int, e *engine.Error) {
	level := slog.LevelInfo
	switch {
	case status >= 500:
		level = slog.LevelError
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		level = slog.LevelWarn
	case status == http.StatusNotFound, status == statusGone:
		level = slog.LevelDebug
	}
	ctx := q.r.Context()
	if !q.door.logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.Int("status", status), slog.String("rule", e.Rule), slog.String("message", e.Message),
		slog.String("method", excerpt(q.r.Method)), slog.String("path", excerpt(q.path)), slog.String("remote", q.r.RemoteAddr),
	}
	if q.operation != "" {
		attrs = append(attrs, slog.String("operation", q.operation))
	}
	if e.Detail != "" {
		attrs = append(attrs, slog.String("detail", e.Detail))
	}
	if id := q.r.Header.Get("X-Ms-Client-Request-Id"); id != "" {
		attrs = append(attrs, slog.String("clientRequestId", excerpt(id)))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("error", e.Err))
	}
	q.door.logger.LogAttrs(ctx, level, "rest: request refused", attrs...)
}
