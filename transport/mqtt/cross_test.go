package mqtt_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// json connects a client of json.webpubsub.azure.v1 that is in group t.
func (s *server) json(t *testing.T) *client {
	t.Helper()
	token := s.guests.Invite(engine.Identity{UserID: "json", Roles: everything, Groups: []engine.GroupName{"t"}})
	c, res := s.handshake(t, "/client/hubs/chat?access_token="+token, "json.webpubsub.azure.v1")
	if res.StatusCode != 101 {
		t.Fatal(res.Status)
	}
	if _, _, err := c.read(); err != nil { // its hello
		t.Fatal(err)
	}
	return c
}

// What MQTT clients publish is what its content type says to the others (Azure Web
// PubSub, cross-protocol communication).
func TestMQTTToJSON(t *testing.T) {
	s := serve(t, engine.Options{}, false)
	js := s.json(t)
	c := s.enter(t, "ann1")
	old := s.connect(t, engine.Identity{UserID: "old", Roles: everything})
	old.packets("10 ( 'MQTT' 04 02 003c 'old1' )")
	old.want("20 ( 00 00 )")
	for _, tc := range []struct {
		name             string
		from             *client
		packet           string
		user, kind, data string
	}{
		{"no content type", c, "30 ( 't' ( ) \"hi\" )", "ann", "binary", `"aGk="`},
		{"no content type, and text", c, "30 ( 't' ( 01 01 ) \"hi\" )", "ann", "text", `"hi"`},
		{"text", c, "30 ( 't' ( 03 'text/plain; charset=utf-8' ) \"hi\" )", "ann", "text", `"hi"`},
		{"text that is none", c, "30 ( 't' ( 03 'text/plain' ) ff )", "ann", "binary", `"/w=="`},
		{"JSON", c, "30 ( 't' ( 03 'application/JSON' ) 7b226e223a317d )", "ann", "json", `{"n":1}`},
		{"JSON that is none", c, "30 ( 't' ( 03 'application/json' ) \"}\" )", "ann", "binary", `"fQ=="`},
		{"protobuf", c, "30 ( 't' ( 03 'application/x-protobuf' ) 0a00 )", "ann", "protobuf", `"CgA="`},
		{"bytes", c, "30 ( 't' ( 03 'application/octet-stream' ) \"hi\" )", "ann", "binary", `"aGk="`},
		{"something else", c, "30 ( 't' ( 03 'image/png' ) \"hi\" )", "ann", "binary", `"aGk="`},
		{"3.1.1", old, "30 ( 't' \"hi\" )", "old", "binary", `"aGk="`},
	} {
		tc.from.packets(tc.packet)
		op, p, err := js.read()
		var m struct {
			Type, From, FromUserID, Group, DataType string
			Data                                    json.RawMessage
		}
		if err != nil || op != ws.OpText || json.Unmarshal(p, &m) != nil {
			t.Fatalf("%s: %v %s %v", tc.name, op, p, err)
		}
		if got, want := fmt.Sprint(m.From, m.Group, m.FromUserID, m.DataType, string(m.Data)), fmt.Sprint("group", "t", tc.user, tc.kind, tc.data); got != want {
			t.Errorf("%s: got %s, want %s", tc.name, got, want)
		}
	}
}

// What others publish reaches MQTT clients with QoS 1, if they asked for that.
func TestJSONToMQTT(t *testing.T) {
	s := serve(t, engine.Options{}, false)
	js := s.json(t)
	c := s.enter(t, "ann1")
	c.packets("82 ( 0001 ( ) 'two' 02 'zero' 00 )")
	c.want("90 ( 0001 ( ) 02 00 )")
	for _, tc := range []struct{ group, data, want string }{
		{"two", `"dataType":"text","data":"hi"`, "32 ( 'two' 0001 ( 01 01 03 'text/plain' ) \"hi\" )"},
		{"two", `"dataType":"json","data":{"n":1}`, "32 ( 'two' 0002 ( 01 01 03 'application/json' ) 7b226e223a317d )"},
		{"two", `"dataType":"binary","data":"aGk="`, "32 ( 'two' 0003 ( 03 'application/octet-stream' ) \"hi\" )"},
		{"two", `"dataType":"text","data":"hi","ttlSeconds":60`, "32 ( 'two' 0004 ( 02 0000003c 01 01 03 'text/plain' ) \"hi\" )"},
		{"zero", `"dataType":"text","data":"hi"`, "30 ( 'zero' ( 01 01 03 'text/plain' ) \"hi\" )"},
	} {
		js.Write(frame(ws.OpText, fmt.Appendf(nil, `{"type":"sendToGroup","group":%q,%s}`, tc.group, tc.data)))
		if err := c.check(tc.want); err != nil {
			t.Errorf("%s: %v", tc.data, err)
		}
	}
}

// A client that sends more at once than the engine takes is read more slowly, and
// loses nothing.
func TestFloodIsPaced(t *testing.T) {
	release := make(chan struct{})
	h := &engine.HandlerFuncs{OnUserEvent: func(context.Context, *engine.UserEvent) (*engine.EventReply, error) {
		<-release
		return nil, nil
	}}
	o := handled(h)
	o.Limits.PendingEvents = 8
	for _, sockets := range []bool{false, true} {
		s := serve(t, o, sockets)
		c := s.enter(t, "ann1")
		const count = 200
		var all strings.Builder
		for id := 1; id <= count; id++ {
			fmt.Fprintf(&all, "32 ( '$webpubsub/server/events/e' %04x ( ) ) ", id)
		}
		p, err := parseNotation(all.String())
		if err != nil {
			t.Fatal(err)
		}
		go c.Write(frame(ws.OpBinary, p.bytes))
		go func() {
			for range count {
				release <- struct{}{}
			}
		}()
		for id := 1; id <= count; id++ {
			c.want(fmt.Sprintf("32 ( '$webpubsub/server/events/e/succeeded' %04x ( 26 'azure-status-code' '200' ) )", id))
			c.want(fmt.Sprintf("40 ( %04x )", id))
			if id%2 == 0 { // two at once
				c.packets(fmt.Sprintf("40 ( %04x ) 40 ( %04x )", id-1, id))
			}
		}
		c.packets("c0 ( )")
		c.want("d0 ( )")
	}
}
