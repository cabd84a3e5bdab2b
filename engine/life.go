package engine

import "time"

// connState is where a connection is in its life on the shard.
type connState uint8

const (
	connNew       connState = iota
	connOpen                // gets messages
	connDetached            // its wire is lost; what it gets waits for another one
	connFlushing            // over; what is queued and the closing messages still go out
	connLingering           // all is out; waits for the far end to close
	connDead                // the sink is closed
)

// open begins a connection; hello is its first message.
func (s *shard) open(c *Conn, o *opening) {
	c.codec = s.codec(o.encoding)
	c.codec.users++
	c.state = connOpen
	if c.durable != nil {
		s.engine.laggards.enter(c) // for good: it mostly owes something
	}
	if c.older = s.live; c.older != nil {
		c.older.newer = c
	}
	s.live = c
	if o.adopted != nil {
		s.adopt(c, o.adopted)
		return
	}
	if o.hold {
		// What the groups it joins meanwhile bring waits behind the hello.
		c.lag = &lagged{}
		c.lag.push(owed{message: o.hello})
	} else {
		s.solo(c, o.hello)
	}
	s.listen(c)
}

// listen begins to wait for signs of life on c's wire.
func (s *shard) listen(c *Conn) {
	if c.pings > 0 {
		s.wheel.add(c, timerKeepAlive, s.engine.clock.Now().Add(c.pings.duration()))
	}
}

// attach puts a connection onto another wire.
func (s *shard) attach(c *Conn, o *opening) {
	switch c.state {
	case connOpen: // the wire it has lives on, or is not known to be dead
		s.hangUp(c, &closing{reason: EndTakenOver, code: CloseGoingAway})
	case connDetached:
		s.wheel.cancel(c, timerState)
		s.unplan(c)
	default:
		o.sink.Close(false) // it is over
		return
	}
	if x := s.codec(o.encoding); x != c.codec { // its memberships leave and join around this
		c.codec.users--
		x.users++
		c.codec = x
	}
	d := c.durable
	l := &lagged{}
	l.push(owed{message: o.hello})
	for _, o := range d.replay.queue[d.replay.head:] {
		if o.message != nil {
			l.push(o)
		}
	}
	for _, o := range c.outstanding() {
		if o.seq == 0 {
			l.push(o)
		}
	}
	c.lag, c.sink, c.state, d.wire = l, o.sink, connOpen, o.wire
	c.pings, c.missed, c.wireDone = inMilliseconds(o.pings), 0, false
	switch {
	case c.window != nil:
		c.window.reset(o)
	case o.counted != nil: // it was adopted without
		c.window = &window{counted: o.counted}
		c.window.reset(o)
	}
	c.heard.Store(true)
	s.reckon(c)
	s.listen(c)
	s.writable(c)
}

// detach takes a connection off its wire and lets it wait for another one. end
// is how to answer a far end that said goodbye; nil for one that is lost.
func (s *shard) detach(c *Conn, end *closing) {
	s.hangUp(c, end)
	c.state = connDetached
	s.wheel.add(c, timerState, s.engine.clock.Now().Add(time.Duration(c.durable.recovery.Load())))
	s.lastWhileAway(c)
	s.reckon(c)
	s.checkLag(c)
}

// hangUp closes c's sink, with a goodbye if end says so and nothing half-written is
// in the way.
func (s *shard) hangUp(c *Conn, end *closing) {
	polite := end != nil && (c.lag == nil || len(c.lag.tail) == 0) && s.sayGoodbye(c, end)
	s.unwire(c)
	c.sink.Close(polite)
	c.sink = nil
}

// sayGoodbye offers c's sink a goodbye in front of all that waits, and reports whether
// the sink is still good.
func (s *shard) sayGoodbye(c *Conn, end *closing) bool {
	m := &Message{Kind: KindClose, CloseCode: end.code, Text: end.closeText, Reason: end.reason}
	b := s.newBatch()
	defer b.Release()
	if !s.appendOwed(b, c, owed{message: m}) {
		return true
	}
	_, _, err := c.sink.Offer(b, []Span{{0, 1}})
	return err == nil
}

// dismiss cuts a connection that is over. If it is not the sink that has no room, it
// says why.
func (s *shard) dismiss(c *Conn, end *closing) {
	if c.state != connOpen || c.lag != nil || c.codec.encoding == nil {
		s.drop(c)
		return
	}
	s.closeSink(c, s.sayGoodbye(c, end))
}

// unwire forgets what only c's present wire was to get, or had got a part of.
func (s *shard) unwire(c *Conn) {
	s.unfinished.forget(c, c.durable.wire) // only a durable connection gets here
	s.wheel.cancel(c, timerKeepAlive)
	s.unplan(c)
	l := &lagged{}
	for _, o := range c.outstanding() {
		if o.seq == 0 && o.message.Kind.Numbered() {
			l.push(o)
		}
	}
	c.lag = l
}

// unplan moves what this turn has for c to what c owes: it is made for the wire that c
// had, in that one's encoding.
func (s *shard) unplan(c *Conn) {
	if c.plan == 0 {
		return
	}
	p := &s.plans[c.plan-1]
	if c.lag == nil {
		c.lag = &lagged{}
	}
	for i, r := range p.runs {
		for at := r.span.From; at < r.span.To; at++ {
			c.lag.push(owed{message: r.batch.msgs[at], member: r.member})
		}
		p.runs[i].span.From = r.span.To
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
	if c.state == connDetached {
		s.drop(c)
	}
	if c.state != connOpen {
		return
	}
	if end.text != "" {
		s.solo(c, &Message{Kind: KindDisconnected, Text: end.text})
	}
	s.solo(c, &Message{Kind: KindClose, CloseCode: end.code, Text: end.closeText, Reason: end.reason})
	c.state = connFlushing
	s.wheel.add(c, timerState, s.engine.clock.Now().Add(s.engine.limits.CloseTimeout))
	s.settle(c) // where the encoding has no words for an end
}

// gone deals with the end of a connection's wire. A polite one still gets what
// was queued, and an answer to its goodbye.
func (s *shard) gone(c *Conn, polite bool, end *closing) {
	switch c.state {
	case connDetached:
		s.drop(c)
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

// leaves notes that the far end of c's wire has said goodbye, while c's end waits or
// has begun.
func (s *shard) leaves(c *Conn, wire WireID) {
	switch {
	case c.durable != nil && c.durable.wire != wire: // another one has taken its place
	case c.state == connOpen:
		c.wireDone = true
	case c.state == connFlushing, c.state == connLingering:
		s.gone(c, true, nil)
	}
}

// settle moves a connection that is over and has nothing left to send on to the
// next step of its end.
func (s *shard) settle(c *Conn) {
	if c.state != connFlushing || c.lag != nil || c.plan != 0 {
		return
	}
	s.dropWaiting(c) // the goodbye is out, behind which nothing goes
	if c.wireDone {
		s.closeSink(c, true)
		return
	}
	c.state = connLingering
}

// drop cuts a connection.
func (s *shard) drop(c *Conn) {
	if c.state == connDead || c.state == connNew {
		return
	}
	s.closeSink(c, false)
}

// lost deals with a connection whose sink failed.
func (s *shard) lost(c *Conn, err error) {
	s.lose(c, EndLost, err.Error())
}

// lose ends a connection whose wire is lost, or lets it wait for another one.
func (s *shard) lose(c *Conn, reason EndReason, text string) {
	if c.state == connOpen && c.recoverable() {
		s.detach(c, nil)
		return
	}
	c.over(reason, CloseAbnormal, text)
	s.drop(c)
}

// wireGone deals with the end of one wire of a connection that may outlive it.
func (s *shard) wireGone(c *Conn, wire WireID, polite bool, end *closing) {
	switch {
	case wire != c.durable.wire: // another one has taken its place
	case c.state == connOpen && polite:
		s.detach(c, end)
	case c.state == connOpen:
		s.detach(c, nil)
	case c.state != connDetached:
		s.gone(c, polite, end)
	}
}

// closeSink is the last that the shard does for a connection.
func (s *shard) closeSink(c *Conn, polite bool) {
	if c.lag != nil {
		s.dropped.Add(int64(c.lag.count()))
		s.endLag(c)
	}
	s.dropWaiting(c)
	c.state = connDead
	s.unfinished.forget(c, latestWire)
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
	if c.sink != nil {
		c.sink.Close(polite)
		c.sink = nil
	}
	if d := c.durable; d != nil {
		d.replay = replay{kept: d.replay.kept}
		s.reckon(c)
		s.engine.laggards.leave(c)
	}
	s.wheel.remove(c)
	c.part()
}
