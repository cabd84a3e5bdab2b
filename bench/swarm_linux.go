package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// swarm is many connections of the load generator, on bare descriptors that a
// few goroutines read with epoll: it must cost little beside the server, with
// which it shares the machine.
type swarm struct {
	// Fixed once the connections stand.
	conns   []*conn
	readers []*reader
	size    int // of a payload

	failure atomic.Pointer[error]
	failed  chan struct{} // closed by the first failure
	wake    chan struct{} // holds one value when a message is complete

	// left counts, for the messages under way, the deliveries and acks that are
	// missing; messages share it by their number's low bits.
	left      [ring]atomic.Int32
	completed atomic.Uint64
}

// ring bounds the messages under way.
const ring = 1 << 16

// conn is one connection.
type conn struct {
	// Fixed once it stands.
	fd       int
	index    int
	swarm    *swarm
	reliable bool // deliveries have sequence ids

	// Owned by its reader, and by the goroutine that made it until then.
	partial []byte   // the beginning of a frame
	next    []uint32 // per stream, the sequence number to come; absent where it must get nothing
	acks    uint64   // received
	lastAck uint64
	ended   bool    // by the server
	nats    *[]byte // the beginning of what a NATS server says next; nil for other servers
	seq     uint64  // the last sequence id; where there are none, 0

	// Owned by the publishing goroutine.
	out []byte
}

// errEnded is a connection that the server ended, as it does with a reader that
// is too slow for its bounds: that is no gap, but no figure either.
var errEnded = errors.New("the server ended a connection")

var errClosedByServer = errors.New("the server closed the connection")

// absent marks a stream that a connection must not get anything of.
const absent = ^uint32(0)

// target is what a swarm connects to.
type target struct {
	addr netip.AddrPort
	// path is the request target of connection i, its token included; nil for a
	// server that speaks no WebSocket (the bare loop).
	path func(i int) string
	// groups are joined by connection i.
	groups func(i int) []string
	// protocol is the subprotocol; empty for plainJSON.
	protocol string
	// nats says that the server is a nats-server; path is not used then.
	nats bool
	// closes says that the server answers the first join by closing the connection.
	closes bool
	// recvBuf, if not 0, is the size of the socket's receive buffer.
	recvBuf int
}

// dialers is how many connections are made at once.
const dialers = 16

// newSwarm makes n connections, joined to their groups. Nothing is read from
// them until start.
func newSwarm(ctx context.Context, n, payload int, t target) (*swarm, error) {
	s := &swarm{size: payload, failed: make(chan struct{}), wake: make(chan struct{}, 1)}
	s.conns = make([]*conn, n)
	g, ctx := errgroup.WithContext(ctx)
	var turn atomic.Int64
	for range min(dialers, n) {
		g.Go(func() error {
			for {
				i := int(turn.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return ctx.Err()
				}
				c, err := dial(i, t)
				if err != nil {
					return fmt.Errorf("connection %d: %w", i, err)
				}
				c.swarm = s
				s.conns[i] = c
			}
		})
	}
	if err := g.Wait(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// epoch tells the runs of one process apart, so that each connects from
// addresses of its own and none waits for a port that still lingers.
var epoch atomic.Uint32

// dial makes one connection on a blocking descriptor.
func dial(i int, t target) (*conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	c := &conn{fd: fd, index: i}
	if err := c.connect(t); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return c, nil
}

func (c *conn) connect(t target) error {
	// All of 127/8 is this machine. One source address has some 28,000 ports.
	e := epoch.Load()
	source := &unix.SockaddrInet4{Addr: [4]byte{127, byte(1 + e>>8%200), byte(e), byte(1 + c.index/10_000)}}
	patience := &unix.Timeval{Sec: 30}
	for _, err := range []error{
		unix.SetsockoptInt(c.fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
		unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, patience),
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, patience),
		unix.Bind(c.fd, source),
	} {
		if err != nil {
			return fmt.Errorf("prepare the socket: %w", err)
		}
	}
	if t.recvBuf > 0 {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, t.recvBuf); err != nil {
			return fmt.Errorf("set the receive buffer: %w", err)
		}
	}
	if err := connect(c.fd, t.addr); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if t.nats {
		return c.natsHello(t.addr.String(), t.groups(c.index))
	}
	if t.path == nil {
		return nil
	}
	c.reliable = t.protocol == reliableJSON
	if err := c.upgrade(t.addr.String(), t.path(c.index)); err != nil {
		return err
	}
	if t.groups == nil {
		return nil
	}
	groups := t.groups(c.index)
	for i, g := range groups {
		c.queue(ws.OpText, fmt.Appendf(nil, `{"type":"joinGroup","group":%q,"ackId":%d}`, g, joinAck+i))
	}
	if err := c.flush(); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if t.closes {
		if err := c.fill(); err != errClosedByServer {
			return fmt.Errorf("wait for the server's end: %v", err)
		}
		return nil
	}
	for i := range groups {
		if err := c.await(uint64(joinAck + i)); err != nil {
			return fmt.Errorf("join %s: %w", groups[i], err)
		}
	}
	return nil
}

// connect waits until fd is connected. A connect that a signal interrupts goes
// on by itself, and cannot be called again.
func connect(fd int, to netip.AddrPort) error {
	err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	if err != unix.EINTR {
		return err
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if _, err := ignoringEINTR(func() (int, error) { return unix.Poll(poll, 20_000) }); err != nil {
		return err
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}

// joinAck is the first ack id of joins and leaves, far above those of publishes.
const joinAck = 1 << 40

// The subprotocols of a swarm, as flags and results name them.
const (
	plainJSON    = "json"
	reliableJSON = "json.reliable"
)

// upgrade asks for the connection's subprotocol and waits for the connected message.
func (c *conn) upgrade(host, path string) error {
	protocol := plainJSON
	if c.reliable {
		protocol = reliableJSON
	}
	if err := c.handshake(host, path, "Sec-WebSocket-Protocol: "+protocol+".webpubsub.azure.v1\r\n"); err != nil {
		return err
	}
	f, err := c.read()
	if err != nil {
		return fmt.Errorf("wait for the connected message: %w", err)
	}
	if f.op != ws.OpText || !bytes.Contains(f.body, []byte(`"connected"`)) {
		return fmt.Errorf("the first frame is %.80q, a connected message expected", f.body)
	}
	return nil
}

// handshake upgrades the connection to WebSocket. header is a line of its own or
// empty.
func (c *conn) handshake(host, path, header string) error {
	req := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" +
		header + "\r\n"
	if err := writeAll(c.fd, []byte(req)); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	for {
		if head, rest, ok := bytes.Cut(c.partial, []byte("\r\n\r\n")); ok {
			if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
				return fmt.Errorf("handshake: the server answered %.200q", c.partial)
			}
			c.partial = append(c.partial[:0], rest...)
			return nil
		}
		if len(c.partial) > maxFrame {
			return errors.New("handshake: the server's answer has no end")
		}
		if err := c.fill(); err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
	}
}

// fill reads more bytes, waiting for them.
func (c *conn) fill() error {
	var b [4096]byte
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(c.fd, b[:]) })
	if err != nil {
		return err
	}
	if n == 0 {
		return errClosedByServer
	}
	c.partial = append(c.partial, b[:n]...)
	return nil
}

// read waits for a frame. Its bytes are a copy.
func (c *conn) read() (frame, error) {
	for {
		f, rest, ok, bad := split(c.partial)
		if bad {
			return frame{}, fmt.Errorf("not a server's frame: %.40q", c.partial)
		}
		if !ok {
			if err := c.fill(); err != nil {
				return frame{}, err
			}
			continue
		}
		f.body = bytes.Clone(f.body)
		c.partial = append(c.partial[:0], rest...)
		if f.op == ws.OpPing {
			if err := writeAll(c.fd, appendMasked(nil, ws.OpPong, f.body)); err != nil {
				return frame{}, err
			}
			continue
		}
		return f, nil
	}
}

// await waits for the ack of id, which must be the next frame.
func (c *conn) await(id uint64) error {
	f, err := c.read()
	if err != nil {
		return err
	}
	if got, success, ok := ackOf(f.body); !ok || !success || got != id {
		return fmt.Errorf("%.200q is not the ack of %d", f.body, id)
	}
	return nil
}

// queue adds a frame to what flush will write.
func (c *conn) queue(op ws.OpCode, p []byte) { c.out = appendMasked(c.out, op, p) }

func (c *conn) flush() error {
	err := writeAll(c.fd, c.out)
	c.out = c.out[:0]
	return err
}

// writeAll writes p, waiting for room also on a descriptor that does not block.
func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := ignoringEINTR(func() (int, error) { return unix.Write(fd, p) })
		if err == unix.EAGAIN {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			if _, err := ignoringEINTR(func() (int, error) { return unix.Poll(poll, 20_000) }); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}

// expect prepares the connections for a run of the given number of streams:
// receives tells which of them a connection must get. It must be called before
// start.
func (s *swarm) expect(streams int, receives func(conn, stream int) bool) {
	for _, c := range s.conns {
		c.next = make([]uint32, streams)
		for i := range c.next {
			if !receives(c.index, i) {
				c.next[i] = absent
			}
		}
	}
}

// start lets n goroutines read the connections.
func (s *swarm) start(n int) error {
	for i := range n {
		r, err := newReader(s)
		if err != nil {
			return err
		}
		s.readers = append(s.readers, r)
		for j := i; j < len(s.conns); j += n {
			if err := r.add(s.conns[j]); err != nil {
				return err
			}
		}
	}
	for _, r := range s.readers {
		r.wg.Go(r.run)
	}
	return nil
}

// stopReading ends the readers; the connections stay and can be read one by one.
func (s *swarm) stopReading() {
	for _, r := range s.readers {
		r.stop()
	}
	s.readers = nil
}

// close ends everything.
func (s *swarm) close() {
	epoch.Add(1)
	s.stopReading()
	var wg sync.WaitGroup
	var turn atomic.Int64
	for range dialers {
		wg.Go(func() {
			for {
				i := int(turn.Add(1)) - 1
				if i >= len(s.conns) {
					return
				}
				if c := s.conns[i]; c != nil {
					unix.Close(c.fd)
				}
			}
		})
	}
	wg.Wait()
	s.conns = nil
}

// fail notes the first reason why the run is not exact.
func (s *swarm) fail(format string, args ...any) {
	err := fmt.Errorf("not exact: "+format, args...)
	if s.failure.CompareAndSwap(nil, &err) {
		close(s.failed)
	}
}

func (s *swarm) err() error {
	if p := s.failure.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *swarm) delivered() (n int64) {
	for _, r := range s.readers {
		n += r.delivered.Load()
	}
	return n
}

// latency returns how long the deliveries since the last call took.
func (s *swarm) latency() *histogram {
	var h histogram
	for _, r := range s.readers {
		r.mu.Lock()
		h.merge(&r.hist)
		r.hist = histogram{}
		r.mu.Unlock()
	}
	return &h
}

// reader reads a share of a swarm's connections.
type reader struct {
	// Fixed at birth.
	swarm *swarm
	ep    int
	bell  int // an eventfd that ends the goroutine
	conns []*conn
	wg    sync.WaitGroup

	delivered atomic.Int64

	mu   sync.Mutex // held while a round of events is handled; guards hist
	hist histogram

	// Owned by the goroutine.
	buf     []byte
	now     int64
	seen    []seen
	touched []uint32 // the slots of left that counts is not zero for
	counts  []int32
}

// seen is a message that was checked once; its copies need only be the same bytes.
type seen struct {
	stamp
	body []byte
}

const seenRing = 4096

func newReader(s *swarm) (*reader, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(ep)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	r := &reader{
		swarm: s, ep: ep, bell: bell, buf: make([]byte, 2*maxFrame),
		seen: make([]seen, seenRing), counts: make([]int32, ring),
	}
	return r, unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, bell, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
}

func (r *reader) add(c *conn) error {
	if err := unix.SetNonblock(c.fd, true); err != nil {
		return err
	}
	r.conns = append(r.conns, c)
	// The event carries the connection's place, not its descriptor.
	return unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(len(r.conns) - 1)})
}

func (r *reader) stop() {
	unix.Write(r.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd takes eight bytes; it cannot be full
	r.wg.Wait()
	for _, c := range r.conns {
		unix.EpollCtl(r.ep, unix.EPOLL_CTL_DEL, c.fd, nil)
		unix.SetNonblock(c.fd, false)
	}
	unix.Close(r.bell)
	unix.Close(r.ep)
}

func (r *reader) run() {
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := ignoringEINTR(func() (int, error) { return unix.EpollWait(r.ep, events, -1) })
		if err != nil {
			r.swarm.fail("epoll: %v", err)
			return
		}
		r.mu.Lock()
		over := false
		var got int64
		for _, e := range events[:n] {
			if e.Fd < 0 {
				over = true
				continue
			}
			got += r.read(r.conns[e.Fd])
		}
		r.delivered.Add(got)
		r.settle()
		r.mu.Unlock()
		if over {
			return
		}
	}
}

// read takes what c has and returns how many deliveries that were.
func (r *reader) read(c *conn) int64 {
	kept := copy(r.buf, c.partial)
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(c.fd, r.buf[kept:]) })
	if err == unix.EAGAIN {
		return 0
	}
	if err != nil || n == 0 {
		unix.EpollCtl(r.ep, unix.EPOLL_CTL_DEL, c.fd, nil)
		if !c.ended {
			c.ended = true
			r.swarm.fail("%w: connection %d (%v)", errEnded, c.index, err)
		}
		return 0
	}
	r.now = time.Now().UnixNano()
	var got int64
	rest := r.buf[:kept+n]
	for {
		f, more, ok, bad := split(rest)
		if bad {
			r.swarm.fail("connection %d got bytes that are no frame: %.40q", c.index, rest)
			unix.EpollCtl(r.ep, unix.EPOLL_CTL_DEL, c.fd, nil)
			return got
		}
		if !ok {
			break
		}
		got += r.take(c, f)
		rest = more
	}
	c.partial = append(c.partial[:0], rest...)
	return got
}

// take handles one frame and returns how many deliveries it held.
func (r *reader) take(c *conn, f frame) int64 {
	switch f.op {
	case ws.OpText:
		if p := payloadOf(f.body, r.swarm.size); p != nil {
			if c.reliable && !r.number(c, &f) {
				return 0
			}
			r.deliver(c, f.body, p)
			return 1
		}
		if id, success, ok := ackOf(f.body); ok {
			if !success || id <= c.lastAck {
				r.swarm.fail("connection %d, whose last ack was %d, got %.200q", c.index, c.lastAck, f.body)
				return 0
			}
			c.lastAck = id
			c.acks++
			r.count(id - 1) // message k is published with ack id k+1
			return 0
		}
		r.swarm.fail("connection %d got %.200q", c.index, f.body)
	case ws.OpPing:
		if _, err := unix.Write(c.fd, appendMasked(nil, ws.OpPong, f.body)); err != nil {
			r.swarm.fail("connection %d cannot answer a ping: %v", c.index, err)
		}
	case ws.OpPong:
	case ws.OpBinary:
		if c.nats != nil {
			return r.natsFeed(c, f.body)
		}
		r.swarm.fail("connection %d got a binary frame", c.index)
	case ws.OpClose:
		c.ended = true
		r.swarm.fail("the server closed connection %d: %.120q", c.index, f.body)
	default:
		r.swarm.fail("connection %d got a frame of kind %d", c.index, f.op)
	}
	return 0
}

// ackEvery is how many deliveries a reliable connection acknowledges at once. A node
// keeps a thousand.
const ackEvery = 100

// number checks a delivery's sequence id, takes it out of f, since the rest is what
// connections have in common, and acknowledges from time to time.
func (r *reader) number(c *conn, f *frame) bool {
	seq, rest, ok := sequenceOf(f.body)
	if !ok || seq != c.seq+1 {
		r.swarm.fail("connection %d got %.80q, sequence id %d expected", c.index, f.body, c.seq+1)
		return false
	}
	c.seq, f.body = seq, rest
	if seq%ackEvery == 0 {
		ack := appendMasked(nil, ws.OpText, fmt.Appendf(nil, `{"type":"sequenceAck","sequenceId":%d}`, seq))
		if err := writeAll(c.fd, ack); err != nil {
			r.swarm.fail("connection %d cannot acknowledge: %v", c.index, err)
			return false
		}
	}
	return true
}

func (r *reader) deliver(c *conn, body, payload []byte) {
	k, _ := hex(payload[:16])
	m := &r.seen[k%seenRing]
	if m.k != k || !bytes.Equal(m.body, body) {
		s, err := readStamp(payload)
		if err != nil {
			r.swarm.fail("connection %d got %v", c.index, err)
			return
		}
		m.stamp, m.body = s, append(m.body[:0], body...)
	}
	if int(m.stream) >= len(c.next) || c.next[m.stream] == absent {
		r.swarm.fail("connection %d got message %d of stream %d, which it must not get", c.index, m.seq, m.stream)
		return
	}
	if want := c.next[m.stream]; uint64(want) != m.seq {
		r.swarm.fail("connection %d got message %d of stream %d, %d expected", c.index, m.seq, m.stream, want)
		return
	}
	c.next[m.stream]++
	r.hist.add(r.now - m.due)
	r.count(k)
}

// count notes that message k is one delivery or ack nearer to completion.
func (r *reader) count(k uint64) {
	slot := uint32(k % ring)
	if r.counts[slot] == 0 {
		r.touched = append(r.touched, slot)
	}
	r.counts[slot]++
}

// settle tells the publisher what was counted.
func (r *reader) settle() {
	var done uint64
	for _, slot := range r.touched {
		if r.swarm.left[slot].Add(-r.counts[slot]) == 0 {
			done++
		}
		r.counts[slot] = 0
	}
	r.touched = r.touched[:0]
	if done > 0 {
		r.swarm.completed.Add(done)
		select {
		case r.swarm.wake <- struct{}{}:
		default:
		}
	}
}

// check ends the reading and compares what every connection got with what was
// published: sent[i] messages in stream i.
func (s *swarm) check(sent []uint32) error {
	s.stopReading()
	for _, c := range s.conns {
		for i, want := range sent {
			if got := c.next[i]; got != absent && got != want {
				return fmt.Errorf("not exact: connection %d got %d of the %d messages of stream %d", c.index, got, want, i)
			}
		}
		if len(c.partial) > 0 {
			return fmt.Errorf("not exact: connection %d is left with a part of a frame, %.40q", c.index, c.partial)
		}
	}
	return s.err()
}

// oneGroup says that every connection joins the same group.
func oneGroup(name string) func(int) []string {
	groups := strings.Fields(name)
	return func(int) []string { return groups }
}
