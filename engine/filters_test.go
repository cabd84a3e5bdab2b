package engine_test

import (
	"errors"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// A filter that the caller has parsed selects, on each node, and its text is not read
// again.
func TestParsedFiltersTravel(t *testing.T) {
	f, err := engine.ParseFilter("userId eq 'ann'")
	if err != nil {
		t.Fatal(err)
	}
	for name, nodes := range map[string]int{"one node": 1, "two nodes": 2} {
		t.Run(name, func(t *testing.T) {
			hubs := startNodes(t, nodes)
			ann, bo := connect(t, hubs[nodes-1], open{user: "ann"}), connect(t, hubs[0], open{user: "bo"})
			must(t, hubs[0].SendToAll(t.Context(), text("1"), &engine.SendOptions{Parsed: f}))
			must(t, hubs[0].SendToAll(t.Context(), text("2"), &engine.SendOptions{Parsed: f, Filter: "nobody reads ("}))
			must(t, hubs[0].SendToAll(t.Context(), text("3"), nil))
			ann.expect("text 1", "text 2", "text 3")
			bo.expect("text 3")
		})
	}
}

// A filter is refused under one rule, whoever parses it, and an empty one selects all.
func TestFiltersHaveOneRule(t *testing.T) {
	hub := startNodes(t, 1)[0]
	_, parsed := engine.ParseFilter("userId lt 1 (")
	for name, err := range map[string]error{
		"ParseFilter":      parsed,
		"SendToAll":        hub.SendToAll(t.Context(), text("x"), &engine.SendOptions{Filter: "userId lt 1 ("}),
		"AddToGroups":      hub.AddToGroups(t.Context(), []engine.GroupName{"g"}, "userId lt 1 ("),
		"RemoveFromGroups": hub.RemoveFromGroups(t.Context(), []engine.GroupName{"g"}, "userId lt 1 ("),
	} {
		var e *engine.Error
		if !errors.As(err, &e) || e.Code != engine.CodeInvalid || e.Rule != "filter" || e.Target != "filter" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f, err := engine.ParseFilter(""); f != nil || err != nil {
		t.Errorf("the empty filter: %v, %v", f, err)
	}
}
