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
	tail []byte // the rest of a message that was taken in part
	backlog
}

// count returns how many messages wait that are not among the replay.
func (l *lagged) count() int {
	if len(l.tail) > 0 {
		return l.fresh + 1
	}
	return l.fresh
}

// size returns how many bytes those are.
func (l *lagged) size() int { return l.bytes + len(l.tail) }

// backlog is a queue of messages that a connection has not been sent.
type backlog struct {
	queue []owed
	head  int
	fresh int // in queue, and not among the connection's replay
	bytes int // of those
}

// owed is a message that waits, the membership it came by, and its number, if it
// has one by now: then it is one of the connection's replay.
type owed struct {
	message *Message
	member  *membership
	seq     SequenceID
}

func (b *backlog) push(o owed) {
	b.queue = append(b.queue, o)
	b.add(o, 1)
}

func (b *backlog) add(o owed, n int) {
	if o.seq == 0 {
		b.fresh += n
		b.bytes += n * o.message.size()
	}
}

func (b *backlog) len() int { return len(b.queue) - b.head }

func (b *backlog) first() owed { return b.queue[b.head] }

// rest returns all of it, the oldest first.
func (b *backlog) rest() []owed { return b.queue[b.head:] }

// pop takes the oldest message off.
func (b *backlog) pop() owed {
	o := b.queue[b.head]
	b.queue[b.head] = owed{}
	b.head++
	b.add(o, -1)
	switch {
	case b.head == len(b.queue) && cap(b.queue) > 64:
		b.queue, b.head = nil, 0
	case b.head == len(b.queue):
		b.queue, b.head = b.queue[:0], 0
	case b.head > 32 && b.head > len(b.queue)/2: // a queue that is never empty must not grow
		n := copy(b.queue, b.queue[b.head:])
		clear(b.queue[n:])
		b.queue, b.head = b.queue[:n], 0
	}
	return o
}

// unshift puts back messages that were popped, in front of the others.
func (b *backlog) unshift(msgs []owed) {
	for _, o := range msgs {
		b.add(o, 1)
	}
	if b.head >= len(msgs) {
		b.head -= len(msgs)
		copy(b.queue[b.head:], msgs)
		return
	}
	b.queue, b.head = append(append([]owed(nil), msgs...), b.queue[b.head:]...), 0
}

// filter drops the messages that drop is true for.
func (b *backlog) filter(drop func(owed) bool) {
	kept := b.queue[:0]
	for _, o := range b.rest() {
		if drop(o) {
			b.add(o, -1)
			continue
		}
		kept = append(kept, o)
	}
	clear(b.queue[len(kept):])
	b.queue, b.head = kept, 0
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
	s.balanced(c)
}

// balanced takes c out of the laggards if it owes nothing, and is not one for good.
func (s *shard) balanced(c *Conn) {
	if c.durable == nil && c.lag == nil && c.waiting() == 0 {
		s.engine.laggards.leave(c)
	}
}

// reckon brings the totals in line with what c owes.
func (s *shard) reckon(c *Conn) {
	n, msgs := int64(0), int64(0)
	if c.lag != nil {
		n, msgs = int64(c.lag.size()), int64(c.lag.count())
		if c.sink != nil {
			n += int64(c.sink.Held())
		}
	}
	if w := c.window; w != nil {
		n += int64(w.waiting.bytes)
		msgs += int64(w.waiting.fresh)
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
// reconnect. The reason cannot be sent into a full socket; one that only waits for
// acknowledgements is told.
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
		if c.durable != nil || c.waiting() > 0 {
			does = "acknowledges"
		}
		text := fmt.Sprintf(
			"The client "+does+" too slowly: %d messages (%d bytes) wait for it, over the bounds of %d messages or %d bytes.",
			c.owedMessages, c.owed.Load(), limits.OutboundMessages, limits.OutboundBytes)
		c.over(EndSlow, CloseAbnormal, text)
		s.dismiss(c, &closing{reason: EndSlow, code: ClosePolicy, closeText: text})
		return
	}
	s.engine.laggards.relieve(int64(limits.TotalOutboundBytes))
}

// sweep drops what has expired while it waited for c.
func (s *shard) sweep(c *Conn) {
	now := s.engine.clock.Now()
	expired := func(o owed) bool { return o.seq == 0 && o.message.expired(now) }
	w := c.window
	if w != nil {
		w.waiting.filter(expired)
	}
	if c.lag != nil {
		left := 0 // of the deliveries that have a place
		if w != nil {
			left = w.placed
		}
		c.lag.filter(func(o owed) bool {
			over := expired(o)
			if left > 0 && c.counts(o.message, o.member) {
				if left--; over {
					w.placed--
					w.room++
				}
			}
			return over
		})
	}
	s.reckon(c)
}

// maxCatchUp bounds how many bytes, and roughly how many messages, a laggard is
// given at a time.
const maxCatchUp = 256 << 10

// writable gives a laggard what its sink, and its window, now take.
func (s *shard) writable(c *Conn) {
	if c.sink == nil || c.lag == nil && !c.released() {
		return
	}
	if c.lag == nil {
		c.lag = &lagged{}
	}
	l := c.lag
	if len(l.tail) > 0 {
		n, err := c.sink.OfferBytes(l.tail)
		if err != nil {
			s.lost(c, err)
			return
		}
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
	for l.len() > 0 || c.released() {
		b := s.catchUp(c)
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
			l.tail = debt.tail
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
	b, now := s.newBatch(), s.engine.clock.Now()
	for len(b.bytes) < maxCatchUp && b.Len() < maxCatchUp/messageOverhead {
		o, ok := c.nextOwed(now)
		if !ok {
			break
		}
		if !s.appendOwed(b, c, o) {
			s.decline(c, o)
		}
	}
	return b
}

// appendOwed encodes o anew and adds it to b, a batch for c alone. It reports false
// for a message that c's encoding does not send.
func (s *shard) appendOwed(b *Batch, c *Conn, o owed) bool {
	if !c.codec.own {
		if !s.append(b, c.codec, o.message) {
			return false
		}
		if c.window != nil {
			b.members = append(b.members, o.member)
		}
		return true
	}
	body, ok := c.codec.encoding.AppendBody(s.scratch[:0], o.message)
	s.scratch = body[:0]
	if ok {
		s.appendOwn(b, c, o, body, nil)
	}
	return ok
}

// decline deals with a message that the encoding of c's present wire does not send:
// to its far end it is as good as delivered and acknowledged.
func (s *shard) decline(c *Conn, o owed) {
	if w := c.window; w != nil && c.counts(o.message, o.member) {
		w.acknowledge(1)
	}
	if o.seq != 0 && c.durable != nil {
		c.durable.replay.ackOne(func(seq SequenceID) bool { return seq == o.seq })
	}
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
