package webhook_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

type signer string

func (s signer) Signature(conn string) string {
	if s == "" {
		return ""
	}
	return string(s) + conn
}

// Every header of the binding, on all four kinds of events, and no header that
// is not meant to be there.
func TestHeaders(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u)+"/{hub}/{event}", &webhook.Options{Origin: "rt.example.com:8080", Signer: signer("sig:")})
	ctx := t.Context()
	always := map[string]string{
		"Ce-Specversion": "1.0", "Ce-Awpsversion": "1.0", "Ce-Source": "/hubs/chat/client/c1", "Ce-Time": "2026-03-04T04:06:07Z",
		"Ce-Signature": "sig:c1", "Ce-Connectionid": "c1", "Ce-Hub": "chat", "Webhook-Request-Origin": "rt.example.com",
		"User-Agent": "Fanfare",
	}
	tests := []struct {
		name string
		send func() error
		uri  string
		body string
		want map[string]string
	}{
		{"connect", func() error {
			_, err := c.Connect(ctx, &engine.ConnectEvent{EventContext: engine.EventContext{Hub: "chat", ConnID: "c1", Time: eventTime}})
			return err
		}, "/chat/connect", `{"claims":{},"query":{},"headers":{},"subprotocols":[],"clientCertificates":[]}`, map[string]string{
			"Ce-Type": "azure.webpubsub.sys.connect", "Ce-Id": "0", "Ce-Eventname": "connect", "Content-Type": "application/json; charset=utf-8",
		}},
		{"connected", func() error {
			e := about(1)
			e.Subprotocol = "json.webpubsub.azure.v1"
			_, err := c.Connected(ctx, &engine.ConnectedEvent{EventContext: e})
			return err
		}, "/chat/connected", `{}`, map[string]string{
			"Ce-Type": "azure.webpubsub.sys.connected", "Ce-Id": "1", "Ce-Eventname": "connected", "Ce-Userid": "ann",
			"Ce-Subprotocol": "json.webpubsub.azure.v1", "Content-Type": "application/json; charset=utf-8",
		}},
		{"disconnected", func() error {
			_, err := c.Disconnected(ctx, &engine.DisconnectedEvent{EventContext: about(7), Reason: `he "left"`})
			return err
		}, "/chat/disconnected", `{"reason":"he \"left\""}`, map[string]string{
			"Ce-Type": "azure.webpubsub.sys.disconnected", "Ce-Id": "7", "Ce-Eventname": "disconnected", "Ce-Userid": "ann",
			"Content-Type": "application/json; charset=utf-8",
		}},
		{"text", func() error { _, err := c.UserEvent(ctx, text("héllo")); return err },
			"/chat/message", "héllo", map[string]string{
				"Ce-Type": "azure.webpubsub.user.message", "Ce-Id": "1", "Ce-Eventname": "message", "Ce-Userid": "ann",
				"Content-Type": "text/plain; charset=utf-8",
			}},
		{"json with metadata", func() error {
			_, err := c.UserEvent(ctx, &engine.UserEvent{EventContext: about(2), Name: "a.b-c",
				Payload: engine.Payload{Type: engine.JSON, Data: []byte(`{ "a" : 1.0 }`)}, Metadata: engine.Metadata{"Trace": "t, 1", "empty": ""}})
			return err
		}, "/chat/a.b-c", `{ "a" : 1.0 }`, map[string]string{
			"Ce-Type": "azure.webpubsub.user.a.b-c", "Ce-Id": "2", "Ce-Eventname": "a.b-c", "Ce-Userid": "ann",
			"Content-Type": "application/json", "X-Webpubsub-Metadata-Trace": "t, 1", "X-Webpubsub-Metadata-Empty": "",
		}},
		{"binary", func() error {
			_, err := c.UserEvent(ctx, &engine.UserEvent{EventContext: about(3), Name: "m", Payload: engine.Payload{Type: engine.Binary, Data: []byte{0, 255}}})
			return err
		}, "/chat/m", "\x00\xff", map[string]string{
			"Ce-Type": "azure.webpubsub.user.m", "Ce-Id": "3", "Ce-Eventname": "m", "Ce-Userid": "ann", "Content-Type": "application/octet-stream",
		}},
		{"protobuf", func() error {
			_, err := c.UserEvent(ctx, &engine.UserEvent{EventContext: about(4), Name: "m", Payload: engine.Payload{Type: engine.Protobuf, Data: []byte("pb")}})
			return err
		}, "/chat/m", "pb", map[string]string{
			"Ce-Type": "azure.webpubsub.user.m", "Ce-Id": "4", "Ce-Eventname": "m", "Ce-Userid": "ann", "Content-Type": "application/x-protobuf",
		}},
		{"metadata without data", func() error {
			_, err := c.UserEvent(ctx, &engine.UserEvent{EventContext: about(5), Name: "m", Metadata: engine.Metadata{"k": "v"}})
			return err
		}, "/chat/m", "", map[string]string{
			"Ce-Type": "azure.webpubsub.user.m", "Ce-Id": "5", "Ce-Eventname": "m", "Ce-Userid": "ann",
			"Content-Type": "text/plain; charset=utf-8", "X-Webpubsub-Metadata-K": "v",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if err := test.send(); err != nil {
				t.Fatal(err)
			}
			r := u.last(t)
			if r.method != "POST" || r.uri != test.uri || r.body != test.body {
				t.Errorf("got %s %s with body %q, want POST %s with %q", r.method, r.uri, r.body, test.uri, test.body)
			}
			if _, err := uuid.Parse(r.header.Get("x-ms-client-request-id")); err != nil {
				t.Errorf("x-ms-client-request-id: %v", err)
			}
			r.header.Del("x-ms-client-request-id")
			r.header.Del("Content-Length")
			want := http.Header{}
			for _, m := range []map[string]string{always, test.want} {
				for k, v := range m {
					want[k] = []string{v}
				}
			}
			if !reflect.DeepEqual(r.header, want) {
				t.Errorf("got headers %v\nwant %v", r.header, want)
			}
		})
	}
	for _, r := range u.Checks() {
		r.header.Del("User-Agent")
		want := http.Header{"Ce-Awpsversion": {"1.0"}, "Webhook-Request-Origin": {"rt.example.com"}}
		if r.uri != "/chat/validate" || r.method != "OPTIONS" || !reflect.DeepEqual(r.header, want) {
			t.Errorf("validation was %s %s %v", r.method, r.uri, r.header)
		}
	}
}

// Names are spelled on the wire as Azure documents them.
func TestHeaderSpelling(t *testing.T) {
	var got http.Header
	c := newClient(t, "http://h.example/", &webhook.Options{Signer: signer("s"), Wrap: func(http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			got = r.Header
			return &http.Response{StatusCode: 200, Header: http.Header{"Webhook-Allowed-Origin": {"*"}}, Body: http.NoBody}, nil
		})
	}})
	e := text("x")
	e.Subprotocol = "p"
	if _, err := c.UserEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ce-specversion", "ce-awpsversion", "ce-type", "ce-source", "ce-id", "ce-time", "ce-signature",
		"ce-connectionId", "ce-hub", "ce-eventName", "ce-userId", "ce-subprotocol", "WebHook-Request-Origin", "x-ms-client-request-id", "Content-Type"} {
		if len(got[name]) != 1 {
			t.Errorf("%s is missing in %v", name, got)
		}
	}
}

func TestSignatureIsAbsentWithoutSigner(t *testing.T) {
	for name, s := range map[string]webhook.Signer{"no signer": nil, "empty signature": signer("")} {
		t.Run(name, func(t *testing.T) {
			u := &upstream{}
			c := newClient(t, serve(t, u), &webhook.Options{Signer: s})
			if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
				t.Fatal(err)
			}
			if got, ok := u.last(t).header["Ce-Signature"]; ok {
				t.Errorf("got ce-signature %q", got)
			}
		})
	}
}

// A user event goes by its own name, also where a system event has the same one.
func TestUserEventNamedLikeASystemEvent(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u)+"/{event}", nil)
	e := text("x")
	e.Name = "connected"
	if _, err := c.UserEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if r := u.last(t); r.uri != "/connected" || r.header.Get("ce-type") != "azure.webpubsub.user.connected" {
		t.Errorf("got %s, ce-type %s", r.uri, r.header.Get("ce-type"))
	}
}

// Only ce-userId may hold more than ASCII; anything else fails at once.
func TestCharacters(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u)+"/{event}", nil)
	tests := []struct {
		name   string
		change func(*engine.UserEvent)
		rule   string
	}{
		{"unicode user", func(e *engine.UserEvent) { e.UserID = "Änne 安" }, ""},
		{"user with a line end", func(e *engine.UserEvent) { e.UserID = "a\r\nX-Evil: 1" }, "event.header"},
		{"unicode event name", func(e *engine.UserEvent) { e.Name = "grüße" }, "event.header"},
		{"unicode subprotocol", func(e *engine.UserEvent) { e.Subprotocol = "ü" }, "event.header"},
		{"unicode connection id", func(e *engine.UserEvent) { e.ConnID = "ü" }, "event.header"},
		{"metadata value", func(e *engine.UserEvent) { e.Metadata = engine.Metadata{"k": "ü"} }, "event.metadata"},
		{"metadata key", func(e *engine.UserEvent) { e.Metadata = engine.Metadata{"k k": "v"} }, "event.metadata"},
		{"metadata key too long", func(e *engine.UserEvent) { e.Metadata = engine.Metadata{strings.Repeat("k", 257): "v"} }, "event.metadata"},
		{"metadata value too long", func(e *engine.UserEvent) { e.Metadata = engine.Metadata{"k": strings.Repeat("v", 1025)} }, "event.metadata"},
		{"metadata too much", func(e *engine.UserEvent) {
			e.Metadata = engine.Metadata{}
			for i := range 9 {
				e.Metadata[fmt.Sprint("k", i)] = strings.Repeat("v", 1000)
			}
		}, "event.metadata"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := text("x")
			test.change(e)
			before := len(u.Posts())
			_, err := c.UserEvent(t.Context(), e)
			if test.rule != "" {
				refusal(t, err, test.rule)
				if n := len(u.Posts()); n != before {
					t.Errorf("%d requests were sent", n-before)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := u.last(t).header.Get("ce-userId"); got != string(e.UserID) {
				t.Errorf("got ce-userId %q", got)
			}
		})
	}
}

func TestMetadataKeysThatDifferInCaseAreSentOnce(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u), nil)
	e := text("x")
	e.Metadata = engine.Metadata{"Key": "upper", "key": "lower"}
	if _, err := c.UserEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got := u.last(t).header["X-Webpubsub-Metadata-Key"]; !reflect.DeepEqual(got, []string{"lower"}) {
		t.Errorf("got %q", got)
	}
}

// Registered names of headers have the registry's spelling in the connect event,
// all others are in lower case, however the embedder's transport spells them.
func TestConnectHeaderNames(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u), nil)
	for given, want := range map[string]string{
		"Sec-Websocket-Key":        "Sec-WebSocket-Key",
		"Sec-Websocket-Protocol":   "Sec-WebSocket-Protocol",
		"Sec-Websocket-Version":    "Sec-WebSocket-Version",
		"Sec-Websocket-Extensions": "Sec-WebSocket-Extensions",
		"sec-websocket-key":        "Sec-WebSocket-Key",
		"User-Agent":               "User-Agent",
		"user-agent":               "User-Agent",
		"Origin":                   "Origin",
		"Host":                     "Host",
		"Te":                       "TE",
		"Dnt":                      "DNT",
		"Sec-Gpc":                  "Sec-GPC",
		"Dpop":                     "DPoP",
		"Http2-Settings":           "HTTP2-Settings",
		"Header1":                  "header1",
		"Failure":                  "failure",
		"X-Custom":                 "x-custom",
		"X-Forwarded-For":          "x-forwarded-for",
		"Sec-Websocket-Keys":       "sec-websocket-keys",
		"a name with blanks":       "a name with blanks",
	} {
		_, err := c.Connect(t.Context(), &engine.ConnectEvent{
			EventContext: engine.EventContext{Hub: "chat", ConnID: "c1", Time: eventTime},
			Header:       map[string][]string{given: {"a", "b"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ Headers map[string][]string }
		if err := json.Unmarshal([]byte(u.last(t).body), &body); err != nil {
			t.Fatal(err)
		}
		if want := (map[string][]string{want: {"a", "b"}}); !reflect.DeepEqual(body.Headers, want) {
			t.Errorf("%s: the event has %v, want %v", given, body.Headers, want)
		}
	}
}

// Two spellings of one name, which only an embedder's transport can hand over,
// are one member with the values of both.
func TestConnectHeaderNamesThatAreEqual(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u), nil)
	_, err := c.Connect(t.Context(), &engine.ConnectEvent{
		EventContext: engine.EventContext{Hub: "chat", ConnID: "c1", Time: eventTime},
		Header:       map[string][]string{"FAILURE": {"1"}, "Failure": {"2", "3"}, "failure": nil, "x-empty": nil},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := u.last(t).body, `"headers":{"failure":["1","2","3"],"x-empty":[]}`; !strings.Contains(got, want) {
		t.Errorf("the event is %s, want %s in it", got, want)
	}
}

// All five members, without the client's credential, and nothing of the
// client's headers outside the body.
func TestConnectBody(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{}
	c := newClient(t, serve(t, u), nil)
	_, err = c.Connect(t.Context(), &engine.ConnectEvent{
		EventContext:     engine.EventContext{Hub: "chat", ConnID: "c1", UserID: "ann", Time: eventTime},
		Claims:           map[string][]string{"sub": {"ann"}, "custom": {"one", "<two>"}, "none": nil},
		Query:            map[string][]string{"tag": {"a", "b"}, "access_token": {"secret"}, "Access_Token": {"secret"}, "empty": nil},
		Header:           map[string][]string{"X-Custom": {"value"}, "Cookie": {"k=v"}, "Authorization": {"Bearer secret"}, "authorization": {"secret"}, "X-ASRS-Internal-A": {"secret"}, "X-Asrs-Internal-B": {"secret"}},
		Subprotocols:     []string{"json.webpubsub.azure.v1", "other"},
		PeerCertificates: []*x509.Certificate{cert, cert},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := u.last(t)
	if strings.Contains(r.body, "secret") {
		t.Errorf("the body holds a credential: %s", r.body)
	}
	if r.header.Get("Cookie") != "" || r.header.Get("X-Custom") != "" || r.header.Get("ce-subprotocol") != "" {
		t.Errorf("headers of the client were sent: %v", r.header)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(r.body), &got); err != nil {
		t.Fatal(err)
	}
	certs, _ := got["clientCertificates"].([]any)
	delete(got, "clientCertificates")
	want := map[string]any{
		"claims":       map[string]any{"sub": []any{"ann"}, "custom": []any{"one", "<two>"}, "none": []any{}},
		"query":        map[string]any{"tag": []any{"a", "b"}, "empty": []any{}},
		"headers":      map[string]any{"x-custom": []any{"value"}, "Cookie": []any{"k=v"}},
		"subprotocols": []any{"json.webpubsub.azure.v1", "other"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if len(certs) != 1 {
		t.Fatalf("got %d certificates, want the leaf alone", len(certs))
	}
	shown := certs[0].(map[string]any)
	sum := sha1.Sum(der)
	if shown["thumbprint"] != hex.EncodeToString(sum[:]) {
		t.Errorf("got thumbprint %v", shown["thumbprint"])
	}
	content := shown["content"].(string)
	if !strings.HasPrefix(content, "-----BEGIN CERTIFICATE-----\r\n") || !strings.HasSuffix(content, "\r\n-----END CERTIFICATE-----") {
		t.Errorf("got content %q", content)
	}
	if block, _ := pem.Decode([]byte(content)); block == nil || !reflect.DeepEqual(block.Bytes, der) {
		t.Error("the content is not the certificate")
	}
}

func ptr[T any](v T) *T { return &v }

// What each form of a reply to connect means, whatever its Content-Type.
func TestConnectReplies(t *testing.T) {
	user := func(s string) *engine.UserID { return ptr(engine.UserID(s)) }
	tests := []struct {
		name, body string
		want       *engine.ConnectReply
	}{
		{"empty body", "", nil},
		{"blank body", " \n", nil},
		{"null", " null ", nil},
		{"empty object", "{}", &engine.ConnectReply{}},
		{"all members", `{"userId":"bo","roles":["r"],"groups":["g","h"],"subprotocol":"p","unknown":{"a":1}}`,
			&engine.ConnectReply{UserID: user("bo"), Roles: []string{"r"}, Groups: []engine.GroupName{"g", "h"}, Subprotocol: "p"}},
		{"names in any case", `{"USERID":"bo","Roles":["r"],"SubProtocol":"p"}`,
			&engine.ConnectReply{UserID: user("bo"), Roles: []string{"r"}, Subprotocol: "p"}},
		{"empty userId clears the user", `{"userId":""}`, &engine.ConnectReply{UserID: user("")}},
		{"null keeps", `{"userId":null,"roles":null,"groups":null,"subprotocol":null}`, &engine.ConnectReply{}},
		{"empty roles remove all, empty groups keep", `{"roles":[],"groups":[]}`, &engine.ConnectReply{Roles: []string{}}},
		{"byte order mark", "\ufeff{\"userId\":\"bo\"}", &engine.ConnectReply{UserID: user("bo")}},
	}
	for _, contentType := range []string{"application/json", "text/plain", ""} {
		for _, test := range tests {
			t.Run(test.name+"/"+contentType, func(t *testing.T) {
				u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
					w.Header()["Content-Type"] = nil
					if contentType != "" {
						w.Header().Set("Content-Type", contentType)
					}
					fmt.Fprint(w, test.body)
				}}
				c := newClient(t, serve(t, u), nil)
				got, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: about(0)})
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(got, test.want) {
					t.Errorf("got %+v, want %+v", got, test.want)
				}
			})
		}
	}
}

// A reply to connect that cannot be understood has no status of its own, so
// that the client gets 500, and is not asked for again.
func TestBadConnectReplies(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON": "hello", "array": "[]", "string": `"x"`, "cut": `{"userId":"b`, "trailing": "{} {}", "wrong type": `{"userId":5}`,
		"null group": `{"groups":[null]}`, "blank group": `{"groups":[" "]}`, "long group": `{"groups":["` + strings.Repeat("g", 1025) + `"]}`,
		"null role": `{"roles":["a",null]}`, "blank user": `{"userId":"  "}`, "user with a line end": `{"userId":"a\r\nX-Evil: 1"}`, "user with a NUL": `{"userId":"a\u0000"}`, "subprotocol with a line end": `{"subprotocol":"a\r\nb"}`,
		"too long": `{"x":"` + strings.Repeat("x", 16<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }}
			c := newClient(t, serve(t, u), nil)
			_, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: about(0)})
			if e := refusal(t, err, "event.reply"); e.Status != 0 || e.Code != engine.CodeInternal {
				t.Errorf("got status %d, code %v", e.Status, e.Code)
			}
			if n := len(u.Posts()); n != 1 {
				t.Errorf("got %d requests, want 1", n)
			}
		})
	}
}

// The handler's status reaches the caller unread, its body does not, redirects
// are not followed, and none of these is tried again.
func TestStatusPassesThrough(t *testing.T) {
	for _, status := range []int{301, 302, 307, 400, 401, 403, 404, 429, 499, 600} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.Header().Set("ce-connectionState", "ignored")
				w.WriteHeader(status)
				fmt.Fprint(w, "the handler's own words")
			}}
			c := newClient(t, serve(t, u), nil)
			reply, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: about(0)})
			e := refusal(t, err, "event.status")
			if e.Status != status || e.Code != engine.CodeInternal || reply != nil {
				t.Errorf("got status %d, code %v, reply %v", e.Status, e.Code, reply)
			}
			if all := e.Error() + e.Detail; strings.Contains(all, "own words") {
				t.Errorf("the body is in the error: %s", all)
			}
			if _, err := c.UserEvent(t.Context(), text("x")); refusal(t, err, "event.status").Status != status {
				t.Errorf("user event: %v", err)
			}
			if _, err := c.Connected(t.Context(), &engine.ConnectedEvent{EventContext: about(1)}); refusal(t, err, "event.status").Status != status {
				t.Errorf("connected: %v", err)
			}
			if _, err := c.Disconnected(t.Context(), &engine.DisconnectedEvent{EventContext: about(2)}); refusal(t, err, "event.status").Status != status {
				t.Errorf("disconnected: %v", err)
			}
			if n := len(u.Posts()); n != 4 {
				t.Errorf("got %d requests for 4 events", n)
			}
		})
	}
}

// What the forms of a reply to a user event mean for the client.
func TestUserEventReplies(t *testing.T) {
	const none = "(none)"
	payload := func(ty engine.DataType, s string) *engine.Payload {
		return &engine.Payload{Type: ty, Data: []byte(s)}
	}
	tests := []struct {
		name        string
		status      int
		contentType string
		body        string
		metadata    []string // values of x-webpubsub-metadata-KEY
		want        *engine.EventReply
	}{
		{"204", 204, none, "", nil, nil},
		{"JS success without data", 200, "application/octet-stream", "", nil, nil},
		{"unknown type, empty body", 200, "image/png", "", nil, nil},
		{"text", 200, "text/plain", "hi", nil, &engine.EventReply{Payload: payload(engine.Text, "hi")}},
		{"text with a parameter", 200, "Text/PLAIN; charset=utf-8", "hi", nil, &engine.EventReply{Payload: payload(engine.Text, "hi")}},
		{"json keeps its spelling", 202, "application/json;x=y", `{ "a":1.0 }`, nil, &engine.EventReply{Payload: payload(engine.JSON, `{ "a":1.0 }`)}},
		{"binary", 200, "application/octet-stream", "\x00\xff", nil, &engine.EventReply{Payload: payload(engine.Binary, "\x00\xff")}},
		{"no type is binary", 200, none, "hi", nil, &engine.EventReply{Payload: payload(engine.Binary, "hi")}},
		{"protobuf", 200, "application/x-protobuf", "pb", nil, &engine.EventReply{Payload: payload(engine.Protobuf, "pb")}},
		{"metadata alone is an empty text", 200, "application/octet-stream", "", []string{"v"},
			&engine.EventReply{Payload: payload(engine.Text, ""), Metadata: engine.Metadata{"key": "v"}}},
		{"of repeated metadata the last part of the last", 200, "text/plain", "hi", []string{"first", "a, b"},
			&engine.EventReply{Payload: payload(engine.Text, "hi"), Metadata: engine.Metadata{"key": "b"}}},
		{"an empty last part", 200, "text/plain", "hi", []string{"a,"},
			&engine.EventReply{Payload: payload(engine.Text, "hi"), Metadata: engine.Metadata{"key": ""}}},
		{"16 MiB", 200, "text/plain", strings.Repeat("x", 16<<20), nil, &engine.EventReply{Payload: payload(engine.Text, strings.Repeat("x", 16<<20))}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Content-Type"] = nil
				if test.contentType != none {
					w.Header().Set("Content-Type", test.contentType)
				}
				for _, v := range test.metadata {
					w.Header().Add("X-WebPubSub-Metadata-KEY", v)
				}
				w.Header().Set("x-webpubsub-metadata-", "an empty key is ignored")
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			}}
			c := newClient(t, serve(t, u), nil)
			got, err := c.UserEvent(t.Context(), text("x"))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestBadUserEventReplies(t *testing.T) {
	tests := []struct {
		name, contentType, body string
		header                  [2]string
	}{
		{"unknown type", "image/png", "x", [2]string{}},
		{"not JSON", "application/json", "{", [2]string{}},
		{"JSON that is not UTF-8", "application/json", "\"\xff\"", [2]string{}},
		{"text that is not UTF-8", "text/plain", "\xff", [2]string{}},
		{"too long", "text/plain", strings.Repeat("x", 16<<20+1), [2]string{}},
		{"state that no header can carry", "text/plain", "", [2]string{"ce-connectionState", "ü"}},
		{"state too long", "text/plain", "", [2]string{"ce-connectionState", strings.Repeat("s", 16<<10+1)}},
		{"metadata that is not UTF-8", "text/plain", "", [2]string{"x-webpubsub-metadata-k", "\xff"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", test.contentType)
				if test.header[0] != "" {
					w.Header().Set(test.header[0], test.header[1])
				}
				fmt.Fprint(w, test.body)
			}}
			c := newClient(t, serve(t, u), nil)
			reply, err := c.UserEvent(t.Context(), text("x"))
			refusal(t, err, "event.reply")
			if reply != nil {
				t.Errorf("got a reply %+v beside the error", reply)
			}
			if n := len(u.Posts()); n != 1 {
				t.Errorf("got %d requests, want 1", n)
			}
		})
	}
}

// A connection's state: set by successful blocking events, an empty one kept
// apart from none, echoed with all later events.
func TestConnectionState(t *testing.T) {
	var set []string // the next reply's ce-connectionState headers
	status := 204
	u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
		for _, s := range set {
			w.Header().Add("ce-connectionState", s)
		}
		w.WriteHeader(status)
	}}
	c := newClient(t, serve(t, u), nil)
	ctx := t.Context()

	set = []string{"first"}
	reply, err := c.Connect(ctx, &engine.ConnectEvent{EventContext: about(0)})
	if err != nil {
		t.Fatal(err)
	}
	state := reply.State

	// raise sends an event, returns what it echoed, and lets the reply change the state.
	raise := func() (echo []string, err error) {
		e := text("x")
		e.State = state
		reply, err := c.UserEvent(ctx, e)
		if err == nil && reply != nil && reply.UpdateState != nil {
			state = reply.UpdateState(state)
		}
		return u.last(t).header["Ce-Connectionstate"], err
	}
	want := func(what string, want ...string) {
		t.Helper()
		set := set
		if got, _ := raise(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q (next %q)", what, got, want, set)
		}
	}

	set = nil
	want("state of connect", "first")
	want("absent keeps", "first")
	set = []string{""}
	want("until it is replaced", "first")
	set = []string{"one", "two"}
	want("an empty state is sent as an empty header", "")
	set = []string{"lost"}
	status = 400
	want("the last of repeated headers counts", "two")
	set, status = []string{"ignored"}, 204
	notify, err := c.Connected(ctx, &engine.ConnectedEvent{EventContext: about(1)})
	if err != nil || notify != nil {
		t.Errorf("connected: got %v, %v; its state should be ignored", notify, err)
	}
	notify, err = c.Disconnected(ctx, &engine.DisconnectedEvent{EventContext: about(1)})
	if err != nil || notify != nil {
		t.Errorf("disconnected: got %v, %v; its state should be ignored", notify, err)
	}
	set = nil
	want("a failed reply, and notifications, changed nothing", "two")

	state = nil
	set = nil
	if got, _ := raise(); got != nil {
		t.Errorf("without a state got %q", got)
	}
	state = engine.HandlerState("made by something else")
	if got, err := raise(); got != nil || err != nil {
		t.Errorf("with a foreign state got %q, %v", got, err)
	}
}

// Cookies of connect come back with the connection's events, not with those of
// another one and not with validations.
func TestCookiesFollowTheConnection(t *testing.T) {
	status := 204
	var set []string
	u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
		for _, s := range set {
			w.Header().Add("Set-Cookie", s)
		}
		w.WriteHeader(status)
	}, validate: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WebHook-Allowed-Origin", "*")
		w.Header().Set("Set-Cookie", "validation=1")
	}}
	url := serve(t, u)
	c := newClient(t, url+"/{event}", nil)
	ctx := t.Context()

	set = []string{"a=1; Path=/", "b=2; Path=/message", "c=3; Path=/elsewhere", "d=4; Domain=example.com", "e=5; Max-Age=0"}
	connect, err := c.Connect(ctx, &engine.ConnectEvent{EventContext: about(0)})
	if err != nil {
		t.Fatal(err)
	}
	set = nil
	e := text("x")
	e.State = connect.State
	if _, err := c.UserEvent(ctx, e); err != nil {
		t.Fatal(err)
	}
	if got := u.last(t).header.Get("Cookie"); got != "b=2; a=1" {
		t.Errorf("got Cookie %q, want the longer path first, and no other", got)
	}
	if _, ok := u.last(t).header["Ce-Connectionstate"]; ok {
		t.Error("cookies alone made a connection state")
	}

	// A failed reply sets none.
	set, status = []string{"f=6; Path=/"}, 400
	if reply, err := c.UserEvent(ctx, e); err == nil || reply != nil {
		t.Errorf("got %v, %v", reply, err)
	}
	// Those of a notification count, and may remove.
	set, status = []string{"g=7; Path=/", "a=; Path=/; Max-Age=-1"}, 200
	notify, err := c.Connected(ctx, &engine.ConnectedEvent{EventContext: about(1)})
	if err != nil || notify == nil {
		t.Fatal(notify, err)
	}
	set = nil
	e.State = notify.UpdateState(connect.State)
	if _, err := c.UserEvent(ctx, e); err != nil {
		t.Fatal(err)
	}
	if got := u.last(t).header.Get("Cookie"); got != "b=2; g=7" {
		t.Errorf("got Cookie %q", got)
	}
	// Another connection has none, nor has a validation.
	if _, err := c.UserEvent(ctx, text("x")); err != nil {
		t.Fatal(err)
	}
	if got := u.last(t).header.Get("Cookie"); got != "" {
		t.Errorf("another connection sent %q", got)
	}
	second := newClient(t, url+"/second/{event}", nil)
	if _, err := second.UserEvent(ctx, e); err != nil {
		t.Fatal(err)
	}
	for _, r := range u.Checks() {
		if r.header.Get("Cookie") != "" {
			t.Errorf("a validation sent cookies: %v", r.header)
		}
	}
}

// Replies that race each change only what they speak about.
func TestRacingRepliesMerge(t *testing.T) {
	u := &upstream{reply: func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("ce-eventName") {
		case "connected":
			w.Header().Set("Set-Cookie", "from=connected; Path=/")
		case "message":
			w.Header().Set("ce-connectionState", "from message")
			w.Header().Set("Set-Cookie", "of=message; Path=/")
		}
	}}
	c := newClient(t, serve(t, u), nil)
	ctx := t.Context()
	connected, err := c.Connected(ctx, &engine.ConnectedEvent{EventContext: about(1)})
	if err != nil {
		t.Fatal(err)
	}
	message, err := c.UserEvent(ctx, text("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, order := range map[string][]func(engine.HandlerState) engine.HandlerState{
		"connected first": {connected.UpdateState, message.UpdateState},
		"message first":   {message.UpdateState, connected.UpdateState},
	} {
		t.Run(name, func(t *testing.T) {
			e := text("x")
			for _, update := range order {
				e.State = update(e.State)
			}
			if _, err := c.UserEvent(ctx, e); err != nil {
				t.Fatal(err)
			}
			h := u.last(t).header
			if got := h.Get("Cookie"); !strings.Contains(got, "from=connected") || !strings.Contains(got, "of=message") {
				t.Errorf("got Cookie %q", got)
			}
			if got := h.Get("ce-connectionState"); got != "from message" {
				t.Errorf("got state %q", got)
			}
		})
	}
}

// What a server may attach to a connection is bounded.
func TestCookiesAreBounded(t *testing.T) {
	n := 0
	u := &upstream{reply: func(w http.ResponseWriter, r *http.Request) {
		for range 20 {
			w.Header().Add("Set-Cookie", fmt.Sprintf("c%d=%s; Path=/", n, strings.Repeat("v", 100)))
			n++
		}
		w.Header().Add("Set-Cookie", fmt.Sprintf("huge=%s; Path=/", strings.Repeat("v", 5000)))
	}}
	c := newClient(t, serve(t, u), nil)
	e := text("x")
	for range 10 {
		reply, err := c.UserEvent(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		e.State = reply.UpdateState(e.State)
	}
	if len(e.State) > 20<<10 {
		t.Errorf("the state has %d bytes", len(e.State))
	}
	if _, err := c.UserEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	cookies := strings.Split(u.last(t).header.Get("Cookie"), "; ")
	if len(cookies) != 50 || !strings.HasPrefix(cookies[0], "c150=") || !strings.HasPrefix(cookies[49], "c199=") {
		t.Errorf("got %d cookies, from %.5s to %.5s, want the 50 youngest", len(cookies), cookies[0], cookies[len(cookies)-1])
	}
}

func TestExpiredCookiesAreNotSent(t *testing.T) {
	u := &upstream{reply: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "past=1; Expires="+time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
		w.Header().Add("Set-Cookie", "future=1; Expires="+time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	}}
	c := newClient(t, serve(t, u), nil)
	e := text("x")
	reply, err := c.UserEvent(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	e.State = reply.UpdateState(nil)
	if _, err := c.UserEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	if got := u.last(t).header.Get("Cookie"); got != "future=1" {
		t.Errorf("got %q", got)
	}
}
