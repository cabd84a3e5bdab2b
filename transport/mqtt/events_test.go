package mqtt_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
	"github.com/fanfare/fanfare/transport/mqtt"
	"github.com/fanfare/fanfare/transport/webhook"
)

// connack5 is the answer to a CONNECT of 5.0 that asks for nothing.
const connack5 = "20 ( 00 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 ) )"

// post is one event as an application server got it.
type post struct {
	header http.Header
	body   string
}

// upstream runs an application server, and a door whose events go to it.
func upstream(t *testing.T, answer http.HandlerFunc) (*server, <-chan post) {
	t.Helper()
	posts := make(chan post, 64)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WebHook-Allowed-Origin", "*")
		if r.Method != http.MethodPost {
			return
		}
		body, _ := io.ReadAll(r.Body)
		posts <- post{r.Header.Clone(), string(body)}
		answer(w, r)
	}))
	t.Cleanup(up.Close)
	hook, err := webhook.New(up.URL+"/{event}", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hook.Close() })
	return serve(t, handled(hook), false), posts
}

func await(t *testing.T, posts <-chan post, event string) post {
	t.Helper()
	select {
	case p := <-posts:
		if got := p.header.Get("ce-eventName"); got != event {
			t.Fatalf("got the event %s, want %s", got, event)
		}
		return p
	case <-soon(t).Done():
		t.Fatalf("no event %s", event)
	}
	panic("unreachable")
}

// member returns the member mqtt of a body.
func member(t *testing.T, body string) string {
	t.Helper()
	var v struct {
		MQTT json.RawMessage `json:"mqtt"`
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return string(v.MQTT)
}

// The events of a session, as an application server gets them (Azure Web PubSub,
// CloudEvents extension for MQTT).
func TestEventsOfASession(t *testing.T) {
	s, posts := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("ce-eventName") == "connect" {
			io.WriteString(w, `{"userId":"kim","mqtt":{"userProperties":[{"name":"n","value":"v"}]}}`)
		}
	})
	c := s.connect(t, engine.Identity{UserID: "ann"})
	c.packets("10 ( 'MQTT' 05 c2 003c ( 11 0000001e 26 'a' '1' ) 'ann1' 'u' 'p' )")
	c.want("20 ( 00 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 26 'n' 'v' ) )")

	connect := await(t, posts, "connect")
	if got, want := member(t, connect.body), `{"protocolVersion":5,"cleanStart":true,"username":"u","password":"cA==","userProperties":[{"name":"a","value":"1"}]}`; got != want {
		t.Errorf("connect says %s, want %s", got, want)
	}
	if !strings.Contains(connect.body, `"subprotocols":["mqtt"]`) {
		t.Errorf("connect says %s", connect.body)
	}
	connected := await(t, posts, "connected")
	physical, session := connected.header.Get("ce-physicalConnectionId"), connected.header.Get("ce-sessionId")
	for _, tc := range []struct {
		p             post
		user, session string
	}{{connect, "ann", ""}, {connected, "kim", session}} {
		h := tc.p.header
		got := []string{h.Get("ce-connectionId"), h.Get("ce-subprotocol"), h.Get("ce-userId"), h.Get("ce-physicalConnectionId"), h.Get("ce-sessionId"), h.Get("ce-source")}
		want := []string{"ann1", "mqtt", tc.user, physical, tc.session, "/hubs/chat/client/ann1/" + physical}
		if !slices.Equal(got, want) || physical == "" || session == "" {
			t.Errorf("%s: the headers say %q, want %q", h.Get("ce-eventName"), got, want)
		}
	}
	if connected.body != "{}" {
		t.Errorf("connected says %s", connected.body)
	}

	// Another network connection of the session: its handler is asked, what it says of
	// the user must fit, and nobody is told that it is connected.
	c.Close()
	c = s.connect(t, engine.Identity{UserID: "ann"})
	c.packets("10 ( 'MQTT' 05 00 003c ( 11 0000001e ) 'ann1' )")
	c.want("20 ( 01 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 26 'n' 'v' ) )")
	connect = await(t, posts, "connect")
	if connect.header.Get("ce-id") != "0" || !strings.Contains(member(t, connect.body), `"cleanStart":false,"username":null,"password":null,"userProperties":null`) {
		t.Errorf("connect %s says %s", connect.header.Get("ce-id"), connect.body)
	}
	c.packets("e0 ( 00 ( 11 00000000 1f 'good night' 26 'b' '2' ) )")
	c.want("close 1000")
	end := await(t, posts, "disconnected")
	if got, want := end.body, `{"reason":"good night","mqtt":{"initiatedByClient":true,"disconnectPacket":{"code":0,"userProperties":[{"name":"b","value":"2"}]}}}`; got != want {
		t.Errorf("disconnected says %s, want %s", got, want)
	}
	if h := end.header; h.Get("ce-sessionId") != session || h.Get("ce-physicalConnectionId") == physical || h.Get("ce-userId") != "kim" {
		t.Errorf("disconnected has the headers %v", h)
	}
}

// An event whose handler fails when its client has left is not tried again, and
// disconnected comes after it. A session that may be resumed has not ended.
func TestDisconnectedIsTheLastEventOfASession(t *testing.T) {
	for name, tc := range map[string]struct{ connect, connack string }{
		"3.1.1": {"10 ( 'MQTT' 04 02 003c 'a' )", "20 ( 00 00 )"},
		"5.0":   {"10 ( 'MQTT' 05 02 003c ( ) 'a' )", connack5},
	} {
		t.Run(name, func(t *testing.T) {
			gate := make(chan struct{})
			s, posts := upstream(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("ce-eventName") == "e" {
					<-gate
					w.WriteHeader(http.StatusInternalServerError)
				}
			})
			c := s.connect(t, engine.Identity{})
			c.packets(tc.connect)
			c.want(tc.connack)
			await(t, posts, "connect")
			await(t, posts, "connected")
			properties := ""
			if name == "5.0" {
				properties = "( ) "
			}
			c.packets("32 ( '$webpubsub/server/events/e' 0001 " + properties + "'x' )")
			await(t, posts, "e")
			c.packets("e0 ( )")
			c.want("close 1000")
			close(gate)
			await(t, posts, "disconnected")
			if err := s.engine.Shutdown(soon(t)); err != nil {
				t.Fatal(err)
			}
			if len(posts) > 0 {
				t.Errorf("%s came behind disconnected", (<-posts).header.Get("ce-eventName"))
			}
		})
	}
}

// How sessions end, in the disconnected event.
func TestDisconnectedSays(t *testing.T) {
	s, posts := upstream(t, func(http.ResponseWriter, *http.Request) {})
	for _, tc := range []struct {
		name, connect, end string
		server             bool
		want               string
	}{
		{"3.1.1 takes its leave", "10 ( 'MQTT' 04 02 003c 'a' )", "e0 ( )", false, `{"initiatedByClient":true,"disconnectPacket":{"code":0,"userProperties":null}}`},
		{"5.0 takes its leave", "10 ( 'MQTT' 05 02 003c ( ) 'a' )", "e0 ( )", false, `{"initiatedByClient":true,"disconnectPacket":{"code":0,"userProperties":null}}`},
		{"5.0 takes its leave with properties", "10 ( 'MQTT' 05 02 003c ( ) 'a' )", "e0 ( 00 ( 1f 'bye' 26 'b' '' ) )", false, `{"initiatedByClient":true,"disconnectPacket":{"code":0,"userProperties":[{"name":"b","value":""}]}}`},
		{"5.0 takes its leave with a code", "10 ( 'MQTT' 05 02 003c ( ) 'a' )", "e0 ( 04 )", false, `{"initiatedByClient":true,"disconnectPacket":{"code":4,"userProperties":null}}`},
		{"5.0 breaks the protocol", "10 ( 'MQTT' 05 02 003c ( ) 'a' )", "f0 ( )", false, `{"initiatedByClient":false,"disconnectPacket":{"code":130,"userProperties":null}}`},
		{"3.1.1 breaks the protocol", "10 ( 'MQTT' 04 02 003c 'a' )", "f0 ( )", false, `{"initiatedByClient":false,"disconnectPacket":null}`},
		{"a server closes", "10 ( 'MQTT' 05 02 003c ( ) 'a' )", "", true, `{"initiatedByClient":false,"disconnectPacket":null}`},
		{"lost", "10 ( 'MQTT' 05 02 003c ( ) 'a' )", "", false, `{"initiatedByClient":false,"disconnectPacket":null}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.connect(t, engine.Identity{})
			c.packets(tc.connect)
			if _, _, err := c.read(); err != nil {
				t.Fatal(err)
			}
			await(t, posts, "connect")
			await(t, posts, "connected")
			switch {
			case tc.server:
				if err := s.engine.Hub("chat").CloseConn(t.Context(), "a", ""); err != nil {
					t.Fatal(err)
				}
			case tc.end == "":
				c.Close()
			default:
				c.packets(tc.end)
			}
			if got := member(t, await(t, posts, "disconnected").body); got != tc.want {
				t.Errorf("it says %s, want %s", got, tc.want)
			}
		})
	}
}

// What a connect handler's refusal says to the client.
func TestConnectRefusedByHandler(t *testing.T) {
	status, body := 0, ""
	s, posts := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	const v4, v5 = "10 ( 'MQTT' 04 02 003c 'a' )", "10 ( 'MQTT' 05 02 003c ( ) 'a' )"
	for _, tc := range []struct {
		name, packet string
		status       int
		body, want   string
	}{
		{"5.0, in its words", v5, 403, `{"mqtt":{"code":138,"reason":"no","userProperties":[{"name":"a","value":"1"}]}}`, "20 ( 00 8a ( 1f 'no' 26 'a' '1' ) )"},
		{"5.0, a code that is none", v5, 401, `{"mqtt":{"code":1}}`, "20 ( 00 80 ( ) )"},
		{"5.0, a code of another packet", v5, 401, `{"mqtt":{"code":142}}`, "20 ( 00 80 ( ) )"},
		{"5.0, 400", v5, 400, ``, "20 ( 00 86 ( ) )"},
		{"5.0, 401", v5, 401, `go away`, "20 ( 00 87 ( ) )"},
		{"5.0, 403", v5, 403, ``, "20 ( 00 80 ( ) )"},
		{"5.0, 429", v5, 429, `{}`, "20 ( 00 80 ( ) )"},
		{"5.0, properties that no packet can hold", v5, 401, `{"mqtt":{"code":135,"userProperties":[{"name":"\u0000","value":"1"}]}}`, "20 ( 00 87 ( ) )"},
		{"5.0, nonsense", v5, 401, `{"mqtt":"no"}`, "20 ( 00 87 ( ) )"},
		{"3.1.1, in its words", v4, 403, `{"mqtt":{"code":4,"reason":"no"}}`, "20 ( 00 04 )"},
		{"3.1.1, a code of 5.0", v4, 403, `{"mqtt":{"code":135}}`, "20 ( 00 03 )"},
		{"3.1.1, 400", v4, 400, ``, "20 ( 00 04 )"},
		{"3.1.1, 401", v4, 401, ``, "20 ( 00 05 )"},
		{"3.1.1, 403", v4, 403, ``, "20 ( 00 03 )"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, body = tc.status, tc.body
			c := s.connect(t, engine.Identity{})
			c.packets(tc.packet)
			c.want(tc.want)
			c.want("close 1000")
			await(t, posts, "connect")
		})
	}
	t.Run("another subprotocol", func(t *testing.T) {
		status, body = 200, `{"subprotocol":"json.webpubsub.azure.v1"}`
		c := s.connect(t, engine.Identity{})
		c.packets(v4)
		c.want("20 ( 00 03 )")
		await(t, posts, "connect")
		await(t, posts, "disconnected")
	})
}

// User events and their answers, over HTTP.
func TestUserEvents(t *testing.T) {
	s, posts := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("ce-eventName") {
		case "good":
			w.Header().Set("Content-Type", "image/png")
			w.Header().Add("mqtt-B", "2")
			w.Header().Add("mqtt-a", "1")
			w.Header().Add("mqtt-a", "3")
			io.WriteString(w, "pixels")
		case "bad":
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(422)
			io.WriteString(w, "no")
		case "empty":
			w.WriteHeader(204)
		}
	})
	c := s.connect(t, engine.Identity{UserID: "ann"}) // who needs no role for events
	c.packets("10 ( 'MQTT' 05 02 003c ( ) 'ann1' )")
	c.want(connack5)
	await(t, posts, "connect")
	await(t, posts, "connected")

	c.packets("32 ( '$webpubsub/server/events/good' 0001 ( 03 'image/gif' 09 'c1' 26 'Key' 'v' 26 'x' 'y' ) \"gif\" )")
	c.want("32 ( '$webpubsub/server/events/good/succeeded' 0001 ( 03 'image/png' 09 'c1' 26 'azure-status-code' '200' 26 'a' '1' 26 'a' '3' 26 'b' '2' ) \"pixels\" )")
	c.want("40 ( 0001 )")
	p := await(t, posts, "good")
	if got, want := fmt.Sprint(p.body, p.header.Get("Content-Type"), p.header.Get("mqtt-key"), p.header.Get("mqtt-x")), "gifimage/gifvy"; got != want {
		t.Errorf("the server got %s, want %s", got, want)
	}

	c.packets("34 ( '$webpubsub/server/events/bad' 0002 ( ) \"x\" )")
	c.want("34 ( '$webpubsub/server/events/bad/failed' 0002 ( 03 'text/plain' 26 'azure-status-code' '422' ) \"no\" )")
	c.want("50 ( 0002 )")
	if p := await(t, posts, "bad"); p.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("bytes without a content type came as %s", p.header.Get("Content-Type"))
	}

	c.packets("30 ( '$webpubsub/server/events/empty' ( ) \"x\" )")
	c.want("30 ( '$webpubsub/server/events/empty/succeeded' ( 26 'azure-status-code' '204' ) )")
	await(t, posts, "empty")

	for _, tc := range []struct{ name, packet, want string }{
		{"a name with a slash", "32 ( '$webpubsub/server/events/a/b' 0003 ( ) )", "40 ( 0003 90 )"},
		{"no name", "32 ( '$webpubsub/server/events/' 0003 ( ) )", "40 ( 0003 90 )"},
		{"no media type", "32 ( '$webpubsub/server/events/good' 0003 ( 03 'a b' ) )", "40 ( 0003 99 )"},
	} {
		c.packets(tc.packet)
		if err := c.check(tc.want); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	// What cannot be a header fails before the server sees it.
	c.packets("32 ( '$webpubsub/server/events/good' 0004 ( 26 'a b' '1' ) )")
	c.want("32 ( '$webpubsub/server/events/good/failed' 0003 ( 26 'azure-status-code' '500' ) )")
	c.want("40 ( 0004 )")
	if len(posts) > 0 {
		t.Errorf("the server got %v", <-posts)
	}
}

// A handler in Go sees what HTTP shows, and may answer in plain terms.
func TestEventsInGo(t *testing.T) {
	h := &enginetest.Handler{Answer: engine.HandlerFuncs{
		OnConnect: func(_ context.Context, e *engine.ConnectEvent) (*engine.ConnectReply, error) {
			d, ok := e.Details.(*mqtt.Details)
			if !ok || d.Connect.Username == nil || *d.Connect.Username != "u" {
				return nil, &engine.Error{Status: 401, Reply: &mqtt.Answer{Code: 138, Reason: "who are you?"}}
			}
			return &engine.ConnectReply{Details: &mqtt.Answer{UserProperties: []mqtt.Property{{Name: "hi", Value: "u"}}}}, nil
		},
		OnUserEvent: func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
			switch e.Name {
			case "echo":
				return &engine.EventReply{Payload: &e.Payload}, nil
			case "fail":
				return nil, errors.New("no")
			}
			return nil, nil
		},
	}}
	s := serve(t, handled(h), false)
	c := s.connect(t, engine.Identity{})
	c.packets("10 ( 'MQTT' 05 02 003c ( ) 'a' )")
	c.want("20 ( 00 8a ( 1f 'who are you?' ) )")
	c = s.connect(t, engine.Identity{})
	c.packets("10 ( 'MQTT' 05 82 003c ( ) 'a' 'u' )")
	c.want("20 ( 00 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 26 'hi' 'u' ) )")
	c.packets("30 ( '$webpubsub/server/events/echo' ( 03 'text/plain' ) \"hi\" )")
	c.want("30 ( '$webpubsub/server/events/echo/succeeded' ( 03 'text/plain' 26 'azure-status-code' '200' ) \"hi\" )")
	c.packets("30 ( '$webpubsub/server/events/fail' ( ) )")
	c.want("30 ( '$webpubsub/server/events/fail/failed' ( 26 'azure-status-code' '500' ) )")
	c.packets("30 ( '$webpubsub/server/events/quiet' ( ) )")
	c.want("30 ( '$webpubsub/server/events/quiet/succeeded' ( 26 'azure-status-code' '200' ) )")
}

// answering answers connect events by what *s says then: a status and a body.
func answering(s *string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("ce-eventName") != "connect" {
			return
		}
		status, body, _ := strings.Cut(*s, " ")
		code, _ := strconv.Atoi(status)
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}
