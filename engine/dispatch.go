package engine

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"time"
)

// settings are a hub's options, compiled.
type settings struct {
	handlers  []*handlerRule
	listeners []*listenerRule
	keepAlive time.Duration
}

type handlerRule struct {
	system  map[string]bool
	users   eventMatcher
	handler EventHandler
	calls   *calls
}

// calls bound what is under way at one handler.
type calls struct {
	room  chan struct{} // a token for each call
	notes notifier
}

type listenerRule struct {
	system   map[string]bool
	users    eventMatcher
	listener func(context.Context, ListenedEvent)
}

// compileHub compiles o. A handler that before has too keeps its bounds, which
// count the calls that are under way. It returns the event names that are no
// valid patterns, and match nothing.
func compileHub(o *HubOptions, before *settings, l *Limits) (_ *settings, invalid []error) {
	if o == nil {
		o = &HubOptions{}
	}
	s := &settings{keepAlive: o.KeepAlive}
	if s.keepAlive == 0 {
		s.keepAlive = 20 * time.Second
	}
	for _, r := range o.Handlers {
		users, bad := compileEvents(r.UserEvents, true)
		invalid = append(invalid, bad...)
		s.handlers = append(s.handlers, &handlerRule{
			system: lowerSet(r.SystemEvents), users: users, handler: r.Handler,
			calls: before.callsOf(r.Handler, s, l.PendingEvents),
		})
	}
	for _, r := range o.Listeners {
		users, bad := compileEvents(r.UserEvents, false)
		invalid = append(invalid, bad...)
		s.listeners = append(s.listeners, &listenerRule{system: lowerSet(r.SystemEvents), users: users, listener: r.Listener})
	}
	return s, invalid
}

// callsOf returns the bounds of a handler: those it has already, in s or in the
// newer settings, or new ones.
func (s *settings) callsOf(h EventHandler, newer *settings, most int) *calls {
	for _, set := range []*settings{newer, s} {
		if set == nil || !reflect.ValueOf(h).Comparable() {
			continue
		}
		for _, r := range set.handlers {
			if reflect.ValueOf(r.handler).Comparable() && r.handler == h {
				return r.calls
			}
		}
	}
	return &calls{room: make(chan struct{}, most), notes: notifier{most: most}}
}

func lowerSet(names []string) map[string]bool {
	set := make(map[string]bool, len(names))
	for _, n := range names {
		set[strings.ToLower(strings.TrimSpace(n))] = true
	}
	return set
}

// eventMatcher is a compiled list of event names.
type eventMatcher struct {
	any      bool
	names    map[string]bool
	patterns []Pattern
}

// compileEvents compiles "*", "a,b,c" or one name; with wild, names may be patterns.
func compileEvents(list string, wild bool) (_ eventMatcher, invalid []error) {
	m := eventMatcher{names: make(map[string]bool)}
	for _, name := range strings.Split(list, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		switch {
		case name == "":
		case name == "*":
			m.any = true
		case wild && strings.ContainsAny(name, `*?\`):
			p, err := ParsePattern(name)
			if err != nil {
				invalid = append(invalid, err)
				continue
			}
			m.patterns = append(m.patterns, p)
		default:
			m.names[name] = true
		}
	}
	return m, invalid
}

func (m *eventMatcher) match(name EventName) bool {
	if m.any {
		return true
	}
	n := strings.ToLower(string(name))
	if m.names[n] {
		return true
	}
	for _, p := range m.patterns {
		if p.Match(n) {
			return true
		}
	}
	return false
}

// systemHandler returns the first rule that takes the system event.
func (s *settings) systemHandler(event string) *handlerRule {
	for _, r := range s.handlers {
		if r.system[event] {
			return r
		}
	}
	return nil
}

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

// askConnect asks the connect handler, if there is one, and lets its reply
// change the admission.
func (h *Hub) askConnect(ctx context.Context, a *Admission) error {
	rule := h.settings.Load().systemHandler(SystemConnect)
	if rule == nil {
		return nil
	}
	r := a.request
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
	ev := &ConnectedEvent{c.eventContext()}
	set := h.settings.Load()
	h.tellListeners(set, SystemConnected, ev)
	if rule := set.systemHandler(SystemConnected); rule != nil {
		h.notify(c, rule, SystemConnected, func(ctx context.Context) (*NotifyReply, error) {
			return rule.handler.Connected(ctx, ev)
		})
	}
}

// raiseDisconnected tells listeners and the handler, without waiting.
func (h *Hub) raiseDisconnected(c *Conn, reason string) {
	if c.quiet {
		return
	}
	ev := &DisconnectedEvent{EventContext: c.eventContext(), Reason: reason}
	set := h.settings.Load()
	h.tellListeners(set, SystemDisconnected, ev)
	if rule := set.systemHandler(SystemDisconnected); rule != nil {
		h.notify(c, rule, SystemDisconnected, func(ctx context.Context) (*NotifyReply, error) {
			return rule.handler.Disconnected(ctx, ev)
		})
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

// notify calls a handler that cannot say no; a failure is logged.
func (h *Hub) notify(c *Conn, rule *handlerRule, event string, f func(context.Context) (*NotifyReply, error)) {
	e := h.engine
	queued := rule.calls.notes.run(e, func() {
		err := h.call(e.ctx, rule, event, func(ctx context.Context) error {
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
		e.log.Error("an event was dropped: the engine is closed, or too many wait for its handler",
			"hub", h.name, "connection", c.id, "event", event)
	}
}

// raiseUserEvent asks the handler that the event matches and sends its reply.
func (h *Hub) raiseUserEvent(ctx context.Context, c *Conn, r *Request) error {
	e := h.engine
	set := h.settings.Load()
	ev := &UserEvent{EventContext: c.eventContext(), Name: r.Event, Payload: r.Payload, Metadata: r.Metadata, Attributes: r.Attributes}
	heard := false
	for _, l := range set.listeners {
		if l.users.match(r.Event) {
			l.listener(ctx, ev)
			heard = true
		}
	}
	var rule *handlerRule
	for _, have := range set.handlers {
		if have.users.match(r.Event) {
			rule = have
			break
		}
	}
	if rule == nil {
		if heard {
			return nil
		}
		return Errorf(CodeInternal, "event.unhandled", "No event handler of hub %s takes the event %s.", h.name, r.Event)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.CancelOnEnd {
		c.mu.Lock()
		if c.lane == nil {
			c.lane = &lane{}
		}
		c.lane.cancel = cancel
		over := c.isOver
		c.mu.Unlock()
		if over {
			cancel()
		}
		defer func() {
			c.mu.Lock()
			c.lane.cancel = nil // the lane is there while the event is under way
			c.mu.Unlock()
		}()
	}
	var reply *EventReply
	err := h.call(ctx, rule, "user", func(ctx context.Context) (err error) {
		reply, err = rule.handler.UserEvent(ctx, ev)
		return err
	})
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

// notifier runs functions on as few goroutines as the load needs: none while
// idle, and never more than most, with a bounded queue behind them.
type notifier struct {
	most int

	mu     sync.Mutex
	active int
	queue  []func()
}

// maxNotes bounds the notifications that wait for one handler, as a multiple of
// the calls that may be under way: a node that loses all its clients at once
// must still be able to say so.
const maxNotes = 64

func (n *notifier) run(e *Engine, f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.active >= n.most {
		if len(n.queue) >= maxNotes*n.most {
			return false
		}
		n.queue = append(n.queue, f)
		return true
	}
	n.active++
	if !e.spawn(func() { n.work(f) }) {
		n.active--
		return false
	}
	return true
}

func (n *notifier) work(f func()) {
	for {
		f()
		n.mu.Lock()
		if len(n.queue) == 0 {
			n.active--
			n.queue = nil
			n.mu.Unlock()
			return
		}
		f = n.queue[0]
		n.queue[0] = nil
		n.queue = n.queue[1:]
		n.mu.Unlock()
	}
}
