package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// long returns the name of the i-th of many groups, of n bytes.
func long(i, n int) engine.GroupName {
	return engine.GroupName(fmt.Sprintf("%06d", i) + strings.Repeat("é", (n-6)/2))
}

// sized are options of a membership.
type sized int

func (s sized) Size() int { return int(s) }

// The names of one connection's groups are bounded, however it joins them, and leaving
// makes room.
func TestGroupNamesOfAConnectionAreBounded(t *testing.T) {
	const rule, bound = "limits.groupBytesPerConnection", "10000"
	e := start(t, &engine.Options{Limits: engine.Limits{GroupBytesPerConnection: 10_000}})
	h := e.Hub("chat")
	c := connect(t, h, open{user: "ann", roles: anything})
	for i := range 10 {
		must(t, c.JoinGroup(t.Context(), long(i, 1000)))
	}
	must(t, c.JoinGroup(t.Context(), long(0, 1000))) // it is in it already
	wantRule(t, c.JoinGroup(t.Context(), "g"), engine.CodeTooLarge, rule, bound)
	wantRule(t, h.AddToGroup(t.Context(), "g", c.ID()), engine.CodeTooLarge, rule, bound)
	wantRule(t, h.AddUserToGroup(t.Context(), "g", "ann"), engine.CodeTooLarge, rule, bound)
	wantRule(t, h.AddToGroups(t.Context(), []engine.GroupName{"g"}, ""), engine.CodeTooLarge, rule, bound)
	must(t, c.LeaveGroup(t.Context(), long(3, 1000)))
	must(t, h.AddToGroup(t.Context(), long(100, 500), c.ID()))

	// The options of a membership count like its name, also when they change.
	join := func(g engine.GroupName, options any) error {
		done := make(chan error, 1)
		c.Do(&engine.Request{Op: engine.OpJoin, Group: g, Membership: options}, func(err error) { done <- err })
		return <-done
	}
	wantRule(t, join("o", sized(1000)), engine.CodeTooLarge, rule, bound)
	must(t, join("o", sized(400)))
	wantRule(t, join("o", sized(600)), engine.CodeTooLarge, rule, bound)
	must(t, join("o", sized(10)))
	must(t, join("p", sized(400)))

	// A client whose token says too much is refused.
	var groups []engine.GroupName
	for i := range 11 {
		groups = append(groups, long(i, 1000))
	}
	_, err := tryConnect(t, h, open{groups: groups})
	wantRule(t, err, engine.CodeForbidden, rule, bound)
	connect(t, h, open{groups: groups[:10]})
}

// What all groups hold is bounded, a name counting once, and comes back.
func TestGroupBytesOfANodeAreBounded(t *testing.T) {
	const rule, bound = "limits.totalGroupBytes", "100000"
	e := start(t, &engine.Options{Limits: engine.Limits{TotalGroupBytes: 100_000}})
	h := e.Hub("chat")
	first := connect(t, h, open{user: "ann", roles: anything})
	var err error
	n := 0
	for ; n < 1000; n++ {
		if err = first.JoinGroup(t.Context(), long(n, 1000)); err != nil {
			break
		}
	}
	wantRule(t, err, engine.CodeUnavailable, rule, bound)
	if n < 60 || n > 100 || e.Stats().GroupBytes < 100_000 || e.Stats().GroupBytes > 102_000 {
		t.Errorf("%d groups hold %d bytes", n, e.Stats().GroupBytes)
	}
	wantRule(t, h.AddToGroup(t.Context(), "g", first.ID()), engine.CodeUnavailable, rule, bound)
	_, err = tryConnect(t, h, open{groups: []engine.GroupName{"g"}})
	wantRule(t, err, engine.CodeUnavailable, rule, bound)
	second := connect(t, h, open{roles: anything})
	wantRule(t, second.JoinGroup(t.Context(), long(0, 1000)), engine.CodeUnavailable, rule, bound)

	must(t, first.LeaveGroup(t.Context(), long(0, 1000)))
	before := e.Stats().GroupBytes
	must(t, second.JoinGroup(t.Context(), long(1, 1000))) // the name is there
	if more := e.Stats().GroupBytes - before; more >= 1000 {
		t.Errorf("a second member takes %d bytes", more)
	}
	first.bye()
	second.bye()
	eventually(t, func() bool { return e.Stats().GroupBytes == 0 })
}
