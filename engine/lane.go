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
	// Stream is the part of a stream that an operation on streams is about.
	Stream *StreamRequest
	// State is what OpSetState sets; nil clears it. It must not change.
	State map[string]string
	// Refused, if set, is why the request is not carried out: its transport can read
	// it and has no way to take it. The request fails with it in its turn, after what
	// came before it, and unless its AckID has succeeded before. A part of a stream
	// (OpStreamData) that is refused ends the stream.
	Refused *Error

	then func() // what follows the completion of one that succeeded
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

// lane is what waits while a connection's requests are carried out, in order. An
// idle connection has none.
type lane struct {
	paused bool // Do has reported false and resume is owed
	queue  []laneItem
	bytes  int                // of the requests in queue
	cancel context.CancelFunc // ends the event under way, if it ends with the connection
}

// maxLaneBytes is how much may wait in a lane before the door is to pause.
const maxLaneBytes = 4 << 20

// size is what r counts for in the bound of its lane.
func (r *Request) size() int {
	return len(r.Payload.Data) + len(r.Group) + messageOverhead + mapSize(r.Metadata) + mapSize(r.State) + sizeOf(r.Attributes)
}

type laneItem struct {
	request *Request
	done    func(error)
}

// Do carries r out after all that was asked before it. done is called exactly
// once with the outcome, perhaps before Do returns, perhaps on another
// goroutine, and must not block; what r made the engine send to this connection
// is queued by then. Do never waits. It reports false when the lane is full:
// the door then stops reading until OpenOptions.Resume is called, once for each
// pause and perhaps before Do has returned. A connection that is over is
// answered with CodeClosed; what it asked before is carried out.
func (c *Conn) Do(r *Request, done func(error)) bool {
	c.mu.Lock()
	if c.isOver {
		c.mu.Unlock()
		done(errConnOver)
		return true
	}
	if c.busy {
		if c.lane == nil {
			c.lane = &lane{}
		}
		most := c.hub.engine.limits.PendingEvents
		if len(c.lane.queue) >= 2*most {
			c.mu.Unlock()
			done(Errorf(CodeUnavailable, "limits.pendingEvents", "The connection has %d requests waiting, the most that is allowed.", 2*most))
			return false
		}
		c.lane.queue = append(c.lane.queue, laneItem{r, done})
		c.lane.bytes += r.size()
		full := len(c.lane.queue) >= most || c.lane.bytes > maxLaneBytes
		c.lane.paused = c.lane.paused || full
		c.mu.Unlock()
		return !full
	}
	c.busy = true
	c.mu.Unlock()
	c.run(laneItem{r, done})
	return true
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
				if next, ok := c.next(); ok {
					c.run(next)
				}
			}) {
				return
			}
			err = errEngineClosed
		}
		c.complete(it, err)
		var ok bool
		if it, ok = c.next(); !ok {
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

// next takes the lane's next request, or leaves the lane idle.
func (c *Conn) next() (laneItem, bool) {
	c.mu.Lock()
	l := c.lane
	if l == nil || len(l.queue) == 0 {
		c.busy, c.lane = false, nil
		c.mu.Unlock()
		return laneItem{}, false
	}
	it := l.queue[0]
	l.queue[0] = laneItem{}
	l.queue = l.queue[1:]
	l.bytes -= it.request.size()
	resume := l.paused && len(l.queue) <= c.hub.engine.limits.PendingEvents/2 && l.bytes <= maxLaneBytes/2
	if resume {
		l.paused = false
	}
	owner := c.owner
	c.mu.Unlock()
	if resume && owner != nil {
		owner.Resume()
	}
	return it, true
}

// begin does what of r can be done without waiting, and returns the rest.
func (c *Conn) begin(r *Request) (wait func(context.Context) error, _ error) {
	if r.HasAck {
		c.mu.Lock()
		duplicate := c.acks.has(r.AckID)
		c.mu.Unlock()
		if duplicate {
			return nil, Errorf(CodeDuplicate, "ack.duplicate", "Message with ack-id: %d has been processed", r.AckID)
		}
	}
	if r.Refused != nil && r.Op != OpStreamData { // whose outcome is a message about the stream
		return nil, r.Refused
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
		c.leave(r.Group)
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
