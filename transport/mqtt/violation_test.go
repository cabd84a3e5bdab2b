package mqtt_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// TestFramingViolation is that a client which breaks the framing of WebSocket or MQTT gets the
// answers to the packets before that, a DISCONNECT where its version has one, and a close
// frame, and that its connection ends once it has answered.
func TestFramingViolation(t *testing.T) {
	over := frame(ws.OpBinary, make([]byte, 1<<17))
	for _, path := range []struct {
		name    string
		sockets bool
	}{{"descriptor", true}, {"portable", false}} {
		for _, v := range []struct {
			name         string
			frames       []byte
			code, closed string
		}{
			{"a reserved opcode", []byte{0x83, 0x80, 0, 0, 0, 0}, "81", "1002"},
			{"reserved bits", []byte{0xf2, 0x80, 0, 0, 0, 0}, "81", "1002"},
			{"not masked", []byte{0x82, 2, 0xc0, 0}, "81", "1002"},
			{"a continuation of nothing", []byte{0x80, 0x80, 0, 0, 0, 0}, "81", "1002"},
			{"a fragmented ping", []byte{0x09, 0x80, 0, 0, 0, 0}, "81", "1002"},
			{"text", frame(ws.OpText, []byte("hello")), "81", "1003"},
			{"text after text", slices.Repeat(frame(ws.OpText, []byte("hello")), 2), "81", "1003"},
			{"a reserved type of packet", frame(ws.OpBinary, []byte{0, 0}), "82", "1002"},
			{"a message over the limit", over, "95", "1009"},
		} {
			for _, version := range []string{"5.0", "3.1.1"} {
				t.Run(path.name+"/"+v.name+"/"+version, func(t *testing.T) {
					may := make(chan struct{})
					o := handled(&engine.HandlerFuncs{OnUserEvent: func(ctx context.Context, _ *engine.UserEvent) (*engine.EventReply, error) {
						select {
						case <-may:
						case <-ctx.Done():
						}
						return nil, nil
					}})
					o.Limits = engine.Limits{MessageBytes: 1 << 16, CloseTimeout: time.Hour}
					s := serve(t, o, path.sockets)
					c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
					five := version == "5.0"
					if five {
						c.packets("10 ( 'MQTT' 05 02 003c ( ) 'a' )")
						c.want("20 ( 00 00 ( 21 0400 25 00 27 00010000 28 00 2a 00 ) )")
					} else {
						c.packets("10 ( 'MQTT' 04 02 003c 'a' )")
						c.want("20 ( 00 00 )")
					}
					before := "82 ( 0001 't' 00 ) c0 ( ) 32 ( '$webpubsub/server/events/x' 0002 )"
					if five {
						before = "82 ( 0001 ( ) 't' 00 ) c0 ( ) 32 ( '$webpubsub/server/events/x' 0002 ( ) )"
					}
					p, err := parseNotation(before)
					if err != nil {
						t.Fatal(err)
					}
					go c.Write(slices.Concat(frame(ws.OpBinary, p.bytes), v.frames, frame(ws.OpBinary, []byte{0xc0, 0})))
					if five {
						c.want("90 ( 0001 ( ) 00 )")
					} else {
						c.want("90 ( 0001 00 )")
					}
					c.want("d0 ( )")
					close(may)
					if five {
						c.want("32 ( '$webpubsub/server/events/x/succeeded' 0001 ( 26 'azure-status-code' '200' ) )")
					} else {
						c.want("32 ( '$webpubsub/server/events/x/succeeded' 0001 )")
					}
					c.want("40 ( 0002 )")
					if five {
						c.wantDisconnect(v.code)
					}
					c.want("close " + v.closed)
					c.Write(frame(ws.OpClose, []byte{0x03, 0xe8}))
					if n, err := io.Copy(io.Discard, c.r); n != 0 || err != nil && !errors.Is(err, io.EOF) {
						t.Errorf("after the close frames came %d bytes, %v", n, err)
					}
				})
			}
		}
	}
}
