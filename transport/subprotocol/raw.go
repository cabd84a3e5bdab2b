package subprotocol

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// RawMode says what a raw client's messages are for. It is fixed when the client
// connects.
type RawMode uint8

// The modes.
const (
	// SendEvent raises the user event "message" for each message.
	SendEvent RawMode = iota
	// SendToGroup publishes each message to one group.
	SendToGroup
)

// String returns the mode's word in the query string.
func (m RawMode) String() string {
	if m == SendToGroup {
		return "sendToGroup"
	}
	return "sendEvent"
}

const (
	// rawEvent is the event that a raw client's messages raise.
	rawEvent = "message"

	reasonNotUTF8 = "The client message is not valid UTF-8 text."
)

// Raw returns the codec of clients without a subprotocol, or with a custom one:
// a text frame is text, a binary frame is bytes, and there is no envelope. group
// and noEcho count in mode [SendToGroup] only. The sender's permission is not
// checked here. All raw connections share bytes, whatever their mode.
func Raw(mode RawMode, group engine.GroupName, noEcho bool) (Encoder, Decoder) {
	d := rawDecoder{mode: mode}
	if mode == SendToGroup {
		d.group, d.noEcho = group, noEcho
	}
	return rawEncoder{}, d
}

// ParseRawMode reads a raw client's mode from the query parameters
// webpubsub_mode, group and noEcho; its results are [Raw]'s arguments. Parameter
// names, modes and booleans compare without regard to case, and of a repeated
// parameter the last value counts. (Of several spellings of one name, whose order
// a map does not hold, it is the last in byte order.) An absent or empty mode is
// [SendEvent], which ignores the other two. An error is an *engine.Error with
// CodeInvalid that names the parameter.
func ParseRawMode(query map[string][]string) (mode RawMode, group engine.GroupName, noEcho bool, err error) {
	switch word, _ := lastValue(query, "webpubsub_mode"); {
	case word == "", equalFold(word, SendEvent.String()):
		return SendEvent, "", false, nil
	case !equalFold(word, SendToGroup.String()):
		return 0, "", false, invalidParameter("webpubsub_mode", word, "sendEvent or sendToGroup", nil)
	}
	name, ok := lastValue(query, "group")
	if !ok {
		return 0, "", false, &engine.Error{
			Code: engine.CodeInvalid, Rule: "raw.group", Target: "group",
			Message: "The query parameter group is missing: webpubsub_mode=sendToGroup needs the group to publish to.",
		}
	}
	if group, err = engine.ParseGroupName(name); err != nil {
		return 0, "", false, invalidParameter("group", name, "a valid group name", err)
	}
	switch word, ok := lastValue(query, "noEcho"); {
	case !ok, equalFold(word, "false"):
	case equalFold(word, "true"):
		noEcho = true
	default:
		return 0, "", false, invalidParameter("noEcho", word, "true or false", nil)
	}
	return SendToGroup, group, noEcho, nil
}

func lastValue(query map[string][]string, name string) (value string, ok bool) {
	var best string
	for key, values := range query {
		if len(values) > 0 && equalFold(key, name) && (!ok || key > best) {
			best, value, ok = key, values[len(values)-1], true
		}
	}
	return value, ok
}

func invalidParameter(name, got, want string, cause error) *engine.Error {
	return &engine.Error{
		Code: engine.CodeInvalid, Rule: "raw." + name, Target: name, Err: cause,
		Message: fmt.Sprintf("The query parameter %s is %s: expected %s.", name, excerpt(got), want),
	}
}

// excerpt quotes at most 64 bytes of a stranger's name, so that an error about a
// long one stays short.
func excerpt[S ~string | ~[]byte](s S) string {
	if len(s) > 64 {
		return fmt.Sprintf("%q... (%d bytes)", string(s[:64]), len(s))
	}
	return fmt.Sprintf("%q", string(s))
}

type rawEncoder struct{}

var _ Encoder = rawEncoder{}

func (rawEncoder) Name() string { return "" }

func (rawEncoder) Frame(m *engine.Message) Frame {
	if m.Payload.Type == engine.Text || m.Payload.Type == engine.JSON {
		return TextFrame
	}
	return BinaryFrame
}

// AppendBody sends payloads alone: a raw client is told nothing else in words.
func (e rawEncoder) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	if m.Kind != engine.KindData || m.Stream != nil && m.Stream.End && len(m.Payload.Data) == 0 {
		return dst, false // a stream's end has no words here either
	}
	if e.Frame(m) == TextFrame {
		return appendUTF8(dst, m.Payload.Data), true
	}
	return append(dst, m.Payload.Data...), true
}

func (rawEncoder) AppendOwn(dst []byte, _ *engine.Message, _ engine.Own) []byte { return dst }

func (rawEncoder) Own() bool { return false }

// appendUTF8 appends p with what is not UTF-8 in it replaced by U+FFFD. A text
// frame that is not UTF-8 would cost every receiver its connection (RFC 6455
// section 8.1), for the mistake of one server that sent it.
func appendUTF8(dst, p []byte) []byte {
	if !utf8.Valid(p) {
		p = bytes.ToValidUTF8(p, []byte("\uFFFD"))
	}
	return append(dst, p...)
}

type rawDecoder struct {
	mode   RawMode
	group  engine.GroupName
	noEcho bool
}

var _ Decoder = rawDecoder{}

func (d rawDecoder) Decode(f Frame, p []byte) (Inbound, error) {
	payload := engine.Payload{Type: engine.Binary}
	if f == TextFrame {
		if !utf8.Valid(p) {
			return Inbound{}, &RefusedError{
				Code: engine.CloseInvalidData, Reason: reasonNotUTF8,
				Detail: "raw: a text frame holds bytes that are not UTF-8",
			}
		}
		payload.Type = engine.Text
	}
	payload.Data = clone(p)
	r := &engine.Request{Op: engine.OpEvent, Event: rawEvent, Payload: payload}
	if d.mode == SendToGroup {
		r.Op, r.Event, r.Group, r.NoEcho = engine.OpSend, "", d.group, d.noEcho
	}
	return Inbound{Kind: InRequest, Request: r}, nil
}

// clone copies p. Unlike slices.Clone it does so for an empty p as well, which
// would otherwise go on pointing into the door's buffer.
func clone(p []byte) []byte {
	c := make([]byte, len(p))
	copy(c, p)
	return c
}
