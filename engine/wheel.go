package engine

import (
	"fmt"
	"time"
)

// wheel is a shard's one timer: connections that wait for a time stand in slots,
// and idle ones cost an entry, not a timer. Owned by the shard.
type wheel struct {
	slots [wheelSlots][]timer
	now   uint32 // the tick that was handled last
	start time.Time
	count int
	armed bool
	due   []timer
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
	kind timerKind
}

func (w *wheel) init(now time.Time) { w.start = now }

// tickOf has room for six years.
func (w *wheel) tickOf(t time.Time) uint32 { return uint32(t.Sub(w.start) / wheelTick) }

// add lets kind come due for c at or after t, never early.
func (w *wheel) add(c *Conn, kind timerKind, t time.Time) {
	at := max(w.tickOf(t)+1, w.now+1)
	slot := &w.slots[at%wheelSlots]
	if len(*slot) == cap(*slot) { // append would double it
		*slot = append(make([]timer, 0, cap(*slot)+cap(*slot)/4+2), *slot...)
	}
	*slot = append(*slot, timer{c, at, kind})
	w.count++
	c.timers[kind] = at
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
	slot := w.slots[at%wheelSlots]
	for i, tm := range slot {
		if tm.conn == c && tm.at == at && tm.kind == kind {
			last := len(slot) - 1
			slot[i] = slot[last]
			slot[last] = timer{}
			if slot = slot[:last]; last == 0 {
				slot = nil
			}
			w.slots[at%wheelSlots] = slot
			w.count--
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
		keep := (*slot)[:0]
		for _, tm := range *slot {
			if tm.at <= to {
				w.due = append(w.due, tm)
			} else {
				keep = append(keep, tm)
			}
		}
		clear((*slot)[len(keep):])
		if *slot = keep; len(keep) == 0 && cap(keep) > 64 {
			*slot = nil
		}
	}
	w.now = max(w.now, to)
	w.count -= len(w.due)
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
		c := tm.conn
		if c.timers[tm.kind] != tm.at {
			continue // cancelled by what another timer of this tick did
		}
		c.timers[tm.kind] = 0
		switch {
		case c.state == connDead:
		case tm.kind == timerTask:
			s.task(c)
		case tm.kind == timerState:
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
	s.wheel.add(c, timerKeepAlive, now.Add(c.pings))
}

var wirePing = &Message{Kind: KindWirePing}
