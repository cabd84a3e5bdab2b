// Package kept keeps values that are costly to fetch and do not stay good:
// tokens that expire, secrets that are rotated.
//
// A value that is still good is handed out at once. One that is due is handed
// out too, while a new one is fetched beside it. Nothing is fetched by a timer,
// so that what nobody needs is not asked for.
package kept

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Value is what a fetch brings, and how long it is good for.
type Value[V any] struct {
	Value V
	// Due is when a new value should be fetched, while this one stays in use.
	// Stale is when a new value is waited for, and this one used only if none can
	// be had. End is when this one must not be used any more. Zero means never.
	Due, Stale, End time.Time
}

// usable reports whether the value may be used at all.
func (v *Value[V]) usable(now time.Time) bool { return precedes(now, v.End) }

// precedes reports whether now is before t, of which zero means never.
func precedes(now, t time.Time) bool { return t.IsZero() || now.Before(t) }

// Options are the bounds of a [Cache]. All must be set but Failed.
type Options struct {
	// Max is how many values are kept. Over it the one that was not used for the
	// longest time is dropped.
	Max int
	// Timeout bounds one fetch.
	Timeout time.Duration
	// Patience is how long a caller waits for a fetch, which goes on without it.
	Patience time.Duration
	// Failed is called when a fetch failed whose error no caller gets, since the
	// value before it is still used. It must not block.
	Failed func(key string, err error)
}

// Pauses after failed fetches: 1, 2, 4, ... 32, and then 60 seconds. A fetch that
// brought nothing better than before has a pause as well.
const (
	longestPause = time.Minute
	leastPause   = 10 * time.Second
)

// Errors of [Cache.Get] beside those of fetches.
var (
	ErrClosed  = errors.New("closed")
	ErrWaiting = errors.New("no answer yet")
	ErrFull    = errors.New("too many are being fetched at once")
	errOver    = errors.New("what was fetched has already expired")
)

// Stats are the counters of a [Cache]: first a gauge, then totals.
type Stats struct {
	Kept     int64 // values at hand
	Fetches  int64
	Failures int64 // of these, how many failed
}

// Cache keeps one value for each key. It is safe for concurrent use, makes one
// fetch of a key at a time, and must be closed.
type Cache[V any] struct {
	// Fixed at birth.
	fetch func(ctx context.Context, key string) (Value[V], error)
	o     Options
	life  context.Context // ends with Close
	end   context.CancelFunc

	fetching sync.WaitGroup // added to with mu held and closed false

	mu                sync.Mutex // guards the rest; held for a few lines only
	entries           map[string]*entry[V]
	closed            bool
	fetches, failures int64
}

// entry is what is known of one key.
type entry[V any] struct {
	value    Value[V]
	have     bool
	done     chan struct{} // closed when the fetch under way ends; nil without one
	doubted  bool          // what the fetch under way brings is to be fetched again
	err      error         // of the last fetch; nil if it succeeded
	failures int           // in a row
	next     time.Time     // no fetch before
	believed time.Time     // no doubt before
	used     time.Time
}

// New returns a cache of what fetch brings. fetch must return when its context
// ends, and may be called concurrently for different keys.
func New[V any](fetch func(ctx context.Context, key string) (Value[V], error), o Options) *Cache[V] {
	c := &Cache[V]{fetch: fetch, o: o, entries: map[string]*entry[V]{}}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// Get returns a value that may be used now. It waits, no longer than the patience
// of the cache and than ctx, only if there is none, or a stale one. After a fetch
// that failed it returns that error at once, until it is time to try again.
func (c *Cache[V]) Get(ctx context.Context, key string) (V, error) {
	c.mu.Lock()
	e, now, err := c.entry(key)
	if err != nil {
		c.mu.Unlock()
		return *new(V), err
	}
	usable := e.have && e.value.usable(now)
	if usable && precedes(now, e.value.Due) {
		defer c.mu.Unlock()
		return e.value.Value, nil
	}
	c.start(key, e, now)
	done := e.done
	if done == nil || usable && precedes(now, e.value.Stale) {
		defer c.mu.Unlock()
		return e.result(now)
	}
	c.mu.Unlock()

	patience := time.NewTimer(c.o.Patience)
	defer patience.Stop()
	var gaveUp error
	select {
	case <-done:
	case <-patience.C:
		gaveUp = fmt.Errorf("%w after %s", ErrWaiting, c.o.Patience)
	case <-ctx.Done():
		gaveUp = context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now = time.Now()
	if gaveUp != nil && !(e.have && e.value.usable(now)) {
		if e.err != nil {
			gaveUp = fmt.Errorf("%w; before that: %w", gaveUp, e.err)
		}
		return *new(V), gaveUp
	}
	return e.result(now)
}

// result returns what there is.
func (e *entry[V]) result(now time.Time) (V, error) {
	switch {
	case e.have && e.value.usable(now):
		return e.value.Value, nil
	case e.err != nil:
		return *new(V), e.err
	}
	return *new(V), errOver
}

// entry returns the entry of a key, which it makes if there is none.
func (c *Cache[V]) entry(key string) (*entry[V], time.Time, error) {
	now := time.Now()
	if c.closed {
		return nil, now, ErrClosed
	}
	e := c.entries[key]
	if e == nil {
		if len(c.entries) >= c.o.Max && !c.forget() {
			return nil, now, ErrFull
		}
		e = &entry[V]{}
		c.entries[key] = e
	}
	e.used = now
	return e, now, nil
}

// forget makes room for one more key.
func (c *Cache[V]) forget() bool {
	oldest := ""
	for key, e := range c.entries {
		if e.done == nil && (oldest == "" || e.used.Before(c.entries[oldest].used)) {
			oldest = key
		}
	}
	delete(c.entries, oldest)
	return oldest != ""
}

// start begins a fetch, unless one is under way or it is not time yet.
func (c *Cache[V]) start(key string, e *entry[V], now time.Time) {
	if c.closed || e.done != nil || now.Before(e.next) {
		return
	}
	e.done, e.doubted = make(chan struct{}), false
	c.fetches++
	c.fetching.Add(1)
	go c.run(key, e) // ends with the fetch
}

func (c *Cache[V]) run(key string, e *entry[V]) {
	defer c.fetching.Done()
	ctx, cancel := context.WithTimeout(c.life, c.o.Timeout)
	v, err := c.fetch(ctx, key)
	cancel()

	c.mu.Lock()
	now := time.Now()
	if err == nil && !v.usable(now) {
		err = errOver
	}
	if err == nil {
		e.value, e.have, e.failures = v, true, 0
		e.next = now.Add(min(leastPause, max(v.Due.Sub(now), time.Second)))
		if e.doubted {
			e.value.Due, e.value.Stale, e.next = now, now, now
		}
	} else {
		c.failures++
		e.next = now.Add(min(time.Second<<min(e.failures, 6), longestPause))
		e.failures++
	}
	e.err = err
	silent := err != nil && e.have && e.value.usable(now) && !c.closed
	close(e.done)
	e.done = nil
	c.mu.Unlock()
	if silent && c.o.Failed != nil {
		c.o.Failed(key, err)
	}
}

// Doubt says that a value did not do: a new one is fetched beside its use, at most
// once within the time given. Of a key that is not kept it knows nothing.
func (c *Cache[V]) Doubt(key string, within time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, now := c.entries[key], time.Now()
	if e == nil || e.done != nil || now.Before(e.believed) {
		return
	}
	e.believed = now.Add(within)
	if e.err == nil {
		e.next = now
	}
	c.start(key, e, now)
}

// DoubtAll makes every value stale: its next user waits for a new one.
func (c *Cache[V]) DoubtAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, e := range c.entries {
		e.value.Due, e.value.Stale, e.next, e.failures, e.doubted = now, now, now, 0, true
	}
}

// Stats returns a snapshot of the counters.
func (c *Cache[V]) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Fetches: c.fetches, Failures: c.failures}
	for _, e := range c.entries {
		if e.have {
			s.Kept++
		}
	}
	return s
}

// Close ends the fetches under way and returns once they have ended. Those who
// wait for them, and all who come later, get an error. It may be called again.
func (c *Cache[V]) Close() {
	c.mu.Lock()
	c.closed = true
	c.entries = map[string]*entry[V]{}
	c.mu.Unlock()
	c.end()
	c.fetching.Wait()
}
