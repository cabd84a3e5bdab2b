package transport

import (
	"fmt"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// ControlRate counts what a client sends that carries no data: pings, empty
// fragments, acknowledgements of nothing new. Its zero value is ready to use. It is
// for the one goroutine that reads the client's wire.
//
// A client may send as many a second as [engine.Limits].ControlRate says, and twice
// that at once. One that sends more is not read for a second; one that has to be
// stopped again after maxControlPauses pauses, without having made up for all in
// between, is closed. Each ping within that is answered: RFC 6455 section 5.5.3 lets
// a server answer the last of several alone, but there are clients that wait for all.
type ControlRate struct {
	// state is when what was counted is made up for, in microseconds of Unix time,
	// and in its low byte how often the client was stopped since it last had been, and
	// whether once was called: every connection has one of these.
	state uint64
}

// The low byte of ControlRate.state.
const (
	pausesMask = 0x7f
	onceFlag   = 0x80
)

// once reports whether this is its first call. [Session] has no room for a flag of its
// own.
func (r *ControlRate) once() bool {
	first := r.state&onceFlag == 0
	r.state |= onceFlag
	return first
}

// Bounds of what is done about a client that is ahead.
const (
	maxControlPauses = 5
	// maxControlPause is short enough for a client to be heard between two pings of
	// the server's, so that it is not taken for one that is gone.
	maxControlPause = time.Second
)

// Count notes n frames or messages. more says that reading goes on. If not, w is
// resumed in time, or reason says why the connection is to be closed.
func (r *ControlRate) Count(c *engine.Conn, w Wire, n int) (more bool, reason string) {
	e := c.Hub().Engine()
	rate := e.Limits().ControlRate
	ahead := r.add(e.Clock().Now(), time.Duration(n)*time.Second/time.Duration(rate))
	if ahead <= 2*time.Second {
		return true, ""
	}
	if r.state++; r.state&pausesMask > maxControlPauses {
		return false, fmt.Sprintf("The client sends more than %d pings, empty frames and the like a second [limits.controlRate].", rate)
	}
	e.Clock().AfterFunc(min(ahead-time.Second, maxControlPause), w.Resume)
	return false, ""
}

// add counts what takes the given time to make up for, and returns how far the
// client is ahead of its rate.
func (r *ControlRate) add(now time.Time, takes time.Duration) (ahead time.Duration) {
	at := uint64(now.UnixMicro())
	even, pauses := r.state>>8, r.state&pausesMask
	if even <= at {
		even, pauses = at, 0
	}
	even += uint64(takes.Microseconds())
	r.state = even<<8 | r.state&onceFlag | pauses
	return time.Duration(even-at) * time.Microsecond
}
