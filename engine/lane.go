package engine

import (
	"context"
	"time"
)

// Request is one data request of a client. Once handed over it must not change.
type Request struct {
	Op    Op
	Group GroupName
	Event EventName
	// AckID is the client's number for the request; HasAck says that it gave
	// one. A number that has succeeded before is answered with CodeDuplicate.
	AckID  AckID
	HasAck bool
	// NoEcho leaves the sender out of what it publishes.
	NoEcho   bool
	Payload  Payload
	Metadata Metadata
	// TTL is how long an undelivered message is worth delivering; 0 for ever.
	TTL time.Duration
	// Membership is opaque and stays with the membership (OpJoin).
	Membership any
	// Attributes are opaque and travel with the message or event.
	Attributes any
	// Unchecked skips the permission check, where the door has a rule of its own.
	Unchecked bool
	// CancelOnEnd cancels the handler's call when the connection ends.
	CancelOnEnd bool
	// Cancel, if set, cancels the handler's call, or keeps it from being made,
	// when it ends (OpEvent).
	Cancel context.Context
	// OnReply, if set, gets an event's reply, before done is called; otherwise
	// the reply's payload is sent to the connection.
	OnReply func(*EventReply)
	// OnLeave, if set, is told whether the connection was in the group, before done
	// is called (OpLeave). It must not block.
	OnLeave func(member bool)
	// Stream is the part of a stream that an operation on streams is about.
	Stream *StreamRequest
	// State is what OpSetState sets; nil clears it. It must not change.
	State map[string]string
	// Refused, if set, is why the request is not carried out: its transport can read
	// it and has no way to take it. The request fails with it in its turn, after what
	// came before it, and unless its AckID has succeeded before. A part of a stream
	// (OpStreamData) that is refused ends the stream.
	Refused *Refusal

	then func() // what follows the completion of one that succeeded
}

// Refusal is why a [Request] is not carried out. The request fails with
// CodeUnsupported.
type Refusal struct{ Rule, Target, Message string }

func (r *Refusal) err() *Error {
	return &Error{Code: CodeUnsupported, Rule: r.Rule, Target: r.Target, Message: r.Message}
}

// StreamRequest is what a publisher says about a stream of its own.
type StreamRequest struct {
	// ID is its name for the stream.
	ID string
	// Seq numbers a part: 1, 2, ...; 0 in an OpStreamData without one, which only
	// keeps the stream alive.
	Seq uint64
	// Idle is how long the stream lives without a sign of its publisher
	// (OpStreamStart); 0 for [DefaultStreamIdle].
	Idle time.Duration
	// Err is why the publisher ends the stream early (OpStreamEnd).
	Err *StreamError
}

// DefaultStreamIdle is how long a stream lives without a sign of its publisher.
const DefaultStreamIdle = 5 * time.Minute

// Op says what a [Request] asks for.
type Op uint8

// The operations.
const (
	OpJoin Op = iota + 1
	OpLeave
	OpSend
	OpEvent
	// OpStreamStart begins a stream to Group; NoEcho holds for all of it. It is
	// answered with a KindStreamAck or a KindStreamClosed.
	OpStreamStart
	// OpStreamData publishes a part, Payload. It is answered with a KindStreamAck,
	// KindStreamNack or KindStreamClosed.
	OpStreamData
	// OpStreamEnd ends a stream. It is answered with a KindStreamClosed.
	OpStreamEnd
	// OpSetState sets or clears the connection's state in Group.
	OpSetState
	// OpWatchState asks for Group's state, now and as it changes: the success is
	// followed by a KindStateSnapshot, and that by KindStateUpdates.
	OpWatchState
	// OpUnwatchState takes that back.
	OpUnwatchState
)

// lane is what waits, or is under way at event handlers, while a connection's
// requests are carried out, in order. An idle connection has none. Guarded by Conn.mu.
type lane struct {
	paused bool // Do has reported false and resume is owed
	queue  []laneItem
	budget budget        // bytes of the requests in queue, and of the event under way
	client *clientBudget // above budget; held while there is the lane; nil for the hub's
	calls  int           // calls of handlers that need the lane beside busy: connected

	cancel      context.CancelFunc // ends the event under way; nil while there is none
	cancelOnEnd bool               // it ends with the connection

	// Of the end of the connection.
	left      chan struct{} // closed when the connection ends; nil until an event needs it
	abandoned bool          // nothing is carried out any more
	stopTimer func() bool   // of what is still carried out; nil if none runs
	farewell  func()        // raises disconnected once the lane is not busy

	draining *draining // nil unless the connection ends once the lane is not busy
}

// size is what r counts for in the bound of its lane.
func (r *Request) size() int {
	return len(r.Payload.Data) + len(r.Group) + messageOverhead + mapSize(r.Metadata) + mapSize(r.State) + sizeOf(r.Attributes)
}

type laneItem struct {
	request *Request
	done    func(error)
	held    int64 // bytes that are counted in the lane's budget
}

// eventOverhead is what an event under way costs beside its bytes: goroutines, and the
// buffers of a call.
const eventOverhead = 2 << 10

// openLane returns c's lane, which is made if there is none. c.mu is held.
func (c *Conn) openLane() *lane {
	if c.lane == nil {
		t := &c.hub.clients
		l := &lane{client: t.acquire(c.clientKey())}
		l.budget.parent, l.budget.bound = t.of(l.client), &c.hub.engine.bounds.conn
		c.lane = l
	}
	return c.lane
}

// closeLane drops c's lane if nothing needs it. c.mu is held.
func (c *Conn) closeLane() {
	l := c.lane
	if l == nil || c.busy || l.calls > 0 {
		return
	}
	if l.stopTimer != nil {
		l.stopTimer()
	}
	c.hub.clients.release(l.client)
	c.lane = nil
}

// clientKey says with whose events those of c are counted.
func (c *Conn) clientKey() clientKey { return clientKey{c.user, c.network} }

// Do carries r out after all that was asked before it. done is called exactly
// once with the outcome, perhaps before Do returns, perhaps on another
// goroutine, and must not block; what r made the engine send to this connection
// is queued by then. Do never waits. It reports false when the lane is full, or when
// too many bytes of events wait ([Limits].PendingEventBytes):
// the door then stops reading until OpenOptions.Resume is called, once for each
// pause and perhaps before Do has returned. A connection that is over is
// answered with CodeClosed; what it asked before is carried out, for as long as
// [Limits].EventTimeout and while there is room.
func (c *Conn) Do(r *Request, done func(error)) bool {
	it := laneItem{request: r, done: done}
	c.mu.Lock()
	if c.isOver {
		c.mu.Unlock()
		done(errConnOver)
		return true
	}
	if c.busy {
		return c.enqueue(it)
	}
	var tight bool
	if r.Op == OpEvent { // all else does not wait, or not for strangers
		l := c.openLane()
		it.held = int64(r.size() + eventOverhead)
		if err := l.budget.take(it.held); err != nil {
			c.closeLane()
			c.mu.Unlock()
			c.refused(done, err)
			return true // nothing is under way that could end a pause
		}
		tight = l.budget.tight()
	}
	c.busy = true
	c.mu.Unlock()
	c.run(it)
	return !tight || !c.pause()
}

// enqueue puts it behind the requests of c that are not done, and reports whether
// there is room for more. c.mu is held; enqueue unlocks it.
func (c *Conn) enqueue(it laneItem) bool {
	l, most := c.openLane(), c.hub.engine.limits.PendingEvents
	it.held = int64(it.request.size())
	var err error
	if len(l.queue) >= 2*most {
		err = Errorf(CodeUnavailable, "limits.pendingEvents", "The connection has %d requests waiting, the most that is allowed.", 2*most)
	} else {
		err = l.budget.take(it.held)
	}
	if err != nil {
		l.paused = true
		c.mu.Unlock()
		c.refused(it.done, err)
		return false
	}
	l.queue = append(l.queue, it)
	full := len(l.queue) >= most || l.budget.tight()
	l.paused = l.paused || full
	c.mu.Unlock()
	return !full
}

// refused answers a request that there is no room for.
func (c *Conn) refused(done func(error), err error) {
	c.hub.engine.counters.requestsRefused.Add(1)
	done(err)
}

// pause notes that resume is owed, and reports false if all requests are done.
func (c *Conn) pause() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		c.openLane().paused = true
	}
	return c.busy
}

// run carries out it and then what queued behind it. Whatever has to wait goes
// on in a goroutine of its own, so that the caller never does.
func (c *Conn) run(it laneItem) {
	for {
		wait, err := c.begin(it.request)
		if wait == nil && c.shard.full.Load() {
			// Whatever the outcome, telling it would make the full queue longer.
			outcome := err
			wait = func(ctx context.Context) error {
				if err := c.shard.waitRoom(ctx); err != nil {
					return err
				}
				return outcome
			}
		}
		if wait != nil {
			e := c.hub.engine
			this := it
			if e.spawn(func() {
				c.complete(this, wait(e.ctx))
				if next, ok := c.next(this); ok {
					c.run(next)
				}
			}) {
				return
			}
			err = errEngineClosed
		}
		c.complete(it, err)
		var ok bool
		if it, ok = c.next(it); !ok {
			return
		}
	}
}

// paused reports whether the door has been asked to stop reading.
func (c *Conn) paused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lane != nil && c.lane.paused
}

func (c *Conn) complete(it laneItem, err error) {
	if err == nil && it.request.HasAck {
		c.mu.Lock()
		c.acks.add(it.request.AckID)
		c.mu.Unlock()
	}
	it.done(err)
	if err == nil && it.request.then != nil {
		it.request.then()
	}
}

// next takes the lane's next request after last is done, or leaves the lane idle.
func (c *Conn) next(last laneItem) (it laneItem, ok bool) {
	c.mu.Lock()
	l := c.lane
	if l == nil { // nothing is counted
		c.busy = false
		c.mu.Unlock()
		return it, false
	}
	l.budget.give(last.held)
	if ok = len(l.queue) > 0; ok {
		it = l.queue[0]
		l.queue[0] = laneItem{}
		l.queue = l.queue[1:]
		if it.request.Op == OpEvent {
			it.held += eventOverhead
			l.budget.add(eventOverhead)
		}
	}
	var resume Owner
	if l.paused && (!ok || len(l.queue) <= c.hub.engine.limits.PendingEvents/2 && l.budget.slack()) {
		l.paused, resume = false, c.owner
	}
	var farewell func()
	var drained *draining
	if !ok {
		farewell, drained = l.farewell, l.draining
		c.busy, l.farewell, l.draining = false, nil, nil
		c.closeLane()
	}
	c.mu.Unlock()
	if resume != nil {
		resume.Resume()
	}
	if drained != nil {
		drained.finish()
	}
	if farewell != nil {
		farewell()
	}
	return it, ok
}

// begin does what of r can be done without waiting, and returns the rest.
func (c *Conn) begin(r *Request) (wait func(context.Context) error, _ error) {
	if r == givenUp {
		return nil, errGivenUp
	}
	if r.HasAck {
		c.mu.Lock()
		duplicate := c.acks.has(r.AckID)
		c.mu.Unlock()
		if duplicate {
			return nil, Errorf(CodeDuplicate, "ack.duplicate", "Message with ack-id: %d has been processed", r.AckID)
		}
	}
	if r.Refused != nil && r.Op != OpStreamData { // whose outcome is a message about the stream
		return nil, r.Refused.err()
	}
	h := c.hub
	switch r.Op {
	case OpJoin:
		if err := c.check(r, JoinLeaveGroup, "join"); err != nil {
			return nil, err
		}
		return h.beginJoin(c, r.Group, r.Membership)
	case OpLeave:
		if err := c.check(r, JoinLeaveGroup, "leave"); err != nil {
			return nil, err
		}
		member := c.leave(r.Group)
		if r.OnLeave != nil {
			r.OnLeave(member)
		}
		return nil, nil
	case OpSend:
		if err := c.check(r, SendToGroup, "send to"); err != nil {
			return nil, err
		}
		return h.beginSend(c, r)
	case OpStreamStart:
		h.beginStream(c, r)
		return nil, nil
	case OpStreamData:
		h.streamData(c, r)
		return nil, nil
	case OpStreamEnd:
		h.finishStream(c, r)
		return nil, nil
	case OpSetState:
		return h.setState(c, r)
	case OpWatchState:
		return h.watchState(c, r)
	case OpUnwatchState:
		c.unwatch(r.Group)
		return nil, nil
	case OpEvent:
		return func(ctx context.Context) error { return h.raiseUserEvent(ctx, c, r) }, nil
	}
	return nil, Errorf(CodeUnsupported, "request.op", "Unknown request.")
}

func (c *Conn) check(r *Request, p Permission, verb string) error {
	if r.Unchecked || c.Permitted(p, r.Group) {
		return nil
	}
	return &Error{
		Code: CodeForbidden, Rule: "permission." + p.String(), Target: "group",
		Message: "No permission to " + verb + " group '" + string(r.Group) + "': it takes the role webpubsub." +
			p.String() + " or webpubsub." + p.String() + "." + string(r.Group) + ".",
	}
}

// await calls Do and waits for the outcome, or for ctx. The request is carried
// out even if ctx ends first.
func (c *Conn) await(ctx context.Context, r *Request) error {
	done := make(chan error, 1)
	c.Do(r, func(err error) {
		if err == nil && r.then != nil { // the caller hears of it once all has queued
			r.then()
			r.then = nil
		}
		done <- err
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return contextError(ctx, "request")
	}
}

// JoinGroup puts the connection into g, as its client would: its roles count.
func (c *Conn) JoinGroup(ctx context.Context, g GroupName) error {
	return c.await(ctx, &Request{Op: OpJoin, Group: g})
}

// LeaveGroup takes the connection out of g, as its client would.
func (c *Conn) LeaveGroup(ctx context.Context, g GroupName) error {
	return c.await(ctx, &Request{Op: OpLeave, Group: g})
}

// SendToGroup publishes p to g, as the connection's client would. With noEcho
// the connection itself gets no copy.
func (c *Conn) SendToGroup(ctx context.Context, g GroupName, p Payload, noEcho bool) error {
	return c.await(ctx, &Request{Op: OpSend, Group: g, Payload: p, NoEcho: noEcho})
}

// SendEvent raises a user event, as the connection's client would, and returns
// the handler's reply, nil if it has none.
func (c *Conn) SendEvent(ctx context.Context, name EventName, p Payload) (*EventReply, error) {
	var reply *EventReply
	err := c.await(ctx, &Request{Op: OpEvent, Event: name, Payload: p, OnReply: func(r *EventReply) { reply = r }})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// SetGroupState sets the connection's state in g, as its client would; nil clears
// it. state must not change afterwards. It has at most 512 bytes of keys and values.
func (c *Conn) SetGroupState(ctx context.Context, g GroupName, state map[string]string) error {
	return c.await(ctx, &Request{Op: OpSetState, Group: g, State: state})
}

// WatchGroupState asks for g's state, as the connection's client would: it is
// sent a KindStateSnapshot and then KindStateUpdates.
func (c *Conn) WatchGroupState(ctx context.Context, g GroupName) error {
	return c.await(ctx, &Request{Op: OpWatchState, Group: g})
}

// UnwatchGroupState takes that back.
func (c *Conn) UnwatchGroupState(ctx context.Context, g GroupName) error {
	return c.await(ctx, &Request{Op: OpUnwatchState, Group: g})
}
