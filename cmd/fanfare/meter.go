package main

import (
	"errors"
	"net"
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
// A connection that is not trusted gets nothing back: it has meterBurst in all.
type meter struct {
	net.Conn
	exceeded func()

	left    atomic.Int64
	state   atomic.Int32
	checked time.Time // when left was last filled up; of the reading goroutine alone
}

// The states of a meter.
const (
	meterUntrusted int32 = iota
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
	state := m.state.Load()
	if state == meterStopped {
		return n, err
	}
	if m.left.Add(-int64(n)) >= 0 {
		return n, err
	}
	if state == meterTrusted {
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
	if m.state.CompareAndSwap(meterUntrusted, meterTrusted) {
		m.left.Store(meterBurst)
	}
}

// finish leaves an untrusted connection, which has been told to end, room for what is
// under way.
func (m *meter) finish() {
	if m.state.Load() == meterUntrusted && m.left.Load() > meterLast {
		m.left.Store(meterLast)
	}
}

// stop ends the metering: the connection is not HTTP/2.
func (m *meter) stop() { m.state.Store(meterStopped) }
