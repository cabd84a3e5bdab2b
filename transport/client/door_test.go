package client_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/client"
	"github.com/fanfare/fanfare/transport/websocket"
)

// door serves a real engine behind the WebSocket door. The token is the user's
// name; Mallory has no roles, and an empty token is refused.
func door(t *testing.T) (hub *engine.Hub, url func(user, query string) string) {
	t.Helper()
	handler := &engine.HandlerFuncs{
		OnUserEvent: func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
			if e.Name == "fail" {
				return nil, errors.New("no")
			}
			p := text("you said " + string(e.Payload.Data))
			return &engine.EventReply{Payload: &p, Metadata: e.Metadata}, nil
		},
	}
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
			id.Roles = []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"}
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
