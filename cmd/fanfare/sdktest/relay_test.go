package sdktest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay is a TCP address that is known before what it leads to, and that can
// lose the connections that pass through it.
type relay struct {
	listener net.Listener
	target   chan string // holds the target once it is known

	mu    sync.Mutex        // guards the rest
	conns map[net.Conn]bool // nil once the relay has ended
	armed *cut              // the disconnect that waits for the target's next bytes
	made  int               // connections that reached the target
	lost  int               // disconnects that have happened
	wg    sync.WaitGroup
}

// cut is a disconnect in the middle of what the target sends.
type cut struct {
	share float64 // how much of the bytes at hand still gets through, from 0 to under 1
	reset bool    // the client sees a reset rather than an end
}

// newRelay listens until the test ends.
func newRelay(t *testing.T) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: make(chan string, 1), conns: map[net.Conn]bool{}}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for c := range r.conns {
			_ = c.Close()
		}
		r.conns = nil
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// forwardTo says where connections lead. It is called once.
func (r *relay) forwardTo(addr string) { r.target <- addr }

// arm has c happen to the connection that next gets bytes from the target. One
// that has not happened yet is replaced.
func (r *relay) arm(c cut) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.armed = &c
}

// counts returns how many connections reached the target, and how many of them
// were lost to cuts.
func (r *relay) counts() (made, lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.made, r.lost
}

// accept ends when the listener is closed.
func (r *relay) accept() {
	var target string
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		if target == "" {
			select {
			case target = <-r.target:
			default: // too early: there is nobody to answer
				_ = in.Close()
				continue
			}
		}
		out, err := net.Dial("tcp", target)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.made++
		r.mu.Unlock()
		r.pass(in, out, func() { _, _ = io.Copy(out, in) })
		r.pass(out, in, func() { r.answer(in, out) })
	}
}

// pass forwards one way until either end closes, and then closes both.
func (r *relay) pass(from, to net.Conn, forward func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		_ = from.Close()
		return
	}
	r.conns[from] = true
	r.wg.Go(func() {
		forward()
		_, _ = from.Close(), to.Close()
		r.mu.Lock()
		delete(r.conns, from)
		r.mu.Unlock()
	})
}

// answer copies from the target to the client until either end closes or a cut
// happens.
func (r *relay) answer(client, target net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := target.Read(buf)
		c := r.due(n)
		if c != nil {
			n = int(c.share * float64(n))
		}
		if _, failed := client.Write(buf[:n]); failed != nil || err != nil {
			return
		}
		if c != nil {
			if tcp, ok := client.(*net.TCPConn); ok && c.reset {
				_ = tcp.SetLinger(0)
			}
			return
		}
	}
}

// due takes the armed cut, if there is one and n bytes for it to happen to.
func (r *relay) due(n int) *cut {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.armed
	if n == 0 || c == nil {
		return nil
	}
	r.armed = nil
	r.lost++
	return c
}
