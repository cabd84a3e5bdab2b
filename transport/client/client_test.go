package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// dial connects with plain JSON, unless o says otherwise: what is told of all
// subprotocols is told without recovery.
func dial(t testing.TB, s *server, o *client.Options) *client.Client {
	t.Helper()
	plain := client.Options{}
	if o != nil {
		plain = *o
	}
	if plain.Subprotocol == "" {
		plain.Subprotocol = client.JSON
	}
	c, err := client.Dial(within(t), s.URL, &plain)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func receive[E client.Event](t testing.TB, c *client.Client) E {
	t.Helper()
	e, err := c.Receive(within(t))
	if err != nil {
		t.Fatalf("Receive: %v", err)
	}
	v, ok := e.(E)
	if !ok {
		t.Fatalf("Receive = %#v, want a %T", e, v)
	}
	return v
}

func text(s string) engine.Payload { return engine.Payload{Type: engine.Text, Data: []byte(s)} }

func TestConversation(t *testing.T) {
	s := serve(t, &server{})
	ctx := within(t)
	ann, bo := dial(t, s, nil), dial(t, s, nil)
	if e := receive[client.Connected](t, ann); e.UserID != "kim" || e.ConnectionID != ann.ConnectionID() || ann.UserID() != "kim" {
		t.Errorf("Connected = %+v, ConnectionID() = %q, UserID() = %q", e, ann.ConnectionID(), ann.UserID())
	}
	receive[client.Connected](t, bo)
	if ann.ConnectionID() == bo.ConnectionID() {
		t.Fatalf("both connections are %q", ann.ConnectionID())
	}
	for _, c := range []*client.Client{ann, bo} {
		if err := c.JoinGroup(ctx, "news"); err != nil {
			t.Fatal(err)
		}
	}

	for _, p := range []engine.Payload{
		text("hé\"llo <&>"),
		{Type: engine.JSON, Data: []byte(`{"n":[1,null]}`)},
		{Type: engine.Binary, Data: []byte{0, 1, 254, 255}},
	} {
		if err := ann.SendToGroup(ctx, "news", p, nil); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*client.Client{ann, bo} {
			m := receive[client.Message](t, c)
			if want := (client.Message{Group: "news", FromUserID: "kim", Payload: p}); !reflect.DeepEqual(m, want) {
				t.Errorf("received %+v, want %+v", m, want)
			}
		}
	}
}

func TestJSONDataKeepsItsSpelling(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		p.say(`{"type":"message","from":"group","group":"news","dataType":"json","data":{"n" : 1.0, "big":9007199254740993}}`)
		return false
	}})
	c := dial(t, s, nil)
	receive[client.Connected](t, c)
	if err := c.JoinGroup(within(t), "news"); err != nil {
		t.Fatal(err)
	}
	if got, want := string(receive[client.Message](t, c).Payload.Data), `{"n" : 1.0, "big":9007199254740993}`; got != want {
		t.Errorf("data = %s, want %s", got, want)
	}
}

func TestNoEchoAndLeave(t *testing.T) {
	s := serve(t, &server{})
	ctx := within(t)
	c := dial(t, s, nil)
	receive[client.Connected](t, c)
	for _, step := range []func() error{
		func() error { return c.JoinGroup(ctx, "news") },
		func() error { return c.SendToGroup(ctx, "news", text("unheard"), &client.SendOptions{NoEcho: true}) },
		func() error { return c.SendToGroup(ctx, "news", text("one"), &client.SendOptions{FireAndForget: true}) },
		func() error { return c.LeaveGroup(ctx, "news") },
		func() error { return c.SendToGroup(ctx, "news", text("unheard"), nil) },
		func() error { return c.JoinGroup(ctx, "news") },
		func() error { return c.SendToGroup(ctx, "news", text("two"), nil) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"one", "two"} {
		if m := receive[client.Message](t, c); string(m.Payload.Data) != want {
			t.Errorf("received %q, want %q", m.Payload.Data, want)
		}
	}
}

func TestEventReplyPrecedesAck(t *testing.T) {
	s := serve(t, &server{})
	c := dial(t, s, nil)
	receive[client.Connected](t, c)
	if err := c.SendEvent(within(t), "order.placed", text("5"), &client.SendOptions{Metadata: map[string]string{"k": "v"}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	// The reply is there already: the ack came behind it.
	for range 2 {
		e, err := c.Receive(ctx)
		if err == context.Canceled {
			continue // select chose the other ready case
		}
		m, ok := e.(client.Message)
		if !ok || m.Group != "" || string(m.Payload.Data) != "reply" || m.Metadata["trace"] != "t-1" {
			t.Fatalf("Receive = %#v, %v", e, err)
		}
		return
	}
	receive[client.Message](t, c)
}

func TestRefusedRequest(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		p.say(`{"type":"ack","ackId":%v,"success":false,"error":{"name":"Forbidden","message":"No permission."}}`, m["ackId"])
		return true
	}})
	c := dial(t, s, nil)
	err := c.JoinGroup(within(t), "news")
	var ack *client.AckError
	if !errors.As(err, &ack) || ack.Name != "Forbidden" || ack.Message != "No permission." {
		t.Fatalf("JoinGroup = %v", err)
	}
}

func TestRequestWithoutAnswer(t *testing.T) {
	got := make(chan struct{}, 1)
	s := serve(t, &server{onFrame: func(*peer, map[string]any) bool { got <- struct{}{}; return true }})
	c := dial(t, s, nil)
	ctx, cancel := context.WithCancel(within(t))
	done := make(chan error)
	go func() { done <- c.JoinGroup(ctx, "news") }()
	<-got
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("JoinGroup = %v, want %v", err, context.Canceled)
	}
	// The end of the connection answers those who wait, too.
	go func() { done <- c.LeaveGroup(within(t), "news") }()
	<-got
	s.peer(0).Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("LeaveGroup = %v, want the loss of the connection", err)
	}
}

func TestRequestsOnTheWire(t *testing.T) {
	frames := make(chan string, 8)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		u := ws.Upgrader{Protocol: func([]byte) bool { return true }}
		u.Upgrade(conn)
		ws.WriteFrame(conn, ws.NewTextFrame([]byte(`{"type":"system","event":"connected","connectionId":"c"}`)))
		for {
			f, err := ws.ReadFrame(conn)
			if err != nil || f.Header.OpCode == ws.OpClose {
				return
			}
			if !f.Header.Masked {
				frames <- "unmasked"
			}
			frames <- string(ws.UnmaskFrameInPlace(f).Payload)
		}
	}()
	c, err := client.Dial(within(t), "http://"+l.Addr().String(), &client.Options{Subprotocol: client.JSON, CloseTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	unacked := client.SendOptions{FireAndForget: true}
	for _, test := range []struct {
		p    engine.Payload
		o    client.SendOptions
		want string // "" for an error of the client's own
	}{
		{engine.Payload{Type: engine.JSON, Data: []byte(` {"n" : 1.0} `)}, unacked,
			`{"type":"sendToGroup","group":"a\"b","dataType":"json","data": {"n" : 1.0} }`},
		{text("x\ny"), client.SendOptions{FireAndForget: true, NoEcho: true, TTL: 1500 * time.Millisecond},
			`{"type":"sendToGroup","group":"a\"b","noEcho":true,"ttlSeconds":2,"dataType":"text","data":"x\ny"}`},
		{engine.Payload{Type: engine.Binary, Data: []byte{1, 2}}, client.SendOptions{FireAndForget: true, Metadata: map[string]string{"k": "v"}},
			`{"type":"sendToGroup","group":"a\"b","dataType":"binary","data":"AQI=","metadata":{"k":"v"}}`},
		{engine.Payload{Type: engine.JSON, Data: []byte(`{}{}`)}, unacked, ""},
		{engine.Payload{Type: engine.Text, Data: []byte{0xff}}, unacked, ""},
		{text("x"), client.SendOptions{FireAndForget: true, TTL: 301 * time.Second}, ""},
	} {
		err := c.SendToGroup(within(t), `a"b`, test.p, &test.o)
		if test.want == "" {
			if err == nil {
				t.Errorf("SendToGroup(%q) = nil, want an error", test.p.Data)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := <-frames; got != test.want {
			t.Errorf("sent     %s\nexpected %s", got, test.want)
		}
	}
}

func TestRefusedHandshake(t *testing.T) {
	s := serve(t, &server{refuse: func(_ int, r *http.Request) (int, string) {
		if r.Header.Get("X-Who") != "kim" {
			return 500, "the header did not arrive"
		}
		return 401, "token.expired: the token ended\n" + strings.Repeat("x", 100<<10)
	}})
	_, err := client.Dial(within(t), s.URL, &client.Options{Header: http.Header{"X-Who": {"kim"}}})
	var refused *client.HandshakeError
	if !errors.As(err, &refused) || refused.Status != 401 || !strings.HasPrefix(refused.Body, "token.expired: the token ended") {
		t.Fatalf("Dial = %.200v", err)
	}
	if len(refused.Body) != 4<<10 {
		t.Errorf("kept %d bytes of the body, want 4 KiB", len(refused.Body))
	}
}

func TestDialErrorsShowNoToken(t *testing.T) {
	gone := serve(t, &server{})
	gone.l.Close()
	for _, url := range []string{
		gone.URL,
		"ftp://host/client?access_token=secret-token",
		"ws://ho st/?access_token=secret-token",
		"ws://127.0.0.1:1/%zz?access_token=secret-token",
		serve(t, &server{greet: `{"type":"pong"}`}).URL,
		serve(t, &server{greet: `nonsense`}).URL,
		serve(t, &server{refuse: func(int, *http.Request) (int, string) { return 403, "no" }}).URL,
	} {
		c, err := client.Dial(within(t), url, nil)
		if err == nil {
			c.Close()
			t.Errorf("Dial(%s) succeeded", url)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

func TestDialGivesUpOnASilentServer(t *testing.T) {
	s := serve(t, &server{greet: "-"})
	// The time may be up before there is a socket, during the handshake, and after it.
	for _, d := range []time.Duration{1, 50 * time.Microsecond, 500 * time.Microsecond, 50 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		if _, err := client.Dial(ctx, s.URL, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial = %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
		if _, err := client.Dial(within(t), s.URL, &client.Options{DialTimeout: d}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial with its own bound = %v, want %v", err, context.DeadlineExceeded)
		}
	}
	if _, err := client.Dial(within(t), s.URL, &client.Options{Subprotocol: "mqtt"}); err == nil {
		t.Error("Dial with a subprotocol that the client does not have succeeded")
	}
}

func TestRaw(t *testing.T) {
	s := serve(t, &server{greet: "-", onFrame: func(p *peer, m map[string]any) bool {
		if m["op"] == ws.OpText {
			p.frame(ws.OpText, []byte("echo "+m["raw"].(string)))
		} else {
			p.frame(ws.OpBinary, []byte{9})
		}
		return true
	}})
	ctx := within(t)
	c := dial(t, s, &client.Options{Subprotocol: client.Raw})
	if err := c.Send(ctx, text("hi")); err != nil {
		t.Fatal(err)
	}
	if m := receive[client.Message](t, c); !reflect.DeepEqual(m.Payload, text("echo hi")) {
		t.Errorf("received %+v", m)
	}
	if err := c.Send(ctx, engine.Payload{Type: engine.Binary, Data: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	if m := receive[client.Message](t, c); !reflect.DeepEqual(m.Payload, engine.Payload{Type: engine.Binary, Data: []byte{9}}) {
		t.Errorf("received %+v", m)
	}
	if err := c.Ping(ctx); err != nil {
		t.Errorf("Ping = %v", err)
	}
	if err := c.JoinGroup(ctx, "news"); err == nil {
		t.Error("JoinGroup on a raw connection succeeded")
	}
	if err := c.Send(ctx, engine.Payload{Type: engine.Text, Data: []byte{0xff}}); err == nil {
		t.Error("Send of broken UTF-8 as text succeeded")
	}
	if err := dial(t, serve(t, &server{}), nil).Send(ctx, text("x")); err == nil {
		t.Error("Send on a JSON connection succeeded")
	}
}

func TestPing(t *testing.T) {
	c := dial(t, serve(t, &server{}), nil)
	for range 3 {
		if err := c.Ping(within(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerCloses(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		p.say(`{"type":"system","event":"disconnected","message":"maintenance"}`)
		p.frame(ws.OpClose, ws.NewCloseFrameBody(1001, "bye"))
		return true
	}})
	c := dial(t, s, nil)
	receive[client.Connected](t, c)
	err := c.JoinGroup(within(t), "news")
	for range 2 {
		var closed *client.CloseError
		if !errors.As(err, &closed) || closed.Code != 1001 || closed.Reason != "bye" || closed.ByClient {
			t.Errorf("error = %v, want close 1001", err)
		}
		err = c.Ping(within(t)) // once over, everything says why
	}
	if e := receive[client.Disconnected](t, c); e.Text != "maintenance" {
		t.Errorf("Disconnected = %+v", e)
	}
	var closed *client.CloseError
	if _, err := c.Receive(within(t)); !errors.As(err, &closed) {
		t.Errorf("Receive = %v, want the close", err)
	}
	p := s.peer(0)
	<-p.closed
	if p.code != 1001 {
		t.Errorf("the client answered with code %d", p.code)
	}
}

func TestCloseWith(t *testing.T) {
	s := serve(t, &server{})
	c := dial(t, s, nil)
	if err := c.CloseWith(4000, strings.Repeat("x", 124)); err == nil {
		t.Error("a reason that does not fit was taken")
	}
	if err := c.CloseWith(4000, "enough"); err != nil {
		t.Fatal(err)
	}
	p := s.peer(0)
	<-p.closed
	if p.code != 4000 || p.reason != "enough" {
		t.Errorf("the server saw code %d, reason %q", p.code, p.reason)
	}
	receive[client.Connected](t, c) // what had arrived can still be had
	if _, err := c.Receive(within(t)); err != client.ErrClosed {
		t.Errorf("Receive = %v, want %v", err, client.ErrClosed)
	}
	if err := c.JoinGroup(within(t), "news"); err != client.ErrClosed {
		t.Errorf("JoinGroup = %v, want %v", err, client.ErrClosed)
	}
	if err := c.Close(); err != nil {
		t.Errorf("the second Close = %v", err)
	}
}

// What a server must not do ends the connection with the code that says so.
func TestBreaches(t *testing.T) {
	text := func(s string) ws.Frame { return ws.NewTextFrame([]byte(s)) }
	part := func(op ws.OpCode, fin bool, s string) ws.Frame { return ws.NewFrame(op, fin, []byte(s)) }
	for name, test := range map[string]struct {
		frames []ws.Frame
		code   ws.StatusCode
	}{
		"binary":              {[]ws.Frame{ws.NewBinaryFrame([]byte("x"))}, 1003},
		"not JSON":            {[]ws.Frame{text("{")}, 1007},
		"two values":          {[]ws.Frame{text(`{"type":"pong"} 1`)}, 1007},
		"ack without id":      {[]ws.Frame{text(`{"type":"ack","success":true}`)}, 1007},
		"negative ack id":     {[]ws.Frame{text(`{"type":"ack","ackId":-1}`)}, 1007},
		"unknown data type":   {[]ws.Frame{text(`{"type":"message","dataType":"xml","data":"x"}`)}, 1007},
		"bad base64":          {[]ws.Frame{text(`{"type":"message","dataType":"binary","data":"?"}`)}, 1007},
		"text of a number":    {[]ws.Frame{text(`{"type":"message","dataType":"text","data":1}`)}, 1007},
		"broken UTF-8":        {[]ws.Frame{text("{\"type\":\"\xff\"}")}, 1007},
		"masked":              {[]ws.Frame{ws.MaskFrame(text(`{"type":"pong"}`))}, 1002},
		"reserved bit":        {[]ws.Frame{{Header: ws.Header{Fin: true, Rsv: 4, OpCode: ws.OpText}}}, 1002},
		"stray continuation":  {[]ws.Frame{part(ws.OpContinuation, true, "x")}, 1002},
		"text in a text":      {[]ws.Frame{part(ws.OpText, false, "x"), text("x")}, 1002},
		"fragmented ping":     {[]ws.Frame{part(ws.OpPing, false, "x")}, 1002},
		"close code 1005":     {[]ws.Frame{ws.NewCloseFrame(ws.NewCloseFrameBody(1005, ""))}, 1002},
		"too large":           {[]ws.Frame{text(`"` + strings.Repeat("x", 1<<10) + `"`)}, 1009},
		"too large in pieces": {[]ws.Frame{part(ws.OpText, false, strings.Repeat("x", 1<<10)), part(ws.OpContinuation, true, "x")}, 1009},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
				for _, f := range test.frames {
					ws.WriteFrame(p, f)
				}
				return true
			}})
			c := dial(t, s, &client.Options{ReadLimit: 1 << 10})
			err := c.JoinGroup(within(t), "news")
			if err == nil {
				t.Fatal("JoinGroup succeeded")
			}
			p := s.peer(0)
			<-p.closed
			if p.code != test.code {
				t.Errorf("the server was told %d %s, want %d (%v)", p.code, p.reason, test.code, err)
			}
		})
	}
}

func TestFragmentsAndControlFramesBetween(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		ws.WriteFrame(p, ws.NewFrame(ws.OpText, false, []byte(`{"type":"message","from":"server",`)))
		ws.WriteFrame(p, ws.NewPingFrame([]byte("there?")))
		ws.WriteFrame(p, ws.NewFrame(ws.OpContinuation, false, nil))
		ws.WriteFrame(p, ws.NewFrame(ws.OpContinuation, true, []byte(`"dataType":"text","data":"whole"}`)))
		p.say(`{"type":"of a later version","data":1}`)
		return false
	}})
	c := dial(t, s, nil)
	receive[client.Connected](t, c)
	if err := c.JoinGroup(within(t), "news"); err != nil {
		t.Fatal(err)
	}
	if m := receive[client.Message](t, c); string(m.Payload.Data) != "whole" {
		t.Errorf("received %q", m.Payload.Data)
	}
}

func TestReconnectRejoins(t *testing.T) {
	s := serve(t, &server{
		refuse: func(n int, _ *http.Request) (int, string) {
			if n == 2 || n == 3 {
				return 503, "starting"
			}
			return 0, ""
		},
		onFrame: func(p *peer, m map[string]any) bool {
			if p.n > 1 && m["group"] == "lost" {
				p.say(`{"type":"ack","ackId":%v,"success":false,"error":{"name":"Forbidden","message":"revoked"}}`, m["ackId"])
				return true
			}
			return false
		},
	})
	ctx := within(t)
	urls := 0
	c := dial(t, s, &client.Options{Reconnect: &client.Reconnect{
		MinDelay: time.Millisecond,
		URL:      func(context.Context) (string, error) { urls++; return s.URL, nil },
	}})
	receive[client.Connected](t, c)
	for _, g := range []string{"news", "lost", "left"} {
		if err := c.JoinGroup(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.LeaveGroup(ctx, "left"); err != nil {
		t.Fatal(err)
	}
	first := c.ConnectionID()
	s.peer(0).Close()
	if e := receive[client.Lost](t, c); e.Err == nil {
		t.Error("Lost without a reason")
	}
	if e := receive[client.Connected](t, c); e.ConnectionID == first {
		t.Errorf("the new connection is %q again", first)
	}
	if e := receive[client.RejoinFailed](t, c); e.Group != "lost" {
		t.Errorf("RejoinFailed = %+v", e)
	}
	if err := c.SendToGroup(ctx, "news", text("back"), nil); err != nil {
		t.Fatal(err)
	}
	if m := receive[client.Message](t, c); string(m.Payload.Data) != "back" {
		t.Errorf("received %q", m.Payload.Data)
	}
	if p := s.peer(1); p.life.member("left") {
		t.Error("a group that was left was joined again")
	}
	c.Close()
	if urls != 3 {
		t.Errorf("the URL was asked for %d times, want 3", urls)
	}
}

func TestReconnectGivesUp(t *testing.T) {
	for name, test := range map[string]struct {
		refuse func(n int, r *http.Request) (int, string)
		code   ws.StatusCode
		r      client.Reconnect
		want   string
		lost   bool
	}{
		"refused for good":  {refuse: secondTime(401), code: 1001, want: "status 401", lost: true},
		"out of attempts":   {refuse: secondTime(503), code: 1001, r: client.Reconnect{Attempts: 2}, want: "attempt 2", lost: true},
		"closed for policy": {code: 1008, want: "code 1008"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &server{refuse: test.refuse, onFrame: func(p *peer, _ map[string]any) bool {
				p.frame(ws.OpClose, ws.NewCloseFrameBody(test.code, ""))
				return true
			}})
			test.r.MinDelay = time.Millisecond
			c := dial(t, s, &client.Options{Reconnect: &test.r})
			receive[client.Connected](t, c)
			if err := c.SendToGroup(within(t), "news", text("x"), nil); err == nil {
				t.Fatal("SendToGroup succeeded")
			}
			if test.lost {
				receive[client.Lost](t, c)
			}
			if _, err := c.Receive(within(t)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Receive = %v, want %q in it", err, test.want)
			}
		})
	}
}

func secondTime(status int) func(int, *http.Request) (int, string) {
	return func(n int, _ *http.Request) (int, string) {
		if n == 1 {
			return 0, ""
		}
		return status, "no"
	}
}

func TestCloseWhileReconnecting(t *testing.T) {
	s := serve(t, &server{refuse: secondTime(503)})
	c := dial(t, s, &client.Options{Reconnect: &client.Reconnect{MinDelay: time.Hour}})
	receive[client.Connected](t, c)
	s.peer(0).Close()
	receive[client.Lost](t, c)
	if err := c.JoinGroup(within(t), "news"); err != client.ErrNotConnected {
		t.Errorf("JoinGroup = %v, want %v", err, client.ErrNotConnected)
	}
	c.Close()
	if _, err := c.Receive(within(t)); err != client.ErrClosed {
		t.Errorf("Receive = %v, want %v", err, client.ErrClosed)
	}
}

func TestTLS(t *testing.T) {
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := ws.HTTPUpgrader{Protocol: func(p string) bool { return p == client.JSON }}
		conn, _, _, err := u.Upgrade(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		ws.WriteFrame(conn, ws.NewTextFrame([]byte(`{"type":"system","event":"connected","connectionId":"tls"}`)))
		ws.ReadFrame(conn)
	}))
	h.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused certificate is the test's own
	h.StartTLS()
	defer h.Close()
	roots := h.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if _, err := client.Dial(within(t), h.URL, &client.Options{Subprotocol: client.JSON}); err == nil {
		t.Error("a certificate of an unknown authority was accepted")
	}
	c, err := client.Dial(within(t), h.URL, &client.Options{Subprotocol: client.JSON, TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		t.Fatal(err)
	}
	if c.ConnectionID() != "tls" {
		t.Errorf("ConnectionID = %q", c.ConnectionID())
	}
	c.Close()
}

// A program that does not receive stops the reading, and Close still ends everything.
func TestCloseWithAFullBuffer(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		for range 100 {
			p.say(`{"type":"message","from":"server","dataType":"text","data":"x"}`)
		}
		return false
	}})
	c := dial(t, s, &client.Options{Buffer: 2})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := c.JoinGroup(ctx, "news"); err != context.DeadlineExceeded {
		t.Errorf("JoinGroup behind a full buffer = %v, want %v", err, context.DeadlineExceeded)
	}
	c.Close()
}

func TestNothingIsLeftRunning(t *testing.T) {
	s := serve(t, &server{})
	before := ours()
	for range 20 {
		c := dial(t, s, &client.Options{Reconnect: &client.Reconnect{}})
		if err := c.JoinGroup(within(t), "news"); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	nothingRuns(t, before)
}

// nothingRuns fails if more of the client's goroutines than before stay: one that
// was waited for may still be on its last step.
func nothingRuns(t *testing.T, before int) {
	t.Helper()
	for ctx := within(t); ours() > before; {
		select {
		case <-ctx.Done():
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines of the client, %d before\n%s", ours(), before, buf[:runtime.Stack(buf, true)])
		case <-time.After(time.Millisecond):
		}
	}
}

// ours counts the goroutines that run this package's code.
func ours() int {
	buf := make([]byte, 1<<20)
	n := 0
	for g := range bytes.SplitSeq(buf[:runtime.Stack(buf, true)], []byte("\n\n")) {
		if bytes.Contains(g, []byte("client.(*Client).")) {
			n++
		}
	}
	return n
}

// pipe serves one connection over memory, so that time can be synctest's.
func pipe(t *testing.T, handle func(net.Conn)) *client.Options {
	return &client.Options{Subprotocol: client.JSON, NetDial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			u := ws.Upgrader{Protocol: func([]byte) bool { return true }}
			if _, err := u.Upgrade(far); err != nil {
				t.Error(err)
				return
			}
			ws.WriteFrame(far, ws.NewTextFrame([]byte(`{"type":"system","event":"connected","connectionId":"c"}`)))
			handle(far)
		}()
		return near, nil
	}}
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const answers = 10
		pings := 0
		o := pipe(t, func(c net.Conn) {
			for {
				f, err := ws.ReadFrame(c)
				if err != nil {
					return
				}
				if f.Header.OpCode == ws.OpPing {
					if pings++; pings <= answers {
						ws.WriteFrame(c, ws.NewPongFrame(nil))
					}
				}
			}
		})
		c, err := client.Dial(t.Context(), "ws://in.memory/client/hubs/chat", o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		receive[client.Connected](t, c)
		_, err = c.Receive(t.Context())
		if err == nil || !strings.Contains(err.Error(), "silent") {
			t.Errorf("Receive = %v", err)
		}
		// Ten pings were answered, 20 s apart; the next two intervals were silent.
		if took := time.Since(start); took != (answers+2)*20*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestAProgramThatPausesIsNotASilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 5
		o := pipe(t, func(c net.Conn) {
			for i := range n {
				ws.WriteFrame(c, ws.NewTextFrame(fmt.Appendf(nil, `{"type":"message","dataType":"json","data":%d}`, i)))
			}
			io.Copy(io.Discard, c)
		})
		o.Buffer = 1
		c, err := client.Dial(t.Context(), "ws://in.memory/client/hubs/chat", o)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute) // of synctest: the program is away
		receive[client.Connected](t, c)
		for i := range n {
			if m := receive[client.Message](t, c); string(m.Payload.Data) != fmt.Sprint(i) {
				t.Errorf("received %s, want %d", m.Payload.Data, i)
			}
		}
		c.Close()
	})
}

func TestReconnectPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := pipe(t, func(net.Conn) {}) // accepts and drops
		dials, start := []time.Duration{}, time.Now()
		inner := o.NetDial
		o.NetDial = func(ctx context.Context, n, a string) (net.Conn, error) {
			dials = append(dials, time.Since(start))
			return inner(ctx, n, a)
		}
		o.Reconnect = &client.Reconnect{MinDelay: time.Second, MaxDelay: 4 * time.Second}
		o.Buffer = 100
		c, err := client.Dial(t.Context(), "ws://in.memory/client/hubs/chat", o)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * time.Second) // of synctest
		c.Close()
		for i, most := range []time.Duration{0, 1, 2, 4, 4, 4} {
			if i == 0 {
				continue
			}
			if d := dials[i] - dials[i-1]; d > most*time.Second || d < most*time.Second/2 {
				t.Errorf("pause %d was %v, want %d s shortened by at most a half", i, d, most)
			}
		}
	})
}
