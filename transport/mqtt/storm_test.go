package mqtt_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// TestTakeoverStorm lets many clients fight for one session, each with packets on
// its way: there is one at any time, and nothing is left of the others.
func TestTakeoverStorm(t *testing.T) {
	for _, sockets := range []bool{false, true} {
		before := runtime.NumGoroutine()
		s := serve(t, engine.Options{}, sockets)
		ann := engine.Identity{UserID: "ann", Roles: everything}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 15 {
					c := s.connect(t, ann)
					flags := "00"
					if rand.IntN(4) == 0 {
						flags = "02"
					}
					p, err := parseNotation("10 ( 'MQTT' 05 " + flags + " 003c ( 11 0000001e ) 'x' ) 82 ( 0001 ( ) 't' 02 ) 34 ( 't' 0001 ( ) \"a\" ) 32 ( 't' 0002 ( ) \"b\" ) 62 ( 0001 )")
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := c.Write(frame(ws.OpBinary, p.bytes)); err == nil && rand.IntN(2) == 0 { // a part of the CONNACK
						io.CopyN(io.Discard, c.r, int64(rand.IntN(20)))
					}
					c.Close()
				}
			})
		}
		all.Wait()
		// What the last of them have sent may still be on its way: this one has a
		// session of its own, and whoever is being let in counts for a moment.
		c := s.enter(t, "y")
		c.packets("82 ( 0001 ( ) 'u' 01 ) 32 ( 'u' 0001 ( ) \"x\" )")
		c.want("90 ( 0001 ( ) 01 )")
		c.want("32 ( 'u' 0001 ( ) \"x\" )")
		c.want("40 ( 0001 )")
		for deadline := time.Now().Add(patience); s.engine.Stats().Connections > 2; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("of one client id there are %d connections", s.engine.Stats().Connections-1)
			}
		}
		s.engine.Close()
		c.Close()
		// The server of the test, and its loop, live until the test ends.
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before+3; runtime.Gosched() {
			if time.Now().After(deadline) {
				buf := make([]byte, 1<<16)
				t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
			}
		}
	}
}

// TestIdleMemory says what an idle client costs beside a bare socket.
func TestIdleMemory(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("a measurement, which the race detector falsifies")
	}
	s := serve(t, engine.Options{}, true)
	const count = 1000
	target := s.target(engine.Identity{UserID: "ann"})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	var conns []net.Conn
	open := func(i int) {
		c, res := s.handshake(t, target, "mqtt")
		if res.StatusCode != 101 {
			t.Fatal(res.Status)
		}
		c.packets(fmt.Sprintf("10 ( 'MQTT' 04 00 003c 'c%d' )", i))
		c.want("20 ( 00 00 )")
		c.r = nil
		conns = append(conns, c.Conn)
	}
	open(count) // what is made once
	before := heap()
	for i := range count {
		open(i)
	}
	each := (heap() - before) / count
	t.Logf("%d bytes for each client, the test's own end included", each)
	if each > 12<<10 {
		t.Errorf("an idle client costs %d bytes", each)
	}
	for _, c := range conns {
		c.Close()
	}
}
