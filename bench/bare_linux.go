package main

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// writeJob tells the bare loop what to write.
type writeJob struct {
	Conns    int // how many connections to wait for
	Payload  int
	Messages int     // how many to write to each connection
	PerWrite int     // frames in one write
	NetConn  bool    // through net.Conn.Write, else write(2) on the descriptor
	Rate     float64 // deliveries a second; 0 for as fast as it goes
	First    uint64  // the number of the first message
}

// bareLoop is the floor: it accepts connections and writes frames to them, the
// same bytes to each, and does nothing else.
func bareLoop(in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	b := &bare{l: l.(*net.TCPListener)}
	hello := ready{Addr: l.Addr().(*net.TCPAddr).AddrPort()}
	return answer(in, out, hello, nil, func(c command) error {
		if c.Do == "accept" {
			return b.accept(c.Write.Conns)
		}
		return b.write(c.Write)
	})
}

type bare struct {
	l     *net.TCPListener
	conns []net.Conn
	fds   []int
}

func (b *bare) accept(n int) error {
	for len(b.conns) < n {
		c, err := b.l.Accept()
		if err != nil {
			return err
		}
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			return err
		}
		// The connection is never closed, so its descriptor stays its own.
		if err := raw.Control(func(fd uintptr) { b.fds = append(b.fds, int(fd)) }); err != nil {
			return err
		}
		b.conns = append(b.conns, c)
	}
	return nil
}

func (b *bare) write(j *writeJob) error {
	if j.Rate > 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	start := time.Now()
	payload := make([]byte, j.Payload)
	var frames []byte
	for done := 0; done < j.Messages; {
		n := min(j.PerWrite, j.Messages-done)
		due := time.Now()
		if j.Rate > 0 {
			due = start.Add(time.Duration(float64(done*len(b.conns)) / j.Rate * float64(time.Second)))
			for {
				wait := time.Until(due)
				if wait <= 0 {
					break
				}
				ts := unix.NsecToTimespec(int64(wait))
				unix.Nanosleep(&ts, nil)
			}
		}
		frames = frames[:0]
		for i := range n {
			k := j.First + uint64(done+i)
			stamp{k: k, seq: k, due: due.UnixNano()}.put(payload)
			frames = appendEnvelope(frames, payload)
		}
		if j.NetConn {
			for _, c := range b.conns {
				if _, err := c.Write(frames); err != nil {
					return fmt.Errorf("write: %w", err)
				}
			}
		} else {
			for _, fd := range b.fds {
				if err := writeAll(fd, frames); err != nil {
					return fmt.Errorf("write: %w", err)
				}
			}
		}
		done += n
	}
	return nil
}

// bareMode is a way of writing that the bare loop measures.
type bareMode struct {
	name     string
	perWrite int
	netConn  bool
}

var (
	bareNetConn = bareMode{"netconn", 1, true}
	bareRaw     = bareMode{"write", 1, false}
	bareRaw16   = bareMode{"write16", 16, false}
)

// runBare measures one mode.
func (b *bench) runBare(mode bareMode, members, payload int, rate float64) (*sample, error) {
	return b.steadily("the bare loop", rate, func() (*sample, error) { return b.bareOnce(mode, members, payload, rate) })
}

func (b *bench) bareOnce(mode bareMode, members, payload int, rate float64) (*sample, error) {
	c, err := spawn("bare")
	if err != nil {
		return nil, err
	}
	defer c.stop()
	s, err := newSwarm(b.ctx, members, payload, target{addr: c.Addr})
	if err != nil {
		return nil, err
	}
	defer s.close()
	if _, err := c.tell(command{Do: "accept", Write: &writeJob{Conns: members}}); err != nil {
		return nil, err
	}
	s.expect(1, func(int, int) bool { return true })
	if err := s.start(b.readers); err != nil {
		return nil, err
	}
	job := writeJob{Payload: payload, PerWrite: mode.perWrite, NetConn: mode.netConn, Rate: rate}
	sent := 0
	part := func(messages int) (*sample, error) {
		s.latency()
		before, own, start := s.delivered(), cpuTime(), time.Now()
		m0, err := c.mark()
		if err != nil {
			return nil, err
		}
		job.First, job.Messages = uint64(sent), messages
		m1, err := c.tell(command{Do: "write", Write: &job})
		if err != nil {
			return nil, err
		}
		sent += messages
		want := int64(messages) * int64(members)
		for deadline := time.Now().Add(patience); s.delivered()-before < want; time.Sleep(time.Millisecond) {
			if err := s.err(); err != nil {
				return nil, err
			}
			if time.Now().After(deadline) {
				return nil, fmt.Errorf("not exact: %d of %d deliveries arrived", s.delivered()-before, want)
			}
		}
		return &sample{
			deliveries: want, messages: int64(messages), wall: time.Since(start),
			cpu: m1.CPU - m0.CPU, loadCPU: cpuTime() - own, latency: s.latency(),
		}, nil
	}
	// A first part warms up and tells how much fits into the time.
	guess := max(16, int(b.warmup.Seconds()*rate/float64(members)))
	if rate == 0 {
		guess = max(64, 100_000/members)
	}
	w, err := part(guess)
	if err != nil {
		return nil, err
	}
	n := int(b.duration.Seconds() * rate / float64(members))
	if rate == 0 {
		n = int(float64(guess) * b.duration.Seconds() / w.wall.Seconds())
	}
	res, err := part(max(16, n/16*16))
	if err != nil {
		return nil, err
	}
	return res, s.check([]uint32{uint32(sent)})
}
