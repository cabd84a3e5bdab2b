package subprotocol_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fanfare/fanfare/engine"
	pb "github.com/fanfare/fanfare/proto/azure/webpubsub/v1"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// protobufIncoming are client messages with the most allocations that each may cost.
func protobufIncoming(t testing.TB) map[string]struct {
	p      []byte
	allocs float64
} {
	type row = struct {
		p      []byte
		allocs float64
	}
	any128 := &pb.MessageData{Data: &pb.MessageData_ProtobufData{ProtobufData: &anypb.Any{TypeUrl: "type.googleapis.com/x.Y", Value: bytes.Repeat([]byte{1}, 80)}}}
	sending := func(data *pb.MessageData) []byte {
		return wire(t, upSend(&pb.SendToGroup{Group: "lobby", AckId: new(uint64(12345)), NoEcho: new(true), Data: data}))
	}
	return map[string]row{ // the request, the group's name, the data, and what metadata adds
		"text/128":    {sending(textData(strings.Repeat("x", 100))), 3},
		"text/1024":   {sending(textData(strings.Repeat("x", 1000))), 3},
		"json/128":    {sending(jsonData(`{"id":5,"text":"` + strings.Repeat("x", 84) + `"}`)), 3},
		"any/128":     {sending(any128), 3},
		"metadata":    {wire(t, upEvent(&pb.Event{Event: "e", Data: textData("x"), Metadata: map[string]string{"trace": "t-1"}})), 7},
		"join":        {unhex(t, "32090A056C6F6262791007"), 2},
		"ping":        {unhex(t, "4A00"), 0},
		"sequenceAck": {unhex(t, "42020805"), 0},
	}
}

func TestProtobufDecodeAllocations(t *testing.T) {
	_, dec := subprotocol.Protobuf()
	for name, c := range protobufIncoming(t) {
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := dec.Decode(subprotocol.BinaryFrame, c.p); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > c.allocs {
			t.Errorf("%s: %.0f allocations, at most %.0f", name, allocs, c.allocs)
		}
	}
}

// Encoding into a buffer with room allocates nothing, metadata's sorted keys aside,
// and neither does a delivery's own part.
func TestProtobufEncodeAllocations(t *testing.T) {
	dst := make([]byte, 0, 8192)
	plain, _ := subprotocol.Protobuf()
	reliable, _ := subprotocol.ReliableProtobuf()
	for name, m := range outgoing() {
		for _, enc := range []subprotocol.Encoder{plain, reliable} {
			if allocs := testing.AllocsPerRun(100, func() { enc.AppendBody(dst, m) }); allocs > 0 {
				t.Errorf("%s in %q: %.0f allocations", name, enc.Name(), allocs)
			}
		}
		if allocs := testing.AllocsPerRun(100, func() { reliable.AppendOwn(dst, m, engine.Own{Seq: 1 << 60}) }); allocs > 0 {
			t.Errorf("%s: %.0f allocations for an own part", name, allocs)
		}
	}
}

func BenchmarkProtobufDecode(b *testing.B) {
	_, dec := subprotocol.Protobuf()
	for name, c := range protobufIncoming(b) {
		b.Run("message="+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.p)))
			for b.Loop() {
				if _, err := dec.Decode(subprotocol.BinaryFrame, c.p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProtobufAppendBody(b *testing.B) {
	enc, _ := subprotocol.Protobuf()
	dst := make([]byte, 0, 8192)
	for name, m := range outgoing() {
		b.Run("message="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				enc.AppendBody(dst, m)
			}
		})
	}
}

// What each delivery to a reliable connection costs, however long its payload is.
func BenchmarkProtobufAppendOwn(b *testing.B) {
	enc, _ := subprotocol.ReliableProtobuf()
	dst := make([]byte, 0, 64)
	part := &engine.Message{Group: "lobby", Payload: engine.Payload{Data: filled("#", 128)}, Stream: &engine.StreamPart{ID: "s", Seq: 7}}
	pairs := &engine.Message{Group: "lobby", Payload: engine.Payload{Data: filled("#", 128)}, Metadata: engine.Metadata{"a": "1", "b": "2", "trace": "t-1"}}
	for _, c := range []struct {
		name string
		m    *engine.Message
	}{
		{"text/128", outgoing()["text/128"]},
		{"text/1048576", &engine.Message{Group: "lobby", Payload: engine.Payload{Data: filled("#", 1<<20)}}},
		{"stream", part},
		{"metadata", pairs},
	} {
		b.Run("message="+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				enc.AppendOwn(dst, c.m, engine.Own{Seq: 123456})
			}
		})
	}
}
