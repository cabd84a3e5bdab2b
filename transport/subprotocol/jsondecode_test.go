package subprotocol_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

const malformedJSON = "The client message is not a valid JSON protocol message."

func request(r engine.Request) subprotocol.Inbound {
	return subprotocol.Inbound{Kind: subprotocol.InRequest, Request: &r}
}

func payload(t engine.DataType, data string) engine.Payload {
	return engine.Payload{Type: t, Data: []byte(data)}
}

// send is a sendToGroup to lobby with the given content.
func send(p engine.Payload) subprotocol.Inbound {
	return request(engine.Request{Op: engine.OpSend, Group: "lobby", Payload: p})
}

func describe(in subprotocol.Inbound) string {
	if in.Request == nil {
		return fmt.Sprintf("%+v", in)
	}
	return fmt.Sprintf("{Kind:%d Request:%+v Data:%q}", in.Kind, *in.Request, in.Request.Payload.Data)
}

func TestJSONDecodeAccepts(t *testing.T) {
	depth := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, c := range []struct {
		name, text string
		wish       subprotocol.Inbound
	}{
		// Types.
		{"join", `{"type":"joinGroup","group":"lobby","ackId":7}`, request(engine.Request{Op: engine.OpJoin, Group: "lobby", AckID: 7, HasAck: true})},
		{"join without ack", `{"type":"joinGroup","group":"lobby"}`, request(engine.Request{Op: engine.OpJoin, Group: "lobby"})},
		{"leave", `{"type":"leaveGroup","group":"lobby","ackId":8}`, request(engine.Request{Op: engine.OpLeave, Group: "lobby", AckID: 8, HasAck: true})},
		{"send", `{"type":"sendToGroup","group":"lobby","data":{"n":1}}`, send(payload(engine.JSON, `{"n":1}`))},
		{
			"send with all options", `{"type":"sendToGroup","group":"lobby","ackId":9,"noEcho":true,"dataType":"text","data":"hi","metadata":{"trace":"t-1"},"ttlSeconds":60}`,
			request(engine.Request{
				Op: engine.OpSend, Group: "lobby", AckID: 9, HasAck: true, NoEcho: true, Payload: payload(engine.Text, "hi"),
				Metadata: engine.Metadata{"trace": "t-1"}, TTL: time.Minute,
			}),
		},
		{
			"event", `{"type":"event","event":"order.placed","ackId":10,"dataType":"json","data":{"id":5}}`,
			request(engine.Request{Op: engine.OpEvent, Event: "order.placed", AckID: 10, HasAck: true, Payload: payload(engine.JSON, `{"id":5}`)}),
		},
		{"event ignores send options", `{"type":"event","event":"e","data":1,"noEcho":7,"ttlSeconds":"x","group":3}`, request(engine.Request{Op: engine.OpEvent, Event: "e", Payload: payload(engine.JSON, "1")})},
		{"ping", `{"type":"ping"}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"ping with ack", `{"type":"ping","ackId":1}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"sequenceAck", `{"type":"sequenceAck","sequenceId":42}`, subprotocol.Inbound{Kind: subprotocol.InSequenceAck, Sequence: 42}},
		{"sequenceAck of the largest", `{"type":"sequenceAck","sequenceId":18446744073709551615}`, subprotocol.Inbound{Kind: subprotocol.InSequenceAck, Sequence: math.MaxUint64}},
		{"type in capitals", `{"type":"JOINGROUP","group":"lobby"}`, request(engine.Request{Op: engine.OpJoin, Group: "lobby"})},
		{"type in escapes", `{"type":"\u0070in\u0067"}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"property in escapes", `{"\u0074\u0079\u0070\u0065":"ping"}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"longest property in escapes", `{"type":"sendToGroup","group":"lobby","data":1,"\u0074\u0074\u006c\u0053\u0065\u0063\u006f\u006e\u0064\u0073":1}`, request(engine.Request{Op: engine.OpSend, Group: "lobby", Payload: payload(engine.JSON, "1"), TTL: time.Second})},
		{"type last", `{"data":1,"group":"lobby","type":"sendToGroup"}`, send(payload(engine.JSON, "1"))},
		{"white space everywhere", " \t\r\n{ \"type\" :\n\"ping\"\t,\r\"x\" : [ 1 , 2 ] } \n", subprotocol.Inbound{Kind: subprotocol.InPing}},

		// Extra properties.
		{"unknown property", `{"type":"ping","x":{"type":"event","y":[null,true,false,-0.5e+7,""]}}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"empty property name", `{"":1,"type":"ping"}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"property of another case is unknown", `{"type":"ping","Type":"bogus","ACKID":-1}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"long escaped property is unknown", `{"type":"ping","` + strings.Repeat(`\u0041`, 200) + `":1}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"property of half a surrogate pair is unknown", `{"type":"ping","\ud800":1}`, subprotocol.Inbound{Kind: subprotocol.InPing}},
		{"wrong properties of other types", `{"type":"joinGroup","group":"lobby","event":5,"data":null,"metadata":[],"noEcho":1,"stream":{},"sequenceId":"x"}`, request(engine.Request{Op: engine.OpJoin, Group: "lobby"})},
		{"of two the last counts", `{"type":"event","ackId":"x","type":"sendToGroup","group":"a","group":"lobby","data":null,"data":"2","ackId":null}`, send(payload(engine.JSON, `"2"`))},
		{"of two metadata the last counts", `{"type":"sendToGroup","group":"lobby","metadata":{"bad key":1},"metadata":null,"data":1}`, send(payload(engine.JSON, "1"))},

		// ackId.
		{"ackId 0", `{"type":"joinGroup","group":"g","ackId":0}`, request(engine.Request{Op: engine.OpJoin, Group: "g", HasAck: true})},
		{"largest ackId", `{"type":"joinGroup","group":"g","ackId":18446744073709551615}`, request(engine.Request{Op: engine.OpJoin, Group: "g", AckID: math.MaxUint64, HasAck: true})},
		{"ackId that a float would round", `{"type":"joinGroup","group":"g","ackId":9007199254740993}`, request(engine.Request{Op: engine.OpJoin, Group: "g", AckID: 9007199254740993, HasAck: true})},
		{"null ackId is none", `{"type":"joinGroup","group":"g","ackId":null}`, request(engine.Request{Op: engine.OpJoin, Group: "g"})},

		// Options of sendToGroup.
		{"noEcho false", `{"type":"sendToGroup","group":"lobby","noEcho":false,"data":1}`, send(payload(engine.JSON, "1"))},
		{"null ttlSeconds is none", `{"type":"sendToGroup","group":"lobby","ttlSeconds":null,"data":1}`, send(payload(engine.JSON, "1"))},
		{"ttlSeconds 0", `{"type":"sendToGroup","group":"lobby","ttlSeconds":0,"data":1}`, send(payload(engine.JSON, "1"))},
		{"ttlSeconds 300", `{"type":"sendToGroup","group":"lobby","ttlSeconds":300,"data":1}`, request(engine.Request{Op: engine.OpSend, Group: "lobby", TTL: 5 * time.Minute, Payload: payload(engine.JSON, "1")})},
		{"null stream is none", `{"type":"sendToGroup","group":"lobby","stream":null,"data":1}`, send(payload(engine.JSON, "1"))},

		// Data.
		{"dataType in capitals", `{"type":"sendToGroup","group":"lobby","dataType":"TEXT","data":"hi"}`, send(payload(engine.Text, "hi"))},
		{"no dataType is json", `{"type":"sendToGroup","group":"lobby","data":"x"}`, send(payload(engine.JSON, `"x"`))},
		{"json keeps its spelling", `{"type":"sendToGroup","group":"lobby","data": {"a" : 1.0,"b":9007199254740993,"c":"\u0041\/","a":2, "d":[1E5]} }`, send(payload(engine.JSON, `{"a" : 1.0,"b":9007199254740993,"c":"\u0041\/","a":2, "d":[1E5]}`))},
		{"json false", `{"type":"sendToGroup","group":"lobby","data":false}`, send(payload(engine.JSON, "false"))},
		{"json 0", `{"type":"sendToGroup","group":"lobby","data":0}`, send(payload(engine.JSON, "0"))},
		{"json -0.0", `{"type":"sendToGroup","group":"lobby","data":-0.0}`, send(payload(engine.JSON, "-0.0"))},
		{"json empty string", `{"type":"sendToGroup","group":"lobby","data":""}`, send(payload(engine.JSON, `""`))},
		{"json empty object", `{"type":"sendToGroup","group":"lobby","data":{ }}`, send(payload(engine.JSON, `{ }`))},
		{"json null inside", `{"type":"sendToGroup","group":"lobby","data":[null]}`, send(payload(engine.JSON, `[null]`))},
		{"json with half a surrogate pair", `{"type":"sendToGroup","group":"lobby","data":"\ud83d"}`, send(payload(engine.JSON, `"\ud83d"`))},
		{"json as deep as allowed", `{"type":"sendToGroup","group":"lobby","data":` + depth(63) + `}`, send(payload(engine.JSON, depth(63)))},
		{"text empty", `{"type":"sendToGroup","group":"lobby","dataType":"text","data":""}`, send(payload(engine.Text, ""))},
		{"text with every escape", `{"type":"sendToGroup","group":"lobby","dataType":"text","data":"\"\\\/\b\f\n\r\t\u00e9\u20AC\uD83D\uDE00\u0000\u2028"}`, send(payload(engine.Text, "\"\\/\b\f\n\r\té€😀\x00\u2028"))},
		{"text beyond ASCII", `{"type":"sendToGroup","group":"lobby","dataType":"text","data":"é€😀` + "\u2028\x7f" + `"}`, send(payload(engine.Text, "é€😀\u2028\x7f"))},
		{"text cut inside an emoji", `{"type":"sendToGroup","group":"lobby","dataType":"text","data":"a\ud83d"}`, send(payload(engine.Text, "a\uFFFD"))},
		{"text of halves in the wrong order", `{"type":"sendToGroup","group":"lobby","dataType":"text","data":"\ude00\ud83d\ud83d\ude00\ud83dx"}`, send(payload(engine.Text, "\uFFFD\uFFFD😀\uFFFDx"))},
		{"binary", `{"type":"sendToGroup","group":"lobby","dataType":"binary","data":"AQI="}`, send(payload(engine.Binary, "\x01\x02"))},
		{"binary empty", `{"type":"sendToGroup","group":"lobby","dataType":"binary","data":""}`, send(payload(engine.Binary, ""))},
		{"binary in escapes", `{"type":"sendToGroup","group":"lobby","dataType":"binary","data":"\/\u002B8\u003d"}`, send(payload(engine.Binary, "\xff\xef"))},

		// Metadata.
		{
			"metadata alone", `{"type":"event","event":"e","metadata":{"k":"v"}}`,
			request(engine.Request{Op: engine.OpEvent, Event: "e", Payload: payload(engine.Text, ""), Metadata: engine.Metadata{"k": "v"}}),
		},
		{"metadata alone with a dataType", `{"type":"sendToGroup","group":"lobby","dataType":"binary","metadata":{"k":""}}`, request(engine.Request{Op: engine.OpSend, Group: "lobby", Payload: payload(engine.Text, ""), Metadata: engine.Metadata{"k": ""}})},
		{"empty metadata alone", `{"type":"sendToGroup","group":"lobby","metadata":{}}`, send(payload(engine.Text, ""))},
		{"null metadata is none", `{"type":"sendToGroup","group":"lobby","metadata":null,"data":1}`, send(payload(engine.JSON, "1"))},
		{"metadata keys of two cases", `{"type":"sendToGroup","group":"lobby","metadata":{"a":"1","A":"2"},"data":1}`, request(engine.Request{Op: engine.OpSend, Group: "lobby", Payload: payload(engine.JSON, "1"), Metadata: engine.Metadata{"a": "1", "A": "2"}})},
		{
			"metadata of all token characters", `{"type":"sendToGroup","group":"lobby","metadata":{"!#$%&'*+-.^_` + "`" + `|~09azAZ":"\u0020~\t"},"data":1}`,
			request(engine.Request{Op: engine.OpSend, Group: "lobby", Payload: payload(engine.JSON, "1"), Metadata: engine.Metadata{"!#$%&'*+-.^_`|~09azAZ": " ~\t"}}),
		},
		{
			"metadata at its bounds", `{"type":"sendToGroup","group":"lobby","metadata":` + metadataOf(256, 1024, 8192) + `,"data":1}`,
			request(engine.Request{Op: engine.OpSend, Group: "lobby", Payload: payload(engine.JSON, "1"), Metadata: metadataMap(256, 1024, 8192)}),
		},

		// Names.
		{"group of 1024 characters", `{"type":"joinGroup","group":"` + strings.Repeat("é", 1024) + `"}`, request(engine.Request{Op: engine.OpJoin, Group: engine.GroupName(strings.Repeat("é", 1024))})},
		{"group of anything", `{"type":"joinGroup","group":" a/*\u0001\u00e9 "}`, request(engine.Request{Op: engine.OpJoin, Group: " a/*\x01é "})},
		{"event of 128 characters", `{"type":"event","event":"` + strings.Repeat("e", 128) + `","data":1}`, request(engine.Request{Op: engine.OpEvent, Event: engine.EventName(strings.Repeat("e", 128)), Payload: payload(engine.JSON, "1")})},
		{"event of every kind of character", `{"type":"event","event":"Z9_.-z","data":1}`, request(engine.Request{Op: engine.OpEvent, Event: "Z9_.-z", Payload: payload(engine.JSON, "1")})},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, dec := subprotocol.JSON()
			text := []byte(c.text)
			got, err := dec.Decode(subprotocol.TextFrame, text)
			if err != nil {
				t.Fatal(err)
			}
			clear(text) // nothing of it may have been kept
			if !reflect.DeepEqual(got, c.wish) {
				t.Errorf("got  %s\nwish %s", describe(got), describe(c.wish))
			}
		})
	}
}

// metadataOf makes a metadata object of the given total, in pairs of the given
// lengths as far as they go.
func metadataOf(key, value, total int) string {
	var b strings.Builder
	for k, v := range metadataMap(key, value, total) {
		fmt.Fprintf(&b, `,"%s":"%s"`, k, v)
	}
	return "{" + b.String()[1:] + "}"
}

func metadataMap(key, value, total int) engine.Metadata {
	m := engine.Metadata{}
	for n := 0; total > 0; n++ {
		k := fmt.Sprintf("%0*d", min(key, total), n)
		v := strings.Repeat("v", min(value, total-len(k)))
		m[k] = v
		total -= len(k) + len(v)
	}
	return m
}

func TestJSONDecodeRefuses(t *testing.T) {
	sending := func(rest string) string { return `{"type":"sendToGroup","group":"lobby",` + rest + `}` }
	for _, c := range []struct {
		name, text string
		detail     string // must be in the log's text
	}{
		// Not a JSON object.
		{"nothing", ``, "expected an object"},
		{"white space", `  `, "expected an object"},
		{"text", `ping`, "expected an object"},
		{"array", `[{"type":"ping"}]`, "expected an object"},
		{"string", `"ping"`, "expected an object"},
		{"byte order mark", "\uFEFF" + `{"type":"ping"}`, "expected an object"},
		{"unfinished", `{"type":"ping"`, "expected , or }"},
		{"only a brace", `{`, "expected the name"},
		{"unfinished string", `{"type":"ping`, "unfinished string"},
		{"unfinished name", `{"type`, "unfinished string"},
		{"unfinished escape", `{"type":"ping\`, "bad escape"},
		{"unfinished unicode escape", `{"type":"\u00`, "bad escape"},
		{"trailing comma", `{"type":"ping",}`, "expected the name"},
		{"trailing comma in an array", `{"type":"ping","x":[1,]}`, "expected a value"},
		{"leading comma", `{,"type":"ping"}`, "expected the name"},
		{"missing comma", `{"type":"ping" "x":1}`, "expected , or }"},
		{"missing comma in an array", `{"type":"ping","x":[1 2]}`, "expected , or ]"},
		{"missing colon", `{"type" "ping"}`, "expected :"},
		{"missing value", `{"type":}`, "expected a value"},
		{"mismatched brackets", `{"type":"ping","x":[}]}`, "expected a value"},
		{"comment", `{"type":"ping"/*c*/}`, "expected , or }"},
		{"line comment", "{\"type\":\"ping\"} // c", "text after the end"},
		{"trailing text", `{"type":"ping"}{}`, "text after the end"},
		{"trailing zero byte", "{\"type\":\"ping\"}\x00", "text after the end"},
		{"single quotes", `{'type':'ping'}`, "expected the name"},
		{"bare name", `{type:"ping"}`, "expected the name"},
		{"control character in a string", "{\"type\":\"ping\",\"x\":\"a\nb\"}", "control character"},
		{"zero byte in a string", "{\"type\":\"ping\",\"x\":\"a\x00b\"}", "control character"},
		{"bad escape", `{"type":"ping","x":"\q"}`, "bad escape"},
		{"bad unicode escape", `{"type":"ping","x":"\u00g0"}`, "bad escape"},
		{"escape of a capital", `{"type":"ping","x":"\N"}`, "bad escape"},
		{"vertical tab between tokens", "{\v\"type\":\"ping\"}", "expected the name"},
		{"no-break space between tokens", "{\u00a0\"type\":\"ping\"}", "expected the name"},
		{"not UTF-8", "{\"type\":\"ping\",\"x\":\"\xff\"}", "not UTF-8"},
		{"UTF-8 of a surrogate", "{\"type\":\"ping\",\"x\":\"\xed\xa0\x80\"}", "not UTF-8"},
		{"overlong UTF-8", "{\"type\":\"ping\",\"x\":\"\xc0\xaf\"}", "not UTF-8"},
		{"leading zero", `{"type":"ping","x":01}`, "expected , or }"},
		{"leading plus", `{"type":"ping","x":+1}`, "expected a value"},
		{"bare minus", `{"type":"ping","x":-}`, "bad number"},
		{"minus of a word", `{"type":"ping","x":-true}`, "bad number"},
		{"bare point", `{"type":"ping","x":.5}`, "expected a value"},
		{"trailing point", `{"type":"ping","x":5.}`, "bad number"},
		{"bare exponent", `{"type":"ping","x":5e}`, "bad number"},
		{"bare signed exponent", `{"type":"ping","x":5e+}`, "bad number"},
		{"hexadecimal", `{"type":"ping","x":0x10}`, "expected , or }"},
		{"NaN", `{"type":"ping","x":NaN}`, "expected a value"},
		{"word in capitals", `{"type":"ping","x":True}`, "expected a value"},
		{"word cut short", `{"type":"ping","x":nul`, "expected a value"},
		{"word too long", `{"type":"ping","x":nulll}`, "expected , or }"},
		{"too deep", sending(`"data":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), "nested deeper"},
		{"far too deep", sending(`"data":` + strings.Repeat(`{"a":`, 100_000)), "nested deeper"},
		{"too deep in an unknown property", `{"type":"ping","x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, "nested deeper"},

		// type.
		{"no type", `{}`, "type: missing"},
		{"null type", `{"type":null}`, "type: want a string, got null"},
		{"number as type", `{"type":1}`, "type: want a string"},
		{"object as type", `{"type":{}}`, "type: want a string"},
		{"unknown type", `{"type":"publish"}`, `unknown type "publish"`},
		{"empty type", `{"type":""}`, `unknown type ""`},
		{"type with a blank", `{"type":"ping "}`, `unknown type "ping "`},
		{"type with a Kelvin sign", "{\"type\":\"sequenceAc\u212a\",\"sequenceId\":1}", "unknown type"},
		{"long type", `{"type":"` + strings.Repeat("x", 5000) + `"}`, "(5000 bytes)"},
		{"property in capitals", `{"TYPE":"ping"}`, "type: missing"},
		{"type of the server", `{"type":"ack","ackId":1,"success":true}`, `unknown type "ack"`},

		// Types of a later release.
		{"invoke", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","data":[1]}`, "type invoke: this build does not have it"},
		{"cancelInvocation", `{"type":"cancelInvocation","invocationId":"1"}`, "this build does not have it"},
		{"streamData", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"text","data":"a"}`, "this build does not have it"},
		{"streamEnd", `{"type":"streamEnd","streamId":"s1"}`, "this build does not have it"},
		{"setGroupState", `{"type":"setGroupState","group":"lobby","state":{"mood":"ok"},"ackId":3}`, "this build does not have it"},
		{"subscribeGroupState", `{"type":"subscribeGroupState","group":"lobby","ackId":5}`, "this build does not have it"},
		{"unsubscribeGroupState", `{"type":"unsubscribeGroupState","group":"lobby","ackId":6}`, "this build does not have it"},
		{"stream start", sending(`"noEcho":false,"stream":{"streamId":"s1","idleTimeoutMs":60000}`), "stream: this build does not have it"},
		{"stream start with data", sending(`"data":1,"stream":{"streamId":"s1"}`), "stream: this build does not have it"},
		{"event with a stream", `{"type":"event","event":"e","data":1,"stream":{"streamId":"s1"}}`, "stream: this build does not have it"},

		// ackId, on every type.
		{"ackId as string", `{"type":"joinGroup","group":"g","ackId":"5"}`, "ackId: want an integer in plain digits, got a string"},
		{"ackId as boolean", `{"type":"joinGroup","group":"g","ackId":true}`, "got a boolean"},
		{"ackId as object", `{"type":"joinGroup","group":"g","ackId":{}}`, "got an object"},
		{"ackId as array", `{"type":"joinGroup","group":"g","ackId":[1]}`, "got an array"},
		{"negative ackId", `{"type":"joinGroup","group":"g","ackId":-1}`, "got a negative number"},
		{"ackId of minus zero", `{"type":"joinGroup","group":"g","ackId":-0}`, "got a negative number"},
		{"ackId as fraction", `{"type":"joinGroup","group":"g","ackId":1.5}`, "got another number"},
		{"ackId 1.0", `{"type":"joinGroup","group":"g","ackId":1.0}`, "got another number"},
		{"ackId 1e2", `{"type":"joinGroup","group":"g","ackId":1e2}`, "got another number"},
		{"ackId 2^64", `{"type":"joinGroup","group":"g","ackId":18446744073709551616}`, "over 2^64-1"},
		{"ackId of 20 nines", `{"type":"joinGroup","group":"g","ackId":99999999999999999999}`, "over 2^64-1"},
		{"ackId of 21 digits", `{"type":"joinGroup","group":"g","ackId":100000000000000000000}`, "over 2^64-1"},
		{"bad ackId on ping", `{"type":"ping","ackId":"1"}`, "ackId:"},
		{"bad ackId on sequenceAck", `{"type":"sequenceAck","sequenceId":1,"ackId":1.0}`, "ackId:"},
		{"bad ackId on leave", `{"type":"leaveGroup","group":"g","ackId":[]}`, "ackId:"},
		{"bad ackId on event", `{"type":"event","event":"e","data":1,"ackId":-5}`, "ackId:"},

		// sequenceId.
		{"no sequenceId", `{"type":"sequenceAck"}`, "sequenceId: missing"},
		{"null sequenceId", `{"type":"sequenceAck","sequenceId":null}`, "sequenceId: want an integer"},
		{"sequenceId as string", `{"type":"sequenceAck","sequenceId":"42"}`, "sequenceId: want an integer"},
		{"negative sequenceId", `{"type":"sequenceAck","sequenceId":-1}`, "sequenceId: want an integer"},

		// Names.
		{"join without group", `{"type":"joinGroup"}`, "group: missing"},
		{"null group", `{"type":"joinGroup","group":null}`, "group: want a string, got null"},
		{"number as group", `{"type":"leaveGroup","group":1}`, "group: want a string"},
		{"empty group", `{"type":"joinGroup","group":""}`, "1 to 1024 characters"},
		{"blank group", `{"type":"joinGroup","group":" \t\u2003"}`, "1 to 1024 characters"},
		{"group of 1025 characters", `{"type":"joinGroup","group":"` + strings.Repeat("é", 1025) + `"}`, "1 to 1024 characters"},
		{"group of half a surrogate pair", `{"type":"joinGroup","group":"a\udc00"}`, "half a surrogate pair"},
		{"send without group", `{"type":"sendToGroup","data":1}`, "group: missing"},
		{"event without name", `{"type":"event","data":1}`, "event: missing"},
		{"null event", `{"type":"event","event":null,"data":1}`, "event: want a string, got null"},
		{"empty event", `{"type":"event","event":"","data":1}`, "a letter followed by"},
		{"event of 129 characters", `{"type":"event","event":"` + strings.Repeat("e", 129) + `","data":1}`, "a letter followed by"},
		{"event that starts with a digit", `{"type":"event","event":"1a","data":1}`, "a letter followed by"},
		{"event with a blank", `{"type":"event","event":"a b","data":1}`, "a letter followed by"},
		{"event beyond ASCII", `{"type":"event","event":"é","data":1}`, "a letter followed by"},
		{"event of half a surrogate pair", `{"type":"event","event":"a\ud800","data":1}`, "a letter followed by"},

		// Options of sendToGroup.
		{"noEcho null", sending(`"noEcho":null,"data":1`), "noEcho: want true or false, got null"},
		{"noEcho as string", sending(`"noEcho":"true","data":1`), "noEcho: want true or false, got a string"},
		{"noEcho as number", sending(`"noEcho":1,"data":1`), "noEcho: want true or false"},
		{"ttlSeconds 301", sending(`"ttlSeconds":301,"data":1`), "ttlSeconds: 301 is over 300"},
		{"negative ttlSeconds", sending(`"ttlSeconds":-1,"data":1`), "ttlSeconds: want an integer"},
		{"ttlSeconds 1.0", sending(`"ttlSeconds":1.0,"data":1`), "ttlSeconds: want an integer"},
		{"ttlSeconds as string", sending(`"ttlSeconds":"60","data":1`), "ttlSeconds: want an integer"},

		// Data.
		{"no data", `{"type":"sendToGroup","group":"lobby"}`, "data: missing"},
		{"no data with null metadata", sending(`"metadata":null`), "data: missing"},
		{"event without data", `{"type":"event","event":"e"}`, "data: missing"},
		{"null data", sending(`"data":null`), "data: null is no data"},
		{"null data with metadata", sending(`"data":null,"metadata":{"k":"v"}`), "data: null is no data"},
		{"null as text", sending(`"dataType":"text","data":null`), "data: want a string for dataType text, got null"},
		{"number as text", sending(`"dataType":"text","data":1`), "data: want a string for dataType text"},
		{"object as text", sending(`"dataType":"text","data":{}`), "data: want a string for dataType text"},
		{"number as binary", sending(`"dataType":"binary","data":1`), "data: want a string for dataType binary"},
		{"null dataType", sending(`"dataType":null,"data":1`), "dataType: want a string, got null"},
		{"number as dataType", sending(`"dataType":1,"data":1`), "dataType: want a string"},
		{"unknown dataType", sending(`"dataType":"xml","data":"x"`), `got "xml"`},
		{"unknown dataType with metadata alone", sending(`"dataType":"xml","metadata":{"k":"v"}`), `got "xml"`},
		{"protobuf", sending(`"dataType":"protobuf","data":"CgA="`), `got "protobuf"`},
		{"base64 without padding", sending(`"dataType":"binary","data":"AQI"`), "not base64"},
		{"base64 of one character", sending(`"dataType":"binary","data":"A"`), "not base64"},
		{"base64 of the URL alphabet", sending(`"dataType":"binary","data":"_-8="`), "not base64"},
		{"base64 with a blank", sending(`"dataType":"binary","data":"AQ I="`), "not base64"},
		{"base64 with a line break", sending(`"dataType":"binary","data":"AQI=\n"`), "not base64"},
		{"base64 with loose bits", sending(`"dataType":"binary","data":"AQJ="`), "not base64"},
		{"base64 after padding", sending(`"dataType":"binary","data":"AQI=AQI="`), "not base64"},

		// Metadata.
		{"metadata as array", sending(`"data":1,"metadata":[]`), "metadata: want an object, got an array"},
		{"metadata as string", sending(`"data":1,"metadata":"k=v"`), "metadata: want an object, got a string"},
		{"metadata value null", sending(`"data":1,"metadata":{"k":null}`), "metadata: want a string, got null"},
		{"metadata value number", sending(`"data":1,"metadata":{"k":1}`), "metadata: want a string"},
		{"metadata value object", sending(`"data":1,"metadata":{"k":{"a":"b"}}`), "metadata: want a string"},
		{"metadata key twice", sending(`"data":1,"metadata":{"k":"1","k":"2"}`), `the key "k" twice`},
		{"metadata key twice in escapes", sending(`"data":1,"metadata":{"k":"1","\u006b":"1"}`), `the key "k" twice`},
		{"metadata key empty", sending(`"data":1,"metadata":{"":"v"}`), "an empty key"},
		{"metadata key with a blank", sending(`"data":1,"metadata":{"a b":"v"}`), "not an RFC 7230 token"},
		{"metadata key with a colon", sending(`"data":1,"metadata":{"a:b":"v"}`), "not an RFC 7230 token"},
		{"metadata key beyond ASCII", sending(`"data":1,"metadata":{"é":"v"}`), "not an RFC 7230 token"},
		{"metadata key with a line break", sending(`"data":1,"metadata":{"a\r\nb":"v"}`), "not an RFC 7230 token"},
		{"metadata key of 257 bytes", sending(`"data":1,"metadata":{"` + strings.Repeat("k", 257) + `":"v"}`), "a key of 257 bytes; at most 256"},
		{"metadata value beyond ASCII", sending(`"data":1,"metadata":{"k":"é"}`), "not ASCII"},
		{"metadata value of half a surrogate pair", sending(`"data":1,"metadata":{"k":"\ud800"}`), "not ASCII"},
		{"metadata value of 1025 bytes", sending(`"data":1,"metadata":{"k":"` + strings.Repeat("v", 1025) + `"}`), "a value of 1025 bytes"},
		{"metadata of 8193 bytes", sending(`"data":1,"metadata":` + metadataOf(256, 1024, 8193)), "more than 8192 bytes"},
		{"bad metadata alone", sending(`"metadata":{"k":1}`), "metadata: want a string"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, dec := subprotocol.JSON()
			got, err := dec.Decode(subprotocol.TextFrame, []byte(c.text))
			var refused *subprotocol.RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("got %s and error %v", describe(got), err)
			}
			if refused.Code != engine.CloseInvalidData || refused.Reason != malformedJSON {
				t.Errorf("close %d %q", refused.Code, refused.Reason)
			}
			if !strings.Contains(refused.Detail, c.detail) {
				t.Errorf("detail %q lacks %q", refused.Detail, c.detail)
			}
			if len(refused.Detail) > 300 {
				t.Errorf("a detail of %d bytes", len(refused.Detail))
			}
			if got != (subprotocol.Inbound{}) {
				t.Errorf("refused, and yet %s", describe(got))
			}
		})
	}
}

func TestJSONRefusesBinaryFrames(t *testing.T) {
	if text, binary := subprotocol.TextFrame.String(), subprotocol.BinaryFrame.String(); text != "text" || binary != "binary" {
		t.Errorf("frames %s and %s", text, binary)
	}
	_, dec := subprotocol.JSON()
	_, err := dec.Decode(subprotocol.BinaryFrame, []byte(`{"type":"ping"}`))
	var refused *subprotocol.RefusedError
	if !errors.As(err, &refused) || refused.Code != engine.CloseUnsupported ||
		refused.Reason != "The JSON subprotocol requires text messages." || !strings.Contains(err.Error(), "1003") {
		t.Errorf("got %v", err)
	}
}

// A refusal of a payload must not carry the payload into a log.
func TestRefusalsQuoteNoPayload(t *testing.T) {
	_, dec := subprotocol.JSON()
	for _, text := range []string{
		`{"type":"sendToGroup","group":"g","data":"secret`,
		`{"type":"sendToGroup","group":"g","dataType":"binary","data":"secret!"}`,
		`{"type":"sendToGroup","group":"g","dataType":"text","data":["secret"]}`,
		`{"type":"sendToGroup","group":"g","data":1,"metadata":{"k":"secreté"}}`,
		`{"type":"sendToGroup","group":"g","data":1,"metadata":"secret"}`,
	} {
		if _, err := dec.Decode(subprotocol.TextFrame, []byte(text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
