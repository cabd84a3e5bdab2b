package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/fanfare/fanfare/engine"
)

// Words is what the details of a connection ([engine.EventContext].Details) may
// implement: it adds to the connection's events what its protocol says beyond
// what Azure's own protocols do. The methods may be called concurrently and must
// not block.
type Words interface {
	// EventSource follows the connection's id in ce-source, behind a slash; empty
	// for nothing.
	EventSource() string
	// EventHeaders returns names, spelled as they are to be sent, and values. event
	// is the name of a system event, and empty for a user event.
	EventHeaders(event string) [][2]string
	// EventMember returns a member for the JSON body of a system event; an empty
	// name for none.
	EventMember(event string) (name string, value any)
	// ReadReply makes something of that member of a reply to connect, which is nil
	// if the reply has none: [engine.ConnectReply].Details if status is 2xx, and
	// otherwise [engine.Error].Reply, where an error counts as nothing.
	ReadReply(status int, member json.RawMessage) (any, error)
}

// Exchange is what the attributes of a user event ([engine.UserEvent].Attributes)
// may implement: its protocol passes on what a handler says as it is, failures
// included. The methods may be called concurrently and must not block.
type Exchange interface {
	// ContentType is that of the payload; empty for the one of its data type.
	ContentType() string
	// EventHeaders is as in [Words].
	EventHeaders() [][2]string
	// ReadReply makes [engine.EventReply].Attributes of a reply whose status is 2xx,
	// and [engine.Error].Reply of another. It may keep header and body.
	ReadReply(status int, header http.Header, body []byte) any
}

// maxOwnHeaders bounds the headers that a protocol adds to an event, which
// strangers may have a say in.
const maxOwnHeaders = 8 << 10

// setOwn adds a protocol's own headers. Of one name there may be several.
func (b *headers) setOwn(own [][2]string) {
	total := 0
	for _, h := range own {
		name, value := h[0], h[1]
		total += len(name) + len(value)
		why := ""
		switch {
		case name == "" || !isToken(name):
			why = fmt.Sprintf("a name is %.64q; characters of an HTTP token would pass", name)
		case !isPrintable(value):
			why = fmt.Sprintf("the value of %.64s holds a character that is not printable ASCII", name)
		case total > maxOwnHeaders:
			why = fmt.Sprintf("names and values have more than %d bytes together", maxOwnHeaders)
		}
		if why != "" {
			if b.err == nil {
				b.err = &engine.Error{Code: engine.CodeInvalid, Rule: "event.header", Target: "properties",
					Message: "The event cannot be sent: its properties cannot be headers.", Detail: why}
			}
			return
		}
		b.h[name] = append(b.h[name], value)
	}
}

// withMember adds a member to a JSON object without blanks.
func withMember(object []byte, name string, value any) ([]byte, error) {
	member, err := json.Marshal(map[string]any{name: value})
	if err != nil {
		return nil, fmt.Errorf("webhook: encode the member %s of an event: %w", name, err)
	}
	if string(object) == "{}" {
		return member, nil
	}
	head := object[: len(object)-1 : len(object)-1]
	return append(append(head, ','), member[1:]...), nil
}

// say adds what the connection's protocol has to say about a system event.
func (e *event) say() error {
	w, ok := e.Details.(Words)
	if !ok {
		return nil
	}
	name, value := w.EventMember(e.name)
	if name == "" {
		return nil
	}
	e.member = name
	body, err := withMember(e.body, name, value)
	if err != nil {
		return err
	}
	e.body = body
	return nil
}

// own reads the protocol's member of a reply to connect.
func (e *event) own(a *answer) (any, error) {
	w, ok := e.Details.(Words)
	if !ok || e.label != engine.SystemConnect {
		return nil, nil
	}
	var member json.RawMessage
	if body := bytes.TrimSpace(bytes.TrimPrefix(a.body, utf8BOM)); len(body) > 0 && body[0] == '{' {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(body, &members); err == nil {
			member = members[e.member]
		}
	}
	return w.ReadReply(a.status, member)
}

// refusal is what the protocol makes of a failure, nil for nothing.
func (e *event) refusal(a *answer) any {
	if e.exchange != nil {
		return e.exchange.ReadReply(a.status, a.header, a.body)
	}
	v, err := e.own(a)
	if err != nil {
		return nil
	}
	return v
}

// minds reports whether the protocol wants to see the body of a refusal.
func (e *event) minds() bool {
	_, words := e.Details.(Words)
	return e.exchange != nil || words && e.label == engine.SystemConnect
}
