package engine

import "sync"

// group is a set of connections that messages can be published to: one that
// clients join, all of a hub, or the watchers of a group's state. Those who have state in a group are one, too, for verbs alone.
//
// It holds the truth that verbs ask for (existence, counts, listing). Who gets
// a message is decided by the shards, from member slices of their own that
// follow the table through their queues.
type group struct {
	name string

	mu       sync.Mutex // guards the rest, but for kind; only a shard's queue lock is taken under it
	members  []*membership
	perShard []int32 // members on each shard; nil unless the shards follow
	dead     bool    // left by its last member and out of the table

	kind TargetKind // fixed at birth; here it costs nothing
}

func newGroup(kind TargetKind, name string, shards int) *group {
	g := &group{name: name, kind: kind}
	if kind.followed() {
		g.perShard = make([]int32, shards)
	}
	return g
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
	if g.kind.followed() {
		g.perShard[s.index]++
		if !told {
			s.post(entry{op: opJoin, member: m})
		}
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
	if g.kind.followed() {
		s := m.conn.shard
		g.perShard[s.index]--
		s.post(entry{op: opLeave, member: m})
	}
	g.dead = last == 0 && g.kind != TargetAll
	return g.dead
}

// followed reports whether the shards have slices of the members of such groups.
// Nothing is published to those who have state in a group.
func (k TargetKind) followed() bool { return k != TargetUser && k != TargetStated }

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
	mu     sync.RWMutex
	groups index[*group]
}

func (g *group) key() string { return g.name }

const tableStripes = 16

// stripeOf returns the stripe for names with the hash h.
func stripeOf(h uint64) int { return int(h % tableStripes) }

func (t *groupTable) find(name string) *group {
	h := hashOf(name)
	st := &t.stripes[stripeOf(h)]
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.groups.find(h, name)
}

// join puts c into the named group, making the group if it is not there. told is
// as in group.add.
func (t *groupTable) join(c *Conn, name string, m *membership, told bool) {
	h := hashOf(name)
	for {
		st := &t.stripes[stripeOf(h)]
		st.mu.Lock()
		g := st.groups.find(h, name)
		if g == nil {
			g = newGroup(t.kind, name, len(c.hub.engine.shards))
			st.groups.insert(h, g)
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
	h := hashOf(g.name)
	st := &t.stripes[stripeOf(h)]
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.groups.remove(h, g) {
		e.counters.groupGone(t.kind, g.name)
	}
}
