package netwire

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
)

type funcReader struct {
	consume func([]byte)
	lost    func(error)
}

func (f *funcReader) Consume(p []byte) (int, bool) { f.consume(p); return len(p), true }
func (f *funcReader) Lost(err error) {
	if f.lost != nil {
		f.lost(err)
	}
}
func (f *funcReader) Writable() {}

// TestFlooderKeepsItsTurn is a client that sends more than is ever read of it: its
// neighbours on the poller get their turn as often as at the beginning.
func TestFlooderKeepsItsTurn(t *testing.T) {
	g := &Group{}
	g.pollers.once.Do(func() { g.pollers.all = []*poller{{}} })
	var floods atomic.Int64
	near, far := pair(t)
	near.(*net.TCPConn).SetReadBuffer(1 << 20)
	w := g.New(near, &funcReader{consume: func([]byte) { floods.Add(1); time.Sleep(time.Millisecond) }})
	w.Start(nil)
	go func() {
		b := make([]byte, 256<<10)
		for {
			if _, err := far.Write(b); err != nil {
				return
			}
		}
	}()
	near2, far2 := pair(t)
	heard := make(chan int64, 1)
	q := g.New(near2, &funcReader{consume: func([]byte) { heard <- floods.Load() }})
	q.Start(nil)
	worst, total := int64(0), 0
	for began := time.Now(); time.Since(began) < 3*time.Second; total++ {
		far2.Write([]byte{1})
		before := floods.Load() // if this goroutine loses its turn here, it tells less
		worst = max(worst, <-heard-before)
	}
	t.Log("rounds", total, "worst", worst)
	if worst > 16 {
		t.Errorf("the flooder was read %d times between two turns of its neighbour", worst)
	}
	far.Close()
	w.Close(false)
	q.Close(false)
}

// TestSlowButSteady is a far end that takes longer than writeTimeout for 64 KiB.
func TestSlowButSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		r := newReader(-1)
		g := &Group{Portable: true}
		w := g.New(near, r)
		w.Start(nil)
		if n, err := w.OfferBytes(make([]byte, maxHeld)); n != maxHeld || err != nil {
			t.Fatal(n, err)
		}
		b := make([]byte, 2<<10)
		for got := 0; got < maxHeld; {
			time.Sleep(time.Second)
			n, err := far.Read(b)
			if err != nil {
				t.Fatalf("cut after %d bytes: %v", got, err)
			}
			got += n
		}
		w.Close(false)
		far.Close()
		synctest.Wait()
	})
}

type plain struct{}

func (plain) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	if m.Kind != engine.KindData {
		return dst, false
	}
	return append(dst, m.Payload.Data...), true
}
func (plain) AppendPrefix(dst []byte, _ *engine.Message, _ engine.Own, _ int) []byte { return dst }
func (plain) Own() bool                                                              { return false }

type gateSink struct{ in, out chan struct{} }

func (g gateSink) Offer(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	for _, s := range spans {
		n += s.To - s.From
		if len(b.Bytes(s)) == 1 {
			g.in <- struct{}{}
			<-g.out
		}
	}
	return n, 0, nil
}
func (g gateSink) OfferBytes(p []byte) (int, error) { return len(p), nil }
func (g gateSink) Held() int                        { return 0 }
func (g gateSink) Close(bool)                       {}

type spySink struct {
	Wire
	seen chan *engine.Batch
}

func (s spySink) Offer(b *engine.Batch, spans []engine.Span) (int, int, error) {
	defer func() { s.seen <- b }()
	return s.Wire.Offer(b, spans)
}

// TestSmallPieceOfALargeBatch is a far end that does not read, and gets little of
// what its shard sends: it must not keep all of that in memory.
func TestSmallPieceOfALargeBatch(t *testing.T) {
	e, err := engine.New(&engine.Options{Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	h := e.Hub("h")
	openConn := func(s engine.Sink, groups ...engine.GroupName) {
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Groups: groups}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Open(s, &engine.OpenOptions{Encoding: plain{}}); err != nil {
			t.Fatal(err)
		}
	}
	gate := gateSink{make(chan struct{}), make(chan struct{})}
	openConn(gate, "gate", "big")
	near, far := net.Pipe()
	spy := spySink{newStream(near, nil, &funcReader{consume: func([]byte) {}}), make(chan *engine.Batch, 100)}
	openConn(spy, "small")
	distinct := map[*engine.Batch]bool{}
	big := engine.Payload{Data: make([]byte, 256<<10)}
	for range 50 {
		h.SendToGroup(t.Context(), "gate", engine.Payload{Data: []byte("x")}, nil)
		<-gate.in
		h.SendToGroup(t.Context(), "big", big, nil)
		h.SendToGroup(t.Context(), "small", engine.Payload{Data: []byte("tiny")}, nil)
		gate.out <- struct{}{}
		distinct[<-spy.seen] = true
	}
	if len(distinct) > 5 {
		t.Errorf("50 messages of 4 bytes keep %d batches of 256 KiB", len(distinct))
	}
	far.Close()
	e.Close()
}
