package main

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of a meter, in bytes.
const (
	// meterBurst has room for what a client may send before its first request is
	// authorized: HTTP/2's flow control lets 1 MiB of bodies come.
	meterBurst = 2 << 20
	// meterLast is for what is under way on a connection that was told to end.
	meterLast = 32 << 10
	// meterRate is what a trusted connection gets back in a second.
	meterRate = 64 << 10
	// meterRequest is for the headers of one request.
	meterRequest = 8 << 10
	// meterAnswers is which part of what is written may come back as acknowledgements,
	// which are WINDOW_UPDATE frames.
	meterAnswers = 8
)

// meter is a connection, below TLS, that bounds what comes in beside requests and their
// bodies. HTTP/2 has many frames that make a server work and belong to no request: PING,
// SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM. net/http bounds the answers that wait
// to be written, but neither the number of such frames nor their rate, and does not show
// them. So all bytes are counted, and those that had a purpose are given back.
//
// A connection that is not trusted gets nothing back: it has meterBurst in all. Once its
// last response is being written it is not read beyond meterLast, but stays open until
// net/http closes it: closing it here could overtake the response.
type meter struct {
	net.Conn
	exceeded func()

	left    atomic.Int64
	state   atomic.Int32
	checked time.Time // when left was last filled up; of the reading goroutine alone

	mu     sync.Mutex // guards the rest, and that trust and finish are one step each
	closed bool
	paused chan struct{} // closed when reading may go on; nil unless it is paused
}

// The states of a meter.
const (
	meterUntrusted int32 = iota
	meterEnding          // untrusted, and the last response is being written
	meterTrusted
	meterStopped
)

// newMeter returns a meter over c. exceeded is called, by the goroutine that reads, when
// too much has come.
func newMeter(c net.Conn, exceeded func()) *meter {
	m := &meter{Conn: c, exceeded: exceeded, checked: time.Now()}
	m.left.Store(meterBurst)
	return m
}

var errExceeded = errors.New("fanfare: the connection sent more than its requests needed")

// Read implements net.Conn.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	if m.state.Load() == meterStopped || m.left.Add(-int64(n)) >= 0 {
		return n, err
	}
	switch m.state.Load() {
	case meterEnding:
		return m.pause(n, err)
	case meterTrusted:
		now := time.Now()
		m.give(now.Sub(m.checked).Milliseconds() * meterRate / 1000)
		m.checked = now
		if m.left.Load() >= 0 {
			return n, err
		}
	}
	m.exceeded()
	return 0, errExceeded
}

// Write implements net.Conn.
func (m *meter) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	if m.state.Load() == meterTrusted {
		m.give(int64(n / meterAnswers))
	}
	return n, err
}

// give gives back n bytes, which had a purpose.
func (m *meter) give(n int64) {
	if left := m.left.Add(n); left > meterBurst {
		m.left.Add(meterBurst - left) // approximately, if others give at this moment
	}
}

// request gives back what a request's headers, or n bytes of its body, took.
func (m *meter) request(n int) {
	if m.state.Load() == meterTrusted {
		m.give(int64(n))
	}
}

// trust begins to give back.
func (m *meter) trust() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.CompareAndSwap(meterUntrusted, meterTrusted) || m.state.CompareAndSwap(meterEnding, meterTrusted) {
		m.left.Store(meterBurst)
		m.resume()
	}
}

// finish leaves an untrusted connection, which has been told to end, room for what is
// under way.
func (m *meter) finish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.CompareAndSwap(meterUntrusted, meterEnding) && m.left.Load() > meterLast {
		m.left.Store(meterLast)
	}
}

// pause returns what Read is to return, once the connection is trusted or closed.
func (m *meter) pause(n int, err error) (int, error) {
	m.mu.Lock()
	var paused chan struct{}
	if !m.closed && m.state.Load() == meterEnding {
		paused = make(chan struct{})
		m.paused = paused
	}
	m.mu.Unlock()
	if paused != nil {
		<-paused
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, net.ErrClosed
	}
	return n, err
}

// resume ends a pause. The caller holds m.mu.
func (m *meter) resume() {
	if m.paused != nil {
		close(m.paused)
		m.paused = nil
	}
}

// Close implements net.Conn.
func (m *meter) Close() error {
	m.mu.Lock()
	m.closed = true
	m.resume()
	m.mu.Unlock()
	return m.Conn.Close()
}

// stop ends the metering: the connection is not HTTP/2, or is over.
func (m *meter) stop() { m.state.Store(meterStopped) }
