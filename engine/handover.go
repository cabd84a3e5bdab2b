package engine

import (
	"context"
	"maps"
	"slices"
	"time"
	"unique"
)

// ConnState is all that a recoverable connection is, apart from its wire, as plain
// data: what lets it go on in another engine. What doors and handlers keep with a
// connection (Details, Session, MembershipState.Options, the Attributes of
// messages) is theirs to make plain.
type ConnState struct {
	ID          ConnID
	UserID      UserID
	Subprotocol string
	Roles       []string
	// Overrides are the run-time grants and revocations.
	Overrides []PermissionState
	Groups    []MembershipState
	// Acks are the ack ids that have succeeded, the oldest first.
	Acks      []AckRange
	NextEvent uint64
	Handler   HandlerState
	Details   any
	Session   any
	// Last and LastAway are as given to [Conn.SetLast]; nil for none.
	Last     *Request
	LastAway time.Duration
	// Recovery is how long it outlives a wire; the wait begins anew.
	Recovery time.Duration
	// Secret is the SHA-256 of the reconnection token's random part; Certificate
	// that of the client's certificate, empty for none.
	Secret, Certificate []byte
	// Sequence is the last number that was given.
	Sequence SequenceID
	// Replay is what was not acknowledged, Waiting what has not been sent.
	Replay, Waiting []DeliveryState
	Streams         []StreamState
	// States is what it has set in groups, Watching the groups whose state it
	// watches. A watcher gets a new snapshot.
	States   []OwnState
	Watching []GroupName
}

// PermissionState is a run-time grant or revocation.
type PermissionState struct {
	Permission Permission
	Group      GroupName
	Allowed    bool
}

// MembershipState is a group that a connection is in, and its opaque options.
type MembershipState struct {
	Group   GroupName
	Options any
}

// AckRange is a run of ack ids, both ends included.
type AckRange struct{ First, Last AckID }

// DeliveryState is a message for a connection: its number, 0 for none yet, and the
// options of the membership that it came by.
type DeliveryState struct {
	Seq        SequenceID
	Message    *Message
	Membership any
}

// StreamState is a stream that a connection publishes.
type StreamState struct {
	ID     string
	Group  GroupName
	NoEcho bool
	Next   uint64
	Idle   time.Duration
}

// OwnState is what a connection has set in one group.
type OwnState struct {
	Group     GroupName
	State     map[string]string
	UpdatedAt time.Time
}

// deliveries is the shard's part of a connection's state.
type deliveries struct {
	seq             SequenceID
	replay, waiting []DeliveryState
}

// HandOver takes a connection out of this engine and returns what it is, for
// [Hub.Adopt] to go on with. Its wire is closed with [CloseGoingAway], and no
// event is raised. CodeNotFound: there is no such connection here, or it is not
// recoverable; CodeConflict: it has requests under way.
//
// What is published between the two calls does not reach the connection: whoever
// moves one while publishing goes on has to see to that.
func (h *Hub) HandOver(ctx context.Context, id ConnID) (*ConnState, error) {
	c := h.conns.find(id)
	if c == nil || !c.recoverable() {
		return nil, &Error{Code: CodeNotFound, Rule: "handover.connection", Message: "There is no such connection that could be handed over."}
	}
	st, x, left, err := c.depart()
	if err != nil {
		return nil, err
	}
	if c.owner != nil { // it changes no more
		c.owner.Ended()
	}
	taken := make(chan *deliveries, 1)
	c.shard.post(entry{op: opHandOver, conn: c, closing: &closing{reason: EndShutdown, code: CloseGoingAway}, taken: taken})
	h.conns.remove(c)
	for g, m := range x.watching {
		h.unwatch(g, m)
	}
	for g, own := range x.states {
		h.stated.leave(own.holder)
		h.neglect(Target{TargetStated, string(g)})
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
	h.engine.connOver(c, EndHandedOver, CloseGoingAway, "")
	c.part()
	select {
	case d := <-taken:
		st.Sequence, st.Replay, st.Waiting = d.seq, d.replay, d.waiting
		return st, nil
	case <-c.shard.done:
		return nil, errEngineClosed
	case <-ctx.Done():
		return nil, contextError(ctx, "handover")
	}
}

// depart marks c as over and returns what it is, but for the shard's part, and
// what is still to be taken out of tables.
func (c *Conn) depart() (_ *ConnState, x extra, left []*membership, _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.isOver || !c.announced:
		return nil, x, nil, errConnOver
	case c.busy:
		return nil, x, nil, Errorf(CodeConflict, "handover.busy", "The connection has requests under way.")
	}
	x = *c.extra.get()
	d := c.durable
	st := &ConnState{
		ID: c.id, UserID: c.user, Subprotocol: c.Subprotocol(), Roles: c.grants.roles,
		Acks: c.acks.export(), NextEvent: c.nextEvent,
		Handler: x.handlerState, Details: x.details, Session: d.session,
		Recovery: time.Duration(d.recovery.Load()), Secret: slices.Clone(d.secret[:]),
	}
	if d.cert != nil {
		st.Certificate = slices.Clone(d.cert[:])
	}
	if x.last != nil {
		st.Last, st.LastAway = x.last.Request, x.last.Away
	}
	for key, allowed := range x.overrides {
		st.Overrides = append(st.Overrides, PermissionState{key.permission, key.group, allowed})
	}
	for _, m := range c.memberships {
		st.Groups = append(st.Groups, MembershipState{GroupName(m.group.name), m.opaque()})
	}
	for id, s := range x.streams {
		st.Streams = append(st.Streams, StreamState{id, s.group, s.noEcho, s.next, s.idle})
	}
	for g, own := range x.states {
		st.States = append(st.States, OwnState{g, own.item.State, own.item.UpdatedAt})
	}
	st.Watching = slices.Collect(maps.Keys(x.watching))
	left = c.memberships
	c.isOver, c.memberships, c.extra = true, nil, nil
	c.ending.Store(true)
	return st, x, left, nil
}

// handOver takes what the shard knows of c, which is over, and closes its wire.
func (s *shard) handOver(c *Conn, end *closing, taken chan<- *deliveries) {
	if c.state == connOpen {
		s.hangUp(c, end)
	}
	d := &deliveries{seq: c.seq}
	if c.state == connOpen || c.state == connDetached {
		s.unplan(c)
		d.replay = export(c.durable.replay.queue[c.durable.replay.head:])
		if c.lag != nil {
			d.waiting = export(c.lag.rest())
			c.lag = nil // nothing of it is lost
		}
	}
	s.drop(c)
	taken <- d
}

func export(queue []owed) []DeliveryState {
	var list []DeliveryState
	for _, o := range queue {
		if o.message == nil {
			continue
		}
		list = append(list, DeliveryState{o.seq, o.message, o.member.opaque()})
	}
	return list
}

// Adopt goes on with a connection that another engine has handed over, as one that
// has lost its wire: its client recovers it within its window. encoding is only
// what counts until then, of a connection that nobody can hear; the wire's own
// comes with the recovery. Unlike a new connection it raises no event and asks no
// handler. CodeConflict: its id is in use.
func (h *Hub) Adopt(ctx context.Context, st *ConnState, encoding Encoding) error {
	e := h.engine
	if err := e.reserve(); err != nil {
		return err
	}
	c := &Conn{
		id: st.ID, user: st.UserID, protocol: unique.Make(st.Subprotocol), hub: h, shard: e.shardFor(), sink: nowhere{},
		numbered: true, mute: true, grants: e.roles.compile(st.Roles), nextEvent: st.NextEvent, announced: true,
	}
	d := &durable{wire: FirstWire, newest: FirstWire, session: st.Session, encoding: encoding}
	d.recovery.Store(int64(st.Recovery))
	copy(d.secret[:], st.Secret)
	if len(st.Certificate) == len(d.secret) {
		d.cert = new([len(d.secret)]byte)
		copy(d.cert[:], st.Certificate)
	}
	c.durable = d
	c.acks.adopt(st.Acks)
	x := c.more()
	x.handlerState, x.details = st.Handler, st.Details
	for _, o := range st.Overrides {
		x.overrides.set(o.Permission, o.Group, o.Allowed)
	}
	if st.Last != nil {
		x.last = &LastMessage{st.Last, st.LastAway}
	}
	in := &entrance{encoding: encoding, adopted: st, claims: true}
	if err := h.enter(ctx, c, in); err != nil {
		e.unreserve()
		return err
	}
	for _, g := range st.Groups {
		if err := h.joinNow(ctx, c, g.Group, g.Options); err != nil {
			e.log.Warn("a connection that was handed over is not in all its groups", "hub", h.name, "connection", c.id, "error", err)
		}
	}
	c.adoptStreams(st.Streams)
	for _, own := range st.States {
		h.adoptState(ctx, c, own)
	}
	for _, g := range st.Watching {
		if err := c.WatchGroupState(ctx, g); err != nil {
			e.log.Warn("a connection that was handed over watches not all that it did", "hub", h.name, "connection", c.id, "error", err)
		}
	}
	return nil
}

func (c *Conn) adoptStreams(streams []StreamState) {
	if len(streams) == 0 {
		return
	}
	now := c.hub.engine.clock.Now()
	c.mu.Lock()
	x := c.more()
	x.streams = make(map[string]*stream, len(streams))
	for _, s := range streams {
		x.streams[s.ID] = &stream{group: s.Group, noEcho: s.NoEcho, next: s.Next, idle: s.Idle, ends: now.Add(s.Idle)}
	}
	c.mu.Unlock()
	c.shard.post(entry{op: opTask, conn: c})
}

// adoptState puts back what c had set, which its watchers know already.
func (h *Hub) adoptState(ctx context.Context, c *Conn, own OwnState) {
	holders := Target{TargetStated, string(own.Group)}
	if err := h.attend(ctx, holders); err != nil {
		h.neglect(holders)
		h.engine.logFailure("a connection that was handed over lost its state in a group", err,
			"hub", h.name, "connection", c.id, "group", own.Group)
		return
	}
	c.mu.Lock()
	if c.mayUseState(own.Group) != nil {
		c.mu.Unlock()
		h.neglect(holders)
		return
	}
	x := c.more()
	if x.states == nil {
		x.states = make(map[GroupName]*ownState)
	}
	st := &ownState{
		item:   GroupState{ConnID: c.id, UserID: c.user, State: own.State, UpdatedAt: own.UpdatedAt},
		holder: &membership{conn: c},
	}
	x.states[own.Group] = st
	if own.UpdatedAt.After(x.stated) {
		x.stated = own.UpdatedAt
	}
	h.stated.join(c, string(own.Group), st.holder, true)
	c.mu.Unlock()
}

// adopt begins a connection that has no wire.
func (s *shard) adopt(c *Conn, st *ConnState) {
	c.seq = st.Sequence
	for _, d := range st.Replay {
		c.durable.replay.keep(d.owed(c))
	}
	c.durable.replay.kept = st.Sequence
	s.detach(c, nil)
	for _, d := range st.Waiting {
		c.lag.push(d.owed(c))
	}
	s.reckon(c)
}

func (d *DeliveryState) owed(c *Conn) owed {
	o := owed{message: d.Message, seq: d.Seq}
	if d.Membership != nil {
		o.member = &membership{conn: c, options: box(d.Membership)}
	}
	return o
}

// nowhere is the sink of a connection that waits for its first wire.
type nowhere struct{}

func (nowhere) Offer(*Batch, []Span) (n, part int, err error) { return 0, 0, nil }
func (nowhere) OfferBytes([]byte) (int, error)                { return 0, nil }
func (nowhere) Held() int                                     { return 0 }
func (nowhere) Close(bool)                                    {}
