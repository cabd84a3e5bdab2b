package engine

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// lagged is what a connection owes while its sink has no room. It refers to
// messages, never to batches, whose memory is pooled; they are encoded again
// when there is room.
type lagged struct {
	tail  []byte // the rest of a message that was taken in part
	queue []owed
	head  int
	fresh int // in queue, and not among the connection's replay
	bytes int // of those, and of tail
}

// owed is a message that waits, the membership it came by, and its number, if it
// has one by now: then it is one of the connection's replay.
type owed struct {
	message *Message
	member  *membership
	seq     SequenceID
}

func (l *lagged) push(o owed) {
	l.queue = append(l.queue, o)
	l.count(o, 1)
}

func (l *lagged) count(o owed, n int) {
	if o.seq == 0 {
		l.fresh += n
		l.bytes += n * o.message.size()
	}
}

// len returns how many messages wait that are not among the replay.
func (l *lagged) len() int {
	if len(l.tail) > 0 {
		return l.fresh + 1
	}
	return l.fresh
}

// pop takes the oldest message off.
func (l *lagged) pop() owed {
	o := l.queue[l.head]
	l.queue[l.head] = owed{}
	l.head++
	l.count(o, -1)
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
	return o
}

// unshift puts back messages that were popped, in front of the others.
func (l *lagged) unshift(msgs []owed) {
	for _, o := range msgs {
		l.count(o, 1)
	}
	if l.head >= len(msgs) {
		l.head -= len(msgs)
		copy(l.queue[l.head:], msgs)
		return
	}
	l.queue, l.head = append(append([]owed(nil), msgs...), l.queue[l.head:]...), 0
}

// beginLag takes c out of step: until it has caught up, what it gets queues in l.
func (s *shard) beginLag(c *Conn, l *lagged) {
	c.lag = l
	s.engine.laggards.enter(c)
	s.reckon(c)
	s.checkLag(c)
}

func (s *shard) endLag(c *Conn) {
	c.lag = nil
	s.reckon(c)
	if c.durable == nil {
		s.engine.laggards.leave(c)
	}
}

// reckon brings the totals in line with what c owes.
func (s *shard) reckon(c *Conn) {
	n, msgs := int64(0), int64(0)
	if c.lag != nil {
		n, msgs = int64(c.lag.bytes), int64(c.lag.len())
		if c.sink != nil {
			n += int64(c.sink.Held())
		}
	}
	if d := c.durable; d != nil {
		n += int64(d.replay.bytes)
		msgs += int64(d.replay.len())
	}
	s.engine.laggards.bytes.Add(n - c.owed.Swap(n))
	s.engine.laggards.messages.Add(msgs - int64(c.owedMessages))
	c.owedMessages = int32(msgs)
}

// delay puts what runs hold behind what c owes already.
func (s *shard) delay(c *Conn, runs []run) {
	if c.state == connDead {
		return
	}
	for _, r := range runs {
		for i := r.span.From; i < r.span.To; i++ {
			m := r.batch.msgs[i]
			if c.state == connDetached && !m.Kind.Numbered() {
				continue // of interest to the wire that is gone
			}
			c.lag.push(owed{message: m, member: r.member})
		}
	}
	s.reckon(c)
	s.checkLag(c)
}

// checkLag ends c if it owes more than it may: a gap would be worse than a
// reconnect, and the reason cannot be sent into a full socket.
func (s *shard) checkLag(c *Conn) {
	limits := &s.engine.limits
	over := func() bool {
		return int(c.owedMessages) > limits.OutboundMessages || int(c.owed.Load()) > limits.OutboundBytes
	}
	if over() {
		s.sweep(c)
	}
	if over() {
		does := "reads"
		if c.durable != nil {
			does = "acknowledges"
		}
		c.over(EndSlow, CloseAbnormal, fmt.Sprintf(
			"The client "+does+" too slowly: %d messages (%d bytes) wait for it, over the bounds of %d messages or %d bytes.",
			c.owedMessages, c.owed.Load(), limits.OutboundMessages, limits.OutboundBytes))
		s.drop(c)
		return
	}
	s.engine.laggards.relieve(int64(limits.TotalOutboundBytes))
}

// sweep drops what has expired while it waited for c.
func (s *shard) sweep(c *Conn) {
	l, now := c.lag, s.engine.clock.Now()
	if l == nil {
		return
	}
	waiting := l.queue[l.head:]
	kept := l.queue[:0]
	for _, o := range waiting {
		if o.seq == 0 && o.message.expired(now) {
			l.count(o, -1)
			continue
		}
		kept = append(kept, o)
	}
	clear(l.queue[len(kept):])
	l.queue, l.head = kept, 0
	s.reckon(c)
}

// maxCatchUp bounds how many bytes, and roughly how many messages, a laggard is
// given at a time.
const maxCatchUp = 256 << 10

// writable gives a laggard what its sink now takes.
func (s *shard) writable(c *Conn) {
	if c.lag == nil || c.sink == nil {
		return
	}
	l := c.lag
	if len(l.tail) > 0 {
		n, err := c.sink.OfferBytes(l.tail)
		if err != nil {
			s.lost(c, err)
			return
		}
		l.bytes -= n
		s.deliveredBytes.Add(int64(n))
		if n > 0 {
			c.heard.Store(true) // it reads, which is a sign of life, and pings wait meanwhile
		}
		if l.tail = l.tail[n:]; len(l.tail) > 0 {
			s.reckon(c)
			return
		}
		l.tail = nil
		s.delivered.Add(1)
	}
	for l.head < len(l.queue) {
		b := s.catchUp(c)
		if b.Len() == 0 && l.head < len(l.queue) { // the window is closed
			b.Release()
			s.reckon(c)
			return
		}
		n := b.Len()
		debt := s.try(c, b, []Span{{0, n}})
		b.Release()
		if c.sink == nil {
			return // it is over, or its wire is lost
		}
		if c.window == nil && n > 0 && (debt == nil || len(debt.queue) < n) {
			c.heard.Store(true) // as above; a sink that takes whole messages has no tail
		}
		if debt != nil {
			for _, o := range debt.queue {
				if c.window != nil && c.counts(o.message, o.member) {
					c.window.room++
				}
			}
			l.tail = debt.tail
			l.bytes += len(debt.tail)
			l.unshift(debt.queue)
			s.reckon(c)
			return
		}
	}
	s.endLag(c)
	s.settle(c)
}

// catchUp encodes what c owes, up to maxCatchUp.
func (s *shard) catchUp(c *Conn) *Batch {
	b, l, now := s.newBatch(), c.lag, s.engine.clock.Now()
	for l.head < len(l.queue) && len(b.bytes) < maxCatchUp && b.Len() < maxCatchUp/messageOverhead {
		if o := l.queue[l.head]; c.window != nil && c.counts(o.message, o.member) && (o.seq != 0 || !o.message.expired(now)) {
			if c.window.room <= 0 {
				break
			}
			c.window.room--
		}
		o := l.pop()
		m := o.message
		switch {
		case o.seq == 0 && m.expired(now):
		case c.codec.own:
			body, ok := c.codec.encoding.AppendBody(s.scratch[:0], m)
			s.scratch = body[:0]
			if ok {
				s.appendOwn(b, c, o, body, nil)
			}
		default:
			s.append(b, c.codec, m)
		}
	}
	return b
}

// window bounds the deliveries that the far end has not acknowledged.
type window struct {
	room    int
	counted func(*Message, any) bool // nil: all that can be numbered
}

// counts reports whether a delivery takes a place in c's window, if it has one,
// and a number, if it has those.
func (c *Conn) counts(m *Message, member *membership) bool {
	if !m.Kind.Numbered() {
		return false
	}
	return c.window == nil || c.window.counted == nil || c.window.counted(m, member.opaque())
}

// laggards are the connections that owe messages, over all shards.
type laggards struct {
	bytes, messages atomic.Int64

	mu    sync.Mutex
	conns map[*Conn]struct{}
}

func (l *laggards) enter(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = make(map[*Conn]struct{})
	}
	l.conns[c] = struct{}{}
}

func (l *laggards) leave(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// relieve ends the largest laggards until what the others owe is within limit.
func (l *laggards) relieve(limit int64) {
	for l.bytes.Load() > limit {
		worst := l.worst(limit)
		if worst == nil {
			return
		}
		if worst.over(EndOverload, CloseAbnormal, fmt.Sprintf(
			"All clients together have over %d bytes waiting, and this one the most of them.", limit)) {
			worst.shard.post(entry{op: opAbort, conn: worst})
		}
	}
}

// worst returns the largest laggard, or nil if those that are over already will
// bring the total within limit.
func (l *laggards) worst(limit int64) *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	var worst *Conn
	total := l.bytes.Load()
	for c := range l.conns {
		switch {
		case c.ending.Load():
			total -= c.owed.Load()
		case worst == nil || c.owed.Load() > worst.owed.Load():
			worst = c
		}
	}
	if total <= limit {
		return nil
	}
	return worst
}
