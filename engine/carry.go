package engine

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/fanfare/fanfare/engine/filter"
)

// ask carries c out here and on every other node, and merges the answers.
func (h *Hub) ask(ctx context.Context, c *Command) (Answer, error) {
	if h.engine.ctx.Err() != nil {
		return Answer{}, errEngineClosed
	}
	sum := h.carryOut(ctx, c)
	if sum.Err != nil {
		return sum, sum.Err
	}
	bp := h.engine.backplane
	if bp == nil || c.Target.Kind == TargetConn && sum.Count > 0 {
		return sum, nil
	}
	answers, err := bp.Ask(ctx, c)
	if err != nil {
		return sum, err
	}
	for _, a := range answers {
		if a.Err != nil {
			return sum, a.Err
		}
		sum.Count += a.Count
		sum.Members = append(sum.Members, a.Members...)
		sum.States = append(sum.States, a.States...)
	}
	switch c.Verb {
	case VerbState:
		sum.States = firstStates(sum.States, c.Limit)
	case VerbList:
		sum.Members = firstMembers(sum.Members, c.Limit)
	}
	return sum, nil
}

// receive is the engine's end of the backplane.
func (e *Engine) receive(ctx context.Context, c *Command) *Answer {
	h := e.lookup(c.Hub)
	if h == nil {
		return &Answer{}
	}
	a := h.carryOut(ctx, c)
	if c.Verb == VerbSend {
		if err := e.waitRoom(ctx); err != nil {
			a.Err = asError(err)
		}
	}
	return &a
}

// carryOut does c on this node alone.
func (h *Hub) carryOut(ctx context.Context, c *Command) Answer {
	if c.Verb == VerbSend && c.Filter == "" && c.Target.Kind.followed() && c.Target.Kind != TargetConn {
		if g := h.find(c.Target); g != nil {
			h.publish(g, c.Message, h.here(c.Message), h.resolve(c.Excluded))
			return Answer{Count: 1}
		}
		return Answer{}
	}
	if c.Verb == VerbExists && c.Target.Kind == TargetUser {
		return Answer{Count: h.users.count(c.Target.Name)}
	}
	if c.Verb == VerbExists && c.Target.Kind != TargetConn {
		if g := h.find(c.Target); g != nil {
			return Answer{Count: g.count()}
		}
		return Answer{}
	}
	conns, err := h.selected(c)
	if err != nil {
		return Answer{Err: asError(err)}
	}
	a := Answer{Count: len(conns)}
	switch c.Verb {
	case VerbSend:
		h.sendTo(conns, c.Message)
	case VerbClose:
		text := "Application server closed the connection."
		if c.Text != "" {
			text += " Reason: " + c.Text
		}
		for _, conn := range conns {
			conn.end(ctx, EndServer, CloseNormal, text, "")
		}
	case VerbJoin:
		a.Err = h.joinAll(ctx, conns, c.Groups)
	case VerbLeave:
		for _, conn := range conns {
			for _, g := range c.Groups {
				conn.leave(g)
			}
		}
	case VerbLeaveAll:
		for _, conn := range conns {
			for _, g := range conn.groupNames() {
				conn.leave(g)
			}
		}
	case VerbState:
		a.States = statesOf(conns, GroupName(c.Target.Name), c.Limit)
	case VerbList:
		a.Members = listMembers(conns, c.After, c.Limit)
	case VerbGrant, VerbRevoke:
		for _, conn := range conns {
			if err := conn.permit(c.Permission, c.Groups[0], c.Verb == VerbGrant); err != nil {
				a.Err = asError(err)
			}
		}
	case VerbClaim:
		for _, conn := range conns {
			if err := conn.yield(c.User, c.Subprotocol, c.TakeOver); err != nil {
				a.Err = asError(err)
			}
		}
	case VerbPermitted:
		if a.Count > 0 && !conns[0].Permitted(c.Permission, c.Groups[0]) {
			a.Count = 0
		}
	}
	return a
}

func (h *Hub) joinAll(ctx context.Context, conns []*Conn, groups []GroupName) *Error {
	for _, conn := range conns {
		for _, g := range groups {
			if err := h.joinNow(ctx, conn, g, nil); err != nil && CodeOf(err) != CodeClosed {
				return asError(err)
			}
		}
	}
	return nil
}

// find returns the group that t, which is no user and no connection, names; nil if it has no member here.
func (h *Hub) find(t Target) *group {
	switch t.Kind {
	case TargetGroup:
		return h.groups.find(t.Name)
	case TargetWatchers:
		return h.watchers.find(t.Name)
	case TargetStated:
		return h.stated.find(t.Name)
	}
	return h.all
}

// selected returns the target's connections here, less the excluded ones and
// those that the filter does not select.
func (h *Hub) selected(c *Command) ([]*Conn, error) {
	var conns []*Conn
	if c.Target.Kind == TargetConn {
		if conn := h.conns.find(ConnID(c.Target.Name)); conn != nil {
			conns = []*Conn{conn}
		}
	} else if c.Target.Kind == TargetUser {
		conns = h.users.snapshot(c.Target.Name)
	} else if g := h.find(c.Target); g != nil {
		conns = g.snapshot()
	}
	if len(c.Excluded) > 0 {
		out := make(map[ConnID]bool, len(c.Excluded))
		for _, id := range c.Excluded {
			out[id] = true
		}
		conns = slices.DeleteFunc(conns, func(conn *Conn) bool { return out[conn.id] })
	}
	if c.Filter == "" || len(conns) == 0 {
		return conns, nil
	}
	f := c.parsed
	if f == nil { // c is another process's
		var err error
		if f, err = ParseFilter(c.Filter); err != nil {
			return nil, err
		}
	}
	var subject filter.Subject
	return slices.DeleteFunc(conns, func(conn *Conn) bool {
		subject = filter.Subject{
			ConnectionID: string(conn.id), UserID: string(conn.user), Protocol: conn.Subprotocol(), Groups: connGroups{conn},
		}
		return !f.Match(&subject)
	}), nil
}

// connGroups lets filters see a connection's groups.
type connGroups struct{ c *Conn }

func (g connGroups) Has(name string) bool {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	return g.c.find(GroupName(name)) >= 0
}

func (g connGroups) Len() int {
	g.c.mu.Lock()
	defer g.c.mu.Unlock()
	return len(g.c.memberships)
}

func (g connGroups) All() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, name := range g.c.groupNames() {
			if !yield(string(name)) {
				return
			}
		}
	}
}

// resolve returns those of ids that are open here. One that is named twice is
// returned twice, which leaving it out twice does not mind.
func (h *Hub) resolve(ids []ConnID) []*Conn {
	var conns []*Conn
	for _, id := range ids {
		if c := h.conns.find(id); c != nil {
			conns = append(conns, c)
		}
	}
	return conns
}

// here returns m's sender if m leaves it out and it is open here.
func (h *Hub) here(m *Message) *Conn {
	if !m.NoEcho || m.Sender == "" {
		return nil
	}
	return h.conns.find(m.Sender)
}

// publish queues m for the members of g, once for each shard that has some, but
// not for sender (nil for none) and not for out.
func (h *Hub) publish(g *group, m *Message, sender *Conn, out []*Conn) {
	var few [16]int
	on := few[:0]
	g.mu.Lock()
	for i, n := range g.perShard {
		if n > 0 {
			on = append(on, i)
		}
	}
	g.mu.Unlock()
	for _, i := range on {
		h.engine.shards[i].post(entry{op: opPublish, group: g, message: m, conn: sender, conns: out})
	}
}

// sendTo queues m for each of conns.
func (h *Hub) sendTo(conns []*Conn, m *Message) {
	if len(conns) == 1 {
		conns[0].shard.post(entry{op: opSelected, conns: conns, message: m})
		return
	}
	parts := make([][]*Conn, len(h.engine.shards))
	for _, c := range conns {
		parts[c.shard.index] = append(parts[c.shard.index], c)
	}
	for i, part := range parts {
		if len(part) > 0 {
			h.engine.shards[i].post(entry{op: opSelected, conns: part, message: m})
		}
	}
}

// beginSend publishes what a client sent to a group. What remains to wait for
// is a shard whose queue is full.
func (h *Hub) beginSend(c *Conn, r *Request) (wait func(context.Context) error, _ error) {
	e := h.engine
	m := &Message{
		Kind: KindData, Group: r.Group, From: c.user, Sender: c.id, NoEcho: r.NoEcho,
		Payload: r.Payload, Metadata: r.Metadata, Attributes: r.Attributes,
	}
	if r.TTL > 0 {
		m.Expires = e.clock.Now().Add(r.TTL)
	}
	if err := h.publishFrom(c, m); err != nil {
		return nil, err
	}
	if e.overfull() {
		return e.waitRoom, nil
	}
	return nil, nil
}

// publishFrom publishes m, which c sends, to its group.
func (h *Hub) publishFrom(c *Conn, m *Message) error {
	e := h.engine
	e.counters.published(m)
	if g := h.groups.find(string(m.Group)); g != nil {
		var sender *Conn
		if m.NoEcho {
			sender = c
		}
		h.publish(g, m, sender, nil)
	}
	if e.backplane == nil {
		return nil
	}
	return e.backplane.Tell(e.ctx, &Command{
		Hub: h.name, Verb: VerbSend, Target: Target{TargetGroup, string(m.Group)}, Message: m,
	})
}

// listMembers returns the first of conns after the given id, as firstMembers does.
func listMembers(conns []*Conn, after ConnID, limit int) []Member {
	var members []Member
	for _, c := range conns {
		if c.id > after {
			members = append(members, Member{c.id, c.user})
		}
	}
	return firstMembers(members, limit)
}

// firstMembers returns the first of members in order of id, one more than limit
// so that it is seen whether there are more.
func firstMembers(members []Member, limit int) []Member {
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(string(a.ConnID), string(b.ConnID)) })
	if len(members)-1 > limit {
		members = members[:max(0, limit)+1]
	}
	return members
}
