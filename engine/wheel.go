package engine

import (
	"fmt"
	"time"
)

// wheel is a shard's one timer: connections that wait for a time stand in slots,
// and idle ones cost an entry, not a timer. Owned by the shard.
//
// The entries of all slots lie in one piece of memory, linked, so that an entry that
// moves to another slot allocates nothing.
type wheel struct {
	slots  [wheelSlots]uint32 // 1 + the first entry; 0 for none
	timers []timer
	free   uint32 // likewise, of those that are not in use
	now    uint32 // the tick that was handled last
	start  time.Time
	count  int
	armed  bool
	due    []timer
}

const (
	wheelSlots = 512
	wheelTick  = 50 * time.Millisecond
)

type timerKind uint8

const (
	timerKeepAlive timerKind = iota
	timerState               // a polite end, or the wait for another wire, has taken long enough
	timerTask                // streams may be idle, or a last message due

	timerKinds = 3
)

type timer struct {
	conn *Conn
	at   uint32 // tick
	link uint32 // 1 + the next entry of the slot, 0 for none; times 4, plus the kind
}

func (t *timer) kind() timerKind { return timerKind(t.link & 3) }
func (t *timer) next() uint32    { return t.link >> 2 }

func (w *wheel) init(now time.Time) { w.start = now }

// tickOf has room for six years.
func (w *wheel) tickOf(t time.Time) uint32 { return uint32(t.Sub(w.start) / wheelTick) }

// add lets kind come due for c at or after t, never early.
func (w *wheel) add(c *Conn, kind timerKind, t time.Time) {
	at := max(w.tickOf(t)+1, w.now+1)
	i := w.free
	if i != 0 {
		w.free = w.timers[i-1].next()
	} else {
		if n := len(w.timers); n == cap(w.timers) { // append would double it
			w.timers = append(make([]timer, 0, n+n/8+8), w.timers...)
		}
		w.timers = append(w.timers, timer{})
		i = uint32(len(w.timers))
	}
	slot := &w.slots[at%wheelSlots]
	w.timers[i-1] = timer{c, at, *slot<<2 | uint32(kind)}
	*slot = i
	w.count++
	c.timers[kind] = at
}

// take takes entry i out of the slot, where it follows entry before; 0 for none.
func (w *wheel) take(slot *uint32, before, i uint32) {
	next := w.timers[i-1].next()
	if before == 0 {
		*slot = next
	} else {
		b := &w.timers[before-1]
		b.link = next<<2 | uint32(b.kind())
	}
	w.timers[i-1] = timer{link: w.free << 2}
	w.free = i
	if w.count--; w.count == 0 {
		w.timers, w.free = nil, 0
	}
}

// remove takes c off the wheel, so that it need not be kept until it is due.
func (w *wheel) remove(c *Conn) {
	for kind := range timerKind(timerKinds) {
		w.cancel(c, kind)
	}
}

// cancel takes one of c's timers off the wheel, if it is on it.
func (w *wheel) cancel(c *Conn, kind timerKind) {
	at := c.timers[kind]
	c.timers[kind] = 0
	if at == 0 {
		return
	}
	slot := &w.slots[at%wheelSlots]
	for before, i := uint32(0), *slot; i != 0; before, i = i, w.timers[i-1].next() {
		if tm := &w.timers[i-1]; tm.conn == c && tm.at == at && tm.kind() == kind {
			w.take(slot, before, i)
			return
		}
	}
}

// advance returns the timers that are due at t. The slice is valid until the
// next call.
func (w *wheel) advance(t time.Time) []timer {
	to := w.tickOf(t)
	w.due = w.due[:0]
	from := w.now + 1
	if to >= from+wheelSlots { // the clock jumped: every slot once is enough
		from = to - wheelSlots + 1
	}
	for tick := from; tick <= to; tick++ {
		slot := &w.slots[tick%wheelSlots]
		for before, i := uint32(0), *slot; i != 0; {
			tm := w.timers[i-1]
			if tm.at <= to {
				w.due = append(w.due, tm)
				w.take(slot, before, i)
			} else {
				before = i
			}
			i = tm.next()
		}
	}
	w.now = max(w.now, to)
	return w.due
}

// armTick sees to it that the wheel turns while anything waits on it.
func (s *shard) armTick() {
	if s.wheel.count == 0 || s.wheel.armed {
		return
	}
	s.wheel.armed = true
	s.engine.clock.AfterFunc(wheelTick, func() { s.post(entry{op: opTick}) })
}

func (s *shard) tick() {
	s.wheel.armed = false
	now := s.engine.clock.Now()
	for _, tm := range s.wheel.advance(now) {
		c, kind := tm.conn, tm.kind()
		if c.timers[kind] != tm.at {
			continue // cancelled by what another timer of this tick did
		}
		c.timers[kind] = 0
		switch {
		case c.state == connDead:
		case kind == timerTask:
			s.task(c)
		case kind == timerState:
			if c.state == connDetached {
				c.over(EndLost, CloseAbnormal, fmt.Sprintf(
					"The client did not come back within %s after its connection was lost.", time.Duration(c.durable.recovery.Load())))
			}
			s.drop(c)
		case c.state == connOpen:
			s.keepAlive(c, now)
		}
	}
	clear(s.wheel.due)
}

// A wire without a sign of life is lost after so many intervals in a row: of pings,
// or of looks at one that is not pinged.
const (
	silentPings = 2
	silentLooks = 6
)

// keepAlive pings c, or gives its wire up if it was silent for too long.
func (s *shard) keepAlive(c *Conn, now time.Time) {
	most, text := uint8(silentPings), "The client did not answer pings."
	if c.mute {
		most, text = silentLooks, "The client was silent for longer than it said it would be."
	}
	if c.heard.Swap(false) || c.paused() { // a paused client is not listened to
		c.missed = 0
	} else if c.missed++; c.missed >= most {
		s.lose(c, EndPingTimeout, text)
		return
	}
	if c.lag == nil && !c.mute {
		s.solo(c, wirePing)
	}
	s.wheel.add(c, timerKeepAlive, now.Add(c.pings.duration()))
}

var wirePing = &Message{Kind: KindWirePing}
