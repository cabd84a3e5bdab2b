package engine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"sync/atomic"
	"time"
)

// durable is what a connection has that may outlive its wire.
type durable struct {
	// Owned by the shard.
	replay  replay
	wire    WireID
	lastDue time.Time // when the last message is due while it has no wire; zero for never

	recovery atomic.Int64 // a time.Duration; 0 if it ends with its wire after all

	delivered, acknowledged atomic.Uint64 // the highest numbers, roughly: for AckUpTo's result

	// Fixed before the connection opens.
	secret  [sha256.Size]byte  // of the reconnection token
	cert    *[sha256.Size]byte // of the certificate that it came with; nil for none
	session any

	// Guarded by Conn.mu.
	newest   WireID // the last wire that was promised
	encoding Encoding
}

func newDurable(o *OpenOptions, certs []*x509.Certificate) *durable {
	d := &durable{wire: FirstWire, newest: FirstWire, session: o.Session, encoding: o.Encoding, cert: certSum(certs)}
	d.recovery.Store(int64(o.Recovery))
	return d
}

func certSum(certs []*x509.Certificate) *[sha256.Size]byte {
	if len(certs) == 0 {
		return nil
	}
	sum := sha256.Sum256(certs[0].Raw)
	return &sum
}

// secretBytes is the random part of a reconnection token: 128 bits.
const secretBytes = 16

// mint makes the connection's reconnection token, of which only a hash is kept:
// the secret, and a hint at the node that has the connection. It is made of
// characters that need no escaping in a URL, since there are clients that do none.
func (d *durable) mint(node NodeID) string {
	var b [secretBytes]byte
	rand.Read(b[:])
	d.secret = sha256.Sum256(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:]) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(node))
}

// proves reports whether token is the connection's.
func (d *durable) proves(token string) bool {
	text, _, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != secretBytes {
		return false
	}
	sum := sha256.Sum256(b)
	return subtle.ConstantTimeCompare(sum[:], d.secret[:]) == 1
}

// RecoverRequest is a client that wants its logical connection back on a new wire.
type RecoverRequest struct {
	ConnID ConnID
	// Token is the reconnection token that the connection began with. A client
	// that shows it needs no other credential.
	Token string
	// Identity proves the client where the protocol has no such token: then the
	// user must be that of the connection, and Subprotocol its subprotocol.
	Identity    *Identity
	Subprotocol string
	// PeerCertificates must begin with the one that the connection came with, if
	// it came with any.
	PeerCertificates []*x509.Certificate
}

// Recovery is a logical connection that its client may have back. Nothing has
// changed yet: without a call of Open nothing will.
type Recovery struct {
	conn  *Conn
	token string
}

// Recover finds the connection that r asks for and proves r's right to it. It
// fails with CodeNotFound if there is none to be recovered (it ended, or never
// was recoverable) and with CodeForbidden if the proof does not hold; a failed
// try does no harm to the connection.
func (h *Hub) Recover(_ context.Context, r *RecoverRequest) (*Recovery, error) {
	c := h.conns.find(r.ConnID)
	if c == nil || !c.recoverable() || c.ending.Load() {
		return nil, &Error{
			Code: CodeNotFound, Rule: "recovery.connection", Target: "connectionId",
			Message: "There is no such connection to be recovered: it has ended, or its protocol has no recovery.",
			Detail:  "connection " + excerpt(string(r.ConnID)),
		}
	}
	if rule, saw := c.disproves(r); rule != "" {
		return nil, &Error{
			Code: CodeForbidden, Rule: rule, Message: "The connection cannot be recovered by this client.",
			Detail: "connection " + string(c.id) + ": " + saw,
		}
	}
	return &Recovery{conn: c, token: r.Token}, nil
}

// Recover is [Hub.Recover] for the connection that has the admission's id, for a
// protocol that asks the connect handler about every wire: the user must be the
// admission's, and the subprotocol that of its request. If it succeeds the
// admission is spent, and raises nothing; otherwise it is as it was.
func (a *Admission) Recover(ctx context.Context) (*Recovery, error) {
	r, err := a.hub.Recover(ctx, &RecoverRequest{
		ConnID: a.id, Identity: &Identity{UserID: a.user}, Subprotocol: a.request.Subprotocol,
		PeerCertificates: a.request.PeerCertificates,
	})
	if err != nil {
		return nil, err
	}
	if !a.settled.CompareAndSwap(false, true) {
		panic("engine: an admission was used twice")
	}
	a.hub.engine.unreserve()
	return r, nil
}

// disproves returns the rule that r breaks and what it saw, if it breaks one.
func (c *Conn) disproves(r *RecoverRequest) (rule, saw string) {
	d := c.durable
	switch {
	case r.Identity == nil && !d.proves(r.Token):
		return "recovery.token", "the reconnection token is missing or that of another connection"
	case r.Identity != nil && (r.Identity.UserID != c.user || r.Subprotocol != c.Subprotocol()):
		return "recovery.identity", "the connection belongs to another user, or speaks another protocol"
	}
	if d.cert == nil {
		return "", ""
	}
	if sum := certSum(r.PeerCertificates); sum == nil || subtle.ConstantTimeCompare(sum[:], d.cert[:]) != 1 {
		return "recovery.certificate", "the client certificate is missing or another one than the connection began with"
	}
	return "", ""
}

// recoverable reports whether c may outlive its wire.
func (c *Conn) recoverable() bool { return c.durable != nil && c.durable.recovery.Load() > 0 }

// SetRecovery changes how long the connection outlives its wire; 0 ends it with
// the wire. It has no effect on one that was opened without recovery, nor on a
// wait that has begun.
func (c *Conn) SetRecovery(d time.Duration) {
	if c.durable != nil {
		c.durable.recovery.Store(int64(max(0, d)))
	}
}

// ConnID returns the connection's id.
func (r *Recovery) ConnID() ConnID { return r.conn.id }

// UserID returns the connection's user.
func (r *Recovery) UserID() UserID { return r.conn.user }

// Subprotocol returns the one that the connection began with.
func (r *Recovery) Subprotocol() string { return r.conn.Subprotocol() }

// Session returns the door's own [OpenOptions].Session.
func (r *Recovery) Session() any { return r.conn.durable.session }

// Open puts the connection onto a new wire, whose first messages are a
// KindConnected, what the far end has not acknowledged, and what has come since.
// An older wire that is still there is closed first; a last message that was left with
// an away of 0 is published then, one with a longer away is not. o is as in
// [Admission.Open]; what it says of the connection rather than of the wire
// (Subprotocol, Numbered, Recovery, Session, Details, and Counted unless it was
// adopted) stays as it was. If Open fails the connection has ended meanwhile, or
// another client was faster, and sink has not been used.
func (r *Recovery) Open(sink Sink, o *OpenOptions) (*Conn, error) {
	c := r.conn
	d := c.durable
	c.mu.Lock()
	d.newest++
	wire := d.newest
	c.mu.Unlock()
	if o.Bind != nil {
		o.Bind(c, wire)
	}
	in := &opening{
		encoding: o.Encoding, sink: sink, wire: wire, pings: o.interval(c.hub), window: o.places(), underWay: o.UnderWay, counted: o.Counted,
		hello: &Message{
			Kind: KindConnected, ConnID: c.id, User: c.user, ReconnectionToken: r.token, Attributes: o.Hello,
		},
	}
	c.mu.Lock()
	if c.isOver || d.newest != wire {
		if d.newest == wire {
			d.newest-- // the wire before it is still the one that counts
		}
		c.mu.Unlock()
		return nil, errConnOver
	}
	before := c.owner
	c.owner = o.owner()
	left := c.takeDue()
	c.setLast(o.Last, wire)
	if c.lane != nil {
		c.lane.paused = false // the new wire will learn by itself that it is full
	}
	attach := entry{op: opAttach, conn: c, opening: in}
	if o.Encoding == d.encoding {
		c.shard.post(attach)
	} else {
		c.move(attach)
		d.encoding = o.Encoding
	}
	c.mu.Unlock()
	c.publishLast(left)
	if before != nil {
		before.Ended() // the older wire, if it lives, has no connection any more
	}
	return c, nil
}

// move posts e between c's leaving of all that it is a member of on its shard and
// its joining again: members are kept by their encodings. c.mu is held.
func (c *Conn) move(e entry) {
	all := []*membership{&c.everyone}
	all = append(all, c.memberships...)
	for _, m := range c.extra.get().watching {
		all = append(all, m)
	}
	entries := make([]entry, 0, 2*len(all)+1)
	for _, m := range all {
		entries = append(entries, entry{op: opMove, member: m})
	}
	entries = append(entries, e)
	for _, m := range all {
		entries = append(entries, entry{op: opJoin, member: m})
	}
	c.shard.post(entries...)
}

// detached reports whether the end of a wire is not the end of c. What follows
// of it is the shard's business.
func (c *Conn) detached(wire WireID, code CloseCode) bool {
	d := c.durable
	if d == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if wire != d.newest {
		return true
	}
	if code == CloseNormal || code == CloseNoStatus || c.isOver || !c.entered || d.recovery.Load() == 0 {
		return false
	}
	c.shard.post(entry{op: opWireGone, conn: c, wire: wire, polite: code != CloseAbnormal, closing: &closing{reason: EndClient, code: code}})
	return true
}

// EndOn is [Conn.End] because of what came by one of the connection's wires; if
// another one has taken its place, it does nothing.
func (c *Conn) EndOn(wire WireID, reason EndReason, code CloseCode, text, closeText string) {
	if d := c.durable; d != nil {
		c.mu.Lock()
		current := wire == d.newest
		c.mu.Unlock()
		if !current {
			return
		}
	}
	c.End(reason, code, text, closeText)
}

// AckUpTo tells that the far end has every numbered delivery up to seq, which
// need not be kept any longer. A number above the last one is as good as that. It
// reports whether that may have acknowledged something new; only a few numbers that
// were never given to a delivery count as new.
func (c *Conn) AckUpTo(seq SequenceID) (news bool) {
	d := c.durable
	if d == nil {
		return true // nothing is kept
	}
	c.shard.post(entry{op: opAckUpTo, conn: c, n: int(seq)})
	// A delivery is acknowledged before its number is noted, if the client is fast.
	n := min(uint64(seq), d.delivered.Load()+acksAhead)
	for old := d.acknowledged.Load(); n > old; old = d.acknowledged.Load() {
		if d.acknowledged.CompareAndSwap(old, n) {
			return true
		}
	}
	return false
}

// acksAhead is by how much an acknowledgement may be ahead of the number that is
// known to be delivered, and still count as news.
const acksAhead = 64

// AckOne tells that the far end has the oldest numbered delivery that match
// reports true for; none is no error. match is called by the connection's shard
// and must not block.
func (c *Conn) AckOne(match func(SequenceID) bool) {
	c.shard.post(entry{op: opAckOne, conn: c, match: match})
}

// LastMessage is what a connection leaves to be published, or that it leaves
// nothing: the arguments of [Conn.SetLast].
type LastMessage struct {
	Request *Request
	Away    time.Duration
}

// setLast replaces what c leaves, unless last is nil; it is left on wire. c.mu is
// held.
func (c *Conn) setLast(last *LastMessage, wire WireID) {
	switch {
	case last == nil:
	case last.Request != nil:
		x := c.more()
		x.last, x.lastWire = last, wire
	case c.extra != nil:
		c.extra.last = nil
	}
}

// newestWire returns the last wire that was promised. c.mu is held.
func (c *Conn) newestWire() WireID {
	if c.durable == nil {
		return FirstWire
	}
	return c.durable.newest
}

// takeDue takes what c leaves if the loss of its wire is enough to publish it, which
// being replaced by another wire is, too. c.mu is held.
func (c *Conn) takeDue() *LastMessage {
	last := c.extra.get().last
	if last == nil || last.Away != 0 {
		return nil
	}
	c.extra.last = nil
	return last
}

// leftOn returns what c leaves, if it was left on wire or an earlier one. The loss of
// wire is not the loss of a newer one, on which c is to go on and which may have
// brought a message of its own. c.mu is held.
func (c *Conn) leftOn(wire WireID) *LastMessage {
	x := c.extra.get()
	if x.lastWire > wire {
		return nil
	}
	return x.last
}

// publishLast publishes what c has left, if it has.
func (c *Conn) publishLast(last *LastMessage) {
	if last == nil {
		return
	}
	if _, err := c.begin(last.Request); err != nil {
		c.hub.engine.logFailure("a connection's last message was not published", err, "hub", c.hub.name, "connection", c.id)
	}
}

// lastWhileAway sees to the last message of a connection that has just lost its
// wire.
func (s *shard) lastWhileAway(c *Conn) {
	c.mu.Lock()
	last := c.leftOn(c.durable.wire)
	if last != nil && last.Away >= 0 {
		c.durable.lastDue = s.engine.clock.Now().Add(last.Away)
	} else {
		c.durable.lastDue = time.Time{}
	}
	c.mu.Unlock()
	if last != nil && last.Away >= 0 {
		s.task(c)
	}
}

// task does what is due of c's streams and its last message, and sets the timer
// for the next of it.
func (s *shard) task(c *Conn) {
	if c.state == connDead || c.state == connNew {
		return
	}
	now := s.engine.clock.Now()
	var due *LastMessage
	next := c.hub.expireStreams(c, now)
	if d := c.durable; d != nil && c.state == connDetached && !d.lastDue.IsZero() {
		if now.Before(d.lastDue) {
			next = earlier(next, d.lastDue)
		} else {
			d.lastDue = time.Time{}
			c.mu.Lock()
			if due = c.leftOn(d.wire); due != nil {
				c.extra.last = nil
			}
			c.mu.Unlock()
		}
	}
	c.publishLast(due)
	s.wheel.cancel(c, timerTask)
	if !next.IsZero() {
		s.wheel.add(c, timerTask, next)
	}
}

// earlier returns the earlier of two times, of which the zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
