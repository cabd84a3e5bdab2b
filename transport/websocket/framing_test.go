package websocket_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// echoEngine returns an engine whose handler gives raw clients back what they say.
func echoEngine(t testing.TB, o engine.Options) *engine.Engine {
	t.Helper()
	hub := &engine.HubOptions{KeepAlive: -1, Handlers: []engine.HandlerRule{{
		UserEvents: "*",
		Handler: &engine.HandlerFuncs{OnUserEvent: func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
			return &engine.EventReply{Payload: &e.Payload}, nil
		}},
	}}}
	if o.Hubs == nil {
		o.Hubs = func(engine.HubName) *engine.HubOptions { return hub }
	}
	e, err := engine.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// reply is a frame that the server is expected to send.
type reply struct {
	op      ws.OpCode
	payload string // of a close frame: the whole payload
}

func closing(code engine.CloseCode, reason string) reply {
	return reply{ws.OpClose, string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason}
}

const (
	badFrame = "The client frame is invalid."
	badUTF8  = "The client message is not valid UTF-8 text."
	tooLarge = "The client message is too large."
)

const testLimit = 1 << 10

var framing = []struct {
	name string
	send []byte
	want []reply
}{
	{"text", frame(0x81, []byte("hi")), []reply{{ws.OpText, "hi"}}},
	{"empty text", frame(0x81, nil), []reply{{ws.OpText, ""}}},
	{"binary of every length form", join(
		frame(0x82, fill(125)), frame(0x82, fill(126)), frame(0x82, fill(127)), frame(0x82, fill(testLimit)),
	), []reply{
		{ws.OpBinary, string(fill(125))}, {ws.OpBinary, string(fill(126))},
		{ws.OpBinary, string(fill(127))}, {ws.OpBinary, string(fill(testLimit))},
	}},
	{"fragments", join(frame(0x01, []byte("fra")), frame(0x00, []byte("gm")), frame(0x80, []byte("ents"))),
		[]reply{{ws.OpText, "fragments"}}},
	{"empty fragments", join(frame(0x02, nil), frame(0x00, nil), frame(0x80, nil)), []reply{{ws.OpBinary, ""}}},
	{"a ping", frame(0x89, []byte("life")), []reply{{ws.OpPong, "life"}}},
	{"an empty ping", frame(0x89, nil), []reply{{ws.OpPong, ""}}},
	{"the longest ping", frame(0x89, fill(125)), []reply{{ws.OpPong, string(fill(125))}}},
	{"a pong nobody asked for", join(frame(0x8a, []byte("x")), frame(0x89, nil)), []reply{{ws.OpPong, ""}}},
	{"a ping between fragments", join(frame(0x01, []byte("a")), frame(0x89, []byte("p")), frame(0x80, []byte("b"))),
		[]reply{{ws.OpPong, "p"}, {ws.OpText, "ab"}}},
	{"UTF-8 across fragments", join(frame(0x01, []byte("\xce")), frame(0x00, []byte("\xba\xe1\xbd")), frame(0x80, []byte("\xb9"))),
		[]reply{{ws.OpText, "\u03ba\u1f79"}}},
	{"many messages at once", join(frame(0x82, []byte("1")), frame(0x82, []byte("2")), frame(0x82, []byte("3"))),
		[]reply{{ws.OpBinary, "1"}, {ws.OpBinary, "2"}, {ws.OpBinary, "3"}}},

	{"a goodbye is answered", frame(0x88, []byte("\x03\xe8bye")), []reply{closing(1000, "")}},
	{"a goodbye without a status", frame(0x88, nil), []reply{{ws.OpClose, ""}}},
	{"a goodbye of the application's own", frame(0x88, []byte("\x0f\xa1")), []reply{closing(4001, "")}},
	{"nothing after a goodbye counts", join(frame(0x88, []byte("\x03\xe8")), frame(0x89, []byte("x")), []byte{0xff, 0xff}),
		[]reply{closing(1000, "")}},
	{"a goodbye between fragments", join(frame(0x01, []byte("a")), frame(0x88, []byte("\x03\xe8"))), []reply{closing(1000, "")}},
	{"half a status", frame(0x88, []byte{3}), []reply{closing(1002, badFrame)}},
	{"status 999", frame(0x88, []byte{0x03, 0xe7}), []reply{closing(1002, badFrame)}},
	{"status 1004", frame(0x88, []byte{0x03, 0xec}), []reply{closing(1002, badFrame)}},
	{"status 1005", frame(0x88, []byte{0x03, 0xed}), []reply{closing(1002, badFrame)}},
	{"status 1006", frame(0x88, []byte{0x03, 0xee}), []reply{closing(1002, badFrame)}},
	{"status 1015", frame(0x88, []byte{0x03, 0xf7}), []reply{closing(1002, badFrame)}},
	{"status 2999", frame(0x88, []byte{0x0b, 0xb7}), []reply{closing(1002, badFrame)}},
	{"status 5000", frame(0x88, []byte{0x13, 0x88}), []reply{closing(1002, badFrame)}},
	{"a goodbye that is not UTF-8", frame(0x88, []byte("\x03\xe8\xff")), []reply{closing(1007, badUTF8)}},

	{"not masked", []byte{0x81, 2, 'h', 'i'}, []reply{closing(1002, badFrame)}},
	{"reserved bit 1", frame(0xc1, []byte("x")), []reply{closing(1002, badFrame)}},
	{"reserved bit 2", frame(0xa1, []byte("x")), []reply{closing(1002, badFrame)}},
	{"reserved bit 3", frame(0x91, []byte("x")), []reply{closing(1002, badFrame)}},
	{"reserved bit on a ping", frame(0xc9, nil), []reply{closing(1002, badFrame)}},
	{"reserved data opcode", frame(0x83, nil), []reply{closing(1002, badFrame)}},
	{"reserved control opcode", frame(0x8b, nil), []reply{closing(1002, badFrame)}},
	{"a fragmented ping", frame(0x09, nil), []reply{closing(1002, badFrame)}},
	{"a ping of 126 bytes", frame(0x89, fill(126)), []reply{closing(1002, badFrame)}},
	{"a continuation of nothing", frame(0x80, []byte("x")), []reply{closing(1002, badFrame)}},
	{"a continuation after the last fragment", join(frame(0x02, []byte("a")), frame(0x80, []byte("b")), frame(0x80, []byte("c"))),
		[]reply{closing(1002, badFrame)}},
	{"a message inside another", join(frame(0x01, []byte("a")), frame(0x81, []byte("b"))), []reply{closing(1002, badFrame)}},
	{"a length in too many bytes", []byte{0x82, 0xfe, 0, 5}, []reply{closing(1002, badFrame)}},
	{"a longer length in too many bytes", []byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 1, 0}, []reply{closing(1002, badFrame)}},
	{"a length beyond 63 bits", []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0}, []reply{closing(1002, badFrame)}},
	{"text that is not UTF-8", frame(0x81, []byte("a\xff")), []reply{closing(1007, badUTF8)}},
	{"a surrogate", frame(0x81, []byte("\xed\xa0\x80")), []reply{closing(1007, badUTF8)}},
	{"text that ends inside a character", frame(0x81, []byte("\xce")), []reply{closing(1007, badUTF8)}},
	{"fragments that end inside a character", join(frame(0x01, []byte("\xce")), frame(0x80, nil)), []reply{closing(1007, badUTF8)}},
	{"bad UTF-8 is refused before the message is complete", frame(0x01, []byte("\xce\xba\xe1\xbd\xb9\xf4\x90")), []reply{closing(1007, badUTF8)}},

	{"one byte over the limit", frame(0x82, fill(testLimit+1)), []reply{closing(1009, tooLarge)}},
	{"over the limit in sum", join(frame(0x02, fill(testLimit/2)), frame(0x00, fill(testLimit/2)), frame(0x80, fill(1))),
		[]reply{closing(1009, tooLarge)}},
	{"the announcement alone is too much", frame(0x82, fill(1<<20))[:10+4], []reply{closing(1009, tooLarge)}},
	{"a goodbye behind what was too large", join(frame(0x82, fill(testLimit+1)), frame(0x88, []byte("\x03\xf1"))),
		[]reply{closing(1009, tooLarge)}},
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// TestFraming sends each case at once, and byte by byte, over both paths. The
// cases are those of RFC 6455 that the Autobahn suite made known.
func TestFraming(t *testing.T) {
	for _, n := range []network{{}, {own: true}, {portable: true}} {
		for _, whole := range []bool{true, false} {
			t.Run(fmt.Sprintf("portable=%v/whole=%v", n.portable, whole), func(t *testing.T) {
				limits := engine.Limits{MessageBytes: testLimit, CloseTimeout: 500 * time.Millisecond}
				e := echoEngine(t, engine.Options{Limits: limits})
				guests := &transporttest.Guests{}
				s := serve(t, e, guests, n, websocket.Options{})
				target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{})
				for _, c := range framing {
					t.Run(c.name, func(t *testing.T) {
						cl, res := s.dial(t, target, "", nil)
						if cl == nil {
							t.Fatal(res)
						}
						go func() {
							if whole {
								cl.write(c.send)
								return
							}
							for i := range c.send {
								if cl.write(c.send[i:i+1]) != nil {
									return // the server has closed
								}
							}
						}()
						for _, w := range c.want {
							if w.op == ws.OpClose {
								cl.skipData() // replies to what was in order may still come first
							}
							if got := string(cl.next(w.op)); got != w.payload {
								t.Fatalf("received %x %q, expected %q", w.op, got, w.payload)
							}
						}
					})
				}
			})
		}
	}
}

// TestCompression is RFC 7692: what is negotiated, and that a message comes back
// whatever its form.
func TestCompression(t *testing.T) {
	e := echoEngine(t, engine.Options{Limits: engine.Limits{MessageBytes: 1 << 16}})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, network{}, websocket.Options{Compression: true})
	target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{})
	dial := func(t *testing.T, offer string) *conn {
		c, res := s.dial(t, target, "", map[string][]string{"Sec-WebSocket-Extensions": {offer}})
		if c == nil {
			t.Fatal(res)
		}
		return c
	}
	for offer, accepted := range map[string]bool{
		"permessage-deflate":                                                true,
		"permessage-deflate; client_max_window_bits":                        true,
		"permessage-deflate; client_max_window_bits=10":                     true,
		"permessage-deflate; server_no_context_takeover":                    true,
		"x-webkit-deflate-frame, permessage-deflate":                        true,
		"permessage-deflate; server_max_window_bits=15":                     true,
		"permessage-deflate; server_max_window_bits=10":                     true,
		"permessage-deflate; server_max_window_bits=10, permessage-deflate": true,
		"permessage-deflate; surprise":                                      false,
		"permessage-deflate; client_max_window_bits=7":                      false,
		"permessage-deflate; server_no_context_takeover=1":                  false,
		"permessage-bzip2":                                                  false,
	} {
		t.Run(offer, func(t *testing.T) {
			if got := dial(t, offer).deflated; got != accepted {
				t.Fatalf("accepted: %v", got)
			}
		})
	}
	t.Run("messages", func(t *testing.T) {
		c := dial(t, "permessage-deflate")
		for _, text := range []string{"", "short", strings.Repeat("long and regular ", 3000)} {
			packed := compress([]byte(text))
			for name, b := range map[string][]byte{
				"plain":      frame(0x81, []byte(text)),
				"compressed": frame(0xc1, packed),
				"fragments":  join(frame(0x41, packed[:1]), frame(0x89, nil), frame(0x80, packed[1:])),
			} {
				if err := c.write(b); err != nil {
					t.Fatal(err)
				}
				if name == "fragments" {
					c.next(ws.OpPong)
				}
				if got := string(c.next(ws.OpText)); got != text {
					t.Fatalf("%s: %d bytes came back as %d", name, len(text), len(got))
				}
			}
		}
	})
	t.Run("a bomb", func(t *testing.T) {
		c := dial(t, "permessage-deflate")
		c.write(frame(0xc2, compress(make([]byte, 1<<20))))
		c.expectClose(engine.CloseTooLarge)
	})
	t.Run("no deflate stream", func(t *testing.T) {
		c := dial(t, "permessage-deflate")
		c.write(frame(0xc2, []byte{0xff, 0xff, 0xff}))
		c.expectClose(engine.CloseInvalidData)
	})
	t.Run("compressed text that is not UTF-8", func(t *testing.T) {
		c := dial(t, "permessage-deflate")
		c.write(frame(0xc1, compress([]byte("a\xff"))))
		c.expectClose(engine.CloseInvalidData)
	})
	for name, b := range map[string][]byte{
		"a compressed ping":         frame(0xc9, nil),
		"a compressed continuation": join(frame(0x01, nil), frame(0xc0, nil)),
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, "permessage-deflate")
			c.write(b)
			c.expectClose(engine.CloseProtocolError)
		})
	}
}
