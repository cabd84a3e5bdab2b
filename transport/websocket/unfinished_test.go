package websocket_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// unfinished are the beginnings of messages that never end, and what may be sent
// again and again without ending them.
var unfinished = []struct {
	name        string
	begin, more []byte
}{
	{"the first byte of a header", []byte{0x81}, nil},
	{"a header without its mask", []byte{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0}, nil},
	{"a payload that drips", []byte{0x82, 0xfe, 0xff, 0xff, 1, 2, 3, 4}, []byte{1}},
	{"fragments with pings between them", frame(0x01, []byte("abc")), append(frame(0x00, []byte("d")), frame(0x89, nil)...)},
	{"a ping without its payload", []byte{0x89, 0x85, 1, 2, 3, 4, 'p'}, nil},
	{"a ping inside a fragmented message", append(frame(0x01, []byte("abc")), 0x89), nil},
	{"a compressed message", frame(0x41, []byte("abc")), frame(0x00, []byte("d"))},
}

// drip sends the beginning of a message and then goes on with more until c is
// closed, however long that takes. It answers nothing.
func drip(c *conn, begin, more []byte, every time.Duration) (stop func()) {
	done, over := make(chan struct{}), make(chan struct{})
	c.write(begin)
	go func() {
		defer close(over)
		for len(more) > 0 {
			select {
			case <-done:
				return
			case <-time.After(every):
				c.write(more) // until it cannot
			}
		}
	}()
	return func() { close(done); <-over }
}

// A message that does not become complete ends its connection in time, whatever
// else arrives meanwhile.
func TestUnfinishedMessage(t *testing.T) {
	for _, test := range unfinished {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := echoEngine(t, engine.Options{Limits: engine.Limits{MessageTimeout: 30 * time.Second}})
				guests := &transporttest.Guests{}
				s := serve(t, e, guests, network{pipe: true, compressed: true}, websocket.Options{})
				c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "", map[string][]string{"Sec-Websocket-Extensions": {"permessage-deflate"}})
				if c == nil {
					t.Fatal(res)
				}
				time.Sleep(time.Hour) // idle, which may last
				began := time.Now()
				stop := drip(c, test.begin, test.more, time.Second)
				text := c.expectClose(engine.ClosePolicy)
				if took := time.Since(began); took < 30*time.Second || took > 31*time.Second {
					t.Errorf("it was closed after %s", took)
				}
				if want := "The message was not complete within 30s [limits.messageTimeout]."; text != want {
					t.Errorf("it was closed with %q; want %q", text, want)
				}
				c.Drop()
				stop()
				time.Sleep(time.Minute)
				synctest.Wait()
				if n := e.Stats().UnfinishedBytes; n != 0 {
					t.Errorf("%d bytes are still counted", n)
				}
				e.Close()
			})
		})
	}
}

// The same over every kind of wire.
func TestUnfinishedMessageOnAllWires(t *testing.T) {
	for name, n := range map[string]network{"sockets": {}, "own": {own: true}, "portable": {portable: true}, "TLS": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			leakless(t, func(t *testing.T) {
				e := echoEngine(t, engine.Options{Limits: engine.Limits{MessageTimeout: 50 * time.Millisecond}})
				guests := &transporttest.Guests{}
				s := serve(t, e, guests, n, websocket.Options{})
				for _, test := range unfinished[:len(unfinished)-1] { // the last one needs the extension
					c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "", nil)
					if c == nil {
						t.Fatal(res)
					}
					stop := drip(c, test.begin, test.more, 10*time.Millisecond)
					if text := c.expectClose(engine.ClosePolicy); !strings.Contains(text, "[limits.messageTimeout]") {
						t.Errorf("%s was closed with %q", test.name, text)
					}
					c.Drop()
					stop()
				}
			})
		})
	}
}

// Over the bound of the node the one with the largest message is told so; the
// others go on, and no memory is counted when their messages are complete.
func TestTotalUnfinishedBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := echoEngine(t, engine.Options{Limits: engine.Limits{TotalUnfinishedBytes: 200_000}})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, network{pipe: true}, websocket.Options{})
		var clients []*conn
		for _, size := range []int{20_000, 60_000, 30_000} {
			c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "", nil)
			if c == nil {
				t.Fatal(res)
			}
			clients = append(clients, c)
			c.write(frame(0x01, make([]byte, size)))
		}
		synctest.Wait()
		if n := e.Stats().UnfinishedBytes; n < 110_000 || n > 200_000 {
			t.Fatalf("%d bytes are counted of 110,000", n)
		}
		go clients[1].write(frame(0x00, make([]byte, 150_000)))
		if text := clients[1].expectClose(engine.ClosePolicy); text != "Unfinished messages have over 200000 bytes, this one the most [limits.totalUnfinishedBytes]." {
			t.Errorf("it was closed with %q", text)
		}
		clients[1].Drop()
		for i, size := range map[int]int{0: 20_000, 2: 30_000} {
			clients[i].write(frame(0x80, []byte("end")))
			if p := clients[i].next(ws.OpText); len(p) != size+3 {
				t.Errorf("client %d got an echo of %d bytes", i, len(p))
			}
			clients[i].Drop()
		}
		synctest.Wait()
		if n := e.Stats().UnfinishedBytes; n != 0 {
			t.Errorf("%d bytes are still counted", n)
		}
		e.Close()
	})
}

// floods are frames that carry no data, each as a client of a subprotocol sends it.
var floods = []struct {
	name, protocol string
	first          []byte // sent once
	frame          []byte
}{
	{"pings", "", nil, frame(0x89, []byte("p"))},
	{"pongs", "", nil, frame(0x8a, nil)},
	{"empty fragments", "", frame(0x01, nil), frame(0x00, nil)},
	{"JSON pings", azureJSON, nil, frame(0x81, []byte(`{"type":"ping"}`))},
	{"protobuf pings", protobufName, nil, frame(0x82, []byte{0x4a, 0})},
	{"acknowledgements of nothing", reliableJSON, nil, frame(0x81, []byte(`{"type":"sequenceAck","sequenceId":5}`))},
	{"acknowledgements where there are none", azureJSON, nil, frame(0x81, []byte(`{"type":"sequenceAck","sequenceId":5}`))},
	{"cancelled invocations", azureJSON, nil, frame(0x81, []byte(`{"type":"cancelInvocation","invocationId":"i"}`))},
}

// A client that sends nothing but frames without data is stopped for a second each
// time that it is too far ahead, and closed when it goes on.
func TestFloodIsPausedThenClosed(t *testing.T) {
	for _, test := range floods {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := echoEngine(t, engine.Options{Limits: engine.Limits{ControlRate: 100}})
				guests := &transporttest.Guests{}
				s := serve(t, e, guests, network{pipe: true}, websocket.Options{})
				c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), test.protocol, nil)
				if c == nil {
					t.Fatal(res)
				}
				c.write(test.first)
				began, taken := time.Now(), 0
				c.SetWriteDeadline(time.Time{})
				over := make(chan struct{})
				go func() {
					defer close(over)
					for { // one by one: the pipe takes what is read
						if _, err := c.Conn.Write(test.frame); err != nil {
							return
						}
						taken++
					}
				}()
				text := c.expectClose(engine.ClosePolicy)
				if want := "The client sends more than 100 pings, empty frames and the like a second [limits.controlRate]."; text != want {
					t.Errorf("it was closed with %q; want %q", text, want)
				}
				if took := time.Since(began); took < 4*time.Second || took > 10*time.Second {
					t.Errorf("it was closed after %s", took)
				}
				c.Drop()
				<-over
				if taken < 600 || taken > 1200 {
					t.Errorf("%d frames were taken", taken)
				}
				e.Close()
			})
		})
	}
}

// Over every kind of wire, where a read brings thousands of them.
func TestFloodOnAllWires(t *testing.T) {
	for name, n := range map[string]network{"sockets": {}, "own": {own: true}, "portable": {portable: true}, "TLS": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			leakless(t, func(t *testing.T) {
				clock := transporttest.NewClock() // ten times as fast as the machine's
				e := echoEngine(t, engine.Options{Clock: clock})
				guests := &transporttest.Guests{}
				s := serve(t, e, guests, n, websocket.Options{})
				c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "", nil)
				if c == nil {
					t.Fatal(res)
				}
				closed, over := make(chan struct{}), make(chan struct{})
				var ticking sync.WaitGroup
				ticking.Go(func() {
					for {
						select {
						case <-closed:
							return
						case <-time.After(time.Millisecond):
							clock.Advance(10 * time.Millisecond)
						}
					}
				})
				go func() {
					defer close(over)
					for c.write([]byte(strings.Repeat(string(frame(0x89, nil)), 5000))) == nil {
					}
				}()
				pongs := 0
				for {
					op, p, err := c.readFrame()
					if err != nil {
						t.Fatal(err)
					}
					if op == ws.OpClose {
						if !strings.Contains(string(p), "[limits.controlRate]") {
							t.Errorf("it was closed with %q", p)
						}
						break
					}
					pongs++
				}
				close(closed)
				ticking.Wait()
				if pongs < 600 || pongs > 2000 {
					t.Errorf("%d pings were answered", pongs)
				}
				c.Drop()
				<-over
			})
		})
	}
}

// What clients send in earnest is not bounded: pings as fast as allowed, and
// acknowledgements of every delivery.
func TestSteadyPingsAndAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := echoEngine(t, engine.Options{})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, network{pipe: true}, websocket.Options{})
		c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{Groups: []engine.GroupName{"g"}}), reliableJSON, nil)
		if c == nil {
			t.Fatal(res)
		}
		if _, _, err := c.Receive(); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			c.alive()
			time.Sleep(10 * time.Millisecond)
		}
		for i := range 2000 { // within no time at all
			if err := e.Hub("h").SendToGroup(t.Context(), "g", engine.Payload{Data: []byte("x")}, nil); err != nil {
				t.Fatal(err)
			}
			c.hears(told(i+1, "x"))
			c.says(`{"type":"sequenceAck","sequenceId":%d}`, i+1)
		}
		c.alive()
		c.Drop()
		e.Close()
	})
}

// However many messages one read brings, all are carried out in order.
func TestManyMessagesInOneRead(t *testing.T) {
	for name, n := range map[string]network{"sockets": {}, "own": {own: true}, "portable": {portable: true}, "TLS": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			e := echoEngine(t, engine.Options{})
			guests := &transporttest.Guests{}
			s := serve(t, e, guests, n, websocket.Options{})
			c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "", nil)
			if c == nil {
				t.Fatal(res)
			}
			const messages = 1000
			var all []byte
			for i := range messages {
				all = append(all, frame(0x81, fmt.Append(nil, i))...)
			}
			go c.write(all)
			for i := range messages {
				f, p, err := c.Receive()
				if err != nil || f != subprotocol.TextFrame || string(p) != fmt.Sprint(i) {
					t.Fatalf("received %s, %v; want %d", p, err, i)
				}
			}
		})
	}
}
