package main

import (
	"slices"
	"strings"
)

// hostileCase is one way in which clients can try to wear out a node. It starts
// the whole node, does that, and reports what it cost: memory, log, or the
// latency of others.
type hostileCase struct {
	name string
	run  func(*bench) error
}

// hostileCases are all of them, in the order in which they run.
var hostileCases = slices.Concat(
	[]hostileCase{
		{"silent", hostileSilent},
		{"unread-bodies", hostileBodies},
		{"refusal-log", hostileRefusals},
		{"h2-reset", hostileResets},
		{"waiting-events", waitingEvents("waiting-events", hangs)},
		{"waiting-events-503", waitingEvents("waiting-events-503", unavailable)},
		{"group-names", groupNames},
		{"unfinished", (*bench).unfinished},
	},
	floodCases,
)

func hostileCaseNames() string {
	var names []string
	for _, c := range hostileCases {
		names = append(names, c.name)
	}
	return strings.Join(names, ", ")
}

// findHostileCases returns the cases with the given names, separated by commas, or
// all of them.
func findHostileCases(names string) ([]hostileCase, error) {
	if names == "" {
		return hostileCases, nil
	}
	var found []hostileCase
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(hostileCases, func(c hostileCase) bool { return c.name == name })
		if i < 0 {
			return nil, usagef("there is no hostile case %q; they are %s", name, hostileCaseNames())
		}
		found = append(found, hostileCases[i])
	}
	return found, nil
}
