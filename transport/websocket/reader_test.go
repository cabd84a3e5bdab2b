package websocket

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// record is a receiver that writes down what it is told.
type record struct {
	events []string
	muted  bool
}

func (r *record) message(op ws.OpCode, compressed bool, p []byte) bool {
	if op == ws.OpText && !compressed && !utf8.Valid(p) {
		r.refuse(errNotUTF8) // what the decoder of a whole message does
	}
	if !r.muted {
		r.events = append(r.events, fmt.Sprintf("message %x %v %x", op, compressed, p))
	}
	return true
}

func (r *record) control(op ws.OpCode, p []byte) bool {
	r.events = append(r.events, fmt.Sprintf("control %x %x", op, p))
	return true
}

func (r *record) refuse(err *frameError) {
	if !r.muted {
		r.muted = true
		r.events = append(r.events, err.detail)
	}
}

const fuzzLimit = 1 << 12

// read feeds b in chunks of the sizes that next returns, and checks the bound on
// what is kept.
func read(t *testing.T, b []byte, deflate bool, next func() int) []string {
	r := reader{limit: fuzzLimit, deflate: deflate}
	var to record
	b = bytes.Clone(b)
	for len(b) > 0 {
		chunk := b[:min(len(b), next())]
		n, more, err := r.feed(chunk, &to)
		if err != nil {
			to.events = append(to.events, err.detail)
			break
		}
		if !more || n == 0 {
			t.Fatalf("took %d of %d bytes, more: %v", n, len(chunk), more)
		}
		if r.part != nil && (len(r.part.data) > fuzzLimit || cap(r.part.data) > 4*fuzzLimit || len(r.part.ctl) > maxControl) {
			t.Fatalf("keeps %d bytes", len(r.part.data))
		}
		if r.mute && r.part != nil && len(r.part.data) > 0 {
			t.Fatal("keeps what it has refused")
		}
		b = b[n:]
	}
	return to.events
}

// FuzzReader checks that bytes mean the same however they are cut, and that what
// is kept of them is bounded.
func FuzzReader(f *testing.F) {
	mask := [4]byte{1, 2, 3, 4}
	masked := func(first byte, p string) []byte {
		b := append([]byte{first, 0x80 | byte(len(p))}, mask[:]...)
		q := []byte(p)
		ws.Cipher(q, mask, 0)
		return append(b, q...)
	}
	f.Add(masked(0x81, "text"), false, uint64(1))
	f.Add(append(masked(0x01, "fra\xce"), masked(0x80, "\xba")...), false, uint64(2))
	f.Add(append(append(masked(0x01, "a"), masked(0x89, "ping")...), masked(0x80, "b")...), false, uint64(3))
	f.Add(append(masked(0x88, "\x03\xe8"), 0xff), false, uint64(4))
	f.Add(masked(0xc1, "x"), true, uint64(5))
	f.Add(append([]byte{0x82, 0xfe, 0x20, 0x00}, make([]byte, 0x2004)...), false, uint64(6))
	f.Add(append([]byte{0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0}, make([]byte, 64)...), false, uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, deflate bool, seed uint64) {
		whole := read(t, b, deflate, func() int { return len(b) })
		bytewise := read(t, b, deflate, func() int { return 1 })
		src := rand.New(rand.NewPCG(seed, 0))
		chunked := read(t, b, deflate, func() int { return 1 + src.IntN(40) })
		if !slices.Equal(whole, bytewise) || !slices.Equal(whole, chunked) {
			t.Fatalf("whole:    %q\nbytewise: %q\nchunked:  %q", whole, bytewise, chunked)
		}
	})
}

// FuzzInflate checks that decompression is bounded and gives back what was
// compressed.
func FuzzInflate(f *testing.F) {
	f.Add([]byte("some text, some text, some text"))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := inflate(b, 1000); err == nil && len(out) > 1000 {
			t.Fatalf("%d bytes", len(out))
		}
		out, err := inflate(deflate(bytes.Clone(b), 0), max(len(b), 1))
		if err != nil || !bytes.Equal(out, b) {
			t.Fatalf("%x came back as %x, %v", b, out, err)
		}
	})
}

// numbered is an encoder with a part of its own for each connection, as reliable
// subprotocols have.
type numbered struct{ subprotocol.Encoder }

func (numbered) AppendOwn(dst []byte, _ *engine.Message, own engine.Own) []byte {
	return fmt.Appendf(dst, "%d:", own.Seq)
}
func (numbered) Own() bool { return true }

// TestEncoding puts messages into frames the way the engine does, and takes them
// apart again as a client would.
func TestEncoding(t *testing.T) {
	raw, _ := subprotocol.Raw(subprotocol.SendEvent, "", false)
	data := func(n int) *engine.Message {
		return &engine.Message{Payload: engine.Payload{Data: bytes.Repeat([]byte("0123456789"), n/10)}}
	}
	long := string(bytes.Repeat([]byte("é"), 200))
	for _, c := range []struct {
		name string
		m    *engine.Message
		op   ws.OpCode
		want string
	}{
		{"short", data(10), ws.OpText, string(data(10).Payload.Data)},
		{"medium", data(1000), ws.OpText, string(data(1000).Payload.Data)},
		{"long", data(100_000), ws.OpText, string(data(100_000).Payload.Data)},
		{"binary", &engine.Message{Payload: engine.Payload{Type: engine.Binary, Data: []byte{1}}}, ws.OpBinary, "\x01"},
		{"ping", &engine.Message{Kind: engine.KindWirePing}, ws.OpPing, ""},
		{"pong", &engine.Message{Kind: engine.KindWirePong, Payload: engine.Payload{Data: []byte("x")}}, ws.OpPong, "x"},
		{"close", &engine.Message{Kind: engine.KindClose, CloseCode: 1008, Text: "no"}, ws.OpClose, "\x03\xf0no"},
		{"close without a status", &engine.Message{Kind: engine.KindClose, CloseCode: noStatus}, ws.OpClose, ""},
		{"close with a long reason", &engine.Message{Kind: engine.KindClose, CloseCode: 1000, Text: long}, ws.OpClose, "\x03\xe8" + long[:122]},
	} {
		for _, e := range []encoding{{codec: raw}, {codec: raw, deflate: true}, {codec: numbered{raw}}, {codec: numbered{raw}, deflate: true}} {
			t.Run(fmt.Sprintf("%s/own=%v,deflate=%v", c.name, e.Own(), e.deflate), func(t *testing.T) {
				body, ok := e.AppendBody([]byte("before"), c.m)
				if !ok || string(body[:6]) != "before" {
					t.Fatalf("AppendBody: %v %.20q", ok, body)
				}
				body = body[6:]
				b := append(e.AppendPrefix(nil, c.m, engine.Own{Seq: 7}, len(body)), body...)
				want := c.want
				if e.Own() && c.op.IsData() {
					want = "7:" + want
				}
				h, err := ws.ReadHeader(bytes.NewReader(b))
				if err != nil || !h.Fin || h.Masked || h.OpCode != c.op || ws.HeaderSize(h)+int(h.Length) != len(b) {
					t.Fatalf("%+v, %v, of %d bytes", h, err, len(b))
				}
				got := b[ws.HeaderSize(h):]
				if compressed := e.deflate && len(c.m.Payload.Data) >= minCompressed; h.Rsv1() != compressed {
					t.Fatalf("compressed: %v", h.Rsv1())
				} else if compressed {
					var bad *frameError
					if got, bad = inflate(got, 1<<20); bad != nil {
						t.Fatal(bad)
					}
				}
				if string(got) != want {
					t.Fatalf("%.60q, expected %.60q", got, want)
				}
			})
		}
	}
	if _, ok := (encoding{codec: raw}).AppendBody(nil, &engine.Message{Kind: engine.KindAck}); ok {
		t.Error("a raw client is sent an ack")
	}
	if (encoding{codec: raw}) != (encoding{codec: raw}) || (encoding{codec: raw}) == (encoding{codec: raw, deflate: true}) {
		t.Error("encodings compare wrongly")
	}
}

// TestOwnPrefixAllocations is what every delivery to a reliable client costs:
// nothing but its bytes.
func TestOwnPrefixAllocations(t *testing.T) {
	m := &engine.Message{Group: "news", From: "ann", Payload: engine.Payload{Data: bytes.Repeat([]byte("payload "), 64)}}
	dst := make([]byte, 0, 1024)
	for _, name := range []string{subprotocol.NameReliableJSON, subprotocol.NameReliableProtobuf} {
		p, _ := subprotocol.Find(name)
		for _, deflate := range []bool{false, true} {
			var e engine.Encoding = encoding{codec: p.Encoder, deflate: deflate}
			body, _ := e.AppendBody(nil, m)
			if allocs := testing.AllocsPerRun(100, func() { e.AppendPrefix(dst, m, engine.Own{Seq: 1 << 60}, len(body)) }); allocs > 0 {
				t.Errorf("%s, compressed %v: %.0f allocations", name, deflate, allocs)
			}
		}
	}
}

// nothing is a receiver that is content with all.
type nothing struct{}

func (nothing) message(ws.OpCode, bool, []byte) bool { return true }
func (nothing) control(ws.OpCode, []byte) bool       { return true }
func (nothing) refuse(*frameError)                   {}

// BenchmarkReader reads masked frames that arrive many at a time.
func BenchmarkReader(b *testing.B) {
	for _, size := range []int{128, 2048} {
		b.Run(fmt.Sprintf("payload=%d", size), func(b *testing.B) {
			one := ws.MustCompileFrame(ws.MaskFrame(ws.NewBinaryFrame(make([]byte, size))))
			wire := bytes.Repeat(one, 32<<10/len(one))
			buf := make([]byte, len(wire))
			r := reader{limit: 1 << 20}
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, wire)
				if _, _, err := r.feed(buf, nothing{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEncoding makes the bytes of one message to a group.
func BenchmarkEncoding(b *testing.B) {
	json, _ := subprotocol.JSON()
	for name, e := range map[string]encoding{"compression=off": {codec: json}, "compression=on": {codec: json, deflate: true}} {
		b.Run(name, func(b *testing.B) {
			m := &engine.Message{Group: "news", From: "ann", Payload: engine.Payload{Data: bytes.Repeat([]byte("payload "), 64)}}
			var body, frame []byte
			b.ReportAllocs()
			for b.Loop() {
				body, _ = e.AppendBody(body[:0], m)
				frame = append(e.AppendPrefix(frame[:0], m, engine.Own{}, len(body)), body...)
			}
		})
	}
}

// counting counts what it is told.
type counting struct {
	record
	frames int
}

func (c *counting) message(ws.OpCode, bool, []byte) bool { c.frames++; return true }
func (c *counting) control(ws.OpCode, []byte) bool       { c.frames++; return true }

// One call handles a share of the frames that it is given, and says how many of them
// carried no data.
func TestFeedHandlesAShareOfFrames(t *testing.T) {
	masked := func(first byte, p string) []byte { return append([]byte{first, 0x80 | byte(len(p)), 0, 0, 0, 0}, p...) }
	for _, test := range []struct {
		name  string
		frame []byte
		bare  uint8 // of framesPerTurn
	}{
		{"pings", masked(0x89, ""), framesPerTurn},
		{"pongs with a payload", masked(0x8a, "p"), framesPerTurn},
		{"messages", masked(0x82, "p"), 0},
		{"empty messages", masked(0x82, ""), framesPerTurn},
		{"messages whose last fragment is empty", append(masked(0x02, "p"), masked(0x80, "")...), 0},
		{"messages whose first fragment is empty", append(masked(0x02, ""), masked(0x80, "p")...), framesPerTurn / 2},
		{"messages with an empty fragment in the middle", append(append(masked(0x02, "p"), masked(0x00, "")...), masked(0x80, "")...), framesPerTurn / 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, to := reader{limit: fuzzLimit}, counting{}
			b := bytes.Repeat(test.frame, 1000)
			n, more, err := r.feed(b, &to)
			if err != nil || !more || n > len(b)*framesPerTurn/1000 || n < framesPerTurn*6 {
				t.Fatalf("took %d of %d bytes, more: %v, %v", n, len(b), more, err)
			}
			if r.bare != test.bare {
				t.Errorf("%d of %d frames carried no data; want %d", r.bare, framesPerTurn, test.bare)
			}
			for n < len(b) {
				did, _, err := r.feed(b[n:], &to)
				if err != nil {
					t.Fatal(err)
				}
				n += did
			}
			if to.frames != 1000 {
				t.Errorf("%d messages or control frames came out; want 1000", to.frames)
			}
		})
	}
}
