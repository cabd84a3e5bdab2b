package client

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// jsonCodec is that of json.webpubsub.azure.v1 and of its reliable twin.
type jsonCodec struct{}

func (jsonCodec) op() ws.OpCode { return ws.OpText }

// jsonFrame is any frame of the server, as Azure's "JSON WebSocket subprotocol"
// reference lists them. Members that a type lacks stay zero.
type jsonFrame struct {
	Type    string `json:"type"`
	Event   string `json:"event"`
	Message string `json:"message"`
	Name    string `json:"name"`

	ConnectionID      string `json:"connectionId"`
	UserID            string `json:"userId"`
	ReconnectionToken string `json:"reconnectionToken"`

	Group      string            `json:"group"`
	FromUserID string            `json:"fromUserId"`
	DataType   string            `json:"dataType"`
	Data       json.RawMessage   `json:"data"`
	Metadata   map[string]string `json:"metadata"`
	SequenceID uint64            `json:"sequenceId"`
	Stream     *jsonStreamPart   `json:"stream"`

	AckID        *uint64    `json:"ackId"`
	InvocationID string     `json:"invocationId"`
	Success      *bool      `json:"success"`
	Error        *jsonError `json:"error"`

	StreamID           string `json:"streamId"`
	ExpectedSequenceID uint64 `json:"expectedSequenceId"`

	Items []jsonState `json:"items"`
}

type jsonError struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	// UserErrorCode is the publisher's own, of a stream.
	UserErrorCode string `json:"userErrorCode"`
}

type jsonStreamPart struct {
	StreamID         string     `json:"streamId"`
	StreamSequenceID uint64     `json:"streamSequenceId"`
	EndOfStream      bool       `json:"endOfStream"`
	Error            *jsonError `json:"error"`
}

type jsonState struct {
	ConnectionID string            `json:"connectionId"`
	UserID       string            `json:"userId"`
	State        map[string]string `json:"state"`
	UpdatedAt    int64             `json:"updatedAt"`
}

func (jsonCodec) decode(p []byte) (*frame, error) {
	var j jsonFrame
	err := json.Unmarshal(p, &j)
	if err != nil {
		return nil, fmt.Errorf("read the server's frame: %w", err)
	}
	f := &frame{seq: j.SequenceID}
	switch j.Type {
	case "ack":
		if j.AckID == nil {
			return nil, errors.New("read the server's frame: an ack without ackId")
		}
		f.word, f.ackID = wordAck, *j.AckID
		if j.Success == nil || !*j.Success {
			f.fail = j.Error.failure()
		}
	case "message":
		f.word = wordMessage
		f.event, err = j.message()
	case "pong":
		f.word = wordPong
	case "system":
		switch j.Event {
		case "connected":
			f.word, f.token = wordConnected, j.ReconnectionToken
			f.hello = Connected{ConnectionID: j.ConnectionID, UserID: j.UserID}
		case "disconnected":
			f.word, f.text = wordDisconnected, j.Message
		}
	case "invokeResponse":
		f.word, f.id = wordInvokeResponse, j.InvocationID
		switch {
		case j.Success == nil:
			return nil, errors.New("read the server's frame: an invokeResponse without success")
		case !*j.Success:
			f.fail = j.Error.failure()
		case j.DataType != "":
			f.data, err = j.payload()
		}
	case "streamAck":
		f.word, f.id, f.next = wordStreamAck, j.StreamID, j.ExpectedSequenceID
	case "streamNack":
		f.word, f.id, f.next = wordStreamNack, j.StreamID, j.ExpectedSequenceID
		f.fail = &failure{j.Name, j.Message}
	case "streamClosed":
		f.word, f.id = wordStreamClosed, j.StreamID
		if j.Error != nil {
			f.fail = j.Error.failure()
		}
	case "groupStateSnapshot", "groupStateUpdate":
		f.word, f.event = wordState, GroupState{Group: j.Group, Snapshot: j.Type == "groupStateSnapshot", States: j.states()}
	}
	return f, err
}

func (e *jsonError) failure() *failure {
	if e == nil {
		return &failure{}
	}
	return &failure{e.Name, e.Message}
}

func (j *jsonFrame) message() (Message, error) {
	m := Message{Group: j.Group, FromUserID: j.FromUserID, Metadata: j.Metadata}
	if s := j.Stream; s != nil {
		m.Stream = &engine.StreamPart{ID: s.StreamID, Seq: s.StreamSequenceID, End: s.EndOfStream}
		if e := s.Error; e != nil {
			m.Stream.Err = &engine.StreamError{Name: e.Name, Message: e.Message, UserCode: e.UserErrorCode}
		}
		if s.EndOfStream && len(j.Data) == 0 {
			m.Payload.Data = []byte{} // the last part may have none
			return m, nil
		}
	}
	var err error
	m.Payload, err = j.payload()
	return m, err
}

// payload returns the content of a frame.
func (j *jsonFrame) payload() (engine.Payload, error) {
	switch j.DataType {
	case "json":
		if len(j.Data) == 0 {
			return engine.Payload{}, errors.New("read the server's frame: dataType json without data")
		}
		return engine.Payload{Type: engine.JSON, Data: j.Data}, nil
	case "text", "binary", "protobuf":
		var s string
		if err := json.Unmarshal(j.Data, &s); err != nil {
			return engine.Payload{}, fmt.Errorf("read the data of a %s message: %w", j.DataType, err)
		}
		if j.DataType == "text" {
			return engine.Payload{Type: engine.Text, Data: []byte(s)}, nil
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return engine.Payload{}, fmt.Errorf("read the data of a %s message: %w", j.DataType, err)
		}
		if j.DataType == "binary" {
			return engine.Payload{Type: engine.Binary, Data: b}, nil
		}
		return engine.Payload{Type: engine.Protobuf, Data: b}, nil
	}
	return engine.Payload{}, fmt.Errorf("read a message: dataType %.32q is not json, text, binary or protobuf", j.DataType)
}

func (j *jsonFrame) states() []engine.GroupState {
	states := make([]engine.GroupState, len(j.Items))
	for i, s := range j.Items {
		states[i] = engine.GroupState{
			ConnID: engine.ConnID(s.ConnectionID), UserID: engine.UserID(s.UserID),
			State: s.State, UpdatedAt: time.UnixMilli(s.UpdatedAt),
		}
	}
	return states
}

// jsonWriter appends the members of one object. The first error stays.
type jsonWriter struct {
	b   []byte
	err error
}

// encode returns r as JSON. JSON data is copied as it is spelled, which
// encoding/json would not do.
func (jsonCodec) encode(r *request) ([]byte, error) {
	kind := r.verb
	if kind == verbStreamStart {
		kind = verbSend
	}
	w := &jsonWriter{b: append([]byte(`{"type":"`), kind...)}
	w.b = append(w.b, '"')
	switch r.verb {
	case verbJoin, verbLeave, verbSend, verbSetState, verbWatchState, verbUnwatchState:
		w.str("group", r.name)
	case verbEvent:
		w.str("event", r.name)
	case verbInvoke:
		w.str("invocationId", r.id)
		w.b = append(w.b, `,"target":"event"`...)
		w.str("event", r.name)
	case verbCancel:
		w.str("invocationId", r.id)
	case verbStreamStart:
		w.str("group", r.name)
		w.streamStart(r)
	case verbStreamData:
		w.str("streamId", r.id)
		if r.payload != nil {
			w.num("streamSequenceId", r.seq)
		}
	case verbStreamEnd:
		w.str("streamId", r.id)
		if r.fail != nil {
			w.value("error", struct {
				Message string `json:"message,omitempty"`
				Code    string `json:"userErrorCode,omitempty"`
			}{r.fail.Message, r.fail.UserCode})
		}
	case verbSequenceAck:
		w.num("sequenceId", r.seq)
	case verbPing:
	}
	if r.ackID > 0 {
		w.num("ackId", r.ackID)
	}
	if r.noEcho {
		w.b = append(w.b, `,"noEcho":true`...)
	}
	if r.ttl < 0 || r.ttl > maxTTL {
		w.fail(fmt.Errorf("TTL %v is not between 0 and %v", r.ttl, maxTTL))
	}
	if r.ttl > 0 {
		w.num("ttlSeconds", uint64((r.ttl+time.Second-1)/time.Second))
	}
	if r.state != nil {
		w.value("state", r.state)
	}
	if r.payload != nil {
		w.payload(r.payload)
	}
	if len(r.metadata) > 0 {
		w.value("metadata", r.metadata)
	}
	if w.err != nil {
		return nil, fmt.Errorf("client: %s: %w", r.verb, w.err)
	}
	return append(w.b, '}'), nil
}

func (w *jsonWriter) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *jsonWriter) member(name string) {
	w.b = append(w.b, `,"`...)
	w.b = append(w.b, name...)
	w.b = append(w.b, `":`...)
}

func (w *jsonWriter) num(name string, n uint64) {
	w.member(name)
	w.b = strconv.AppendUint(w.b, n, 10)
}

func (w *jsonWriter) str(name, s string) {
	if !utf8.ValidString(s) {
		w.fail(fmt.Errorf("the %s is not valid UTF-8", name))
		return
	}
	w.value(name, s)
}

func (w *jsonWriter) value(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		w.fail(err)
		return
	}
	w.member(name)
	w.b = append(w.b, b...)
}

func (w *jsonWriter) streamStart(r *request) {
	w.value("stream", struct {
		ID   string `json:"streamId"`
		Idle int64  `json:"idleTimeoutMs,omitempty"`
	}{r.id, r.idle.Milliseconds()})
}

func (w *jsonWriter) payload(p *engine.Payload) {
	switch p.Type {
	case engine.JSON, engine.Text, engine.Binary, engine.Protobuf:
	default:
		w.fail(fmt.Errorf("data type %d is unknown", p.Type))
		return
	}
	w.b = append(w.b, `,"dataType":"`...)
	w.b = append(w.b, p.Type.String()...)
	w.b = append(w.b, '"')
	switch p.Type {
	case engine.JSON:
		if !json.Valid(p.Data) {
			w.fail(errors.New("the data is not one JSON text"))
			return
		}
		w.member("data")
		w.b = append(w.b, p.Data...)
	case engine.Text:
		w.str("data", string(p.Data))
	default:
		w.member("data")
		w.b = append(w.b, '"')
		w.b = base64.StdEncoding.AppendEncode(w.b, p.Data)
		w.b = append(w.b, '"')
	}
}
