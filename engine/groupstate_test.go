package engine_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

var stateRoles = []string{engine.RoleSendToGroup, engine.RoleJoinLeaveGroup, engine.RoleGetGroupState, engine.RoleSetGroupState}

// watch asks for g's state with an ack.
func (c *client) watch(g engine.GroupName, id engine.AckID) {
	c.Do(&engine.Request{Op: engine.OpWatchState, Group: g, AckID: id, HasAck: true}, func(err error) {
		m := &engine.Message{Kind: engine.KindAck, AckID: id}
		if err != nil {
			m.Err = err.(*engine.Error)
		}
		c.Post(m)
	})
}

// A watcher gets an ack, then the group's state, then what changes, its own
// included, on one node and on two.
func TestGroupState(t *testing.T) {
	for name, nodes := range map[string]int{"one node": 1, "two nodes": 2} {
		t.Run(name, func(t *testing.T) {
			hubs := startNodes(t, nodes)
			groups := []engine.GroupName{"g", "h"}
			ann := connect(t, hubs[0], open{id: "ann", roles: stateRoles, groups: groups})
			bo := connect(t, hubs[nodes-1], open{id: "bo", roles: stateRoles, groups: groups})
			set := func(c *client, g engine.GroupName, v string) {
				t.Helper()
				must(t, c.SetGroupState(t.Context(), g, map[string]string{"k": v}))
			}
			set(bo, "g", "1")
			ann.watch("g", 5)
			ann.lines(2)
			set(ann, "g", "2")
			set(bo, "g", "3")
			set(bo, "h", "of another group")
			must(t, bo.SetGroupState(t.Context(), "g", nil))
			must(t, bo.SetGroupState(t.Context(), "g", nil)) // there is nothing to clear
			set(bo, "g", "4")
			must(t, bo.LeaveGroup(t.Context(), "g"))
			must(t, bo.JoinGroup(t.Context(), "g"))
			set(bo, "g", "5")
			must(t, hubs[0].CloseConn(t.Context(), "bo", ""))
			want := []string{
				"ack 5", "snapshot @g bo:k=1,", "update @g ann:k=2,", "update @g bo:k=3,", "update @g bo:gone", "update @g bo:k=4,",
				"update @g bo:gone", "update @g bo:k=5,", "update @g bo:gone",
			}
			ann.expect(want...)
			must(t, ann.UnwatchGroupState(t.Context(), "g"))
			must(t, ann.UnwatchGroupState(t.Context(), "g"))
			set(ann, "g", "6")
			ann.watch("g", 6)
			ann.expect(append(want, "ack 6", "snapshot @g ann:k=6,")...)
			ann.watch("g", 7) // once more
			set(ann, "g", "7")
			ann.expect(append(want, "ack 6", "snapshot @g ann:k=6,", "ack 7", "snapshot @g ann:k=6,", "update @g ann:k=7,")...)
		})
	}
}

// Who may not, and what is too much.
func TestGroupStateIsRefused(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := connect(t, h, open{roles: stateRoles, groups: []engine.GroupName{"g"}})
	ctx := t.Context()
	wantCode(t, c.SetGroupState(ctx, "other", map[string]string{"k": "v"}), engine.CodeForbidden)
	wantCode(t, c.WatchGroupState(ctx, "other"), engine.CodeForbidden)
	wantCode(t, c.SetGroupState(ctx, "g", map[string]string{"k": strings.Repeat("é", 256)}), engine.CodeTooLarge)
	must(t, c.SetGroupState(ctx, "g", map[string]string{"key": strings.Repeat("v", 509)}))
	must(t, c.UnwatchGroupState(ctx, "other"))
	poor := connect(t, h, open{roles: anything, groups: []engine.GroupName{"g"}})
	wantCode(t, poor.SetGroupState(ctx, "g", nil), engine.CodeForbidden)
	wantCode(t, poor.WatchGroupState(ctx, "g"), engine.CodeForbidden)
	one := connect(t, h, open{roles: []string{engine.RoleGetGroupState + ".g"}, groups: []engine.GroupName{"g"}})
	must(t, one.WatchGroupState(ctx, "g"))
	wantCode(t, one.SetGroupState(ctx, "g", nil), engine.CodeForbidden)
}

// A snapshot is the first 200 in order of connection id.
func TestSnapshotIsBounded(t *testing.T) {
	hubs := startNodes(t, 2)
	groups := []engine.GroupName{"g"}
	for i := range 240 {
		c := connect(t, hubs[i%2], open{id: engine.ConnID(fmt.Sprintf("c%03d", 239-i)), roles: stateRoles, groups: groups})
		must(t, c.SetGroupState(t.Context(), "g", map[string]string{}))
	}
	s, err := hubs[0].Subscribe(t.Context(), &engine.SubscribeOptions{Groups: groups})
	must(t, err)
	defer s.Close()
	must(t, s.Conn().WatchGroupState(t.Context(), "g"))
	m, err := s.Receive(t.Context())
	must(t, err)
	if m.Kind != engine.KindStateSnapshot || len(m.States) != 200 {
		t.Fatalf("got kind %d with %d items", m.Kind, len(m.States))
	}
	for i, item := range m.States {
		if want := engine.ConnID(fmt.Sprintf("c%03d", i)); item.ConnID != want || item.State == nil {
			t.Fatalf("item %d is of %s: %v", i, item.ConnID, item.State)
		}
	}
}

// slowPlane answers questions about state only when it is told to.
type slowPlane struct {
	engine.Backplane
	asked, answer chan struct{}
}

func (p *slowPlane) Ask(ctx context.Context, c *engine.Command) ([]*engine.Answer, error) {
	answers, err := p.Backplane.Ask(ctx, c)
	if c.Verb == engine.VerbState {
		p.asked <- struct{}{}
		<-p.answer
	}
	return answers, err
}

// What changes while a snapshot is collected comes after it, and nothing that the
// snapshot knows better.
func TestUpdatesWaitForTheSnapshot(t *testing.T) {
	planes := enginetest.NewCluster(2)
	slow := &slowPlane{planes[0], make(chan struct{}), make(chan struct{})}
	near := start(t, &engine.Options{Backplane: slow}).Hub("chat")
	far := start(t, &engine.Options{Backplane: planes[1]}).Hub("chat")
	groups := []engine.GroupName{"g"}
	ann := connect(t, near, open{id: "ann", roles: stateRoles, groups: groups})
	bo := connect(t, far, open{id: "bo", roles: stateRoles, groups: groups})
	set := func(c *client, v string) { must(t, c.SetGroupState(t.Context(), "g", map[string]string{"k": v})) }
	set(bo, "1")
	ann.watch("g", 1)
	<-slow.asked // bo's 1 is in the answer
	set(bo, "2")
	set(bo, "3")
	slow.answer <- struct{}{}
	ann.expect("ack 1", "snapshot @g bo:k=1,", "update @g bo:k=2,", "update @g bo:k=3,")
}

// Each update of a connection is later than the one before it.
func TestUpdatedAtRises(t *testing.T) {
	h := start(t, nil).Hub("chat")
	groups := []engine.GroupName{"g"}
	c := connect(t, h, open{roles: stateRoles, groups: groups})
	s, err := h.Subscribe(t.Context(), &engine.SubscribeOptions{Groups: groups})
	must(t, err)
	defer s.Close()
	must(t, s.Conn().WatchGroupState(t.Context(), "g"))
	var before time.Time
	for i := range 5 {
		state := map[string]string{"i": fmt.Sprint(i)}
		if i%2 == 1 {
			state = nil
		}
		must(t, c.SetGroupState(t.Context(), "g", state))
	}
	must(t, h.CloseConn(t.Context(), c.ID(), ""))
	var kinds []engine.Kind
	for range 7 {
		m, err := s.Receive(t.Context())
		must(t, err)
		kinds = append(kinds, m.Kind)
		if m.Kind == engine.KindStateUpdate {
			if at := m.States[0].UpdatedAt; !at.After(before) || at.Nanosecond()%1e6 != 0 {
				t.Errorf("an update at %v came after one at %v", at, before)
			}
			before = m.States[0].UpdatedAt
		}
	}
	want := append([]engine.Kind{engine.KindStateSnapshot}, slices.Repeat([]engine.Kind{engine.KindStateUpdate}, 6)...)
	if !slices.Equal(kinds, want) {
		t.Errorf("got the kinds %v", kinds)
	}
}
