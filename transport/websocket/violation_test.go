package websocket_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// paths are the ways in which bytes travel.
var paths = map[string]network{"descriptor": {}, "portable": {portable: true}, "TLS": {tls: true}}

// violations break the framing, and are followed by nothing.
var violations = map[string][]byte{
	"a reserved opcode":                  {0x83, 0x80, 0, 0, 0, 0},
	"a reserved opcode with a payload":   frame(0x8b, fill(200)),
	"reserved bits":                      frame(0xf1, []byte("x")),
	"not masked":                         {0x81, 2, 'h', 'i'},
	"a fragmented ping":                  join(frame(0x09, []byte("a")), frame(0x80, []byte("b"))),
	"a ping of 126 bytes":                frame(0x89, fill(126)),
	"a continuation of nothing":          frame(0x80, fill(70_000)),
	"a message inside another":           join(frame(0x01, []byte("a")), frame(0x81, []byte("b"))),
	"a length in too many bytes":         append([]byte{0x82, 0xfe, 0, 5, 0, 0, 0, 0}, "12345"...),
	"a length that no payload has":       {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4},
	"text that is not UTF-8":             frame(0x81, []byte("a\xff")),
	"a message over the limit":           frame(0x82, fill(1<<17)),
	"a message that does not decompress": frame(0xc2, []byte{0xff, 0xff, 0xff}),
}

// TestViolationEnds is that after the server's close frame the connection is closed as
// soon as the client has answered, and not when the time for that is over.
func TestViolationEnds(t *testing.T) {
	for name, n := range paths {
		e := echoEngine(t, engine.Options{Limits: engine.Limits{MessageBytes: 1 << 16, CloseTimeout: time.Hour}})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, n, websocket.Options{Compression: true})
		target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{})
		dial := func(t *testing.T) *conn {
			c, res := s.dial(t, target, "", map[string][]string{"Sec-WebSocket-Extensions": {"permessage-deflate"}})
			if c == nil {
				t.Fatal(res)
			}
			return c
		}
		for what, b := range violations {
			for answer, closing := range map[string][]byte{
				"an answer": closeFrame(1000), "an answer without a status": frame(0x88, nil),
				"an answer that is broken, too": {0x88, 0},
			} {
				t.Run(name+"/"+what+"/"+answer, func(t *testing.T) {
					c := dial(t)
					c.write(b)
					for op := ws.OpContinuation; op != ws.OpClose; {
						var err error
						if op, _, err = c.readFrame(); err != nil {
							t.Fatal(err)
						}
					}
					c.write(closing)
					c.awaitEnd()
				})
			}
		}
		t.Run(name+"/a close frame with a status that must not be sent", func(t *testing.T) {
			c := dial(t)
			c.write(closeFrame(1005))
			c.expectClose(engine.CloseProtocolError)
			c.awaitEnd()
		})
		t.Run(name+"/a close frame that is too long", func(t *testing.T) {
			c := dial(t)
			c.write(frame(0x88, append([]byte{3, 232}, fill(124)...)))
			c.expectClose(engine.CloseProtocolError)
			c.awaitEnd()
		})
	}
}

// TestViolationOfProtocol is the same for the clients of a [websocket.Protocol], before
// and after their connections begin.
func TestViolationOfProtocol(t *testing.T) {
	for name, n := range paths {
		for _, begun := range []bool{false, true} {
			for _, what := range []string{"a reserved opcode", "a continuation of nothing", "not masked"} {
				t.Run(fmt.Sprintf("%s/begun=%v/%s", name, begun, what), func(t *testing.T) {
					said := make(chan string, 1)
					s, _, target := toyLimited(t, toy{said: said}, n, websocket.Options{}, engine.Limits{CloseTimeout: time.Hour})
					c, res := s.dial(t, target, "toy", nil)
					if c == nil {
						t.Fatal(res)
					}
					if begun {
						c.write(frame(0x82, []byte("ann.")))
					}
					c.write(violations[what])
					c.expectClose(map[bool]engine.CloseCode{false: engine.CloseProtocolError, true: engine.CloseNormal}[begun])
					c.write(closeFrame(1000))
					c.awaitEnd()
				})
			}
		}
	}
}

// slowEngine returns an engine whose handler answers each event once it may, or its
// context ends.
func slowEngine(t *testing.T, limits engine.Limits) (e *engine.Engine, may chan struct{}) {
	t.Helper()
	may = make(chan struct{})
	hub := &engine.HubOptions{KeepAlive: -1, Handlers: []engine.HandlerRule{{
		UserEvents: "*",
		Handler: &engine.HandlerFuncs{OnUserEvent: func(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
			select {
			case <-may:
				return &engine.EventReply{Payload: &e.Payload}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}},
	}}}
	e, err := engine.New(&engine.Options{Limits: limits, Hubs: func(engine.HubName) *engine.HubOptions { return hub }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, may
}

// TestAnswersBeforeViolation is that messages which came before a violation of the
// framing are answered, and nothing after it is.
func TestAnswersBeforeViolation(t *testing.T) {
	for name, n := range paths {
		for what, b := range violations {
			t.Run(name+"/"+what, func(t *testing.T) {
				e, may := slowEngine(t, engine.Limits{MessageBytes: 1 << 16, CloseTimeout: time.Hour})
				guests := &transporttest.Guests{}
				s := serve(t, e, guests, n, websocket.Options{Compression: true})
				c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "",
					map[string][]string{"Sec-WebSocket-Extensions": {"permessage-deflate"}})
				if c == nil {
					t.Fatal(res)
				}
				c.write(join(frame(0x81, []byte("one")), frame(0x89, []byte("life")), frame(0x81, []byte("two")), b,
					frame(0x89, []byte("too late")), frame(0x81, []byte("three"))))
				expectFrame(t, c, ws.OpPong, "life")
				may <- struct{}{}
				expectFrame(t, c, ws.OpText, "one")
				may <- struct{}{}
				expectFrame(t, c, ws.OpText, "two")
				if op, p, err := c.readFrame(); op != ws.OpClose {
					t.Fatalf("received %x %.20q, %v", op, p, err)
				}
				c.write(closeFrame(1000))
				c.awaitEnd()
			})
		}
	}
}

// TestGoodbyeWhileAnswering is a client that breaks the framing and says goodbye, or
// closes its half, while a message of its own is being answered.
func TestGoodbyeWhileAnswering(t *testing.T) {
	for name, n := range map[string]network{"descriptor": {}, "portable": {portable: true}} {
		for _, half := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/half=%v", name, half), func(t *testing.T) {
				e, may := slowEngine(t, engine.Limits{CloseTimeout: time.Hour})
				guests := &transporttest.Guests{}
				s := serve(t, e, guests, n, websocket.Options{})
				c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "", nil)
				if c == nil {
					t.Fatal(res)
				}
				c.write(join(frame(0x81, []byte("one")), violations["a reserved opcode"], closeFrame(1000)))
				if half {
					c.Conn.(*net.TCPConn).CloseWrite()
				}
				may <- struct{}{}
				expectFrame(t, c, ws.OpText, "one")
				c.expectClose(engine.CloseProtocolError)
				c.awaitEnd()
			})
		}
	}
}

// TestViolationWithoutAnswer is that a handler which does not answer holds the close
// frame back for CloseTimeout and no longer, and a client that does not answer its
// connection for as long again.
func TestViolationWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound = 3 * time.Second
		e, _ := slowEngine(t, engine.Limits{CloseTimeout: bound})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, network{pipe: true}, websocket.Options{})
		c, res := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{}), "", nil)
		if c == nil {
			t.Fatal(res)
		}
		began := time.Now()
		c.write(join(frame(0x81, []byte("one")), violations["a reserved opcode"]))
		c.expectClose(engine.CloseProtocolError)
		if took := time.Since(began); took != bound {
			t.Errorf("the close frame came after %s", took)
		}
		io.Copy(io.Discard, c.r)
		if took := time.Since(began); took < 2*bound || took > 2*bound+time.Second {
			t.Errorf("the connection ended after %s", took)
		}
	})
}

// TestCompressedMessageAtTheLimit is that the limit is for what a message says, whether
// or not deflate makes it longer.
func TestCompressedMessageAtTheLimit(t *testing.T) {
	const limit = 1 << 20
	e := echoEngine(t, engine.Options{})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, network{}, websocket.Options{Compression: true})
	target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{})
	random := make([]byte, limit+1)
	x := uint32(1)
	for i := range random {
		x = x*1664525 + 1013904223
		random[i] = byte(x >> 24)
	}
	for _, size := range []int{1_048_300, limit, limit + 1} {
		packed := compress(random[:size])
		if len(packed) <= size {
			t.Fatalf("%d bytes became %d", size, len(packed))
		}
		half := len(packed) / 2
		for form, b := range map[string][]byte{"one frame": frame(0xc2, packed), "fragments": join(frame(0x42, packed[:half]), frame(0x80, packed[half:]))} {
			c, _ := s.dial(t, target, "", map[string][]string{"Sec-WebSocket-Extensions": {"permessage-deflate"}})
			go c.write(b)
			if size > limit {
				c.expectClose(engine.CloseTooLarge)
				continue
			}
			if got := c.next(ws.OpBinary); string(got) != string(random[:size]) {
				t.Errorf("%d bytes in %s: %d came back", size, form, len(got))
			}
		}
	}
}

// TestClientWindow is a client whose messages refer to those before them.
func TestClientWindow(t *testing.T) {
	e := echoEngine(t, engine.Options{})
	guests := &transporttest.Guests{}
	const room = 3 << 15
	s := serve(t, e, guests, network{}, websocket.Options{Compression: true, CompressionMemory: room})
	target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{})
	dial := func(offer string) *conn {
		c, res := s.dial(t, target, "", map[string][]string{"Sec-WebSocket-Extensions": {offer}})
		if c == nil {
			t.Fatal(res)
		}
		return c
	}
	var clients []*conn
	for range 3 {
		clients = append(clients, dial("permessage-deflate; client_max_window_bits"))
	}
	for i, c := range clients {
		if !c.deflated {
			t.Fatalf("client %d of 3 has no compression", i)
		}
		w := newTakeover()
		for _, text := range []string{"the first message", "the first message again", strings.Repeat("the first message ", 5000), "the first message"} {
			c.write(frame(0xc1, w.compress([]byte(text))))
			if got := string(c.next(ws.OpText)); got != text {
				t.Fatalf("client %d: %.40q came back as %.40q", i, text, got)
			}
		}
	}
	if dial("permessage-deflate; client_max_window_bits").deflated {
		t.Error("a fourth client has compression, for whose window there is no room")
	}
	if !dial("permessage-deflate; client_no_context_takeover").deflated {
		t.Error("a client that needs no window has no compression")
	}
	clients[0].Close(engine.CloseNormal, "")
	clients[1].Drop()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("clients that are gone keep their windows")
		}
		if a := dial("permessage-deflate"); a.deflated {
			if b := dial("permessage-deflate"); b.deflated {
				break
			}
			a.Drop()
		}
	}
}
