package transporttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// actor is a client in a story. What it says and hears is written in the words of
// the JSON subprotocol, whichever it speaks.
type actor struct {
	Client
	p     *play
	id    engine.ConnID
	token string // that recovers the connection, if it can be

	// Of a reliable client.
	seq       uint64 // of the last message it got
	confirmed uint64 // of the last message it acknowledged
}

func (a *actor) hello() {
	a.p.Helper()
	m := a.next()
	if m["type"] != "system" || m["event"] != "connected" {
		a.p.Fatalf("the first message is %v", m)
	}
	a.id = engine.ConnID(m["connectionId"].(string))
	a.token, _ = m["reconnectionToken"].(string)
}

// say sends a message.
func (a *actor) say(format string, args ...any) {
	a.p.Helper()
	a.p.must(a.Send(a.p.tongue.say(fmt.Appendf(nil, format, args...))))
}

// next receives one message. A sequence id, which those have that a client can
// recover, is checked and left out.
func (a *actor) next() map[string]any {
	a.p.Helper()
	f, data, err := a.Receive()
	if err != nil {
		a.p.Fatalf("waiting for a message: %v; the engine counts %+v", err, a.p.engine.Stats())
	}
	words, err := a.p.tongue.hear(f, data)
	if err != nil {
		a.p.Fatalf("received the %s message %q: %v", f, data, err)
	}
	m := a.p.parse(words)
	seq, numbered := m["sequenceId"]
	switch m["type"] {
	case "message", "groupStateSnapshot", "groupStateUpdate":
		if numbered != a.p.tongue.reliable {
			a.p.Fatalf("received %s", words)
		}
		if numbered {
			if a.seq++; fmt.Sprint(seq) != fmt.Sprint(a.seq) {
				a.p.Fatalf("expected message %d, received %s", a.seq, words)
			}
			delete(m, "sequenceId")
		}
	default:
		if numbered {
			a.p.Fatalf("received %s", words)
		}
	}
	return m
}

func (p *play) parse(words []byte) map[string]any {
	p.Helper()
	d := json.NewDecoder(bytes.NewReader(words))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		p.Fatalf("%q: %v", words, err)
	}
	return m
}

// hears receives one message, which must be want.
func (a *actor) hears(want string) {
	a.p.Helper()
	w := a.p.parse([]byte(want))
	if a.p.tongue.nameless {
		delete(w, "fromUserId")
	}
	if got := a.next(); !reflect.DeepEqual(got, w) {
		a.p.Fatalf("received %v\nexpected %s", got, want)
	}
}

// hearsLike receives one message, which must have all members of want, and may
// have more. It returns the message.
func (a *actor) hearsLike(want string) map[string]any {
	a.p.Helper()
	got := a.next()
	if !like(got, a.p.parse([]byte(want))) {
		a.p.Fatalf("received %v\nexpected something like %s", got, want)
	}
	return got
}

func like(got, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, ok := got.(map[string]any)
		for name, w := range want {
			ok = ok && like(have[name], w)
		}
		return ok
	case []any:
		have, ok := got.([]any)
		ok = ok && len(have) == len(want)
		for i := 0; ok && i < len(want); i++ {
			ok = like(have[i], want[i])
		}
		return ok
	}
	return reflect.DeepEqual(got, want)
}

// confirms acknowledges all messages up to seq, and waits until the server knows.
// No message may be under way.
func (a *actor) confirms(seq uint64) {
	a.p.Helper()
	a.say(`{"type":"sequenceAck","sequenceId":%d}`, seq)
	a.confirmed = seq
	a.pings()
}

// pings has all that it said before carried out. No message may be under way.
func (a *actor) pings() {
	a.p.Helper()
	a.say(`{"type":"ping"}`)
	a.hears(`{"type":"pong"}`)
}

// acked receives the acknowledgement of id; name is its error, empty for success.
func (a *actor) acked(id, name string) {
	a.p.Helper()
	m := a.next()
	ok := m["type"] == "ack" && fmt.Sprint(m["ackId"]) == id && m["success"] == (name == "")
	if e, _ := m["error"].(map[string]any); name != "" && (e == nil || e["name"] != name || e["message"] == "") {
		ok = false
	}
	if !ok {
		a.p.Fatalf("received %v, expected the ack of %s with error %q", m, id, name)
	}
}

// asks sends a request with an ack id and waits for it to be acknowledged.
func (a *actor) asks(id, message, name string) {
	a.p.Helper()
	a.say(`{"ackId":%s,%s`, id, message[1:])
	a.acked(id, name)
}

// closed expects the server's goodbye next.
func (a *actor) closed(code engine.CloseCode, text string) {
	a.p.Helper()
	f, data, err := a.Receive()
	var c *Closed
	if !errors.As(err, &c) {
		a.p.Fatalf("received %s %q, %v; expected to be closed with %d", f, data, err, code)
	}
	if c.Code != code || c.Text != text {
		a.p.Fatalf("%v; expected %d %q", c, code, text)
	}
}

// receives expects one bare message next.
func (a *actor) receives(f subprotocol.Frame, data string) {
	a.p.Helper()
	gotFrame, got, err := a.Receive()
	if err != nil || gotFrame != f || string(got) != data {
		a.p.Fatalf("received %s %q, %v; expected %s %q", gotFrame, got, err, f, data)
	}
}
