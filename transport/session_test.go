package transport

import (
	"context"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// far is the wire of a client that is not there.
type far struct{ enginetest.Wire }

func (*far) Resume() {}

// TestNoTableOfInvocations is a session whose invocations have all been answered: it
// has no table of them, as before the first. No door can see that.
func TestNoTableOfInvocations(t *testing.T) {
	gate := make(chan struct{})
	hub := &engine.HubOptions{Handlers: []engine.HandlerRule{{
		UserEvents: "*",
		Handler: &engine.HandlerFuncs{OnUserEvent: func(context.Context, *engine.UserEvent) (*engine.EventReply, error) {
			<-gate
			return nil, nil
		}},
	}}}
	e, err := engine.New(&engine.Options{Hubs: func(engine.HubName) *engine.HubOptions { return hub }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	a, err := e.Hub("h").Admit(t.Context(), &engine.AdmitRequest{})
	if err != nil {
		t.Fatal(err)
	}
	p, _ := subprotocol.Find(subprotocol.NameJSON)
	var s Session
	if err := s.Open(a, &far{}, &SessionOptions{Decoder: p.Decoder, Encoding: enginetest.Lines{}, Subprotocol: p.Name}); err != nil {
		t.Fatal(err)
	}
	say := func(message string) { s.Message(subprotocol.TextFrame, []byte(message)) }
	for range 3 {
		say(`{"type":"invoke","invocationId":"a","target":"event","event":"e","data":1}`)
		say(`{"type":"invoke","invocationId":"b","target":"event","event":"e","data":1}`)
		say(`{"type":"invoke","invocationId":"a","target":"event","event":"e","data":1}`) // refused
		if table := s.invocations.Load(); table == nil || len(table.cancels) != 2 {
			t.Fatal("two invocations are not in the table")
		}
		gate <- struct{}{}
		gate <- struct{}{}
		// What is asked after them is done after them.
		if err := s.Conn().JoinGroup(t.Context(), "g"); engine.CodeOf(err) != engine.CodeForbidden {
			t.Fatal(err)
		}
		if s.invocations.Load() != nil {
			t.Fatal("there is a table without invocations")
		}
	}
}
