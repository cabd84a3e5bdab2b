package engine_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// All that a connection is can be written down, and goes on in another engine: its
// client notices nothing but another wire.
func TestHandOver(t *testing.T) {
	var handlers []*enginetest.Handler
	var hubs []*engine.Hub
	for _, bp := range enginetest.NewCluster(2) {
		handler := &enginetest.Handler{}
		o := handled(handler, "*")
		o.Backplane = bp
		handlers, hubs = append(handlers, handler), append(hubs, start(t, o).Hub("chat"))
	}
	ctx := t.Context()
	c := durable(t, hubs[0], open{
		id: "c", user: "ann", sub: "toy", roles: append([]string{engine.RoleSendToGroup + ".only"}, stateRoles[1:]...),
		groups: []engine.GroupName{"g"}, session: "the door's",
	})
	peer := connect(t, hubs[1], open{user: "bo", roles: stateRoles, groups: []engine.GroupName{"g"}})
	must(t, c.ask(&engine.Request{Op: engine.OpJoin, Group: "h", AckID: 7, HasAck: true, Membership: "an option"}))
	must(t, hubs[1].Grant(ctx, "c", engine.SendToGroup, "granted"))
	c.stream(engine.OpStreamStart, "granted", engine.StreamRequest{ID: "s"}, "")
	c.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "s", Seq: 1}, "1")
	must(t, c.SetGroupState(ctx, "g", map[string]string{"k": "v"}))
	must(t, c.WatchGroupState(ctx, "g"))
	must(t, peer.WatchGroupState(ctx, "g"))
	must(t, hubs[1].SendToGroup(ctx, "h", text("1"), nil))
	must(t, hubs[1].SendToGroup(ctx, "g", text("2"), nil))
	c.expect("stream ack ~s/1", "stream ack ~s/2", "#1 snapshot @g c:k=v,", "#2 {an option} text @h 1", "#3 text @g 2")
	c.SetLast(&engine.Request{Op: engine.OpSend, Group: "granted", Payload: text("last")}, time.Hour)
	c.AckUpTo(1)

	st := handOver(t, hubs[0], "c")
	c.awaitClosed()
	if ok, err := hubs[1].ConnExists(ctx, "c"); err != nil || ok {
		t.Errorf("it is still there: %t, %v", ok, err)
	}
	_, err := hubs[0].HandOver(ctx, "c")
	wantCode(t, err, engine.CodeNotFound)
	var buf bytes.Buffer
	gob.Register("") // what this door keeps is strings
	must(t, gob.NewEncoder(&buf).Encode(st))
	var again engine.ConnState
	must(t, gob.NewDecoder(&buf).Decode(&again))
	must(t, hubs[1].Adopt(ctx, &again, enginetest.Lines{Numbered: true}))
	wantCode(t, hubs[0].Adopt(ctx, &again, enginetest.Lines{Numbered: true}), engine.CodeConflict)

	must(t, hubs[0].SendToGroup(ctx, "g", text("3"), nil))
	w := &enginetest.Wire{}
	next, err := c.tryRecover(hubs[1], &engine.RecoverRequest{ConnID: "c", Token: c.token()}, w, enginetest.Lines{})
	must(t, err)
	wantCode(t, next.ask(&engine.Request{Op: engine.OpLeave, Group: "h", AckID: 7, HasAck: true}), engine.CodeDuplicate)
	must(t, next.SendToGroup(ctx, "only", text(""), false))
	wantCode(t, next.SendToGroup(ctx, "other", text(""), false), engine.CodeForbidden)
	next.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "s", Seq: 2}, "2")
	must(t, next.SetGroupState(ctx, "g", map[string]string{"k": "w"}))
	next.expect(
		"#2! {an option} text @h 1", "#3! text @g 2", "#4 snapshot @g c:k=v,", "#5 text @g 3", "stream ack ~s/3", "#6 update @g c:k=w,",
	)
	peer.expect("snapshot @g c:k=v,", "text @g 2", "text @g 3", "update @g c:k=w,")
	must(t, peer.JoinGroup(ctx, "granted"))
	must(t, hubs[0].CloseConn(ctx, "c", ""))
	peer.expect(
		"snapshot @g c:k=v,", "text @g 2", "text @g 3", "update @g c:k=w,",
		"text @granted <ann last", "text @granted <ann ~s/3 end Cancelled ", "update @g c:gone",
	)
	calls, err := handlers[1].Await(ctx, 3)
	must(t, err)
	if got := calls[2]; got != "disconnected 2 ann Application server closed the connection." {
		t.Errorf("the first event of the second engine is %q", got)
	}
	_, err = handlers[0].Await(ctx, 2)
	must(t, err)
	if calls := handlers[0].Calls(); len(calls) != 2 {
		t.Errorf("the first engine raised %q", calls)
	}
}

// What cannot be handed over.
func TestHandOverIsRefused(t *testing.T) {
	release := make(chan struct{})
	handler := &enginetest.Handler{Answer: engine.HandlerFuncs{
		OnUserEvent: func(context.Context, *engine.UserEvent) (*engine.EventReply, error) { <-release; return nil, nil },
	}}
	h := start(t, handled(handler, "*")).Hub("chat")
	plain := connect(t, h, open{})
	busy := durable(t, h, open{roles: anything})
	done := make(chan error, 1)
	busy.Do(&engine.Request{Op: engine.OpEvent, Event: "e"}, func(err error) { done <- err })
	for id, code := range map[engine.ConnID]engine.Code{
		plain.ID(): engine.CodeNotFound, "nobody": engine.CodeNotFound, busy.ID(): engine.CodeConflict,
	} {
		_, err := h.HandOver(t.Context(), id)
		wantCode(t, err, code)
	}
	close(release)
	must(t, <-done)
	handOver(t, h, busy.ID())
}

// handOver hands a connection over once it has nothing under way any more: it is
// answered a moment earlier.
func handOver(t *testing.T, h *engine.Hub, id engine.ConnID) (st *engine.ConnState) {
	t.Helper()
	eventually(t, func() bool {
		var err error
		if st, err = h.HandOver(t.Context(), id); engine.CodeOf(err) == engine.CodeConflict {
			return false
		}
		must(t, err)
		return true
	})
	return st
}
