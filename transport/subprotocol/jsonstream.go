package subprotocol

import (
	"strconv"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// readStreamStart reads a sendToGroup that begins a stream. It has no content of
// its own, so content is refused rather than dropped, and no ackId: the answer
// names the stream.
func (m *jsonMessage) readStreamStart(r *engine.Request) error {
	for _, p := range [...]struct {
		name    string
		present bool
	}{
		{"ackId", r.HasAck},
		{"data", !m.data.missing()},
		{"dataType", !m.dataType.missing()},
		{"metadata", m.given(m.metadata)},
		{"ttlSeconds", m.given(m.ttlSeconds)},
	} {
		if p.present {
			return malformed("%s: a message that begins a stream cannot have it", p.name)
		}
	}
	if err := m.object("stream", m.stream); err != nil {
		return err
	}
	var id, idle span
	for name, value := range m.members(m.stream) {
		switch key, _ := m.unquoted(name); string(key) {
		case "streamId":
			id = value
		case "idleTimeoutMs":
			idle = value
		}
	}
	r.Op = engine.OpStreamStart
	return m.readStreamOptions(r, id, idle)
}

func (m *jsonMessage) readStreamOptions(r *engine.Request, id, idle span) (err error) {
	r.Stream = &engine.StreamRequest{}
	if r.Stream.ID, err = m.id("stream.streamId", id, maxStreamID); err != nil {
		return err
	}
	if m.given(idle) {
		ms, err := m.integer("stream.idleTimeoutMs", idle)
		if err != nil {
			return err
		}
		if most := uint64(maxStreamIdle / time.Millisecond); ms == 0 || ms > most {
			return malformed("stream.idleTimeoutMs: %d is not from 1 to %d", ms, most)
		}
		r.Stream.Idle = time.Duration(ms) * time.Millisecond
	}
	return nil
}

// readStreamData reads a part of a stream, or, where there is nothing but the
// stream's name, a sign of life.
func (m *jsonMessage) readStreamData(r *engine.Request) (err error) {
	r.Stream = &engine.StreamRequest{}
	if r.Stream.ID, err = m.id("streamId", m.streamID, maxStreamID); err != nil {
		return err
	}
	switch numbered := m.given(m.streamSequenceID); {
	case !numbered && m.data.missing() && m.dataType.missing():
		return nil
	case !numbered:
		return malformed("streamSequenceId: missing, and there is data or dataType")
	case m.data.missing():
		return malformed("data: missing, and there is a streamSequenceId")
	}
	if r.Stream.Seq, err = m.integer("streamSequenceId", m.streamSequenceID); err != nil {
		return err
	}
	if r.Stream.Seq == 0 {
		return malformed("streamSequenceId: 0, and the first is 1")
	}
	if r.Payload.Type, err = m.readDataType(); err != nil {
		return err
	}
	return m.readPayload(r)
}

// readStreamEnd reads the end of a stream. The error's name is not the publisher's
// to choose.
func (m *jsonMessage) readStreamEnd(r *engine.Request) (err error) {
	r.Stream = &engine.StreamRequest{}
	if r.Stream.ID, err = m.id("streamId", m.streamID, maxStreamID); err != nil {
		return err
	}
	if !m.given(m.failure) {
		return nil
	}
	if err := m.object("error", m.failure); err != nil {
		return err
	}
	var message, code span
	for name, value := range m.members(m.failure) {
		switch key, _ := m.unquoted(name); string(key) {
		case "message":
			message = value
		case "userErrorCode":
			code = value
		}
	}
	r.Stream.Err = &engine.StreamError{Name: engine.StreamUserError}
	if r.Stream.Err.Message, err = m.words("error.message", message, maxStreamMessage); err != nil {
		return err
	}
	r.Stream.Err.UserCode, err = m.words("error.userErrorCode", code, maxStreamCode)
	return err
}

// appendStreamPart appends the member stream of a group message and the comma
// before it.
func appendStreamPart(dst []byte, s *engine.StreamPart) []byte {
	dst = appendString(append(dst, `,"stream":{"streamId":`...), s.ID)
	dst = strconv.AppendUint(append(dst, `,"streamSequenceId":`...), s.Seq, 10)
	if s.End {
		dst = append(dst, `,"endOfStream":true`...)
	}
	if s.Err != nil {
		dst = appendStreamError(dst, s.Err)
	}
	return append(dst, '}')
}

// appendStreamError appends the member error of a stream and the comma before it.
func appendStreamError(dst []byte, e *engine.StreamError) []byte {
	dst = appendString(append(dst, `,"error":{"name":`...), e.Name)
	dst = appendString(append(dst, `,"message":`...), e.Message)
	if e.UserCode != "" {
		dst = appendString(append(dst, `,"userErrorCode":`...), e.UserCode)
	}
	return append(dst, '}')
}

// appendStreamMembers appends what a publisher is told about its stream. A message
// that names none is not sent.
func appendStreamMembers(dst []byte, m *engine.Message) ([]byte, bool) {
	s := m.Stream
	if s == nil {
		return dst, false
	}
	switch m.Kind {
	case engine.KindStreamAck:
		dst = appendExpected(append(dst, `"type":"streamAck"`...), s)
	case engine.KindStreamNack:
		dst = appendExpected(append(dst, `"type":"streamNack"`...), s)
		if s.Err != nil {
			dst = appendString(append(dst, `,"name":`...), s.Err.Name)
			dst = appendString(append(dst, `,"message":`...), s.Err.Message)
		}
	case engine.KindStreamClosed:
		dst = appendString(append(dst, `"type":"streamClosed","streamId":`...), s.ID)
		if s.Err != nil {
			dst = appendStreamError(dst, s.Err)
		}
	}
	return dst, true
}

// appendExpected appends a stream's name and the number that it expects next, and
// the comma before them.
func appendExpected(dst []byte, s *engine.StreamPart) []byte {
	dst = appendString(append(dst, `,"streamId":`...), s.ID)
	return strconv.AppendUint(append(dst, `,"expectedSequenceId":`...), s.Seq, 10)
}
