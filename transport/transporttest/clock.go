package transporttest

import (
	"sync"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Clock is time that a test moves on, for conversations over real sockets. It may
// be used concurrently.
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*timer]bool
}

var _ engine.Clock = (*Clock)(nil)

type timer struct {
	at time.Time
	f  func()
}

// NewClock returns a clock that stands still.
func NewClock() *Clock { return &Clock{now: time.Unix(1e9, 0), timers: make(map[*timer]bool)} }

// Now implements [engine.Clock].
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc implements [engine.Clock].
func (c *Clock) AfterFunc(d time.Duration, f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tm := &timer{c.now.Add(d), f}
	c.timers[tm] = true
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		had := c.timers[tm]
		delete(c.timers, tm)
		return had
	}
}

// Advance moves the clock on by d, past whatever was to happen meanwhile.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for tm := range c.timers {
		if !tm.at.After(c.now) {
			delete(c.timers, tm)
			go tm.f()
		}
	}
}

// Until moves the clock on, step by step, until done is closed, and returns how far
// that was. Real time only paces it: each step leaves others time to act. It
// reports false if that takes longer than limit.
func (c *Clock) Until(done <-chan struct{}, step, limit time.Duration) (time.Duration, bool) {
	began := c.Now()
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-done:
			return c.Now().Sub(began), true
		case <-pace.C:
		}
		if c.Now().Sub(began) > limit {
			return limit, false
		}
		c.Advance(step)
	}
}
