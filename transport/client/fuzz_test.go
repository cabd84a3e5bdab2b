package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"
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
	f.Add([]byte{0x01, 0x02, 'h', 'i', 0x80, 0x7e, 0xff, 0xff})
	f.Add([]byte{0x82, 0x7f, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 12
		w := &wire{
			conn: deaf{}, br: bufio.NewReader(bytes.NewReader(b)), limit: limit, start: time.Now(),
			over: make(chan struct{}), turn: make(chan struct{}, 1), acks: map[uint64]*pending{},
		}
		c := &Client{opts: &Options{}, json: true, events: make(chan Event, len(b)+1), groups: map[string]struct{}{}}
		c.ctx, c.cancel = context.WithCancel(context.Background())
		defer c.cancel()
		if err := c.read(w); err == nil {
			t.Error("reading ended without an error")
		}
		if w.buf.Len() > limit {
			t.Errorf("a message of %d bytes was taken", w.buf.Len())
		}
	})
}

// What decodes has a payload or an error, and JSON data stays as it was spelled.
func FuzzDecodeFrame(f *testing.F) {
	for _, s := range []string{
		`{"type":"ack","ackId":18446744073709551615,"success":true}`,
		`{"type":"message","dataType":"json","data":{"n":1.0}}`,
		`{"type":"message","dataType":"text","data":"é"}`,
		`{"type":"message","dataType":"protobuf","data":"AA=="}`,
		`{"type":"system","event":"connected","userId":null,"connectionId":"c"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeFrame(b)
		if err != nil {
			return
		}
		p, err := m.payload()
		if err == nil && m.DataType == "json" && len(p.Data) > 0 && (!json.Valid(p.Data) || !bytes.Contains(b, p.Data)) {
			t.Errorf("data %q of %q", p.Data, b)
		}
	})
}
