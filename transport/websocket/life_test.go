package websocket_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

var full = flag.Bool("full", false, "run the stress test at its full size")

// TestKeepAlive runs two clients for an hour, in virtual time: one answers pings,
// the other has gone silent.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan engine.EndReason, 2)
		e := echoEngine(t, engine.Options{
			Hubs:     func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{KeepAlive: 20 * time.Second} },
			Observer: engine.Observer{ConnEnded: func(_ engine.HubName, _ engine.CloseCode, r engine.EndReason) { ended <- r }},
		})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, network{pipe: true}, websocket.Options{})
		target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{})
		alive, _ := s.dial(t, target, "", nil)
		go func() {
			for { // answers pings until the test ends
				if op, p, err := alive.readFrame(); err != nil {
					return
				} else if op == ws.OpPing {
					alive.pings++
					alive.write(frame(0x8a, p))
				}
			}
		}()
		silent, _ := s.dial(t, target, "", nil)
		silent.SetReadDeadline(time.Time{})
		began := time.Now()
		io.Copy(io.Discard, silent.r) // reads pings, and answers none
		if took := time.Since(began); took < 40*time.Second || took > 62*time.Second {
			t.Errorf("the silent client was cut after %s", took)
		}
		if r := <-ended; r != engine.EndPingTimeout {
			t.Errorf("it ended for %q", r)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := e.Stats().Connections; n != 1 || alive.pings < 170 {
			t.Errorf("after an hour there are %d connections, and %d pings were answered", n, alive.pings)
		}
		alive.Drop()
		e.Close()
	})
}

// TestKeepAliveOverSockets is TestKeepAlive over real sockets, on a clock of its own.
func TestKeepAliveOverSockets(t *testing.T) {
	ck := transporttest.NewClock()
	ended := make(chan engine.EndReason, 2)
	e := echoEngine(t, engine.Options{
		Clock:    ck,
		Hubs:     func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{KeepAlive: 20 * time.Second} },
		Observer: engine.Observer{ConnEnded: func(_ engine.HubName, _ engine.CloseCode, r engine.EndReason) { ended <- r }},
	})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, network{}, websocket.Options{})
	target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{})
	silent, _ := s.dial(t, target, "", nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(io.Discard, silent.r)
	}()
	took, ok := ck.Until(done, 250*time.Millisecond, time.Hour)
	if !ok {
		t.Fatal("the silent client is still there after an hour")
	}
	if r := <-ended; r != engine.EndPingTimeout {
		t.Errorf("it ended for %q", r)
	}
	if took < 40*time.Second {
		t.Errorf("the silent client was cut after %s", took)
	}
}

// TestDraining is a client that answers the goodbye of an engine that shuts down.
func TestDraining(t *testing.T) {
	for _, n := range []network{{}, {own: true}, {portable: true}} {
		e := echoEngine(t, engine.Options{Limits: engine.Limits{CloseTimeout: 2 * patience}})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, n, websocket.Options{})
		c, _ := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), azureJSON, nil)
		c.next(ws.OpText) // connected
		done := make(chan error, 1)
		go func() { done <- e.Shutdown(context.Background()) }()
		c.expectClose(engine.CloseGoingAway)
		c.write(frame(0x88, []byte{0x03, 0xe9}))
		c.awaitEnd() // sooner than the time that the client had
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "", nil); c != nil || !strings.HasPrefix(res, "503") {
			t.Errorf("a client that came too late: %s", res)
		}
	}
}

// TestNoByteReachesAStranger connects and closes while messages go out, so that
// descriptor numbers pass from hand to hand, and checks that each client gets
// only what is addressed to it, whole and in order, and that sockets which are
// none of the door's business get nothing.
func TestNoByteReachesAStranger(t *testing.T) {
	workers, rounds := 8, 40
	if *full {
		workers, rounds = 32, 1000
	}
	for _, n := range []network{{}, {own: true}, {portable: true}} {
		t.Run(fmt.Sprintf("portable=%v,own=%v", n.portable, n.own), func(t *testing.T) {
			leakless(t, func(t *testing.T) { strangers(t, n, workers, rounds) })
		})
	}
}

func strangers(t *testing.T, n network, workers, rounds int) {
	ended := make(chan struct{}, workers*rounds)
	// A client that gets no processor time for a while must not be ended as slow.
	e := echoEngine(t, engine.Options{
		Limits: engine.Limits{CloseTimeout: 100 * time.Millisecond, OutboundMessages: 1 << 20, OutboundBytes: 1 << 28, TotalOutboundBytes: 1 << 30},
		Observer: engine.Observer{ConnEnded: func(_ engine.HubName, code engine.CloseCode, reason engine.EndReason) {
			ended <- struct{}{}
			if reason != engine.EndClient && reason != engine.EndLost {
				t.Errorf("a connection was ended with %d, %s", code, reason)
			}
		}},
	})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, n, websocket.Options{})
	h := e.Hub("h")
	ctx, stop := context.WithCancel(context.Background())
	var running, background sync.WaitGroup

	users := make([]struct {
		sync.Mutex
		name engine.UserID
	}, workers)
	// The senders go at the pace of the readers, so that nobody is ended for being
	// slow, or at a slow one while there are none.
	read := make(chan struct{}, 64)
	pace := func(tick <-chan time.Time) {
		select {
		case <-read:
		case <-tick:
		case <-ctx.Done():
		}
	}
	background.Go(func() { // sends to those who are there, and to those who just left
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			pace(tick.C)
			u := &users[i%workers]
			u.Lock()
			name := u.name
			u.Unlock()
			if name != "" {
				pad := strings.Repeat("x", rand.IntN(20_000))
				h.SendToUser(ctx, name, engine.Payload{Data: []byte(string(name) + "|" + pad)}, nil)
			}
		}
	})
	background.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			pace(tick.C)
			h.SendToAll(ctx, engine.Payload{Data: fmt.Appendf(nil, "all|%d", i)}, nil)
		}
	})
	background.Go(func() { // sockets that come and go and are none of the door's
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		for ctx.Err() == nil {
			a, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			b, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			var buf [1]byte
			for _, c := range []net.Conn{a, b} {
				c.SetReadDeadline(time.Now().Add(time.Millisecond))
				if n, _ := c.Read(buf[:]); n > 0 {
					t.Error("a stranger's socket received a byte")
				}
			}
			a.Close()
			b.Close()
		}
	})
	for w := range workers {
		running.Go(func() {
			u := &users[w]
			for round := range rounds {
				name := engine.UserID(fmt.Sprintf("u-%d-%d", w, round))
				token := guests.Invite(engine.Identity{UserID: name})
				u.Lock()
				u.name = name
				u.Unlock()
				c, res := s.dial(t, "/client/hubs/h?access_token="+token, "", nil)
				if c == nil {
					t.Errorf("not let in: %s", res)
					return
				}
				last := -1
				for range rand.IntN(30) {
					op, p, err := c.readFrame()
					if err != nil || op != ws.OpText {
						t.Errorf("%s received %x %.40q, %v", name, op, p, err)
						break
					}
					select {
					case read <- struct{}{}:
					default:
					}
					to, rest, _ := strings.Cut(string(p), "|")
					if to == string(name) {
						if strings.Trim(rest, "x") != "" {
							t.Errorf("%s received %.40q in its own message", name, rest)
						}
						continue
					}
					var i int
					if fmt.Sscan(rest, &i); to != "all" || i <= last || last >= 0 && i != last+1 {
						t.Errorf("%s received %.40q after %d", name, p, last)
					}
					last = i
				}
				if rand.IntN(2) == 0 {
					c.write(frame(0x88, []byte{0x03, 0xe8}))
				}
				c.Drop()
			}
		})
	}
	running.Wait()
	stop()
	background.Wait()
	end, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range workers * rounds { // the engine has noticed that they are gone
		select {
		case <-ended:
		case <-end.Done():
			t.Fatalf("of %d clients that went, the engine noticed %d", workers*rounds, i)
		}
	}
	if err := e.Shutdown(end); err != nil {
		t.Error(err)
	}
	if st := e.Stats(); st.Connections != 0 || st.QueuedBytes != 0 || st.QueuedMessages != 0 {
		t.Errorf("counters after the end: %+v", st)
	}
}
