package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// Every verb does the same whether its target is on this node or on another.
func TestVerbs(t *testing.T) {
	for name, nodes := range map[string]int{"one node": 1, "two nodes": 2} {
		t.Run(name, func(t *testing.T) {
			for verb, test := range verbTests {
				t.Run(verb, func(t *testing.T) {
					hubs := startNodes(t, nodes)
					// The verbs are said on the first node; the clients are on the last,
					// with one more of each kind on the first where a verb has many targets.
					test(t, hubs[0], hubs[len(hubs)-1])
				})
			}
		})
	}
}

var verbTests = map[string]func(t *testing.T, server, there *engine.Hub){
	"SendToAll": func(t *testing.T, server, there *engine.Hub) {
		a, b := connect(t, there, open{user: "ann"}), connect(t, server, open{user: "bo"})
		must(t, server.SendToAll(t.Context(), text("1"), nil))
		must(t, server.SendToAll(t.Context(), text("2"), &engine.SendOptions{Excluded: []engine.ConnID{a.ID()}}))
		must(t, server.SendToAll(t.Context(), text("3"), &engine.SendOptions{Filter: "userId eq 'ann'"}))
		must(t, server.SendToAll(t.Context(), text("4"), nil))
		a.expect("text 1", "text 3", "text 4")
		b.expect("text 1", "text 2", "text 4")
		wantCode(t, server.SendToAll(t.Context(), text("x"), &engine.SendOptions{Filter: "userId lt 1"}), engine.CodeInvalid)
	},
	"SendToGroup": func(t *testing.T, server, there *engine.Hub) {
		a := connect(t, there, open{user: "ann", groups: []engine.GroupName{"g"}})
		b := connect(t, server, open{user: "bo", groups: []engine.GroupName{"g"}})
		connect(t, there, open{user: "cy"})
		must(t, server.SendToGroup(t.Context(), "g", text("1"), nil))
		must(t, server.SendToGroup(t.Context(), "none", text("x"), nil))
		must(t, server.SendToGroup(t.Context(), "g", text("2"), &engine.SendOptions{Filter: "'g' in groups and userId ne 'bo'", Metadata: engine.Metadata{"k": "v"}}))
		must(t, server.SendToGroup(t.Context(), "g", text("3"), &engine.SendOptions{Excluded: []engine.ConnID{b.ID(), "nobody"}}))
		must(t, server.SendToGroup(t.Context(), "g", text("4"), nil))
		a.expect("text @g 1", "text @g k=v 2", "text @g 3", "text @g 4")
		b.expect("text @g 1", "text @g 4")
	},
	"SendToUser": func(t *testing.T, server, there *engine.Hub) {
		a, b := connect(t, there, open{user: "ann"}), connect(t, server, open{user: "ann"})
		must(t, server.SendToUser(t.Context(), "ann", text("1"), nil))
		must(t, server.SendToUser(t.Context(), "nobody", text("x"), nil))
		a.expect("text 1")
		b.expect("text 1")
	},
	"SendToConn": func(t *testing.T, server, there *engine.Hub) {
		a := connect(t, there, open{})
		must(t, server.SendToConn(t.Context(), a.ID(), text("1"), nil))
		must(t, server.SendToConn(t.Context(), "nobody", text("x"), nil))
		a.expect("text 1")
	},
	"Publish": func(t *testing.T, server, there *engine.Hub) {
		a := connect(t, there, open{roles: anything, user: "ann"})
		b := connect(t, server, open{roles: anything, user: "bo"})
		must(t, a.JoinGroup(t.Context(), "g"))
		must(t, b.JoinGroup(t.Context(), "g"))
		must(t, b.SendToGroup(t.Context(), "g", text("1"), true))
		must(t, a.SendToGroup(t.Context(), "g", text("2"), false))
		a.expect("text @g <bo 1", "text @g <ann 2")
		b.expect("text @g <ann 2")
	},
	"Exists": func(t *testing.T, server, there *engine.Hub) {
		a := connect(t, there, open{user: "ann", groups: []engine.GroupName{"g"}})
		check := func(want bool) {
			t.Helper()
			for what, ask := range map[string]func() (bool, error){
				"connection": func() (bool, error) { return server.ConnExists(t.Context(), a.ID()) },
				"user":       func() (bool, error) { return server.UserExists(t.Context(), "ann") },
				"group":      func() (bool, error) { return server.GroupExists(t.Context(), "g") },
			} {
				if got, err := ask(); err != nil || got != want {
					t.Errorf("%s exists: %t, %v; want %t", what, got, err, want)
				}
			}
		}
		check(true)
		must(t, server.CloseConn(t.Context(), a.ID(), ""))
		check(false)
	},
	"CloseConn": func(t *testing.T, server, there *engine.Hub) {
		a := connect(t, there, open{})
		must(t, server.CloseConn(t.Context(), a.ID(), "maintenance"))
		must(t, server.CloseConn(t.Context(), a.ID(), "again"))
		must(t, server.CloseConn(t.Context(), "nobody", ""))
		a.expect("disconnected Application server closed the connection. Reason: maintenance", "close 1000")
		a.awaitClosed()
	},
	"CloseMany": func(t *testing.T, server, there *engine.Hub) {
		ends := map[string]func(reason string, excluded engine.ConnID) error{
			"all":   func(r string, x engine.ConnID) error { return server.CloseAll(t.Context(), r, x) },
			"group": func(r string, x engine.ConnID) error { return server.CloseGroup(t.Context(), "g", r, x) },
			"user":  func(r string, x engine.ConnID) error { return server.CloseUser(t.Context(), "ann", r, x) },
		}
		for name, end := range ends {
			o := open{user: "ann", groups: []engine.GroupName{"g"}}
			a, b, kept := connect(t, there, o), connect(t, server, o), connect(t, there, o)
			must(t, end("", kept.ID()))
			for _, c := range []*client{a, b} {
				c.expect("disconnected Application server closed the connection.", "close 1000")
			}
			if ok, err := server.ConnExists(t.Context(), kept.ID()); !ok || err != nil {
				t.Errorf("%s: the excluded connection is gone (%v)", name, err)
			}
			must(t, end("", ""))
			kept.awaitClosed()
		}
	},
	"Membership": func(t *testing.T, server, there *engine.Hub) {
		a := connect(t, there, open{user: "ann"})
		ctx := t.Context()
		inGroup := func(g engine.GroupName, want bool) {
			t.Helper()
			if got, err := server.GroupExists(ctx, g); err != nil || got != want {
				t.Errorf("group %s exists: %t, %v; want %t", g, got, err, want)
			}
		}
		must(t, server.AddToGroup(ctx, "g", a.ID()))
		must(t, server.AddToGroup(ctx, "g", a.ID()))
		inGroup("g", true)
		must(t, server.SendToGroup(ctx, "g", text("once"), nil))
		must(t, server.RemoveFromGroup(ctx, "g", a.ID()))
		must(t, server.RemoveFromGroup(ctx, "g", a.ID()))
		inGroup("g", false)
		wantCode(t, server.AddToGroup(ctx, "g", "nobody"), engine.CodeNotFound)
		must(t, server.RemoveFromGroup(ctx, "g", "nobody"))

		must(t, server.AddUserToGroup(ctx, "h", "ann"))
		inGroup("h", true)
		must(t, server.RemoveUserFromGroup(ctx, "h", "ann"))
		inGroup("h", false)
		wantCode(t, server.AddUserToGroup(ctx, "h", "nobody"), engine.CodeNotFound)
		must(t, server.RemoveUserFromGroup(ctx, "h", "nobody"))

		must(t, server.AddToGroup(ctx, "i", a.ID()))
		must(t, server.RemoveFromAllGroups(ctx, a.ID()))
		inGroup("i", false)
		must(t, server.AddToGroup(ctx, "i", a.ID()))
		must(t, server.RemoveUserFromAllGroups(ctx, "ann"))
		inGroup("i", false)
		must(t, server.RemoveFromAllGroups(ctx, "nobody"))

		must(t, server.AddToGroups(ctx, []engine.GroupName{"x", "y"}, "userId eq 'ann'"))
		must(t, server.AddToGroups(ctx, []engine.GroupName{"z"}, "userId eq 'nobody'"))
		inGroup("x", true)
		inGroup("y", true)
		inGroup("z", false)
		must(t, server.RemoveFromGroups(ctx, []engine.GroupName{"x"}, ""))
		inGroup("x", false)
		inGroup("y", true)
		wantCode(t, server.AddToGroups(ctx, []engine.GroupName{"x"}, "nonsense eq 1"), engine.CodeInvalid)
		a.expect("text @g once")
	},
	"List": func(t *testing.T, server, there *engine.Hub) {
		var want []engine.Member
		for i := range 25 {
			h := there
			if i%3 == 0 {
				h = server
			}
			user := engine.UserID(strings.Repeat("u", i%2))
			c := connect(t, h, open{user: user, id: engine.ConnID(fmt.Sprintf("c%02d", 24-i)), groups: []engine.GroupName{"g"}})
			want = append(want, engine.Member{ConnID: c.ID(), UserID: user})
		}
		slices.Reverse(want)
		var got []engine.Member
		after, more := engine.ConnID(""), true
		for more {
			var page []engine.Member
			var err error
			page, more, err = server.ListGroup(t.Context(), "g", after, 10)
			must(t, err)
			got = append(got, page...)
			after = page[len(page)-1].ConnID
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if page, more, err := server.ListGroup(t.Context(), "none", "", 10); len(page) > 0 || more || err != nil {
			t.Errorf("an empty group lists %v, %t, %v", page, more, err)
		}
	},
	"Permission": func(t *testing.T, server, there *engine.Hub) {
		a := connect(t, there, open{roles: []string{"webpubsub.sendToGroups.**"}})
		ctx := t.Context()
		allowed := func(p engine.Permission, g engine.GroupName, want bool) {
			t.Helper()
			if got, err := server.Permitted(ctx, a.ID(), p, g); err != nil || got != want {
				t.Errorf("%v to %s: %t, %v; want %t", p, g, got, err, want)
			}
		}
		allowed(engine.SendToGroup, "a.b", true)
		must(t, server.Revoke(ctx, a.ID(), engine.SendToGroup, "a.b"))
		must(t, server.Revoke(ctx, a.ID(), engine.SendToGroup, "a.b"))
		allowed(engine.SendToGroup, "a.b", false)
		allowed(engine.SendToGroup, "a.c", true)
		wantCode(t, a.SendToGroup(ctx, "a.b", text("x"), false), engine.CodeForbidden)
		must(t, server.Grant(ctx, a.ID(), engine.SendToGroup, "a.b"))
		allowed(engine.SendToGroup, "a.b", true)
		allowed(engine.JoinLeaveGroup, "*", false)
		must(t, server.Grant(ctx, a.ID(), engine.JoinLeaveGroup, "*"))
		allowed(engine.JoinLeaveGroup, "*", true)
		allowed(engine.JoinLeaveGroup, "x", false) // a literal, not a pattern
		wantCode(t, server.Grant(ctx, "nobody", engine.SendToGroup, "g"), engine.CodeNotFound)
		must(t, server.Revoke(ctx, "nobody", engine.SendToGroup, "g"))
		if ok, err := server.Permitted(ctx, "nobody", engine.SendToGroup, "g"); ok || err != nil {
			t.Errorf("an absent connection is permitted: %t, %v", ok, err)
		}
		for i := range 999 {
			must(t, server.Grant(ctx, a.ID(), engine.SendToGroup, engine.GroupName(fmt.Sprint(i))))
		}
		wantCode(t, server.Grant(ctx, a.ID(), engine.SendToGroup, "one more"), engine.CodeConflict)
		must(t, server.Revoke(ctx, a.ID(), engine.SendToGroup, "1"))
		must(t, server.Grant(ctx, a.ID(), engine.JoinLeaveGroup, "g"))
	},
}

// A join is acknowledged when the other node's publications arrive, and interest
// goes when the last member does.
func TestInterestFollowsMembers(t *testing.T) {
	planes := enginetest.NewCluster(2)
	a := start(t, &engine.Options{Backplane: planes[0]}).Hub("chat")
	b := start(t, &engine.Options{Backplane: planes[1]}).Hub("chat")
	c := connect(t, b, open{roles: anything})
	var want []string
	for i := range 100 {
		must(t, c.JoinGroup(t.Context(), "g"))
		must(t, a.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
		must(t, c.LeaveGroup(t.Context(), "g"))
		must(t, a.SendToGroup(t.Context(), "g", text("x"), nil))
		want = append(want, fmt.Sprint("text @g ", i))
	}
	c.expect(want...)
}

func TestHubsAreIsolated(t *testing.T) {
	e := start(t, nil)
	o := open{user: "ann", groups: []engine.GroupName{"g"}, id: "same"}
	a, b := connect(t, e.Hub("one"), o), connect(t, e.Hub("two"), o)
	h := e.Hub("one")
	must(t, h.SendToAll(t.Context(), text("1"), nil))
	must(t, h.SendToGroup(t.Context(), "g", text("2"), nil))
	must(t, h.SendToUser(t.Context(), "ann", text("3"), nil))
	must(t, h.SendToConn(t.Context(), "same", text("4"), nil))
	must(t, h.CloseAll(t.Context(), ""))
	a.awaitClosed()
	must(t, e.Hub("two").SendToAll(t.Context(), text("mine"), nil))
	b.expect("text mine")
}

func TestGroupsPerConnection(t *testing.T) {
	h := start(t, &engine.Options{Limits: engine.Limits{GroupsPerConnection: 50}}).Hub("chat")
	c := connect(t, h, open{roles: anything})
	for i := range 50 {
		must(t, c.JoinGroup(t.Context(), engine.GroupName(fmt.Sprint(i))))
	}
	wantCode(t, c.JoinGroup(t.Context(), "more"), engine.CodeTooLarge)
	must(t, c.JoinGroup(t.Context(), "7")) // a member already
	for i := 0; i < 50; i += 2 {
		must(t, c.LeaveGroup(t.Context(), engine.GroupName(fmt.Sprint(i))))
	}
	must(t, c.JoinGroup(t.Context(), "more"))
	for i := range 50 {
		must(t, h.SendToGroup(t.Context(), engine.GroupName(fmt.Sprint(i)), text(fmt.Sprint(i)), nil))
	}
	var want []string
	for i := 1; i < 50; i += 2 {
		want = append(want, fmt.Sprintf("text @%d %d", i, i))
	}
	c.expect(want...)
}
