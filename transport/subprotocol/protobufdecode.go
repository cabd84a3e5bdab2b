package subprotocol

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fanfare/fanfare/engine"
)

const (
	reasonMalformedProtobuf = "The client message is not a valid protobuf protocol message."
	reasonProtobufFrame     = "The protobuf subprotocol requires binary messages."
)

// protobufDecoder reads UpstreamMessages by hand, so that an Any stays the bytes
// that its author sent and nothing is made that a request does not need. Both
// protobuf protocols have the same; they differ in what the server sends.
//
// It takes no more than the generated type does and gives it the same meaning
// (FuzzProtobufDecode), and it is stricter where readers disagree: a message inside
// a message comes once, of a oneof one case is set, a known field has its own wire
// type, and there are no groups, which proto3 lacks. Of a repeated number or string
// the last one counts; unknown fields are skipped.
type protobufDecoder struct{}

var _ Decoder = protobufDecoder{}

func (protobufDecoder) Decode(f Frame, p []byte) (Inbound, error) {
	if f != BinaryFrame {
		return Inbound{}, &RefusedError{
			Code: engine.CloseUnsupported, Reason: reasonProtobufFrame,
			Detail: "protobuf: the message came in a text frame",
		}
	}
	var m upstreamMessage
	if err := m.find(p); err != nil {
		return Inbound{}, err
	}
	if err := m.scan(); err != nil {
		return Inbound{}, err
	}
	return m.inbound()
}

func malformedProtobuf(format string, args ...any) error {
	return &RefusedError{
		Code: engine.CloseInvalidData, Reason: reasonMalformedProtobuf,
		Detail: "protobuf: " + fmt.Sprintf(format, args...),
	}
}

// fields reads the fields of one message, in place. It stops at the first fault
// and leaves it in err.
type fields struct {
	path  [3]string // names of messages, the outermost first, for faults
	depth int       // how many of them there are
	rest  []byte
	err   error

	// The field that next found. value is a varint's, bytes that of a string, of
	// bytes and of a message.
	num   protowire.Number
	typ   protowire.Type
	value uint64
	bytes []byte
}

// fieldsOf returns the fields of the message p, a name for which is name.
func fieldsOf(name string, p []byte) fields {
	return fields{path: [3]string{name}, depth: 1, rest: p}
}

// inside returns the fields of the message p that is f's field of that name.
func (f *fields) inside(name string, p []byte) fields {
	in := fields{path: f.path, depth: f.depth + 1, rest: p}
	in.path[f.depth] = name
	return in
}

// where names the message.
func (f *fields) where() string { return strings.Join(f.path[:f.depth], ".") }

func (f *fields) next() bool {
	if f.err != nil || len(f.rest) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(f.rest)
	if n < 0 || num > protowire.MaxValidNumber {
		f.err = malformedProtobuf("%s: what should be a field's tag is none", f.where())
		return false
	}
	f.num, f.typ, f.rest = num, typ, f.rest[n:]
	switch typ {
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(f.rest)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(f.rest)
	case protowire.Fixed32Type:
		_, n = protowire.ConsumeFixed32(f.rest)
	case protowire.Fixed64Type:
		_, n = protowire.ConsumeFixed64(f.rest)
	default:
		f.err = malformedProtobuf("%s: field %d is a group, or has a reserved wire type", f.where(), num)
		return false
	}
	if n < 0 {
		f.err = malformedProtobuf("%s: field %d is cut short, or a number of more than 64 bits", f.where(), num)
		return false
	}
	f.rest = f.rest[n:]
	return true
}

// fail notes the first fault, at the named field.
func (f *fields) fail(name, format string, args ...any) {
	if f.err == nil {
		f.err = malformedProtobuf("%s.%s: %s", f.where(), name, fmt.Sprintf(format, args...))
	}
}

// is reports whether the field has the wire type of what it should be.
func (f *fields) is(typ protowire.Type, name, want string) bool {
	if f.typ != typ {
		f.fail(name, "want %s, got wire type %d", want, f.typ)
	}
	return f.typ == typ
}

func (f *fields) text(name string) []byte {
	if f.is(protowire.BytesType, name, "a string") && !utf8.Valid(f.bytes) {
		f.fail(name, "holds bytes that are not UTF-8")
	}
	return f.bytes
}

// words returns a text of at most most bytes.
func (f *fields) words(name string, most int) string {
	s := f.text(name)
	if len(s) > most {
		f.fail(name, "%d bytes are over %d", len(s), most)
		return ""
	}
	return string(s)
}

func (f *fields) integer(name string) uint64 {
	f.is(protowire.VarintType, name, "a varint")
	return f.value
}

// once returns the bytes of a message, of which there was one before if again.
func (f *fields) once(name string, again bool) []byte {
	if f.is(protowire.BytesType, name, "a message") && again {
		f.fail(name, "comes twice")
	}
	return f.bytes
}

// upstreamField is a field of any message that an UpstreamMessage can hold.
type upstreamField uint8

const (
	fieldUnknown upstreamField = iota
	fieldGroup
	fieldEvent
	fieldInvocation
	fieldStreamID
	fieldAckID
	fieldNoEcho
	fieldTTL
	fieldSequence
	fieldStreamSeq
	fieldData
	fieldStream
	fieldError
	fieldState
	fieldMetadata
	upstreamFields
)

var upstreamFieldNames = [upstreamFields]string{
	fieldGroup: "group", fieldEvent: "event", fieldInvocation: "invocation_id", fieldStreamID: "stream_id",
	fieldAckID: "ack_id", fieldNoEcho: "no_echo", fieldTTL: "ttl_seconds",
	fieldSequence: "sequence_id", fieldStreamSeq: "stream_sequence_id",
	fieldData: "data", fieldStream: "stream", fieldError: "error", fieldState: "state",
	fieldMetadata: "metadata",
}

// upstreamKind is one case of UpstreamMessage: what it asks for, and its fields by
// their numbers.
type upstreamKind struct {
	name   string
	in     InboundKind
	op     engine.Op
	fields [8]upstreamField
}

// upstreamKinds are the cases of UpstreamMessage by their numbers. 2, 3, 4 and 12
// are not in use.
var upstreamKinds = [...]upstreamKind{
	1: {"SendToGroup", InRequest, engine.OpSend, [8]upstreamField{
		1: fieldGroup, 2: fieldAckID, 3: fieldData, 4: fieldNoEcho, 5: fieldTTL, 6: fieldMetadata, 7: fieldStream,
	}},
	5:  {"Event", InRequest, engine.OpEvent, [8]upstreamField{1: fieldEvent, 2: fieldData, 3: fieldAckID, 4: fieldMetadata, 5: fieldStream}},
	6:  {"JoinGroup", InRequest, engine.OpJoin, [8]upstreamField{1: fieldGroup, 2: fieldAckID}},
	7:  {"LeaveGroup", InRequest, engine.OpLeave, [8]upstreamField{1: fieldGroup, 2: fieldAckID}},
	8:  {"SequenceAck", InSequenceAck, 0, [8]upstreamField{1: fieldSequence}},
	9:  {"Ping", InPing, 0, [8]upstreamField{}},
	10: {"InvokeEvent", InRequest, engine.OpEvent, [8]upstreamField{1: fieldEvent, 2: fieldInvocation, 3: fieldData, 4: fieldMetadata, 5: fieldStream}},
	11: {"CancelInvocation", InCancel, 0, [8]upstreamField{1: fieldInvocation}},
	13: {"StreamData", InRequest, engine.OpStreamData, [8]upstreamField{1: fieldStreamID, 2: fieldStreamSeq, 3: fieldData}},
	14: {"StreamEnd", InRequest, engine.OpStreamEnd, [8]upstreamField{1: fieldStreamID, 2: fieldError}},
	15: {"SetGroupState", InRequest, engine.OpSetState, [8]upstreamField{1: fieldGroup, 2: fieldAckID, 3: fieldState}},
	16: {"SubscribeGroupState", InRequest, engine.OpWatchState, [8]upstreamField{1: fieldGroup, 2: fieldAckID}},
	17: {"UnsubscribeGroupState", InRequest, engine.OpUnwatchState, [8]upstreamField{1: fieldGroup, 2: fieldAckID}},
}

// invokeEvent is the number of the one case of OpEvent that names an invocation.
const invokeEvent = 10

// upstreamMessage is the one message that an UpstreamMessage holds, and where its
// fields stand.
type upstreamMessage struct {
	fields
	kind *upstreamKind

	has      [upstreamFields]bool
	at       [upstreamFields][]byte // strings and messages
	number   [upstreamFields]uint64
	metadata metadata
}

// find finds the message in p.
func (m *upstreamMessage) find(p []byte) error {
	f := fieldsOf("UpstreamMessage", p)
	for f.next() {
		if int(f.num) >= len(upstreamKinds) || upstreamKinds[f.num].name == "" {
			continue
		}
		again := m.kind != nil
		m.kind = &upstreamKinds[f.num]
		m.fields = fieldsOf(m.kind.name, f.bytes)
		if f.is(protowire.BytesType, m.kind.name, "a message") && again {
			f.fail(m.kind.name, "there was a message before, and only one may be set")
		}
	}
	if f.err == nil && m.kind == nil {
		return malformedProtobuf("UpstreamMessage: no message is set, or none that this build has")
	}
	return f.err
}

// scan reads the message's fields and notes them.
func (m *upstreamMessage) scan() error {
	for m.next() {
		k := fieldUnknown
		if int(m.num) < len(m.kind.fields) {
			k = m.kind.fields[m.num]
		}
		switch name := upstreamFieldNames[k]; k {
		case fieldUnknown:
		case fieldGroup, fieldEvent, fieldInvocation, fieldStreamID:
			m.at[k] = m.text(name)
		case fieldMetadata:
			key, value := m.pair(name)
			if m.err == nil {
				if fault := m.metadata.add(key, value); fault != "" {
					m.fail(name, "%s", fault)
				}
			}
		case fieldData, fieldStream, fieldError, fieldState:
			m.at[k] = m.once(name, m.has[k])
		default:
			m.number[k] = m.integer(name)
		}
		m.has[k] = true
	}
	return m.err
}

// pair reads the field as an entry of a map. What is missing in it is "".
func (f *fields) pair(name string) (key, value []byte) {
	if !f.is(protowire.BytesType, name, "a map's entry") {
		return nil, nil
	}
	entry := f.inside(name, f.bytes)
	for entry.next() {
		switch entry.num {
		case 1:
			key = entry.text("key")
		case 2:
			value = entry.text("value")
		}
	}
	f.err = entry.err
	return key, value
}

func (m *upstreamMessage) inbound() (Inbound, error) {
	in := Inbound{Kind: m.kind.in}
	switch in.Kind {
	case InSequenceAck:
		in.Sequence = engine.SequenceID(m.number[fieldSequence])
	case InCancel:
		in.Invocation = m.id(fieldInvocation, maxInvocationID)
	case InRequest:
		in.Request = &engine.Request{Op: m.kind.op, AckID: engine.AckID(m.number[fieldAckID]), HasAck: m.has[fieldAckID]}
		m.read(in.Request)
		if m.kind == &upstreamKinds[invokeEvent] {
			in.Invocation = m.id(fieldInvocation, maxInvocationID)
		}
	}
	if m.err != nil {
		return Inbound{}, m.err
	}
	return in, nil
}

// read reads into r what counts for its operation.
func (m *upstreamMessage) read(r *engine.Request) {
	switch r.Op {
	case engine.OpEvent:
		r.Event = m.readEvent()
		if m.has[fieldStream] {
			m.fail("stream", "streams go to groups only")
		}
		m.readContent(r)
	case engine.OpSend:
		r.Group = m.readGroup()
		m.readSendOptions(r)
		if m.has[fieldStream] {
			m.readStreamStart(r)
		} else {
			m.readContent(r)
		}
	case engine.OpStreamData:
		r.Stream = &engine.StreamRequest{ID: m.id(fieldStreamID, maxStreamID), Seq: m.number[fieldStreamSeq]}
		m.readStreamData(r)
	case engine.OpStreamEnd:
		r.Stream = &engine.StreamRequest{ID: m.id(fieldStreamID, maxStreamID)}
		if m.has[fieldError] {
			r.Stream.Err = m.readError()
		}
	case engine.OpSetState:
		r.Group = m.readGroup()
		if m.has[fieldState] {
			r.State = m.readState()
		}
	default:
		r.Group = m.readGroup()
	}
}

func (m *upstreamMessage) readGroup() engine.GroupName {
	name, err := engine.ParseGroupName(string(m.at[fieldGroup]))
	if err != nil {
		m.fail("group", "%v", err)
	}
	return name
}

func (m *upstreamMessage) readEvent() engine.EventName {
	name, err := engine.ParseEventName(string(m.at[fieldEvent]))
	if err != nil {
		m.fail("event", "%v", err)
	}
	return name
}

// id returns a client's own name for a stream or an invocation.
func (m *upstreamMessage) id(k upstreamField, most int) string {
	id := m.at[k]
	if len(id) == 0 || len(id) > most {
		m.fail(upstreamFieldNames[k], "want 1 to %d bytes, got %d", most, len(id))
	}
	return string(id)
}

func (m *upstreamMessage) readSendOptions(r *engine.Request) {
	r.NoEcho = protowire.DecodeBool(m.number[fieldNoEcho])
	ttl := m.number[fieldTTL]
	if ttl > maxTTLSeconds {
		m.fail("ttl_seconds", "%d is over %d", ttl, maxTTLSeconds)
	}
	r.TTL = time.Duration(ttl) * time.Second
}

// readContent reads what a message carries: data, metadata, or both. An invocation
// may go without either.
func (m *upstreamMessage) readContent(r *engine.Request) {
	r.Metadata = m.metadata.pairs
	switch {
	case m.has[fieldData]:
		r.Payload = m.readPayload()
	case m.has[fieldMetadata], m.kind == &upstreamKinds[invokeEvent]:
		r.Payload = engine.Payload{Type: engine.Text, Data: []byte{}}
	default:
		m.fail("data", "missing, and there is no metadata")
	}
}

// readPayload reads the MessageData. json_data is held to one JSON text, as deep as
// one in a JSON client's message: that is where other clients receive it, and
// what is none would spoil the message around it.
func (m *upstreamMessage) readPayload() engine.Payload {
	f := m.inside("data", m.at[fieldData])
	p := engine.Payload{}
	set := 0
	for f.next() {
		switch f.num {
		case 1:
			p = engine.Payload{Type: engine.Text, Data: f.text("text_data")}
		case 2:
			f.is(protowire.BytesType, "binary_data", "bytes")
			p = engine.Payload{Type: engine.Binary, Data: f.bytes}
		case 3:
			f.is(protowire.BytesType, "protobuf_data", "bytes")
			p = engine.Payload{Type: engine.Protobuf, Data: f.bytes}
			if f.err == nil {
				f.err = checkAny(f.inside("protobuf_data", p.Data))
			}
		case 4:
			p = engine.Payload{Type: engine.JSON, Data: f.text("json_data")}
			s := scanner{p: p.Data}
			if f.err != nil {
				break
			}
			if _, ok := s.value(1); !ok || !s.end() {
				f.fail("json_data", "%s, at byte %d of %d", s.fault, s.i, len(s.p))
			}
		default:
			continue
		}
		if set++; set > 1 {
			f.fail("data", "more than one case is set")
		}
	}
	if set == 0 && f.err == nil {
		f.err = malformedProtobuf("%s: none of text_data, binary_data, protobuf_data and json_data is set", f.where())
	}
	if m.err == nil {
		m.err = f.err
	}
	p.Data = clone(p.Data)
	return p
}

// checkAny says what keeps a message from being a google.protobuf.Any, nil if
// nothing does.
func checkAny(f fields) error {
	for f.next() {
		switch f.num {
		case 1:
			f.text("type_url")
		case 2:
			f.is(protowire.BytesType, "value", "bytes")
		}
	}
	return f.err
}

// readStreamStart makes r the start of a stream.
func (m *upstreamMessage) readStreamStart(r *engine.Request) {
	for _, k := range [...]upstreamField{fieldData, fieldAckID, fieldMetadata, fieldTTL} {
		if m.has[k] {
			m.fail(upstreamFieldNames[k], "a message that starts a stream has none")
		}
	}
	f := m.inside("stream", m.at[fieldStream])
	idle, hasIdle := uint64(0), false
	for f.next() {
		switch f.num {
		case 1:
			m.at[fieldStreamID] = f.text("stream_id")
		case 2:
			idle, hasIdle = f.integer("idle_timeout_ms"), true
		}
	}
	if most := uint64(maxStreamIdle / time.Millisecond); hasIdle && (idle == 0 || idle > most) {
		f.fail("idle_timeout_ms", "want 1 to %d, got %d", most, idle)
	}
	if m.err == nil {
		m.err = f.err
	}
	r.Op = engine.OpStreamStart
	r.Stream = &engine.StreamRequest{ID: m.id(fieldStreamID, maxStreamID), Idle: time.Duration(idle) * time.Millisecond}
}

// readStreamData reads a part of a stream: a number and data, or neither, which
// keeps the stream alive.
func (m *upstreamMessage) readStreamData(r *engine.Request) {
	switch numbered, data := m.has[fieldStreamSeq], m.has[fieldData]; {
	case !numbered && !data:
	case !numbered:
		m.fail("stream_sequence_id", "missing, and there is data")
	case !data:
		m.fail("data", "missing, and there is a stream_sequence_id")
	case r.Stream.Seq == 0:
		m.fail("stream_sequence_id", "0, and the first is 1")
	default:
		r.Payload = m.readPayload()
	}
}

func (m *upstreamMessage) readError() *engine.StreamError {
	f := m.inside("error", m.at[fieldError])
	e := &engine.StreamError{Name: engine.StreamUserError} // the name is not the publisher's to choose
	for f.next() {
		switch f.num {
		case 1:
			e.Message = f.words("message", maxStreamMessage)
		case 2:
			e.UserCode = f.words("user_error_code", maxStreamCode)
		}
	}
	if m.err == nil {
		m.err = f.err
	}
	return e
}

// readState reads a connection's state in a group. One without entries is a state,
// too; of a repeated key the last value counts.
func (m *upstreamMessage) readState() map[string]string {
	f := m.inside("state", m.at[fieldState])
	state := make(map[string]string)
	total := 0
	for f.next() {
		if f.num != 1 {
			continue
		}
		key, value := f.pair("entries")
		if total += len(key) + len(value); total > maxState {
			f.fail("entries", "more than %d bytes of keys and values", maxState)
		}
		if f.err == nil {
			state[string(key)] = string(value)
		}
	}
	if m.err == nil {
		m.err = f.err
	}
	return state
}
