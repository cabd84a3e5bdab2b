package engine

import (
	"context"
	"errors"
	"fmt"
)

// call runs f, which asks r's handler, with the event's deadline, once the
// handler has room for one more call.
func (h *Hub) call(ctx context.Context, r *handlerRule, event string, f func(context.Context) error) error {
	e := h.engine
	ctx, cancel := context.WithTimeout(ctx, e.limits.EventTimeout)
	defer cancel()
	select {
	case r.calls.room <- struct{}{}:
		defer func() { <-r.calls.room }()
	case <-ctx.Done():
		return contextError(ctx, "event."+event)
	}
	ctx, done := e.span(ctx, "event "+event, h.name)
	began := e.clock.Now()
	err := f(ctx)
	if err != nil && ctx.Err() != nil && !errors.As(err, new(*Error)) {
		err = contextError(ctx, "event."+event)
	}
	done(err)
	if e.observer.Event != nil {
		e.observer.Event(h.name, event, e.clock.Now().Sub(began), err)
	}
	return err
}

// askConnect asks the connect handler of rule, if there is room for the event, and
// lets its reply change the admission.
func (h *Hub) askConnect(ctx context.Context, rule *handlerRule, a *Admission) error {
	r := a.request
	if r.Fill != nil {
		r.Fill(r)
	}
	release, err := h.clients.tryHold(a.clientKey(), r.size())
	if err != nil {
		return err
	}
	defer release()
	ev := &ConnectEvent{
		EventContext: EventContext{
			Hub: h.name, ConnID: a.id, UserID: a.user, Subprotocol: r.Subprotocol,
			Time: h.engine.clock.Now(), Details: r.Details,
		},
		Claims: r.Identity.Claims, Query: r.Query, Header: r.Header,
		Subprotocols: r.Subprotocols, PeerCertificates: r.PeerCertificates,
	}
	return h.call(ctx, rule, SystemConnect, func(ctx context.Context) error {
		reply, err := rule.handler.Connect(ctx, ev)
		if err != nil {
			return err
		}
		if reply == nil {
			return nil
		}
		if reply.UserID != nil {
			if r.Identity.Standing != nil && *reply.UserID != a.user {
				return &Error{
					Code: CodeForbidden, Rule: "connect.user", Message: "The connect handler gave the client another user than its token is of.",
					Detail: fmt.Sprintf("The token is of %s, which may be revoked at any time and so has to stay; the handler said %q.", a.user, *reply.UserID),
				}
			}
			a.user = *reply.UserID
		}
		if reply.Roles != nil {
			a.roles = reply.Roles
		}
		if len(reply.Groups) > 0 {
			a.groups = reply.Groups
		}
		a.chosen, a.state, a.details = reply.Subprotocol, reply.State, reply.Details
		return nil
	})
}

// raiseConnected tells listeners and the handler, without waiting.
func (h *Hub) raiseConnected(c *Conn) {
	if c.quiet {
		return
	}
	set := h.settings.Load()
	rule := set.systemHandler(SystemConnected)
	if rule == nil && len(set.listeners) == 0 {
		c.skipEvent()
		return
	}
	ev := &ConnectedEvent{c.eventContext()}
	if rule != nil {
		c.mu.Lock()
		c.openLane().calls++
		ev.Left = c.leftChannel()
		c.mu.Unlock()
	}
	h.tellListeners(set, SystemConnected, ev)
	if rule == nil {
		return
	}
	h.notify(h.engine.ctx, c, rule, SystemConnected, noteSize(&ev.EventContext), func(ctx context.Context) (*NotifyReply, error) {
		return rule.handler.Connected(ctx, ev)
	}, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.lane.calls--
		c.closeLane()
	})
}

// noteSize is what a connected or disconnected event counts for.
func noteSize(e *EventContext) int {
	return noteOverhead + len(e.UserID) + len(e.State) + sizeOf(e.Details)
}

// noteOverhead is the size of a notification that waits, and of the connection that it
// keeps in memory.
const noteOverhead = 1 << 10

// raiseDisconnected tells listeners and the handler, without waiting.
func (h *Hub) raiseDisconnected(ctx context.Context, c *Conn, reason string) {
	if c.quiet {
		return
	}
	set := h.settings.Load()
	rule := set.systemHandler(SystemDisconnected)
	if rule == nil && len(set.listeners) == 0 {
		return
	}
	ev := &DisconnectedEvent{EventContext: c.eventContext(), Reason: reason}
	h.tellListeners(set, SystemDisconnected, ev)
	if rule != nil {
		h.notify(ctx, c, rule, SystemDisconnected, noteSize(&ev.EventContext)+len(reason), func(ctx context.Context) (*NotifyReply, error) {
			return rule.handler.Disconnected(ctx, ev)
		}, nil)
	}
}

// eventFailed is what a client's door learns of a handler's failure: that it
// failed, with the handler's own status and words set apart for doors that pass
// them on. Whatever code the handler chose, it is not the client's fault.
func eventFailed(err error) *Error {
	e := asError(err)
	return &Error{
		Code: CodeInternal, Rule: e.Rule, Message: "Internal server error",
		Detail: e.Detail, Status: e.Status, Reply: e.Reply, Err: err,
	}
}

func (h *Hub) tellListeners(set *settings, event string, ev ListenedEvent) {
	for _, l := range set.listeners {
		if l.system[event] {
			l.listener(h.engine.ctx, ev)
		}
	}
}

// onBehalf is the engine's context with the values of another one: what was begun
// for a caller goes on in its trace, whether or not the caller still waits.
type onBehalf struct {
	context.Context
	of context.Context
}

func (c onBehalf) Value(key any) any { return c.of.Value(key) }

// notify calls a handler that cannot say no, on behalf of ctx; a failure is logged. The
// event's bytes, size, are counted until it is done, whether there is room or not: the
// connection was let in when there was. then, if set, is called after the event is
// done or dropped.
func (h *Hub) notify(ctx context.Context, c *Conn, rule *handlerRule, event string, size int,
	f func(context.Context) (*NotifyReply, error), then func(),
) {
	e := h.engine
	release := h.clients.hold(c.clientKey(), size)
	end := func() {
		release()
		if then != nil {
			then()
		}
	}
	queued := rule.calls.notes.run(e, func() {
		defer end()
		err := h.call(onBehalf{e.ctx, ctx}, rule, event, func(ctx context.Context) error {
			reply, err := f(ctx)
			if err == nil && reply != nil {
				c.updateState(reply.UpdateState)
			}
			return err
		})
		if err != nil {
			e.logFailure("an event handler failed", err, "hub", h.name, "connection", c.id, "event", event)
		}
	})
	if !queued {
		end()
		e.dropped(1, "an event was dropped: the engine is closed, or too many wait for its handler",
			"hub", h.name, "connection", c.id, "event", event)
	}
}

// raiseUserEvent asks the handler that the event matches and sends its reply.
func (h *Hub) raiseUserEvent(ctx context.Context, c *Conn, r *Request) error {
	e := h.engine
	set := h.settings.Load()
	ev := &UserEvent{EventContext: c.eventContext(), Name: r.Event, Payload: r.Payload, Metadata: r.Metadata, Attributes: r.Attributes}
	c.mu.Lock()
	ev.Left = c.leftChannel()
	c.mu.Unlock()
	heard := false
	for _, l := range set.listeners {
		if l.users.match(r.Event) {
			l.listener(ctx, ev)
			heard = true
		}
	}
	rule := set.userHandler(r.Event)
	if rule == nil {
		if heard {
			return nil
		}
		return Errorf(CodeInternal, "event.unhandled", "No event handler of hub %s takes the event %s.", h.name, r.Event)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.Cancel != nil {
		defer context.AfterFunc(r.Cancel, cancel)()
		if r.Cancel.Err() != nil {
			return contextError(r.Cancel, "event.cancelled")
		}
	}
	c.mu.Lock()
	l := c.lane // it is there while the event is under way
	if c.isOver && r.CancelOnEnd || l.abandoned {
		c.mu.Unlock()
		e.dropped(1, "requests of a client that has left were given up", "hub", h.name, "connection", c.id, "user", c.user, "requests", 1)
		return errGivenUp
	}
	l.cancel, l.cancelOnEnd = cancel, r.CancelOnEnd
	c.mu.Unlock()
	var reply *EventReply
	err := h.call(ctx, rule, "user", func(ctx context.Context) (err error) {
		reply, err = rule.handler.UserEvent(ctx, ev)
		return err
	})
	c.mu.Lock()
	l.cancel = nil
	given := l.abandoned
	c.mu.Unlock()
	if err != nil && given {
		return errGivenUp // which has been logged
	}
	if err != nil {
		e.logFailure("an event handler failed", err, "hub", h.name, "connection", c.id, "event", r.Event)
		return eventFailed(err)
	}
	if reply != nil {
		c.updateState(reply.UpdateState)
	}
	switch {
	case r.OnReply != nil:
		r.OnReply(reply)
	case reply != nil && reply.Payload != nil:
		c.Post(&Message{Kind: KindData, Payload: *reply.Payload, Metadata: reply.Metadata, Attributes: reply.Attributes})
	}
	return nil
}
