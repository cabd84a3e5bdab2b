package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
)

func TestSmoke(t *testing.T) {
	e, err := engine.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	h := e.Hub("chat")
	a, err := h.Subscribe(ctx, &engine.SubscribeOptions{UserID: "ann", Groups: []engine.GroupName{"news"}})
	if err != nil {
		t.Fatal(err)
	}
	b, _ := h.Subscribe(ctx, &engine.SubscribeOptions{UserID: "bo", Groups: []engine.GroupName{"news"}})
	if err := a.Conn().SendToGroup(ctx, "news", engine.Payload{Data: []byte("hi")}, true); err != nil {
		t.Fatal(err)
	}
	h.SendToGroup(ctx, "news", engine.Payload{Data: []byte("two")}, nil)
	h.SendToUser(ctx, "ann", engine.Payload{Data: []byte("three")}, nil)
	h.SendToConn(ctx, b.Conn().ID(), engine.Payload{Data: []byte("four")}, nil)
	h.SendToAll(ctx, engine.Payload{Data: []byte("five")}, &engine.SendOptions{Filter: "userId eq 'bo'"})
	for _, want := range []string{"two", "three"} {
		m, err := a.Receive(ctx)
		if err != nil || string(m.Payload.Data) != want {
			t.Fatal(m, err, want)
		}
	}
	for _, want := range []string{"hi", "two", "four", "five"} {
		m, err := b.Receive(ctx)
		if err != nil || string(m.Payload.Data) != want {
			t.Fatal(m, err, want)
		}
	}
	if err := e.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Receive(ctx); engine.CodeOf(err) != engine.CodeClosed {
		t.Fatal(err)
	}
	if st := e.Stats(); st.Connections != 0 || st.Groups != 0 || st.Memberships != 0 {
		t.Fatalf("%+v", st)
	}
}
