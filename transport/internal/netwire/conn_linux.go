package netwire

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var _ net.Conn = (*conn)(nil)

// conn is a TCP connection that one of our pollers watches instead of the runtime's.
// An HTTP server can use it like any other. [Group.NewAfter] makes a [Descriptor] of it
// without a second descriptor for the socket, and without registering it again.
//
// It is registered with the poller when something first waits for it, so that one whose
// request is there by the time it is read costs no more system calls than it must.
//
// Lock order: poller.mu, conn.mu.
type conn struct {
	listener *listener
	poller   *poller
	remote   net.TCPAddr
	ip       [16]byte // of remote

	writing sync.Mutex // held by Write, so that what one call writes stays in one piece

	mu     sync.Mutex // guards the rest; held across one non-blocking system call
	fd     int32      // -1 once closed, or handed to a Descriptor
	slot   int32      // in the poller; -1 if it is not registered
	ended  bool       // the far end has closed its side, or the connection is broken
	in     side
	out    side
	polled uint32 // the epoll events it is registered for
}

// side is reading or writing.
type side struct {
	ready    bool // the next system call may do something: false after one that did all there was
	deadline time.Time
	waiting  int // calls that wait for the side to become ready
	changed  sync.Cond
	timer    *time.Timer // set while one of them has a deadline
}

func newConn(l *listener, p *poller, fd int32) *conn {
	c := &conn{listener: l, poller: p, fd: fd, slot: -1}
	c.in.ready, c.out.ready = true, true
	c.in.changed.L, c.out.changed.L = &c.mu, &c.mu
	return c
}

// wait returns once s may be ready. c.mu is held, and let go in between.
func (c *conn) wait(s *side, events uint32) error {
	for {
		switch {
		case c.fd < 0:
			return net.ErrClosed
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return os.ErrDeadlineExceeded
		case s.ready:
			return nil
		case c.polled&events != events:
			c.mu.Unlock()
			err := c.poller.watch(c, events)
			c.mu.Lock()
			if err != nil {
				return err
			}
			continue // it may have been closed
		}
		c.block(s)
	}
}

// block waits for a change of s, at most until its deadline.
func (c *conn) block(s *side) {
	if !s.deadline.IsZero() {
		left := time.Until(s.deadline)
		if s.timer == nil {
			s.timer = time.AfterFunc(left, func() {
				c.mu.Lock()
				s.changed.Broadcast()
				c.mu.Unlock()
			})
		} else {
			s.timer.Reset(left)
		}
	}
	s.waiting++
	s.changed.Wait()
	s.waiting--
	if s.waiting == 0 && s.timer != nil {
		s.timer.Stop()
	}
}

// event notes what the kernel says. The poller's mutex is held.
func (c *conn) event(events uint32) {
	const end = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	c.mu.Lock()
	defer c.mu.Unlock()
	if events&end != 0 {
		c.ended = true
	}
	if events&(unix.EPOLLIN|end) != 0 {
		c.in.ready = true
		c.in.changed.Broadcast()
	}
	if events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.out.ready = true
		c.out.changed.Broadcast()
	}
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	p = p[:min(len(p), maxQuick)]
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if err := c.wait(&c.in, unix.EPOLLIN|unix.EPOLLRDHUP); err != nil {
			return 0, c.failed("read", err)
		}
		n, err := read(c.fd, p)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			c.in.ready = false
		case err != nil:
			return 0, c.failed("read", os.NewSyscallError("read", err))
		case n == 0:
			return 0, io.EOF
		default:
			// A read that leaves room has emptied the socket: what comes later is
			// another event. But the end may have come together with these bytes.
			c.in.ready = n == len(p) || c.ended
			return n, nil
		}
	}
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	done := 0
	for {
		if err := c.wait(&c.out, unix.EPOLLOUT); err != nil {
			return done, c.failed("write", err)
		}
		if done == len(p) {
			return done, nil
		}
		n, err := write(c.fd, p[done:min(len(p), done+maxQuick)])
		switch {
		case n > 0:
			done += n
			if done == len(p) {
				return done, nil
			}
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			c.out.ready = false
		default:
			return done, c.failed("write", os.NewSyscallError("write", err))
		}
	}
}

// failed returns err as one of a connection's, as package net does. Deadlines end every
// pending read of a server, so that these are spared it.
func (c *conn) failed(op string, err error) error {
	if err == os.ErrDeadlineExceeded {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.listener.addr, Addr: &c.remote, Err: err}
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	fd, slot := c.let()
	if fd < 0 {
		return c.failed("close", net.ErrClosed)
	}
	closeSocket(fd)
	if slot >= 0 {
		c.poller.release(slot)
	}
	return nil
}

// let takes the descriptor away, and ends what waits for it. No system call of the
// connection is under way then.
func (c *conn) let() (fd, slot int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd, slot = c.fd, c.slot
	c.fd, c.slot = -1, -1
	c.in.changed.Broadcast()
	c.out.changed.Broadcast()
	return fd, slot
}

// CloseWrite shuts the writing side down.
func (c *conn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return c.failed("close", net.ErrClosed)
	}
	if err := unix.Shutdown(int(c.fd), unix.SHUT_WR); err != nil {
		return c.failed("close", os.NewSyscallError("shutdown", err))
	}
	return nil
}

// RemoteAddr implements [net.Conn]. It is the first that an HTTP server calls on the
// goroutine of a new connection, so it makes room on the stack for a request: to grow
// it once, with one frame to copy, costs a fraction of growing it twice in the depth of
// a handler (4 of 130 µs for a client that comes and goes; bench, scenario churn).
func (c *conn) RemoteAddr() net.Addr {
	growStack(0)
	return &c.remote
}

// stackRoom is what a WebSocket handshake needs of stack, roughly.
const stackRoom = 5 << 10

// growStack makes the runtime give the calling goroutine stackRoom bytes more of stack,
// if it does not have them.
//
//go:noinline
func growStack(i int) byte {
	var room [stackRoom]byte
	return room[i]
}

// LocalAddr implements [net.Conn].
func (c *conn) LocalAddr() net.Addr {
	if !c.listener.addr.IP.IsUnspecified() {
		return c.listener.addr
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		if sa, err := unix.Getsockname(int(c.fd)); err == nil {
			switch sa := sa.(type) {
			case *unix.SockaddrInet4:
				return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}
			case *unix.SockaddrInet6:
				return &net.TCPAddr{IP: sa.Addr[:], Port: sa.Port, Zone: zone(sa.ZoneId)}
			}
		}
	}
	return c.listener.addr
}

// SetDeadline implements [net.Conn].
func (c *conn) SetDeadline(t time.Time) error { return c.setDeadline(t, &c.in, &c.out) }

// SetReadDeadline implements [net.Conn].
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, &c.in) }

// SetWriteDeadline implements [net.Conn].
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, &c.out) }

func (c *conn) setDeadline(t time.Time, sides ...*side) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return c.failed("set", net.ErrClosed)
	}
	for _, s := range sides {
		s.deadline = t
		if s.waiting > 0 {
			s.changed.Broadcast()
		}
	}
	return nil
}
