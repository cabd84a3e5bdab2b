package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// What is published after a join returned reaches the joiner, and nothing
// published after a leave returned does.
func TestJoinAndLeaveBound(t *testing.T) {
	h := start(t, nil).Hub("chat")
	bo := connect(t, h, open{roles: anything})
	for i := range 200 {
		must(t, bo.JoinGroup(t.Context(), "news"))
		must(t, h.SendToGroup(t.Context(), "news", text(fmt.Sprint("in ", i)), nil))
		must(t, bo.LeaveGroup(t.Context(), "news"))
		must(t, h.SendToGroup(t.Context(), "news", text("out"), nil))
	}
	bo.expect(numbered("text @news in %d", 200)...)
}

// Per publisher and receiver, messages arrive in order, whatever others publish
// and wherever the receivers are.
func TestOrderPerPublisher(t *testing.T) {
	h := start(t, &engine.Options{Shards: 3}).Hub("chat")
	const publishers, each, groups = 4, 300, 3
	var members []*client
	for range 9 {
		members = append(members, connect(t, h, open{groups: []engine.GroupName{"g0", "g1", "g2"}, user: "u"}))
	}
	var wg sync.WaitGroup
	for p := range publishers {
		c := connect(t, h, open{roles: anything, user: engine.UserID(fmt.Sprint("p", p))})
		wg.Go(func() {
			for i := range each {
				g := engine.GroupName(fmt.Sprint("g", (p+i)%groups))
				if err := c.SendToGroup(context.Background(), g, text(fmt.Sprint(i)), false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, m := range members {
		next := make(map[string]int)
		for _, line := range m.lines(publishers * each) {
			f := strings.Fields(line) // text @g1 <p2 17
			if want := fmt.Sprint(next[f[2]]); f[3] != want {
				t.Fatalf("%s: got %s, want message %s", m.ID(), line, want)
			}
			next[f[2]]++
		}
	}
}

// A send by a server that was answered precedes any later one, whichever verb
// they use.
func TestOrderOfServerSends(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := connect(t, h, open{user: "ann", groups: []engine.GroupName{"g"}})
	other := connect(t, h, open{user: "bo"})
	var want []string
	for i := range 100 {
		must(t, h.SendToAll(t.Context(), text(fmt.Sprint("all ", i)), &engine.SendOptions{Excluded: []engine.ConnID{other.ID()}}))
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
		must(t, h.SendToUser(t.Context(), "ann", text(fmt.Sprint("user ", i)), nil))
		must(t, h.SendToConn(t.Context(), c.ID(), text(fmt.Sprint("conn ", i)), nil))
		must(t, h.SendToAll(t.Context(), text(fmt.Sprint("filter ", i)), &engine.SendOptions{Filter: "userId eq 'ann'"}))
		want = append(want, fmt.Sprint("text all ", i), fmt.Sprint("text @g ", i), fmt.Sprint("text user ", i),
			fmt.Sprint("text conn ", i), fmt.Sprint("text filter ", i))
	}
	c.expect(want...)
	if got := other.lines(0); len(got) > 0 {
		t.Errorf("the excluded client got %q", got)
	}
}

// An event's reply precedes its ack, and what the client asked after it waits
// for both.
func TestReplyPrecedesAck(t *testing.T) {
	handler := &enginetest.Handler{Answer: engine.HandlerFuncs{
		OnUserEvent: func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
			p := text("re " + string(e.Payload.Data))
			return &engine.EventReply{Payload: &p}, nil
		},
	}}
	h := start(t, handled(handler, "*")).Hub("chat")
	c := connect(t, h, open{roles: anything, groups: []engine.GroupName{"g"}})
	var want []string
	for i := range 50 {
		id := engine.AckID(2 * i)
		ack := func(id engine.AckID) func(error) {
			return func(err error) { c.Post(ackMessage(id, err)) }
		}
		c.Do(&engine.Request{Op: engine.OpEvent, Event: "ask", AckID: id, HasAck: true, Payload: text(fmt.Sprint(i))}, ack(id))
		c.Do(&engine.Request{Op: engine.OpSend, Group: "g", AckID: id + 1, HasAck: true, Payload: text(fmt.Sprint(i))}, ack(id+1))
		want = append(want, fmt.Sprint("text re ", i), fmt.Sprint("ack ", id), fmt.Sprint("text @g ", i), fmt.Sprint("ack ", id+1))
	}
	c.expect(want...)
}

func ackMessage(id engine.AckID, err error) *engine.Message {
	m := &engine.Message{Kind: engine.KindAck, AckID: id}
	if err != nil {
		m.Err = &engine.Error{Code: engine.CodeOf(err), Message: err.Error()}
	}
	return m
}

// handled gives every event of every hub to one handler.
func handled(h engine.EventHandler, events string) *engine.Options {
	return &engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{Handlers: []engine.HandlerRule{{
			SystemEvents: []string{"connect", "connected", "disconnected"}, UserEvents: events, Handler: h,
		}}}
	}}
}
