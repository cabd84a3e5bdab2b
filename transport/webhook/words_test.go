package webhook_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

// spoken are the details of a connection of some protocol.
type spoken struct{ link string }

var _ webhook.Words = spoken{}

func (s spoken) EventSource() string { return s.link }

func (s spoken) EventHeaders(event string) [][2]string {
	return [][2]string{{"ce-linkId", s.link}, {"x-event", event}}
}

func (s spoken) EventMember(event string) (string, any) {
	if event == engine.SystemConnected {
		return "", nil
	}
	return "proto", map[string]string{"link": s.link}
}

func (s spoken) ReadReply(status int, member json.RawMessage) (any, error) {
	if string(member) == `"bad"` {
		return nil, errors.New("bad")
	}
	return fmt.Sprintf("%d %s", status, member), nil
}

// passed are the attributes of a user event that passes everything on.
type passed struct {
	contentType string
	headers     [][2]string
}

var _ webhook.Exchange = passed{}

func (p passed) ContentType() string       { return p.contentType }
func (p passed) EventHeaders() [][2]string { return p.headers }
func (p passed) ReadReply(status int, h http.Header, body []byte) any {
	return fmt.Sprintf("%d %s %s", status, h.Get("Content-Type"), body)
}

// What a connection's details have to say stands in each of its events.
func TestWordsOfAProtocol(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u)+"/{event}", nil)
	ctx := about(0)
	ctx.Details = spoken{"l7"}
	for _, tc := range []struct {
		event string
		send  func() error
		body  string // what the JSON body must hold
	}{
		{"connect", func() error { _, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: ctx}); return err },
			`"clientCertificates":[],"proto":{"link":"l7"}}`},
		{"connected", func() error {
			_, err := c.Connected(t.Context(), &engine.ConnectedEvent{EventContext: ctx})
			return err
		},
			`{}`},
		{"disconnected", func() error {
			_, err := c.Disconnected(t.Context(), &engine.DisconnectedEvent{EventContext: ctx, Reason: "bye"})
			return err
		}, `{"reason":"bye","proto":{"link":"l7"}}`},
		{"", func() error {
			_, err := c.UserEvent(t.Context(), &engine.UserEvent{EventContext: ctx, Name: "e", Payload: engine.Payload{Data: []byte("x")}})
			return err
		}, "x"},
	} {
		if err := tc.send(); err != nil {
			t.Fatalf("%s: %v", tc.event, err)
		}
		r := u.last(t)
		if !strings.HasSuffix(r.body, tc.body) {
			t.Errorf("%s: the body is %s, want %s at its end", tc.event, r.body, tc.body)
		}
		got := []string{r.header.Get("ce-source"), r.header.Get("ce-linkId"), r.header.Get("x-event")}
		if want := []string{"/hubs/chat/client/c1/l7", "l7", tc.event}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the headers say %q, want %q", tc.event, got, want)
		}
	}
}

// The protocol's member of a reply to connect reaches its door, of a refusal too.
func TestWordsOfAReply(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		want       any // the details, or the refusal's reply
		rule       string
	}{
		{"accepted", `{"userId":"kim","proto":{"a":1}}`, 200, `200 {"a":1}`, ""},
		{"accepted without a word", ``, 204, `204 `, ""},
		{"accepted with nonsense", `{"proto":"bad"}`, 200, nil, "event.reply"},
		{"refused", `{"proto":{"code":1}}`, 403, `403 {"code":1}`, "event.status"},
		{"refused in text", `go away`, 401, `401 `, "event.status"},
		{"refused with nonsense", `{"proto":"bad"}`, 401, nil, "event.status"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				fmt.Fprint(w, tc.body)
			}}
			c := newClient(t, serve(t, u), nil)
			ctx := about(0)
			ctx.Details = spoken{"l7"}
			reply, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: ctx})
			var got any
			switch {
			case tc.rule == "":
				if err != nil {
					t.Fatal(err)
				}
				got = reply.Details
			default:
				got = refusal(t, err, tc.rule).Reply
			}
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// A user event that passes everything on gets the reply as it is.
func TestExchange(t *testing.T) {
	status := 200
	u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		w.WriteHeader(status)
		fmt.Fprint(w, "pixels")
	}}
	c := newClient(t, serve(t, u), nil)
	e := &engine.UserEvent{EventContext: about(1), Name: "draw", Payload: engine.Payload{Type: engine.Binary, Data: []byte("x")}}
	e.Attributes = passed{"image/gif", [][2]string{{"p-A", "1"}, {"p-A", "2"}}}
	reply, err := c.UserEvent(t.Context(), e)
	if err != nil || reply.Attributes != "200 image/png pixels" || reply.Payload != nil {
		t.Fatalf("got %+v, %v", reply, err)
	}
	r := u.last(t)
	if got := fmt.Sprint(r.header.Get("Content-Type"), r.header["P-A"]); got != "image/gif[1 2]" {
		t.Errorf("the server saw %s", got)
	}
	status = 422
	_, err = c.UserEvent(t.Context(), e)
	if got := refusal(t, err, "event.status"); got.Reply != "422 image/png pixels" || got.Status != 422 {
		t.Errorf("got %d %v", got.Status, got.Reply)
	}
	e.Attributes = passed{}
	status = 200
	if _, err = c.UserEvent(t.Context(), e); err != nil || u.last(t).header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("without a content type: %v, %s", err, u.last(t).header.Get("Content-Type"))
	}
}

// What cannot be a header ends the event before anything is sent.
func TestOwnHeadersRefused(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u), nil)
	for _, tc := range []struct {
		name string
		p    passed
	}{
		{"a name with a blank", passed{headers: [][2]string{{"a b", "1"}}}},
		{"no name", passed{headers: [][2]string{{"", "1"}}}},
		{"a value with a line break", passed{headers: [][2]string{{"a", "1\r\nevil: 1"}}}},
		{"a value that is not ASCII", passed{headers: [][2]string{{"a", "é"}}}},
		{"too much", passed{headers: [][2]string{{"a", strings.Repeat("x", 8<<10)}}}},
		{"a content type with a line break", passed{contentType: "a/b\r\nevil: 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := text("x")
			e.Attributes = tc.p
			_, err := c.UserEvent(t.Context(), e)
			refusal(t, err, "event.header")
		})
	}
	if n := len(u.Posts()); n != 0 {
		t.Errorf("%d events were sent", n)
	}
}
