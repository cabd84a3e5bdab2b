package websocket

import (
	"context"
	"sync"
	"time"
)

// deadlineContext is like the context of [context.WithDeadline], but has no timer
// and no entry with its parent until somebody waits for it. An authenticator mostly
// computes and returns.
type deadlineContext struct {
	parent   context.Context
	deadline time.Time

	mu     sync.Mutex // guards the rest
	real   context.Context
	cancel context.CancelFunc
	over   bool
}

var _ context.Context = (*deadlineContext)(nil)

func withTimeout(parent context.Context, d time.Duration) *deadlineContext {
	return &deadlineContext{parent: parent, deadline: time.Now().Add(d)}
}

// Deadline implements [context.Context].
func (c *deadlineContext) Deadline() (time.Time, bool) {
	if t, ok := c.parent.Deadline(); ok && t.Before(c.deadline) {
		return t, true
	}
	return c.deadline, true
}

// Done implements [context.Context].
func (c *deadlineContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.real == nil {
		c.real, c.cancel = context.WithDeadline(c.parent, c.deadline)
		if c.over {
			c.cancel()
		}
	}
	return c.real.Done()
}

// Err implements [context.Context].
func (c *deadlineContext) Err() error {
	c.mu.Lock()
	made, over := c.real, c.over
	c.mu.Unlock()
	switch {
	case made != nil:
		return made.Err()
	case c.parent.Err() != nil:
		return c.parent.Err()
	case !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	case over:
		return context.Canceled
	}
	return nil
}

// Value implements [context.Context].
func (c *deadlineContext) Value(key any) any {
	c.mu.Lock()
	made := c.real
	c.mu.Unlock()
	if made != nil {
		return made.Value(key)
	}
	return c.parent.Value(key)
}

// stop cancels c.
func (c *deadlineContext) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.cancel != nil {
		c.cancel()
	}
}
