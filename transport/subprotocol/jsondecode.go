package subprotocol

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

const (
	reasonMalformedJSON = "The client message is not a valid JSON protocol message."
	reasonJSONFrame     = "The JSON subprotocol requires text messages."

	maxTTLSeconds = 300
)

// jsonDecoder reads the messages of json.webpubsub.azure.v1. (Those of the reliable
// twin are the same; it differs in what the server sends.)
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

	kind, group, event, ackID, noEcho    span
	dataType, data, metadata             span
	ttlSeconds, sequenceID, stream, rest span
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
	case "stream":
		return &m.stream
	}
	return &m.rest
}

// longestEscapedProperty is the length of the longest spelling of a name that
// property knows: every letter of ttlSeconds as a \u escape.
const longestEscapedProperty = len("ttlSeconds") * len(`\u0000`)

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
// metadata, stream); elsewhere it is a value of the wrong type.
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
	var op engine.Op
	switch kind := jsonType(word); kind {
	case "sendToGroup":
		op = engine.OpSend
	case "event":
		op = engine.OpEvent
	case "joinGroup":
		op = engine.OpJoin
	case "leaveGroup":
		op = engine.OpLeave
	case "ping":
		return Inbound{Kind: InPing}, nil
	case "sequenceAck":
		seq, err := m.integer("sequenceId", m.sequenceID)
		if err != nil {
			return Inbound{}, err
		}
		return Inbound{Kind: InSequenceAck, Sequence: engine.SequenceID(seq)}, nil
	case "":
		return Inbound{}, malformed("unknown type %s", excerpt(word))
	default:
		return Inbound{}, malformed("type %s: this build does not have it", kind)
	}
	r := &engine.Request{Op: op, AckID: engine.AckID(ackID), HasAck: hasAck}
	if op == engine.OpEvent {
		err = m.readEvent(r)
	} else {
		err = m.readGroup(r)
	}
	if err == nil && op == engine.OpSend {
		err = m.readSendOptions(r)
	}
	if err == nil && (op == engine.OpSend || op == engine.OpEvent) {
		err = m.readContent(r)
	}
	if err != nil {
		return Inbound{}, err
	}
	return Inbound{Kind: InRequest, Request: r}, nil
}

// jsonTypes are the types of message that Azure's clients can write; those after
// sequenceAck are refused as ones that this build does not have.
var jsonTypes = [...]string{
	"sendToGroup", "event", "joinGroup", "leaveGroup", "ping", "sequenceAck",
	"invoke", "cancelInvocation", "streamData", "streamEnd",
	"setGroupState", "subscribeGroupState", "unsubscribeGroupState",
}

// jsonType returns the name in jsonTypes that word is, without regard to case,
// and "" for none.
func jsonType(word []byte) string {
	for _, name := range jsonTypes {
		if equalFold(word, name) {
			return name
		}
	}
	return ""
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

func (m *jsonMessage) readEvent(r *engine.Request) error {
	name, _, err := m.str("event", m.event)
	if err != nil {
		return err
	}
	if r.Event, err = engine.ParseEventName(string(name)); err != nil {
		return malformed("%v", err)
	}
	return nil
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

// readContent reads what a message carries: data of some type, metadata, or both.
func (m *jsonMessage) readContent(r *engine.Request) (err error) {
	if m.given(m.stream) {
		return malformed("stream: this build does not have it")
	}
	if r.Payload.Type, err = m.readDataType(); err != nil {
		return err
	}
	if m.given(m.metadata) {
		if r.Metadata, err = m.readMetadata(); err != nil {
			return err
		}
		if m.data.missing() {
			// Metadata may come alone, with whatever dataType: then it goes
			// with an empty text.
			r.Payload = engine.Payload{Type: engine.Text, Data: []byte{}}
			return nil
		}
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
	for _, t := range [...]engine.DataType{engine.JSON, engine.Text, engine.Binary} {
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
	v := m.metadata
	if m.text[v.from] != '{' {
		return nil, malformed("metadata: want an object, got %s", m.sort(v))
	}
	var pairs metadata
	s := scanner{p: m.text[:v.to], i: v.from + 1} // syntax is known to be right
	for first := true; ; first = false {
		at, more := s.member(first)
		if !more {
			return pairs.pairs, nil
		}
		key := m.inside(at)
		if at.escaped {
			key, _ = unquote(nil, key)
		}
		value, _ := s.value(1)
		text, _, err := m.str("metadata", value)
		if err != nil {
			return nil, err
		}
		if fault := pairs.add(key, text); fault != "" {
			return nil, malformed("metadata: %s", fault)
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
	raw := m.inside(v)
	if !v.escaped {
		return raw, false, nil
	}
	raw, lone = unquote(nil, raw)
	return raw, lone, nil
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
