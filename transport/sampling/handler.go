package sampling

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// The attributes that make a line one about a refusal.
const (
	ruleKey   = "rule"
	remoteKey = "remote"
)

// Options are the bounds of a [Handler]. Nil and zero mean the defaults.
type Options struct {
	// Interval is the time for which refusals are counted. Default 1 minute.
	Interval time.Duration
	// Whole is how many refusals of one rule and address prefix are logged whole in an
	// interval. Default 10.
	Whole int
	// Pairs bounds the pairs of rule and address prefix that are told apart in an
	// interval. The refusals of further prefixes are counted together, by rule. Default
	// 256.
	Pairs int
}

// Handler is a [slog.Handler] that samples the lines about refusals and passes all others
// on. It is safe for concurrent use.
type Handler struct {
	next    slog.Handler
	counts  *counts // shared by all handlers that were derived from one
	rule    string  // by WithAttrs
	remote  string
	grouped bool // attributes that follow are not at the top level
}

var _ slog.Handler = (*Handler)(nil)

// New returns a handler that passes to next what is to be logged.
func New(next slog.Handler, o *Options) *Handler {
	c := &counts{interval: time.Minute, whole: 10, most: 256, pairs: map[pair]*count{}}
	if o != nil {
		if o.Interval > 0 {
			c.interval = o.Interval
		}
		if o.Whole > 0 {
			c.whole = o.Whole
		}
		if o.Pairs > 0 {
			c.most = o.Pairs
		}
	}
	return &Handler{next: next, counts: c}
}

// Enabled implements [slog.Handler].
func (h *Handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	derived := *h
	derived.next = h.next.WithAttrs(attrs)
	if !h.grouped {
		for _, a := range attrs {
			derived.note(a)
		}
	}
	return &derived
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	derived := *h
	derived.next = h.next.WithGroup(name)
	derived.grouped = h.grouped || name != ""
	return &derived
}

// note takes the rule or the address from an attribute.
func (h *Handler) note(a slog.Attr) {
	switch a.Key {
	case ruleKey:
		h.rule = a.Value.String()
	case remoteKey:
		h.remote = a.Value.String()
	}
}

// Handle implements [slog.Handler].
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	of := *h
	if !h.grouped {
		r.Attrs(func(a slog.Attr) bool {
			of.note(a)
			return true
		})
	}
	if of.rule == "" && of.remote == "" {
		return h.next.Handle(ctx, r)
	}
	p := pair{message: r.Message, rule: of.rule, prefix: PrefixOf(of.remote)}
	if !h.counts.take(p, r.Level, h.next) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// Flush logs at once how many refusals have been left out, as is due at the end of the
// interval. Call it before the process ends.
func (h *Handler) Flush() { h.counts.end() }

// pair is what refusals are counted by. message is constant for a place in the code.
type pair struct {
	message, rule string
	prefix        netip.Prefix
	other         bool // stands for the prefixes that are not told apart
}

// count is how many refusals of a pair there were.
type count struct {
	seen    int
	level   slog.Level   // the highest of those that were left out
	handler slog.Handler // of those that were left out
}

// counts are those of one interval.
type counts struct {
	interval    time.Duration
	whole, most int

	mu      sync.Mutex // guards the rest; not held while a line is written
	pairs   map[pair]*count
	since   time.Time
	leftOut bool // in this interval
	timer   *time.Timer
}

// take counts one refusal and reports whether it is to be logged whole.
func (c *counts) take(p pair, level slog.Level, next slog.Handler) bool {
	now := time.Now()
	c.mu.Lock()
	var over summary
	if len(c.pairs) > 0 && now.Sub(c.since) >= c.interval {
		over = c.reset(now)
	}
	whole := c.add(p, level, next, now)
	c.mu.Unlock()
	over.log()
	return whole
}

func (c *counts) add(p pair, level slog.Level, next slog.Handler, now time.Time) bool {
	n, ok := c.pairs[p]
	if !ok && len(c.pairs) >= c.most {
		p.prefix, p.other = netip.Prefix{}, true
		n, ok = c.pairs[p]
	}
	if !ok && len(c.pairs) >= 2*c.most { // more rules than a program has
		p.message, p.rule = "", ""
		n, ok = c.pairs[p]
	}
	if !ok {
		n = &count{level: level}
		if len(c.pairs) == 0 {
			c.since = now
		}
		c.pairs[p] = n
	}
	n.seen++
	if n.seen <= c.whole {
		return true
	}
	n.level, n.handler = max(n.level, level), next
	if !c.leftOut {
		// One timer for all; there is none while nothing is left out.
		c.leftOut = true
		c.timer = time.AfterFunc(c.interval-now.Sub(c.since), c.end)
	}
	return false
}

// reset ends the interval and returns what is to be said of it.
func (c *counts) reset(now time.Time) summary {
	s := summary{whole: c.whole, took: now.Sub(c.since), pairs: c.pairs}
	if c.leftOut {
		c.timer.Stop()
	}
	c.pairs, c.leftOut, c.timer = map[pair]*count{}, false, nil
	return s
}

func (c *counts) end() {
	c.mu.Lock()
	s := c.reset(time.Now())
	c.mu.Unlock()
	s.log()
}

// summary is an interval that is over.
type summary struct {
	whole int
	took  time.Duration
	pairs map[pair]*count
}

// log says what was left out, in one line for each pair.
func (s summary) log() {
	for p, n := range s.pairs {
		if n.seen <= s.whole {
			continue
		}
		r := slog.NewRecord(time.Now(), n.level, "refusals were left out of the log", 0)
		from := "other addresses"
		switch {
		case p.prefix.IsValid():
			from = p.prefix.String()
		case !p.other:
			from = "unknown addresses"
		}
		r.AddAttrs(slog.String("refusal", p.message), slog.String(ruleKey, p.rule), slog.String("from", from),
			slog.Int("leftOut", n.seen-s.whole), slog.Int("logged", s.whole), slog.Duration("in", s.took.Round(time.Millisecond)))
		_ = n.handler.Handle(context.Background(), r) // as slog.Logger does with errors
	}
}
