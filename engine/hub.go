package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/engine/filter"
)

// Hub is the isolation scope: nothing crosses hubs. Its methods are the verbs
// of application servers and need no role. They wait for other nodes where the
// target may be there, and for a busy shard, but never for a client; they may
// be called concurrently.
//
// What one goroutine sends arrives at each receiver in the order of the calls.
type Hub struct {
	engine      *Engine
	name        HubName
	configuring sync.Mutex // held from asking for settings until they are in force
	settings    atomic.Pointer[settings]

	pending budget        // bytes of the hub's events
	clients clientBudgets // of its users and networks

	conns  connTable
	all    *group
	groups groupTable
	users  userTable

	watchers groupTable
	stated   groupTable
}

func newHub(e *Engine, name HubName) *Hub {
	h := &Hub{
		engine: e, name: name,
		all:    newGroup(TargetAll, "", len(e.shards)),
		groups: groupTable{kind: TargetGroup},

		watchers: groupTable{kind: TargetWatchers},
		stated:   groupTable{kind: TargetStated},
	}
	h.pending.parent, h.pending.bound = &e.pending, &e.bounds.hub
	h.clients.hub, h.clients.bound = &h.pending, &e.bounds.client
	h.configure()
	return h
}

func (h *Hub) configure() {
	h.configuring.Lock()
	defer h.configuring.Unlock()
	var o *HubOptions
	if f := h.engine.hubOptions; f != nil {
		o = f(h.name)
	}
	set, invalid := compileHub(o, h.settings.Load(), &h.engine.limits)
	for _, err := range invalid {
		h.engine.log.Error("a rule for events matches less than it says", "hub", h.name, "error", err)
	}
	h.settings.Store(set)
}

// Engine returns the engine that the hub is part of.
func (h *Hub) Engine() *Engine { return h.engine }

// Name returns the hub's name.
func (h *Hub) Name() HubName { return h.name }

// SendOptions refine a send by a server. Nil means none of them.
type SendOptions struct {
	// Excluded connections get no copy.
	Excluded []ConnID
	// Filter is an OData filter that selects who gets a copy; empty selects all.
	Filter string
	// Parsed is the filter where the caller has parsed it (see [ParseFilter]). It counts
	// in place of Filter.
	Parsed *filter.Filter
	// TTL is how long the message is worth delivering; 0 for ever.
	TTL      time.Duration
	Metadata Metadata
	// Attributes are a protocol's own, opaque to the engine.
	Attributes any
}

// SendToAll sends p to every connection of the hub.
func (h *Hub) SendToAll(ctx context.Context, p Payload, o *SendOptions) error {
	return h.send(ctx, Target{Kind: TargetAll}, p, o)
}

// SendToGroup publishes p to the members of g. An empty group is no error.
func (h *Hub) SendToGroup(ctx context.Context, g GroupName, p Payload, o *SendOptions) error {
	return h.send(ctx, Target{TargetGroup, string(g)}, p, o)
}

// SendToUser sends p to every connection of u. A user without one is no error.
func (h *Hub) SendToUser(ctx context.Context, u UserID, p Payload, o *SendOptions) error {
	return h.send(ctx, Target{TargetUser, string(u)}, p, o)
}

// SendToConn sends p to one connection. An absent one is no error.
func (h *Hub) SendToConn(ctx context.Context, id ConnID, p Payload, o *SendOptions) error {
	return h.send(ctx, Target{TargetConn, string(id)}, p, o)
}

func (h *Hub) send(ctx context.Context, t Target, p Payload, o *SendOptions) (err error) {
	if o == nil {
		o = &SendOptions{}
	}
	if h.engine.ctx.Err() != nil {
		return errEngineClosed
	}
	ctx, done := h.engine.span(ctx, "send", h.name)
	defer func() { done(err) }()
	m := &Message{Kind: KindData, Payload: p, Metadata: o.Metadata, Attributes: o.Attributes}
	if t.Kind == TargetGroup {
		m.Group = GroupName(t.Name)
	}
	if o.TTL > 0 {
		m.Expires = h.engine.clock.Now().Add(o.TTL)
	}
	c := &Command{Hub: h.name, Verb: VerbSend, Target: t, Message: m, Excluded: o.Excluded}
	if err := c.filterBy(o.Filter, o.Parsed); err != nil {
		return err
	}
	h.engine.counters.published(m)
	a := h.carryOut(ctx, c)
	if a.Err != nil {
		return a.Err
	}
	if h.engine.backplane != nil && (t.Kind != TargetConn || a.Count == 0) {
		if err := h.engine.backplane.Tell(ctx, c); err != nil {
			return err
		}
	}
	return h.engine.waitRoom(ctx)
}

// ParseFilter parses an OData filter; an empty one is nil, which selects all. An error is
// an *Error of CodeInvalid with the rule filter.
func ParseFilter(text string) (*filter.Filter, error) {
	if text == "" {
		return nil, nil
	}
	f, err := filter.Parse(text)
	if err != nil {
		return nil, &Error{Code: CodeInvalid, Rule: "filter", Target: "filter", Message: err.Error()}
	}
	return f, nil
}

// filterBy sets the filter of c: parsed, or else text.
func (c *Command) filterBy(text string, parsed *filter.Filter) (err error) {
	if c.parsed, c.Filter = parsed, text; parsed != nil {
		c.Filter = parsed.Text()
		return nil
	}
	c.parsed, err = ParseFilter(text)
	return err
}

// ConnExists reports whether the connection is open.
func (h *Hub) ConnExists(ctx context.Context, id ConnID) (bool, error) {
	return h.exists(ctx, Target{TargetConn, string(id)})
}

// GroupExists reports whether the group has a member.
func (h *Hub) GroupExists(ctx context.Context, g GroupName) (bool, error) {
	return h.exists(ctx, Target{TargetGroup, string(g)})
}

// UserExists reports whether the user has a connection.
func (h *Hub) UserExists(ctx context.Context, u UserID) (bool, error) {
	return h.exists(ctx, Target{TargetUser, string(u)})
}

func (h *Hub) exists(ctx context.Context, t Target) (bool, error) {
	a, err := h.ask(ctx, &Command{Hub: h.name, Verb: VerbExists, Target: t})
	return a.Count > 0, err
}

// CloseConn ends a connection; its client is told the reason, if there is one.
// An absent connection is no error.
func (h *Hub) CloseConn(ctx context.Context, id ConnID, reason string) error {
	return h.end(ctx, Target{TargetConn, string(id)}, reason, nil)
}

// CloseAll ends every connection of the hub but the excluded ones.
func (h *Hub) CloseAll(ctx context.Context, reason string, excluded ...ConnID) error {
	return h.end(ctx, Target{Kind: TargetAll}, reason, excluded)
}

// CloseGroup ends every member of g but the excluded ones.
func (h *Hub) CloseGroup(ctx context.Context, g GroupName, reason string, excluded ...ConnID) error {
	return h.end(ctx, Target{TargetGroup, string(g)}, reason, excluded)
}

// CloseUser ends every connection of u but the excluded ones.
func (h *Hub) CloseUser(ctx context.Context, u UserID, reason string, excluded ...ConnID) error {
	return h.end(ctx, Target{TargetUser, string(u)}, reason, excluded)
}

func (h *Hub) end(ctx context.Context, t Target, reason string, excluded []ConnID) (err error) {
	ctx, done := h.engine.span(ctx, "close", h.name)
	defer func() { done(err) }()
	_, err = h.ask(ctx, &Command{Hub: h.name, Verb: VerbClose, Target: t, Text: reason, Excluded: excluded})
	return err
}

// AddToGroup puts a connection into g. CodeNotFound: there is no such connection.
func (h *Hub) AddToGroup(ctx context.Context, g GroupName, id ConnID) error {
	return h.found(ctx, "Connection", &Command{
		Hub: h.name, Verb: VerbJoin, Target: Target{TargetConn, string(id)}, Groups: []GroupName{g},
	})
}

// RemoveFromGroup takes a connection out of g. What is absent is no error.
func (h *Hub) RemoveFromGroup(ctx context.Context, g GroupName, id ConnID) error {
	_, err := h.ask(ctx, &Command{Hub: h.name, Verb: VerbLeave, Target: Target{TargetConn, string(id)}, Groups: []GroupName{g}})
	return err
}

// RemoveFromAllGroups takes a connection out of all its groups.
func (h *Hub) RemoveFromAllGroups(ctx context.Context, id ConnID) error {
	_, err := h.ask(ctx, &Command{Hub: h.name, Verb: VerbLeaveAll, Target: Target{TargetConn, string(id)}})
	return err
}

// AddUserToGroup puts the connections that u has now into g. CodeNotFound: u has none.
func (h *Hub) AddUserToGroup(ctx context.Context, g GroupName, u UserID) error {
	return h.found(ctx, "User", &Command{
		Hub: h.name, Verb: VerbJoin, Target: Target{TargetUser, string(u)}, Groups: []GroupName{g},
	})
}

// RemoveUserFromGroup takes u's connections out of g.
func (h *Hub) RemoveUserFromGroup(ctx context.Context, g GroupName, u UserID) error {
	_, err := h.ask(ctx, &Command{Hub: h.name, Verb: VerbLeave, Target: Target{TargetUser, string(u)}, Groups: []GroupName{g}})
	return err
}

// RemoveUserFromAllGroups takes u's connections out of all their groups.
func (h *Hub) RemoveUserFromAllGroups(ctx context.Context, u UserID) error {
	_, err := h.ask(ctx, &Command{Hub: h.name, Verb: VerbLeaveAll, Target: Target{TargetUser, string(u)}})
	return err
}

// AddToGroups puts every connection that the filter selects into every group.
// The set is fixed before anything changes. An empty filter selects all.
func (h *Hub) AddToGroups(ctx context.Context, groups []GroupName, filter string) error {
	return h.bulk(ctx, VerbJoin, groups, filter)
}

// RemoveFromGroups takes every connection that the filter selects out of every group.
func (h *Hub) RemoveFromGroups(ctx context.Context, groups []GroupName, filter string) error {
	return h.bulk(ctx, VerbLeave, groups, filter)
}

func (h *Hub) bulk(ctx context.Context, v Verb, groups []GroupName, filter string) error {
	c := &Command{Hub: h.name, Verb: v, Target: Target{Kind: TargetAll}, Groups: groups}
	if err := c.filterBy(filter, nil); err != nil {
		return err
	}
	_, err := h.ask(ctx, c)
	return err
}

// ListGroup returns up to limit members of g in order of connection id, all of
// them after the given id, and whether there are more.
func (h *Hub) ListGroup(ctx context.Context, g GroupName, after ConnID, limit int) ([]Member, bool, error) {
	limit = max(0, limit)
	a, err := h.ask(ctx, &Command{Hub: h.name, Verb: VerbList, Target: Target{TargetGroup, string(g)}, After: after, Limit: limit})
	if err != nil {
		return nil, false, err
	}
	if len(a.Members) > limit {
		return a.Members[:limit], true, nil
	}
	return a.Members, false, nil
}

// Grant allows a connection p on g, whatever its roles say. CodeNotFound: there
// is no such connection; CodeConflict: it has too many such rules.
func (h *Hub) Grant(ctx context.Context, id ConnID, p Permission, g GroupName) error {
	return h.found(ctx, "Connection", h.permission(VerbGrant, id, p, g))
}

// Revoke denies a connection p on g, whatever its roles say, until it is granted
// again. It stays in the group. An absent connection is no error.
func (h *Hub) Revoke(ctx context.Context, id ConnID, p Permission, g GroupName) error {
	_, err := h.ask(ctx, h.permission(VerbRevoke, id, p, g))
	return err
}

// Permitted reports whether a connection may do p to g. An absent one may not.
func (h *Hub) Permitted(ctx context.Context, id ConnID, p Permission, g GroupName) (bool, error) {
	a, err := h.ask(ctx, h.permission(VerbPermitted, id, p, g))
	return a.Count > 0, err
}

func (h *Hub) permission(v Verb, id ConnID, p Permission, g GroupName) *Command {
	return &Command{Hub: h.name, Verb: v, Target: Target{TargetConn, string(id)}, Permission: p, Groups: []GroupName{g}}
}

// found asks c, and fails with CodeNotFound if its target is nowhere.
func (h *Hub) found(ctx context.Context, what string, c *Command) error {
	a, err := h.ask(ctx, c)
	if err == nil && a.Count == 0 {
		return &Error{Code: CodeNotFound, Rule: "target.exists", Target: what, Message: what + " `" + c.Target.Name + "` is not found."}
	}
	return err
}
