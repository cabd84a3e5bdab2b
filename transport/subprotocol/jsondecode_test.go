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
	r := in.Request
	if r == nil {
		return fmt.Sprintf("%+v", in)
	}
	s := fmt.Sprintf("{Kind:%d Invocation:%q Request:%+v Data:%q", in.Kind, in.Invocation, *r, r.Payload.Data)
	if r.Stream != nil {
		s += fmt.Sprintf(" Stream:%+v Err:%+v", *r.Stream, r.Stream.Err)
	}
	return s + "}"
}

// stream is a request of op about s.
func stream(op engine.Op, s engine.StreamRequest) engine.Request {
	return engine.Request{Op: op, Stream: &s}
}

// start is a sendToGroup to lobby that begins a stream.
func start(s engine.StreamRequest) subprotocol.Inbound {
	r := stream(engine.OpStreamStart, s)
	r.Group = "lobby"
	return request(r)
}

// part is a streamData.
func part(id string, seq uint64, p engine.Payload) subprotocol.Inbound {
	r := stream(engine.OpStreamData, engine.StreamRequest{ID: id, Seq: seq})
	r.Payload = p
	return request(r)
}

// gaveUp is a streamEnd of s1 with an error.
func gaveUp(message, code string) subprotocol.Inbound {
	return request(stream(engine.OpStreamEnd, engine.StreamRequest{
		ID: "s1", Err: &engine.StreamError{Name: "UserError", Message: message, UserCode: code},
	}))
}

// setState is a setGroupState in lobby.
func setState(state map[string]string) subprotocol.Inbound {
	return request(engine.Request{Op: engine.OpSetState, Group: "lobby", State: state})
}

// invoke is an invocation 1 of the event sum.
func invoke(p engine.Payload) subprotocol.Inbound {
	in := request(engine.Request{Op: engine.OpEvent, Event: "sum", Payload: p})
	in.Invocation = "1"
	return in
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
		{"longest property in escapes", `{"type":"streamData","streamId":"s1","data":1,"\u0073\u0074\u0072\u0065\u0061\u006d\u0053\u0065\u0071\u0075\u0065\u006e\u0063\u0065\u0049\u0064":1}`, part("s1", 1, payload(engine.JSON, "1"))},
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

		// Streams.
		{"stream start", `{"type":"sendToGroup","group":"lobby","noEcho":false,"stream":{"streamId":"s1","idleTimeoutMs":60000}}`, start(engine.StreamRequest{ID: "s1", Idle: time.Minute})},
		{"stream start without options", `{"type":"sendToGroup","group":"lobby","stream":{"streamId":"s1"}}`, start(engine.StreamRequest{ID: "s1"})},
		{
			"stream start with noEcho", `{"type":"SENDTOGROUP","stream":{"streamId":"s1"},"group":"lobby","noEcho":true}`,
			request(engine.Request{Op: engine.OpStreamStart, Group: "lobby", NoEcho: true, Stream: &engine.StreamRequest{ID: "s1"}}),
		},
		{"stream start with nulls that are none", `{"type":"sendToGroup","group":"lobby","ackId":null,"metadata":null,"ttlSeconds":null,"stream":{"streamId":"s1","idleTimeoutMs":null}}`, start(engine.StreamRequest{ID: "s1"})},
		{"stream start of the shortest life", `{"type":"sendToGroup","group":"lobby","stream":{"streamId":"s1","idleTimeoutMs":1}}`, start(engine.StreamRequest{ID: "s1", Idle: time.Millisecond})},
		{"stream start of the longest life", `{"type":"sendToGroup","group":"lobby","stream":{"streamId":"s1","idleTimeoutMs":86400000}}`, start(engine.StreamRequest{ID: "s1", Idle: 24 * time.Hour})},
		{"stream start with unknown members", `{"type":"sendToGroup","group":"lobby","stream":{"x":[{"streamId":2}],"streamId":"s1","StreamId":3}}`, start(engine.StreamRequest{ID: "s1"})},
		{"stream start with members in escapes", `{"type":"sendToGroup","group":"lobby","stream":{"\u0073treamId":"\u0073\/1","idleTimeout\u004ds":5}}`, start(engine.StreamRequest{ID: "s/1", Idle: 5 * time.Millisecond})},
		{"of two stream members the last counts", `{"type":"sendToGroup","group":"lobby","stream":{"streamId":7,"idleTimeoutMs":"x","streamId":"s1","idleTimeoutMs":null}}`, start(engine.StreamRequest{ID: "s1"})},
		{"of two streams the last counts", `{"type":"sendToGroup","group":"lobby","stream":{"streamId":7},"stream":null,"data":1}`, send(payload(engine.JSON, "1"))},
		{"streamId of 256 bytes", `{"type":"sendToGroup","group":"lobby","stream":{"streamId":"` + strings.Repeat("é", 128) + `"}}`, start(engine.StreamRequest{ID: strings.Repeat("é", 128)})},
		{"streamId of anything", `{"type":"sendToGroup","group":"lobby","stream":{"streamId":" \u0000😀 "}}`, start(engine.StreamRequest{ID: " \x00😀 "})},
		{"streamData", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"text","data":"a"}`, part("s1", 1, payload(engine.Text, "a"))},
		{"streamData in capitals", `{"type":"STREAMDATA","streamId":"S1","streamSequenceId":2,"dataType":"TEXT","data":""}`, part("S1", 2, payload(engine.Text, ""))},
		{"streamData without dataType is json", `{"type":"streamData","streamId":"s1","streamSequenceId":18446744073709551615,"data": {"a" : 1.0} }`, part("s1", math.MaxUint64, payload(engine.JSON, `{"a" : 1.0}`))},
		{"streamData binary", `{"type":"streamData","streamId":"s1","streamSequenceId":3,"dataType":"binary","data":"AQI="}`, part("s1", 3, payload(engine.Binary, "\x01\x02"))},
		{"streamData with what it lacks", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"data":0,"group":7,"ackId":5,"noEcho":"x","metadata":[],"ttlSeconds":-1,"stream":5}`, part("s1", 1, payload(engine.JSON, "0"))},
		{"stream keepalive", `{"type":"streamData","streamId":"s1"}`, part("s1", 0, engine.Payload{})},
		{"stream keepalive with a null", `{"type":"streamData","streamId":"s1","streamSequenceId":null}`, part("s1", 0, engine.Payload{})},
		{"streamEnd", `{"type":"streamEnd","streamId":"s1"}`, request(stream(engine.OpStreamEnd, engine.StreamRequest{ID: "s1"}))},
		{"streamEnd with an ackId", `{"type":"streamend","streamId":"s1","ackId":5}`, request(stream(engine.OpStreamEnd, engine.StreamRequest{ID: "s1"}))},
		{"streamEnd with a null error", `{"type":"streamEnd","streamId":"s1","error":null}`, request(stream(engine.OpStreamEnd, engine.StreamRequest{ID: "s1"}))},
		{"streamEnd with an error", `{"type":"streamEnd","streamId":"s1","error":{"message":"gave up","userErrorCode":"E42"}}`, gaveUp("gave up", "E42")},
		{"streamEnd with an error that says nothing", `{"type":"streamEnd","streamId":"s1","error":{}}`, gaveUp("", "")},
		{"streamEnd with an error of nulls", `{"type":"streamEnd","streamId":"s1","error":{"message":null,"userErrorCode":null}}`, gaveUp("", "")},
		{"streamEnd whose error has a name", `{"type":"streamEnd","streamId":"s1","error":{"name":"Forbidden","message":"a\ud83d"}}`, gaveUp("a\uFFFD", "")},
		{
			"streamEnd with the longest error", `{"type":"streamEnd","streamId":"s1","error":{"message":"` + strings.Repeat("m", 4096) + `","userErrorCode":"` + strings.Repeat("c", 256) + `"}}`,
			gaveUp(strings.Repeat("m", 4096), strings.Repeat("c", 256)),
		},

		// Group state.
		{
			"setGroupState", `{"type":"setGroupState","group":"lobby","state":{"mood":"ok","":"\u00e9\ud83d"},"ackId":3}`,
			request(engine.Request{Op: engine.OpSetState, Group: "lobby", AckID: 3, HasAck: true, State: map[string]string{"mood": "ok", "": "é\uFFFD"}}),
		},
		{"setGroupState of nothing", `{"type":"SetGroupState","group":"lobby","state":{}}`, setState(map[string]string{})},
		{"setGroupState clears", `{"type":"setGroupState","group":"lobby"}`, setState(nil)},
		{"setGroupState clears with null", `{"type":"setGroupState","group":"lobby","state":null}`, setState(nil)},
		{"of two state keys the last counts", `{"type":"setGroupState","group":"lobby","state":{"k":"1","\u006b":"2"}}`, setState(map[string]string{"k": "2"})},
		{"state at its bound", `{"type":"setGroupState","group":"lobby","state":{"key":"` + strings.Repeat("v", 16381) + `"}}`, setState(map[string]string{"key": strings.Repeat("v", 16381)})},
		{"subscribeGroupState", `{"type":"subscribeGroupState","group":"lobby","ackId":5}`, request(engine.Request{Op: engine.OpWatchState, Group: "lobby", AckID: 5, HasAck: true})},
		{"subscribeGroupState ignores state", `{"type":"subscribegroupstate","group":"lobby","state":[]}`, request(engine.Request{Op: engine.OpWatchState, Group: "lobby"})},
		{"unsubscribeGroupState", `{"type":"unsubscribeGroupState","group":"lobby","ackId":6}`, request(engine.Request{Op: engine.OpUnwatchState, Group: "lobby", AckID: 6, HasAck: true})},

		// Invocations.
		{"invoke", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","dataType":"json","data":[1,2]}`, invoke(payload(engine.JSON, "[1,2]"))},
		{"invoke without dataType is json", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","data":"x"}`, invoke(payload(engine.JSON, `"x"`))},
		{"invoke in capitals", `{"type":"INVOKE","invocationId":"1","target":"EVENT","event":"sum","dataType":"Binary","data":"AQI="}`, invoke(payload(engine.Binary, "\x01\x02"))},
		{"invoke without data", `{"type":"invoke","invocationId":"1","target":"event","event":"sum"}`, invoke(payload(engine.Text, ""))},
		{"invoke without data of a dataType", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","dataType":"json"}`, invoke(payload(engine.Text, ""))},
		{"invoke has no ack", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","ackId":5,"data":1}`, invoke(payload(engine.JSON, "1"))},
		{"invoke with a null stream", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","stream":null,"data":1}`, invoke(payload(engine.JSON, "1"))},
		{
			"invoke with metadata", `{"type":"invoke","invocationId":"` + strings.Repeat("i", 256) + `","target":"event","event":"sum","metadata":{"k":"v"}}`,
			subprotocol.Inbound{
				Kind: subprotocol.InRequest, Invocation: strings.Repeat("i", 256),
				Request: &engine.Request{Op: engine.OpEvent, Event: "sum", Payload: payload(engine.Text, ""), Metadata: engine.Metadata{"k": "v"}},
			},
		},
		{"cancelInvocation", `{"type":"cancelInvocation","invocationId":"1"}`, subprotocol.Inbound{Kind: subprotocol.InCancel, Invocation: "1"}},
		{"cancelInvocation in escapes", `{"type":"CANCELinvocation","invocationId":"\u00e9\ud83d\ude00"}`, subprotocol.Inbound{Kind: subprotocol.InCancel, Invocation: "é😀"}},
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
		{"protobuf without data", sending(`"dataType":"protobuf"`), "data: missing"},
		{"protobuf with a bad ackId", sending(`"dataType":"protobuf","data":"CgA=","ackId":"1"`), "ackId:"},
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

		// Streams.
		{"stream as string", sending(`"stream":"s1"`), "stream: want an object, got a string"},
		{"stream as array", sending(`"stream":[{"streamId":"s1"}]`), "stream: want an object, got an array"},
		{"stream as boolean", sending(`"stream":false`), "stream: want an object, got a boolean"},
		{"stream start without group", `{"type":"sendToGroup","stream":{"streamId":"s1"}}`, "group: missing"},
		{"stream start with bad noEcho", sending(`"noEcho":null,"stream":{"streamId":"s1"}`), "noEcho: want true or false, got null"},
		{"stream start without streamId", sending(`"stream":{}`), "stream.streamId: missing"},
		{"stream start with streamId outside", sending(`"streamId":"s1","stream":{}`), "stream.streamId: missing"},
		{"stream start with null streamId", sending(`"stream":{"streamId":null}`), "stream.streamId: want a string, got null"},
		{"stream start with number as streamId", sending(`"stream":{"streamId":1}`), "stream.streamId: want a string"},
		{"stream start with empty streamId", sending(`"stream":{"streamId":""}`), "stream.streamId: 0 bytes, want 1 to 256"},
		{"streamId of 257 bytes", sending(`"stream":{"streamId":"` + strings.Repeat("é", 128) + `x"}`), "stream.streamId: 257 bytes, want 1 to 256"},
		{"streamId of half a surrogate pair", sending(`"stream":{"streamId":"a\ud800"}`), "stream.streamId: half a surrogate pair"},
		{"idleTimeoutMs 0", sending(`"stream":{"streamId":"s1","idleTimeoutMs":0}`), "stream.idleTimeoutMs: 0 is not from 1 to 86400000"},
		{"idleTimeoutMs of more than a day", sending(`"stream":{"streamId":"s1","idleTimeoutMs":86400001}`), "stream.idleTimeoutMs: 86400001 is not"},
		{"idleTimeoutMs that overflows", sending(`"stream":{"streamId":"s1","idleTimeoutMs":18446744073709551615}`), "stream.idleTimeoutMs: 18446744073709551615 is not"},
		{"negative idleTimeoutMs", sending(`"stream":{"streamId":"s1","idleTimeoutMs":-1}`), "stream.idleTimeoutMs: want an integer"},
		{"idleTimeoutMs as fraction", sending(`"stream":{"streamId":"s1","idleTimeoutMs":1.5}`), "stream.idleTimeoutMs: want an integer"},
		{"idleTimeoutMs as string", sending(`"stream":{"streamId":"s1","idleTimeoutMs":"60000"}`), "stream.idleTimeoutMs: want an integer"},
		{"stream start with data", sending(`"data":1,"stream":{"streamId":"s1"}`), "data: a message that begins a stream cannot have it"},
		{"stream start with null data", sending(`"data":null,"stream":{"streamId":"s1"}`), "data: a message that begins a stream"},
		{"stream start with dataType", sending(`"dataType":"text","stream":{"streamId":"s1"}`), "dataType: a message that begins a stream"},
		{"stream start with ackId", sending(`"ackId":0,"stream":{"streamId":"s1"}`), "ackId: a message that begins a stream"},
		{"stream start with metadata", sending(`"metadata":{},"stream":{"streamId":"s1"}`), "metadata: a message that begins a stream"},
		{"stream start with ttlSeconds", sending(`"ttlSeconds":5,"stream":{"streamId":"s1"}`), "ttlSeconds: a message that begins a stream"},
		{"event with a stream", `{"type":"event","event":"e","data":1,"stream":{"streamId":"s1"}}`, "stream: an event cannot have one"},
		{"event with a stream alone", `{"type":"event","event":"e","stream":{}}`, "stream: an event cannot have one"},
		{"streamData without streamId", `{"type":"streamData","streamSequenceId":1,"data":1}`, "streamId: missing"},
		{"streamData with empty streamId", `{"type":"streamData","streamId":"","streamSequenceId":1,"data":1}`, "streamId: 0 bytes, want 1 to 256"},
		{"streamData without number", `{"type":"streamData","streamId":"s1","dataType":"text","data":"a"}`, "streamSequenceId: missing"},
		{"streamData with null number", `{"type":"streamData","streamId":"s1","streamSequenceId":null,"data":"a"}`, "streamSequenceId: missing"},
		{"streamData of dataType alone", `{"type":"streamData","streamId":"s1","dataType":"text"}`, "streamSequenceId: missing"},
		{"streamData of null data alone", `{"type":"streamData","streamId":"s1","data":null}`, "streamSequenceId: missing"},
		{"streamData of number alone", `{"type":"streamData","streamId":"s1","streamSequenceId":1}`, "data: missing, and there is a streamSequenceId"},
		{"streamData without data", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"text"}`, "data: missing, and there is a streamSequenceId"},
		{"streamData without data, with metadata", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"metadata":{"k":"v"}}`, "data: missing, and there is a streamSequenceId"},
		{"streamData number 0", `{"type":"streamData","streamId":"s1","streamSequenceId":0,"data":1}`, "streamSequenceId: 0, and the first is 1"},
		{"streamData number as string", `{"type":"streamData","streamId":"s1","streamSequenceId":"1","data":1}`, "streamSequenceId: want an integer in plain digits, got a string"},
		{"streamData negative number", `{"type":"streamData","streamId":"s1","streamSequenceId":-1,"data":1}`, "streamSequenceId: want an integer"},
		{"streamData number 2^64", `{"type":"streamData","streamId":"s1","streamSequenceId":18446744073709551616,"data":1}`, "streamSequenceId: over 2^64-1"},
		{"streamData with null data", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"data":null}`, "data: null is no data"},
		{"streamData with null dataType", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":null,"data":1}`, "dataType: want a string, got null"},
		{"streamData with unknown dataType", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"xml","data":"CgA="}`, `dataType: want json, text or binary, got "xml"`},
		{"streamData with bad base64", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"binary","data":"AQI"}`, "data: not base64"},
		{"streamData with number as text", `{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"text","data":1}`, "data: want a string for dataType text"},
		{"streamData with bad ackId", `{"type":"streamData","streamId":"s1","ackId":"1"}`, "ackId:"},
		{"streamEnd without streamId", `{"type":"streamEnd"}`, "streamId: missing"},
		{"streamEnd with long streamId", `{"type":"streamEnd","streamId":"` + strings.Repeat("s", 257) + `"}`, "streamId: 257 bytes, want 1 to 256"},
		{"streamEnd with error as string", `{"type":"streamEnd","streamId":"s1","error":"gave up"}`, "error: want an object, got a string"},
		{"streamEnd with error as array", `{"type":"streamEnd","streamId":"s1","error":[]}`, "error: want an object, got an array"},
		{"streamEnd with number as message", `{"type":"streamEnd","streamId":"s1","error":{"message":1}}`, "error.message: want a string"},
		{"streamEnd with long message", `{"type":"streamEnd","streamId":"s1","error":{"message":"` + strings.Repeat("m", 4097) + `"}}`, "error.message: 4097 bytes, at most 4096"},
		{"streamEnd with number as code", `{"type":"streamEnd","streamId":"s1","error":{"userErrorCode":42}}`, "error.userErrorCode: want a string"},
		{"streamEnd with long code", `{"type":"streamEnd","streamId":"s1","error":{"userErrorCode":"` + strings.Repeat("c", 257) + `"}}`, "error.userErrorCode: 257 bytes, at most 256"},

		// Group state.
		{"setGroupState without group", `{"type":"setGroupState","state":{}}`, "group: missing"},
		{"state as array", `{"type":"setGroupState","group":"lobby","state":["a"]}`, "state: want an object, got an array"},
		{"state as string", `{"type":"setGroupState","group":"lobby","state":"a"}`, "state: want an object, got a string"},
		{"state as boolean", `{"type":"setGroupState","group":"lobby","state":false}`, "state: want an object, got a boolean"},
		{"state value number", `{"type":"setGroupState","group":"lobby","state":{"k":1}}`, "state: want a string, got another number"},
		{"state value null", `{"type":"setGroupState","group":"lobby","state":{"k":null}}`, "state: want a string, got null"},
		{"state value object", `{"type":"setGroupState","group":"lobby","state":{"a":"b","k":{"a":"b"}}}`, "state: want a string, got an object"},
		{"state key of half a surrogate pair", `{"type":"setGroupState","group":"lobby","state":{"\ud800":"v"}}`, "state: half a surrogate pair in a key"},
		{"state over its bound", `{"type":"setGroupState","group":"lobby","state":{"key":"` + strings.Repeat("v", 16382) + `"}}`, "state: more than 16384 bytes"},
		{"state over its bound by one key", `{"type":"setGroupState","group":"lobby","state":{"k":"` + strings.Repeat("v", 8192) + `","k":"` + strings.Repeat("v", 8192) + `"}}`, "state: more than 16384 bytes"},
		{"setGroupState with bad ackId", `{"type":"setGroupState","group":"lobby","ackId":"3"}`, "ackId:"},
		{"subscribeGroupState without group", `{"type":"subscribeGroupState","ackId":5}`, "group: missing"},
		{"subscribeGroupState of a blank group", `{"type":"subscribeGroupState","group":" "}`, "1 to 1024 characters"},
		{"unsubscribeGroupState without group", `{"type":"unsubscribeGroupState"}`, "group: missing"},

		// Invocations.
		{"invoke without id", `{"type":"invoke","target":"event","event":"sum","data":1}`, "invocationId: missing"},
		{"invoke with null id", `{"type":"invoke","invocationId":null,"target":"event","event":"sum","data":1}`, "invocationId: want a string, got null"},
		{"invoke with number as id", `{"type":"invoke","invocationId":1,"target":"event","event":"sum","data":1}`, "invocationId: want a string"},
		{"invoke with empty id", `{"type":"invoke","invocationId":"","target":"event","event":"sum","data":1}`, "invocationId: 0 bytes, want 1 to 256"},
		{"invoke with long id", `{"type":"invoke","invocationId":"` + strings.Repeat("i", 257) + `","target":"event","event":"sum","data":1}`, "invocationId: 257 bytes, want 1 to 256"},
		{"invoke with id of half a surrogate pair", `{"type":"invoke","invocationId":"\udc00","target":"event","event":"sum","data":1}`, "invocationId: half a surrogate pair"},
		{"invoke without target", `{"type":"invoke","invocationId":"1","event":"sum","data":1}`, "target: missing"},
		{"invoke of another target", `{"type":"invoke","invocationId":"1","target":"upstream","event":"sum","data":1}`, `target: want event, got "upstream"`},
		{"invoke of a number", `{"type":"invoke","invocationId":"1","target":1,"event":"sum","data":1}`, "target: want a string"},
		{"invoke without event", `{"type":"invoke","invocationId":"1","target":"event","data":1}`, "event: missing"},
		{"invoke of event with a blank", `{"type":"invoke","invocationId":"1","target":"event","event":"a b","data":1}`, "a letter followed by"},
		{"invoke with null data", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","data":null}`, "data: null is no data"},
		{"invoke without data of unknown dataType", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","dataType":"xml"}`, `got "xml"`},
		{"invoke with bad metadata", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","metadata":[]}`, "metadata: want an object"},
		{"invoke with a stream", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","stream":{"streamId":"s1"}}`, "stream: an event cannot have one"},
		{"invoke with bad ackId", `{"type":"invoke","invocationId":"1","target":"event","event":"sum","ackId":-1}`, "ackId:"},
		{"cancelInvocation without id", `{"type":"cancelInvocation"}`, "invocationId: missing"},
		{"cancelInvocation with empty id", `{"type":"cancelInvocation","invocationId":""}`, "invocationId: 0 bytes"},
		{"cancelInvocation with long id", `{"type":"cancelInvocation","invocationId":"` + strings.Repeat("i", 257) + `"}`, "invocationId: 257 bytes"},
		{"type invokeResponse", `{"type":"invokeResponse","invocationId":"1","success":true}`, `unknown type "invokeResponse"`},
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

// Data of the type protobuf is well formed, so the request is answered as refused
// and its connection goes on. What it holds is not looked at.
func TestJSONRefusesProtobufData(t *testing.T) {
	_, dec := subprotocol.JSON()
	for _, c := range []struct {
		text string
		want engine.Request
	}{
		{`{"type":"sendToGroup","group":"g","ackId":7,"noEcho":true,"dataType":"Protobuf","data":"CgA="}`, engine.Request{Op: engine.OpSend, Group: "g", AckID: 7, HasAck: true, NoEcho: true}},
		{`{"type":"sendToGroup","group":"g","dataType":"PROTOBUF","data":null}`, engine.Request{Op: engine.OpSend, Group: "g"}},
		{`{"type":"event","event":"e","ackId":7,"dataType":"protobuf","data":{"a":1}}`, engine.Request{Op: engine.OpEvent, Event: "e", AckID: 7, HasAck: true}},
		{`{"type":"event","event":"e","dataType":"proto\u0062uf","data":"CgA=","metadata":{}}`, engine.Request{Op: engine.OpEvent, Event: "e"}},
		{`{"type":"invoke","invocationId":"1","target":"event","event":"e","dataType":"protobuf","data":""}`, engine.Request{Op: engine.OpEvent, Event: "e"}},
		{`{"type":"streamData","streamId":"s","streamSequenceId":1,"dataType":"protobuf","data":"CgA="}`, stream(engine.OpStreamData, engine.StreamRequest{ID: "s", Seq: 1})},
	} {
		got, err := dec.Decode(subprotocol.TextFrame, []byte(c.text))
		if err != nil || got.Kind != subprotocol.InRequest || got.Request.Refused == nil {
			t.Errorf("%s: got %s, %v; want a request that is refused", c.text, describe(got), err)
			continue
		}
		if e := got.Request.Refused; e.Rule != "request.dataType" || !strings.Contains(e.Message, "expected json, text or binary") {
			t.Errorf("%s: refused by %+v", c.text, *e)
		}
		got.Request.Refused = nil
		if !reflect.DeepEqual(*got.Request, c.want) {
			t.Errorf("%s: got %s", c.text, describe(got))
		}
	}
	got, err := dec.Decode(subprotocol.TextFrame, []byte(`{"type":"sendToGroup","group":"g","dataType":"protobuf","metadata":{"a":"b"}}`))
	if err != nil || got.Request.Refused != nil || got.Request.Payload.Type != engine.Text {
		t.Errorf("without data: got %s, %v; want an empty text", describe(got), err)
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
		`{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"text","data":["secret"]}`,
		`{"type":"streamEnd","streamId":"s1","error":"secret"}`,
		`{"type":"streamEnd","streamId":"s1","error":{"message":["secret"]}}`,
		`{"type":"setGroupState","group":"g","state":{"secret":1}}`,
		`{"type":"setGroupState","group":"g","state":{"k":["secret"]}}`,
		`{"type":"invoke","invocationId":"1","target":"event","event":"e","dataType":"binary","data":"secret!"}`,
	} {
		if _, err := dec.Decode(subprotocol.TextFrame, []byte(text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
