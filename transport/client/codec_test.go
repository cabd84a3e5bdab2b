package client

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Requests, as the codecs write them. The binary ones are made by hand from the
// numbers of Azure's schema.
func TestEncode(t *testing.T) {
	text := func(s string) *engine.Payload { return &engine.Payload{Type: engine.Text, Data: []byte(s)} }
	js := func(s string) *engine.Payload { return &engine.Payload{Type: engine.JSON, Data: []byte(s)} }
	for _, test := range []struct {
		r          request
		json, wire string // wire is hexadecimal
	}{
		{request{verb: verbJoin, name: "lobby", ackID: 7},
			`{"type":"joinGroup","group":"lobby","ackId":7}`, "32090A056C6F6262791007"},
		{request{verb: verbLeave, name: "lobby", ackID: 8},
			`{"type":"leaveGroup","group":"lobby","ackId":8}`, "3A090A056C6F6262791008"},
		{request{verb: verbSend, name: "lobby", ackID: 9, payload: text("hi"), noEcho: true},
			`{"type":"sendToGroup","group":"lobby","ackId":9,"noEcho":true,"dataType":"text","data":"hi"}`, "0A110A056C6F62627910091A040A0268692001"},
		{request{verb: verbSend, name: "lobby", payload: js(`{"a":1}`)},
			`{"type":"sendToGroup","group":"lobby","dataType":"json","data":{"a":1}}`, "0A120A056C6F6262791A0922077B2261223A317D"},
		{request{verb: verbSend, name: "g", payload: &engine.Payload{Type: engine.Binary, Data: []byte{1, 2}}, ttl: 1500 * time.Millisecond},
			`{"type":"sendToGroup","group":"g","ttlSeconds":2,"dataType":"binary","data":"AQI="}`, "0A0B0A01671A04120201022802"},
		{request{verb: verbSend, name: "g", payload: &engine.Payload{Type: engine.Protobuf, Data: []byte{0x0A, 1, 't', 0x12, 1, 5}}},
			`{"type":"sendToGroup","group":"g","dataType":"protobuf","data":"CgF0EgEF"}`, "0A0D0A01671A081A060A0174120105"},
		{request{verb: verbEvent, name: "tick", payload: text("x"), ackID: 10, metadata: map[string]string{"k": "v"}},
			`{"type":"event","event":"tick","ackId":10,"dataType":"text","data":"x","metadata":{"k":"v"}}`, "2A150A047469636B12030A0178180A22060A016B120176"},
		{request{verb: verbSequenceAck, seq: 5},
			`{"type":"sequenceAck","sequenceId":5}`, "42020805"},
		{request{verb: verbPing}, `{"type":"ping"}`, "4A00"},
		{request{verb: verbStreamStart, name: "lobby", id: "s1", idle: time.Minute},
			`{"type":"sendToGroup","group":"lobby","stream":{"streamId":"s1","idleTimeoutMs":60000}}`, "0A110A056C6F6262793A080A02733110E0D403"},
		{request{verb: verbStreamData, id: "s1", seq: 1, payload: text("a")},
			`{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"text","data":"a"}`, "6A0B0A02733110011A030A0161"},
		{request{verb: verbStreamData, id: "s1"},
			`{"type":"streamData","streamId":"s1"}`, "6A040A027331"},
		{request{verb: verbStreamEnd, id: "s1"},
			`{"type":"streamEnd","streamId":"s1"}`, "72040A027331"},
		{request{verb: verbStreamEnd, id: "s1", fail: &engine.StreamError{Message: "m", UserCode: "E"}},
			`{"type":"streamEnd","streamId":"s1","error":{"message":"m","userErrorCode":"E"}}`, "720C0A02733112060A016D120145"},
		{request{verb: verbInvoke, name: "sum", id: "i1", payload: js("[1,2]")},
			`{"type":"invoke","invocationId":"i1","target":"event","event":"sum","dataType":"json","data":[1,2]}`, "52120A0373756D120269311A0722055B312C325D"},
		{request{verb: verbCancel, id: "i1"},
			`{"type":"cancelInvocation","invocationId":"i1"}`, "5A040A026931"},
		{request{verb: verbSetState, name: "lobby", ackID: 3, state: map[string]string{"k": "v"}},
			`{"type":"setGroupState","group":"lobby","ackId":3,"state":{"k":"v"}}`, "7A130A056C6F62627910031A080A060A016B120176"},
		{request{verb: verbSetState, name: "lobby", ackID: 3, state: map[string]string{}},
			`{"type":"setGroupState","group":"lobby","ackId":3,"state":{}}`, "7A0B0A056C6F62627910031A00"},
		{request{verb: verbSetState, name: "lobby", ackID: 4},
			`{"type":"setGroupState","group":"lobby","ackId":4}`, "7A090A056C6F6262791004"},
		{request{verb: verbWatchState, name: "g", ackID: 5},
			`{"type":"subscribeGroupState","group":"g","ackId":5}`, "8201050A01671005"},
		{request{verb: verbUnwatchState, name: "g", ackID: 6},
			`{"type":"unsubscribeGroupState","group":"g","ackId":6}`, "8A01050A01671006"},
	} {
		if b, err := (jsonCodec{}).encode(&test.r); err != nil || string(b) != test.json {
			t.Errorf("%s as JSON:\n%s, %v, want\n%s", test.r.verb, b, err, test.json)
		}
		if b, err := (protobufCodec{}).encode(&test.r); err != nil || strings.ToUpper(hex.EncodeToString(b)) != test.wire {
			t.Errorf("%s as protobuf:\n%X, %v, want\n%s", test.r.verb, b, err, test.wire)
		}
	}
	for _, r := range []request{
		{verb: verbJoin, name: "\xff"},
		{verb: verbSend, name: "g", payload: js("{")},
		{verb: verbSend, name: "g", payload: text("\xff")},
		{verb: verbSend, name: "g", payload: &engine.Payload{Type: 9}},
		{verb: verbSend, name: "g", payload: text(""), ttl: 301 * time.Second},
		{verb: verbSend, name: "g", payload: text(""), ttl: -1},
	} {
		for _, c := range []codec{jsonCodec{}, protobufCodec{}} {
			if b, err := c.encode(&r); err == nil || !strings.HasPrefix(err.Error(), "client: "+string(r.verb)+": ") {
				t.Errorf("%T of %+v = %q, %v, want an error", c, r, b, err)
			}
		}
	}
	if b, err := (protobufCodec{}).encode(&request{verb: verbSend, payload: &engine.Payload{Type: engine.Protobuf, Data: []byte{0xff}}}); err == nil {
		t.Errorf("what is no Any was encoded as %X", b)
	}
}

// What a server says, in both languages.
func TestDecode(t *testing.T) {
	message := func(seq uint64, m Message) frame { return frame{word: wordMessage, seq: seq, event: m} }
	for _, test := range []struct {
		json, wire string
		want       frame
	}{
		{`{"type":"ack","ackId":7,"success":true}`, "0A0408071001", frame{word: wordAck, ackID: 7}},
		{`{"type":"ack","ackId":9,"success":false,"error":{"name":"Forbidden","message":"no"}}`, "0A1308091A0F0A09466F7262696464656E12026E6F",
			frame{word: wordAck, ackID: 9, fail: &failure{"Forbidden", "no"}}},
		{`{"type":"message","from":"group","group":"lobby","dataType":"text","data":"hi","sequenceId":1}`, "12160A0567726F757012056C6F6262791A040A0268692001",
			message(1, Message{Group: "lobby", Payload: engine.Payload{Type: engine.Text, Data: []byte("hi")}})},
		{`{"type":"message","from":"server","dataType":"binary","data":"AQI="}`, "120E0A067365727665721A0412020102",
			message(0, Message{Payload: engine.Payload{Type: engine.Binary, Data: []byte{1, 2}}})},
		{`{"type":"message","from":"server","dataType":"protobuf","data":"CgF0EgEF"}`, "12121A081A060A01741201050A06736572766572",
			message(0, Message{Payload: engine.Payload{Type: engine.Protobuf, Data: []byte{0x0A, 1, 't', 0x12, 1, 5}}})},
		{`{"type":"message","from":"server","dataType":"json","data":{"a":1},"metadata":{"k":"v"}}`, "121B0A067365727665721A0922077B2261223A317D2A060A016B120176",
			message(0, Message{Payload: engine.Payload{Type: engine.JSON, Data: []byte(`{"a":1}`)}, Metadata: map[string]string{"k": "v"}})},
		{`{"type":"system","event":"connected","userId":"u","connectionId":"c1"}`, "1A090A070A026331120175",
			frame{word: wordConnected, hello: Connected{ConnectionID: "c1", UserID: "u"}}},
		{`{"type":"system","event":"connected","connectionId":"c1","reconnectionToken":"t"}`, "1A090A070A0263311A0174",
			frame{word: wordConnected, hello: Connected{ConnectionID: "c1"}, token: "t"}},
		{`{"type":"system","event":"disconnected","message":"bye"}`, "1A0712051203627965", frame{word: wordDisconnected, text: "bye"}},
		{`{"type":"pong"}`, "2200", frame{word: wordPong}},
		{`{"type":"invokeResponse","invocationId":"1","success":true,"dataType":"text","data":"x"}`, "2A0A0A013110011A030A0178",
			frame{word: wordInvokeResponse, id: "1", data: engine.Payload{Type: engine.Text, Data: []byte("x")}}},
		{`{"type":"invokeResponse","invocationId":"1","success":true}`, "2A050A01311001", frame{word: wordInvokeResponse, id: "1"}},
		{`{"type":"invokeResponse","invocationId":"1","success":false}`, "2A030A0131", frame{word: wordInvokeResponse, id: "1", fail: &failure{}}},
		{`{"type":"streamAck","streamId":"s","expectedSequenceId":2}`, "32050A01731002", frame{word: wordStreamAck, id: "s", next: 2}},
		{`{"type":"streamNack","streamId":"s","expectedSequenceId":2,"name":"n","message":"m"}`, "3A0B0A017312016E1A016D2002",
			frame{word: wordStreamNack, id: "s", next: 2, fail: &failure{"n", "m"}}},
		{`{"type":"streamClosed","streamId":"s"}`, "42030A0173", frame{word: wordStreamClosed, id: "s"}},
		{`{"type":"streamClosed","streamId":"s","error":{"name":"n","message":"m"}}`, "420B0A017312060A016E12016D",
			frame{word: wordStreamClosed, id: "s", fail: &failure{"n", "m"}}},
		{`{"type":"groupStateUpdate","group":"g","items":[{"connectionId":"c","userId":"u","updatedAt":5}],"sequenceId":3}`, "4A0F0A016712080A0163120175200518" + "03",
			frame{word: wordState, seq: 3, event: GroupState{Group: "g", States: []engine.GroupState{{ConnID: "c", UserID: "u", UpdatedAt: time.UnixMilli(5)}}}}},
		{`{"type":"groupStateSnapshot","group":"g","items":[{"connectionId":"c","state":{},"updatedAt":5}]}`, "520C0A016712070A01631A002005",
			frame{word: wordState, event: GroupState{Group: "g", Snapshot: true, States: []engine.GroupState{{ConnID: "c", State: map[string]string{}, UpdatedAt: time.UnixMilli(5)}}}}},
		{`{"type":"of a later version"}`, "", frame{}},
	} {
		if f, err := (jsonCodec{}).decode([]byte(test.json)); err != nil || !reflect.DeepEqual(*f, test.want) {
			t.Errorf("%s:\n%+v, %v, want\n%+v", test.json, f, err, test.want)
		}
		b, err := hex.DecodeString(test.wire)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := (protobufCodec{}).decode(b); err != nil || !reflect.DeepEqual(*f, test.want) {
			t.Errorf("%s:\n%+v, %v, want\n%+v", test.wire, f, err, test.want)
		}
	}
	for _, wire := range []string{
		"FF",                       // no message
		"12080A06736572766572",     // data without content
		"120A0A067365727665721A00", // content of no kind
	} {
		b, err := hex.DecodeString(wire)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := (protobufCodec{}).decode(b); err == nil {
			t.Errorf("%s = %+v, want an error", wire, f)
		}
	}
}
