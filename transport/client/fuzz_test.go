package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// deaf is a connection that swallows what is written.
type deaf struct{ net.Conn }

func (deaf) Write(p []byte) (int, error)      { return len(p), nil }
func (deaf) SetWriteDeadline(time.Time) error { return nil }
func (deaf) Close() error                     { return nil }

// Whatever bytes a server sends, reading ends, and holds no more than it may.
func FuzzServerBytes(f *testing.F) {
	frame := func(op ws.OpCode, s string) []byte {
		b, err := ws.CompileFrame(ws.NewFrame(op, true, []byte(s)))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(frame(ws.OpText, `{"type":"message","from":"group","group":"g","dataType":"binary","data":"AQI="}`))
	f.Add(append(frame(ws.OpPing, "x"), frame(ws.OpClose, "\x03\xe8bye")...))
	f.Add(append(frame(ws.OpText, `{"type":"message","dataType":"text","data":"a","sequenceId":2}`), frame(ws.OpText, `{"type":"message","dataType":"text","data":"a","sequenceId":2}`)...))
	f.Add(frame(ws.OpBinary, "\x12\x16\x0a\x05group\x12\x05lobby\x1a\x04\x0a\x02hi\x20\x01"))
	f.Add(frame(ws.OpText, `{"type":"streamClosed","streamId":"1"}`))
	f.Add([]byte{0x01, 0x02, 'h', 'i', 0x80, 0x7e, 0xff, 0xff})
	f.Add([]byte{0x82, 0x7f, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, p := range protocols {
			readStrange(t, name, p, b)
		}
	})
}

func readStrange(t *testing.T, name string, p protocol, b []byte) {
	const limit = 1 << 12
	w := &wire{
		link: deaf{}, br: bufio.NewReader(bytes.NewReader(b)), limit: limit, start: time.Now(),
		over: make(chan struct{}), turn: make(chan struct{}, 1), conn: newConn("", p.reliable),
	}
	c := &Client{opts: &Options{}, protocol: p, events: make(chan Event, len(b)+1)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	defer c.cancel()
	if err := c.read(w); err == nil {
		t.Errorf("%s: reading ended without an error", name)
	}
	if w.buf.Len() > limit {
		t.Errorf("%s: a message of %d bytes was taken", name, w.buf.Len())
	}
	if seen := w.conn.seen.Load(); seen > 0 && (!p.reliable || len(c.events) == 0) {
		t.Errorf("%s: %d events, and sequence id %d", name, len(c.events), seen)
	}
}

// Whatever a server says, it is read or refused; what has a payload has a whole one,
// and JSON data stays as it was spelled.
func FuzzDecodeFrame(f *testing.F) {
	for _, s := range []string{
		`{"type":"ack","ackId":18446744073709551615,"success":true}`,
		`{"type":"message","dataType":"json","data":{"n":1.0},"sequenceId":18446744073709551615}`,
		`{"type":"message","dataType":"text","data":"é"}`,
		`{"type":"message","dataType":"protobuf","data":"AA=="}`,
		`{"type":"system","event":"connected","userId":null,"connectionId":"c","reconnectionToken":"t"}`,
		`{"type":"message","group":"g","dataType":"text","data":"","stream":{"streamId":"s","streamSequenceId":2,"endOfStream":true,"error":{"name":"UserError","userErrorCode":"E"}}}`,
		`{"type":"streamNack","streamId":"s","expectedSequenceId":2,"name":"InvalidSequenceId","message":"m"}`,
		`{"type":"streamClosed","streamId":"s","error":{"name":"IdleTimeout","message":"m"}}`,
		`{"type":"invokeResponse","invocationId":"1","success":true,"dataType":"json","data":3}`,
		`{"type":"invokeResponse","invocationId":"1","success":false,"error":{"name":"InternalServerError","message":"m"}}`,
		`{"type":"groupStateSnapshot","group":"g","items":[{"connectionId":"c","state":{"k":"v"},"updatedAt":1}],"sequenceId":1}`,
		`{"type":"groupStateUpdate","group":"g","items":[{"connectionId":"c","userId":"u","updatedAt":-1}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeStrange(t, jsonCodec{}, b, func(m *frame) {
			p := m.data
			if e, ok := m.event.(Message); ok {
				p = e.Payload
			}
			if p.Type == engine.JSON && (!json.Valid(p.Data) || !bytes.Contains(b, p.Data)) {
				t.Errorf("data %q of %q", p.Data, b)
			}
		})
	})
}

// decodeStrange checks what holds for a frame in any encoding, if b is one, and what
// check does. It overwrites b.
func decodeStrange(t *testing.T, c codec, b []byte, check func(m *frame)) {
	m, err := c.decode(b)
	if err != nil {
		return
	}
	if (m.event != nil) != (m.word == wordMessage || m.word == wordState) {
		t.Errorf("word %d with event %+v", m.word, m.event)
	}
	check(m)
	// Nothing in it may be the caller's memory.
	before := fmt.Sprintf("%+v", m)
	for i := range b {
		b[i] = 'x'
	}
	if after := fmt.Sprintf("%+v", m); before != after {
		t.Errorf("the frame changed with its source: %s, %s", before, after)
	}
}

func FuzzDecodeProtobuf(f *testing.F) {
	for _, s := range []string{
		"0A1308091A0F0A09466F7262696464656E12026E6F", "12160A0567726F757012056C6F6262791A040A0268692001",
		"12121A081A060A01741201050A06736572766572", "1A090A070A0263311A0174", "2A0A0A013110011A030A0178",
		"3A0B0A017312016E1A016D2002", "420B0A017312060A016E12016D", "4A0F0A016712080A016312017520051803", "520C0A016712070A01631A002005",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		decodeStrange(t, protobufCodec{}, b, func(m *frame) {
			if e, ok := m.event.(Message); ok && e.Payload.Data == nil {
				t.Errorf("a message without a payload: %+v", e)
			}
		})
	})
}
