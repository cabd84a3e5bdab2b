package engine

import "time"

// window bounds the deliveries that the far end of a connection has not
// acknowledged. A delivery that counts takes a place in it and gives that back by
// [Conn.Acknowledge]; one that finds no place waits. A delivery that does not count
// never waits for the window, only for the sink. Owned by the shard.
type window struct {
	size    int                      // places there are
	room    int                      // free places; negative if earlier deliveries hold more than there are
	counted func(*Message, any) bool // nil: everything that can be numbered
	waiting backlog                  // deliveries without a place, in order
	// placed is how many of the counted deliveries in the connection's lag have a
	// place: the sink refused them after they had been given one. They are older
	// than those in waiting, which are older than the rest of the lag.
	placed int
}

// newWindow returns the window that o asks for, nil for none.
func (o *OpenOptions) newWindow() *window {
	if o.Window <= 0 && o.Counted == nil {
		return nil
	}
	return &window{size: o.places(), room: o.places() - o.UnderWay, counted: o.Counted}
}

// reset makes w that of a new wire. What waited has been taken out before.
func (w *window) reset(o *opening) {
	w.size, w.room, w.placed = o.window, o.window-o.underWay, 0
}

// counts reports whether a delivery takes a place in c's window, if it has one,
// and a number, if it has those.
func (c *Conn) counts(m *Message, member *membership) bool {
	if !m.Kind.Numbered() {
		return false
	}
	return c.window == nil || c.window.counted == nil || c.window.counted(m, member.opaque())
}

// hold puts o behind the deliveries that wait, unless o may be written: if it does
// not count, or gets a place. It reports whether o waits.
func (c *Conn) hold(o owed) bool {
	w := c.window
	if !c.counts(o.message, o.member) {
		return false
	}
	if w.room <= 0 || w.waiting.len() > 0 {
		w.waiting.push(o)
		return true
	}
	w.room--
	return false
}

// waiting returns how many deliveries wait for c's window.
func (c *Conn) waiting() int {
	if c.window == nil {
		return 0
	}
	return c.window.waiting.len()
}

// released reports whether a delivery that waited for c's window can have a place.
func (c *Conn) released() bool {
	return c.window != nil && c.window.room > 0 && c.window.waiting.len() > 0
}

// nextOwed takes the next message that may be written off what c owes, and gives it
// a place in the window where it needs one. Messages that cannot have a place move
// to the window's own queue; those that have expired are dropped.
func (c *Conn) nextOwed(now time.Time) (owed, bool) {
	l, w := c.lag, c.window
	for l.len() > 0 {
		o := l.first()
		expired := o.seq == 0 && o.message.expired(now)
		counted := w != nil && c.counts(o.message, o.member)
		switch {
		case counted && w.placed > 0:
			l.pop()
			if w.placed--; expired {
				w.room++
				continue
			}
			return o, true
		case expired:
			l.pop()
		case !counted:
			return l.pop(), true
		case w.room <= 0:
			w.waiting.push(l.pop())
		case w.waiting.len() > 0:
			if o, ok := w.admit(now); ok {
				return o, true
			}
		default:
			w.room--
			return l.pop(), true
		}
	}
	if w == nil {
		return owed{}, false
	}
	return w.admit(now)
}

// admit gives the oldest delivery that waits a place, if there is one.
func (w *window) admit(now time.Time) (owed, bool) {
	for w.room > 0 && w.waiting.len() > 0 {
		if o := w.waiting.pop(); o.seq != 0 || !o.message.expired(now) {
			w.room--
			return o, true
		}
	}
	return owed{}, false
}

// acknowledge gives back n places, though never more than there are: a far end that
// acknowledges what it was not sent opens nothing.
func (w *window) acknowledge(n int) { w.room = min(w.room+n, w.size) }

// outstanding takes all that c owes, in the order in which it is to be sent, out of
// its lag and its window.
func (c *Conn) outstanding() []owed {
	var all []owed
	if l := c.lag; l != nil {
		all = l.rest()
	}
	w := c.window
	if w == nil {
		return all
	}
	waiting, at := w.waiting.rest(), 0
	for ; len(waiting) > 0 && at < len(all); at++ {
		if !c.counts(all[at].message, all[at].member) {
			continue
		}
		if w.placed == 0 {
			break
		}
		w.placed--
	}
	if len(waiting) > 0 {
		all = append(append(append([]owed(nil), all[:at]...), waiting...), all[at:]...)
	}
	w.waiting, w.placed = backlog{}, 0
	return all
}

// dropWaiting drops what waits for the window of a connection that is over.
func (s *shard) dropWaiting(c *Conn) {
	if n := c.waiting(); n > 0 {
		s.dropped.Add(int64(n))
		c.window.waiting = backlog{}
		s.reckon(c)
		s.balanced(c)
	}
}
