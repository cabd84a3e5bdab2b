package subprotocol_test

import (
	"bytes"
	"encoding/base64"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fanfare/fanfare/engine"
	pb "github.com/fanfare/fanfare/proto/azure/webpubsub/v1"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// whole returns m as a connection with this encoder receives it.
func whole(t testing.TB, enc subprotocol.Encoder, m *engine.Message, own engine.Own) []byte {
	t.Helper()
	const before = "what stood there before"
	body, ok := enc.AppendBody([]byte(before), m)
	prefix := enc.AppendOwn([]byte(before), m, own)
	if !ok || !bytes.HasPrefix(body, []byte(before)) || !bytes.HasPrefix(prefix, []byte(before)) {
		t.Fatalf("sent %v, %q after %q", ok, body, prefix)
	}
	if enc.Frame(m) != subprotocol.BinaryFrame {
		t.Fatalf("%s sends %s frames", enc.Name(), enc.Frame(m))
	}
	return append(bytes.Clone(prefix[len(before):]), body[len(before):]...)
}

func received(t testing.TB, p []byte) *pb.DownstreamMessage {
	t.Helper()
	m := &pb.DownstreamMessage{}
	if err := proto.Unmarshal(p, m); err != nil {
		t.Fatalf("%v: %x", err, p)
	}
	return m
}

// What the service is known to send is sent byte for byte; only the place of a
// sequence id, which means nothing, is another.
func TestProtobufEncodeVectors(t *testing.T) {
	plain, _ := subprotocol.Protobuf()
	reliable, _ := subprotocol.ReliableProtobuf()
	for _, c := range []struct {
		name, hex string
		m         engine.Message
		seq       engine.SequenceID
	}{
		{"ack", "0A0408071001", engine.Message{Kind: engine.KindAck, AckID: 7}, 0},
		{"ack of a failure", "0A1308091A0F0A09466F7262696464656E12026E6F", engine.Message{Kind: engine.KindAck, AckID: 9, Err: &engine.Error{Code: engine.CodeForbidden, Message: "no"}}, 0},
		{"numbered", "12160A0567726F757012056C6F6262791A040A0268692001", engine.Message{Group: "lobby", From: "kim", Payload: payload(engine.Text, "hi")}, 1},
		{"from the server", "120E0A067365727665721A0412020102", engine.Message{Payload: payload(engine.Binary, "\x01\x02")}, 0},
		{"connected", "1A090A070A026331120175", engine.Message{Kind: engine.KindConnected, ConnID: "c1", User: "u", ReconnectionToken: "only for reliable ones"}, 0},
		{"disconnected", "1A0712051203627965", engine.Message{Kind: engine.KindDisconnected, Text: "bye"}, 0},
		{"pong", "2200", engine.Message{Kind: engine.KindPong}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			wish := unhex(t, c.hex)
			if c.seq == 0 {
				if got := whole(t, plain, &c.m, engine.Own{}); !bytes.Equal(got, wish) {
					t.Errorf("got  %x\nwish %x", got, wish)
				}
				return
			}
			got := whole(t, reliable, &c.m, engine.Own{Seq: c.seq})
			if !proto.Equal(received(t, got), received(t, wish)) || len(got) != len(wish) {
				t.Errorf("got  %x\nwish %x", got, wish)
			}
		})
	}
}

// downstream are the engine's messages and what they are as generated types. What
// only a reliable connection gets is filled in by reliably.
var downstream = []struct {
	name string
	m    engine.Message
	wish *pb.DownstreamMessage
}{
	{"ack", engine.Message{Kind: engine.KindAck, AckID: math.MaxUint64}, downAck(&pb.Ack{AckId: math.MaxUint64, Success: true})},
	{"ack 0", engine.Message{Kind: engine.KindAck}, downAck(&pb.Ack{Success: true})},
	{"ack of a failure", engine.Message{Kind: engine.KindAck, Err: &engine.Error{Code: engine.CodeDuplicate, Message: strings.Repeat("x", 200)}}, downAck(&pb.Ack{Error: &pb.Error{Name: "Duplicate", Message: strings.Repeat("x", 200)}})},
	{"ack of a failure inside", engine.Message{Kind: engine.KindAck, AckID: 1, Err: &engine.Error{Message: "a secret"}}, downAck(&pb.Ack{AckId: 1, Error: &pb.Error{Name: "InternalServerError", Message: "Internal server error"}})},
	{"connected", engine.Message{Kind: engine.KindConnected, ConnID: "5f0c", User: "kim", ReconnectionToken: "a.b"}, downConnected("5f0c", "kim")},
	{"connected anonymously", engine.Message{Kind: engine.KindConnected, ConnID: "5f0c", ReconnectionToken: "a.b"}, downConnected("5f0c", "")},
	{"disconnected", engine.Message{Kind: engine.KindDisconnected, Text: strings.Repeat("é", 100)}, downSystem(&pb.System{Message: &pb.System_Disconnected{Disconnected: &pb.Disconnected{Reason: strings.Repeat("é", 100)}}})},
	{"disconnected without a reason", engine.Message{Kind: engine.KindDisconnected}, downSystem(&pb.System{Message: &pb.System_Disconnected{Disconnected: &pb.Disconnected{}}})},
	{"pong", engine.Message{Kind: engine.KindPong}, &pb.DownstreamMessage{Message: &pb.DownstreamMessage_Pong{Pong: &pb.Pong{}}}},

	{"text from the server", engine.Message{Payload: payload(engine.Text, "hi")}, downData(&pb.Data{From: "server", Data: textData("hi")})},
	{"empty text", engine.Message{Group: "g", From: "kim"}, downData(&pb.Data{From: "group", Group: new("g"), Data: textData("")})},
	{"empty binary", engine.Message{Payload: engine.Payload{Type: engine.Binary}}, downData(&pb.Data{From: "server", Data: &pb.MessageData{Data: &pb.MessageData_BinaryData{BinaryData: []byte{}}}})},
	{"JSON", engine.Message{Group: "g", Payload: payload(engine.JSON, ` {"a":1.0}`)}, downData(&pb.Data{From: "group", Group: new("g"), Data: jsonData(` {"a":1.0}`)})},
	{"an Any", engine.Message{Payload: payload(engine.Protobuf, "\n\x06type.x\x12\x01\x01")}, downData(&pb.Data{From: "server", Data: anyData("type.x", "\x01")})},
	{"long", engine.Message{Group: "g", Payload: payload(engine.Text, strings.Repeat("é", 100_000))}, downData(&pb.Data{From: "group", Group: new("g"), Data: textData(strings.Repeat("é", 100_000))})},
	{
		"metadata", engine.Message{Payload: payload(engine.Text, "hi"), Metadata: engine.Metadata{"b": "2", "a": "", "": strings.Repeat("x", 1024)}},
		downData(&pb.Data{From: "server", Data: textData("hi"), Metadata: map[string]string{"b": "2", "a": "", "": strings.Repeat("x", 1024)}}),
	},
	{"part of a stream", engine.Message{Group: "g", Payload: payload(engine.Text, "a"), Stream: &engine.StreamPart{ID: "s", Seq: 300}}, downData(&pb.Data{From: "group", Group: new("g"), Data: textData("a"), Stream: &pb.StreamInfo{StreamId: "s", StreamSequenceId: 300}})},
	{"last part of a stream", engine.Message{Group: "g", Stream: &engine.StreamPart{ID: "s", Seq: 2, End: true}}, downData(&pb.Data{From: "group", Group: new("g"), Data: textData(""), Stream: &pb.StreamInfo{StreamId: "s", StreamSequenceId: 2, EndOfStream: new(true)}})},
	{
		"end of a stream that failed", engine.Message{Group: "g", Stream: &engine.StreamPart{ID: "s", Seq: 2, End: true, Err: &engine.StreamError{Name: engine.StreamUserError, Message: strings.Repeat("x", 128), UserCode: "E42"}}},
		downData(&pb.Data{From: "group", Group: new("g"), Data: textData(""), Stream: &pb.StreamInfo{
			StreamId: "s", StreamSequenceId: 2, EndOfStream: new(true),
			Error: &pb.StreamInfo_Error{Name: "UserError", Message: strings.Repeat("x", 128), UserErrorCode: new("E42")},
		}}),
	},
	{
		"end of an idle stream", engine.Message{Group: "g", Stream: &engine.StreamPart{ID: "s", Seq: 1, End: true, Err: &engine.StreamError{Name: engine.StreamIdleTimeout}}},
		downData(&pb.Data{From: "group", Group: new("g"), Data: textData(""), Stream: &pb.StreamInfo{StreamId: "s", StreamSequenceId: 1, EndOfStream: new(true), Error: &pb.StreamInfo_Error{Name: "IdleTimeout"}}}),
	},

	{"invocation", engine.Message{Kind: engine.KindInvokeResponse, Invocation: "1", Payload: payload(engine.JSON, "3"), Metadata: engine.Metadata{"k": "v"}}, downInvoke(&pb.InvokeResponse{InvocationId: "1", Success: true, Data: jsonData("3"), Metadata: map[string]string{"k": "v"}})},
	{"invocation without data", engine.Message{Kind: engine.KindInvokeResponse, Invocation: "1"}, downInvoke(&pb.InvokeResponse{InvocationId: "1", Success: true})},
	{"invocation with long data", engine.Message{Kind: engine.KindInvokeResponse, Invocation: "1", Payload: payload(engine.Text, strings.Repeat("x", 1<<15))}, downInvoke(&pb.InvokeResponse{InvocationId: "1", Success: true, Data: textData(strings.Repeat("x", 1<<15))})},
	{"invocation that failed", engine.Message{Kind: engine.KindInvokeResponse, Invocation: "1", Err: &engine.Error{Code: engine.CodeNotFound, Message: "No."}}, downInvoke(&pb.InvokeResponse{InvocationId: "1", Error: &pb.Error{Name: "NotFound", Message: "No."}})},

	{"stream ack", engine.Message{Kind: engine.KindStreamAck, Stream: &engine.StreamPart{ID: "s", Seq: 1}}, &pb.DownstreamMessage{Message: &pb.DownstreamMessage_StreamAck{StreamAck: &pb.StreamAck{StreamId: "s", ExpectedSequenceId: 1}}}},
	{
		"stream nack", engine.Message{Kind: engine.KindStreamNack, Stream: &engine.StreamPart{ID: "s", Seq: 2, Err: &engine.StreamError{Name: engine.StreamInvalidSeq, Message: "expected 2"}}},
		&pb.DownstreamMessage{Message: &pb.DownstreamMessage_StreamNack{StreamNack: &pb.StreamNack{StreamId: "s", ExpectedSequenceId: 2, Name: "InvalidSequenceId", Message: "expected 2"}}},
	},
	{"stream closed", engine.Message{Kind: engine.KindStreamClosed, Stream: &engine.StreamPart{ID: "s"}}, &pb.DownstreamMessage{Message: &pb.DownstreamMessage_StreamClosed{StreamClosed: &pb.StreamClosed{StreamId: "s"}}}},
	{
		"stream closed for a reason", engine.Message{Kind: engine.KindStreamClosed, Stream: &engine.StreamPart{ID: "s", Err: &engine.StreamError{Name: engine.StreamNotFound, Message: "No."}}},
		&pb.DownstreamMessage{Message: &pb.DownstreamMessage_StreamClosed{StreamClosed: &pb.StreamClosed{StreamId: "s", Error: &pb.Error{Name: "StreamNotFound", Message: "No."}}}},
	},

	{
		"state snapshot",
		engine.Message{Kind: engine.KindStateSnapshot, Group: "g", States: []engine.GroupState{
			{ConnID: "a", UserID: "kim", State: map[string]string{"mood": "ok", "color": "é"}, UpdatedAt: time.UnixMilli(1760000000000)},
			{ConnID: "b", State: map[string]string{}, UpdatedAt: time.UnixMilli(0)},
		}},
		&pb.DownstreamMessage{Message: &pb.DownstreamMessage_GroupStateSnapshot{GroupStateSnapshot: &pb.GroupStateSnapshot{Group: "g", Items: []*pb.GroupStateItem{
			{ConnectionId: "a", UserId: new("kim"), State: &pb.GroupState{Entries: map[string]string{"mood": "ok", "color": "é"}}, UpdatedAt: 1760000000000},
			{ConnectionId: "b", State: &pb.GroupState{}},
		}}}},
	},
	{"empty state snapshot", engine.Message{Kind: engine.KindStateSnapshot, Group: "g"}, &pb.DownstreamMessage{Message: &pb.DownstreamMessage_GroupStateSnapshot{GroupStateSnapshot: &pb.GroupStateSnapshot{Group: "g"}}}},
	{
		"state update", engine.Message{Kind: engine.KindStateUpdate, Group: "g", States: []engine.GroupState{{ConnID: "a", UserID: "kim", UpdatedAt: time.UnixMilli(-1)}}},
		&pb.DownstreamMessage{Message: &pb.DownstreamMessage_GroupStateUpdate{GroupStateUpdate: &pb.GroupStateUpdate{Group: "g", Items: []*pb.GroupStateItem{{ConnectionId: "a", UserId: new("kim"), UpdatedAt: -1}}}}},
	},
}

func downAck(m *pb.Ack) *pb.DownstreamMessage {
	return &pb.DownstreamMessage{Message: &pb.DownstreamMessage_Ack{Ack: m}}
}

func downData(m *pb.Data) *pb.DownstreamMessage {
	return &pb.DownstreamMessage{Message: &pb.DownstreamMessage_Data{Data: m}}
}

func downSystem(m *pb.System) *pb.DownstreamMessage {
	return &pb.DownstreamMessage{Message: &pb.DownstreamMessage_System{System: m}}
}

func downConnected(id, user string) *pb.DownstreamMessage {
	return downSystem(&pb.System{Message: &pb.System_Connected{Connected: &pb.Connected{ConnectionId: id, UserId: user}}})
}

func downInvoke(m *pb.InvokeResponse) *pb.DownstreamMessage {
	return &pb.DownstreamMessage{Message: &pb.DownstreamMessage_InvokeResponse{InvokeResponse: m}}
}

// reliably returns m as a reliable connection gets it.
func reliably(m *pb.DownstreamMessage, seq uint64) *pb.DownstreamMessage {
	m = proto.Clone(m).(*pb.DownstreamMessage)
	switch {
	case m.GetData() != nil:
		m.GetData().SequenceId = &seq
	case m.GetGroupStateSnapshot() != nil:
		m.GetGroupStateSnapshot().SequenceId = &seq
	case m.GetGroupStateUpdate() != nil:
		m.GetGroupStateUpdate().SequenceId = &seq
	case m.GetSystem().GetConnected() != nil:
		m.GetSystem().GetConnected().ReconnectionToken = new("a.b")
	}
	return m
}

// Every kind of message is what the generated types make of it: without a
// connection's own part to the byte, with one in meaning.
func TestProtobufEncode(t *testing.T) {
	plain, _ := subprotocol.Protobuf()
	reliable, _ := subprotocol.ReliableProtobuf()
	for _, c := range downstream {
		t.Run(c.name, func(t *testing.T) {
			if got, wish := whole(t, plain, &c.m, engine.Own{Seq: 5}), wire(t, c.wish); !bytes.Equal(got, wish) {
				t.Errorf("got  %x\nwish %x", got, wish)
			}
			for _, seq := range []uint64{1, 127, 128, 1 << 60, math.MaxUint64} {
				got, wish := received(t, whole(t, reliable, &c.m, engine.Own{Seq: engine.SequenceID(seq)})), reliably(c.wish, seq)
				if !proto.Equal(got, wish) {
					t.Errorf("sequence id %d:\ngot  %s\nwish %s", seq, protojson.Format(got), protojson.Format(wish))
				}
			}
			// A door that does not number its deliveries.
			if got := received(t, whole(t, reliable, &c.m, engine.Own{})); c.m.Kind.Numbered() && !proto.Equal(got, c.wish) {
				t.Errorf("not numbered: got %s", protojson.Format(got))
			}
		})
	}
}

// The protocols differ, have a name and an own part as they should, and leave dst
// as it was for what they do not send.
func TestProtobufEncoders(t *testing.T) {
	plain, _ := subprotocol.Protobuf()
	reliable, _ := subprotocol.ReliableProtobuf()
	again, _ := subprotocol.ReliableProtobuf()
	if plain == reliable || reliable != again {
		t.Error("encoders compare wrongly")
	}
	if plain.Name() != subprotocol.NameProtobuf || reliable.Name() != subprotocol.NameReliableProtobuf || plain.Own() || !reliable.Own() {
		t.Errorf("%q with own part %v, %q with own part %v", plain.Name(), plain.Own(), reliable.Name(), reliable.Own())
	}
	for _, enc := range []subprotocol.Encoder{plain, reliable} {
		for _, kind := range []engine.Kind{
			engine.KindWirePing, engine.KindWirePong, engine.KindClose, engine.KindControl,
			engine.KindStreamAck, engine.KindStreamNack, engine.KindStreamClosed, // of no stream
			engine.KindInvokeResponse + 1,
		} {
			m := &engine.Message{Kind: kind, Payload: payload(engine.Text, "x")}
			if got, ok := enc.AppendBody([]byte("x"), m); ok || string(got) != "x" {
				t.Errorf("kind %d became %q", kind, got)
			}
		}
	}
}

// What a server says wrongly is mended, so that a client can read the message.
func TestProtobufEncodeMends(t *testing.T) {
	reliable, _ := subprotocol.ReliableProtobuf()
	for _, c := range []struct {
		name string
		m    engine.Message
		wish *pb.Data
	}{
		{"text", engine.Message{Payload: payload(engine.Text, "a\xffé\xe2\x82")}, &pb.Data{Data: textData("a?é??")}},
		{"JSON", engine.Message{Payload: payload(engine.JSON, "\"\xff\"")}, &pb.Data{Data: jsonData(`"?"`)}},
		{"no JSON", engine.Message{Payload: engine.Payload{Type: engine.JSON}}, &pb.Data{Data: jsonData("null")}},
		{"metadata", engine.Message{Metadata: engine.Metadata{"\xff": "\xfe"}}, &pb.Data{Data: textData(""), Metadata: map[string]string{"?": "?"}}},
		{"an Any that is none", engine.Message{Payload: payload(engine.Protobuf, "\xff")}, &pb.Data{Data: binaryData("\xff")}},
		{"an Any whose URL is not UTF-8", engine.Message{Payload: payload(engine.Protobuf, "\n\x01\xff")}, &pb.Data{Data: binaryData("\n\x01\xff")}},
		{"a replacement character is none of this", engine.Message{Payload: payload(engine.Text, "\uFFFD")}, &pb.Data{Data: textData("\uFFFD")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.wish.From, c.wish.SequenceId = "server", new(uint64(1))
			if got := received(t, whole(t, reliable, &c.m, engine.Own{Seq: 1})); !proto.Equal(got, downData(c.wish)) {
				t.Errorf("got %s", protojson.Format(got))
			}
		})
	}
}

// Each type of data reaches each kind of client as Azure's table has it.
func TestDataBetweenProtocols(t *testing.T) {
	_, protobuf := subprotocol.Protobuf()
	toProtobuf, _ := subprotocol.Protobuf()
	toJSON, _ := subprotocol.JSON()
	toRaw, _ := subprotocol.Raw(subprotocol.SendEvent, "", false)
	for _, c := range []struct {
		data     *pb.MessageData
		json     string
		raw      string
		rawFrame subprotocol.Frame
	}{
		{textData(`"hi"`), `"dataType":"text","data":"\"hi\""`, `"hi"`, subprotocol.TextFrame},
		{jsonData(`{"a": 1.0}`), `"dataType":"json","data":{"a": 1.0}`, `{"a": 1.0}`, subprotocol.TextFrame},
		{jsonData(`"hi"`), `"dataType":"json","data":"hi"`, `"hi"`, subprotocol.TextFrame},
		{binaryData("\x01\x02"), `"dataType":"binary","data":"AQI="`, "\x01\x02", subprotocol.BinaryFrame},
		{anyData("type.x", "\x01"), `"dataType":"protobuf","data":"CgZ0eXBlLngSAQE="`, "\n\x06type.x\x12\x01\x01", subprotocol.BinaryFrame},
	} {
		in, err := protobuf.Decode(subprotocol.BinaryFrame, wire(t, upSend(&pb.SendToGroup{Group: "lobby", Data: c.data})))
		if err != nil {
			t.Fatal(err)
		}
		m := &engine.Message{Group: in.Request.Group, From: "kim", Payload: in.Request.Payload}
		if got := received(t, whole(t, toProtobuf, m, engine.Own{})); !proto.Equal(got, downData(&pb.Data{From: "group", Group: new("lobby"), Data: c.data})) {
			t.Errorf("protobuf: got %s", protojson.Format(got))
		}
		if got, ok := toJSON.AppendBody(nil, m); !ok || !strings.Contains(string(got), `"fromUserId":"kim",`+c.json+`}`) {
			t.Errorf("JSON: got %s", got)
		}
		if got, ok := toRaw.AppendBody(nil, m); !ok || string(got) != c.raw || toRaw.Frame(m) != c.rawFrame {
			t.Errorf("raw: got %s frame %q", toRaw.Frame(m), got)
		}
	}
}

// A published Any reaches JSON clients in base64 and raw clients as it is, byte for
// byte as its author sent it, even where another encoder would write it otherwise.
func TestCheck18AnyBetweenProtocols(t *testing.T) {
	inner := unhex(t, "1201012801"+"0A06747970652E78") // value, an unknown field, type_url
	published := append(unhex(t, "0A1A0A056C6F6262791A111A0F"), inner...)
	published[1], published[10], published[12] = byte(len(published)-2), byte(len(inner)+2), byte(len(inner))
	_, dec := subprotocol.Protobuf()
	in, err := dec.Decode(subprotocol.BinaryFrame, published)
	if err != nil {
		t.Fatal(err)
	}
	m := &engine.Message{Group: in.Request.Group, Payload: in.Request.Payload}
	json, _ := subprotocol.JSON()
	wish := `{"type":"message","from":"group","group":"lobby","dataType":"protobuf","data":"` + base64.StdEncoding.EncodeToString(inner) + `"}`
	if got, ok := json.AppendBody(nil, m); !ok || string(got) != wish {
		t.Errorf("JSON: got %s", got)
	}
	raw, _ := subprotocol.Raw(subprotocol.SendEvent, "", false)
	if got, ok := raw.AppendBody(nil, m); !ok || !bytes.Equal(got, inner) || raw.Frame(m) != subprotocol.BinaryFrame {
		t.Errorf("raw: got %s frame %x", raw.Frame(m), got)
	}
	protobuf, _ := subprotocol.Protobuf()
	got := whole(t, protobuf, m, engine.Own{})
	data := received(t, got).GetData().GetData().GetProtobufData()
	if !bytes.Contains(got, inner) || data.GetTypeUrl() != "type.x" || !bytes.Equal(data.GetValue(), []byte{1}) {
		t.Errorf("protobuf: got %x", got)
	}
}
