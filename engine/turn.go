package engine

import "time"

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
		if !m.Kind.Numbered() && m.Kind != KindClose {
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
	case c.codec.own || c.window != nil || s.mixed(runs) && size <= maxGather:
		b := s.newBatch()
		for _, r := range runs {
			for i := r.span.From; i < r.span.To; i++ {
				o := owed{message: r.batch.msgs[i], member: r.member}
				if c.window != nil && c.hold(o) {
					continue
				}
				s.appendOwn(b, c, o, r.batch.Bytes(Span{i, i + 1}), r.batch)
			}
		}
		s.offer(c, b, []run{{batch: b, span: Span{0, b.Len()}}})
		b.Release()
	default:
		for len(runs) > 0 && c.sink != nil {
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
	if c.state == connOpen && c.lag == nil && c.released() {
		s.writable(c)
	}
	if (c.durable != nil || c.waiting() > 0) && c.lag == nil && c.state == connOpen {
		if c.durable == nil {
			s.engine.laggards.enter(c)
		}
		s.reckon(c) // what it has got, it has not acknowledged
		s.checkLag(c)
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

// minLent is the size from which a body is not copied behind each connection's own
// prefix, but written from where it lies (netwire, BenchmarkScattered).
const minLent = 32 << 10

// appendOwn adds a message to a batch for c alone: with c's own prefix, or as it is.
// bytes lie in from; nil if they are not to be kept.
func (s *shard) appendOwn(b *Batch, c *Conn, o owed, bytes []byte, from *Batch) {
	m := o.message
	if x := c.codec; x.own {
		own := Own{Membership: o.member.opaque(), Seq: o.seq, Again: o.seq != 0}
		if c.numbered {
			if o.seq == 0 && c.counts(m, o.member) {
				c.seq++
				own.Seq = c.seq
			}
			b.seqs = append(b.seqs, own.Seq)
		}
		b.bytes = x.encoding.AppendPrefix(b.bytes, m, own, len(bytes))
	}
	if c.codec.own || c.window != nil {
		b.members = append(b.members, o.member)
	}
	if from != nil && len(bytes) >= minLent {
		from.Retain()
		b.lent = append(b.lent, loan{msg: len(b.msgs), at: len(b.bytes), bytes: bytes, from: from})
		b.lentBytes += len(bytes)
	} else {
		b.bytes = append(b.bytes, bytes...)
	}
	b.msgs = append(b.msgs, m)
	if c.codec.encoding == nil {
		b.ends = append(b.ends, b.start(len(b.ends))+m.size())
	} else {
		b.ends = append(b.ends, len(b.bytes)+b.lentBytes)
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
		if d := c.durable; d != nil {
			s.keep(d, b, spans, count) // some of it may have arrived
		}
		s.lost(c, err)
		return nil
	}
	s.delivered.Add(int64(n))
	if d := c.durable; d != nil {
		taken := n
		if part > 0 {
			taken++
		}
		s.keep(d, b, spans, taken)
	}
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
				s.deliveredBytes.Add(int64(part))
				part = 0
			default:
				o := owed{b.msgs[i], b.member(i), b.seq(i)}
				if d := c.durable; o.seq != 0 && (d == nil || o.seq > d.replay.kept) {
					o.seq = 0 // it was numbered for a write that did not happen
					c.seq--
				}
				if c.window != nil && c.counts(o.message, o.member) {
					c.window.placed++
				}
				debt.push(o)
			}
		}
	}
	return debt
}

// keep notes the first n deliveries of b's spans for the case that the wire is
// lost, those of them that are numbered and not kept already.
func (s *shard) keep(d *durable, b *Batch, spans []Span, n int) {
	for _, span := range spans {
		for i := span.From; i < span.To && n > 0; i, n = i+1, n-1 {
			if seq := b.seq(i); seq > d.replay.kept {
				d.replay.keep(owed{b.msgs[i], b.member(i), seq})
			}
		}
	}
	d.delivered.Store(uint64(d.replay.kept))
}

// expired reports whether m is not worth delivering at time now.
func (m *Message) expired(now time.Time) bool {
	return !m.Expires.IsZero() && now.After(m.Expires)
}
