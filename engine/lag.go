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
	bytes int
}

// owed is a message that waits, and the membership it came by.
type owed struct {
	message *Message
	member  *membership
}

func (l *lagged) push(o owed) {
	l.queue = append(l.queue, o)
	l.bytes += o.message.size()
}

func (l *lagged) len() int {
	n := len(l.queue) - l.head
	if len(l.tail) > 0 {
		n++
	}
	return n
}

// pop takes the oldest message off.
func (l *lagged) pop() owed {
	o := l.queue[l.head]
	l.queue[l.head] = owed{}
	l.head++
	l.bytes -= o.message.size()
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	}
	return o
}

// unshift puts back messages that were popped, in front of the others.
func (l *lagged) unshift(msgs []owed) {
	for _, o := range msgs {
		l.bytes += o.message.size()
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
	s.engine.laggards.leave(c)
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
			c.lag.push(owed{r.batch.msgs[i], r.member})
		}
	}
	s.reckon(c)
	s.checkLag(c)
}

// checkLag ends c if it owes more than it may: a gap would be worse than a
// reconnect, and the reason cannot be sent into a full socket.
func (s *shard) checkLag(c *Conn) {
	limits := &s.engine.limits
	n, size := c.lag.len(), int(c.owed.Load())
	if n > limits.OutboundMessages || size > limits.OutboundBytes {
		c.over(EndSlow, CloseAbnormal, fmt.Sprintf(
			"The client reads too slowly: %d messages (%d bytes) wait for it, over the bounds of %d messages or %d bytes.",
			n, size, limits.OutboundMessages, limits.OutboundBytes))
		s.drop(c)
		return
	}
	s.engine.laggards.relieve(int64(limits.TotalOutboundBytes))
}

// maxCatchUp bounds how many bytes, and roughly how many messages, a laggard is
// given at a time.
const maxCatchUp = 256 << 10

// writable gives a laggard what its sink now takes.
func (s *shard) writable(c *Conn) {
	if c.lag == nil || c.state == connDead {
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
		if c.state == connDead {
			return
		}
		if c.window == nil && n > 0 && (debt == nil || len(debt.queue) < n) {
			c.heard.Store(true) // as above; a sink that takes whole messages has no tail
		}
		if debt != nil {
			for _, o := range debt.queue {
				if c.counts(o) {
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
		if o := l.queue[l.head]; c.counts(o) && !o.message.expired(now) {
			if c.window.room <= 0 {
				break
			}
			c.window.room--
		}
		o := l.pop()
		m := o.message
		switch {
		case m.expired(now):
		case c.codec.own:
			body, _ := c.codec.encoding.AppendBody(s.scratch[:0], m)
			s.scratch = body[:0]
			s.appendOwn(b, c, m, o.member, body)
		default:
			s.append(b, c.codec, m)
		}
	}
	return b
}

// window bounds the deliveries that the far end has not acknowledged.
type window struct {
	room    int
	counted func(*Message, any) bool // nil: all of KindData
}

// counts reports whether o takes a place in c's window.
func (c *Conn) counts(o owed) bool {
	if c.window == nil || o.message.Kind != KindData {
		return false
	}
	return c.window.counted == nil || c.window.counted(o.message, o.member.opaque())
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
