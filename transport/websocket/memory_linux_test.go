package websocket_test

import (
	"bytes"
	"context"
	"math"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// bare takes the descriptor out of c, which is closed, so that the client's end
// of an idle connection costs nothing in this process but the descriptor.
func bare(t testing.TB, c net.Conn) int {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	raw.Control(func(old uintptr) { fd, err = syscall.Dup(int(old)) })
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return fd
}

// fewGoroutines is how many of them there may be for each connection that needs
// none: the process may have begun one or two of its own meanwhile.
const fewGoroutines = 0.01

// idle opens n connections that have joined a group and returns what each costs in
// user memory: heap and stacks, after collection.
func idle(t testing.TB, n int, protocol string, portable bool) (bytes, goroutines float64) {
	e := echoEngine(t, engine.Options{})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, network{portable: portable}, websocket.Options{})
	target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{UserID: "u", Groups: []engine.GroupName{"g"}})
	fds := make([]int, 0, n)
	defer func() {
		for _, fd := range fds {
			syscall.Close(fd)
		}
	}()
	open := func() {
		// Not dial: its clean-up would keep the client's end.
		c, err := s.connect()
		if err != nil {
			t.Fatal(err)
		}
		handshake(t, c, target, protocol)
		fds = append(fds, bare(t, c))
	}
	shared := runtime.GOMAXPROCS(0)
	for range shared { // what all share, some of it on each processor, is there before
		open()
	}
	before, was := inUse(), runtime.NumGoroutine()
	for range n {
		open()
	}
	most := was + int(fewGoroutines*float64(n))
	if portable {
		most += n
	}
	// Those that let the last of them in end in their own time.
	for end := time.Now().Add(patience); runtime.NumGoroutine() > most && time.Now().Before(end); runtime.Gosched() {
	}
	after, is := inUse(), runtime.NumGoroutine()
	if got := int(e.Stats().Connections); got != n+shared {
		t.Fatalf("%d connections are open, not %d", got, n+shared)
	}
	return (after - before) / float64(n), float64(is-was) / float64(n)
}

// handshake knocks as a client of a JSON subprotocol and reads as far as the first
// message.
func handshake(t testing.TB, c net.Conn, target, protocol string) {
	req := "GET " + target + " HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: " + protocol + "\r\n\r\n"
	if _, err := c.Write([]byte(req)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	for {
		n, err := c.Read(buf[len(buf):cap(buf)])
		if err != nil {
			t.Fatal(err)
		}
		buf = buf[:len(buf)+n]
		if buf[len(buf)-1] == '}' {
			return
		}
	}
}

func inUse() float64 {
	for range 3 { // pools let go of what they hold in two
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// TestIdleMemory holds an idle, joined connection over plain TCP to 1 KiB of user
// memory, engine included, with an eighth to spare for tables that grow by
// doubling; and to no goroutine.
func TestIdleMemory(t *testing.T) {
	n := 1000
	if raceEnabled {
		n = 100 // only the goroutines count: the race detector's bookkeeping is no connection's
	}
	least := math.Inf(1)
	for range 3 { // the least of three: what else the process does only adds
		bytes, goroutines := idle(t, n, azureJSON, false)
		if goroutines > fewGoroutines {
			t.Errorf("an idle connection has %.2f goroutines", goroutines)
		}
		least = min(least, bytes)
	}
	if least > 1152 && !raceEnabled {
		t.Errorf("an idle connection costs %.0f bytes", least)
	}
	t.Logf("%.0f bytes", least)
}

// BenchmarkIdle reports what an idle, joined connection costs in user memory.
func BenchmarkIdle(b *testing.B) {
	for _, protocol := range []string{azureJSON, reliableJSON} {
		for name, portable := range map[string]bool{"path=descriptor": false, "path=portable": true} {
			b.Run("protocol="+protocol+"/"+name, func(b *testing.B) {
				for b.Loop() {
					bytes, goroutines := idle(b, 2000, protocol, portable)
					b.ReportMetric(bytes, "B/conn")
					b.ReportMetric(goroutines, "goroutines/conn")
				}
			})
		}
	}
}

// crowd opens JSON clients that are members of one group and read as fast as they
// can, without allocating. A token arrives for each burst messages that one of
// them has read.
func crowd(t testing.TB, n network, members, burst int) (publish func(), arrived <-chan struct{}) {
	e := echoEngine(t, engine.Options{})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, n, websocket.Options{})
	target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{UserID: "u", Groups: []engine.GroupName{"g"}})
	tokens := make(chan struct{}, members)
	for range members {
		c, res := s.dial(t, target, azureJSON, nil)
		if c == nil {
			t.Fatal(res)
		}
		c.next(ws.OpText)
		c.SetDeadline(time.Time{})
		go func() {
			for i := 1; ; i++ {
				h, err := c.r.Peek(4)
				if err != nil {
					return
				}
				size := 2 + int(h[1])
				if h[1] == 126 {
					size = 4 + int(h[2])<<8 + int(h[3])
				}
				if _, err := c.r.Discard(size); err != nil {
					return
				}
				if i%burst == 0 {
					tokens <- struct{}{}
				}
			}
		}()
	}
	h := e.Hub("h")
	p := engine.Payload{Data: bytes.Repeat([]byte("x"), 128)}
	ctx := context.Background()
	// A client is told that it is connected before it is in its first groups.
	for full := false; !full; {
		found, _, err := h.ListGroup(ctx, "g", "", members)
		if err != nil {
			t.Fatal(err)
		}
		full = len(found) == members
		runtime.Gosched()
	}
	return func() {
		for range burst {
			if err := h.SendToGroup(ctx, "g", p, nil); err != nil {
				t.Error(err)
			}
		}
	}, tokens
}

// TestNoAllocationPerDelivery publishes to a group and counts the allocations of
// all that happens until every member has read it: they go with the messages,
// not with the members.
func TestNoAllocationPerDelivery(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	const members, burst = 100, 64
	publish, arrived := crowd(t, network{}, members, burst)
	round := func() {
		publish()
		for range members {
			<-arrived
		}
	}
	perRound := testing.AllocsPerRun(50, round)
	if perDelivery := perRound / (members * burst); perDelivery > 0.05 {
		t.Errorf("%.3f allocations for a delivery, %.1f for a message", perDelivery, perRound/burst)
	}
}

// BenchmarkFanout publishes to a group of JSON clients that read in the same
// process: a ratio between paths and revisions, not a figure to quote.
func BenchmarkFanout(b *testing.B) {
	for name, n := range map[string]network{"path=descriptor": {}, "path=portable": {portable: true}} {
		b.Run(name, func(b *testing.B) {
			const members, burst = 100, 64
			publish, arrived := crowd(b, n, members, burst)
			b.ReportAllocs()
			for b.Loop() {
				publish()
				for range members {
					<-arrived
				}
			}
			b.ReportMetric(float64(b.N*burst*members)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}

// BenchmarkConnect lets clients in and has them leave again.
func BenchmarkConnect(b *testing.B) {
	e := echoEngine(b, engine.Options{})
	guests := &transporttest.Guests{}
	s := serve(b, e, guests, network{}, websocket.Options{})
	target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{UserID: "u", Groups: []engine.GroupName{"g"}})
	b.ReportAllocs()
	for b.Loop() {
		c, err := s.connect()
		if err != nil {
			b.Fatal(err)
		}
		handshake(b, c, target, azureJSON)
		c.(*net.TCPConn).SetLinger(0) // no port waits for two minutes
		c.Close()
	}
}
