package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// shard writes to its connections. Everything that leaves a connection, and
// every join, leave and end of it, is an entry of its shard's one queue, so the
// order in which things were queued is the order in which they happen.
//
// A turn takes all that has queued, encodes each message once per encoding, and
// gives every connection one contiguous run of bytes where it can. Nothing is
// done per member by publishers, and no goroutine wakes per delivery.
type shard struct {
	engine   *Engine
	index    int
	maxSends int

	mu      sync.Mutex // guards the queue; nothing else is locked under it
	arrived sync.Cond  // signalled when the queue is no longer empty
	waiting bool
	queue   []entry
	bytes   int           // of the messages in queue
	sends   int           // messages in queue for more than one connection
	stopped bool          // nothing is queued any more
	room    chan struct{} // closed when the queue is taken; nil while nobody waits

	full atomic.Bool // the queue is over its bounds

	// Owned by the loop.
	taken   []entry
	sets    map[*group]*memberSet
	codecs  map[Encoding]*encoder
	live    *Conn // the connections whose sink is open, linked
	plans   []plan
	peak    int // the most plans in one of the last turns
	turns   uint
	scratch []byte
	spans   []Span
	places  []int
	private sync.Pool
	wheel   wheel
	pace    pace

	delivered, deliveredBytes, dropped atomic.Int64
	done                               chan struct{}
}

// Bounds of a shard's queue: over them publishers wait for the shard to take
// it. They never wait for a client. What many may get is bounded more tightly
// (shard.maxSends), by half of what one connection may be owed: a turn must not
// by itself make a client that keeps up look slow.
const (
	maxQueued      = 16_384
	maxQueuedBytes = 16 << 20
)

type entryOp uint8

const (
	opPublish     entryOp = iota // message to all of group but conn and conns
	opSelected                   // message to conns
	opOpen                       // conn begins
	opJoin                       // member
	opLeave                      // member
	opReplace                    // member takes the place of old
	opPost                       // message to conn
	opFinish                     // conn ends: closing messages, flush, linger
	opGone                       // conn's wire is gone or has said goodbye
	opAbort                      // conn is cut
	opWritable                   // conn's sink has room
	opAcknowledge                // n of conn's deliveries have arrived
	opTick                       // the wheel turns
	opStop                       // the engine is closed
)

// entry is one thing for a shard to do.
type entry struct {
	op      entryOp
	polite  bool // opGone: answer and flush before closing
	n       int
	conn    *Conn
	group   *group
	member  *membership
	old     *membership
	message *Message
	conns   []*Conn
	opening *opening
	closing *closing
}

// opening is how a connection begins.
type opening struct {
	encoding Encoding
	hello    *Message
	hold     bool // until opWritable
}

// closing is what a connection is told at its end.
type closing struct {
	text      string // of KindDisconnected; empty to leave it out
	code      CloseCode
	closeText string
}

func newShard(e *Engine, index int) *shard {
	s := &shard{
		engine: e, index: index, maxSends: max(1, e.limits.OutboundMessages/2),
		sets:   make(map[*group]*memberSet),
		codecs: make(map[Encoding]*encoder),
		done:   make(chan struct{}),
	}
	s.arrived.L = &s.mu
	s.private.New = func() any { return &Batch{home: &s.private} }
	s.wheel.init(e.clock.Now())
	return s
}

// post appends an entry. It never blocks. After opStop it does nothing.
func (s *shard) post(en entry) {
	n := 0
	if en.message != nil {
		n = en.message.size()
	}
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return
	}
	s.stopped = en.op == opStop
	s.queue = append(s.queue, en)
	s.bytes += n
	if en.op == opPublish || en.op == opSelected {
		s.sends++
	}
	if s.sends > s.maxSends || len(s.queue) > maxQueued || s.bytes > maxQueuedBytes {
		s.full.Store(true)
	}
	if s.waiting {
		s.waiting = false
		s.arrived.Signal()
	}
	s.mu.Unlock()
}

// waitRoom returns once the queue is within its bounds again.
func (s *shard) waitRoom(ctx context.Context) error {
	for {
		if !s.full.Load() {
			return nil
		}
		s.mu.Lock()
		if !s.full.Load() {
			s.mu.Unlock()
			return nil
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-s.done:
			return errEngineClosed
		case <-ctx.Done():
			return contextError(ctx, "publish")
		}
	}
}

// loop runs until opStop.
func (s *shard) loop() {
	defer close(s.done)
	for {
		s.take()
		s.pace.begin(s.engine.clock.Now())
		for i := 0; i < len(s.taken); {
			if s.taken[i].op == opStop {
				s.flush()
				for s.live != nil {
					s.closeSink(s.live, false)
				}
				return
			}
			i += s.apply(s.taken[i:])
		}
		n, writes := s.flush()
		s.pace.end(s.engine.clock.Now(), n, writes)
		s.armTick()
		s.tidy()
	}
}

// tidy gives back what a turn and, in time, a burst of them have left behind.
func (s *shard) tidy() {
	clear(s.taken)
	if s.live == nil {
		s.plans, s.taken, s.scratch, s.spans, s.places, s.peak = nil, nil, nil, nil, nil, 0
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.queue = nil
		}
		s.mu.Unlock()
		return
	}
	if cap(s.taken) > 1024 && len(s.taken) < cap(s.taken)/4 {
		s.taken = nil
	}
	if s.turns++; s.turns%tidyTurns == 0 {
		if cap(s.plans) > 1024 && s.peak < cap(s.plans)/4 {
			s.plans = nil
		}
		s.peak = 0
	}
}

// tidyTurns is how many turns the memory of the plans is kept for another turn
// as large.
const tidyTurns = 256

// take waits until something has queued, and for the window that the pace asks
// for, and then takes it all.
func (s *shard) take() {
	s.mu.Lock()
	for len(s.queue) == 0 {
		s.waiting = true
		s.arrived.Wait()
	}
	s.mu.Unlock()
	if w := s.pace.window(s.engine.clock.Now()); w > 0 {
		time.Sleep(w)
	}
	s.mu.Lock()
	s.queue, s.taken = s.taken[:0], s.queue
	s.bytes, s.sends = 0, 0
	s.full.Store(false)
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	s.mu.Unlock()
}

// apply carries out the first of entries, or a run of publications to one
// group, and returns how many it did.
func (s *shard) apply(entries []entry) int {
	en := &entries[0]
	switch en.op {
	case opPublish:
		n := 1
		for n < len(entries) && entries[n].op == opPublish && entries[n].group == en.group {
			n++
		}
		s.publish(en.group, entries[:n])
		return n
	case opSelected:
		for _, c := range en.conns {
			if c.state != connOpen {
				continue
			}
			x := c.codec
			if x.selected != en.message {
				x.selected, x.at = en.message, -1
				if !en.message.expired(s.engine.clock.Now()) && s.append(x.shared, x, en.message) {
					x.at = x.shared.Len() - 1
				}
			}
			if x.at >= 0 {
				s.plan(c, x.shared, Span{x.at, x.at + 1}, nil)
			}
		}
	case opPost:
		if en.conn.state == connOpen {
			s.solo(en.conn, en.message)
		}
	case opOpen:
		s.open(en.conn, en.opening)
	case opJoin:
		s.join(en.member)
	case opReplace:
		s.replace(en.old, en.member)
	case opLeave:
		s.leave(en.member)
	case opFinish:
		s.finish(en.conn, en.closing)
	case opGone:
		s.gone(en.conn, en.polite, en.closing)
	case opAbort:
		s.drop(en.conn)
	case opWritable:
		s.writable(en.conn)
	case opAcknowledge:
		if w := en.conn.window; w != nil {
			w.room += en.n
			s.writable(en.conn)
		}
	case opTick:
		s.tick()
	}
	return 1
}

// connState is where a connection is in its life on the shard.
type connState uint8

const (
	connNew       connState = iota
	connOpen                // gets messages
	connFlushing            // over; what is queued and the closing messages still go out
	connLingering           // all is out; waits for the far end to close
	connDead                // the sink is closed
)

// plan is what one connection gets in this turn.
type plan struct {
	conn *Conn
	runs []run
}

// run is a span of one of the turn's batches.
type run struct {
	batch  *Batch
	span   Span
	member *membership // in the group that was published to; nil for other targets
}

// memberSet is a group's members on this shard, those with equal encodings
// side by side.
type memberSet struct {
	slices []*memberSlice
	count  int
}

type memberSlice struct {
	codec   *encoder
	members []*membership
}

// encoder makes batches in one encoding. Messages for many and messages for one
// go to batches of their own, so that acks do not tear the shared run apart.
type encoder struct {
	encoding Encoding // nil for sinks that want messages
	own      bool
	users    int // connections with this encoding on the shard
	shared   *Batch
	solo     *Batch

	selected *Message // the last of opSelected in this turn, at place at of shared
	at       int
}

func (s *shard) codec(enc Encoding) *encoder {
	x := s.codecs[enc]
	if x == nil {
		x = &encoder{encoding: enc, own: enc != nil && enc.Own(), shared: s.newBatch(), solo: s.newBatch()}
		s.codecs[enc] = x
	}
	return x
}

func (s *shard) newBatch() *Batch {
	b := s.private.Get().(*Batch)
	b.refs.Store(1)
	return b
}

// append adds m to b, with its frame unless every connection has a prefix of its
// own, and reports whether the encoding sends it at all.
func (s *shard) append(b *Batch, x *encoder, m *Message) bool {
	switch {
	case x.encoding == nil:
		if m.Kind != KindData && m.Kind != KindClose {
			return false
		}
		b.msgs = append(b.msgs, m)
		b.ends = append(b.ends, b.start(len(b.ends))+m.size())
		return true
	case x.own:
		bytes, ok := x.encoding.AppendBody(b.bytes, m)
		if !ok {
			return false
		}
		b.bytes = bytes
	default:
		body, ok := x.encoding.AppendBody(s.scratch[:0], m)
		s.scratch = body[:0]
		if !ok {
			return false
		}
		b.bytes = x.encoding.AppendPrefix(b.bytes, m, Own{}, len(body))
		b.bytes = append(b.bytes, body...)
		if cap(s.scratch) > maxPooledBatch {
			s.scratch = nil
		}
	}
	b.msgs = append(b.msgs, m)
	b.ends = append(b.ends, len(b.bytes))
	return true
}

// publish gives the messages of entries, which all go to g, to its members here.
func (s *shard) publish(g *group, entries []entry) {
	set := s.sets[g]
	if set == nil {
		return
	}
	now := s.engine.clock.Now()
	for _, ms := range set.slices {
		if len(ms.members) == 0 {
			continue
		}
		b := ms.codec.shared
		span := Span{From: b.Len()}
		s.places = s.places[:0]
		for i := range entries {
			at := -1
			if m := entries[i].message; !m.expired(now) && s.append(b, ms.codec, m) {
				at = b.Len() - 1
			}
			s.places = append(s.places, at)
		}
		if span.To = b.Len(); span.From == span.To {
			continue
		}
		for _, m := range ms.members {
			s.plan(m.conn, b, span, m)
		}
		for i := range entries {
			at := s.places[i]
			if at < 0 {
				continue
			}
			if c := entries[i].conn; c != nil {
				s.leaveOut(c, ms.codec, at)
			}
			for _, c := range entries[i].conns {
				s.leaveOut(c, ms.codec, at)
			}
		}
	}
}

// solo queues m for c alone.
func (s *shard) solo(c *Conn, m *Message) {
	b := c.codec.solo
	if s.append(b, c.codec, m) {
		s.plan(c, b, Span{b.Len() - 1, b.Len()}, nil)
	}
}

// plan adds a span to what c gets in this turn.
func (s *shard) plan(c *Conn, b *Batch, span Span, m *membership) {
	if !c.codec.own && c.window == nil {
		m = nil // nobody asks for its options
	}
	if c.plan == 0 {
		n := len(s.plans)
		if n < cap(s.plans) {
			s.plans = s.plans[:n+1]
		} else {
			s.plans = append(s.plans, plan{})
		}
		p := &s.plans[n]
		p.conn, p.runs = c, append(p.runs[:0], run{b, span, m})
		c.plan = int32(n + 1)
		return
	}
	p := &s.plans[c.plan-1]
	if last := &p.runs[len(p.runs)-1]; last.batch == b && last.span.To == span.From && last.member == m {
		last.span.To = span.To
		return
	}
	p.runs = append(p.runs, run{b, span, m})
}

// leaveOut takes message at of x's shared batch out of c's plan, if it is in it:
// c stays in step and gets the bytes before and after.
func (s *shard) leaveOut(c *Conn, x *encoder, at int) {
	if c.shard != s || c.codec != x || c.plan == 0 {
		return
	}
	b := x.shared
	p := &s.plans[c.plan-1]
	for i := len(p.runs) - 1; i >= 0; i-- {
		r := p.runs[i]
		if r.batch != b || at < r.span.From || r.span.To <= at {
			continue
		}
		before, after := Span{r.span.From, at}, Span{at + 1, r.span.To}
		switch {
		case before.From == before.To && after.From == after.To:
			p.runs = append(p.runs[:i], p.runs[i+1:]...)
		case before.From == before.To:
			p.runs[i].span = after
		case after.From == after.To:
			p.runs[i].span = before
		default:
			p.runs = append(p.runs, run{})
			copy(p.runs[i+1:], p.runs[i:])
			p.runs[i].span, p.runs[i+1].span = before, after // the same member
		}
		if len(p.runs) == 0 {
			p.runs = append(p.runs, run{b, Span{at, at}, nil}) // an empty run keeps the plan in shape
		}
		return
	}
}

// flush hands every planned connection its bytes, gives the turn's batches
// back, and returns how many deliveries to how many connections it made.
func (s *shard) flush() (total, conns int) {
	conns = len(s.plans)
	s.peak = max(s.peak, conns)
	for i := range s.plans {
		p := &s.plans[i]
		p.conn.plan = 0
		total += s.deliver(p.conn, p.runs)
		clear(p.runs)
		p.conn = nil
	}
	s.plans = s.plans[:0]
	for enc, x := range s.codecs {
		x.shared, x.solo, x.selected = s.renew(x.shared), s.renew(x.solo), nil
		if x.users == 0 {
			delete(s.codecs, enc)
		}
	}
	return total, conns
}

// renew returns an empty batch in place of b: b itself, if nobody else holds it.
func (s *shard) renew(b *Batch) *Batch {
	if b.Len() == 0 {
		return b
	}
	if b.refs.Load() == 1 {
		b.reset()
		return b
	}
	b.Release()
	return s.newBatch()
}

// maxGather is the size up to which the pieces of a connection's plan are copied
// side by side for one write; larger ones are offered piece by piece.
const maxGather = 64 << 10

// deliver offers c what the turn has for it and returns how many messages that is.
func (s *shard) deliver(c *Conn, runs []run) int {
	if c.state == connDead || c.state == connLingering {
		return 0
	}
	count, size := 0, 0
	for _, r := range runs {
		count += r.span.To - r.span.From
		size += r.batch.Size(r.span)
	}
	switch {
	case count == 0:
	case c.lag != nil:
		s.delay(c, runs)
	case c.window != nil:
		s.beginLag(c, &lagged{}) // which ends at once if the window has room
		s.delay(c, runs)
		s.writable(c)
	case c.codec.own || s.mixed(runs) && size <= maxGather:
		b := s.newBatch()
		for _, r := range runs {
			for i := r.span.From; i < r.span.To; i++ {
				s.appendOwn(b, c, r.batch.msgs[i], r.member, r.batch.Bytes(Span{i, i + 1}))
			}
		}
		s.offer(c, b, []run{{batch: b, span: Span{0, b.Len()}}})
		b.Release()
	default:
		for len(runs) > 0 && c.state != connDead {
			n := 1
			for n < len(runs) && runs[n].batch == runs[0].batch {
				n++
			}
			if c.lag != nil {
				s.delay(c, runs)
				break
			}
			s.offer(c, runs[0].batch, runs[:n])
			runs = runs[n:]
		}
	}
	s.settle(c)
	return count
}

// mixed reports whether runs come from more than one batch.
func (s *shard) mixed(runs []run) bool {
	for _, r := range runs[1:] {
		if r.batch != runs[0].batch {
			return true
		}
	}
	return false
}

// appendOwn adds a message to a batch for c alone: with c's own prefix, or as it is.
func (s *shard) appendOwn(b *Batch, c *Conn, m *Message, member *membership, bytes []byte) {
	if x := c.codec; x.own {
		own := Own{Membership: member.opaque()}
		if c.numbered && m.Kind == KindData {
			c.seq++
			own.Seq = c.seq
		}
		b.bytes = x.encoding.AppendPrefix(b.bytes, m, own, len(bytes))
		b.members = append(b.members, member)
	}
	b.bytes = append(b.bytes, bytes...)
	b.msgs = append(b.msgs, m)
	if c.codec.encoding == nil {
		b.ends = append(b.ends, b.start(len(b.ends))+m.size())
	} else {
		b.ends = append(b.ends, len(b.bytes))
	}
}

// offer offers c the runs, all of batch b; what the sink does not take, c owes.
func (s *shard) offer(c *Conn, b *Batch, runs []run) {
	s.spans = s.spans[:0]
	for _, r := range runs {
		if r.span.From < r.span.To {
			s.spans = append(s.spans, r.span)
		}
	}
	if debt := s.try(c, b, s.spans); debt != nil {
		s.beginLag(c, debt)
	}
}

// try offers spans of b to c's sink and returns what it did not take, nil if
// that is nothing or the sink is dead.
func (s *shard) try(c *Conn, b *Batch, spans []Span) *lagged {
	count, size := 0, 0
	for _, span := range spans {
		count += span.To - span.From
		size += b.Size(span)
	}
	if count == 0 {
		return nil
	}
	n, part, err := c.sink.Offer(b, spans)
	if err != nil {
		s.lost(c, err)
		return nil
	}
	s.delivered.Add(int64(n))
	if n == count {
		s.deliveredBytes.Add(int64(size))
		return nil
	}
	debt := &lagged{}
	for _, span := range spans {
		for i := span.From; i < span.To; i++ {
			one := Span{i, i + 1}
			switch {
			case n > 0:
				n--
				s.deliveredBytes.Add(int64(b.Size(one)))
			case part > 0:
				debt.tail = append([]byte(nil), b.Bytes(one)[part:]...)
				debt.bytes += len(debt.tail)
				s.deliveredBytes.Add(int64(part))
				part = 0
			default:
				debt.push(owed{b.msgs[i], b.member(i)})
				if c.codec.own && c.numbered && b.msgs[i].Kind == KindData {
					c.seq-- // it was numbered for a write that did not happen
				}
			}
		}
	}
	return debt
}

// settle moves a connection that is over and has nothing left to send on to the
// next step of its end.
func (s *shard) settle(c *Conn) {
	if c.state != connFlushing || c.lag != nil {
		return
	}
	if c.wireDone {
		s.closeSink(c, true)
		return
	}
	c.state = connLingering
}

// open begins a connection; hello is its first message.
func (s *shard) open(c *Conn, o *opening) {
	c.codec = s.codec(o.encoding)
	c.codec.users++
	c.state = connOpen
	if c.older = s.live; c.older != nil {
		c.older.newer = c
	}
	s.live = c
	if o.hold {
		// What the groups it joins meanwhile bring waits behind the hello.
		c.lag = &lagged{}
		c.lag.push(owed{message: o.hello})
	} else {
		s.solo(c, o.hello)
	}
	if c.pings > 0 {
		s.wheel.add(c, timerKeepAlive, s.engine.clock.Now().Add(c.pings))
	}
}

func (s *shard) join(m *membership) {
	set := s.sets[m.group]
	if set == nil {
		set = &memberSet{}
		s.sets[m.group] = set
	}
	var ms *memberSlice
	for _, have := range set.slices {
		if have.codec == m.conn.codec {
			ms = have
		}
	}
	if ms == nil {
		ms = &memberSlice{codec: m.conn.codec}
		set.slices = append(set.slices, ms)
	}
	m.slot = int32(len(ms.members))
	ms.members = append(ms.members, m)
	set.count++
}

func (s *shard) replace(old, m *membership) {
	for _, ms := range s.sets[m.group].slices {
		if ms.codec == m.conn.codec {
			m.slot = old.slot
			ms.members[m.slot] = m
		}
	}
}

func (s *shard) leave(m *membership) {
	set := s.sets[m.group]
	for i, ms := range set.slices {
		if ms.codec != m.conn.codec {
			continue
		}
		last := len(ms.members) - 1
		moved := ms.members[last]
		ms.members[m.slot], moved.slot = moved, m.slot
		ms.members[last] = nil
		ms.members = ms.members[:last]
		if cap(ms.members) > 64 && last < cap(ms.members)/4 {
			ms.members = append(make([]*membership, 0, cap(ms.members)/2), ms.members...)
		}
		if last == 0 {
			set.slices = append(set.slices[:i], set.slices[i+1:]...)
		}
		break
	}
	if set.count--; set.count == 0 {
		delete(s.sets, m.group)
	}
}

// finish begins a connection's polite end.
func (s *shard) finish(c *Conn, end *closing) {
	if c.state != connOpen {
		return
	}
	if end.text != "" {
		s.solo(c, &Message{Kind: KindDisconnected, Text: end.text})
	}
	s.solo(c, &Message{Kind: KindClose, CloseCode: end.code, Text: end.closeText})
	c.state = connFlushing
	s.wheel.add(c, timerClose, s.engine.clock.Now().Add(s.engine.limits.CloseTimeout))
	if c.plan == 0 {
		s.settle(c) // the encoding has no words for an end
	}
}

// gone deals with the end of a connection's wire. A polite one still gets what
// was queued, and an answer to its goodbye.
func (s *shard) gone(c *Conn, polite bool, end *closing) {
	switch c.state {
	case connOpen:
		if !polite {
			s.drop(c)
			return
		}
		c.wireDone = true
		s.finish(c, end)
	case connFlushing:
		if !polite {
			s.drop(c)
			return
		}
		c.wireDone = true
	case connLingering:
		s.closeSink(c, polite)
	}
}

// drop cuts a connection.
func (s *shard) drop(c *Conn) {
	if c.state == connDead || c.state == connNew {
		return
	}
	s.closeSink(c, false)
}

// lost ends a connection whose sink failed.
func (s *shard) lost(c *Conn, err error) {
	c.over(EndLost, CloseAbnormal, err.Error())
	s.drop(c)
}

// closeSink is the last that the shard does for a connection.
func (s *shard) closeSink(c *Conn, polite bool) {
	if c.lag != nil {
		s.dropped.Add(int64(c.lag.len()))
		s.endLag(c)
	}
	c.state = connDead
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		s.live = c.older
	}
	if c.older != nil {
		c.older.newer = c.newer
	}
	c.older, c.newer = nil, nil
	c.codec.users--
	c.sink.Close(polite)
	c.sink = nil
	s.wheel.remove(c)
	c.part()
}

// expired reports whether m is not worth delivering at time now.
func (m *Message) expired(now time.Time) bool {
	return !m.Expires.IsZero() && now.After(m.Expires)
}
