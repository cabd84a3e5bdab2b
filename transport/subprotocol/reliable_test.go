package subprotocol

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// reliableJSON has the shape of json.reliable.webpubsub.azure.v1: it shows that the
// seam and appendMembers carry it. All connections share the body, connected's
// closing brace and reconnection token included; a connection's own part is the
// opening brace, with the sequence id on what is numbered.
type reliableJSON struct{}

var _ Encoder = reliableJSON{}

func (reliableJSON) Name() string { return NameReliableJSON }

func (reliableJSON) Frame(*engine.Message) Frame { return TextFrame }

func (reliableJSON) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	dst, ok := appendMembers(dst, m)
	if !ok {
		return dst, false
	}
	if m.ReconnectionToken != "" {
		dst = appendString(append(dst, `,"reconnectionToken":`...), m.ReconnectionToken)
	}
	return append(dst, '}'), true
}

func (reliableJSON) AppendOwn(dst []byte, _ *engine.Message, own engine.Own) []byte {
	if own.Seq == 0 {
		return append(dst, '{')
	}
	dst = append(dst, `{"sequenceId":`...)
	dst = strconv.AppendUint(dst, uint64(own.Seq), 10)
	return append(dst, ',')
}

func (reliableJSON) Own() bool { return true }

// framing is a door's framing in small: the payload's length in two bytes, then
// the payload. Like WebSocket's, its header depends on the whole length.
type framing struct{ Encoder }

var _ engine.Encoding = framing{}

func (f framing) AppendPrefix(dst []byte, m *engine.Message, own engine.Own, bodyLen int) []byte {
	at := len(dst)
	dst = f.AppendOwn(append(dst, 0, 0), m, own)
	binary.BigEndian.PutUint16(dst[at:], uint16(len(dst)-at-2+bodyLen))
	return dst
}

func TestReliableShapeFitsTheSeam(t *testing.T) {
	plain, _ := JSON()
	for _, c := range []struct {
		m    *engine.Message
		seq  engine.SequenceID
		wish string // beside what the plain protocol sends
	}{
		{&engine.Message{Group: "g", From: "ann", Payload: engine.Payload{Type: engine.JSON, Data: []byte(`[1]`)}, Metadata: engine.Metadata{"k": "v"}}, 12, `"sequenceId":12`},
		{&engine.Message{Payload: engine.Payload{Data: []byte("hi")}}, 1<<64 - 1, `"sequenceId":18446744073709551615`},
		{&engine.Message{Kind: engine.KindAck, AckID: 7}, 0, ``},
		{&engine.Message{Kind: engine.KindPong}, 0, ``},
		{&engine.Message{Kind: engine.KindConnected, ConnID: "5f0c", ReconnectionToken: "a.b"}, 0, `"reconnectionToken":"a.b"`},
		{&engine.Message{Kind: engine.KindDisconnected, Text: "bye"}, 0, ``},
	} {
		f := framing{reliableJSON{}}
		body, ok := f.AppendBody(nil, c.m)
		frame := append(f.AppendPrefix(nil, c.m, engine.Own{Seq: c.seq}, len(body)), body...)
		if !ok || int(binary.BigEndian.Uint16(frame)) != len(frame)-2 {
			t.Fatalf("sent %v, frame %q", ok, frame)
		}
		wish, _ := plain.AppendBody(nil, c.m)
		if c.wish != "" {
			wish = append(append(bytes.TrimSuffix(wish, []byte("}")), ','), c.wish+"}"...)
		}
		if got, wish := members(t, frame[2:]), members(t, wish); got != wish {
			t.Errorf("got  %s\nwish %s", got, wish)
		}
	}
	if _, ok := (reliableJSON{}).AppendBody(nil, &engine.Message{Kind: engine.KindClose}); ok {
		t.Error("a close is no message")
	}
}

// A delivery's own part costs no allocation.
func TestOwnPartAllocations(t *testing.T) {
	var f engine.Encoding = framing{reliableJSON{}}
	m, dst := &engine.Message{}, make([]byte, 0, 64)
	if allocs := testing.AllocsPerRun(100, func() { f.AppendPrefix(dst, m, engine.Own{Seq: 1 << 60}, 128) }); allocs > 0 {
		t.Errorf("%.0f allocations", allocs)
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
