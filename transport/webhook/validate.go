package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

const (
	checkTimeout = 10 * time.Second // for OPTIONS, and again for GET
	recheckAfter = time.Minute
	// maxGates bounds the validation URLs remembered; there is one a hub, and
	// one more for each change of a secret.
	maxGates = 1024
)

// gate is what is known about one validation URL: whether the server behind it
// wants events from this service. (CloudEvents, HTTP 1.1 Web Hooks, section 4.)
type gate struct {
	settled  chan struct{} // closed once the first check has ended
	checking bool
	err      error // of the last check that ended
	failures int   // in a row
	next     time.Time
	used     time.Time
}

// allowed reports with nil that events may be posted to t. The first check of
// a URL is waited for by all who come; later ones run beside the events, which
// go by the last result.
func (c *Client) allowed(ctx context.Context, e *event, t *target) error {
	key := t.validation.String()
	now := time.Now()

	c.mu.Lock()
	g := c.gates[key]
	if g == nil {
		if len(c.gates) >= maxGates && !c.forgetGate() {
			c.mu.Unlock()
			return &engine.Error{Code: engine.CodeInternal, Rule: "event.validation",
				Message: "Too many event handler URLs wait for validation.",
				Detail:  fmt.Sprintf("%s: %d URLs are being validated at once", c.template.shown, maxGates)}
		}
		g = &gate{settled: make(chan struct{})}
		c.gates[key] = g
	}
	g.used = now
	// Not by a timer: a handler that nobody needs is not asked.
	if !g.checking && !now.Before(g.next) && !c.closed {
		g.checking = true
		c.checks.Add(1)
		// Others wait for this check, or rely on it, when this caller is gone.
		// Its context's values go along, so that a trace shows the check.
		go c.check(context.WithoutCancel(ctx), e.Hub, t, g)
	}
	known, err := !g.next.IsZero(), g.err // before a check just begun may change it
	c.mu.Unlock()
	if known {
		return err
	}

	select {
	case <-g.settled:
	case <-ctx.Done():
		return c.ended(ctx, &call{method: http.MethodOptions, what: "validation for " + e.name}, "while waiting for the first validation")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return g.err
}

// forgetGate makes room for one more URL. c.mu is held.
func (c *Client) forgetGate() bool {
	oldest := ""
	for key, g := range c.gates {
		if !g.checking && (oldest == "" || g.used.Before(c.gates[oldest].used)) {
			oldest = key
		}
	}
	delete(c.gates, oldest)
	return oldest != ""
}

// check asks the server and settles g. It ends within twice checkTimeout, or
// when the client is closed.
func (c *Client) check(ctx context.Context, hub engine.HubName, t *target, g *gate) {
	defer c.checks.Done()
	err := c.validate(ctx, hub, t)

	c.mu.Lock()
	first := g.next.IsZero()
	changed := !first && (err == nil) != (g.err == nil)
	g.err = err
	g.checking = false
	if err == nil {
		g.failures = 0
		g.next = time.Now().Add(recheckAfter)
	} else {
		// 1, 2, 4, ... 32, and then 60 seconds.
		g.next = time.Now().Add(min(time.Second<<min(g.failures, 6), recheckAfter))
		g.failures++
	}
	c.mu.Unlock()
	if first {
		close(g.settled)
	}
	if changed && err != nil && !errors.Is(err, errClosed) {
		c.log.WarnContext(ctx, "event handler no longer grants this service's origin", "handler", c.template.shown, "hub", string(hub),
			"error", err, "detail", detailOf(err))
	} else if changed && err == nil {
		c.log.InfoContext(ctx, "event handler grants this service's origin again", "handler", c.template.shown, "hub", string(hub))
	}
}

func detailOf(err error) string {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return ""
}

// validate makes one check: OPTIONS, and GET where a server does not know OPTIONS.
func (c *Client) validate(ctx context.Context, hub engine.HubName, t *target) error {
	c.validations.Add(1)
	a, err := c.askOrigin(ctx, hub, t, http.MethodOptions)
	method := http.MethodOptions
	if err == nil && a.status == http.StatusNotFound {
		method = http.MethodGet
		a, err = c.askOrigin(ctx, hub, t, method)
	}
	refused := &engine.Error{Code: engine.CodeInternal, Rule: "event.validation",
		Message: "The event handler has not granted this service's origin."}
	switch {
	case errors.Is(err, errClosed):
		return err // the server had no say in it
	case err != nil:
		refused.Detail, refused.Err = method+" "+c.template.shown+" failed", err
	case !a.ok():
		refused.Detail = fmt.Sprintf("%s %s (validate) answered %d; 2xx with WebHook-Allowed-Origin: %s would pass", method, c.template.shown, a.status, c.originHost)
	case !c.grants(a.header[replyAllowedOrigin]):
		refused.Detail = fmt.Sprintf("%s %s (validate) answered %d with WebHook-Allowed-Origin %.128q; one header line with %s or * would pass",
			method, c.template.shown, a.status, a.header[replyAllowedOrigin], c.originHost)
	default:
		return nil
	}
	return refused
}

func (c *Client) askOrigin(ctx context.Context, hub engine.HubName, t *target, method string) (*answer, error) {
	ctx, d := c.withDeadline(ctx, checkTimeout)
	defer d.release()
	b := newHeaders()
	b.put(hdrAWPSVersion, "1.0")
	b.put(hdrOrigin, c.originHost)
	b.put(hdrUserAgent, userAgent)
	return c.exchange(c.confine(ctx, t), d, &call{
		hub: hub, label: labelValidate, what: "validate", method: method,
		target: &target{url: t.validation, hidden: t.hidden}, header: b.h,
	})
}

// grants reports whether a header line is "*", our host, or our host with its
// port: some SDKs answer with the port that they were configured with. A line
// that lists several origins grants nothing.
func (c *Client) grants(lines []string) bool {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line == "*" || strings.EqualFold(line, c.originHost) || strings.EqualFold(line, c.origin) {
			return true
		}
	}
	return false
}
