package engine

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

// Conn is the engine's record of a logical connection. Its exported methods may
// be called concurrently and never wait, but for those that take a context.
type Conn struct {
	// Owned by the shard.
	sink         Sink
	codec        *encoder
	older, newer *Conn   // in shard.live
	lag          *lagged // what it owes; nil while in step
	window       *window // nil if there is none
	seq          SequenceID
	timers       [timerKinds]uint32 // when it is due on the wheel
	plan         int32              // 1 + its place in the turn's plans; 0 for none
	owedMessages int32
	state        connState
	missed       uint8 // keep-alive intervals without a sign of life
	wireDone     bool  // the far end has said goodbye

	// Fixed at birth.
	id       ConnID
	user     UserID
	network  network               // zero for one with a user
	protocol unique.Handle[string] // the name of its subprotocol
	hub      *Hub
	shard    *shard
	durable  *durable // nil for one that ends with its wire

	heard  atomic.Bool
	ending atomic.Bool  // mirrors isOver, for those who may not lock
	parts  atomic.Int32 // what there still is of it: the logical connection, the sink
	place  int32        // among its user's connections; guarded by user.mu

	owed atomic.Int64

	pings      milliseconds // owned by the shard
	groupBytes int32        // of the names of its groups and of the options of its memberships; guarded by mu

	everyone membership // in hub.all
	first    membership // in the first group that it ever joins; used once
	inUser   *user      // nil without a user

	mu        sync.Mutex // guards the rest; groups and shard queues are locked under it
	owner     Owner      // nil for none
	isOver    bool
	entered   bool // it is in its tables
	announced bool // connected was raised
	busy      bool // its lane runs
	// Fixed at birth, too; here they cost nothing.
	numbered bool
	mute     bool // it is listened to, and not pinged
	quiet    bool // raises no events (in-process subscribers)

	nextEvent   uint64
	grants      *grants
	memberships []*membership
	firstGroup  [1]*membership // room for memberships: most connections are in few groups
	acks        ackSet
	lane        *lane // what waits while busy; nil if nothing does
	extra       *extra
}

// milliseconds are an interval in little memory.
type milliseconds uint32

// inMilliseconds rounds d up.
func inMilliseconds(d time.Duration) milliseconds {
	return milliseconds(min(max(0, (d+time.Millisecond-1)/time.Millisecond), math.MaxUint32))
}

func (m milliseconds) duration() time.Duration { return time.Duration(m) * time.Millisecond }

// extra is what few connections have, kept apart so that an idle one is small.
// Guarded by Conn.mu.
type extra struct {
	overrides    overrides
	index        map[GroupName]int // of memberships, once there are many
	handlerState HandlerState
	details      any // opaque, for events
	last         *LastMessage
	lastWire     WireID             // the wire that last was left on
	streams      map[string]*stream // that it publishes
	states       map[GroupName]*ownState
	stated       time.Time // when it last changed one of them
	watching     map[GroupName]*membership
	late         *string // the reason of an end that came before connected was raised
}

var noExtra extra

// get returns what there is of it, to be read only.
func (x *extra) get() *extra {
	if x == nil {
		return &noExtra
	}
	return x
}

// more returns c's extra, to be written. c.mu is held.
func (c *Conn) more() *extra {
	if c.extra == nil {
		c.extra = &extra{}
	}
	return c.extra
}

// ID returns the connection's id, unique in its hub.
func (c *Conn) ID() ConnID { return c.id }

// Hub returns the connection's hub.
func (c *Conn) Hub() *Hub { return c.hub }

// UserID returns the connection's user, empty if it has none.
func (c *Conn) UserID() UserID { return c.user }

// Subprotocol returns the name of the subprotocol, empty for a raw connection.
func (c *Conn) Subprotocol() string {
	if c.protocol == (unique.Handle[string]{}) {
		return "" // an in-process subscriber
	}
	return c.protocol.Value()
}

// Post queues m for this connection alone, behind all that was queued before.
// What is posted to a connection that is over is dropped.
func (c *Conn) Post(m *Message) { c.shard.post(entry{op: opPost, conn: c, message: m}) }

// Heard notes a sign of life: a door calls it for whatever it reads.
func (c *Conn) Heard() {
	if !c.heard.Load() {
		c.heard.Store(true)
	}
}

// Writable tells that the sink has room again.
func (c *Conn) Writable() { c.shard.post(entry{op: opWritable, conn: c}) }

// Acknowledge tells that the far end has acknowledged n deliveries, which makes
// room in the connection's window ([OpenOptions].Window).
func (c *Conn) Acknowledge(n int) { c.shard.post(entry{op: opAcknowledge, conn: c, n: n}) }

// End ends the connection politely from the server's side: what is queued still
// goes out, then, if text is not empty, a KindDisconnected that says it, then a
// KindClose with code and closeText. If the far end does not close within
// [Limits].CloseTimeout the connection is cut. Ending twice does nothing.
func (c *Conn) End(reason EndReason, code CloseCode, text, closeText string) {
	c.end(c.hub.engine.ctx, reason, code, text, closeText)
}

// end ends the connection on behalf of ctx, whose trace goes on with it.
func (c *Conn) end(ctx context.Context, reason EndReason, code CloseCode, text, closeText string) {
	why := text
	if why == "" {
		why = closeText
	}
	if c.overFor(ctx, reason, code, why) {
		c.shard.post(entry{op: opFinish, conn: c, closing: &closing{reason, text, code, closeText}})
	}
}

// Abort cuts the connection without a word. detail goes to the log and the
// disconnected event.
func (c *Conn) Abort(reason EndReason, detail string) {
	c.over(reason, CloseAbnormal, detail)
	c.shard.post(entry{op: opAbort, conn: c})
}

// Gone tells that the far end of a wire said goodbye with code and text, which
// the engine answers with a KindClose of the same code before it closes the sink;
// or, with CloseAbnormal, that the wire is lost. A wire that another one has
// replaced is no news.
func (c *Conn) Gone(wire WireID, code CloseCode, text string) {
	reason := EndClient
	if code == CloseAbnormal {
		reason = EndLost
	}
	if code != CloseAbnormal && c.leaves(wire) {
		return
	}
	if c.detached(wire, code) {
		return
	}
	c.over(reason, code, text)
	c.shard.post(entry{op: opGone, conn: c, polite: code != CloseAbnormal, closing: &closing{reason: EndClient, code: code}})
}

// SetLast leaves a message that is published once, under the connection's own
// name and permissions: when the logical connection ends, whoever ends it, or when
// it has been without a wire for away, if that comes first; a negative away never
// does. With an away of 0 the loss of a wire is enough, even if another one takes its
// place at once ([Recovery.Open]). nil takes the message back. r is a request of
// OpSend.
func (c *Conn) SetLast(r *Request, away time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setLast(&LastMessage{r, away}, c.newestWire())
}

// SetDetails replaces the opaque details that later events carry.
func (c *Conn) SetDetails(details any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.more().details = details
}

// over makes the logical connection end: it leaves the hub, its groups and its
// user, and disconnected is raised. It reports false if it was over already.
// What remains of it is the sink, which the shard closes in its time.
func (c *Conn) over(reason EndReason, code CloseCode, text string) bool {
	return c.overFor(c.hub.engine.ctx, reason, code, text)
}

func (c *Conn) overFor(ctx context.Context, reason EndReason, code CloseCode, text string) bool {
	c.mu.Lock()
	if c.isOver {
		c.mu.Unlock()
		return false
	}
	c.isOver = true
	if !c.entered {
		c.mu.Unlock()
		return false // Open fails, and says so
	}
	announced := c.announced || c.quiet
	if !announced {
		c.more().late = &text
	}
	c.ending.Store(true)
	x := c.extra.get()
	last, streams, states, watching := x.last, x.streams, x.states, x.watching
	left := c.memberships
	c.memberships = nil
	if c.extra != nil {
		c.extra.last, c.extra.streams, c.extra.states, c.extra.watching, c.extra.index = nil, nil, nil, nil, nil
	}
	owner := c.owner
	leaveLane := c.leaveLane()
	c.mu.Unlock() // enter holds it until c is in all its tables

	leaveLane()
	h := c.hub
	c.publishLast(last)
	for id, st := range streams {
		h.endStream(c, id, st, &StreamError{Name: StreamCancelled, Message: "The publisher is gone."})
	}
	h.conns.remove(c)
	for g, m := range watching {
		h.unwatch(g, m)
	}
	for g, st := range states {
		h.clearState(c, g, st)
	}
	for _, m := range left {
		h.leaveTable(&h.groups, m)
	}
	if c.user != "" {
		h.users.leave(c)
		h.neglect(Target{TargetUser, string(c.user)})
	}
	h.all.remove(&c.everyone)
	h.neglect(Target{Kind: TargetAll})
	h.engine.connOver(c, reason, code, text)
	if owner != nil {
		owner.Ended()
	}
	if announced { // otherwise Open does what follows
		c.sayDisconnected(ctx, text)
		c.part()
	}
	return true
}

// part notes that the logical connection is over and has said so, or that the
// sink is closed. After both, the connection's place is free.
func (c *Conn) part() {
	if c.parts.Add(-1) == 0 {
		c.hub.engine.unreserve()
	}
}

// find returns the place of g in c.memberships, or -1. c.mu is held.
func (c *Conn) find(g GroupName) int {
	if index := c.extra.get().index; index != nil {
		if i, ok := index[g]; ok {
			return i
		}
		return -1
	}
	for i, m := range c.memberships {
		if m.group.name == string(g) {
			return i
		}
	}
	return -1
}

// manyGroups is how many memberships a connection searches one by one.
const manyGroups = 16

// join puts c into g and reports whether that made a membership: not if c was a
// member with no options, and is to be one.
func (c *Conn) join(g GroupName, options any) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isOver {
		return false, errConnOver
	}
	if i := c.find(g); i >= 0 {
		if options == nil && c.memberships[i].options == nil {
			return false, nil
		}
		// A new membership: what was published before goes by the old one's options.
		old := c.memberships[i]
		m := &membership{conn: c, group: old.group, options: box(options)}
		more := m.bytes() - old.bytes()
		if err := c.checkGroupBytes(more); err != nil {
			return false, err
		}
		c.groupBytes += int32(more)
		c.hub.engine.giveGroupBytes(-more)
		old.group.replace(old, m)
		c.memberships[i] = m
		return false, nil
	}
	if most := c.hub.engine.limits.GroupsPerConnection; len(c.memberships) >= most {
		return false, Errorf(CodeTooLarge, "limits.groupsPerConnection",
			"The connection is in %d groups already, the most that is allowed.", most)
	}
	own := len(g) + sizeOf(options)
	if err := c.checkGroupBytes(own); err != nil {
		return false, err
	}
	m := &c.first
	if m.conn != nil {
		m = &membership{} // shards may still know of the first one
	}
	m.conn, m.options = c, box(options)
	if err := c.hub.engine.takeGroupBytes(m.bytes()); err != nil {
		return false, err
	}
	c.groupBytes += int32(own)
	c.hub.groups.join(c, string(g), m, false)
	c.hub.engine.counters.memberships.Add(1)
	if len(c.memberships) == 0 {
		c.memberships = c.firstGroup[:0]
	}
	c.memberships = append(c.memberships, m)
	if index := c.extra.get().index; index != nil {
		index[GroupName(m.group.name)] = len(c.memberships) - 1 // not g: all members share one string
	} else if len(c.memberships) > manyGroups {
		index = make(map[GroupName]int, 2*manyGroups)
		for i, m := range c.memberships {
			index[GroupName(m.group.name)] = i
		}
		c.more().index = index
	}
	return true, nil
}

// leave takes c out of g and reports whether it was in it.
func (c *Conn) leave(g GroupName) bool {
	c.mu.Lock()
	i := c.find(g)
	if i < 0 {
		c.mu.Unlock()
		return false
	}
	c.drop(i)
	st, w := c.extra.get().states[g], c.extra.get().watching[g]
	if st != nil {
		delete(c.extra.states, g)
	}
	if w != nil {
		delete(c.extra.watching, g)
		c.hub.unwatch(g, w)
	}
	c.mu.Unlock()
	if st != nil {
		c.hub.clearState(c, g, st)
	}
	return true
}

// drop takes c out of its i-th group. c.mu is held.
func (c *Conn) drop(i int) {
	m := c.memberships[i]
	c.groupBytes -= int32(len(m.group.name) + sizeOf(m.opaque()))
	last := len(c.memberships) - 1
	moved := c.memberships[last]
	c.memberships[i] = moved
	c.memberships[last] = nil
	c.memberships = c.memberships[:last]
	if index := c.extra.get().index; index != nil {
		index[GroupName(moved.group.name)] = i
		delete(index, GroupName(m.group.name))
	}
	c.hub.leaveTable(&c.hub.groups, m)
}

// groupNames returns the names of c's groups.
func (c *Conn) groupNames() []GroupName {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]GroupName, len(c.memberships))
	for i, m := range c.memberships {
		names[i] = GroupName(m.group.name)
	}
	return names
}

// Permitted reports whether the connection may do p to g.
func (c *Conn) Permitted(p Permission, g GroupName) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if allowed, ok := c.extra.get().overrides[overrideKey{p, g}]; ok {
		return allowed
	}
	return c.grants.of(p).allows(g)
}

// permit overrides what the roles say about p on g.
func (c *Conn) permit(p Permission, g GroupName, allowed bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.more().overrides.set(p, g, allowed) {
		return &Error{
			Code: CodeConflict, Rule: "limits.permissions", Target: "Connection",
			Message: "The connection has 1000 rules for this permission already, the most that is allowed.",
		}
	}
	return nil
}

// eventContext returns the context of c's next event.
func (c *Conn) eventContext() EventContext {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.nextEvent
	c.nextEvent++
	return EventContext{
		Hub: c.hub.name, ConnID: c.id, UserID: c.user, Subprotocol: c.Subprotocol(),
		ID: id, Time: c.hub.engine.clock.Now(), State: c.extra.get().handlerState, Details: c.extra.get().details,
	}
}

// skipEvent counts an event that is of interest to nobody.
func (c *Conn) skipEvent() {
	c.mu.Lock()
	c.nextEvent++
	c.mu.Unlock()
}

// updateState lets a handler's reply change what the handler keeps with c.
func (c *Conn) updateState(update func(HandlerState) HandlerState) {
	if update == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.more().handlerState = update(c.extra.handlerState)
}
