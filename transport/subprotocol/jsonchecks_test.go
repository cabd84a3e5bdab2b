package subprotocol_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// The compatibility checks that are the JSON codecs' alone. Their numbers are those
// of the list of checks that the doors and the node share.

// jsonCodecs are the two protocols, for which all checks hold alike.
var jsonCodecs = []func() (subprotocol.Encoder, subprotocol.Decoder){subprotocol.JSON, subprotocol.ReliableJSON}

// eachJSON runs f for both protocols.
func eachJSON(t *testing.T, f func(t *testing.T, enc subprotocol.Encoder, dec subprotocol.Decoder)) {
	for _, codec := range jsonCodecs {
		enc, dec := codec()
		t.Run(enc.Name(), func(t *testing.T) { f(t, enc, dec) })
	}
}

// sent returns what a client gets for m.
func sent(enc subprotocol.Encoder, m *engine.Message, seq engine.SequenceID) string {
	body, ok := enc.AppendBody(nil, m)
	if !ok {
		return ""
	}
	return string(enc.AppendOwn(nil, m, engine.Own{Seq: seq})) + string(body)
}

func TestCheck09JSONAckIDsAreExact(t *testing.T) {
	eachJSON(t, func(t *testing.T, enc subprotocol.Encoder, dec subprotocol.Decoder) {
		for _, id := range []string{"0", "9007199254740993", "18446744073709551615"} {
			in, err := dec.Decode(subprotocol.TextFrame, fmt.Appendf(nil, `{"type":"joinGroup","group":"g","ackId":%s}`, id))
			if err != nil || !in.Request.HasAck {
				t.Fatalf("ackId %s: %s, %v", id, describe(in), err)
			}
			wish := `{"type":"ack","ackId":` + id + `,"success":true}`
			if got := sent(enc, &engine.Message{Kind: engine.KindAck, AckID: in.Request.AckID}, 0); got != wish {
				t.Errorf("got %s, wish %s", got, wish)
			}
		}
	})
}

func TestCheck14JSONMalformedEndsWithoutAck(t *testing.T) {
	eachJSON(t, func(t *testing.T, _ subprotocol.Encoder, dec subprotocol.Decoder) {
		for _, text := range []string{
			`{"type":"joinGroup","group":"g","ackId":"5"}`,
			`{"type":"sendToGroup","group":"g","ackId":5,"ttlSeconds":301,"data":1}`,
			`{"type":"sendToGroup","group":"g","ackId":5,"data":1,"metadata":{"k":"1","k":"2"}}`,
			`{"type":"sendToGroup","group":"g","ackId":5,"data":null}`,
			`{"type":"sendToGroup","group":"g","ackId":5,"stream":{"streamId":"s1"}}`,
			`{"type":"setGroupState","group":"g","ackId":5,"state":[]}`,
			`{"type":"invoke","ackId":5,"invocationId":"","target":"event","event":"e"}`,
		} {
			in, err := dec.Decode(subprotocol.TextFrame, []byte(text))
			var refused *subprotocol.RefusedError
			if !errors.As(err, &refused) || refused.Code != engine.CloseInvalidData || refused.Reason != malformedJSON {
				t.Errorf("%s: %v", text, err)
			}
			if in != (subprotocol.Inbound{}) { // nothing that an ack could come of
				t.Errorf("%s: refused, and yet %s", text, describe(in))
			}
		}
	})
}

func TestCheck16JSONEventNamesOf128And129Characters(t *testing.T) {
	eachJSON(t, func(t *testing.T, _ subprotocol.Encoder, dec subprotocol.Decoder) {
		for _, form := range []string{`{"type":"event","event":"%s","data":1}`, `{"type":"invoke","invocationId":"1","target":"event","event":"%s"}`} {
			name := strings.Repeat("e", 128)
			in, err := dec.Decode(subprotocol.TextFrame, fmt.Appendf(nil, form, name))
			if err != nil || string(in.Request.Event) != name {
				t.Errorf("128 characters: %v", err)
			}
			var refused *subprotocol.RefusedError
			if _, err = dec.Decode(subprotocol.TextFrame, fmt.Appendf(nil, form, name+"e")); !errors.As(err, &refused) || refused.Code != engine.CloseInvalidData {
				t.Errorf("129 characters: %v", err)
			}
		}
	})
}

func TestCheck17JSONStringWithoutDataTypeIsJSON(t *testing.T) {
	raw, _ := subprotocol.Raw(subprotocol.SendEvent, "", false)
	eachJSON(t, func(t *testing.T, enc subprotocol.Encoder, dec subprotocol.Decoder) {
		in, err := dec.Decode(subprotocol.TextFrame, []byte(`{"type":"sendToGroup","group":"g","data":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		m := &engine.Message{Group: in.Request.Group, Payload: in.Request.Payload}
		wish := `{"type":"message","from":"group","group":"g","dataType":"json","data":"x"}`
		if got := members(t, []byte(sent(enc, m, 0))); got != members(t, []byte(wish)) {
			t.Errorf("a JSON peer gets %s", got)
		}
		if got := sent(raw, m, 0); got != `"x"` || raw.Frame(m) != subprotocol.TextFrame {
			t.Errorf("a raw peer gets %s in a %s frame", got, raw.Frame(m))
		}
	})
}
