package engine

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
	"unique"
)

// AdmitRequest is a client that has proven its identity and wants in.
type AdmitRequest struct {
	Identity Identity
	// ConnID is an id that the client chose; empty for one made by the engine.
	ConnID ConnID
	// TakeOver lets the new connection replace an open one of the same ConnID,
	// kind (subprotocol) and user; otherwise a ConnID in use is refused.
	TakeOver bool
	// Subprotocols are what the client offered, Query and Header what else it
	// said; they are for the connect event.
	Subprotocols []string
	Query        map[string][]string
	Header       map[string][]string
	// Fill, if set, is called before a connect event is raised, to complete the
	// request: what only the event needs is then made only where there is one.
	Fill             func(*AdmitRequest)
	PeerCertificates []*x509.Certificate
	// Subprotocol is set where the protocol is fixed before the connect event.
	Subprotocol string
	// Details are opaque, for handlers that know the door's protocol.
	Details any
	// RemoteAddr is the client's address. Events of clients without a user are counted
	// by the network that it is in ([Limits].PendingEventBytesPerUser). Leave it zero
	// where the address is not the client's own, as behind a proxy that does not say.
	RemoteAddr netip.Addr
}

// Admission is a client that may come in and is not yet visible to anybody. It
// must end in Open, Recover or Abandon, once.
type Admission struct {
	hub     *Hub
	request *AdmitRequest
	id      ConnID
	user    UserID
	roles   []string
	groups  []GroupName
	chosen  string
	details any
	state   HandlerState
	settled atomic.Bool
}

// Admit asks the hub's connect handler about r. It waits for the handler's
// answer, no longer than ctx and the event timeout. A refusal is an *Error; its
// Status is the handler's own, if it has one. CodeUnavailable: the engine is
// full or draining, or too many bytes of events wait.
func (h *Hub) Admit(ctx context.Context, r *AdmitRequest) (*Admission, error) {
	if len(r.ConnID) > MaxConnID {
		return nil, Errorf(CodeInvalid, "name.connectionId", "A connection id has at most %d bytes; this one has %d.", MaxConnID, len(r.ConnID))
	}
	if err := h.engine.reserve(); err != nil {
		return nil, err
	}
	a := &Admission{
		hub: h, request: r, id: r.ConnID,
		user: r.Identity.UserID, roles: r.Identity.Roles, groups: r.Identity.Groups,
	}
	if a.id == "" {
		a.id = newConnID()
	}
	if err := h.consider(ctx, a); err != nil {
		h.engine.unreserve()
		return nil, err
	}
	return a, nil
}

// consider asks the connect handler about a, if there is one, and refuses a if too many
// bytes of events wait, or if its groups are too many.
func (h *Hub) consider(ctx context.Context, a *Admission) error {
	if rule := h.settings.Load().systemHandler(SystemConnect); rule != nil {
		if err := h.askConnect(ctx, rule, a); err != nil {
			return err
		}
	}
	if err := h.engine.checkGroups(a.groups); err != nil {
		return err
	}
	return h.clients.full(a.clientKey()) // the handler may have named another user
}

// clientKey says with whose events those of a are counted: by the address only where
// nobody has named a user.
func (a *Admission) clientKey() clientKey {
	if a.user != "" {
		return clientKey{user: a.user}
	}
	return clientKey{network: networkOf(a.request.RemoteAddr)}
}

// size is what r counts for while a connect handler is asked: about as much again is
// its event in the handler's own words.
func (r *AdmitRequest) size() int {
	n := eventOverhead + sizeOf(r.Details)
	for _, m := range []map[string][]string{r.Identity.Claims, r.Query, r.Header} {
		for k, values := range m {
			n += len(k) + mapOverhead
			for _, v := range values {
				n += len(v)
			}
		}
	}
	for _, s := range r.Subprotocols {
		n += len(s)
	}
	for _, cert := range r.PeerCertificates {
		n += len(cert.Raw)
	}
	return 2 * n
}

func newConnID() ConnID {
	var b [16]byte
	rand.Read(b[:])
	return ConnID(hex.EncodeToString(b[:]))
}

// ConnID returns the id that the connection will have.
func (a *Admission) ConnID() ConnID { return a.id }

// UserID returns the user that the connection will have.
func (a *Admission) UserID() UserID { return a.user }

// Subprotocol returns the handler's choice, empty if it leaves it to the door.
func (a *Admission) Subprotocol() string { return a.chosen }

// Details returns the handler's ConnectReply.Details.
func (a *Admission) Details() any { return a.details }

// OpenOptions describe the door's side of a connection.
type OpenOptions struct {
	// Encoding makes bytes of messages; nil for a sink that wants messages.
	Encoding Encoding
	// Subprotocol is the negotiated one; empty for a raw connection.
	Subprotocol string
	// Numbered gives deliveries sequence ids: those of a kind that [Kind.Numbered]
	// names, and that count if Counted is set. It needs an Encoding with prefixes
	// of its own. With Recovery, a numbered delivery is kept until the far end has
	// acknowledged it ([Conn.AckUpTo], [Conn.AckOne]), within the outbound bounds.
	Numbered bool
	// Recovery is how long a logical connection outlives a wire that was lost, or
	// closed with another code than CloseNormal or CloseNoStatus, for
	// [Hub.Recover]; 0 for not at all. It needs Numbered. Meanwhile every verb sees
	// it, and what is sent to it is kept, within the outbound bounds.
	Recovery time.Duration
	// Session is opaque, for the door: what its protocol remembers of a logical
	// connection beyond one wire. [Recovery.Session] returns it.
	Session any
	// Window, if positive, bounds the deliveries that are under way: those that
	// count and that Conn.Acknowledge has not been called for. More wait, in order
	// among themselves and within the outbound bounds. Messages that do not count
	// overtake those that wait; the end of the connection drops them.
	Window int
	// UnderWay is how many places of the window are taken from the beginning, by
	// deliveries of an earlier wire that Conn.Acknowledge will be called for.
	UnderWay int
	// Counted says which deliveries count for Window and Numbered, by the message
	// and the options of the membership it came by. Nil: all of a kind that
	// [Kind.Numbered] names do. It must not block.
	Counted func(m *Message, membership any) bool
	// Hello is for the Attributes of the connection's KindConnected on this wire.
	Hello any
	// WirePings says that the wire has pings: the engine then sends a
	// KindWirePing each HubOptions.KeepAlive, and ends a connection of which
	// Conn.Heard was not called for two intervals.
	WirePings bool
	// Silence is how long a wire without such pings may be silent; 0 for ever.
	// A connection of which Conn.Heard was not called for that long, and at most a
	// sixth as long again, is ended.
	Silence time.Duration
	// Bind is called with the connection, and the number of this wire of it,
	// before the sink is first used, and before Open returns. It must not block.
	Bind func(*Conn, WireID)
	// Owner is told what Resume and Ended are for, if neither is set.
	Owner Owner
	// Resume is called when a lane that was full has room. It must not block.
	Resume func()
	// Ended is called once when the logical connection is over, whoever ended
	// it. The sink may outlive it for the closing handshake, until Sink.Close.
	// It must not block.
	Ended func()
	// Details are opaque, for the connected and later events.
	Details any
	// Last, if set, is what [Conn.SetLast] is called with, before anybody can find
	// the connection or, in [Recovery.Open], hear from its new wire.
	Last *LastMessage
}

// Owner is the door's side of a connection. As a value that the door has anyway, it
// costs an idle connection less than two functions. Neither method may block.
type Owner interface {
	// Resume is OpenOptions.Resume.
	Resume()
	// Ended is OpenOptions.Ended.
	Ended()
}

// ownerFuncs is an Owner made of functions, which may be nil.
type ownerFuncs struct{ resume, ended func() }

func (o *ownerFuncs) Resume() {
	if o.resume != nil {
		o.resume()
	}
}

func (o *ownerFuncs) Ended() {
	if o.ended != nil {
		o.ended()
	}
}

// owner returns who is to be told; nil for nobody.
func (o *OpenOptions) owner() Owner {
	if o.Resume == nil && o.Ended == nil {
		return o.Owner
	}
	return &ownerFuncs{o.Resume, o.Ended}
}

// Open makes the connection visible, puts it into its groups and raises
// connected. The first message offered to sink is KindConnected. If Open fails,
// sink has not been used, and disconnected is raised.
func (a *Admission) Open(sink Sink, o *OpenOptions) (*Conn, error) {
	if !hashable(o.Encoding) {
		panic("engine: an Encoding must be comparable")
	}
	if !a.settled.CompareAndSwap(false, true) {
		panic("engine: an admission was used twice")
	}
	c := a.conn(sink, o)
	if o.Bind != nil {
		o.Bind(c, FirstWire)
	}
	ctx := a.hub.engine.ctx // the connection lives as long as the engine, not the request
	hello := &Message{Kind: KindConnected, ConnID: c.id, User: c.user, Attributes: o.Hello}
	if c.durable != nil {
		hello.ReconnectionToken = c.durable.mint(a.hub.engine.node)
	}
	in := &entrance{
		encoding: o.Encoding, hello: hello, groups: a.groups, claims: a.request.ConnID != "", takeOver: a.request.TakeOver,
	}
	if err := a.hub.enter(ctx, c, in); err != nil {
		a.hub.raiseDisconnected(ctx, c, err.Error())
		a.hub.engine.unreserve()
		return nil, err
	}
	a.stand(ctx, c)
	if err := a.hub.joinInitial(ctx, c, a.groups); err != nil {
		a.hub.engine.log.Warn("a connection is not in all its initial groups", "hub", a.hub.name, "connection", c.id, "error", err)
	}
	a.hub.raiseConnected(c)
	c.mu.Lock()
	c.announced = true
	late := c.extra.get().late
	c.mu.Unlock()
	if late != nil { // it ended meanwhile, which is told after its beginning
		c.sayDisconnected(ctx, *late)
		c.part()
	}
	return c, nil
}

// hashable reports whether e can be the key of a map. It costs less than the
// reflect package's answer.
func hashable(e Encoding) (ok bool) {
	defer func() { ok = recover() == nil }()
	same := e
	return e == same
}

// stand ends c, which can be found, if its credential counts no more. Then c leaves
// nothing to be published: it never was in.
func (a *Admission) stand(ctx context.Context, c *Conn) {
	if a.request.Identity.Standing == nil {
		return
	}
	if err := a.request.Identity.Standing(ctx); err != nil {
		a.hub.engine.log.Info("a credential ended while its client came in", "hub", a.hub.name, "connection", c.id, "error", err)
		c.SetLast(nil, 0)
		c.End(EndServer, ClosePolicy, "", asError(err).Message)
	}
}

func (a *Admission) conn(sink Sink, o *OpenOptions) *Conn {
	e := a.hub.engine
	id, user := oneString(string(a.id), string(a.user))
	c := &Conn{
		id: ConnID(id), user: UserID(user), network: a.clientKey().network, protocol: unique.Make(o.Subprotocol),
		hub: a.hub, shard: e.shardFor(), sink: sink,
		numbered: o.Numbered, mute: !o.WirePings, owner: o.owner(),
		grants: e.roles.compile(a.roles), nextEvent: 1,
	}
	if a.state != nil || o.Details != nil {
		c.extra = &extra{handlerState: a.state, details: o.Details}
	}
	c.pings = inMilliseconds(o.interval(a.hub))
	c.window = o.newWindow()
	if o.Recovery > 0 && o.Numbered {
		c.durable = newDurable(o, a.request.PeerCertificates)
	}
	c.setLast(o.Last, FirstWire)
	c.heard.Store(true)
	return c
}

// oneString returns copies of a and b that share one piece of memory, and hold on to
// no other.
func oneString(a, b string) (string, string) {
	both := a + b
	if b == "" {
		both = strings.Clone(a)
	}
	return both[:len(a)], both[len(a):]
}

// interval returns how often to look for signs of life on h's wire; 0 for never.
func (o *OpenOptions) interval(h *Hub) time.Duration {
	if o.WirePings {
		return max(0, h.settings.Load().keepAlive)
	}
	return o.Silence / silentLooks
}

// places returns how many deliveries may be under way.
func (o *OpenOptions) places() int {
	if o.Window <= 0 {
		return math.MaxInt
	}
	return o.Window
}

// Abandon gives the admission up: the upgrade itself failed. It raises
// disconnected alone.
func (a *Admission) Abandon(reason string) {
	if !a.settled.CompareAndSwap(false, true) {
		return
	}
	a.hub.raiseDisconnected(a.hub.engine.ctx, a.conn(nil, &OpenOptions{Subprotocol: a.request.Subprotocol}), reason)
	a.hub.engine.unreserve()
}

// entrance is how a connection comes in.
type entrance struct {
	encoding Encoding
	hello    *Message
	adopted  *ConnState // what it was in another engine; nil for one that is new
	groups   []GroupName
	claims   bool // its id is its own choice, which others may have made too
	takeOver bool // whoever has the id is to go
}

// enter makes c visible, in the hub and in its user. If it is to join groups,
// nothing is sent to it before joinInitial.
func (h *Hub) enter(ctx context.Context, c *Conn, in *entrance) error {
	// What other nodes send must arrive before c says that it is there.
	var room [2]Target
	targets := append(room[:0], Target{Kind: TargetAll})
	if c.user != "" {
		targets = append(targets, Target{TargetUser, string(c.user)})
	}
	for i, t := range targets {
		if err := h.attend(ctx, t); err != nil {
			for _, t := range targets[:i+1] {
				h.neglect(t)
			}
			return err
		}
	}
	var err error
	if in.claims {
		err = h.askOthers(ctx, c, in)
	}
	if err == nil {
		err = h.appear(c, in)
	}
	if err != nil {
		for _, t := range targets {
			h.neglect(t)
		}
	}
	return err
}

// joinInitial puts c into the groups it begins in, and lets it have its hello,
// and behind it what the groups have brought: what it publishes upon its hello
// reaches itself.
func (h *Hub) joinInitial(ctx context.Context, c *Conn, groups []GroupName) error {
	if len(groups) == 0 {
		return nil
	}
	var errs []error
	for _, g := range groups {
		if err := h.joinNow(ctx, c, g, nil); err != nil {
			errs = append(errs, fmt.Errorf("group %q: %w", g, err))
		}
	}
	c.Writable()
	return errors.Join(errs...)
}

// askOthers makes sure that no other node has a connection with the id that c
// claims. Two nodes that are asked for the same id at the same moment can both
// let their client in; whoever needs more than that asks for it above the engine.
func (h *Hub) askOthers(ctx context.Context, c *Conn, in *entrance) error {
	bp := h.engine.backplane
	if bp == nil {
		return nil
	}
	answers, err := bp.Ask(ctx, &Command{
		Hub: h.name, Verb: VerbClaim, Target: Target{TargetConn, string(c.id)},
		User: c.user, Subprotocol: c.Subprotocol(), TakeOver: in.takeOver,
	})
	if err != nil {
		return err
	}
	for _, a := range answers {
		if a.Err != nil {
			return a.Err
		}
	}
	return nil
}

// yield ends c in favour of a newer connection with its id, or refuses.
func (c *Conn) yield(user UserID, subprotocol string, takeOver bool) error {
	if takeOver && c.Subprotocol() == subprotocol && c.user == user {
		c.End(EndTakenOver, ClosePolicy, "", "A newer connection with the same id took over.")
		return nil
	}
	return &Error{
		Code: CodeConflict, Rule: "connection.id", Target: "connectionId",
		Message: "The connection id is in use. It can be taken over by a connection of the same kind and user that asks for that.",
		Detail:  "connection " + string(c.id),
	}
}

// appear puts c into the hub's tables. Whoever finds it there cannot end it
// before it is in all of them, nor can the engine close meanwhile. No lock is
// held while an older connection is ended: that calls strangers.
func (h *Hub) appear(c *Conn, in *entrance) error {
	for {
		old, err := h.tryAppear(c, in)
		if err != nil {
			return err
		}
		if old == nil {
			h.engine.connOpened(c)
			return nil
		}
		if err := old.yield(c.user, c.Subprotocol(), in.takeOver); err != nil {
			return err
		}
	}
}

// tryAppear returns the connection that is in the way, if there is one.
func (h *Hub) tryAppear(c *Conn, in *entrance) (old *Conn, _ error) {
	e := h.engine
	c.mu.Lock()
	defer c.mu.Unlock()
	e.mu.RLock()
	defer e.mu.RUnlock()
	switch {
	case c.isOver:
		return nil, errConnOver
	case e.draining:
		return nil, errEngineClosed
	}
	if old := h.conns.insert(c); old != nil {
		return old, nil
	}
	c.entered = true
	c.parts.Store(2)
	e.counters.connections.Add(1)
	e.counters.opened.Add(1)
	// The hello goes out when all can be sent to c that is addressed to it, to its
	// user or to the hub: whoever has seen it may do so.
	var room [2]entry
	begin := append(room[:0], entry{op: opOpen, conn: c, opening: &opening{
		encoding: in.encoding, hold: len(in.groups) > 0, hello: in.hello, adopted: in.adopted,
	}})
	c.everyone = membership{conn: c, group: h.all}
	h.all.add(&c.everyone, true)
	begin = append(begin, entry{op: opJoin, member: &c.everyone})
	if c.user != "" {
		h.users.join(c)
	}
	c.shard.post(begin...)
	return nil, nil
}
