package engine_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// ask carries a request out and returns its outcome.
func (c *client) ask(r *engine.Request) error {
	c.t.Helper()
	done := make(chan error, 1)
	c.Do(r, func(err error) { done <- err })
	return <-done
}

func (c *client) stream(op engine.Op, g engine.GroupName, r engine.StreamRequest, p string) {
	c.t.Helper()
	must(c.t, c.ask(&engine.Request{Op: op, Group: g, Stream: &r, Payload: text(p)}))
}

// A stream's parts arrive in order and once, whatever the publisher repeats or
// leaves out, and the publisher knows what is expected.
func TestStream(t *testing.T) {
	for name, nodes := range map[string]int{"one node": 1, "two nodes": 2} {
		t.Run(name, func(t *testing.T) {
			hubs := startNodes(t, nodes)
			ann := connect(t, hubs[0], open{user: "ann", roles: anything, groups: []engine.GroupName{"g"}})
			bo := connect(t, hubs[nodes-1], open{groups: []engine.GroupName{"g"}})
			ann.stream(engine.OpStreamStart, "g", engine.StreamRequest{ID: "s"}, "")
			ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "s", Seq: 1}, "a")
			ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "s", Seq: 1}, "again")
			ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "s", Seq: 3}, "early")
			ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "s"}, "")
			ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "s", Seq: 2}, "b")
			ann.stream(engine.OpStreamEnd, "", engine.StreamRequest{ID: "s"}, "")
			ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "s", Seq: 3}, "late")
			ann.stream(engine.OpStreamEnd, "", engine.StreamRequest{ID: "s"}, "")
			ann.expect(
				"stream ack ~s/1", "text @g <ann ~s/1 a", "stream ack ~s/2", "stream ack ~s/2", "stream nack ~s/2 InvalidSequenceId",
				"text @g <ann ~s/2 b", "stream ack ~s/3", "text @g <ann ~s/3 end ", "stream closed ~s/0",
				"stream closed ~s/0 StreamNotFound", "stream closed ~s/0 StreamNotFound",
			)
			bo.expect("text @g <ann ~s/1 a", "text @g <ann ~s/2 b", "text @g <ann ~s/3 end ")
		})
	}
}

// A start that is refused is answered like a stream that has ended.
func TestStreamIsRefused(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := connect(t, h, open{roles: []string{engine.RoleSendToGroup + ".g"}})
	c.stream(engine.OpStreamStart, "other", engine.StreamRequest{ID: "s"}, "")
	c.stream(engine.OpStreamStart, "g", engine.StreamRequest{ID: "s"}, "")
	c.stream(engine.OpStreamStart, "g", engine.StreamRequest{ID: "s"}, "")
	c.expect("stream closed ~s/0 Forbidden", "stream ack ~s/1", "stream closed ~s/0 BadRequest")
	for i := range 99 {
		c.stream(engine.OpStreamStart, "g", engine.StreamRequest{ID: fmt.Sprint(i)}, "")
	}
	c.stream(engine.OpStreamStart, "g", engine.StreamRequest{ID: "one more"}, "")
	if got := c.lines(103)[102]; got != "stream closed ~one more/0 BadRequest" {
		t.Errorf("the stream over the bound: %q", got)
	}
	// The name of one that has ended is free.
	c.stream(engine.OpStreamEnd, "", engine.StreamRequest{ID: "7"}, "")
	c.stream(engine.OpStreamStart, "g", engine.StreamRequest{ID: "7"}, "")
	if got := c.lines(105)[104]; got != "stream ack ~7/1" {
		t.Errorf("a name that was used before: %q", got)
	}
}

// Subscribers learn why a stream ended early, whoever ended it.
func TestStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, nil)
		h := e.Hub("chat")
		groups := []engine.GroupName{"g"}
		bo := connect(t, h, open{groups: groups})
		begin := func(c *client, id string, idle time.Duration) {
			c.stream(engine.OpStreamStart, "g", engine.StreamRequest{ID: id, Idle: idle}, "")
		}
		ann := durable(t, h, open{roles: anything, groups: groups})
		must(t, ann.ask(&engine.Request{
			Op: engine.OpStreamStart, Group: "g", NoEcho: true, Stream: &engine.StreamRequest{ID: "failed"},
		}))
		ann.stream(engine.OpStreamEnd, "", engine.StreamRequest{
			ID: "failed", Err: &engine.StreamError{Name: engine.StreamUserError, UserCode: "E42"},
		}, "")
		ann.expect("stream ack ~failed/1", "stream closed ~failed/0")

		begin(ann, "idle", 3*time.Second)
		begin(ann, "alive", 2*time.Second)
		time.Sleep(1500 * time.Millisecond) // virtual
		ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "alive"}, "")
		time.Sleep(1600 * time.Millisecond)
		synctest.Wait()
		ann.expect(
			"stream ack ~failed/1", "stream closed ~failed/0", "stream ack ~idle/1", "stream ack ~alive/1",
			"#1 text @g ~idle/1 end IdleTimeout ", "stream closed ~idle/0 IdleTimeout",
		)
		ann.stream(engine.OpStreamEnd, "", engine.StreamRequest{ID: "alive"}, "")

		begin(ann, "denied", 0)
		must(t, h.Revoke(t.Context(), ann.ID(), engine.SendToGroup, "g"))
		ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "denied", Seq: 1}, "x")
		must(t, h.Grant(t.Context(), ann.ID(), engine.SendToGroup, "g"))

		// It outlives a wire, and not the connection.
		begin(ann, "gone", 0)
		ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "gone", Seq: 1}, "1")
		ann.lose()
		ann = ann.recover(&enginetest.Wire{}, enginetest.Lines{})
		ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "gone", Seq: 1}, "1")
		ann.stream(engine.OpStreamData, "", engine.StreamRequest{ID: "gone", Seq: 2}, "2")
		must(t, h.CloseConn(t.Context(), ann.ID(), ""))
		bo.expect(
			"text @g ~failed/1 end UserError ", "text @g ~idle/1 end IdleTimeout ", "text @g ~alive/1 end ",
			"text @g ~denied/1 end Forbidden ", "text @g ~gone/1 1", "text @g ~gone/2 2", "text @g ~gone/3 end Cancelled ",
		)
		must(t, e.Close())
	})
}
