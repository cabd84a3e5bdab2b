package engine_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// The twenty subtle behaviours of events stand in cmd/fanfare, save this one:
// listeners are an embedder's.

// A listener alone makes an event succeed, whatever becomes of what it was told;
// it has literal names where a handler has wildcards; and both know an event by
// the same ids.
func TestEvent20ListenerAlone(t *testing.T) {
	// identify names an event as a listener's message is named.
	identify := func(e *engine.UserEvent) string { return fmt.Sprintf("%s %s/%d", e.Name, e.ConnID, e.ID) }
	told, asked := make(chan string, 10), make(chan string, 10)
	handler := &engine.HandlerFuncs{OnUserEvent: func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		asked <- identify(e)
		return nil, nil
	}}
	h := start(t, &engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{
			Handlers: []engine.HandlerRule{{UserEvents: "room.*", Handler: handler}},
			Listeners: []engine.ListenerRule{{
				UserEvents: "alone, room.*, room.both",
				// It keeps nothing but a note, as one does whose broker is down.
				Listener: func(_ context.Context, e engine.ListenedEvent) { told <- identify(e.(*engine.UserEvent)) },
			}},
		}
	}}).Hub("chat")
	c := connect(t, h, open{user: "ann"})
	for i, event := range []engine.EventName{"alone", "room.message", "room.both", "nobody"} {
		id := engine.AckID(i)
		c.Do(&engine.Request{Op: engine.OpEvent, Event: event, AckID: id, HasAck: true, Payload: text("x")}, func(err error) {
			c.Post(ackMessage(id, err))
		})
	}
	acks := c.lines(4)
	if !slices.Equal(acks[:3], []string{"ack 0", "ack 1", "ack 2"}) || acks[3] == "ack 3" {
		t.Errorf("got %q", acks)
	}
	is := func(event string, id int) string { return fmt.Sprintf("%s %s/%d", event, c.ID(), id) }
	for who, got := range map[string]struct {
		events chan string
		want   []string
	}{
		// The connection's first event, connected, has the id 1.
		"the listener": {told, []string{is("alone", 2), is("room.both", 4)}},
		"the handler":  {asked, []string{is("room.message", 3), is("room.both", 4)}},
	} {
		close(got.events)
		var all []string
		for e := range got.events {
			all = append(all, e)
		}
		if !slices.Equal(all, got.want) {
			t.Errorf("%s got %q; want %q", who, all, got.want)
		}
	}
}
