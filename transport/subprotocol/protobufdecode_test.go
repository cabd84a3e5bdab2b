package subprotocol_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fanfare/fanfare/engine"
	pb "github.com/fanfare/fanfare/proto/azure/webpubsub/v1"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

const malformedProtobuf = "The client message is not a valid protobuf protocol message."

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wire(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The cases of UpstreamMessage and MessageData, in short.

func upSend(m *pb.SendToGroup) *pb.UpstreamMessage {
	return &pb.UpstreamMessage{Message: &pb.UpstreamMessage_SendToGroup{SendToGroup: m}}
}

func upEvent(m *pb.Event) *pb.UpstreamMessage {
	return &pb.UpstreamMessage{Message: &pb.UpstreamMessage_Event{Event: m}}
}

func upInvoke(m *pb.InvokeEvent) *pb.UpstreamMessage {
	return &pb.UpstreamMessage{Message: &pb.UpstreamMessage_InvokeEvent{InvokeEvent: m}}
}

func upStreamData(m *pb.StreamData) *pb.UpstreamMessage {
	return &pb.UpstreamMessage{Message: &pb.UpstreamMessage_StreamData{StreamData: m}}
}

func upStreamEnd(m *pb.StreamEnd) *pb.UpstreamMessage {
	return &pb.UpstreamMessage{Message: &pb.UpstreamMessage_StreamEnd{StreamEnd: m}}
}

func upState(m *pb.SetGroupState) *pb.UpstreamMessage {
	return &pb.UpstreamMessage{Message: &pb.UpstreamMessage_SetGroupState{SetGroupState: m}}
}

func textData(s string) *pb.MessageData {
	return &pb.MessageData{Data: &pb.MessageData_TextData{TextData: s}}
}

func jsonData(s string) *pb.MessageData {
	return &pb.MessageData{Data: &pb.MessageData_JsonData{JsonData: s}}
}

func binaryData(s string) *pb.MessageData {
	return &pb.MessageData{Data: &pb.MessageData_BinaryData{BinaryData: []byte(s)}}
}

func anyData(url, value string) *pb.MessageData {
	return &pb.MessageData{Data: &pb.MessageData_ProtobufData{ProtobufData: &anypb.Any{TypeUrl: url, Value: []byte(value)}}}
}

// upstreamVectors are messages as other encoders write them.
var upstreamVectors = []struct {
	name, hex string
	wish      subprotocol.Inbound
}{
	{"join", "32090A056C6F6262791007", request(engine.Request{Op: engine.OpJoin, Group: "lobby", AckID: 7, HasAck: true})},
	{"join without ack", "32070A056C6F626279", request(engine.Request{Op: engine.OpJoin, Group: "lobby"})},
	{"leave", "3A090A056C6F6262791008", request(engine.Request{Op: engine.OpLeave, Group: "lobby", AckID: 8, HasAck: true})},
	{"send text", "0A110A056C6F62627910091A040A0268692001", request(engine.Request{Op: engine.OpSend, Group: "lobby", AckID: 9, HasAck: true, NoEcho: true, Payload: payload(engine.Text, "hi")})},
	{"send JSON", "0A120A056C6F6262791A0922077B2261223A317D", send(payload(engine.JSON, `{"a":1}`))},
	{"event", "2A0D0A047469636B12030A0178180A", request(engine.Request{Op: engine.OpEvent, Event: "tick", AckID: 10, HasAck: true, Payload: payload(engine.Text, "x")})},
	{"sequenceAck", "42020805", subprotocol.Inbound{Kind: subprotocol.InSequenceAck, Sequence: 5}},
	{"ping", "4A00", subprotocol.Inbound{Kind: subprotocol.InPing}},
	{"stream start", "0A110A056C6F6262793A080A02733110E0D403", request(engine.Request{Op: engine.OpStreamStart, Group: "lobby", Stream: &engine.StreamRequest{ID: "s1", Idle: time.Minute}})},
	{"streamData", "6A0B0A02733110011A030A0161", request(engine.Request{Op: engine.OpStreamData, Stream: &engine.StreamRequest{ID: "s1", Seq: 1}, Payload: payload(engine.Text, "a")})},
	{"streamEnd", "72040A027331", request(engine.Request{Op: engine.OpStreamEnd, Stream: &engine.StreamRequest{ID: "s1"}})},
	{"invoke", "52120A0373756D120269311A0722055B312C325D", subprotocol.Inbound{
		Kind: subprotocol.InRequest, Invocation: "i1",
		Request: &engine.Request{Op: engine.OpEvent, Event: "sum", Payload: payload(engine.JSON, "[1,2]")},
	}},
	{"setGroupState", "7A130A056C6F62627910031A080A060A016B120176", request(engine.Request{Op: engine.OpSetState, Group: "lobby", AckID: 3, HasAck: true, State: map[string]string{"k": "v"}})},
}

func TestProtobufDecodeAccepts(t *testing.T) {
	type inbound = subprotocol.Inbound
	type cases []struct {
		name string
		p    []byte
		wish inbound
	}
	in := func(m *pb.UpstreamMessage) []byte { return wire(t, m) }
	longest := strings.Repeat("x", 256)
	invoked := func(id string, r engine.Request) inbound {
		return inbound{Kind: subprotocol.InRequest, Invocation: id, Request: &r}
	}
	table := cases{
		// Types.
		{"cancel", in(&pb.UpstreamMessage{Message: &pb.UpstreamMessage_CancelInvocation{CancelInvocation: &pb.CancelInvocation{InvocationId: "i1"}}}), inbound{Kind: subprotocol.InCancel, Invocation: "i1"}},
		{"watch state", in(&pb.UpstreamMessage{Message: &pb.UpstreamMessage_SubscribeGroupState{SubscribeGroupState: &pb.SubscribeGroupState{Group: "lobby", AckId: new(uint64(5))}}}), request(engine.Request{Op: engine.OpWatchState, Group: "lobby", AckID: 5, HasAck: true})},
		{"unwatch state", in(&pb.UpstreamMessage{Message: &pb.UpstreamMessage_UnsubscribeGroupState{UnsubscribeGroupState: &pb.UnsubscribeGroupState{Group: "lobby"}}}), request(engine.Request{Op: engine.OpUnwatchState, Group: "lobby"})},
		{"sequenceAck of nothing", unhex(t, "4200"), inbound{Kind: subprotocol.InSequenceAck}},
		{"sequenceAck of the largest", unhex(t, "420B08FFFFFFFFFFFFFFFFFF01"), inbound{Kind: subprotocol.InSequenceAck, Sequence: math.MaxUint64}},

		// Numbers.
		{"ack id 0", in(&pb.UpstreamMessage{Message: &pb.UpstreamMessage_JoinGroup{JoinGroup: &pb.JoinGroup{Group: "g", AckId: new(uint64(0))}}}), request(engine.Request{Op: engine.OpJoin, Group: "g", HasAck: true})},
		{"largest ack id", in(&pb.UpstreamMessage{Message: &pb.UpstreamMessage_JoinGroup{JoinGroup: &pb.JoinGroup{Group: "g", AckId: new(uint64(math.MaxUint64))}}}), request(engine.Request{Op: engine.OpJoin, Group: "g", AckID: math.MaxUint64, HasAck: true})},
		{"a varint longer than need be", unhex(t, "32060A0167108700"), request(engine.Request{Op: engine.OpJoin, Group: "g", AckID: 7, HasAck: true})},
		{"of two ack ids the last counts", unhex(t, "32070A016710071008"), request(engine.Request{Op: engine.OpJoin, Group: "g", AckID: 8, HasAck: true})},
		{"of two groups the last counts", unhex(t, "32060A01670A0168"), request(engine.Request{Op: engine.OpJoin, Group: "h"})},
		{"a true of 2", unhex(t, "0A090A01671A020A002002"), request(engine.Request{Op: engine.OpSend, Group: "g", NoEcho: true, Payload: payload(engine.Text, "")})},
		{"ttl 0", in(upSend(&pb.SendToGroup{Group: "lobby", Data: textData("x"), TtlSeconds: new(uint32(0)), NoEcho: new(false)})), send(payload(engine.Text, "x"))},
		{"ttl 300", in(upSend(&pb.SendToGroup{Group: "lobby", Data: textData("x"), TtlSeconds: new(uint32(300))})), request(engine.Request{Op: engine.OpSend, Group: "lobby", TTL: 5 * time.Minute, Payload: payload(engine.Text, "x")})},

		// What is unknown is skipped, whatever it holds.
		{"unknown fields outside", unhex(t, "12014A"+"C83E01"+"CD3E01020304"+"C93E0102030405060708"+"4A00"+"CA3E02FFFF"), inbound{Kind: subprotocol.InPing}},
		{"unknown fields inside", unhex(t, "32070A0167DA060107"), request(engine.Request{Op: engine.OpJoin, Group: "g"})},
		{"numbers that other messages have", unhex(t, "3209"+"0A0167"+"1A0141"+"3A01FF"), request(engine.Request{Op: engine.OpJoin, Group: "g"})},
		{"unknown fields in a ping", unhex(t, "4A020801"), inbound{Kind: subprotocol.InPing}},
		{"unknown fields in data", unhex(t, "0A0E0A056C6F6262791A05"+"2801"+"0A0178"), send(payload(engine.Text, "x"))},

		// Data.
		{"text empty", in(upSend(&pb.SendToGroup{Group: "lobby", Data: textData("")})), send(payload(engine.Text, ""))},
		{"binary", in(upSend(&pb.SendToGroup{Group: "lobby", Data: binaryData("\xff\x00")})), send(payload(engine.Binary, "\xff\x00"))},
		{"binary empty", in(upSend(&pb.SendToGroup{Group: "lobby", Data: binaryData("")})), send(payload(engine.Binary, ""))},
		{"an Any", in(upSend(&pb.SendToGroup{Group: "lobby", Data: anyData("type.x", "\x01")})), send(payload(engine.Protobuf, "\n\x06type.x\x12\x01\x01"))},
		{"an empty Any", in(upSend(&pb.SendToGroup{Group: "lobby", Data: anyData("", "")})), send(payload(engine.Protobuf, ""))},
		{"an Any keeps its bytes", unhex(t, "0A120A056C6F6262791A091A0712017828011200"), send(payload(engine.Protobuf, "\x12\x01x\x28\x01\x12\x00"))},
		{"JSON keeps its spelling", in(upSend(&pb.SendToGroup{Group: "lobby", Data: jsonData(` {"a" : 1.0, "b":"\u0041"} `)})), send(payload(engine.JSON, ` {"a" : 1.0, "b":"\u0041"} `))},
		{"JSON null", in(upSend(&pb.SendToGroup{Group: "lobby", Data: jsonData("null")})), send(payload(engine.JSON, "null"))},
		{"JSON as deep as allowed", in(upSend(&pb.SendToGroup{Group: "lobby", Data: jsonData(strings.Repeat("[", 63) + strings.Repeat("]", 63))})), send(payload(engine.JSON, strings.Repeat("[", 63)+strings.Repeat("]", 63)))},

		// Metadata.
		{"metadata alone", in(upEvent(&pb.Event{Event: "e", Metadata: map[string]string{"k": "v"}})), request(engine.Request{Op: engine.OpEvent, Event: "e", Payload: payload(engine.Text, ""), Metadata: engine.Metadata{"k": "v"}})},
		{"metadata and data", in(upSend(&pb.SendToGroup{Group: "lobby", Data: binaryData("x"), Metadata: map[string]string{"k": "v", "K": ""}})), request(engine.Request{Op: engine.OpSend, Group: "lobby", Payload: payload(engine.Binary, "x"), Metadata: engine.Metadata{"k": "v", "K": ""}})},
		{"an entry without a value", unhex(t, "2A080A016522030A016B"), request(engine.Request{Op: engine.OpEvent, Event: "e", Payload: payload(engine.Text, ""), Metadata: engine.Metadata{"k": ""}})},
		{"metadata at its bounds", in(upSend(&pb.SendToGroup{Group: "lobby", Data: textData(""), Metadata: metadataMap(256, 1024, 8192)})), request(engine.Request{Op: engine.OpSend, Group: "lobby", Payload: payload(engine.Text, ""), Metadata: metadataMap(256, 1024, 8192)})},

		// Invocations.
		{"invoke without data", in(upInvoke(&pb.InvokeEvent{Event: "e", InvocationId: longest})), invoked(longest, engine.Request{Op: engine.OpEvent, Event: "e", Payload: payload(engine.Text, "")})},
		{"invoke with metadata", in(upInvoke(&pb.InvokeEvent{Event: "e", InvocationId: "1", Data: anyData("t", ""), Metadata: map[string]string{"k": "v"}})), invoked("1", engine.Request{Op: engine.OpEvent, Event: "e", Payload: payload(engine.Protobuf, "\n\x01t"), Metadata: engine.Metadata{"k": "v"}})},

		// Streams.
		{"stream start without a timeout", in(upSend(&pb.SendToGroup{Group: "lobby", NoEcho: new(true), Stream: &pb.StreamStartInfo{StreamId: longest}})), request(engine.Request{Op: engine.OpStreamStart, Group: "lobby", NoEcho: true, Stream: &engine.StreamRequest{ID: longest}})},
		{"longest timeout of a stream", in(upSend(&pb.SendToGroup{Group: "lobby", Stream: &pb.StreamStartInfo{StreamId: "s", IdleTimeoutMs: new(uint32(86400000))}})), request(engine.Request{Op: engine.OpStreamStart, Group: "lobby", Stream: &engine.StreamRequest{ID: "s", Idle: 24 * time.Hour}})},
		{"sign of life", in(upStreamData(&pb.StreamData{StreamId: "s"})), request(engine.Request{Op: engine.OpStreamData, Stream: &engine.StreamRequest{ID: "s"}})},
		{"part without bytes", in(upStreamData(&pb.StreamData{StreamId: "s", StreamSequenceId: new(uint64(math.MaxUint64)), Data: binaryData("")})), request(engine.Request{Op: engine.OpStreamData, Stream: &engine.StreamRequest{ID: "s", Seq: math.MaxUint64}, Payload: payload(engine.Binary, "")})},
		{
			"stream end with an error", in(upStreamEnd(&pb.StreamEnd{StreamId: "s", Error: &pb.StreamEnd_Error{Message: new("gave up"), UserErrorCode: new("E42")}})),
			request(engine.Request{Op: engine.OpStreamEnd, Stream: &engine.StreamRequest{ID: "s", Err: &engine.StreamError{Name: engine.StreamUserError, Message: "gave up", UserCode: "E42"}}}),
		},
		{"stream end with an empty error", in(upStreamEnd(&pb.StreamEnd{StreamId: "s", Error: &pb.StreamEnd_Error{}})), request(engine.Request{Op: engine.OpStreamEnd, Stream: &engine.StreamRequest{ID: "s", Err: &engine.StreamError{Name: engine.StreamUserError}}})},

		// State.
		{"state cleared", in(upState(&pb.SetGroupState{Group: "lobby", AckId: new(uint64(4))})), request(engine.Request{Op: engine.OpSetState, Group: "lobby", AckID: 4, HasAck: true})},
		{"state without entries", in(upState(&pb.SetGroupState{Group: "lobby", State: &pb.GroupState{}})), request(engine.Request{Op: engine.OpSetState, Group: "lobby", State: map[string]string{}})},
		{"state beyond ASCII", in(upState(&pb.SetGroupState{Group: "lobby", State: &pb.GroupState{Entries: map[string]string{"é": "€", "": ""}}})), request(engine.Request{Op: engine.OpSetState, Group: "lobby", State: map[string]string{"é": "€", "": ""}})},
		{"of two states of a key the last counts", unhex(t, "7A150A01671A100A060A016B1201760A060A016B120177"), request(engine.Request{Op: engine.OpSetState, Group: "g", State: map[string]string{"k": "w"}})},
	}
	for _, v := range upstreamVectors {
		table = append(table, cases{{v.name, unhex(t, v.hex), v.wish}}...)
	}
	for _, c := range table {
		t.Run(c.name, func(t *testing.T) {
			_, dec := subprotocol.Protobuf()
			p := bytes.Clone(c.p)
			got, err := dec.Decode(subprotocol.BinaryFrame, p)
			if err != nil {
				t.Fatal(err)
			}
			clear(p) // nothing of it may be kept
			if !reflect.DeepEqual(got, c.wish) {
				t.Errorf("got  %s\nwish %s", describe(got), describe(c.wish))
			}
		})
	}
}

// A refused message closes with 1007, and the log learns which field is at fault.
func TestProtobufDecodeRefuses(t *testing.T) {
	in := func(m *pb.UpstreamMessage) []byte { return wire(t, m) }
	join := func(group string) []byte {
		return in(&pb.UpstreamMessage{Message: &pb.UpstreamMessage_JoinGroup{JoinGroup: &pb.JoinGroup{Group: group}}})
	}
	group := func(fields string) []byte { // of a sendToGroup to "g"
		inner := append(unhex(t, "0A0167"), unhex(t, fields)...)
		return protowire.AppendBytes([]byte{0x0A}, inner)
	}
	stream := &pb.StreamStartInfo{StreamId: "s"}
	for _, c := range []struct {
		name   string
		p      []byte
		detail string
	}{
		// Framing.
		{"nothing", nil, "no message is set"},
		{"unknown messages alone", unhex(t, "120022006200"), "no message is set"},
		{"text", []byte("ping"), "UpstreamMessage"},
		{"JSON", []byte(`{"type":"ping"}`), "UpstreamMessage"},
		{"field number 0", unhex(t, "0200"), "UpstreamMessage: what should be a field's tag is none"},
		{"field number 2^29", unhex(t, "4A00"+"808080801000"), "UpstreamMessage: what should be a field's tag is none"},
		{"unfinished tag", unhex(t, "4A0080"), "tag is none"},
		{"unfinished varint", unhex(t, "4A001880"), "field 3 is cut short"},
		{"varint of more than 64 bits", unhex(t, "320E0A016710FFFFFFFFFFFFFFFFFF02"), "JoinGroup: field 2 is cut short, or a number of more than 64 bits"},
		{"unfinished message", unhex(t, "32090A056C6F62627910"), "UpstreamMessage: field 6 is cut short"},
		{"unfinished group name", unhex(t, "32040A056C6F"), "JoinGroup: field 1 is cut short"},
		{"unfinished fixed32", unhex(t, "4A001D0102"), "field 3 is cut short"},
		{"unfinished fixed64", unhex(t, "4A001901"), "field 3 is cut short"},
		{"a group", unhex(t, "4A001B1C"), "field 3 is a group"},
		{"wire type 7", unhex(t, "4A001F"), "reserved wire type"},
		{"two messages", unhex(t, "4A0042020805"), "UpstreamMessage.SequenceAck: there was a message before"},
		{"one message twice", unhex(t, "4A004A00"), "UpstreamMessage.Ping: there was a message before"},
		{"a message that is a number", unhex(t, "4801"), "UpstreamMessage.Ping: want a message, got wire type 0"},

		// Fields.
		{"no group", unhex(t, "3200"), "JoinGroup.group: "},
		{"empty group", join(""), "JoinGroup.group: "},
		{"white space", join(" \t"), "JoinGroup.group: "},
		{"group of 1025 characters", join(strings.Repeat("é", 1025)), "JoinGroup.group: "},
		{"group that is not UTF-8", unhex(t, "32030A01FF"), "JoinGroup.group: holds bytes that are not UTF-8"},
		{"group that is not UTF-8, and another", unhex(t, "32060A01FF0A0167"), "JoinGroup.group: holds bytes that are not UTF-8"},
		{"group that is a number", unhex(t, "32020801"), "JoinGroup.group: want a string, got wire type 0"},
		{"ack id that is a string", unhex(t, "32060A0167120137"), "JoinGroup.ack_id: want a varint, got wire type 2"},
		{"ack id of fixed width", unhex(t, "32080A01671507000000"), "JoinGroup.ack_id: want a varint, got wire type 5"},
		{"no event", in(upEvent(&pb.Event{Data: textData("x")})), "Event.event: "},
		{"event of 129 characters", in(upEvent(&pb.Event{Event: strings.Repeat("e", 129), Data: textData("x")})), "Event.event: "},
		{"event with a space", in(upEvent(&pb.Event{Event: "a b", Data: textData("x")})), "Event.event: "},
		{"ttl 301", in(upSend(&pb.SendToGroup{Group: "g", Data: textData("x"), TtlSeconds: new(uint32(301))})), "SendToGroup.ttl_seconds: 301 is over 300"},
		{"ttl of 33 bits", group("1A020A00" + "288180808010"), "SendToGroup.ttl_seconds: 4294967297 is over 300"},

		// Data.
		{"no data", in(upSend(&pb.SendToGroup{Group: "g"})), "SendToGroup.data: missing"},
		{"no data of an event", in(upEvent(&pb.Event{Event: "e"})), "Event.data: missing"},
		{"data without a case", group("1A00"), "SendToGroup.data: none of"},
		{"data of an unknown case", group("1A022A00"), "SendToGroup.data: none of"},
		{"data without a case, and metadata", group("1A00" + "32060A016B120176"), "SendToGroup.data: none of"},
		{"data twice", group("1A020A00" + "1A020A00"), "SendToGroup.data: comes twice"},
		{"data of two cases", group("1A040A001200"), "SendToGroup.data.data: more than one case"},
		{"data that is a number", group("1801"), "SendToGroup.data: want a message"},
		{"text that is not UTF-8", group("1A030A01FF"), "SendToGroup.data.text_data: holds bytes that are not UTF-8"},
		{"text that is a number", group("1A020801"), "SendToGroup.data.text_data: want a string"},
		{"binary that is a number", group("1A021001"), "SendToGroup.data.binary_data: want bytes"},
		{"an Any that is a number", group("1A021801"), "SendToGroup.data.protobuf_data: want bytes"},
		{"an Any that is none", group("1A031A01FF"), "SendToGroup.data.protobuf_data: what should be a field's tag is none"},
		{"an Any cut short", group("1A041A020A05"), "SendToGroup.data.protobuf_data: field 1 is cut short"},
		{"an Any whose URL is not UTF-8", group("1A051A030A01FF"), "SendToGroup.data.protobuf_data.type_url: holds bytes that are not UTF-8"},
		{"an Any whose value is a number", group("1A041A021001"), "SendToGroup.data.protobuf_data.value: want bytes"},
		{"JSON empty", in(upSend(&pb.SendToGroup{Group: "g", Data: jsonData("")})), "SendToGroup.data.json_data: expected a value, at byte 0 of 0"},
		{"JSON that is none", in(upSend(&pb.SendToGroup{Group: "g", Data: jsonData(`{"a":}`)})), "json_data: expected a value, at byte 5 of 6"},
		{"JSON that ends the message around it", in(upSend(&pb.SendToGroup{Group: "g", Data: jsonData(`1},{"type":"ack"`)})), "json_data: text after the end"},
		{"JSON too deep", in(upSend(&pb.SendToGroup{Group: "g", Data: jsonData(strings.Repeat("[", 64) + strings.Repeat("]", 64))})), "json_data: objects and arrays nested deeper"},
		{"JSON that is not UTF-8", group("1A052203" + "22FF22"), "SendToGroup.data.json_data: holds bytes that are not UTF-8"},

		// Metadata.
		{"empty key", in(upSend(&pb.SendToGroup{Group: "g", Data: textData(""), Metadata: map[string]string{"": "v"}})), "SendToGroup.metadata: has an empty key"},
		{"key that is no token", in(upEvent(&pb.Event{Event: "e", Data: textData(""), Metadata: map[string]string{"a b": "v"}})), "Event.metadata: has the key"},
		{"value beyond ASCII", in(upEvent(&pb.Event{Event: "e", Data: textData(""), Metadata: map[string]string{"k": "é"}})), "Event.metadata: has a value"},
		{"key that is not UTF-8", group("32050A01FF1200"), "SendToGroup.metadata.key: holds bytes"},
		{"key that is a number", group("32020801"), "SendToGroup.metadata.key: want a string"},
		{"an entry that is a number", group("3001"), "SendToGroup.metadata: want a map's entry"},
		{"key twice", group("32060A016B120176" + "32060A016B120176"), "SendToGroup.metadata: has the key \"k\" twice"},
		{"metadata too long", in(upSend(&pb.SendToGroup{Group: "g", Data: textData(""), Metadata: metadataMap(256, 1024, 8193)})), "SendToGroup.metadata: has more than 8192 bytes"},

		// Invocations.
		{"invoke without an id", in(upInvoke(&pb.InvokeEvent{Event: "e", Data: textData("")})), "InvokeEvent.invocation_id: want 1 to 256 bytes, got 0"},
		{"invoke with a long id", in(upInvoke(&pb.InvokeEvent{Event: "e", InvocationId: strings.Repeat("x", 257)})), "InvokeEvent.invocation_id: want 1 to 256 bytes, got 257"},
		{"invoke with a stream", in(upInvoke(&pb.InvokeEvent{Event: "e", InvocationId: "i", Stream: stream})), "InvokeEvent.stream: streams go to groups only"},
		{"event with a stream", in(upEvent(&pb.Event{Event: "e", Data: textData(""), Stream: stream})), "Event.stream: streams go to groups only"},
		{"cancel of nothing", unhex(t, "5A00"), "CancelInvocation.invocation_id: want 1 to 256 bytes, got 0"},

		// Streams.
		{"stream without an id", in(upSend(&pb.SendToGroup{Group: "g", Stream: &pb.StreamStartInfo{}})), "SendToGroup.stream_id: want 1 to 256"},
		{"stream with a long id", in(upSend(&pb.SendToGroup{Group: "g", Stream: &pb.StreamStartInfo{StreamId: strings.Repeat("x", 257)}})), "SendToGroup.stream_id: want 1 to 256"},
		{"stream with data", in(upSend(&pb.SendToGroup{Group: "g", Data: textData(""), Stream: stream})), "SendToGroup.data: a message that starts a stream has none"},
		{"stream with an ack id", in(upSend(&pb.SendToGroup{Group: "g", AckId: new(uint64(0)), Stream: stream})), "SendToGroup.ack_id: a message that starts a stream has none"},
		{"stream with metadata", in(upSend(&pb.SendToGroup{Group: "g", Metadata: map[string]string{"k": "v"}, Stream: stream})), "SendToGroup.metadata: a message that starts a stream has none"},
		{"stream with a ttl", in(upSend(&pb.SendToGroup{Group: "g", TtlSeconds: new(uint32(1)), Stream: stream})), "SendToGroup.ttl_seconds: a message that starts a stream has none"},
		{"stream without time", in(upSend(&pb.SendToGroup{Group: "g", Stream: &pb.StreamStartInfo{StreamId: "s", IdleTimeoutMs: new(uint32(0))}})), "SendToGroup.stream.idle_timeout_ms: want 1 to 86400000, got 0"},
		{"stream for ever", in(upSend(&pb.SendToGroup{Group: "g", Stream: &pb.StreamStartInfo{StreamId: "s", IdleTimeoutMs: new(uint32(86400001))}})), "SendToGroup.stream.idle_timeout_ms: want 1 to 86400000, got 86400001"},
		{"stream twice", group("3A030A0173" + "3A030A0173"), "SendToGroup.stream: comes twice"},
		{"part without an id", in(upStreamData(&pb.StreamData{StreamSequenceId: new(uint64(1)), Data: textData("")})), "StreamData.stream_id: want 1 to 256"},
		{"part without a number", in(upStreamData(&pb.StreamData{StreamId: "s", Data: textData("")})), "StreamData.stream_sequence_id: missing, and there is data"},
		{"part without data", in(upStreamData(&pb.StreamData{StreamId: "s", StreamSequenceId: new(uint64(1))})), "StreamData.data: missing, and there is a stream_sequence_id"},
		{"part 0", in(upStreamData(&pb.StreamData{StreamId: "s", StreamSequenceId: new(uint64(0)), Data: textData("")})), "StreamData.stream_sequence_id: 0, and the first is 1"},
		{"part whose data has no case", in(upStreamData(&pb.StreamData{StreamId: "s", StreamSequenceId: new(uint64(1)), Data: &pb.MessageData{}})), "StreamData.data: none of"},
		{"end of nothing", unhex(t, "7200"), "StreamEnd.stream_id: want 1 to 256"},
		{"end with a long message", in(upStreamEnd(&pb.StreamEnd{StreamId: "s", Error: &pb.StreamEnd_Error{Message: new(strings.Repeat("x", 4097))}})), "StreamEnd.error.message: 4097 bytes are over 4096"},
		{"end with a long code", in(upStreamEnd(&pb.StreamEnd{StreamId: "s", Error: &pb.StreamEnd_Error{UserErrorCode: new(strings.Repeat("x", 257))}})), "StreamEnd.error.user_error_code: 257 bytes are over 256"},

		// State.
		{"state of no group", in(upState(&pb.SetGroupState{})), "SetGroupState.group: "},
		{"state that is a number", unhex(t, "7A050A01671801"), "SetGroupState.state: want a message"},
		{"state twice", unhex(t, "7A070A01671A001A00"), "SetGroupState.state: comes twice"},
		{"state that is not UTF-8", unhex(t, "7A0A0A01671A050A031201FF"), "SetGroupState.state.entries.value: holds bytes"},
		{"state beyond its bound", in(upState(&pb.SetGroupState{Group: "g", State: &pb.GroupState{Entries: map[string]string{"k": strings.Repeat("x", 16<<10)}}})), "SetGroupState.state.entries: more than 16384 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, dec := subprotocol.ReliableProtobuf()
			in, err := dec.Decode(subprotocol.BinaryFrame, c.p)
			var refused *subprotocol.RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("got %s, %v", describe(in), err)
			}
			if refused.Code != engine.CloseInvalidData || refused.Reason != malformedProtobuf {
				t.Errorf("got %+v", refused)
			}
			if !strings.Contains(refused.Detail, c.detail) || len(refused.Detail) > 300 {
				t.Errorf("detail %q", refused.Detail)
			}
		})
	}
}

func TestProtobufDecodeRefusesTextFrames(t *testing.T) {
	_, dec := subprotocol.Protobuf()
	_, err := dec.Decode(subprotocol.TextFrame, unhex(t, "4A00"))
	var refused *subprotocol.RefusedError
	if !errors.As(err, &refused) || refused.Code != engine.CloseUnsupported || !strings.Contains(refused.Reason, "protobuf") {
		t.Errorf("got %v", err)
	}
}
