package subprotocol_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// The golden conversations in testdata hold byte for byte; testdata/json.txt says
// how to read them.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 6 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(file), func(t *testing.T) { playTranscript(t, string(text)) })
	}
}

func playTranscript(t *testing.T, text string) {
	var p player
	steps := 0
	for n, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		if word == "==" {
			p.in, p.out = nil, nil
			continue
		}
		if err := p.step(word, rest); err != nil {
			t.Errorf("line %d: %s\n%v", n+1, line, err)
		}
		steps++
	}
	if steps < 5 || p.in != nil || p.out != nil {
		t.Errorf("%d steps, and the last one is not answered: %v, %v", steps, p.in != nil, p.out != nil)
	}
}

// player carries out a transcript, a line at a time.
type player struct {
	enc subprotocol.Encoder
	dec subprotocol.Decoder
	in  *string // what the client sent came to mean
	out *string // what the client got
}

func (p *player) step(word, rest string) error {
	switch word {
	case "protocol":
		if known, ok := subprotocol.Find(rest); ok {
			p.enc, p.dec = known.Encoder, known.Decoder
			return nil
		}
		query, err := url.ParseQuery(rest)
		if err != nil {
			return err
		}
		mode, group, noEcho, err := subprotocol.ParseRawMode(query)
		p.enc, p.dec = subprotocol.Raw(mode, group, noEcho)
		return err
	case ">":
		frame, body, err := parseFrame(rest)
		if err != nil {
			return err
		}
		in, err := p.dec.Decode(frame, body)
		p.in = new(meaning(in, err))
		return nil
	case "=":
		if strings.HasPrefix(rest, "{") {
			var r requestLine
			if err := strictJSON(rest, &r); err != nil {
				return err
			}
			rest = r.String()
		}
		return compare(&p.in, rest)
	case "!":
		var l messageLine
		if err := strictJSON(rest, &l); err != nil {
			return err
		}
		m, err := l.message()
		if err != nil {
			return err
		}
		body, ok := p.enc.AppendBody(nil, m)
		whole := append(p.enc.AppendOwn(nil, m, engine.Own{Seq: l.SequenceID}), body...)
		p.out = new(frameLine(p.enc.Frame(m), whole, ok))
		return nil
	case "<":
		return compare(&p.out, rest)
	}
	return fmt.Errorf("no such step %q", word)
}

func compare(got **string, wish string) error {
	if *got == nil {
		return errors.New("nothing was sent before")
	}
	if **got != wish {
		return fmt.Errorf("got  %s\nwish %s", **got, wish)
	}
	*got = nil
	return nil
}

func strictJSON(text string, v any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func parseFrame(line string) (subprotocol.Frame, []byte, error) {
	form, body, _ := strings.Cut(line, " ")
	switch form {
	case "text":
		return subprotocol.TextFrame, []byte(body), nil
	case "hex":
		b, err := hex.DecodeString(body)
		return subprotocol.BinaryFrame, b, err
	}
	return 0, nil, fmt.Errorf("no such frame %q", form)
}

func frameLine(f subprotocol.Frame, body []byte, sent bool) string {
	switch {
	case !sent:
		return "nothing"
	case f == subprotocol.TextFrame:
		return "text " + string(body)
	}
	return "hex " + hex.EncodeToString(body)
}

func meaning(in subprotocol.Inbound, err error) string {
	var refused *subprotocol.RefusedError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("refused %d %s", refused.Code, refused.Reason)
	case err != nil:
		return err.Error()
	case in.Kind == subprotocol.InPing:
		return "ping"
	case in.Kind == subprotocol.InSequenceAck:
		return fmt.Sprintf("sequenceAck %d", in.Sequence)
	case in.Kind == subprotocol.InCancel:
		return "cancel " + in.Invocation
	}
	l := lineOf(in.Request)
	l.Invocation = in.Invocation
	return l.String()
}

// requestLine is an engine.Request as a transcript writes it.
type requestLine struct {
	Op         string            `json:"op"`
	Group      engine.GroupName  `json:"group,omitempty"`
	Event      engine.EventName  `json:"event,omitempty"`
	AckID      *engine.AckID     `json:"ackId,omitempty"`
	NoEcho     bool              `json:"noEcho,omitempty"`
	DataType   string            `json:"dataType,omitempty"`
	Data       *string           `json:"data,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	TTLSeconds int               `json:"ttlSeconds,omitempty"`
	Invocation string            `json:"invocationId,omitempty"`
	Stream     *streamLine       `json:"stream,omitempty"`
	State      map[string]string `json:"state,omitempty"`
}

// streamLine is an engine.StreamRequest or an engine.StreamPart.
type streamLine struct {
	ID     string           `json:"streamId"`
	Seq    uint64           `json:"streamSequenceId,omitempty"`
	IdleMs int64            `json:"idleTimeoutMs,omitempty"`
	End    bool             `json:"endOfStream,omitempty"`
	Error  *streamErrorLine `json:"error,omitempty"`
}

type streamErrorLine struct {
	Name     string `json:"name"`
	Message  string `json:"message,omitempty"`
	UserCode string `json:"userErrorCode,omitempty"`
}

var opNames = map[engine.Op]string{
	engine.OpJoin: "join", engine.OpLeave: "leave", engine.OpSend: "send", engine.OpEvent: "event",
	engine.OpStreamStart: "streamStart", engine.OpStreamData: "streamData", engine.OpStreamEnd: "streamEnd",
	engine.OpSetState: "setState", engine.OpWatchState: "watchState", engine.OpUnwatchState: "unwatchState",
}

func lineOf(r *engine.Request) requestLine {
	l := requestLine{
		Op:    opNames[r.Op],
		Group: r.Group, Event: r.Event, NoEcho: r.NoEcho, Metadata: r.Metadata, TTLSeconds: int(r.TTL / time.Second), State: r.State,
	}
	if s := r.Stream; s != nil {
		l.Stream = &streamLine{ID: s.ID, Seq: s.Seq, IdleMs: s.Idle.Milliseconds()}
		if s.Err != nil {
			l.Stream.Error = new(streamErrorLine(*s.Err))
		}
	}
	if r.HasAck {
		l.AckID = &r.AckID
	}
	if r.Payload.Data != nil {
		l.DataType = r.Payload.Type.String()
		l.Data = new(string(r.Payload.Data))
		if r.Payload.Type == engine.Binary {
			l.Data = new(base64.StdEncoding.EncodeToString(r.Payload.Data))
		}
	}
	return l
}

func (l requestLine) String() string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(l); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}

// messageLine is an engine.Message as a transcript writes it.
type messageLine struct {
	Kind              string            `json:"kind"`
	Group             engine.GroupName  `json:"group"`
	FromUserID        engine.UserID     `json:"fromUserId"`
	DataType          string            `json:"dataType"`
	Data              string            `json:"data"`
	Metadata          map[string]string `json:"metadata"`
	AckID             engine.AckID      `json:"ackId"`
	Error             *errorLine        `json:"error"`
	ConnectionID      engine.ConnID     `json:"connectionId"`
	UserID            engine.UserID     `json:"userId"`
	ReconnectionToken string            `json:"reconnectionToken"`
	Text              string            `json:"text"`
	SequenceID        engine.SequenceID `json:"sequenceId"`
	Stream            *streamLine       `json:"stream"`
	Invocation        string            `json:"invocationId"`
	Items             []stateLine       `json:"items"`
}

// stateLine is an engine.GroupState.
type stateLine struct {
	ConnectionID engine.ConnID     `json:"connectionId"`
	UserID       engine.UserID     `json:"userId"`
	State        map[string]string `json:"state"`
	UpdatedAt    int64             `json:"updatedAt"`
}

type errorLine struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (l messageLine) message() (*engine.Message, error) {
	kind, ok := map[string]engine.Kind{
		"data": engine.KindData, "ack": engine.KindAck, "connected": engine.KindConnected, "disconnected": engine.KindDisconnected,
		"pong": engine.KindPong, "wirePing": engine.KindWirePing, "wirePong": engine.KindWirePong, "close": engine.KindClose, "control": engine.KindControl,
		"streamAck": engine.KindStreamAck, "streamNack": engine.KindStreamNack, "streamClosed": engine.KindStreamClosed,
		"stateSnapshot": engine.KindStateSnapshot, "stateUpdate": engine.KindStateUpdate, "invokeResponse": engine.KindInvokeResponse,
	}[l.Kind]
	if !ok {
		return nil, fmt.Errorf("no such kind %q", l.Kind)
	}
	m := &engine.Message{
		Kind: kind, Group: l.Group, From: l.FromUserID, Metadata: l.Metadata, AckID: l.AckID,
		ConnID: l.ConnectionID, User: l.UserID, ReconnectionToken: l.ReconnectionToken, Text: l.Text,
		Invocation: l.Invocation,
	}
	if l.DataType != "" {
		m.Payload.Data = []byte(l.Data)
	}
	if s := l.Stream; s != nil {
		m.Stream = &engine.StreamPart{ID: s.ID, Seq: s.Seq, End: s.End}
		if s.Error != nil {
			m.Stream.Err = new(engine.StreamError(*s.Error))
		}
	}
	for _, i := range l.Items {
		m.States = append(m.States, engine.GroupState{ConnID: i.ConnectionID, UserID: i.UserID, State: i.State, UpdatedAt: time.UnixMilli(i.UpdatedAt)})
	}
	if l.Error != nil {
		m.Err = &engine.Error{Message: l.Error.Message}
		for m.Err.Code = 0; m.Err.Code.String() != l.Error.Code; m.Err.Code++ {
			if m.Err.Code > 100 {
				return nil, fmt.Errorf("no such code %q", l.Error.Code)
			}
		}
	}
	for _, t := range []engine.DataType{engine.Text, engine.JSON, engine.Binary, engine.Protobuf} {
		if t.String() == l.DataType {
			m.Payload.Type = t
		}
	}
	if m.Payload.Type == engine.Binary || m.Payload.Type == engine.Protobuf {
		data, err := base64.StdEncoding.DecodeString(l.Data)
		if err != nil {
			return nil, err
		}
		m.Payload.Data = data
	}
	return m, nil
}

// Every code of the engine has a name that clients know, and no failure inside
// shows its words.
func TestAckErrors(t *testing.T) {
	enc, _ := subprotocol.JSON()
	const generic = "Internal server error"
	for _, c := range []struct {
		name string
		err  engine.Error
		wish errorName
	}{
		{"internal", engine.Error{Code: engine.CodeInternal, Message: "dial tcp: refused"}, errorName{"InternalServerError", generic}},
		{"timeout", engine.Error{Code: engine.CodeTimeout, Message: "handler took 30s"}, errorName{"InternalServerError", generic}},
		{"invalid", engine.Error{Code: engine.CodeInvalid, Message: "No."}, errorName{"BadRequest", "No."}},
		{"unauthenticated", engine.Error{Code: engine.CodeUnauthenticated, Message: "No."}, errorName{"Forbidden", "No."}},
		{"forbidden", engine.Error{Code: engine.CodeForbidden, Message: `No "x".`}, errorName{"Forbidden", `No "x".`}},
		{"not found", engine.Error{Code: engine.CodeNotFound, Message: "No."}, errorName{"NotFound", "No."}},
		{"duplicate", engine.Error{Code: engine.CodeDuplicate, Message: "Again."}, errorName{"Duplicate", "Again."}},
		{"conflict", engine.Error{Code: engine.CodeConflict, Message: "No."}, errorName{"BadRequest", "No."}},
		{"too large", engine.Error{Code: engine.CodeTooLarge, Message: "No."}, errorName{"BadRequest", "No."}},
		{"unavailable", engine.Error{Code: engine.CodeUnavailable, Message: "The server is draining."}, errorName{"InternalServerError", "The server is draining."}},
		{"unsupported", engine.Error{Code: engine.CodeUnsupported, Message: "No."}, errorName{"BadRequest", "No."}},
		{"closed", engine.Error{Code: engine.CodeClosed, Message: "No."}, errorName{"InternalServerError", "No."}},
		{"a code to come", engine.Error{Code: 200, Message: "No."}, errorName{"InternalServerError", generic}},
		{"no message", engine.Error{Code: engine.CodeForbidden}, errorName{"Forbidden", "forbidden"}},
		{"a handler's own refusal", engine.Error{Code: engine.CodeForbidden, Status: 403, Message: "handler's words"}, errorName{"InternalServerError", generic}},
		{"detail, rule and cause stay inside", engine.Error{Code: engine.CodeForbidden, Message: "No.", Detail: "d", Rule: "r", Err: errors.New("e")}, errorName{"Forbidden", "No."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, ok := enc.AppendBody(nil, &engine.Message{Kind: engine.KindAck, AckID: 1, Err: &c.err})
			var got struct {
				Type    string
				AckID   uint64
				Success *bool
				Error   errorName
			}
			if err := strictJSON(string(body), &got); err != nil || !ok {
				t.Fatalf("%s: %v", body, err)
			}
			if got.Type != "ack" || got.AckID != 1 || got.Success == nil || *got.Success || !reflect.DeepEqual(got.Error, c.wish) {
				t.Errorf("got %s", body)
			}
		})
	}
}

type errorName struct{ Name, Message string }

// What a server sends is made fit for a text frame, and dst comes back as it was
// where nothing is sent.
func TestEncodersMendText(t *testing.T) {
	raw, _ := subprotocol.Raw(subprotocol.SendEvent, "", false)
	json, _ := subprotocol.JSON()
	for _, c := range []struct {
		enc  subprotocol.Encoder
		m    engine.Message
		wish string
	}{
		{raw, engine.Message{Payload: payload(engine.Text, "a\xffb")}, "a\uFFFDb"},
		{raw, engine.Message{Payload: payload(engine.JSON, "\"\xff\"")}, "\"\uFFFD\""},
		{raw, engine.Message{Payload: payload(engine.Binary, "\xff")}, "\xff"},
		{json, engine.Message{Payload: payload(engine.Text, "a\xff\"")}, `{"type":"message","from":"server","dataType":"text","data":"a` + "\uFFFD" + `\""}`},
		{json, engine.Message{Payload: payload(engine.Text, "\u2028\u2029\x7f</script>")}, `{"type":"message","from":"server","dataType":"text","data":"` + "\u2028\u2029\x7f" + `</script>"}`},
		{json, engine.Message{Payload: payload(engine.JSON, "\"\xff\"")}, `{"type":"message","from":"server","dataType":"json","data":"` + "\uFFFD" + `"}`},
		{json, engine.Message{Payload: engine.Payload{Type: engine.JSON}}, `{"type":"message","from":"server","dataType":"json","data":null}`},
	} {
		if got, ok := c.enc.AppendBody([]byte("x"), &c.m); !ok || string(got) != "x"+c.wish {
			t.Errorf("got %q, wish %q", got, c.wish)
		}
	}
	for _, enc := range []subprotocol.Encoder{raw, json} {
		if got, ok := enc.AppendBody([]byte("x"), &engine.Message{Kind: engine.KindClose}); ok || string(got) != "x" {
			t.Errorf("a close became %q", got)
		}
	}
}
