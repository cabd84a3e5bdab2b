package websocket

import (
	"net"
	"sync"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// partialOverhead is what a message that is not complete takes beside its bytes.
const partialOverhead = 256

// size is how much memory p takes.
func (p *partial) size() int { return partialOverhead + cap(p.data) + cap(p.ctl) }

// track tells the engine what the reader keeps of a message that is not complete;
// before is what it kept before this turn. A client whose connection is over is
// still read, for its close frame, but nothing else of it is kept.
func (c *client) track(before *partial) {
	p := c.reader.part
	if before != nil && before != p && before.held != nil {
		before.held.Done()
	}
	if p == nil {
		return
	}
	if c.session.Over() {
		c.reader.mute = true
		p.data, p.valid = nil, 0
	} else if p.held == nil {
		p.held = c.session.Unfinished()
	}
	if p.held != nil {
		p.held.Hold(p.size())
	}
}

// guestHold tells the engine what a client has sent that has no connection yet: all
// of it may be kept, as a part of its first message.
type guestHold struct {
	held  *engine.Unfinished
	bytes int

	mu     sync.Mutex // guards the rest
	conn   net.Conn   // nil once the client is settled
	reason string     // why the client is to be refused
}

func newGuestHold(g *Guest) *guestHold {
	h := &guestHold{conn: g.conn}
	h.held = g.knock.h.engine.Unfinished(h.cut)
	return h
}

// cut makes the client's goroutine, which waits for more, refuse it.
func (h *guestHold) cut(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil {
		h.reason = reason
		h.conn.SetReadDeadline(time.Unix(1, 0)) // then it is closed, which ends the wait as well
	}
}

// add notes that n more bytes were read and returns why the client is to be
// refused; empty if it is not.
func (h *guestHold) add(n int) (reason string) {
	h.bytes += n
	h.held.Hold(partialOverhead + h.bytes)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reason
}

// done ends the account: the client is refused, or has a connection.
func (h *guestHold) done() {
	h.mu.Lock()
	h.conn = nil
	h.mu.Unlock()
	h.held.Done()
}
