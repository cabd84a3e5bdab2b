package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// waits are the pauses before the second, third and fourth attempt.
var waits = [...]time.Duration{time.Second, 3 * time.Second, 5 * time.Second}

const (
	// maxDrain and drainTime bound what is read of a body that nobody wants, so
	// that its connection can be used again.
	maxDrain  = 64 << 10
	drainTime = time.Second
)

var (
	errTimeUp = errors.New("webhook: the time for the call is up")
	errClosed = errors.New("webhook: the client was closed")

	errBadToken = errors.New("webhook: the token source returned no usable token")
)

// deadline bounds a call: up to the headers of the reply, retries and their
// waits included, and then once more up to the end of its body.
type deadline struct {
	timer *time.Timer
	after time.Duration
	stop  func() bool
	done  context.CancelCauseFunc
}

// withDeadline returns a context that ends when the time is up, with ctx, and
// when the client is closed. release must be called.
func (c *Client) withDeadline(ctx context.Context, after time.Duration) (context.Context, *deadline) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &deadline{
		timer: time.AfterFunc(after, func() { cancel(errTimeUp) }),
		after: after,
		stop:  context.AfterFunc(c.life, func() { cancel(errClosed) }),
		done:  cancel,
	}
}

// headersCame gives the body a time of its own.
func (d *deadline) headersCame() { d.timer.Reset(d.after) }

func (d *deadline) release() {
	d.timer.Stop()
	d.stop()
	d.done(nil)
}

// call is one request, however often it is attempted.
type call struct {
	hub    engine.HubName
	label  string
	what   string // for people: "connect", or "user event x"
	method string
	target *target
	header http.Header
	body   []byte
	// bounded is true for a call that counts against Options.MaxCalls.
	bounded bool
	// attempts counts those begun.
	attempts int
	// wantBody is true if the body of a 2xx reply is to be read.
	wantBody bool
	// wantRefusal is true if that of any other is, where it comes in time.
	wantRefusal bool
	// left is closed when there is to be no further attempt; nil for never.
	left <-chan struct{}
}

// exchange sends a request until it is answered by anything but 408 or 5xx, or
// no attempt is left, or the event's connection has ended. Its answer may have any status.
func (c *Client) exchange(ctx context.Context, d *deadline, cl *call) (*answer, error) {
	for n := 1; ; n++ {
		cl.attempts = n
		a, err, again := c.attempt(ctx, d, cl, n)
		if !again || n > len(waits) || cl.hasLeft() {
			return a, err
		}
		c.retries.Add(1)
		if c.log.Enabled(ctx, slog.LevelDebug) {
			c.log.DebugContext(ctx, "event handler attempt failed", "handler", c.template.shown, "hub", string(cl.hub),
				"event", cl.what, "attempt", n, "status", statusOf(a), "error", err, "retry_in", waits[n-1])
		}
		pause := time.NewTimer(waits[n-1])
		select {
		case <-pause.C:
		case <-cl.left:
			pause.Stop()
		case <-ctx.Done():
			pause.Stop()
			return nil, c.ended(ctx, cl, fmt.Sprintf("while waiting for attempt %d; attempt %d ended with %s", n+1, n, outcome(a, err)))
		}
		if cl.hasLeft() {
			return a, err
		}
	}
}

// hasLeft reports whether the connection of the call's event has ended.
func (cl *call) hasLeft() bool {
	select {
	case <-cl.left:
		return true
	default:
		return false
	}
}

func statusOf(a *answer) int {
	if a == nil {
		return 0
	}
	return a.status
}

func outcome(a *answer, err error) string {
	if a != nil {
		return fmt.Sprintf("status %d", a.status)
	}
	return err.Error()
}

// attempt makes one HTTP exchange. again says that another one may be tried.
func (c *Client) attempt(ctx context.Context, d *deadline, cl *call, n int) (a *answer, err error, again bool) {
	if cl.bounded {
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
		case <-ctx.Done():
			return nil, c.ended(ctx, cl, fmt.Sprintf("while waiting for one of %d calls under way to end", cap(c.slots))), false
		}
	}
	c.attempts.Add(1)
	c.inFlight.Add(1)
	began := time.Now()
	a, err, again = c.roundTrip(ctx, d, cl, n)
	c.inFlight.Add(-1)
	if c.observe != nil {
		at := Attempt{Hub: cl.hub, Event: cl.label, Number: n, Status: statusOf(a), Outcome: "ok", Took: time.Since(began)}
		var e *engine.Error
		switch {
		case errors.As(err, &e):
			at.Outcome = e.Rule
		case !a.ok():
			at.Outcome = "event.status"
		}
		c.observe(at)
	}
	return a, err, again
}

func (c *Client) roundTrip(ctx context.Context, d *deadline, cl *call, n int) (a *answer, err error, again bool) {
	own, cancel := context.WithCancel(ctx) // so that one attempt's body can be given up without the others
	defer cancel()
	resp, err := c.rt.RoundTrip(cl.request(own))
	if err != nil {
		if ctx.Err() != nil {
			return nil, c.ended(ctx, cl, fmt.Sprintf("in attempt %d", n)), false
		}
		var refused *engine.Error // by the guard
		if errors.As(err, &refused) {
			e := *refused
			e.Detail = c.detail(cl, e.Detail)
			return nil, &e, false
		}
		return nil, &engine.Error{Code: engine.CodeInternal, Rule: "event.unreachable",
			Message: "The event handler could not be reached.",
			Detail:  c.detail(cl, fmt.Sprintf("attempt %d of %d", n, len(waits)+1)),
			Err:     cl.target.safe(err)}, true
	}
	defer resp.Body.Close()
	a = &answer{status: resp.StatusCode, header: resp.Header, url: cl.target.url}
	if !a.ok() || !cl.wantBody {
		if !cl.wantRefusal || a.ok() {
			drain(resp, cancel)
		} else if a.body, err = readBody(resp); err != nil {
			a.body = nil
		}
		return a, nil, a.status == http.StatusRequestTimeout || a.status >= 500 && a.status <= 599
	}
	d.headersCame()
	if a.body, err = readBody(resp); err != nil {
		// The server did its work and said so; asking again would make it do the work twice.
		var tooLong *engine.Error
		switch {
		case errors.As(err, &tooLong):
			tooLong.Detail = c.detail(cl, tooLong.Detail)
			return nil, tooLong, false
		case ctx.Err() != nil:
			return nil, c.ended(ctx, cl, "while reading the reply's body"), false
		}
		return nil, badReply("The event handler's reply broke off.", c.detail(cl, ""), cl.target.safe(err)), false
	}
	a.at = time.Now()
	return a, nil, false
}

// request makes the request of one attempt.
func (cl *call) request(ctx context.Context) *http.Request {
	r := &http.Request{
		Method: cl.method, URL: cl.target.url, Host: cl.target.url.Host, Header: cl.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
	}
	if len(cl.body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(cl.body))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(cl.body)), nil }
		r.ContentLength = int64(len(cl.body))
	}
	return r.WithContext(ctx)
}

// drain reads a body that nobody wants, if it is short and comes at once.
func drain(resp *http.Response, cancel context.CancelFunc) {
	if resp.ContentLength > maxDrain {
		return
	}
	t := time.AfterFunc(drainTime, cancel)
	io.CopyN(io.Discard, resp.Body, maxDrain) //nolint:errcheck // the connection is lost then, nothing else
	t.Stop()
}

// readBody reads a body up to the limit.
func readBody(resp *http.Response) ([]byte, error) {
	tooLong := resp.ContentLength > maxReplyBody
	var b bytes.Buffer
	if !tooLong {
		// A length that was announced is not yet sent, so it earns only so much room in advance.
		if n := min(resp.ContentLength, 64<<10); n > 0 {
			b.Grow(int(n) + bytes.MinRead)
		}
		if _, err := b.ReadFrom(io.LimitReader(resp.Body, maxReplyBody+1)); err != nil {
			return nil, err
		}
		tooLong = b.Len() > maxReplyBody
	}
	if tooLong {
		return nil, badReply("The event handler's reply is too long.", fmt.Sprintf("at most %d bytes would pass", maxReplyBody), nil)
	}
	return b.Bytes(), nil
}

// ended makes the error of a call whose context is over.
func (c *Client) ended(ctx context.Context, cl *call, when string) *engine.Error {
	e := &engine.Error{Code: engine.CodeInternal, Rule: "event.timeout", Err: context.Cause(ctx),
		Message: "The event handler did not answer in time.", Detail: c.detail(cl, when)}
	switch {
	case errors.Is(e.Err, errClosed):
		return c.closedError()
	case errors.Is(e.Err, errTimeUp), errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Err = context.DeadlineExceeded
	default:
		e.Code, e.Rule = engine.CodeClosed, "event.cancelled"
		e.Message = "The event was given up before the event handler answered."
	}
	return e
}

// detail says which call it was that went wrong.
func (c *Client) detail(cl *call, what string) string {
	s := cl.method + " " + c.template.shown + " (" + cl.what + ")"
	if what != "" {
		s += ": " + what
	}
	return s
}

func (c *Client) closedError() *engine.Error {
	return &engine.Error{Code: engine.CodeClosed, Rule: "event.closed",
		Message: "The client of the event handler has been closed.", Detail: c.template.shown, Err: errClosed}
}
