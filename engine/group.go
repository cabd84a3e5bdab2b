package engine

import (
	"hash/maphash"
	"sync"
)

// group is a set of connections that messages can be published to: one that
// clients join, the connections of one user, all of a hub, or the watchers of a
// group's state. Those who have state in a group are one, too, for verbs alone.
//
// It holds the truth that verbs ask for (existence, counts, listing). Who gets
// a message is decided by the shards, from member slices of their own that
// follow the table through their queues.
type group struct {
	name string
	kind TargetKind

	mu       sync.Mutex // guards the rest; only a shard's queue lock is taken under it
	members  []*membership
	perShard []int32 // members on each shard
	dead     bool    // left by its last member and out of the table
}

// membership is one connection's place in one group.
type membership struct {
	conn    *Conn
	group   *group
	options *any  // opaque, of the connection's door; nil for none
	pos     int32 // in group.members; guarded by group.mu
	slot    int32 // in the shard's member slice; owned by the shard
}

// box keeps memberships without options small, which most are.
func box(options any) *any {
	if options == nil {
		return nil
	}
	return &options
}

// opaque returns the options of m, nil for a nil m.
func (m *membership) opaque() any {
	if m == nil || m.options == nil {
		return nil
	}
	return *m.options
}

// add puts m into g, unless g is dead. It tells the connection's shard, if told
// is false: otherwise the caller does.
func (g *group) add(m *membership, told bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.dead {
		return false
	}
	s := m.conn.shard
	m.pos = int32(len(g.members))
	g.members = append(g.members, m)
	g.perShard[s.index]++
	if !told {
		s.post(entry{op: opJoin, member: m})
	}
	return true
}

// replace puts m in old's place, here and on the shard, with no moment between.
func (g *group) replace(old, m *membership) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.pos = old.pos
	g.members[m.pos] = m
	m.conn.shard.post(entry{op: opReplace, member: m, old: old})
}

// remove takes m out of g, tells the shard, and reports whether g is now dead.
// A group of kind TargetAll never dies.
func (g *group) remove(m *membership) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.members) - 1
	moved := g.members[last]
	g.members[m.pos], moved.pos = moved, m.pos
	g.members[last] = nil
	g.members = g.members[:last]
	if cap(g.members) > 64 && last < cap(g.members)/4 {
		g.members = append(make([]*membership, 0, cap(g.members)/2), g.members...)
	}
	s := m.conn.shard
	g.perShard[s.index]--
	if g.kind != TargetStated { // nothing is published to those
		s.post(entry{op: opLeave, member: m})
	}
	g.dead = last == 0 && g.kind != TargetAll
	return g.dead
}

// snapshot returns the members as they are now.
func (g *group) snapshot() []*Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	conns := make([]*Conn, len(g.members))
	for i, m := range g.members {
		conns[i] = m.conn
	}
	return conns
}

func (g *group) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.members)
}

// groupTable finds groups by name. A lock of it guards one lookup or change of
// a map, never work proportional to members.
type groupTable struct {
	kind    TargetKind
	stripes [tableStripes]groupStripe
}

type groupStripe struct {
	mu sync.RWMutex
	m  map[string]*group
}

const tableStripes = 16

var tableSeed = maphash.MakeSeed()

func stripeOf(name string) int { return int(maphash.String(tableSeed, name) % tableStripes) }

func (t *groupTable) find(name string) *group {
	st := &t.stripes[stripeOf(name)]
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.m[name]
}

// join puts c into the named group, making the group if it is not there. told is
// as in group.add.
func (t *groupTable) join(c *Conn, name string, m *membership, told bool) {
	for {
		st := &t.stripes[stripeOf(name)]
		st.mu.Lock()
		g := st.m[name]
		if g == nil {
			if st.m == nil {
				st.m = make(map[string]*group)
			}
			g = &group{name: name, kind: t.kind, perShard: make([]int32, len(c.hub.engine.shards))}
			st.m[name] = g
			c.hub.engine.counters.groupMade(t.kind, name)
		}
		st.mu.Unlock()
		m.group = g
		if g.add(m, told) {
			return
		}
		t.forget(g, c.hub.engine) // it died between the two locks; make another
	}
}

// leave takes m out of its group.
func (t *groupTable) leave(m *membership) {
	if m.group.remove(m) {
		t.forget(m.group, m.conn.hub.engine)
	}
}

func (t *groupTable) forget(g *group, e *Engine) {
	st := &t.stripes[stripeOf(g.name)]
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.m[g.name] == g {
		if delete(st.m, g.name); len(st.m) == 0 {
			st.m = nil // maps do not shrink by themselves
		}
		e.counters.groupGone(t.kind, g.name)
	}
}
