package netwire

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"
)

// sharer is a Reader that takes a few bytes in each turn, and wants more.
type sharer struct {
	reader
	share int
	turns atomic.Int64
}

func (s *sharer) Consume(p []byte) (int, bool) {
	s.turns.Add(1)
	n := min(len(p), s.share)
	s.reader.Consume(p[:n])
	return n, true
}

// A reader that takes a share in each turn gets the rest in the turns after, in
// order, and then what came meanwhile.
func TestShareOfATurn(t *testing.T) {
	each(t, func(t *testing.T, g *Group) {
		near, far := pair(t)
		text := bytes.Repeat([]byte("0123456789"), 10_000)
		r := &sharer{reader: *newReader(-1), share: 1000}
		w := g.New(near, r)
		w.Start(text[:5000])
		sent := make(chan error, 1)
		go func() {
			_, err := far.Write(text[5000:])
			sent <- err
		}()
		r.await(t, "bytes", func() bool { return len(r.got) == len(text) })
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(r.got, text) {
			t.Fatal("the bytes came in another order")
		}
		far.Close()
		r.await(t, "the end", func() bool { return r.lost != nil })
		w.Close(false)
	})
}

// What one read brought and was not taken waits: it must not be the neighbours who
// do.
func TestShareLeavesNeighboursTheirTurn(t *testing.T) {
	g := &Group{}
	g.pollers.once.Do(func() { g.pollers.all = []*poller{{}} })
	near, far := pair(t)
	r := &slowSharer{}
	w := g.New(near, r)
	w.Start(bytes.Repeat([]byte("x"), 10_000)) // 10,000 turns
	near2, far2 := pair(t)
	heard := make(chan int64, 1)
	q := g.New(near2, &hearing{heard: heard, turns: &r.turns})
	q.Start(nil)
	for range 20 {
		far2.Write([]byte{1})
		before := r.turns.Load() // if this goroutine loses its processor before, it tells less
		if n := <-heard - before; n > 64 {
			t.Fatalf("the neighbour's turn came after %d turns of the other", n)
		}
	}
	if r.turns.Load() >= 10_000 {
		t.Error("the other was done before its neighbour had anything")
	}
	far.Close()
	w.Close(false)
	q.Close(false)
}

// slowSharer takes a byte in each turn, for which it needs a while.
type slowSharer struct{ turns atomic.Int64 }

func (s *slowSharer) Consume(p []byte) (int, bool) {
	s.turns.Add(1)
	time.Sleep(50 * time.Microsecond)
	return min(len(p), 1), true
}
func (s *slowSharer) Lost(error) {}
func (s *slowSharer) Writable()  {}

// hearing tells how many turns another had when it hears of something.
type hearing struct {
	heard chan<- int64
	turns *atomic.Int64
}

func (h *hearing) Consume(p []byte) (int, bool) {
	if len(p) > 0 {
		h.heard <- h.turns.Load()
	}
	return len(p), true
}
func (h *hearing) Lost(error) {}
func (h *hearing) Writable()  {}

// After Resume the reader is called also if the wire has kept nothing: it may have
// kept something itself.
func TestResumeCallsTheReader(t *testing.T) {
	each(t, func(t *testing.T, g *Group) {
		near, _ := pair(t)
		r := &keeper{called: make(chan int, 10)}
		w := g.New(near, r)
		w.Resume() // before Start: nothing is read
		w.Start([]byte("abc"))
		for n := range r.called {
			if n == 3 {
				break
			}
		}
		w.Resume()
		if n := <-r.called; n != 0 {
			t.Errorf("the reader got %d bytes; want none", n)
		}
		w.Close(false)
		near.Close()
	})
}

// keeper takes everything and wants no more.
type keeper struct{ called chan int }

func (k *keeper) Consume(p []byte) (int, bool) {
	k.called <- len(p)
	return len(p), false
}
func (k *keeper) Lost(error) {}
func (k *keeper) Writable()  {}
