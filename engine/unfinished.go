package engine

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Unfinished is a message of a client that has not arrived completely. Its
// transport begins one with [Conn.Unfinished] when it has to keep a part of a
// message, and says with Hold how much memory that takes and with Done that it
// keeps nothing any more. Meanwhile the engine ends the connection if the message
// takes longer than [Limits].MessageTimeout, or if it is the largest while all
// unfinished messages together are over [Limits].TotalUnfinishedBytes.
//
// Hold and Done must not be called concurrently with one another.
type Unfinished struct {
	// Fixed at birth.
	list  *unfinishedList
	conn  *Conn // nil before there is a connection
	wire  WireID
	cut   func(reason string) // instead of conn
	timed bool
	began time.Time // if it is timed

	bytes atomic.Int64 // changed under list.mu

	// Guarded by list.mu.
	older, newer *Unfinished
	sibling      *Unfinished // of the same connection
	listed       bool
	ended        bool // its connection was told to end
}

// Unfinished notes that a message, which came by the given wire, has begun to
// arrive and is not complete.
func (c *Conn) Unfinished(wire WireID) *Unfinished {
	u := &Unfinished{list: &c.shard.unfinished, conn: c, wire: wire, timed: true, began: c.hub.engine.clock.Now()}
	u.list.add(u)
	return u
}

// Kept is Unfinished for what the client has sent and the transport has left for
// later, because the engine wants no more or others are to have their turn: it
// counts, and may take its time.
func (c *Conn) Kept(wire WireID) *Unfinished {
	u := &Unfinished{list: &c.shard.unfinished, conn: c, wire: wire}
	u.list.add(u)
	return u
}

// Unfinished is [Conn.Unfinished] for a client that has no connection yet: cut is
// called at most once, with the reason, in place of the connection's end, and must
// not block. It is not called for the time that passes.
func (e *Engine) Unfinished(cut func(reason string)) *Unfinished {
	s := e.shards[0]
	u := &Unfinished{list: &s.unfinished, cut: cut}
	u.list.add(u)
	return u
}

// Hold says that the message takes n bytes of memory by now.
func (u *Unfinished) Hold(n int) {
	if int64(n) == u.bytes.Load() {
		return
	}
	if u.list.hold(u, int64(n)) {
		u.list.engine.relieveUnfinished()
	}
}

// Done says that the message is complete, or was given up. Calling it twice does
// nothing.
func (u *Unfinished) Done() { u.list.remove(u) }

// unfinishedList holds a shard's unfinished messages, the oldest first. While it
// is empty it costs nothing, but for a timer that may still have to come due.
type unfinishedList struct {
	engine *Engine

	mu             sync.Mutex // guards the rest, and nothing is called under it
	oldest, newest *Unfinished
	byConn         map[*Conn]*Unfinished // linked by sibling
	armed          bool
}

func (l *unfinishedList) add(u *Unfinished) {
	l.mu.Lock()
	defer l.mu.Unlock()
	u.listed = true
	if u.older = l.newest; u.older != nil {
		u.older.newer = u
	} else {
		l.oldest = u
	}
	l.newest = u
	if u.conn == nil {
		return
	}
	if l.byConn == nil {
		l.byConn = make(map[*Conn]*Unfinished)
	}
	u.sibling, l.byConn[u.conn] = l.byConn[u.conn], u
	if u.timed {
		l.arm(l.engine.limits.MessageTimeout)
	}
}

// arm sees to it that expire is called after d. l.mu is held.
func (l *unfinishedList) arm(d time.Duration) {
	if !l.armed && d > 0 {
		l.armed = true
		l.engine.clock.AfterFunc(d, l.expire)
	}
}

// hold changes what u takes and reports whether all are over their bound now.
func (l *unfinishedList) hold(u *Unfinished, n int64) (over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !u.listed { // its wire is closed already
		return false
	}
	total := l.engine.counters.unfinished.Add(n - u.bytes.Swap(n))
	return total > int64(l.engine.limits.TotalUnfinishedBytes)
}

func (l *unfinishedList) remove(u *Unfinished) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unlink(u)
}

// latestWire is no less than the number of any wire.
const latestWire = WireID(math.MaxUint32)

// forget removes those of c's that came by wires up to the given one, which are
// closed. The one after it may be read by now.
func (l *unfinishedList) forget(c *Conn, upTo WireID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for u := l.byConn[c]; u != nil; {
		next := u.sibling
		if u.wire <= upTo {
			l.unlink(u)
		}
		u = next
	}
}

// unlink takes u out of the list, if it is in it. l.mu is held.
func (l *unfinishedList) unlink(u *Unfinished) {
	if !u.listed {
		return
	}
	u.listed = false
	l.engine.counters.unfinished.Add(-u.bytes.Swap(0))
	if u.older != nil {
		u.older.newer = u.newer
	} else {
		l.oldest = u.newer
	}
	if u.newer != nil {
		u.newer.older = u.older
	} else {
		l.newest = u.older
	}
	u.older, u.newer = nil, nil
	if u.conn == nil {
		return
	}
	first := l.byConn[u.conn]
	for at := &first; *at != nil; at = &(*at).sibling {
		if *at == u {
			*at = u.sibling
			break
		}
	}
	if u.sibling = nil; first != nil {
		l.byConn[u.conn] = first
	} else if delete(l.byConn, u.conn); len(l.byConn) == 0 {
		l.byConn = nil
	}
}

// expire ends the connections whose messages have taken too long.
func (l *unfinishedList) expire() {
	limit := l.engine.limits.MessageTimeout
	now := l.engine.clock.Now()
	var late []*Unfinished
	l.mu.Lock()
	l.armed = false
	for u := l.oldest; u != nil; u = u.newer {
		if !u.timed || u.ended {
			continue
		}
		if left := u.began.Add(limit).Sub(now); left > 0 {
			l.arm(left)
			break
		}
		u.ended = true
		late = append(late, u)
	}
	l.mu.Unlock()
	for _, u := range late {
		u.conn.EndOn(u.wire, EndMessageTimeout, ClosePolicy, "",
			fmt.Sprintf("The message was not complete within %s [limits.messageTimeout].", limit))
	}
}

// relieveUnfinished ends the connections with the largest unfinished messages
// until those of the others are within the bound together. What an ending
// connection keeps counts no more, unless that becomes as much again: then it is
// not given the time to close.
func (e *Engine) relieveUnfinished() {
	limit := int64(e.limits.TotalUnfinishedBytes)
	for e.counters.unfinished.Load() > limit {
		u, politely := e.largestUnfinished(limit)
		if u == nil {
			return
		}
		text := fmt.Sprintf("Unfinished messages have over %d bytes, this one the most [limits.totalUnfinishedBytes].", limit)
		switch {
		case u.conn == nil:
			u.cut(text)
		case politely:
			u.conn.EndOn(u.wire, EndUnfinished, ClosePolicy, "", text)
		default:
			u.conn.over(EndUnfinished, CloseAbnormal, text)
			u.conn.shard.post(entry{op: opAbort, conn: u.conn})
			u.list.remove(u)
		}
	}
}

// largestUnfinished picks the message whose connection is to end next, and says
// whether that has the time for it; nil if those that are ending already will bring
// the total within limit.
func (e *Engine) largestUnfinished(limit int64) (u *Unfinished, politely bool) {
	var total int64
	var next, ending *Unfinished // the largest of each
	larger := func(u, than *Unfinished) bool { return than == nil || u.bytes.Load() > than.bytes.Load() }
	left := int64(0) // of those that are not ending
	for _, s := range e.shards {
		l := &s.unfinished
		l.mu.Lock()
		for u := l.oldest; u != nil; u = u.newer {
			total += u.bytes.Load()
			switch {
			case !u.ended && (u.conn == nil || !u.conn.ending.Load()):
				left += u.bytes.Load()
				if larger(u, next) {
					next = u
				}
			case u.conn != nil && larger(u, ending):
				ending = u
			}
		}
		l.mu.Unlock()
	}
	switch {
	case left > limit:
		next.list.mu.Lock()
		next.ended = true
		next.list.mu.Unlock()
		return next, true
	case total > 2*limit:
		return ending, false
	}
	return nil, false
}
