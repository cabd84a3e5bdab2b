package client_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

func TestInvoke(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		if m["type"] != "invoke" || m["target"] != "event" || m["dataType"] != "json" {
			t.Errorf("the server got %v", m)
		}
		switch m["event"] {
		case "sum":
			p.say(`{"type":"invokeResponse","invocationId":%q,"success":true,"dataType":"json","data":3}`, m["invocationId"])
		case "nothing":
			p.say(`{"type":"invokeResponse","invocationId":%q,"success":true}`, m["invocationId"])
		case "fail":
			p.say(`{"type":"invokeResponse","invocationId":%q,"success":false,"error":{"name":"InternalServerError","message":"no"}}`, m["invocationId"])
		}
		return true
	}})
	ctx := within(t)
	c := dial(t, s, nil)
	numbers := engine.Payload{Type: engine.JSON, Data: []byte("[1,2]")}
	if p, err := c.Invoke(ctx, "sum", numbers); err != nil || !reflect.DeepEqual(p, engine.Payload{Type: engine.JSON, Data: []byte("3")}) {
		t.Errorf("Invoke = %+v, %v", p, err)
	}
	if p, err := c.Invoke(ctx, "nothing", numbers); err != nil || p.Data != nil {
		t.Errorf("Invoke = %+v, %v", p, err)
	}
	var failed *client.InvocationError
	if _, err := c.Invoke(ctx, "fail", numbers); !errors.As(err, &failed) || failed.Name != "InternalServerError" || failed.Message != "no" {
		t.Errorf("Invoke = %v", err)
	}
	if _, err := c.Invoke(ctx, "sum", engine.Payload{Type: engine.JSON}); err == nil {
		t.Error("an invocation with what is no JSON was made")
	}
}

// Who waits no longer says so.
func TestInvokeCancelled(t *testing.T) {
	got := make(chan map[string]any, 2)
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool { got <- m; return true }})
	c := dial(t, s, nil)
	ctx, cancel := context.WithCancel(within(t))
	done := make(chan error)
	go func() {
		_, err := c.Invoke(ctx, "slow", text(""))
		done <- err
	}()
	id := (<-got)["invocationId"]
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("Invoke = %v, want %v", err, context.Canceled)
	}
	if m := <-got; m["type"] != "cancelInvocation" || m["invocationId"] != id {
		t.Errorf("the server got %v", m)
	}
}

// An invocation ends with its wire, also where the connection does not: nobody
// could tell whether its handler was called.
func TestInvokeEndsWithItsWire(t *testing.T) {
	for name, o := range map[string]*client.Options{"json": nil, "reliable": reliable()} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
				if m["type"] == "invoke" {
					p.Close()
				}
				return false
			}})
			c := dial(t, s, o)
			if _, err := c.Invoke(within(t), "slow", text("")); err == nil {
				t.Error("Invoke succeeded")
			}
		})
	}
}

func TestGroupState(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		if m["type"] == "subscribeGroupState" {
			p.life.deliver(`"type":"groupStateSnapshot","group":"news","items":[{"connectionId":"a","userId":"ann","state":{"mood":"ok"},"updatedAt":1000},{"connectionId":"b","state":{},"updatedAt":2000}]}`)
			p.life.deliver(`"type":"groupStateUpdate","group":"news","items":[{"connectionId":"a","userId":"ann","updatedAt":3000}]}`)
		}
		return false
	}})
	ctx := within(t)
	c := dial(t, s, reliable())
	receive[client.Connected](t, c)
	for _, step := range []func() error{
		func() error { return c.SetGroupState(ctx, "news", map[string]string{"mood": "ok"}) },
		func() error { return c.SetGroupState(ctx, "news", nil) },
		func() error { return c.WatchGroupState(ctx, "news") },
		func() error { return c.UnwatchGroupState(ctx, "news") },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []map[string]any{
		{"type": "setGroupState", "group": "news", "ackId": 1.0, "state": map[string]any{"mood": "ok"}},
		{"type": "setGroupState", "group": "news", "ackId": 2.0},
		{"type": "subscribeGroupState", "group": "news", "ackId": 3.0},
		{"type": "unsubscribeGroupState", "group": "news", "ackId": 4.0},
	} {
		if got := s.peer(0).sent()[i]; !reflect.DeepEqual(got, want) {
			t.Errorf("the server got %v, want %v", got, want)
		}
	}
	for _, want := range []client.GroupState{
		{Group: "news", Snapshot: true, States: []engine.GroupState{
			{ConnID: "a", UserID: "ann", State: map[string]string{"mood": "ok"}, UpdatedAt: time.UnixMilli(1000)},
			{ConnID: "b", State: map[string]string{}, UpdatedAt: time.UnixMilli(2000)},
		}},
		{Group: "news", States: []engine.GroupState{{ConnID: "a", UserID: "ann", UpdatedAt: time.UnixMilli(3000)}}},
	} {
		if got := receive[client.GroupState](t, c); !reflect.DeepEqual(got, want) {
			t.Errorf("received %+v, want %+v", got, want)
		}
	}
	// They are deliveries like others: kept until acknowledged, and not given twice.
	s.cut(0)
	receive[client.Recovered](t, c)
	if err := c.SendEvent(ctx, "x", text(""), nil); err != nil {
		t.Fatal(err)
	}
	wantText(t, c, "reply")
}

// A new connection watches what the one before it did.
func TestReconnectWatches(t *testing.T) {
	s := serve(t, &server{onFrame: func(p *peer, m map[string]any) bool {
		if p.n == 3 && m["type"] == "subscribeGroupState" && m["group"] == "b" {
			p.say(`{"type":"ack","ackId":%v,"success":false,"error":{"name":"Forbidden","message":"revoked"}}`, m["ackId"])
			return true
		}
		return false
	}})
	ctx := within(t)
	o := reliable()
	o.Reconnect = &client.Reconnect{MinDelay: time.Millisecond}
	c := dial(t, s, o)
	receive[client.Connected](t, c)
	for _, g := range []string{"a", "b", "c", "d"} {
		if err := c.WatchGroupState(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.UnwatchGroupState(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if err := c.LeaveGroup(ctx, "d"); err != nil {
		t.Fatal(err)
	}
	s.forget(0)
	s.cut(0)
	receive[client.Lost](t, c)
	receive[client.Connected](t, c)
	if e := receive[client.RejoinFailed](t, c); e.Group != "b" || !e.Watch {
		t.Errorf("RejoinFailed = %+v", e)
	}
	if err := c.Ping(ctx); err != nil { // it comes behind all of that
		t.Fatal(err)
	}
	watched := map[any]bool{}
	for _, m := range s.peer(1).sent() {
		if m["type"] == "subscribeGroupState" {
			watched[m["group"]] = true
		}
	}
	if !reflect.DeepEqual(watched, map[any]bool{"a": true, "b": true}) {
		t.Errorf("watched again: %v", watched)
	}
}
