package engine

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Once a connection has ended, its requests that were made before are still carried
// out, since a client may send an event and close: the event under way is waited for,
// and those behind it get one attempt each. That lasts no longer than
// Limits.EventTimeout in all. It ends early where bytes of events are short: at half of
// a bound of the user or network, the hub or the engine, all of it is given up.
// disconnected is raised when nothing is left.

var errGivenUp = &Error{
	Code: CodeClosed, Rule: "connection.over",
	Message: "The connection has ended, and its request was given up.",
}

// leftChannel returns the channel that is closed when c ends. c.mu is held, and c has
// a lane.
func (c *Conn) leftChannel() <-chan struct{} {
	l := c.lane
	if l.left == nil {
		l.left = make(chan struct{})
		if c.isOver {
			close(l.left)
		}
	}
	return l.left
}

// leaveLane deals with the lane of c, which has just ended. c.mu is held; after is to be
// called without it.
func (c *Conn) leaveLane() (after func()) {
	l := c.lane
	if l == nil {
		return func() {}
	}
	if l.left != nil {
		close(l.left)
	}
	if !c.busy {
		return func() {}
	}
	if l.budget.parent.tight() {
		return c.abandon("too many bytes of events wait")
	}
	e := c.hub.engine
	l.stopTimer = e.clock.AfterFunc(e.limits.EventTimeout, func() {
		c.mu.Lock()
		after := func() {}
		if c.lane == l {
			after = c.abandon("they took longer than the time for one event")
		}
		c.mu.Unlock()
		after()
	})
	if l.cancelOnEnd && l.cancel != nil {
		return l.cancel
	}
	return func() {}
}

// givenUp stands for a request that waited and was given up.
var givenUp = &Request{}

// abandon gives up the requests of c, which has ended, that are not done: those that
// wait, and the event under way. What waits is let go at once, and answered in its
// turn. c.mu is held; after is to be called without it.
func (c *Conn) abandon(why string) (after func()) {
	l := c.lane
	cancel := l.cancel
	l.abandoned = true
	bytes, requests := int64(0), len(l.queue)
	for i := range l.queue {
		it := &l.queue[i]
		bytes += it.held
		it.request, it.held = givenUp, 0
	}
	l.budget.give(bytes)
	if cancel != nil {
		requests++
	}
	return func() {
		if cancel != nil {
			cancel()
		}
		if requests > 0 {
			c.hub.engine.dropped(requests, "requests of a client that has left were given up",
				"hub", c.hub.name, "connection", c.id, "user", c.user, "requests", requests, "waiting_bytes", bytes, "reason", why)
		}
	}
}

// sayDisconnected raises disconnected, after what of c is under way.
func (c *Conn) sayDisconnected(ctx context.Context, text string) {
	raise := func() { c.hub.raiseDisconnected(ctx, c, text) }
	c.mu.Lock()
	wait := c.busy
	if wait {
		c.openLane().farewell = raise
	}
	c.mu.Unlock()
	if !wait {
		raise()
	}
}

// dropLog keeps the log short of what can be dropped often: one line in dropLogPause.
type dropLog struct {
	mu   sync.Mutex // guards the rest
	next time.Time
	left int
}

const dropLogPause = time.Second

// dropped counts n events or requests that were dropped and logs why, unless another
// one has just been logged.
func (e *Engine) dropped(n int, what string, args ...any) {
	e.counters.eventsDropped.Add(int64(n))
	now, d := e.clock.Now(), &e.drops
	d.mu.Lock()
	if now.Before(d.next) {
		d.left += n
		d.mu.Unlock()
		return
	}
	left := d.left
	d.left, d.next = 0, now.Add(dropLogPause)
	d.mu.Unlock()
	e.log.Log(e.ctx, slog.LevelWarn, what, append(args, "dropped_and_not_logged_before", left)...)
}
