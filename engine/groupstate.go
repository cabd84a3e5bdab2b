package engine

import (
	"context"
	"slices"
	"strings"
	"time"
)

// A group's state is a small map for each member that has set one. Those who
// watch it get a snapshot and then what changes. Both the watchers of a group and
// those who have state in it are groups inside, of kinds of their own: updates
// are published to the one, and snapshots are collected from the other.

const (
	// maxState bounds one connection's state in one group: bytes of keys and values.
	maxState = 512
	// maxSnapshot bounds the items of a snapshot, the first in order of connection id.
	maxSnapshot = 200
)

// ownState is what a connection has set in one group. Guarded by its Conn.mu.
type ownState struct {
	item   GroupState // immutable but for being replaced
	holder *membership
}

// setState sets or clears c's state in a group.
func (h *Hub) setState(c *Conn, r *Request) (wait func(context.Context) error, _ error) {
	if err := c.check(r, SetGroupState, "set the state of"); err != nil {
		return nil, err
	}
	size := 0
	for k, v := range r.State {
		size += len(k) + len(v)
	}
	if size > maxState {
		return nil, Errorf(CodeTooLarge, "limits.groupState",
			"The state has %d bytes of keys and values; at most %d are allowed.", size, maxState)
	}
	holders := Target{TargetStated, string(r.Group)}
	active := h.note(holders)
	set := func() error {
		stays, err := c.putState(r.Group, r.State)
		if !stays {
			h.neglect(holders)
		}
		return err
	}
	if active == nil {
		return nil, set()
	}
	return func(ctx context.Context) error {
		// Whoever takes a snapshot from now on must ask this node, too.
		if err := active(ctx); err != nil {
			h.neglect(holders)
			return err
		}
		return set()
	}, nil
}

// putState replaces c's state in g and tells the watchers. It reports whether c
// has become one of those who have state in g.
func (c *Conn) putState(g GroupName, state map[string]string) (stays bool, _ error) {
	h := c.hub
	c.mu.Lock()
	if err := c.mayUseState(g); err != nil {
		c.mu.Unlock()
		return false, err
	}
	have := c.extra.get().states[g]
	if have == nil && state == nil {
		c.mu.Unlock()
		return false, nil
	}
	now := h.engine.clock.Now().Truncate(time.Millisecond)
	if c.extra != nil && !now.After(c.extra.stated) {
		now = c.extra.stated.Add(time.Millisecond)
	}
	c.more().stated = now
	item := GroupState{ConnID: c.id, UserID: c.user, State: state, UpdatedAt: now}
	switch {
	case state == nil:
		delete(c.extra.states, g)
		h.stated.leave(have.holder)
	case have == nil:
		have = &ownState{holder: &membership{conn: c}}
		if c.extra.states == nil {
			c.extra.states = make(map[GroupName]*ownState)
		}
		c.extra.states[g] = have
		h.stated.join(c, string(g), have.holder, true)
		stays = true
	}
	have.item = item
	c.mu.Unlock()
	if state == nil { // one for what setState noted, and one for what was there
		h.neglect(Target{TargetStated, string(g)})
	}
	h.tellState(g, item)
	return stays, nil
}

// mayUseState says why c has nothing to do with g's state. c.mu is held.
func (c *Conn) mayUseState(g GroupName) error {
	switch {
	case c.isOver:
		return errConnOver
	case c.find(g) < 0:
		return &Error{
			Code: CodeForbidden, Rule: "groupState.member", Target: "group",
			Message: "The state of group '" + string(g) + "' is for its members, and the connection is none.",
		}
	}
	return nil
}

// clearState tells that the state that c had in g is gone.
func (h *Hub) clearState(c *Conn, g GroupName, st *ownState) {
	h.stated.leave(st.holder)
	h.neglect(Target{TargetStated, string(g)})
	gone := GroupState{ConnID: c.id, UserID: c.user, UpdatedAt: h.engine.clock.Now().Truncate(time.Millisecond)}
	if !gone.UpdatedAt.After(st.item.UpdatedAt) {
		gone.UpdatedAt = st.item.UpdatedAt.Add(time.Millisecond)
	}
	h.tellState(g, gone)
}

// tellState publishes an item to g's watchers.
func (h *Hub) tellState(g GroupName, item GroupState) {
	m := &Message{Kind: KindStateUpdate, Group: g, States: []GroupState{item}}
	t := Target{TargetWatchers, string(g)}
	if watchers := h.find(t); watchers != nil {
		h.publish(watchers, m, nil, nil)
	}
	if e := h.engine; e.backplane != nil {
		if err := e.backplane.Tell(e.ctx, &Command{Hub: h.name, Verb: VerbSend, Target: t, Message: m}); err != nil {
			e.logFailure("a group's state was not told to other nodes", err, "hub", h.name, "group", g)
		}
	}
}

// watchState makes c a watcher. Updates are kept back from it until it has its
// snapshot, which r's completion precedes.
func (h *Hub) watchState(c *Conn, r *Request) (wait func(context.Context) error, _ error) {
	if err := c.check(r, GetGroupState, "get the state of"); err != nil {
		return nil, err
	}
	t := Target{TargetWatchers, string(r.Group)}
	active := h.note(t)
	m, began, err := c.watch(r.Group)
	if !began {
		h.neglect(t)
	}
	if err != nil {
		return nil, err
	}
	snapshot := func(ctx context.Context) error {
		a, err := h.ask(ctx, &Command{Hub: h.name, Verb: VerbState, Target: Target{TargetStated, string(r.Group)}, Limit: maxSnapshot})
		if err != nil {
			return err
		}
		r.then = func() {
			c.shard.post(entry{op: opRelease, member: m, message: &Message{Kind: KindStateSnapshot, Group: r.Group, States: a.States}})
		}
		return nil
	}
	if active == nil {
		return nil, snapshot(h.engine.ctx)
	}
	return func(ctx context.Context) error {
		err := active(ctx)
		if err == nil {
			err = snapshot(ctx)
		}
		if err != nil {
			c.unwatch(r.Group)
		}
		return err
	}, nil
}

// watch makes c one of g's watchers, from whom updates are kept back, and
// reports whether it was none before.
func (c *Conn) watch(g GroupName) (_ *membership, began bool, _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.mayUseState(g); err != nil {
		return nil, false, err
	}
	if m := c.extra.get().watching[g]; m != nil { // it asks for another snapshot
		c.shard.post(entry{op: opHold, member: m})
		return m, false, nil
	}
	m := &membership{conn: c}
	x := c.more()
	if x.watching == nil {
		x.watching = make(map[GroupName]*membership)
	}
	x.watching[g] = m
	c.hub.watchers.join(c, string(g), m, true)
	c.shard.post(entry{op: opHold, member: m}, entry{op: opJoin, member: m})
	return m, true, nil
}

// unwatch takes c off g's watchers; it need not be one.
func (c *Conn) unwatch(g GroupName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := c.extra.get().watching[g]; m != nil {
		delete(c.extra.watching, g)
		c.hub.unwatch(g, m)
	}
}

func (h *Hub) unwatch(g GroupName, m *membership) {
	h.watchers.leave(m)
	h.neglect(Target{TargetWatchers, string(g)})
}

// states returns the first of what conns, who have state in g, have set there.
func statesOf(conns []*Conn, g GroupName, limit int) []GroupState {
	var items []GroupState
	for _, c := range conns {
		c.mu.Lock()
		if st := c.extra.get().states[g]; st != nil {
			items = append(items, st.item)
		}
		c.mu.Unlock()
	}
	return firstStates(items, limit)
}

func firstStates(items []GroupState, limit int) []GroupState {
	slices.SortFunc(items, func(a, b GroupState) int { return strings.Compare(string(a.ConnID), string(b.ConnID)) })
	return items[:min(len(items), limit)]
}

// held is what is kept back from a watcher that has no snapshot yet. Owned by
// the shard.
type held struct {
	updates []*Message
	bytes   int
}

func (s *shard) hold(m *membership) {
	if s.holds == nil {
		s.holds = make(map[*membership]*held)
	}
	if s.holds[m] == nil {
		s.holds[m] = &held{}
	}
}

// publishState gives updates to g's watchers here, or keeps them back.
func (s *shard) publishState(g *group, entries []entry) {
	set := s.sets[g]
	if set == nil || len(s.holds) == 0 {
		s.publish(g, entries)
		return
	}
	for _, ms := range set.slices {
		for _, m := range ms.members {
			for i := range entries {
				if h := s.holds[m]; h == nil {
					s.solo(m.conn, entries[i].message)
				} else if h.bytes += entries[i].message.size(); h.bytes > s.engine.limits.OutboundBytes {
					m.conn.over(EndSlow, CloseAbnormal, "More of a group's state has changed than may wait for the client's snapshot.")
					s.drop(m.conn)
					break
				} else {
					h.updates = append(h.updates, entries[i].message)
				}
			}
		}
	}
}

// release gives a watcher its snapshot, and then what was kept back and is not
// older than that.
func (s *shard) release(m *membership, snapshot *Message) {
	h := s.holds[m]
	if h == nil {
		return // it watches no more
	}
	delete(s.holds, m)
	if !m.conn.takes(snapshot) {
		return
	}
	s.solo(m.conn, snapshot)
	at := make(map[ConnID]time.Time, len(snapshot.States))
	for _, item := range snapshot.States {
		at[item.ConnID] = item.UpdatedAt
	}
	for _, update := range h.updates {
		if item := update.States[0]; item.UpdatedAt.After(at[item.ConnID]) {
			s.solo(m.conn, update)
		}
	}
}
