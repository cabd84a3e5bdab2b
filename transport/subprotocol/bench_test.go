package subprotocol_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// filled returns format with its # replaced by as many letters as make it size bytes long.
func filled(format string, size int) []byte {
	return []byte(strings.Replace(format, "#", strings.Repeat("x", size-len(format)+1), 1))
}

// incoming are client messages with the most allocations that each may cost: the
// request, the group's name, the data, and what an escape or metadata adds.
var incoming = []struct {
	name   string
	text   []byte
	allocs float64
}{
	{"json/128", filled(`{"type":"sendToGroup","group":"lobby","ackId":12345,"noEcho":true,"data":{"id":5,"text":"#"}}`, 128), 3},
	{"text/128", filled(`{"type":"sendToGroup","group":"lobby","noEcho":false,"dataType":"text","data":"#"}`, 128), 3},
	{"binary/128", []byte(`{"type":"sendToGroup","group":"lobby","dataType":"binary","data":"` + strings.Repeat("QUFB", 15) + `"}`), 3},
	{"json/1024", filled(`{"type":"sendToGroup","group":"lobby","ackId":12345,"noEcho":true,"data":{"id":5,"text":"#"}}`, 1024), 3},
	{"escapes/128", filled(`{"type":"sendToGroup","group":"lobby","dataType":"text","data":"a\nb\"c\u00e9#"}`, 128), 3},
	{"metadata", []byte(`{"type":"event","event":"e","data":1,"metadata":{"trace":"t-1"}}`), 7},
	{"join", []byte(`{"type":"joinGroup","group":"lobby","ackId":7}`), 2},
	{"ping", []byte(`{"type":"ping"}`), 0},
	{"sequenceAck", []byte(`{"type":"sequenceAck","sequenceId":42}`), 0},
	{"streamStart", []byte(`{"type":"sendToGroup","group":"lobby","noEcho":false,"stream":{"streamId":"s1","idleTimeoutMs":60000}}`), 4},
	{"streamData/128", filled(`{"type":"streamData","streamId":"s1","streamSequenceId":12345,"dataType":"text","data":"#"}`, 128), 4},
	{"streamEnd", []byte(`{"type":"streamEnd","streamId":"s1"}`), 3},
	{"state", []byte(`{"type":"setGroupState","group":"lobby","state":{"mood":"ok"},"ackId":3}`), 6},
	{"invoke", []byte(`{"type":"invoke","invocationId":"1","target":"event","event":"sum","dataType":"json","data":[1,2]}`), 4},
}

func TestDecodeAllocations(t *testing.T) {
	_, dec := subprotocol.JSON()
	for _, c := range incoming {
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := dec.Decode(subprotocol.TextFrame, c.text); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > c.allocs {
			t.Errorf("%s: %.0f allocations, at most %.0f", c.name, allocs, c.allocs)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	_, dec := subprotocol.JSON()
	for _, c := range incoming {
		b.Run("message="+c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.text)))
			for b.Loop() {
				if _, err := dec.Decode(subprotocol.TextFrame, c.text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func outgoing() map[string]*engine.Message {
	message := func(p engine.Payload) *engine.Message {
		return &engine.Message{Group: "lobby", From: "kim", Payload: p}
	}
	part := message(engine.Payload{Type: engine.Text, Data: filled("#", 128)})
	part.Stream = &engine.StreamPart{ID: "s1", Seq: 12345}
	return map[string]*engine.Message{
		"json/128":     message(engine.Payload{Type: engine.JSON, Data: filled(`{"n":"#"}`, 128)}),
		"text/128":     message(engine.Payload{Type: engine.Text, Data: filled("#", 128)}),
		"text/1024":    message(engine.Payload{Type: engine.Text, Data: filled("#", 1024)}),
		"escapes/1024": message(engine.Payload{Type: engine.Text, Data: []byte(strings.Repeat("a line of text\n", 1024/15))}),
		"binary/128":   message(engine.Payload{Type: engine.Binary, Data: filled("#", 128)}),
		"ack":          {Kind: engine.KindAck, AckID: 12345},
		"forbidden":    {Kind: engine.KindAck, AckID: 7, Err: &engine.Error{Code: engine.CodeForbidden, Message: "No."}},
		"part/128":     part,
		"end":          {Group: "lobby", From: "kim", Stream: &engine.StreamPart{ID: "s1", Seq: 9, End: true, Err: &engine.StreamError{Name: engine.StreamUserError, Message: "gave up", UserCode: "E42"}}},
		"streamAck":    {Kind: engine.KindStreamAck, Stream: &engine.StreamPart{ID: "s1", Seq: 12345}},
		"cleared":      {Kind: engine.KindStateUpdate, Group: "lobby", States: []engine.GroupState{{ConnID: "5f0c", UserID: "kim", UpdatedAt: time.UnixMilli(1760000000000)}}},
		"response":     {Kind: engine.KindInvokeResponse, Invocation: "1", Payload: engine.Payload{Type: engine.JSON, Data: []byte("3")}},
	}
}

// Encoding into a buffer with room allocates nothing, the sorted keys of metadata and
// of states aside.
func TestAppendBodyAllocations(t *testing.T) {
	dst := make([]byte, 0, 8192)
	json, _ := subprotocol.JSON()
	reliable, _ := subprotocol.ReliableJSON()
	raw, _ := subprotocol.Raw(subprotocol.SendEvent, "", false)
	for name, m := range outgoing() {
		for _, enc := range []subprotocol.Encoder{json, reliable, raw} {
			if allocs := testing.AllocsPerRun(100, func() { enc.AppendBody(dst, m) }); allocs > 0 {
				t.Errorf("%s in %q: %.0f allocations", name, enc.Name(), allocs)
			}
		}
	}
}

// Nor does a whole reliable delivery: the frame's header, the connection's own part
// and the body.
func TestReliableDeliveryAllocations(t *testing.T) {
	enc, _ := subprotocol.ReliableJSON()
	var f engine.Encoding = framing{enc}
	body, dst := make([]byte, 0, 8192), make([]byte, 0, 8192)
	for name, m := range outgoing() {
		if allocs := testing.AllocsPerRun(100, func() {
			body, _ = f.AppendBody(body[:0], m)
			dst = f.AppendPrefix(dst[:0], m, engine.Own{Seq: 1 << 60}, len(body))
			dst = append(dst, body...)
		}); allocs > 0 {
			t.Errorf("%s: %.0f allocations", name, allocs)
		}
	}
}

func BenchmarkAppendBody(b *testing.B) {
	plain, _ := subprotocol.JSON()
	reliable, _ := subprotocol.ReliableJSON()
	dst := make([]byte, 0, 8192)
	for _, enc := range []subprotocol.Encoder{plain, reliable} {
		for name, m := range outgoing() {
			b.Run("codec="+enc.Name()+"/message="+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					enc.AppendBody(dst, m)
				}
			})
		}
	}
}

// A reliable connection's own part is what each delivery costs beside the body that
// all connections share.
func BenchmarkAppendOwn(b *testing.B) {
	enc, _ := subprotocol.ReliableJSON()
	m, dst := outgoing()["text/128"], make([]byte, 0, 8192)
	for _, seq := range []engine.SequenceID{0, 7, 1 << 40} {
		b.Run(fmt.Sprintf("codec=%s/seq=%d", enc.Name(), seq), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				enc.AppendOwn(dst, m, engine.Own{Seq: seq})
			}
		})
	}
}
