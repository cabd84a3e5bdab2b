package subprotocol_test

import (
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

func TestParseRawMode(t *testing.T) {
	for _, c := range []struct {
		query  string
		mode   subprotocol.RawMode
		group  engine.GroupName
		noEcho bool
		rule   string // of the refusal
	}{
		{query: ""},
		{query: "access_token=x&other=1"},
		{query: "webpubsub_mode="},
		{query: "webpubsub_mode=sendEvent"},
		{query: "webpubsub_mode=SENDEVENT"},
		{query: "webpubsub_mode=sendEvent&group=%20&noEcho=7"}, // sendEvent ignores both
		{query: "group=lobby&noEcho=true"},
		{query: "webpubsub_mode=sendToGroup&group=lobby", mode: subprotocol.SendToGroup, group: "lobby"},
		{query: "WebPubSub_Mode=sendToGroup&GROUP=Lobby&NOECHO=TRUE", mode: subprotocol.SendToGroup, group: "Lobby", noEcho: true},
		{query: "webpubsub_mode=SendToGroup&group=lobby&noEcho=False", mode: subprotocol.SendToGroup, group: "lobby"},
		{query: "webpubsub_mode=sendToGroup&group=a%2Fb%20%C3%A9", mode: subprotocol.SendToGroup, group: "a/b é"},
		{query: "webpubsub_mode=bogus&webpubsub_mode=sendToGroup&group=%20&group=g&noEcho=x&noEcho=true", mode: subprotocol.SendToGroup, group: "g", noEcho: true},
		{query: "webpubsub_mode=sendToGroup&webpubsub_mode=sendEvent"},
		{query: "webpubsub_mode=sendToGroup&webpubsub_mode="},
		{query: "NoEcho=false&noEcho=true&webpubsub_mode=sendToGroup&group=g", mode: subprotocol.SendToGroup, group: "g", noEcho: true},
		{query: "noEcho=true&NoEcho=false&webpubsub_mode=sendToGroup&group=g", mode: subprotocol.SendToGroup, group: "g", noEcho: true},

		{query: "webpubsub_mode=bogus", rule: "raw.webpubsub_mode"},
		{query: "webpubsub_mode=sendToGroup%20&group=g", rule: "raw.webpubsub_mode"},
		{query: "webpubsub_mode=sendToGroup", rule: "raw.group"},
		{query: "webpubsub_mode=sendToGroup&group=", rule: "raw.group"},
		{query: "webpubsub_mode=sendToGroup&group=g&group=%20", rule: "raw.group"},
		{query: "webpubsub_mode=sendToGroup&group=%FF", rule: "raw.group"},
		{query: "webpubsub_mode=sendToGroup&group=" + strings.Repeat("g", 1025), rule: "raw.group"},
		{query: "webpubsub_mode=sendToGroup&group=g&noEcho=", rule: "raw.noEcho"},
		{query: "webpubsub_mode=sendToGroup&group=g&noEcho=1", rule: "raw.noEcho"},
		{query: "webpubsub_mode=sendToGroup&group=g&noEcho=true&noEcho=yes", rule: "raw.noEcho"},
	} {
		t.Run(c.query[:min(len(c.query), 80)], func(t *testing.T) {
			query, err := url.ParseQuery(c.query)
			if err != nil {
				t.Fatal(err)
			}
			mode, group, noEcho, err := subprotocol.ParseRawMode(query)
			if mode != c.mode || group != c.group || noEcho != c.noEcho {
				t.Errorf("got %v %q %v", mode, group, noEcho)
			}
			if c.rule == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var refusal *engine.Error
			if !errors.As(err, &refusal) || refusal.Code != engine.CodeInvalid || refusal.Rule != c.rule {
				t.Fatalf("got error %v", err)
			}
			if !strings.Contains(refusal.Message, refusal.Target) || len(refusal.Message) > 300 {
				t.Errorf("message %q", refusal.Message)
			}
		})
	}
}

func TestRawDecode(t *testing.T) {
	_, events := subprotocol.Raw(subprotocol.SendEvent, "ignored", true)
	_, group := subprotocol.Raw(subprotocol.SendToGroup, "lobby", true)
	for _, c := range []struct {
		name  string
		dec   subprotocol.Decoder
		frame subprotocol.Frame
		data  string
		wish  engine.Request
	}{
		{"text event", events, subprotocol.TextFrame, "hi", engine.Request{Op: engine.OpEvent, Event: "message", Payload: payload(engine.Text, "hi")}},
		{"binary event", events, subprotocol.BinaryFrame, "\xff\x00", engine.Request{Op: engine.OpEvent, Event: "message", Payload: payload(engine.Binary, "\xff\x00")}},
		{"empty event", events, subprotocol.TextFrame, "", engine.Request{Op: engine.OpEvent, Event: "message", Payload: payload(engine.Text, "")}},
		{"what looks like JSON is text", events, subprotocol.TextFrame, `{"type":"ping"}`, engine.Request{Op: engine.OpEvent, Event: "message", Payload: payload(engine.Text, `{"type":"ping"}`)}},
		{"text to the group", group, subprotocol.TextFrame, "é", engine.Request{Op: engine.OpSend, Group: "lobby", NoEcho: true, Payload: payload(engine.Text, "é")}},
		{"binary to the group", group, subprotocol.BinaryFrame, "", engine.Request{Op: engine.OpSend, Group: "lobby", NoEcho: true, Payload: payload(engine.Binary, "")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := []byte(c.data)
			got, err := c.dec.Decode(c.frame, p)
			if err != nil {
				t.Fatal(err)
			}
			clear(p)
			if wish := request(c.wish); !reflect.DeepEqual(got, wish) {
				t.Errorf("got  %s\nwish %s", describe(got), describe(wish))
			}
		})
	}
	t.Run("text that is not UTF-8", func(t *testing.T) {
		_, err := events.Decode(subprotocol.TextFrame, []byte("a\xff"))
		var refused *subprotocol.RefusedError
		if !errors.As(err, &refused) || refused.Code != engine.CloseInvalidData {
			t.Errorf("got %v", err)
		}
	})
}

// A stream's parts are messages like others, and its end is none, unless it says
// something.
func TestRawStreams(t *testing.T) {
	raw, _ := subprotocol.Raw(subprotocol.SendEvent, "", false)
	for _, c := range []struct {
		part engine.StreamPart
		data string
		sent bool
	}{
		{engine.StreamPart{ID: "s", Seq: 1}, "a", true},
		{engine.StreamPart{ID: "s", Seq: 2}, "", true},
		{engine.StreamPart{ID: "s", Seq: 3, End: true}, "", false},
		{engine.StreamPart{ID: "s", Seq: 3, End: true}, "last", true},
	} {
		m := &engine.Message{Kind: engine.KindData, Group: "g", Payload: payload(engine.Text, c.data), Stream: &c.part}
		if got, sent := raw.AppendBody(nil, m); sent != c.sent || sent && string(got) != c.data {
			t.Errorf("%+v: sent %t as %q", c.part, sent, got)
		}
	}
}

// Encoders of one protocol are equal, so that connections share bytes, and those of two are not.
func TestEncodersCompare(t *testing.T) {
	raw, _ := subprotocol.Raw(subprotocol.SendEvent, "", false)
	raw2, _ := subprotocol.Raw(subprotocol.SendToGroup, "g", true)
	json, _ := subprotocol.JSON()
	json2, _ := subprotocol.JSON()
	if raw != raw2 || json != json2 || raw == json {
		t.Error("encoders compare wrongly")
	}
	if raw.Name() != "" || json.Name() != "json.webpubsub.azure.v1" {
		t.Errorf("names %q and %q", raw.Name(), json.Name())
	}
	if raw.Own() || json.Own() || len(raw.AppendOwn(nil, nil, engine.Own{Seq: 1})) > 0 || len(json.AppendOwn(nil, nil, engine.Own{Seq: 1})) > 0 {
		t.Error("neither has a part of a connection's own")
	}
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		offer, name string
		reliable    bool
	}{
		{"json.webpubsub.azure.v1", subprotocol.NameJSON, false},
		{"JSON.WebPubSub.Azure.V1", subprotocol.NameJSON, false},
		{"json.reliable.webpubsub.azure.v1", subprotocol.NameReliableJSON, true},
		{"protobuf.webpubsub.azure.v1", subprotocol.NameProtobuf, false},
		{"Protobuf.Reliable.WebPubSub.Azure.v1", subprotocol.NameReliableProtobuf, true},
		{"json.webpubsub.azure.v2", "", false},
		{"Foo.v1", "", false},
		{"", "", false},
	} {
		p, ok := subprotocol.Find(c.offer)
		if ok != (c.name != "") {
			t.Errorf("%q: found %v", c.offer, ok)
			continue
		}
		if ok && (p.Name != c.name || p.Reliable != c.reliable || p.Encoder.Name() != c.name || p.Encoder.Own() != c.reliable || p.Decoder == nil) {
			t.Errorf("%q: found %+v", c.offer, p)
		}
	}
}
