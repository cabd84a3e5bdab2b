package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// The load beside which the hostile clients are put: a group that hears of
// something often enough for a p99.
const (
	neighbours    = 100
	neighbourRate = 20_000 // deliveries a second
)

// floodCases are the ways in which clients send what costs them next to nothing.
var floodCases = []hostileCase{
	{"pings", func(b *bench) error { return b.flood("pings", floodPings) }},
	{"json-pings", func(b *bench) error { return b.flood("json-pings", floodJSONPings) }},
	{"empty-fragments", func(b *bench) error { return b.flood("empty-fragments", floodEmptyFragments) }},
}

// floodBytes is about how much a flooding client writes at once.
const floodBytes = 64 << 10

func floodPings() []byte { return repeated(appendMasked(nil, ws.OpPing, nil)) }

func floodJSONPings() []byte {
	return repeated(appendMasked(nil, ws.OpText, []byte(`{"type":"ping"}`)))
}

// floodEmptyFragments are continuations, all alike: what they continue was sent
// first.
func floodEmptyFragments() []byte { return repeated([]byte{byte(ws.OpContinuation), 0x80, 1, 2, 3, 4}) }

func repeated(frame []byte) []byte { return bytes.Repeat(frame, floodBytes/len(frame)) }

// programTarget returns how clients of p, whose key is the development key, connect.
func programTarget(p *program) (target, error) {
	addr, err := netip.ParseAddrPort(p.Addr)
	r := ready{Addr: addr, Key: accesskey.DevelopmentKey}
	return target{addr: addr, path: r.clientPath}, err
}

// flood measures what subscribers of a group see while 1 and 4 clients flood the
// node with what makes, beside what they see otherwise.
func (b *bench) flood(name string, makes func() []byte) error {
	p, err := b.startProgram("")
	if err != nil {
		return b.failed(name, err)
	}
	defer p.stop() // it has said what it had to
	t, err := programTarget(p)
	if err != nil {
		return err
	}
	l := load{members: neighbours, payload: 128, rate: neighbourRate}
	t.groups = func(i int) []string {
		if i == neighbours {
			return nil // the publisher
		}
		return l.groupsOf(i)
	}
	s, err := newSwarm(b.ctx, neighbours+1, l.payload, t)
	if err != nil {
		return b.failed(name, err)
	}
	defer s.close()
	tr := l.traffic(s)
	tr.inFlight = b.inFlight
	s.expect(1, func(i, _ int) bool { return i < neighbours })
	if err := s.start(b.readers); err != nil {
		return err
	}
	if _, err := tr.publish(s, b.warmup); err != nil {
		return b.failed(name, err)
	}
	t.groups = nil
	for round := range b.rounds {
		var quiet time.Duration
		for _, clients := range []int{0, 1, 4} {
			b.say("%s, %d clients, round %d of %d", name, clients, round+1, b.rounds)
			f := startFlood(t, clients, makes())
			res, err := tr.publish(s, b.duration)
			f.stop()
			if err != nil {
				return b.failed(name, err)
			}
			p99 := res.latency.quantile(0.99)
			b.report.add(row{
				name: fmt.Sprintf("Hostile/case=%s/clients=%d", name, clients), n: res.deliveries,
				nsPerOp: float64(res.wall.Nanoseconds()) / float64(res.deliveries),
				metrics: []metric{
					{"p99-ms", ms(p99)}, {"p50-ms", ms(res.latency.quantile(0.5))},
					{"MB/s-taken", float64(f.sent.Load()) / 1e6 / res.wall.Seconds()}, {"closed", float64(f.closed.Load())},
				},
			})
			if clients == 0 {
				quiet = p99
				continue
			}
			b.report.goal(goal{id: "H7", what: fmt.Sprintf("%s by %d clients: others' p99 beside none", name, clients), unit: "x", most: 2}, p99.Seconds()/quiet.Seconds())
		}
	}
	return s.check(tr.sent)
}

// flooders are clients that write the same bytes without end, and come back when
// they are closed.
type flooders struct {
	sent, closed atomic.Int64 // bytes; connections that the node ended

	mu   sync.Mutex // guards the rest
	fds  map[int]bool
	over bool
	wg   sync.WaitGroup
}

func startFlood(t target, clients int, chunk []byte) *flooders {
	f := &flooders{fds: map[int]bool{}}
	for i := range clients {
		f.wg.Go(func() {
			for f.once(i, t, chunk) {
				f.closed.Add(1)
			}
		})
	}
	return f
}

// once floods on one connection until that ends, and reports whether to go on.
func (f *flooders) once(i int, t target, chunk []byte) bool {
	c, err := dial(neighbours+10+i, t)
	f.mu.Lock()
	if err != nil || f.over {
		f.mu.Unlock()
		if err == nil {
			unix.Close(c.fd)
		}
		return false
	}
	f.fds[c.fd] = true
	f.mu.Unlock()
	var reading sync.WaitGroup
	reading.Go(func() { // its answers, so that it is not closed for being slow
		b := make([]byte, 64<<10)
		for {
			if n, err := ignoringEINTR(func() (int, error) { return unix.Read(c.fd, b) }); n <= 0 || err != nil {
				unix.Shutdown(c.fd, unix.SHUT_RDWR) // it is over
				return
			}
		}
	})
	if chunk[0] == byte(ws.OpContinuation) { // of this one
		err = writeAll(c.fd, []byte{byte(ws.OpText), 0x80, 1, 2, 3, 4})
	}
	for err == nil {
		if err = writeAll(c.fd, chunk); err == nil {
			f.sent.Add(int64(len(chunk)))
		}
	}
	reading.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.fds, c.fd)
	unix.Close(c.fd)
	return !f.over
}

func (f *flooders) stop() {
	f.mu.Lock()
	f.over = true
	for fd := range f.fds {
		unix.Shutdown(fd, unix.SHUT_RDWR) // it may be closed by the node
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// unfinished measures the memory that messages take which never become complete:
// a fragment of 1 MiB less a byte from each of 1,000 clients, and of 1,000 others
// after that, whose memory comes on top of the first ones' or takes its place, and of
// what is left of it after a rest. The program's own build gives up on a message after
// 5 s; others have no such setting.
func (b *bench) unfinished() error {
	const clients = 1000
	settings := ""
	if b.binary == "" {
		settings = "limits: { messageTimeout: 5s }\n"
	}
	p, err := b.startProgram(settings)
	if err != nil {
		return b.failed("unfinished", err)
	}
	defer p.stop() // it has said what it had to
	t, err := programTarget(p)
	if err != nil {
		return err
	}
	message := make([]byte, 1<<20-1)
	for i := range message {
		message[i] = 'a'
	}
	fragment := appendMasked(nil, ws.OpText, message)
	fragment[0] &^= 0x80 // more is to come
	before, err := p.rss()
	if err != nil {
		return err
	}
	for wave := range 2 {
		s, err := newSwarm(b.ctx, clients, minPayload, t)
		if err != nil {
			return b.failed("unfinished", err)
		}
		defer s.close()
		for _, c := range s.conns {
			if err := writeAll(c.fd, fragment); err != nil {
				return b.failed("unfinished", err)
			}
		}
		sent, closed := time.Now(), 0
		for time.Since(sent) < 12*time.Second && closed < clients {
			closed = answerPings(s)
			time.Sleep(100 * time.Millisecond)
		}
		now, err := p.rss()
		if err != nil {
			return err
		}
		b.report.add(row{
			name: fmt.Sprintf("Hostile/case=unfinished/wave=%d", wave+1), n: clients, nsPerOp: float64(time.Since(sent).Nanoseconds()) / clients,
			metrics: []metric{{"RSS-MB", float64(now) / 1e6}, {"B/client", float64(now-before) / float64((wave+1)*clients)}, {"closed", float64(closed)}},
		})
	}
	time.Sleep(unfinishedRest)
	now, err := p.rss()
	if err != nil {
		return err
	}
	b.report.add(row{
		name: "Hostile/case=unfinished/at-rest", n: 1, nsPerOp: float64(unfinishedRest.Nanoseconds()),
		metrics: []metric{{"RSS-MB", float64(now) / 1e6}, {"B/client", float64(now-before) / (2 * clients)}},
	})
	return nil
}

// unfinishedRest is how long the program has to give back the memory of messages
// whose clients it has closed: it does so when it is idle.
const unfinishedRest = 15 * time.Second

// answerPings answers the pings that have come to connections which nobody reads,
// without waiting for any, and returns how many of them the server has closed.
func answerPings(s *swarm) (closed int) {
	var b [4096]byte
	for _, c := range s.conns {
		n, _, err := unix.Recvfrom(c.fd, b[:], unix.MSG_DONTWAIT)
		c.ended = c.ended || n <= 0 && !errors.Is(err, unix.EAGAIN)
		c.partial = append(c.partial, b[:max(n, 0)]...)
		for {
			f, rest, ok, bad := split(c.partial)
			if !ok || bad {
				break
			}
			switch f.op {
			case ws.OpPing:
				unix.Write(c.fd, appendMasked(nil, ws.OpPong, f.body)) // it may be closed
			case ws.OpClose:
				c.ended = true
			}
			c.partial = append(c.partial[:0], rest...)
		}
		if c.ended {
			closed++
		}
	}
	return closed
}
