package engine

// connState is where a connection is in its life on the shard.
type connState uint8

const (
	connNew       connState = iota
	connOpen                // gets messages
	connFlushing            // over; what is queued and the closing messages still go out
	connLingering           // all is out; waits for the far end to close
	connDead                // the sink is closed
)

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
