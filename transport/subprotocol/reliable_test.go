package subprotocol_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// framing is a door's framing in small: the payload's length in two bytes, then
// the payload. Like WebSocket's, its header depends on the whole length.
type framing struct{ subprotocol.Encoder }

var _ engine.Encoding = framing{}

func (f framing) AppendPrefix(dst []byte, m *engine.Message, own engine.Own, bodyLen int) []byte {
	at := len(dst)
	dst = f.AppendOwn(append(dst, 0, 0), m, own)
	binary.BigEndian.PutUint16(dst[at:], uint16(len(dst)-at-2+bodyLen))
	return dst
}

// The reliable protocol sends what the plain one sends, and two members more.
func TestReliableJSONAddsToThePlainProtocol(t *testing.T) {
	plain, _ := subprotocol.JSON()
	reliable, _ := subprotocol.ReliableJSON()
	if reliable.Name() != "json.reliable.webpubsub.azure.v1" || !reliable.Own() || plain.Own() {
		t.Fatalf("encoder %q, own %v", reliable.Name(), reliable.Own())
	}
	states := []engine.GroupState{{ConnID: "5f0c", UpdatedAt: time.UnixMilli(1)}}
	for _, c := range []struct {
		name string
		m    engine.Message
		seq  engine.SequenceID
		wish string // beside what the plain protocol sends
	}{
		{"group data", engine.Message{Group: "g", From: "ann", Payload: payload(engine.JSON, "[1]"), Metadata: engine.Metadata{"k": "v"}}, 12, `"sequenceId":12`},
		{"server data", engine.Message{Payload: payload(engine.Text, "hi")}, 1<<64 - 1, `"sequenceId":18446744073709551615`},
		{"stream", engine.Message{Group: "g", Stream: &engine.StreamPart{ID: "s", Seq: 4}}, 1, `"sequenceId":1`},
		{"snapshot", engine.Message{Kind: engine.KindStateSnapshot, Group: "g", States: states}, 20, `"sequenceId":20`},
		{"update", engine.Message{Kind: engine.KindStateUpdate, Group: "g", States: states}, 21, `"sequenceId":21`},
		{"ack", engine.Message{Kind: engine.KindAck, AckID: 7}, 0, ``},
		{"pong", engine.Message{Kind: engine.KindPong}, 0, ``},
		{"connected", engine.Message{Kind: engine.KindConnected, ConnID: "5f0c", ReconnectionToken: `a."b`}, 0, `"reconnectionToken":"a.\"b"`},
		{"connected without a token", engine.Message{Kind: engine.KindConnected, ConnID: "5f0c"}, 0, ``},
		{"disconnected", engine.Message{Kind: engine.KindDisconnected, Text: "bye"}, 0, ``},
		{"stream ack", engine.Message{Kind: engine.KindStreamAck, Stream: &engine.StreamPart{ID: "s", Seq: 1}}, 0, ``},
		{"invoke response", engine.Message{Kind: engine.KindInvokeResponse, Invocation: "1"}, 0, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := framing{reliable}
			body, ok := f.AppendBody(nil, &c.m)
			frame := append(f.AppendPrefix(nil, &c.m, engine.Own{Seq: c.seq}, len(body)), body...)
			if !ok || int(binary.BigEndian.Uint16(frame)) != len(frame)-2 || f.Frame(&c.m) != subprotocol.TextFrame {
				t.Fatalf("sent %v, frame %q", ok, frame)
			}
			wish, _ := plain.AppendBody(nil, &c.m)
			if c.wish != "" {
				wish = append(append(bytes.TrimSuffix(wish, []byte("}")), ','), c.wish+"}"...)
			}
			if got, wish := members(t, frame[2:]), members(t, wish); got != wish {
				t.Errorf("got  %s\nwish %s", got, wish)
			}
		})
	}
}

// Connections with equal encoders share bodies, so the encoders of the two protocols
// must differ. What their clients send is read alike.
func TestReliableJSONSharesWithItsLikesOnly(t *testing.T) {
	plain, plainDecoder := subprotocol.JSON()
	one, decoder := subprotocol.ReliableJSON()
	another, _ := subprotocol.ReliableJSON()
	if one != another || one == plain {
		t.Errorf("equal to another %v, to the plain one %v", one == another, one == plain)
	}
	if decoder != plainDecoder {
		t.Errorf("decoders %T and %T", decoder, plainDecoder)
	}
}

// members returns a JSON object in a form that does not depend on the order of its
// members, with numbers as they are spelled.
func members(t *testing.T, text []byte) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
