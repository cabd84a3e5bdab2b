package netwire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

const patience = time.Minute

// reader is a Reader that collects what comes, and pauses when it is told to.
type reader struct {
	mu       sync.Mutex
	got      []byte
	most     int // it takes no more than this until it is raised; negative for all
	lost     error
	writable int
	changed  chan struct{}
}

func newReader(most int) *reader { return &reader{most: most, changed: make(chan struct{}, 1)} }

func (r *reader) signal() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *reader) Consume(p []byte) (int, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.signal()
	n := len(p)
	if r.most >= 0 {
		n = min(n, r.most-len(r.got))
	}
	r.got = append(r.got, p[:n]...)
	return n, r.most < 0 || len(r.got) < r.most
}

func (r *reader) Lost(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = err
	r.signal()
}

func (r *reader) Writable() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writable++
	r.signal()
}

// await waits until cond holds, which is called under the lock.
func (r *reader) await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		ok := cond()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// pair returns the two ends of a TCP connection with small buffers.
func pair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	near.(*net.TCPConn).SetWriteBuffer(16 << 10)
	far.(*net.TCPConn).SetReadBuffer(16 << 10)
	t.Cleanup(func() { near.Close(); far.Close() })
	far.SetDeadline(time.Now().Add(patience))
	return near, far
}

// each runs f over both kinds of wire, and checks that no goroutine is left.
func each(t *testing.T, f func(t *testing.T, g *Group)) {
	for name, portable := range map[string]bool{"shared": false, "portable": true} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			t.Run("", func(t *testing.T) { f(t, &Group{Portable: portable}) })
			for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
				}
			}
		})
	}
}

// TestReading passes on bytes in order: first those that were read already, then
// those that come, with a pause in the middle of a chunk.
func TestReading(t *testing.T) {
	each(t, func(t *testing.T, g *Group) {
		near, far := pair(t)
		text := bytes.Repeat([]byte("0123456789"), 20_000)
		r := newReader(7)
		w := g.New(near, r)
		sent := make(chan error, 1)
		go func() {
			_, err := far.Write(text[5:])
			sent <- err
		}()
		w.Start(text[:5])
		for _, most := range []int{7, 8, 5000, 100_000, len(text)} {
			r.mu.Lock()
			r.most = most
			r.mu.Unlock()
			w.Resume()
			r.await(t, "bytes", func() bool { return len(r.got) == most })
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.got, text) {
			t.Fatal("the bytes came in another order")
		}
		far.Close()
		r.mu.Lock()
		r.most = -1
		r.mu.Unlock()
		w.Resume()
		r.await(t, "the end", func() bool { return errors.Is(r.lost, io.EOF) })
		w.Close(false)
	})
}

// TestWriting offers more than a socket holds to a far end that does not read, and
// goes on whenever the wire says so.
func TestWriting(t *testing.T) {
	each(t, func(t *testing.T, g *Group) {
		near, far := pair(t)
		text := bytes.Repeat([]byte("0123456789"), 400_000)
		r := newReader(-1)
		w := g.New(near, r)
		w.Start(nil)
		rest, calls, full := text, 0, false
		read := make(chan []byte, 1)
		for len(rest) > 0 {
			n, err := w.OfferBytes(rest)
			if err != nil {
				t.Fatal(err)
			}
			if held := w.Held(); held > maxHeld {
				t.Fatalf("the wire holds %d bytes", held)
			}
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
			if !full { // from here on somebody reads
				full = true
				go func() {
					b := make([]byte, len(text))
					n, _ := io.ReadFull(far, b)
					read <- b[:n]
				}()
			}
			r.await(t, "room", func() bool { return r.writable > calls })
			r.mu.Lock()
			calls = r.writable
			r.mu.Unlock()
		}
		if !full {
			t.Fatal("the socket held everything")
		}
		if got := <-read; !bytes.Equal(got, text) {
			t.Fatalf("%d of %d bytes arrived, or others", len(got), len(text))
		}
		w.Close(true)
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("after the end: %v", err)
		}
	})
}

// TestClose is a wire closed politely: what it took arrives, and then the end.
// Afterwards it takes nothing and tells nothing.
func TestClose(t *testing.T) {
	each(t, func(t *testing.T, g *Group) {
		near, far := pair(t)
		r := newReader(-1)
		w := g.New(near, r)
		w.Start(nil)
		if n, err := w.OfferBytes([]byte("goodbye")); n != 7 || err != nil {
			t.Fatal(n, err)
		}
		w.Close(true)
		if got, err := io.ReadAll(far); string(got) != "goodbye" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		if _, err := w.OfferBytes([]byte("x")); err == nil {
			t.Fatal("a closed wire takes bytes")
		}
		w.Resume()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.lost != nil || len(r.got) > 0 {
			t.Fatalf("a closed wire tells %v, %q", r.lost, r.got)
		}
	})
}

// TestStartAfterClose is a connection that ended before it was read.
func TestStartAfterClose(t *testing.T) {
	each(t, func(t *testing.T, g *Group) {
		near, far := pair(t)
		w := g.New(near, newReader(-1))
		w.Close(false)
		w.Start([]byte("rest"))
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Fatal("the far end can still read")
		}
	})
}

// TestReset is a far end that goes without a word while nobody reads.
func TestReset(t *testing.T) {
	each(t, func(t *testing.T, g *Group) {
		near, far := pair(t)
		r := newReader(1)
		w := g.New(near, r)
		w.Start(nil)
		far.Write([]byte("more than it takes"))
		r.await(t, "a byte", func() bool { return len(r.got) == 1 })
		far.(*net.TCPConn).SetLinger(0)
		far.Close()
		if g.Portable { // its reader waits for Resume and learns of it then
			r.mu.Lock()
			r.most = -1
			r.mu.Unlock()
			w.Resume()
		}
		r.await(t, "the loss", func() bool { return r.lost != nil })
		w.Close(false)
	})
}
