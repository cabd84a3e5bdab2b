package engine

import (
	"context"
	"sync"
)

// interests tell the backplane which targets have connections here. A target's
// declaration is on before a join is acknowledged.
type interests struct {
	mu sync.Mutex
	m  map[interestKey]*interest
}

type interestKey struct {
	hub    HubName
	target Target
}

type interest struct {
	refs int // guarded by interests.mu

	turn chan struct{} // a lock, held across the backplane's call for this target alone
	on   bool          // guarded by turn
}

// attend notes one more connection behind t, and waits until the backplane
// knows that there is one. It must be paired with neglect, even if it fails.
func (h *Hub) attend(ctx context.Context, t Target) error {
	wait := h.note(t)
	if wait == nil {
		return nil
	}
	return wait(ctx)
}

// note is attend's first half, which does not wait; it returns the second, nil
// if there is nothing to wait for.
func (h *Hub) note(t Target) func(context.Context) error {
	e := h.engine
	if e.backplane == nil {
		return nil
	}
	all := &e.interests
	key := interestKey{h.name, t}
	all.mu.Lock()
	it := all.m[key]
	if it == nil {
		it = &interest{turn: make(chan struct{}, 1)}
		if all.m == nil {
			all.m = make(map[interestKey]*interest)
		}
		all.m[key] = it
	}
	it.refs++
	all.mu.Unlock()
	return func(ctx context.Context) error {
		select {
		case it.turn <- struct{}{}:
		case <-ctx.Done():
			return contextError(ctx, "backplane.interest")
		}
		defer func() { <-it.turn }()
		if it.on {
			return nil
		}
		if err := e.backplane.Interest(ctx, h.name, t, true); err != nil {
			return err
		}
		it.on = true
		return nil
	}
}

// neglect notes one connection fewer behind t. The backplane learns of the last
// one in its time.
func (h *Hub) neglect(t Target) {
	e := h.engine
	if e.backplane == nil {
		return
	}
	all := &e.interests
	key := interestKey{h.name, t}
	all.mu.Lock()
	it := all.m[key]
	it.refs--
	last := it.refs == 0
	all.mu.Unlock()
	if !last {
		return
	}
	e.spawn(func() {
		it.turn <- struct{}{}
		defer func() { <-it.turn }()
		all.mu.Lock()
		again := it.refs > 0 || all.m[key] != it
		all.mu.Unlock()
		if again {
			return
		}
		if it.on {
			if err := e.backplane.Interest(e.ctx, h.name, t, false); err != nil {
				e.log.Warn("the backplane did not take back an interest", "hub", h.name, "target", t.Name, "error", err)
			}
			it.on = false
		}
		all.mu.Lock()
		if it.refs == 0 {
			delete(all.m, key)
		}
		all.mu.Unlock()
	})
}

// beginJoin puts c into g; what remains is to wait for the backplane.
func (h *Hub) beginJoin(c *Conn, g GroupName, options any) (wait func(context.Context) error, _ error) {
	active := h.note(Target{TargetGroup, string(g)})
	joined, err := c.join(g, options)
	if err != nil || !joined {
		h.neglect(Target{TargetGroup, string(g)})
	}
	if err != nil || active == nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		err := active(ctx)
		if err != nil && joined {
			c.leave(g)
		}
		return err
	}, nil
}

// joinNow puts c into g and waits for the backplane.
func (h *Hub) joinNow(ctx context.Context, c *Conn, g GroupName, options any) error {
	wait, err := h.beginJoin(c, g, options)
	if err != nil || wait == nil {
		return err
	}
	return wait(ctx)
}

// leaveTable takes m out of its group, and out of what the backplane knows.
func (h *Hub) leaveTable(t *groupTable, m *membership) {
	g := m.group
	t.leave(m)
	if t.kind == TargetGroup {
		h.engine.counters.memberships.Add(-1)
		h.engine.giveGroupBytes(m.bytes())
	}
	h.neglect(Target{t.kind, g.name})
}
