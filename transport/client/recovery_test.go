package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

// gate refuses handshakes while it is shut.
type gate struct {
	shut  atomic.Bool
	tries atomic.Int32
}

func (g *gate) refuse(int, *http.Request) (int, string) {
	if !g.shut.Load() {
		return 0, ""
	}
	g.tries.Add(1)
	return 503, "a moment"
}

// reliable are options for recovery without long pauses.
func reliable() *client.Options {
	return &client.Options{Subprotocol: client.ReliableJSON, RecoveryInterval: time.Millisecond}
}

// cut breaks wire i from the server's side and waits until the server has noticed.
func (s *server) cut(i int) {
	p := s.peer(i)
	p.Close()
	<-p.closed
}

// waitFor waits until ok, which changes by what others do.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for ctx := within(t); !ok(); {
		select {
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func wantText(t *testing.T, c *client.Client, want ...string) {
	t.Helper()
	for _, w := range want {
		if m := receive[client.Message](t, c); string(m.Payload.Data) != w {
			t.Fatalf("received %q, want %q", m.Payload.Data, w)
		}
	}
}

func TestReliableIsTheDefault(t *testing.T) {
	s := serve(t, &server{})
	c, err := client.Dial(within(t), s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s.peer(0).life.token == "" {
		t.Error("the connection cannot be recovered")
	}
}

// Bo loses his wire, Ann publishes on, and he gets it all: in order, once.
func TestRecovery(t *testing.T) {
	for name, mute := range map[string]bool{"with a connected message": false, "without one": true} {
		t.Run(name, func(t *testing.T) {
			var g gate
			s := serve(t, &server{refuse: g.refuse, mute: mute})
			ctx := within(t)
			ann, bo := dial(t, s, nil), dial(t, s, reliable())
			id := receive[client.Connected](t, bo).ConnectionID
			if err := bo.JoinGroup(ctx, "news"); err != nil {
				t.Fatal(err)
			}
			say := func(what string) {
				t.Helper()
				if err := ann.SendToGroup(ctx, "news", text(what), nil); err != nil {
					t.Fatal(err)
				}
			}
			say("before")
			wantText(t, bo, "before")
			for round := range 3 {
				g.shut.Store(true)
				s.cut(1 + round)
				say("one")
				say("two")
				g.shut.Store(false)
				if e := receive[client.Recovered](t, bo); e.Err == nil {
					t.Error("Recovered without a reason")
				}
				say("three")
				wantText(t, bo, "one", "two", "three")
			}
			if bo.ConnectionID() != id {
				t.Errorf("the connection is %s, was %s", bo.ConnectionID(), id)
			}
			if err := bo.Ping(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// A request whose ack was lost is sent again under its number, and is not carried
// out twice; one that was lost itself is carried out.
func TestRecoveryResendsRequests(t *testing.T) {
	for name, arrived := range map[string]bool{"the ack was lost": true, "the request was lost": false} {
		t.Run(name, func(t *testing.T) {
			var once sync.Once
			s := &server{}
			s.onFrame = func(p *peer, m map[string]any) (done bool) {
				if m["type"] != "sendToGroup" {
					return false
				}
				once.Do(func() {
					done = true
					p.Close() // what is said to it is lost
					if arrived {
						s.answer(p, m)
					}
				})
				return done
			}
			serve(t, s)
			ctx := within(t)
			c := dial(t, s, reliable())
			receive[client.Connected](t, c)
			if err := c.JoinGroup(ctx, "news"); err != nil {
				t.Fatal(err)
			}
			if err := c.SendToGroup(ctx, "news", text("x"), nil); err != nil {
				t.Errorf("SendToGroup = %v", err)
			}
			if err := c.SendToGroup(ctx, "news", text("y"), nil); err != nil {
				t.Error(err)
			}
			receive[client.Recovered](t, c)
			wantText(t, c, "x", "y")
			var ids []any
			for i := range 2 {
				for _, m := range s.peer(i).sent() {
					if m["data"] == "x" {
						ids = append(ids, m["ackId"])
					}
				}
			}
			if len(ids) != 2 || ids[0] != ids[1] {
				t.Errorf("the request went out with the ack ids %v", ids)
			}
		})
	}
}

// What was asked while there was no wire waits for the next one.
func TestRequestsWaitForRecovery(t *testing.T) {
	var g gate
	s := serve(t, &server{refuse: g.refuse})
	c := dial(t, s, reliable())
	receive[client.Connected](t, c)
	g.shut.Store(true)
	s.cut(0)
	done := make(chan error, 2)
	go func() { done <- c.JoinGroup(within(t), "news") }()
	go func() {
		done <- c.SendToGroup(within(t), "news", text("x"), &client.SendOptions{FireAndForget: true})
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := c.LeaveGroup(ctx, "news"); err != context.DeadlineExceeded {
		t.Errorf("a request with a bound = %v, want %v", err, context.DeadlineExceeded)
	}
	g.shut.Store(false)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// What a server remembers of requests bounds how many may wait for their acks.
func TestRequestsAreBounded(t *testing.T) {
	const most = 1000
	var got atomic.Int32
	s := serve(t, &server{onFrame: func(*peer, map[string]any) bool { return got.Add(1) <= most }}) // and not answered
	c := dial(t, s, nil)
	ctx, cancel := context.WithCancel(within(t))
	var wg sync.WaitGroup
	for range most {
		wg.Go(func() { c.SendToGroup(ctx, "news", text("x"), nil) })
	}
	waitFor(t, "all are sent", func() bool { return got.Load() == most })
	short, done := context.WithTimeout(within(t), 20*time.Millisecond)
	defer done()
	if err := c.SendToGroup(short, "news", text("x"), nil); err != context.DeadlineExceeded || got.Load() != most {
		t.Errorf("one more = %v, and the server got %d", err, got.Load())
	}
	cancel()
	wg.Wait()
	if err := c.SendToGroup(within(t), "news", text("x"), nil); err != nil {
		t.Error(err)
	}
}

func TestRecoveryRefused(t *testing.T) {
	s := serve(t, &server{})
	c := dial(t, s, reliable())
	receive[client.Connected](t, c)
	s.forget(0)
	s.cut(0)
	var failed *client.RecoveryError
	var closed *client.CloseError
	_, err := c.Receive(within(t))
	if !errors.As(err, &failed) || !errors.As(failed.Err, &closed) || closed.Code != engine.ClosePolicy || failed.Lost == nil {
		t.Errorf("Receive = %v, want the refusal", err)
	}
	if n := s.wires(); n != 2 {
		t.Errorf("%d wires were made, want 2: a refusal is not asked again", n)
	}
	if e := c.JoinGroup(within(t), "news"); e != err {
		t.Errorf("JoinGroup = %v, want %v", e, err)
	}
}

// A server that has said goodbye is asked once, whatever it answers.
func TestRecoveryAfterDisconnected(t *testing.T) {
	var g gate
	for name, shut := range map[string]bool{"gone": true, "there": false} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &server{refuse: g.refuse, onFrame: func(p *peer, m map[string]any) bool {
				p.say(`{"type":"system","event":"disconnected","message":"going away"}`)
				p.frame(ws.OpClose, ws.NewCloseFrameBody(1001, ""))
				return true
			}})
			c := dial(t, s, reliable())
			receive[client.Connected](t, c)
			g.shut.Store(shut)
			defer g.shut.Store(false)
			if err := c.SendEvent(within(t), "x", text(""), &client.SendOptions{FireAndForget: true}); err != nil {
				t.Fatal(err)
			}
			receive[client.Disconnected](t, c)
			if !shut {
				receive[client.Recovered](t, c)
				return
			}
			_, err := c.Receive(within(t))
			var failed *client.RecoveryError
			var closed *client.CloseError
			if !errors.As(err, &failed) || !errors.As(err, &closed) || closed.Code != engine.CloseGoingAway {
				t.Errorf("Receive = %v", err)
			}
			if n := g.tries.Load(); n != 1 {
				t.Errorf("%d attempts", n)
			}
		})
	}
}

// A connection that the server ended on purpose is not asked for.
func TestNoRecovery(t *testing.T) {
	for _, code := range []ws.StatusCode{1000, 1002, 1003, 1007, 1008, 1009} {
		s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
			p.frame(ws.OpClose, ws.NewCloseFrameBody(code, ""))
			return true
		}})
		c := dial(t, s, reliable())
		var closed *client.CloseError
		if err := c.JoinGroup(within(t), "news"); !errors.As(err, &closed) || closed.Code != engine.CloseCode(code) {
			t.Errorf("JoinGroup = %v, want close %d", err, code)
		}
		if n := s.wires(); n != 1 {
			t.Errorf("after close %d, %d wires were made", code, n)
		}
	}
	// Nor is one asked for if the client itself found the server's word wrong.
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		p.say(`{"type":"message","dataType":"xml"}`)
		return true
	}})
	c := dial(t, s, reliable())
	if err := c.JoinGroup(within(t), "news"); err == nil || !strings.Contains(err.Error(), `dataType "xml"`) {
		t.Errorf("JoinGroup = %v", err)
	}
	if n := s.wires(); n != 1 {
		t.Errorf("after a breach, %d wires were made", n)
	}
}

// A server that knows no recovery makes a new connection, which must not pass for
// the old one.
func TestAnotherConnectionIsNoRecovery(t *testing.T) {
	s := serve(t, &server{newcomers: true})
	c := dial(t, s, reliable())
	receive[client.Connected](t, c)
	s.cut(0)
	if _, err := c.Receive(within(t)); err == nil || !strings.Contains(err.Error(), "another connection") {
		t.Errorf("Receive = %v", err)
	}
	if n := s.wires(); n != 2 {
		t.Errorf("%d wires were made, want 2", n)
	}
}

// What cannot be recovered is replaced, if that is wished, and in its groups again.
func TestReconnectAfterFailedRecovery(t *testing.T) {
	s := serve(t, &server{})
	ctx := within(t)
	o := reliable()
	o.Reconnect = &client.Reconnect{MinDelay: time.Millisecond}
	c := dial(t, s, o)
	first := receive[client.Connected](t, c).ConnectionID
	if err := c.JoinGroup(ctx, "news"); err != nil {
		t.Fatal(err)
	}
	s.forget(0)
	s.cut(0)
	var failed *client.RecoveryError
	if e := receive[client.Lost](t, c); !errors.As(e.Err, &failed) {
		t.Errorf("Lost = %v", e.Err)
	}
	if e := receive[client.Connected](t, c); e.ConnectionID == first {
		t.Error("the new connection is the old one")
	}
	if err := c.SendToGroup(ctx, "news", text("back"), nil); err != nil {
		t.Fatal(err)
	}
	wantText(t, c, "back")
}

// The wire of a connection that was just made breaks before it is in its groups
// again: the joins are sent again.
func TestRecoveryDuringRejoin(t *testing.T) {
	var once sync.Once
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) (done bool) {
		if p.n == 3 && m["type"] == "joinGroup" { // 1 is lost, 2 is refused
			once.Do(func() { done = true; p.Close() })
		}
		return done
	}})
	ctx := within(t)
	o := reliable()
	o.Reconnect = &client.Reconnect{MinDelay: time.Millisecond}
	c := dial(t, s, o)
	for _, g := range []string{"a", "b", "c"} {
		if err := c.JoinGroup(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	s.forget(0)
	s.cut(0)
	receive[client.Connected](t, c)
	receive[client.Lost](t, c)
	receive[client.Connected](t, c)
	receive[client.Recovered](t, c)
	for _, g := range []string{"a", "b", "c"} {
		if err := c.SendToGroup(ctx, g, text(g), nil); err != nil {
			t.Fatal(err)
		}
	}
	wantText(t, c, "a", "b", "c")
}

func TestCloseWhileRecovering(t *testing.T) {
	var g gate
	s := serve(t, &server{refuse: g.refuse})
	c := dial(t, s, &client.Options{Subprotocol: client.ReliableJSON, RecoveryWindow: 2 * time.Hour, RecoveryInterval: time.Hour})
	receive[client.Connected](t, c)
	g.shut.Store(true)
	s.cut(0)
	waitFor(t, "an attempt", func() bool { return g.tries.Load() > 0 })
	done := make(chan error)
	go func() { done <- c.JoinGroup(within(t), "news") }()
	c.Close()
	if err := <-done; err != client.ErrClosed {
		t.Errorf("JoinGroup = %v, want %v", err, client.ErrClosed)
	}
	if _, err := c.Receive(within(t)); err != client.ErrClosed {
		t.Errorf("Receive = %v, want %v", err, client.ErrClosed)
	}
	nothingRuns(t, 0)
}

// A client tries at once, then every second, and gives up after half a minute.
func TestRecoveryPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries []time.Duration
		var lost time.Time
		o := reliablePipe(t, func(net.Conn) {})
		inner := o.NetDial
		o.NetDial = func(ctx context.Context, n, a string) (net.Conn, error) {
			if lost.IsZero() {
				lost = time.Now() // the pipe ends at once
				return inner(ctx, n, a)
			}
			tries = append(tries, time.Since(lost))
			return nil, errors.New("nobody is there")
		}
		c, err := client.Dial(t.Context(), "ws://in.memory/client/hubs/chat", o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		receive[client.Connected](t, c)
		_, err = c.Receive(context.Background())
		var failed *client.RecoveryError
		if !errors.As(err, &failed) || !strings.Contains(err.Error(), "no success within 30s") || !strings.Contains(err.Error(), "nobody is there") {
			t.Errorf("Receive = %v", err)
		}
		if took := time.Since(lost); took != 29*time.Second {
			t.Errorf("gave up after %v", took)
		}
		if len(tries) != 30 {
			t.Fatalf("%d attempts", len(tries))
		}
		for i, at := range tries {
			if at != time.Duration(i)*time.Second {
				t.Errorf("attempt %d after %v", i+1, at)
			}
		}
	})
}

// reliablePipe is pipe for the reliable subprotocol.
func reliablePipe(t *testing.T, handle func(net.Conn)) *client.Options {
	o := &client.Options{NetDial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			u := ws.Upgrader{Protocol: func([]byte) bool { return true }}
			if _, err := u.Upgrade(far); err != nil {
				return // the client has given up
			}
			ws.WriteFrame(far, ws.NewTextFrame([]byte(`{"type":"system","event":"connected","connectionId":"c","reconnectionToken":"t"}`)))
			handle(far)
		}()
		return near, nil
	}}
	return o
}

// Deliveries are acknowledged once a second, if there were any, and at once when
// there are many.
func TestSequenceAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type ack struct {
			at   time.Duration
			text string
		}
		var acks []ack
		start := time.Now()
		send := make(chan int) // sequence ids up to this one
		o := reliablePipe(t, func(c net.Conn) {
			go func() {
				seq := 0
				for most := range send {
					for ; seq < most; seq++ {
						ws.WriteFrame(c, ws.NewTextFrame(fmt.Appendf(nil, `{"type":"message","dataType":"json","data":%d,"sequenceId":%d}`, seq, seq+1)))
					}
				}
			}()
			for {
				f, err := ws.ReadFrame(c)
				if err != nil {
					return
				}
				if f.Header.OpCode == ws.OpText {
					acks = append(acks, ack{time.Since(start), string(ws.UnmaskFrameInPlace(f).Payload)})
				}
			}
		})
		o.Buffer = 1000
		c, err := client.Dial(t.Context(), "ws://in.memory/client/hubs/chat", o)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond) // of synctest, as all below
		send <- 3
		time.Sleep(3 * time.Second)
		send <- 304 // one more than may wait
		time.Sleep(10 * time.Second)
		close(send)
		c.Close()
		want := []ack{
			{2 * time.Second, `{"type":"sequenceAck","sequenceId":3}`},
			{4500 * time.Millisecond, `{"type":"sequenceAck","sequenceId":304}`},
		}
		if !reflect.DeepEqual(acks, want) {
			t.Errorf("acks %v, want %v", acks, want)
		}
	})
}

// A recovered wire begins with what was received: its ack may have been lost.
func TestRecoveryRepeatsTheAck(t *testing.T) {
	s := serve(t, &server{})
	c := dial(t, s, reliable())
	receive[client.Connected](t, c)
	if err := c.SendEvent(within(t), "x", text(""), nil); err != nil {
		t.Fatal(err)
	}
	wantText(t, c, "reply")
	s.cut(0)
	receive[client.Recovered](t, c)
	if err := c.Ping(within(t)); err != nil {
		t.Fatal(err)
	}
	l := s.peer(1).life
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.acks) == 0 || l.acks[len(l.acks)-1] != 1 || len(l.kept) != 0 {
		t.Errorf("the server saw the acks %v and keeps %q", l.acks, l.kept)
	}
}

// Wires that break while many requests are under way: each is carried out once,
// and each of its messages arrives once, in the order of its sender.
func TestRecoveryUnderRequests(t *testing.T) {
	s := serve(t, &server{})
	ctx := within(t)
	c := dial(t, s, reliable())
	receive[client.Connected](t, c)
	if err := c.JoinGroup(ctx, "news"); err != nil {
		t.Fatal(err)
	}
	const senders, each = 8, 50
	var wg sync.WaitGroup
	for i := range senders {
		wg.Go(func() {
			for j := range each {
				if err := c.SendToGroup(ctx, "news", text(fmt.Sprintf("%d %d", i, j)), nil); err != nil {
					t.Errorf("sender %d, message %d: %v", i, j, err)
					return
				}
			}
		})
	}
	var next [senders]int
	recoveries := 0
	for got := 0; got < senders*each; {
		e, err := c.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		switch e := e.(type) {
		case client.Recovered:
			recoveries++
		case client.Message:
			var i, j int
			fmt.Sscan(string(e.Payload.Data), &i, &j)
			if j != next[i] {
				t.Fatalf("received message %d of sender %d, want %d", j, i, next[i])
			}
			next[i]++
			if got++; got%40 == 0 && got < senders*each {
				s.newest().Close()
			}
		}
	}
	wg.Wait()
	if recoveries == 0 {
		t.Error("no wire was lost")
	}
}
