package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// The last message is published at the end, whoever ends the connection, by its
// own permissions, unless it was taken back.
func TestLastMessage(t *testing.T) {
	h := start(t, nil).Hub("chat")
	bo := connect(t, h, open{groups: []engine.GroupName{"g"}})
	will := func(s string) *engine.Request {
		return &engine.Request{Op: engine.OpSend, Group: "g", Payload: text(s)}
	}
	ann := connect(t, h, open{user: "ann", roles: anything})
	ann.SetLast(will("lost"), -1)
	ann.Gone(engine.FirstWire, engine.CloseAbnormal, "")
	cy := connect(t, h, open{user: "cy", roles: anything})
	cy.SetLast(will("closed"), -1)
	must(t, h.CloseConn(t.Context(), cy.ID(), ""))
	dee := connect(t, h, open{user: "dee", roles: anything})
	dee.SetLast(will("never"), -1)
	dee.SetLast(nil, -1)
	dee.Gone(engine.FirstWire, engine.CloseNormal, "")
	eve := connect(t, h, open{user: "eve"})
	eve.SetLast(will("forbidden"), -1)
	eve.Gone(engine.FirstWire, engine.CloseAbnormal, "")
	// Who is ended as soon as it can be found leaves something; who never was in does not.
	for user, standing := range map[engine.UserID]func(context.Context) error{
		"fay": func(ctx context.Context) error { return h.CloseUser(ctx, "fay", "") },
		"gil": func(context.Context) error { return errors.New("revoked") },
	} {
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{UserID: user, Roles: anything, Standing: standing}})
		must(t, err)
		w := &enginetest.Wire{}
		_, err = a.Open(w, &engine.OpenOptions{
			Encoding: enginetest.Lines{}, Bind: w.Bind, Last: &engine.LastMessage{Request: will("on the way in"), Away: -1},
		})
		must(t, err)
	}
	must(t, h.SendToGroup(t.Context(), "g", text("end"), nil))
	bo.expect("text @g <ann lost", "text @g <cy closed", "text @g <fay on the way in", "text @g end")
}

// Details of the door travel with events, as they are then.
func TestDetails(t *testing.T) {
	got := make(chan string, 3)
	h := start(t, &engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{Listeners: []engine.ListenerRule{{
			SystemEvents: []string{"connected", "disconnected"},
			Listener: func(_ context.Context, e engine.ListenedEvent) {
				switch e := e.(type) {
				case *engine.ConnectedEvent:
					got <- fmt.Sprint("connected ", e.Details)
				case *engine.DisconnectedEvent:
					got <- fmt.Sprint("disconnected ", e.Details)
				}
			},
		}}}
	}}).Hub("chat")
	a, err := h.Admit(t.Context(), &engine.AdmitRequest{})
	must(t, err)
	w := &enginetest.Wire{}
	c, err := a.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: w.Bind, Details: "session 1"})
	must(t, err)
	c.SetDetails("packet 0")
	c.Gone(engine.FirstWire, engine.CloseNormal, "")
	all := []string{<-got, <-got}
	if want := []string{"connected session 1", "disconnected packet 0"}; !slices.Equal(all, want) {
		t.Errorf("got %s", strings.Join(all, ", "))
	}
}

// ends is an encoding of a connection's first and last message, with what is a
// protocol's own about them.
type ends struct{}

func (ends) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	switch m.Kind {
	case engine.KindConnected:
		return fmt.Appendf(dst, "connected \nhello %v\n", m.Attributes), true
	case engine.KindClose:
		return fmt.Appendf(dst, "goodbye %s\n", m.Reason), true
	}
	return dst, false
}

func (ends) AppendPrefix(dst []byte, _ *engine.Message, _ engine.Own, _ int) []byte { return dst }
func (ends) Own() bool                                                              { return false }

// A protocol that says more in its first and last message than Azure's gets what
// it takes: whoever is taken over is told so.
func TestHelloAndGoodbye(t *testing.T) {
	h := start(t, nil).Hub("chat")
	open := func(hello string) *client {
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{ConnID: "x", TakeOver: true})
		must(t, err)
		w := &enginetest.Wire{}
		c, err := a.Open(w, &engine.OpenOptions{Encoding: ends{}, Hello: hello, Bind: w.Bind})
		must(t, err)
		return &client{Conn: c, Wire: w, t: t}
	}
	first := open("one")
	second := open("two")
	first.expect("hello one", "goodbye TakenOver")
	second.End(engine.EndServer, engine.CloseNormal, "", "")
	second.expect("hello two", "goodbye ClosedByAppServer")
	third := open("three")
	third.Gone(engine.FirstWire, engine.CloseNormal, "")
	third.expect("hello three", "goodbye Normal")
}

// What a client publishes upon its hello reaches itself in its initial groups.
func TestHelloFollowsInitialGroups(t *testing.T) {
	h := start(t, nil).Hub("chat")
	for i := range 300 {
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{
			Groups: []engine.GroupName{"a", "b", "g"}, Roles: anything,
		}})
		must(t, err)
		w := &enginetest.Wire{}
		var c *engine.Conn
		opened := make(chan struct{})
		go func() { // a client as eager as can be
			if err := w.Await(t.Context(), func(got []byte, _ bool) bool { return len(got) > 0 }); err != nil {
				t.Error(err)
			}
			c.Do(&engine.Request{Op: engine.OpSend, Group: "g", Payload: text(fmt.Sprint(i))}, func(error) {})
			close(opened)
		}()
		_, err = a.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: func(conn *engine.Conn, id engine.WireID) { c = conn; w.Bind(conn, id) }})
		must(t, err)
		<-opened
		(&client{Conn: c, Wire: w, t: t}).expect(fmt.Sprintf("text @g %d", i))
		c.Gone(engine.FirstWire, engine.CloseNormal, "")
	}
}

// Whoever has seen a client's hello can send to it, to its user and to its hub.
func TestHelloFollowsVisibility(t *testing.T) {
	h := start(t, nil).Hub("chat")
	for range 1000 {
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{UserID: "ann"}})
		must(t, err)
		w := &enginetest.Wire{}
		var c *engine.Conn
		seen := make(chan struct{})
		go func() { // a server that sends as soon as can be
			defer close(seen)
			if err := w.Await(t.Context(), func(got []byte, _ bool) bool { return len(got) > 0 }); err != nil {
				t.Error(err)
			}
			for _, err := range []error{
				h.SendToUser(t.Context(), "ann", text("user"), nil),
				h.SendToAll(t.Context(), text("all"), nil),
				h.SendToConn(t.Context(), c.ID(), text("conn"), nil),
			} {
				if err != nil {
					t.Error(err)
				}
			}
		}()
		_, err = a.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: func(conn *engine.Conn, id engine.WireID) { c = conn; w.Bind(conn, id) }})
		must(t, err)
		<-seen
		(&client{Conn: c, Wire: w, t: t}).expect("text user", "text all", "text conn")
		c.Gone(engine.FirstWire, engine.CloseNormal, "")
	}
}
