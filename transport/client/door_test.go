package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/client"
	"github.com/fanfare/fanfare/transport/websocket"
)

// door serves a real engine behind the WebSocket door. The token is the user's
// name; Mallory has no roles, and an empty token is refused.
func door(t *testing.T) (hub *engine.Hub, url func(user, query string) string) {
	t.Helper()
	return doorWith(t, func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		switch e.Name {
		case "fail":
			return nil, errors.New("no")
		case "quiet":
			return nil, nil
		}
		p := text("you said " + string(e.Payload.Data))
		return &engine.EventReply{Payload: &p, Metadata: e.Metadata}, nil
	})
}

func doorWith(t *testing.T, onEvent func(context.Context, *engine.UserEvent) (*engine.EventReply, error)) (hub *engine.Hub, url func(user, query string) string) {
	t.Helper()
	handler := &engine.HandlerFuncs{OnUserEvent: onEvent}
	e, err := engine.New(&engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{Handlers: []engine.HandlerRule{{UserEvents: "*", Handler: handler}}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	auth := transport.AuthenticatorFunc(func(_ context.Context, c engine.Credentials) (engine.Identity, error) {
		if c.Token == "" {
			return engine.Identity{}, engine.Errorf(engine.CodeUnauthenticated, "token.missing", "A token is needed.")
		}
		id := engine.Identity{UserID: engine.UserID(c.Token)}
		if c.Token != "mallory" {
			id.Roles = []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup", "webpubsub.setGroupState", "webpubsub.getGroupState"}
		}
		return id, nil
	})
	srv := httptest.NewServer(websocket.NewHandler(e, auth, nil))
	t.Cleanup(func() {
		e.Close()
		srv.Close()
	})
	url = func(user, query string) string {
		return srv.URL + "/client/hubs/chat?access_token=" + user + query
	}
	return e.Hub("chat"), url
}

func enter(t *testing.T, url string, o *client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(within(t), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRealDoor(t *testing.T) {
	hub, url := door(t)
	ctx := within(t)
	ann, bo := enter(t, url("ann", ""), nil), enter(t, url("bo", ""), nil)
	raw := enter(t, url("rae", ""), &client.Options{Subprotocol: client.Raw})
	if e := receive[client.Connected](t, ann); e.UserID != "ann" || e.ConnectionID == "" {
		t.Errorf("Connected = %+v", e)
	}
	receive[client.Connected](t, bo)
	for _, c := range []*client.Client{ann, bo} {
		if err := c.JoinGroup(ctx, "news"); err != nil {
			t.Fatal(err)
		}
		if err := c.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := raw.Ping(ctx); err != nil { // the connection is open once it answers
		t.Fatal(err)
	}
	if err := hub.AddUserToGroup(ctx, "news", "rae"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []engine.Payload{
		text("héllo \"<&>\"\n"),
		{Type: engine.JSON, Data: []byte(`{"n":1.0,"big":9007199254740993}`)},
		{Type: engine.Binary, Data: []byte{0, 1, 254, 255}},
	} {
		o := &client.SendOptions{NoEcho: true, Metadata: map[string]string{"trace": "t-1"}}
		if err := ann.SendToGroup(ctx, "news", p, o); err != nil {
			t.Fatal(err)
		}
		want := client.Message{Group: "news", FromUserID: "ann", Payload: p, Metadata: o.Metadata}
		if m := receive[client.Message](t, bo); !reflect.DeepEqual(m, want) {
			t.Errorf("received %+v, want %+v", m, want)
		}
		if m := receive[client.Message](t, raw); string(m.Payload.Data) != string(p.Data) || (m.Payload.Type == engine.Binary) != (p.Type == engine.Binary) {
			t.Errorf("the raw client received %+v for %+v", m, p)
		}
	}

	if err := bo.LeaveGroup(ctx, "news"); err != nil {
		t.Fatal(err)
	}
	if err := bo.SendEvent(ctx, "hello", text("hi"), nil); err != nil {
		t.Fatal(err)
	}
	if m := receive[client.Message](t, bo); m.Group != "" || string(m.Payload.Data) != "you said hi" {
		t.Errorf("the reply is %+v", m)
	}
	var refused *client.AckError
	if err := bo.SendEvent(ctx, "fail", text("hi"), nil); !errors.As(err, &refused) || refused.Name != "InternalServerError" {
		t.Errorf("a failing event = %v", err)
	}

	if err := hub.CloseConn(ctx, engine.ConnID(bo.ConnectionID()), "maintenance"); err != nil {
		t.Fatal(err)
	}
	if e := receive[client.Disconnected](t, bo); e.Text != "Application server closed the connection. Reason: maintenance" {
		t.Errorf("Disconnected = %+v", e)
	}
	var closed *client.CloseError
	if _, err := bo.Receive(ctx); !errors.As(err, &closed) || closed.Code != engine.CloseNormal || closed.Reason != "" {
		t.Errorf("Receive = %v, want close 1000", err)
	}
}

func TestRealDoorRefuses(t *testing.T) {
	_, url := door(t)
	_, err := client.Dial(within(t), url("", ""), nil)
	var status *client.HandshakeError
	if !errors.As(err, &status) || status.Status != 401 || !strings.Contains(status.Body, "token.missing") {
		t.Errorf("Dial without a token = %v", err)
	}
	mallory := enter(t, url("mallory", ""), nil)
	var ack *client.AckError
	for what, err := range map[string]error{
		"JoinGroup":   mallory.JoinGroup(within(t), "news"),
		"SendToGroup": mallory.SendToGroup(within(t), "news", text("x"), nil),
	} {
		if !errors.As(err, &ack) || ack.Name != "Forbidden" {
			t.Errorf("%s without a role = %v", what, err)
		}
	}
	// A raw client without the role is closed upon its first frame.
	raw := enter(t, url("mallory", "&webpubsub_mode=sendToGroup&group=news"), &client.Options{Subprotocol: client.Raw})
	if err := raw.Send(within(t), text("x")); err != nil {
		t.Fatal(err)
	}
	var closed *client.CloseError
	if _, err := raw.Receive(within(t)); !errors.As(err, &closed) || closed.Code != engine.ClosePolicy {
		t.Errorf("Receive = %v, want close 1008", err)
	}
}

func TestRealDoorReconnect(t *testing.T) {
	hub, url := door(t)
	ctx := within(t)
	c := enter(t, url("ann", ""), &client.Options{Reconnect: &client.Reconnect{MinDelay: 1}})
	receive[client.Connected](t, c)
	if err := c.JoinGroup(ctx, "news"); err != nil {
		t.Fatal(err)
	}
	if err := hub.CloseAll(ctx, ""); err != nil {
		t.Fatal(err)
	}
	receive[client.Disconnected](t, c)
	receive[client.Lost](t, c)
	receive[client.Connected](t, c)
	// A request waits for its turn behind the rejoining.
	if err := c.SendToGroup(ctx, "news", text("back"), nil); err != nil {
		t.Fatal(err)
	}
	if m := receive[client.Message](t, c); string(m.Payload.Data) != "back" {
		t.Errorf("received %+v", m)
	}
}

// lossy keeps the present wire of a client, so that a test can break it.
type lossy struct {
	mu   sync.Mutex
	link net.Conn
}

func (l *lossy) options(protocol string) *client.Options {
	return &client.Options{
		Subprotocol: protocol, RecoveryInterval: time.Millisecond,
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, addr)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.link = conn
			return conn, err
		},
	}
}

// cut resets the wire.
func (l *lossy) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link.(*net.TCPConn).SetLinger(0)
	l.link.Close()
}

// Every subprotocol of the client, with a real node at the other end.
func TestRealDoorProtocols(t *testing.T) {
	for _, protocol := range []string{client.JSON, client.ReliableJSON, client.Protobuf, client.ReliableProtobuf} {
		t.Run(protocol, func(t *testing.T) {
			_, url := door(t)
			ctx := within(t)
			var link lossy
			ann, bo := enter(t, url("ann", ""), &client.Options{Subprotocol: protocol}), enter(t, url("bo", ""), link.options(protocol))
			receive[client.Connected](t, ann)
			if e := receive[client.Connected](t, bo); e.UserID != "bo" || e.ConnectionID == "" {
				t.Errorf("Connected = %+v", e)
			}
			from := "ann"
			if strings.HasPrefix(protocol, "protobuf.") {
				from = ""
			}
			for _, c := range []*client.Client{ann, bo} {
				if err := c.JoinGroup(ctx, "news"); err != nil {
					t.Fatal(err)
				}
			}

			for _, p := range []engine.Payload{
				text("héllo"), text(""),
				{Type: engine.JSON, Data: []byte(`{"n":1.0}`)},
				{Type: engine.Binary, Data: []byte{0, 255}}, {Type: engine.Binary, Data: []byte{}},
			} {
				o := &client.SendOptions{NoEcho: true, Metadata: map[string]string{"trace": "t-1"}, TTL: time.Minute}
				if err := ann.SendToGroup(ctx, "news", p, o); err != nil {
					t.Fatal(err)
				}
				want := client.Message{Group: "news", FromUserID: from, Payload: p, Metadata: o.Metadata}
				if m := receive[client.Message](t, bo); !reflect.DeepEqual(m, want) {
					t.Errorf("received %+v, want %+v", m, want)
				}
			}

			if p, err := bo.Invoke(ctx, "hello", text("hi")); err != nil || !reflect.DeepEqual(p, text("you said hi")) {
				t.Errorf("Invoke = %+v, %v", p, err)
			}
			if p, err := bo.Invoke(ctx, "quiet", text("hi")); err != nil || len(p.Data) != 0 {
				t.Errorf("Invoke = %+v, %v", p, err)
			}
			var failed *client.InvocationError
			if _, err := bo.Invoke(ctx, "fail", text("hi")); !errors.As(err, &failed) || failed.Name != "InternalServerError" {
				t.Errorf("Invoke = %v", err)
			}

			if err := bo.WatchGroupState(ctx, "news"); err != nil {
				t.Fatal(err)
			}
			if s := receive[client.GroupState](t, bo); s.Group != "news" || !s.Snapshot || len(s.States) != 0 {
				t.Errorf("snapshot %+v", s)
			}
			for _, state := range []map[string]string{{"mood": "ok"}, {}, nil} {
				if err := ann.SetGroupState(ctx, "news", state); err != nil {
					t.Fatal(err)
				}
				s := receive[client.GroupState](t, bo)
				if s.Snapshot || len(s.States) != 1 || s.States[0].UserID != "ann" || string(s.States[0].ConnID) != ann.ConnectionID() || !reflect.DeepEqual(s.States[0].State, state) {
					t.Errorf("update %+v, want state %v", s, state)
				}
			}
			if err := bo.UnwatchGroupState(ctx, "news"); err != nil {
				t.Fatal(err)
			}

			st, err := ann.OpenStream(ctx, "news", &client.StreamOptions{NoEcho: true, IdleTimeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			publish(t, st, "a", "b")
			if err := st.CloseWithError(ctx, "gave up", "E42"); err != nil {
				t.Fatal(err)
			}
			for i, want := range []string{"a", "b", ""} {
				m := receive[client.Message](t, bo)
				part := engine.StreamPart{ID: st.ID(), Seq: uint64(i + 1)}
				if want == "" {
					part.End, part.Err = true, &engine.StreamError{Name: engine.StreamUserError, Message: "gave up", UserCode: "E42"}
				}
				if string(m.Payload.Data) != want || !reflect.DeepEqual(m.Stream, &part) {
					t.Errorf("received %+v of %+v, want %q of %+v", m, m.Stream, want, part)
				}
			}

			if !strings.Contains(protocol, "reliable") {
				return
			}
			id := bo.ConnectionID()
			for range 3 {
				link.cut()
				if err := ann.SendToGroup(ctx, "news", text("meanwhile"), &client.SendOptions{NoEcho: true}); err != nil {
					t.Fatal(err)
				}
				if err := bo.SendToGroup(ctx, "news", text("own"), nil); err != nil {
					t.Fatal(err)
				}
				receive[client.Recovered](t, bo)
				wantText(t, bo, "meanwhile", "own")
				wantText(t, ann, "own")
			}
			if bo.ConnectionID() != id {
				t.Errorf("the connection is %s, was %s", bo.ConnectionID(), id)
			}
		})
	}
}

// A publisher that loses its wire goes on with its stream where the node left off.
func TestRealDoorStreamRecovers(t *testing.T) {
	for _, protocol := range []string{client.ReliableJSON, client.ReliableProtobuf} {
		t.Run(protocol, func(t *testing.T) {
			_, url := door(t)
			ctx := within(t)
			var link lossy
			ann, bo := enter(t, url("ann", ""), link.options(protocol)), enter(t, url("bo", ""), nil)
			receive[client.Connected](t, bo)
			if err := bo.JoinGroup(ctx, "news"); err != nil {
				t.Fatal(err)
			}
			st, err := ann.OpenStream(ctx, "news", nil)
			if err != nil {
				t.Fatal(err)
			}
			const parts = 500
			done := make(chan error, 1)
			go func() {
				for i := range parts {
					if err := st.Send(ctx, text(fmt.Sprint(i))); err != nil {
						done <- err
						return
					}
				}
				done <- st.Close(ctx)
			}()
			for i := range parts {
				if m := receive[client.Message](t, bo); string(m.Payload.Data) != fmt.Sprint(i) || m.Stream.Seq != uint64(i+1) {
					t.Fatalf("received %q, part %d, want %d", m.Payload.Data, m.Stream.Seq, i)
				}
				if i%100 == 50 {
					link.cut()
				}
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if m := receive[client.Message](t, bo); !m.Stream.End || m.Stream.Err != nil {
				t.Errorf("the last part is %+v", m.Stream)
			}
		})
	}
}

// An event whose wire breaks while its handler is at work is handled once, and its
// reply arrives once.
func TestRealDoorEventOnce(t *testing.T) {
	began, release := make(chan struct{}, 10), make(chan struct{})
	_, url := doorWith(t, func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		began <- struct{}{}
		<-release
		return &engine.EventReply{Payload: &e.Payload}, nil
	})
	var link lossy
	c := enter(t, url("ann", ""), link.options(client.ReliableJSON))
	receive[client.Connected](t, c)
	done := make(chan error, 1)
	go func() { done <- c.SendEvent(within(t), "slow", text("x"), nil) }()
	<-began
	link.cut()
	receive[client.Recovered](t, c)
	if err := c.Ping(within(t)); err != nil { // it comes behind the event that is sent again
		t.Fatal(err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("SendEvent = %v", err)
	}
	wantText(t, c, "x")
	if err := c.SendEvent(within(t), "next", text("y"), nil); err != nil {
		t.Fatal(err)
	}
	wantText(t, c, "y")
	if n := len(began); n != 1 {
		t.Errorf("the handler was called %d times more, want once for the next event", n)
	}
}
