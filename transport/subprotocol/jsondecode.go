package subprotocol

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"iter"
	"time"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

const (
	reasonMalformedJSON = "The client message is not a valid JSON protocol message."
	reasonJSONFrame     = "The JSON subprotocol requires text messages."

	maxTTLSeconds = 300
)

// jsonDecoder reads the messages of json.webpubsub.azure.v1 and of its reliable
// twin, which differs only in what the server sends.
//
// A message is scanned once, whole and strictly, noting where each known property
// stands; then its type says which of them count, and only these are read. So the
// order of properties does not matter, and of a repeated property the last one
// counts, as with the parsers of Azure's emulator and of encoding/json.
type jsonDecoder struct{}

var _ Decoder = jsonDecoder{}

func (jsonDecoder) Decode(f Frame, p []byte) (Inbound, error) {
	if f != TextFrame {
		return Inbound{}, &RefusedError{
			Code: engine.CloseUnsupported, Reason: reasonJSONFrame,
			Detail: "json: the message came in a binary frame",
		}
	}
	if !utf8.Valid(p) {
		return Inbound{}, malformed("the message holds bytes that are not UTF-8")
	}
	s := scanner{p: p}
	m := jsonMessage{text: p}
	if !m.scan(&s) {
		return Inbound{}, malformed("%s, at byte %d of %d", s.fault, s.i, len(p))
	}
	return m.inbound()
}

func malformed(format string, args ...any) error {
	return &RefusedError{
		Code: engine.CloseInvalidData, Reason: reasonMalformedJSON,
		Detail: "json: " + fmt.Sprintf(format, args...),
	}
}

// jsonMessage is where the known properties of a message stand in its text.
type jsonMessage struct {
	text []byte

	kind, group, event, ackID, noEcho  span
	dataType, data, metadata           span
	ttlSeconds, sequenceID, state      span
	stream, streamID, streamSequenceID span
	failure, invocationID, target      span
	rest                               span
}

// property returns the place of the named property, rest for every unknown one.
func (m *jsonMessage) property(name []byte) *span {
	switch string(name) {
	case "type":
		return &m.kind
	case "group":
		return &m.group
	case "event":
		return &m.event
	case "ackId":
		return &m.ackID
	case "noEcho":
		return &m.noEcho
	case "dataType":
		return &m.dataType
	case "data":
		return &m.data
	case "metadata":
		return &m.metadata
	case "ttlSeconds":
		return &m.ttlSeconds
	case "sequenceId":
		return &m.sequenceID
	case "state":
		return &m.state
	case "stream":
		return &m.stream
	case "streamId":
		return &m.streamID
	case "streamSequenceId":
		return &m.streamSequenceID
	case "error":
		return &m.failure
	case "invocationId":
		return &m.invocationID
	case "target":
		return &m.target
	}
	return &m.rest
}

// longestEscapedProperty is the length of the longest spelling of a name that
// property knows: every letter of streamSequenceId as a \u escape.
const longestEscapedProperty = len("streamSequenceId") * len(`\u0000`)

// scan reads the whole message and fills m.
func (m *jsonMessage) scan(s *scanner) bool {
	if s.space(); s.peek() != '{' {
		return s.fail("expected an object")
	}
	s.i++
	for first := true; ; first = false {
		at, more := s.member(first)
		if !more {
			return s.fault == "" && s.end()
		}
		name := m.inside(at)
		if at.escaped && len(name) <= longestEscapedProperty {
			var buf [longestEscapedProperty]byte
			name, _ = unquote(buf[:0], name)
		}
		v, ok := s.value(1)
		if !ok {
			return false
		}
		*m.property(name) = v
	}
}

// inbound reads what counts for the message's type. Where a client's library
// writes null for "not set", null is as good as missing (ackId, ttlSeconds,
// metadata, stream, streamSequenceId, error, state, and what may be left out inside
// stream and error); elsewhere it is a value of the wrong type.
func (m *jsonMessage) inbound() (Inbound, error) {
	word, _, err := m.str("type", m.kind)
	if err != nil {
		return Inbound{}, err
	}
	// A bad ackId is refused on every type, whether that type has one or not.
	var ackID uint64
	hasAck := m.given(m.ackID)
	if hasAck {
		if ackID, err = m.integer("ackId", m.ackID); err != nil {
			return Inbound{}, err
		}
	}
	t := typeNamed(word)
	switch t.name {
	case "":
		return Inbound{}, malformed("unknown type %s", excerpt(word))
	case "ping":
		return Inbound{Kind: InPing}, nil
	case "sequenceAck":
		seq, err := m.integer("sequenceId", m.sequenceID)
		if err != nil {
			return Inbound{}, err
		}
		return Inbound{Kind: InSequenceAck, Sequence: engine.SequenceID(seq)}, nil
	case "cancelInvocation":
		id, err := m.id("invocationId", m.invocationID, maxInvocationID)
		if err != nil {
			return Inbound{}, err
		}
		return Inbound{Kind: InCancel, Invocation: id}, nil
	}
	in := Inbound{Kind: InRequest, Request: &engine.Request{Op: t.op}}
	if t.acked {
		in.Request.AckID, in.Request.HasAck = engine.AckID(ackID), hasAck
	}
	switch r := in.Request; t.name {
	case "sendToGroup":
		err = m.readSend(r)
	case "event":
		err = m.readEvent(r)
	case "invoke":
		in.Invocation, err = m.readInvoke(r)
	case "streamData":
		err = m.readStreamData(r)
	case "streamEnd":
		err = m.readStreamEnd(r)
	case "setGroupState":
		err = m.readSetState(r)
	default: // of the others the group is all
		err = m.readGroup(r)
	}
	if err != nil {
		return Inbound{}, err
	}
	return in, nil
}

// jsonType is a type of message that clients send.
type jsonType struct {
	name  string
	op    engine.Op // what a request of the type asks for, unless its content says more
	acked bool      // an ackId counts; on the other types it is only checked
}

// jsonTypes are those that Azure's clients can write.
var jsonTypes = [...]jsonType{
	{"sendToGroup", engine.OpSend, true},
	{"event", engine.OpEvent, true},
	{"joinGroup", engine.OpJoin, true},
	{"leaveGroup", engine.OpLeave, true},
	{"ping", 0, false},
	{"sequenceAck", 0, false},
	{"streamData", engine.OpStreamData, false},
	{"streamEnd", engine.OpStreamEnd, false},
	{"invoke", engine.OpEvent, false},
	{"cancelInvocation", 0, false},
	{"setGroupState", engine.OpSetState, true},
	{"subscribeGroupState", engine.OpWatchState, true},
	{"unsubscribeGroupState", engine.OpUnwatchState, true},
}

// typeNamed returns the type that word names, without regard to case, and the zero
// jsonType for none.
func typeNamed(word []byte) jsonType {
	for _, t := range jsonTypes {
		if equalFold(word, t.name) {
			return t
		}
	}
	return jsonType{}
}

func (m *jsonMessage) readGroup(r *engine.Request) error {
	name, lone, err := m.str("group", m.group)
	if err != nil {
		return err
	}
	if lone {
		// Replaced, two groups would become one.
		return malformed("group: half a surrogate pair, which no group name can hold")
	}
	if r.Group, err = engine.ParseGroupName(string(name)); err != nil {
		return malformed("%v", err)
	}
	return nil
}

func (m *jsonMessage) readEventName(r *engine.Request) error {
	name, _, err := m.str("event", m.event)
	if err != nil {
		return err
	}
	if r.Event, err = engine.ParseEventName(string(name)); err != nil {
		return malformed("%v", err)
	}
	return nil
}

func (m *jsonMessage) readSend(r *engine.Request) error {
	if err := m.readGroup(r); err != nil {
		return err
	}
	if err := m.readSendOptions(r); err != nil {
		return err
	}
	if m.given(m.stream) {
		return m.readStreamStart(r)
	}
	return m.readContent(r, false)
}

func (m *jsonMessage) readSendOptions(r *engine.Request) error {
	if v := m.noEcho; !v.missing() {
		if c := m.text[v.from]; c != 't' && c != 'f' {
			return malformed("noEcho: want true or false, got %s", m.sort(v))
		}
		r.NoEcho = m.text[v.from] == 't'
	}
	if m.given(m.ttlSeconds) {
		ttl, err := m.integer("ttlSeconds", m.ttlSeconds)
		if err != nil {
			return err
		}
		if ttl > maxTTLSeconds {
			return malformed("ttlSeconds: %d is over %d", ttl, maxTTLSeconds)
		}
		r.TTL = time.Duration(ttl) * time.Second
	}
	return nil
}

func (m *jsonMessage) readEvent(r *engine.Request) error {
	if err := m.readEventName(r); err != nil {
		return err
	}
	if err := m.refuseStream(); err != nil {
		return err
	}
	return m.readContent(r, false)
}

// readInvoke reads an event whose sender asks for the answer under a name of its
// own. Unlike an event it may come without data, which is then an empty text: that
// is how the official client invokes without an argument.
func (m *jsonMessage) readInvoke(r *engine.Request) (invocation string, err error) {
	if invocation, err = m.id("invocationId", m.invocationID, maxInvocationID); err != nil {
		return "", err
	}
	target, _, err := m.str("target", m.target)
	if err != nil {
		return "", err
	}
	if !equalFold(target, "event") {
		return "", malformed("target: want event, got %s", excerpt(target))
	}
	if err := m.readEventName(r); err != nil {
		return "", err
	}
	if err := m.refuseStream(); err != nil {
		return "", err
	}
	return invocation, m.readContent(r, true)
}

// refuseStream refuses a stream to an event handler. Azure's protocol keeps the
// property for one, but says nowhere what it would do.
func (m *jsonMessage) refuseStream() error {
	if m.given(m.stream) {
		return malformed("stream: an event cannot have one, only sendToGroup can")
	}
	return nil
}

// readContent reads what a message carries: data of some type, metadata, or both;
// neither of them only where that is allowed.
func (m *jsonMessage) readContent(r *engine.Request, optional bool) (err error) {
	if r.Payload.Type, err = m.readDataType(); err != nil {
		return err
	}
	if m.given(m.metadata) {
		if r.Metadata, err = m.readMetadata(); err != nil {
			return err
		}
		// Metadata may come alone.
		optional = true
	}
	if optional && m.data.missing() {
		// Whatever dataType says, no data is an empty text.
		r.Payload = engine.Payload{Type: engine.Text, Data: []byte{}}
		return nil
	}
	return m.readPayload(r)
}

// protobufData refuses data of a type that Azure's JSON clients can receive, and
// that their libraries therefore have a name for, but that the service takes from
// protobuf clients alone (Azure Web PubSub, JSON subprotocol, "publish messages").
// The message is well formed, so its sender keeps the connection: a library would
// send the same again on the next one.
var protobufData = &engine.Refusal{
	Rule: "request.dataType", Target: "dataType",
	Message: "Clients of the JSON subprotocol cannot send data of the type protobuf: expected json, text or binary, or a client of " + NameProtobuf + ".",
}

// readPayload reads data, whose type has been read.
func (m *jsonMessage) readPayload(r *engine.Request) (err error) {
	if r.Payload.Type == engine.Protobuf && !m.data.missing() {
		r.Refused, r.Payload = protobufData, engine.Payload{}
		return nil
	}
	r.Payload.Data, err = m.readData(r.Payload.Type)
	return err
}

func (m *jsonMessage) readDataType() (engine.DataType, error) {
	if m.dataType.missing() {
		return engine.JSON, nil
	}
	word, _, err := m.str("dataType", m.dataType)
	if err != nil {
		return 0, err
	}
	for _, t := range [...]engine.DataType{engine.JSON, engine.Text, engine.Binary, engine.Protobuf} {
		if equalFold(word, t.String()) {
			return t, nil
		}
	}
	return 0, malformed("dataType: want json, text or binary, got %s", excerpt(word))
}

// readData returns a copy of the data. In text, half a surrogate pair becomes
// U+FFFD, as it does when a browser puts such a string into a text frame (Web IDL,
// USVString): a client that cuts a string inside an emoji keeps its connection. In
// JSON it stays the escape that it is.
func (m *jsonMessage) readData(t engine.DataType) ([]byte, error) {
	v := m.data
	if v.missing() {
		return nil, malformed("data: missing, and there is no metadata")
	}
	if t == engine.JSON {
		if m.text[v.from] == 'n' {
			return nil, malformed("data: null is no data")
		}
		return clone(m.text[v.from:v.to]), nil
	}
	if m.text[v.from] != '"' {
		return nil, malformed("data: want a string for dataType %s, got %s", t, m.sort(v))
	}
	raw := m.inside(v)
	if t == engine.Text {
		if v.escaped {
			data, _ := unquote(make([]byte, 0, len(raw)), raw)
			return data, nil
		}
		return clone(raw), nil
	}
	if v.escaped { // as \/ or \u002B, which several libraries write
		raw, _ = unquote(nil, raw)
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(len(raw)))
	// Strict still skips line breaks.
	n, err := strictBase64.Decode(data, raw)
	if err != nil || bytes.ContainsAny(raw, "\r\n") {
		return nil, malformed("data: not base64 as RFC 4648 section 4 has it, padding included")
	}
	return data[:n], nil
}

var strictBase64 = base64.StdEncoding.Strict()

// readMetadata returns nil for an object without members.
func (m *jsonMessage) readMetadata() (engine.Metadata, error) {
	if err := m.object("metadata", m.metadata); err != nil {
		return nil, err
	}
	var pairs metadata
	for name, value := range m.members(m.metadata) {
		key, _ := m.unquoted(name)
		text, _, err := m.str("metadata", value)
		if err != nil {
			return nil, err
		}
		if fault := pairs.add(key, text); fault != "" {
			return nil, malformed("metadata: %s", fault)
		}
	}
	return pairs.pairs, nil
}

// object refuses what is not an object.
func (m *jsonMessage) object(name string, v span) error {
	if m.text[v.from] != '{' {
		return malformed("%s: want an object, got %s", name, m.sort(v))
	}
	return nil
}

// members yields the names and values of an object's members, in their order.
func (m *jsonMessage) members(object span) iter.Seq2[span, span] {
	return func(yield func(name, value span) bool) {
		s := scanner{p: m.text[:object.to], i: object.from + 1} // syntax is known to be right
		for first := true; ; first = false {
			name, more := s.member(first)
			if !more {
				return
			}
			value, _ := s.value(1)
			if !yield(name, value) {
				return
			}
		}
	}
}

// given reports whether v is there and not null.
func (m *jsonMessage) given(v span) bool { return !v.missing() && m.text[v.from] != 'n' }

// inside returns what stands between the quotes of a string.
func (m *jsonMessage) inside(v span) []byte { return m.text[v.from+1 : v.to-1] }

// str returns what a string stands for, within the message's text unless it has
// escapes; lone reports half a surrogate pair, which is U+FFFD in the result.
func (m *jsonMessage) str(name string, v span) (_ []byte, lone bool, err error) {
	if v.missing() {
		return nil, false, malformed("%s: missing", name)
	}
	if m.text[v.from] != '"' {
		return nil, false, malformed("%s: want a string, got %s", name, m.sort(v))
	}
	text, lone := m.unquoted(v)
	return text, lone, nil
}

// unquoted is str for a value that is known to be a string.
func (m *jsonMessage) unquoted(v span) (_ []byte, lone bool) {
	if !v.escaped {
		return m.inside(v), false
	}
	return unquote(nil, m.inside(v))
}

// id returns a name that the client gives to something of its own, and is told
// again: so it must survive the way there and back.
func (m *jsonMessage) id(name string, v span, most int) (string, error) {
	text, lone, err := m.str(name, v)
	switch {
	case err != nil:
		return "", err
	case lone:
		return "", malformed("%s: half a surrogate pair", name)
	case len(text) == 0 || len(text) > most:
		return "", malformed("%s: %d bytes, want 1 to %d", name, len(text), most)
	}
	return string(text), nil
}

// words returns a text that people read, "" if it is not there.
func (m *jsonMessage) words(name string, v span, most int) (string, error) {
	if !m.given(v) {
		return "", nil
	}
	text, _, err := m.str(name, v)
	if err == nil && len(text) > most {
		err = malformed("%s: %d bytes, at most %d pass", name, len(text), most)
	}
	if err != nil {
		return "", err
	}
	return string(text), nil
}

// integer returns a number that is written as plain digits: exact up to 2^64-1,
// and neither 1.0 nor 1e2.
func (m *jsonMessage) integer(name string, v span) (uint64, error) {
	if v.missing() {
		return 0, malformed("%s: missing", name)
	}
	n := uint64(0)
	for i, c := range m.text[v.from:v.to] {
		d := uint64(c - '0')
		if d > 9 {
			return 0, malformed("%s: want an integer in plain digits, got %s", name, m.sort(v))
		}
		if i >= 19 && (i > 19 || n > (1<<64-1-d)/10) {
			return 0, malformed("%s: over 2^64-1", name)
		}
		n = n*10 + d
	}
	return n, nil
}

// sort says in a word what kind of value v is.
func (m *jsonMessage) sort(v span) string {
	switch m.text[v.from] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	case '-':
		return "a negative number"
	}
	return "another number"
}
