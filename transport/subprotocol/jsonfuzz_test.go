package subprotocol_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// reference decodes as the protocol's rules read, one after the other, with
// encoding/json for all that is JSON. It shares no code with the decoder.
func reference(text []byte) (in subprotocol.Inbound, err error) {
	if !utf8.Valid(text) || !json.Valid(text) || nesting(text) > 64 {
		return in, errors.New("not JSON that counts")
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(text, &m); err != nil || m == nil {
		return in, errors.New("not an object")
	}
	dropNulls(m, "ackId", "ttlSeconds", "metadata", "stream", "streamSequenceId", "error", "state")
	kind, err := referenceString(m, "type")
	if err != nil {
		return in, err
	}
	r := engine.Request{}
	if _, r.HasAck = m["ackId"]; r.HasAck {
		n, err := referenceInteger(m, "ackId")
		if err != nil {
			return in, err
		}
		r.AckID = engine.AckID(n)
	}
	word := asciiLower(kind)
	switch word {
	case "ping":
		return subprotocol.Inbound{Kind: subprotocol.InPing}, nil
	case "sequenceack":
		n, err := referenceInteger(m, "sequenceId")
		return subprotocol.Inbound{Kind: subprotocol.InSequenceAck, Sequence: engine.SequenceID(n)}, err
	case "cancelinvocation":
		id, err := referenceJSONID(m, "invocationId")
		return subprotocol.Inbound{Kind: subprotocol.InCancel, Invocation: id}, err
	case "invoke":
		if in.Invocation, err = referenceJSONID(m, "invocationId"); err != nil {
			return in, err
		}
		if target, err := referenceString(m, "target"); err != nil || asciiLower(target) != "event" {
			return in, errors.New("target")
		}
	}
	switch word {
	case "streamdata", "streamend", "invoke":
		r.AckID, r.HasAck = 0, false
	}
	var known bool
	if r.Op, known = referenceOps[word]; !known {
		return in, errors.New("unknown type")
	}
	in.Kind, in.Request = subprotocol.InRequest, &r
	switch r.Op {
	case engine.OpStreamData:
		return in, referenceStreamData(m, &r)
	case engine.OpStreamEnd:
		return in, referenceStreamEnd(m, &r)
	case engine.OpEvent:
		name, err := referenceString(m, "event")
		if err != nil || !eventPattern.MatchString(name) {
			return in, errors.New("event")
		}
		r.Event = engine.EventName(name)
		if _, ok := m["stream"]; ok {
			return in, errors.New("stream")
		}
		return in, referenceContent(m, &r, word == "invoke")
	}
	name, err := referenceString(m, "group")
	if err != nil || strings.TrimSpace(name) == "" || utf8.RuneCountInString(name) > 1024 || loneSurrogate(m["group"]) {
		return in, errors.New("group")
	}
	r.Group = engine.GroupName(name)
	switch r.Op {
	case engine.OpSend:
		return in, referenceSend(m, &r)
	case engine.OpSetState:
		if raw, ok := m["state"]; ok {
			r.State, err = referenceState(raw)
		}
	}
	return in, err
}

var referenceOps = map[string]engine.Op{
	"sendtogroup": engine.OpSend, "event": engine.OpEvent, "invoke": engine.OpEvent,
	"joingroup": engine.OpJoin, "leavegroup": engine.OpLeave, "streamdata": engine.OpStreamData, "streamend": engine.OpStreamEnd,
	"setgroupstate": engine.OpSetState, "subscribegroupstate": engine.OpWatchState, "unsubscribegroupstate": engine.OpUnwatchState,
}

func referenceSend(m map[string]json.RawMessage, r *engine.Request) error {
	switch raw, ok := m["noEcho"]; {
	case !ok:
	case string(raw) == "true":
		r.NoEcho = true
	case string(raw) != "false":
		return errors.New("noEcho")
	}
	if raw, ok := m["stream"]; ok {
		for _, name := range []string{"ackId", "data", "dataType", "metadata", "ttlSeconds"} {
			if _, ok := m[name]; ok {
				return errors.New(name)
			}
		}
		return referenceStreamStart(raw, r)
	}
	if _, ok := m["ttlSeconds"]; ok {
		n, err := referenceInteger(m, "ttlSeconds")
		if err != nil || n > 300 {
			return errors.New("ttlSeconds")
		}
		r.TTL = time.Duration(n) * time.Second
	}
	return referenceContent(m, r, false)
}

func referenceStreamStart(raw []byte, r *engine.Request) error {
	m, err := referenceObject(raw)
	if err != nil {
		return err
	}
	dropNulls(m, "idleTimeoutMs")
	r.Op, r.Stream = engine.OpStreamStart, &engine.StreamRequest{}
	if r.Stream.ID, err = referenceJSONID(m, "streamId"); err != nil {
		return err
	}
	if _, ok := m["idleTimeoutMs"]; ok {
		ms, err := referenceInteger(m, "idleTimeoutMs")
		if err != nil || ms < 1 || ms > 86_400_000 {
			return errors.New("idleTimeoutMs")
		}
		r.Stream.Idle = time.Duration(ms) * time.Millisecond
	}
	return nil
}

func referenceStreamData(m map[string]json.RawMessage, r *engine.Request) (err error) {
	r.Stream = &engine.StreamRequest{}
	if r.Stream.ID, err = referenceJSONID(m, "streamId"); err != nil {
		return err
	}
	_, hasType := m["dataType"]
	_, hasData := m["data"]
	if _, ok := m["streamSequenceId"]; !ok {
		if hasType || hasData {
			return errors.New("partial payload")
		}
		return nil
	}
	if r.Stream.Seq, err = referenceInteger(m, "streamSequenceId"); err != nil || r.Stream.Seq == 0 {
		return errors.New("streamSequenceId")
	}
	delete(m, "metadata") // it has none
	return referenceContent(m, r, false)
}

func referenceStreamEnd(m map[string]json.RawMessage, r *engine.Request) (err error) {
	r.Stream = &engine.StreamRequest{}
	if r.Stream.ID, err = referenceJSONID(m, "streamId"); err != nil {
		return err
	}
	raw, ok := m["error"]
	if !ok {
		return nil
	}
	if m, err = referenceObject(raw); err != nil {
		return err
	}
	dropNulls(m, "message", "userErrorCode")
	r.Stream.Err = &engine.StreamError{Name: "UserError"}
	for name, field := range map[string]struct {
		to   *string
		most int
	}{"message": {&r.Stream.Err.Message, 4096}, "userErrorCode": {&r.Stream.Err.UserCode, 256}} {
		if _, ok := m[name]; !ok {
			continue
		}
		if *field.to, err = referenceString(m, name); err != nil || len(*field.to) > field.most {
			return errors.New(name)
		}
	}
	return nil
}

func referenceState(raw []byte) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("state is no object")
	}
	state := map[string]string{}
	total := 0
	for d.More() {
		from := d.InputOffset()
		k, _ := d.Token()
		spelled := bytes.TrimLeft(raw[from:d.InputOffset()], ", \t\r\n")
		v, _ := d.Token()
		value, ok := v.(string)
		if total += len(k.(string)) + len(value); !ok || loneSurrogate(spelled) || total > 16384 {
			return nil, errors.New("state pair")
		}
		state[k.(string)] = value
	}
	return state, nil
}

func dropNulls(m map[string]json.RawMessage, names ...string) {
	for _, name := range names {
		if string(m[name]) == "null" {
			delete(m, name)
		}
	}
}

func referenceObject(raw []byte) (m map[string]json.RawMessage, err error) {
	if !bytes.HasPrefix(raw, []byte{'{'}) {
		return nil, errors.New("no object")
	}
	return m, json.Unmarshal(raw, &m)
}

// referenceJSONID reads a name of the client's own.
func referenceJSONID(m map[string]json.RawMessage, name string) (string, error) {
	id, err := referenceString(m, name)
	if err == nil && (id == "" || len(id) > 256 || loneSurrogate(m[name])) {
		err = errors.New(name)
	}
	return id, err
}

// referenceRefusal is why data of the type protobuf is refused.
var referenceRefusal = &engine.Refusal{
	Rule: "request.dataType", Target: "dataType",
	Message: "Clients of the JSON subprotocol cannot send data of the type protobuf: expected json, text or binary, or a client of protobuf.webpubsub.azure.v1.",
}

func referenceContent(m map[string]json.RawMessage, r *engine.Request, optional bool) error {
	dataType := "json"
	if _, ok := m["dataType"]; ok {
		word, err := referenceString(m, "dataType")
		if err != nil {
			return err
		}
		dataType = asciiLower(word)
	}
	raw, hasMetadata := m["metadata"]
	if hasMetadata {
		var err error
		if r.Metadata, err = referenceMetadata(raw); err != nil {
			return err
		}
	}
	data, hasData := m["data"]
	if !hasData && !hasMetadata && !optional {
		return errors.New("no data")
	}
	switch dataType {
	case "json":
		r.Payload = engine.Payload{Type: engine.JSON, Data: data}
		if string(data) == "null" {
			return errors.New("null data")
		}
	case "text", "binary":
		r.Payload.Type = engine.Text
		text, err := referenceString(m, "data")
		if hasData && err != nil {
			return err
		}
		r.Payload.Data = []byte(text)
		if dataType == "binary" && hasData {
			r.Payload.Type = engine.Binary
			r.Payload.Data, err = base64.StdEncoding.DecodeString(text)
			if err != nil || base64.StdEncoding.EncodeToString(r.Payload.Data) != text {
				return errors.New("base64")
			}
		}
	case "protobuf":
		if hasData {
			r.Refused = referenceRefusal
		}
	default:
		return errors.New("dataType")
	}
	if !hasData {
		r.Payload = engine.Payload{Type: engine.Text, Data: []byte{}}
	}
	return nil
}

func referenceMetadata(raw []byte) (engine.Metadata, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("metadata is no object")
	}
	var m engine.Metadata
	total := 0
	for d.More() {
		k, _ := d.Token()
		v, _ := d.Token()
		key := k.(string)
		value, ok := v.(string)
		total += len(key) + len(value)
		if !ok || !validPair(key, value) || total > 8192 {
			return nil, errors.New("metadata pair")
		}
		if _, twice := m[key]; twice {
			return nil, errors.New("metadata twice")
		}
		if m == nil {
			m = engine.Metadata{}
		}
		m[key] = value
	}
	return m, nil
}

var (
	eventPattern  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,127}\z`)
	tokenPattern  = regexp.MustCompile("^[!#$%&'*+\\-.^_`|~0-9A-Za-z]{1,256}\\z")
	escapePattern = regexp.MustCompile(`\\(u[0-9A-Fa-f]{4}|[^u])`)
)

func validPair(key, value string) bool {
	return tokenPattern.MatchString(key) && len(value) <= 1024 && !strings.ContainsFunc(value, func(r rune) bool { return r > 0x7F })
}

func referenceString(m map[string]json.RawMessage, name string) (s string, err error) {
	if !bytes.HasPrefix(m[name], []byte{'"'}) {
		return "", fmt.Errorf("%s is not a string", name)
	}
	return s, json.Unmarshal(m[name], &s)
}

func referenceInteger(m map[string]json.RawMessage, name string) (uint64, error) {
	return strconv.ParseUint(string(m[name]), 10, 64) // JSON has ruled out what else ParseUint allows
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// loneSurrogate reports whether a JSON string holds half a surrogate pair: where
// encoding/json makes a U+FFFD that the text does not spell.
func loneSurrogate(raw []byte) bool {
	var s string
	_ = json.Unmarshal(raw, &s)
	spelled := strings.Count(string(raw), "\uFFFD")
	for _, escape := range escapePattern.FindAll(raw, -1) {
		if strings.EqualFold(string(escape), `\ufffd`) {
			spelled++
		}
	}
	return strings.Count(s, "\uFFFD") > spelled
}

func nesting(text []byte) (deepest int) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // 1e999 is JSON
	for depth := 0; ; {
		switch t, err := d.Token(); {
		case err == io.EOF:
			return deepest
		case err != nil:
			return 1 << 20
		case t == json.Delim('{') || t == json.Delim('['):
			depth++
			deepest = max(deepest, depth)
		case t == json.Delim('}') || t == json.Delim(']'):
			depth--
		}
	}
}

var seeds = []string{
	`{"type":"joinGroup","group":"lobby","ackId":7}`,
	`{"type":"leaveGroup","group":"\ud83d\ude00","ackId":18446744073709551615}`,
	`{"type":"joinGroup","group":"\\ufffd\ufffd\ud800"}`,
	`{"type":"sendToGroup","group":"lobby","data":{"n":1.0,"m":[true,null,"\u2028"]}}`,
	`{"type":"sendToGroup","group":"lobby","ackId":9,"noEcho":true,"dataType":"text","data":"h\ti\ud83d"}`,
	`{"type":"sendToGroup","group":"lobby","dataType":"binary","data":"AQI=","metadata":{"trace":"t-1","a":"b"},"ttlSeconds":60}`,
	`{"type":"event","event":"order.placed","ackId":10,"dataType":"json","data":[-0.5e+7],"stream":null}`,
	`{"type":"EVENT","event":"e","metadata":{}}`,
	`{"type":"event","event":"e","metadata":{"k":"1","\u006b":"2"}}`,
	` {"type" : "ping", "type":"sequenceAck","sequenceId":42}`,
	`{"type":"ping","x":[[[{"a":[]}]],1e999]}`,
	`{"type":"sendToGroup","group":"lobby","noEcho":false,"stream":{"streamId":"s1","idleTimeoutMs":60000}}`,
	`{"type":"sendToGroup","group":"lobby","ackId":null,"stream":{"\u0073treamId":"\ud83d\ude00","idleTimeoutMs":null,"x":[]}}`,
	`{"type":"streamData","streamId":"s1","streamSequenceId":1,"dataType":"text","data":"a\ud800"}`,
	`{"type":"streamData","streamId":"s1","streamSequenceId":18446744073709551615,"data":{"a":1.0}}`,
	`{"type":"streamData","streamId":"s1","streamSequenceId":null}`,
	`{"type":"streamEnd","streamId":"s1","error":{"message":"gave up","userErrorCode":"E42"}}`,
	`{"type":"streamEnd","streamId":"s1","error":{"message":null,"name":1}}`,
	`{"type":"setGroupState","group":"lobby","state":{"mood":"ok","\u006d":"\ud800","m":""},"ackId":3}`,
	`{"type":"setGroupState","group":"lobby","state":{"\ud800":"\ufffd"}}`,
	`{"type":"subscribeGroupState","group":"lobby","ackId":5}`,
	`{"type":"unsubscribeGroupState","group":"lobby"}`,
	`{"type":"invoke","invocationId":"1","target":"event","event":"sum","dataType":"json","data":[1,2]}`,
	`{"type":"invoke","invocationId":"\u0031","target":"Event","event":"sum","ackId":7}`,
	`{"type":"cancelInvocation","invocationId":"1"}`,
}

// properties are names and values that the rules care about, for messages made of
// them at random.
var properties = map[string][]string{
	"type": {
		`"sendToGroup"`, `"sendToGroup"`, `"SENDTOGROUP"`, `"event"`, `"event"`, `"joinGroup"`, `"leavegroup"`, `"ping"`,
		`"streamData"`, `"streamData"`, `"streamEnd"`, `"setGroupState"`, `"invoke"`, `"invoke"`, `"STREAMdata"`, `"cancelInvocation"`,
		`"sequenceAck"`, `"\u0065vent"`, `"subscribeGroupState"`, `"unsubscribeGroupState"`, `"x"`, `null`, `5`,
	},
	"group":      {`"lobby"`, `"lobby"`, `"a\/b"`, `"\ud83d\ude00"`, `"\ud83d"`, `"\\ufffd"`, `"\ufffd"`, `" "`, `""`, `null`, `[]`},
	"event":      {`"order.placed"`, `"e"`, `"e-_9."`, `"9"`, `""`, `"é"`, `"\u0061"`, `null`, `{}`},
	"ackId":      {`0`, `7`, `18446744073709551615`, `18446744073709551616`, `null`, `-1`, `-0`, `1.0`, `1e2`, `"1"`, `true`},
	"noEcho":     {`true`, `false`, `null`, `"true"`, `0`},
	"dataType":   {`"json"`, `"text"`, `"text"`, `"binary"`, `"binary"`, `"TEXT"`, `"Binar\u0079"`, `"protobuf"`, `null`, `3`},
	"data":       {`"hi"`, `"AQI="`, `"AQJ="`, `"\/\u002B8="`, `""`, `{"a":1.0}`, `[[],{}]`, `null`, `1e999`, `false`, `"\ud800x"`, `"AQI=\n"`},
	"metadata":   {`{}`, `{"k":"v"}`, `{"k":"v","K":"\u007f"}`, `{"k":"v","\u006b":"v"}`, `{"k":"é"}`, `{"a b":""}`, `{"k":null}`, `null`, `[]`},
	"ttlSeconds": {`0`, `300`, `301`, `null`, `-1`, `1.5`, `"1"`},
	"sequenceId": {`42`, `18446744073709551615`, `null`, `"42"`, `1.0`},
	"stream": {
		`{"streamId":"s"}`, `{"streamId":"s","idleTimeoutMs":1}`, `null`, `{"idleTimeoutMs":0,"streamId":"s"}`, `{"\u0073treamId":"s","idleTimeoutMs":null}`,
		`{"streamId":"s","idleTimeoutMs":86400001}`, `{"streamId":"s","idleTimeoutMs":"1"}`, `{"streamId":""}`, `{"streamId":"\ud800"}`, `{}`, `[]`, `"s"`,
	},
	"streamId":         {`"s"`, `"s"`, `"\u0073"`, `""`, `"\ud800"`, `null`, `1`},
	"streamSequenceId": {`1`, `1`, `18446744073709551615`, `null`, `0`, `-1`, `"1"`},
	"error":            {`{}`, `{"message":"m","userErrorCode":"c"}`, `null`, `{"message":null,"name":5}`, `{"message":1}`, `{"userErrorCode":[]}`, `"m"`, `[]`},
	"state":            {`{"k":"v"}`, `{}`, `null`, `{"k":"v","\u006b":"w"}`, `{"\ufffd":"\ud800"}`, `{"\ud800":""}`, `{"k":null}`, `{"k":{}}`, `[]`, `"k"`},
	"invocationId":     {`"1"`, `"1"`, `"\u0031"`, `""`, `"\udc00"`, `null`, `1`},
	"target":           {`"event"`, `"EVENT"`, `"group"`, `null`},
	"other":            {`1`, `{"type":"ping"}`, `[1,]`, `"\x"`, `01`, strings.Repeat("[", 63) + strings.Repeat("]", 63), strings.Repeat("[", 64) + strings.Repeat("]", 64)},
	"Type":             {`"ping"`},
	"":                 {`-0.5E-3`},
}

// Random messages of meaningful parts reach what random bytes do not.
func TestJSONDecodeAgainstReference(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	names := slices.Sorted(maps.Keys(properties))
	_, dec := subprotocol.JSON()
	accepted := map[string]int{}
	for range 20_000 {
		parts := []string{`"type":` + properties["type"][rng.IntN(len(properties["type"]))]}
		switch rng.IntN(6) { // most messages have what their type needs
		case 0:
		case 1:
			parts = append(parts, `"group":"lobby"`, `"stream":{"streamId":"s"}`)
		case 2:
			parts = append(parts, `"group":"lobby"`, `"streamId":"s"`, `"invocationId":"1"`, `"target":"event"`, `"event":"e"`, `"sequenceId":1`)
		default:
			parts = append(parts, `"group":"lobby"`, `"streamId":"s"`, `"invocationId":"1"`, `"target":"event"`, `"event":"e"`, `"data":"AQI="`, `"streamSequenceId":1`)
		}
		for range rng.IntN(6) {
			name := names[rng.IntN(len(names))]
			values := properties[name]
			// The first values are the good ones: they come more often.
			value := values[min(rng.IntN(len(values)), rng.IntN(len(values)))]
			if rng.IntN(20) == 0 {
				name = fmt.Sprintf(`\u%04x%s`, append([]byte(name), 'x')[0], name[min(1, len(name)):])
			}
			parts = append(parts, fmt.Sprintf(`"%s"%s:%s`, name, " \n\t  "[:rng.IntN(5)], value))
		}
		rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		text := []byte("{" + strings.Join(parts, ",") + "}")
		got, err := dec.Decode(subprotocol.TextFrame, text)
		wish, wishErr := reference(text)
		if (err == nil) != (wishErr == nil) || !reflect.DeepEqual(got, wish) && err == nil {
			t.Fatalf("%s\ngot  %s, error %v\nwish %s, error %v", text, describe(got), err, describe(wish), wishErr)
		}
		if err == nil {
			kind := fmt.Sprintf("kind %d", got.Kind)
			if got.Request != nil {
				kind = fmt.Sprintf("op %d, invocation %v", got.Request.Op, got.Invocation != "")
			}
			accepted[kind]++
		}
	}
	for kind, n := range accepted {
		if n < 50 {
			t.Errorf("only %d messages of %s were good: the test has lost its point", n, kind)
		}
	}
	if len(accepted) != 14 {
		t.Errorf("good messages of %d kinds: %v", len(accepted), accepted)
	}
}

// What the decoder accepts encoding/json accepts, with the same meaning; what the
// rules allow is never refused; and nothing panics.
func FuzzJSONDecode(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
	}
	_, dec := subprotocol.JSON()
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		got, err := dec.Decode(subprotocol.TextFrame, text)
		if !bytes.Equal(before, text) {
			t.Fatal("the text was changed")
		}
		wish, wishErr := reference(text)
		if (err == nil) != (wishErr == nil) {
			t.Fatalf("error %v, reference %v", err, wishErr)
		}
		var refused *subprotocol.RefusedError
		if err != nil {
			if !errors.As(err, &refused) || refused.Detail == "" || len(refused.Reason) > 123 {
				t.Fatalf("error %#v", err)
			}
			return
		}
		if !reflect.DeepEqual(got, wish) {
			t.Fatalf("got  %s\nwish %s", describe(got), describe(wish))
		}
	})
}

// What is decoded, published and encoded means to a receiver what the sender meant.
func FuzzJSONRelay(f *testing.F) {
	for _, seed := range seeds {
		f.Add([]byte(seed), "ann")
	}
	plain, dec := subprotocol.JSON()
	reliable, _ := subprotocol.ReliableJSON()
	f.Fuzz(func(t *testing.T, text []byte, from string) {
		in, err := dec.Decode(subprotocol.TextFrame, text)
		if err != nil {
			return
		}
		for _, enc := range []subprotocol.Encoder{plain, reliable} {
			if in.Kind == subprotocol.InCancel || in.Invocation != "" {
				checkInvocation(t, enc, in.Invocation)
			}
			if in.Kind == subprotocol.InRequest {
				checkRelay(t, enc, in.Request, from)
			}
		}
	})
}

// checkRelay encodes what r makes the engine send.
func checkRelay(t *testing.T, enc subprotocol.Encoder, r *engine.Request, from string) {
	t.Helper()
	m := &engine.Message{Group: r.Group, From: engine.UserID(from), Payload: r.Payload, Metadata: r.Metadata}
	if s := r.Stream; s != nil {
		m.Group = "lobby" // a part does not say to which group its stream goes
		m.Stream = &engine.StreamPart{ID: s.ID, Seq: s.Seq, End: r.Op == engine.OpStreamEnd, Err: s.Err}
	}
	switch r.Op {
	case engine.OpSend, engine.OpStreamEnd:
		checkEncoding(t, enc, m)
	case engine.OpStreamData:
		if r.Stream.Seq > 0 {
			checkEncoding(t, enc, m)
		}
	case engine.OpSetState:
		checkState(t, enc, r.Group, r.State)
	}
}

func checkInvocation(t *testing.T, enc subprotocol.Encoder, id string) {
	t.Helper()
	var got struct {
		Type, InvocationID string
		Success            *bool
	}
	decode(t, enc, &engine.Message{Kind: engine.KindInvokeResponse, Invocation: id}, &got)
	if got.Type != "invokeResponse" || got.InvocationID != id || got.Success == nil || !*got.Success {
		t.Fatalf("got %+v", got)
	}
}

func checkState(t *testing.T, enc subprotocol.Encoder, group engine.GroupName, state map[string]string) {
	t.Helper()
	type item struct {
		ConnectionID string
		State        map[string]string
		UpdatedAt    int64
	}
	var got struct {
		Type  string
		Group engine.GroupName
		Items []item
	}
	decode(t, enc, &engine.Message{
		Kind: engine.KindStateUpdate, Group: group, States: []engine.GroupState{{ConnID: "c", State: state, UpdatedAt: time.UnixMilli(7)}},
	}, &got)
	if got.Type != "groupStateUpdate" || got.Group != group || !reflect.DeepEqual(got.Items, []item{{"c", state, 7}}) {
		t.Fatalf("got %+v, wish %+v", got, state)
	}
}

// decode encodes m and reads that into v, strictly UTF-8 and JSON.
func decode(t *testing.T, enc subprotocol.Encoder, m *engine.Message, v any) {
	t.Helper()
	const before = "what stood there before"
	out, ok := enc.AppendBody([]byte(before), m)
	body, kept := bytes.CutPrefix(out, []byte(before))
	own, keptToo := bytes.CutPrefix(enc.AppendOwn([]byte(before), m, engine.Own{Seq: 5}), []byte(before))
	body = append(own, body...)
	if !ok || !kept || !keptToo || !utf8.Valid(body) {
		t.Fatalf("sent %v, %q", ok, out)
	}
	if err := json.Unmarshal(body, v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
}

// Whatever a server puts into a message, receivers get one JSON object of UTF-8 that says it.
func FuzzJSONEncode(f *testing.F) {
	f.Add("lobby", "kim", "hi", "k", "v", uint8(engine.Text))
	f.Add("", "", "\xff\x00\"\\\u2028\x7f", "\n", "\xed\xa0\x80", uint8(engine.Binary))
	f.Add("a\tb", "\x1f", "long enough for eight at a time \" and more \n", "", "é", uint8(engine.Protobuf))
	plain, _ := subprotocol.JSON()
	reliable, _ := subprotocol.ReliableJSON()
	f.Fuzz(func(t *testing.T, group, from, data, key, value string, typ uint8) {
		p := payload(engine.DataType(typ&3), data)
		if p.Type == engine.JSON && !json.Valid(p.Data) {
			p.Data, _ = json.Marshal(data)
		}
		m := &engine.Message{
			Group: engine.GroupName(group), From: engine.UserID(from), Payload: p, Metadata: engine.Metadata{key: value, "z": "1"},
		}
		checkEncoding(t, plain, m)
		m.Stream = &engine.StreamPart{ID: key, Seq: uint64(typ), End: typ&4 > 0}
		if typ&8 > 0 {
			m.Stream.Err = &engine.StreamError{Name: from, Message: value, UserCode: data}
		}
		checkEncoding(t, plain, m)
		checkEncoding(t, reliable, m)
	})
}

func checkEncoding(t *testing.T, enc subprotocol.Encoder, m *engine.Message) {
	t.Helper()
	var got struct {
		Type, From, Group, FromUserID, DataType string
		Data                                    json.RawMessage
		Metadata                                map[string]string
		Stream                                  *streamLine
		SequenceID                              uint64
	}
	decode(t, enc, m, &got)
	clean := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
	wish := got
	wish.Type, wish.From = "message", "server"
	wish.Group, wish.FromUserID = "", ""
	if m.Group != "" {
		wish.From, wish.Group, wish.FromUserID = "group", clean(string(m.Group)), clean(string(m.From))
	}
	typ := m.Payload.Type
	wish.Stream, wish.SequenceID = nil, 0
	if enc.Own() {
		wish.SequenceID = 5
	}
	if s := m.Stream; s != nil {
		wish.Stream = &streamLine{ID: clean(s.ID), Seq: s.Seq, End: s.End}
		if s.Err != nil {
			wish.Stream.Error = &streamErrorLine{Name: clean(s.Err.Name), Message: clean(s.Err.Message), UserCode: clean(s.Err.UserCode)}
		}
		if s.End && len(m.Payload.Data) == 0 {
			typ = engine.Text
		}
	}
	wish.DataType = typ.String()
	wish.Metadata = nil
	for k, v := range m.Metadata {
		if wish.Metadata == nil {
			wish.Metadata = map[string]string{}
		}
		wish.Metadata[clean(k)] = clean(v)
	}
	if len(wish.Metadata) < len(m.Metadata) {
		t.Skip("two keys that are one once they are UTF-8: which one counts is the reader's choice")
	}
	if !reflect.DeepEqual(got, wish) {
		t.Fatalf("got  %+v\nwish %+v", got, wish)
	}
	data := string(got.Data)
	if typ != engine.JSON {
		if err := json.Unmarshal(got.Data, &data); err != nil {
			t.Fatal(err)
		}
	}
	switch typ {
	case engine.Binary, engine.Protobuf:
		if b, err := base64.StdEncoding.DecodeString(data); err != nil || !bytes.Equal(b, m.Payload.Data) {
			t.Fatalf("data %q: %v", data, err)
		}
	case engine.JSON:
		if data != clean(strings.TrimSpace(string(m.Payload.Data))) {
			t.Fatalf("data %s", data)
		}
	default:
		if data != clean(string(m.Payload.Data)) {
			t.Fatalf("data %q", data)
		}
	}
}

// A pair passes exactly when it keeps the rules, however its spelling is escaped.
func FuzzMetadata(f *testing.F) {
	f.Add("trace", "t-1", 0)
	f.Add("X-A_b.c~", " \t\x7f", 1)
	f.Add("a b", "é", 0)
	f.Add(strings.Repeat("k", 256), strings.Repeat("v", 1025), 7)
	_, dec := subprotocol.JSON()
	f.Fuzz(func(t *testing.T, key, value string, more int) {
		pairs := map[string]string{key: value}
		total := len(key) + len(value)
		for i := range uint(more) % 12 {
			k, v := fmt.Sprintf("filler%d", i), strings.Repeat("f", 1000)
			if k != key {
				pairs[k] = v
				total += len(k) + len(v)
			}
		}
		text, err := json.Marshal(map[string]any{"type": "event", "event": "e", "metadata": pairs})
		if err != nil || !utf8.ValidString(key) || !utf8.ValidString(value) {
			return
		}
		in, err := dec.Decode(subprotocol.TextFrame, text)
		if wish := validPair(key, value) && total <= 8192; wish != (err == nil) {
			t.Fatalf("%q=%q with %d bytes: %v", key, value, total, err)
		}
		if err == nil && !reflect.DeepEqual(map[string]string(in.Request.Metadata), pairs) {
			t.Fatalf("got %v", in.Request.Metadata)
		}
	})
}
