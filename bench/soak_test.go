//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

var soakConns = flag.Int("conns", 1000, "connections of the soak test; 10000 is the full size")

const (
	soakGroups   = 1000
	soakMemberOf = 3 // groups that each connection joins
	soakRounds   = 3 // messages in each group
)

// soakMember reports whether connection i is in group g: in soakMemberOf groups
// that lie apart.
func soakMember(i, g int) bool {
	d := ((g-i)%soakGroups + soakGroups) % soakGroups
	return d%331 == 0 && d/331 < soakMemberOf
}

// Many connections come, join 1,000 groups, receive every message once and in
// order, leave and go; afterwards the node is what it was.
func TestSoak(t *testing.T) {
	if _, err := fileLimit(); err != nil {
		t.Fatal(err)
	}
	c, err := spawn("node")
	if err != nil {
		t.Fatal(err)
	}
	defer c.stop()

	// The first waves bring the node's queues and tables to the size that such a
	// wave needs. A leak grows with every one of them.
	wave(t, c)
	before := atRest(t, c)
	var after mark
	for waves := 2; ; waves++ {
		wave(t, c)
		after = atRest(t, c)
		t.Logf("at rest after wave %d: %d goroutines, %d bytes of heap", waves, after.Goroutines, after.Heap)
		if after.Goroutines != before.Goroutines {
			t.Fatalf("%d goroutines, %d before", after.Goroutines, before.Goroutines)
		}
		if float64(after.Heap) <= 1.05*float64(before.Heap) {
			break
		}
		if waves == 5 {
			t.Fatalf("the heap still grows: %d bytes after %d waves, %d before the last", after.Heap, waves, before.Heap)
		}
		before = after
	}

	// The last wave opened and ended exactly its own connections.
	if n := after.Stats.Opened - before.Stats.Opened; n != int64(*soakConns) {
		t.Errorf("%d connections were opened in the last wave, want %d", n, *soakConns)
	}
	if after.Stats.Ended != after.Stats.Opened {
		t.Errorf("%d connections were opened and %d ended", after.Stats.Opened, after.Stats.Ended)
	}
	if n := after.Stats.MessagesIn - before.Stats.MessagesIn; n != soakGroups*soakRounds {
		t.Errorf("%d messages came in, want %d", n, soakGroups*soakRounds)
	}
	if after.Stats.Dropped != 0 {
		t.Errorf("%d deliveries were dropped", after.Stats.Dropped)
	}
}

// empty reports whether the node has nobody and nothing: all gauges are zero.
func empty(m mark) bool {
	s := m.Stats
	return s.Connections == 0 && s.Groups == 0 && s.Memberships == 0 && s.QueuedMessages == 0 && s.QueuedBytes == 0
}

// atRest waits until the node has nobody, and two reports in a row say the same.
func atRest(t *testing.T, c *child) mark {
	t.Helper()
	var last mark
	m, err := c.settled(func(m mark) bool {
		same := empty(m) && m.Goroutines == last.Goroutines && float64(m.Heap) >= 0.99*float64(last.Heap)
		last = m
		return same
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// wave is the life of soakConns connections.
func wave(t *testing.T, c *child) {
	t.Helper()
	n := *soakConns
	in := func(i int) (groups []string) {
		for g := range soakGroups {
			if soakMember(i, g) {
				groups = append(groups, groupName(g))
			}
		}
		return groups
	}
	start := time.Now()
	s, err := newSwarm(context.Background(), n, 128, target{addr: c.Addr, path: c.clientPath, groups: in})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	joined := time.Since(start)

	m, err := c.mark()
	if err != nil {
		t.Fatal(err)
	}
	if g := m.Stats; g.Connections != int64(n) || g.Memberships != int64(n*soakMemberOf) || g.Groups != soakGroups {
		t.Fatalf("all have joined, and the node counts %+v", g)
	}

	tr := &traffic{payload: 128, acked: true, inFlight: 64}
	for g := range soakGroups {
		st := stream{group: groupName(g), publisher: s.conns[g%n]}
		for i := range n {
			if soakMember(i, g) {
				st.receivers++
			}
		}
		tr.streams = append(tr.streams, st)
	}
	s.expect(soakGroups, soakMember)
	if err := s.start(2); err != nil {
		t.Fatal(err)
	}
	if err := tr.publishEach(s, soakRounds); err != nil {
		t.Fatal(err)
	}
	if got, want := s.delivered(), int64(n*soakMemberOf*soakRounds); got != want {
		t.Fatalf("%d deliveries, want %d", got, want)
	}
	if err := s.check(tr.sent); err != nil {
		t.Fatal(err)
	}

	for i, conn := range s.conns {
		for j, g := range in(i) {
			conn.queue(ws.OpText, fmt.Appendf(nil, `{"type":"leaveGroup","group":%q,"ackId":%d}`, g, joinAck+100+j))
		}
		if err := conn.flush(); err != nil {
			t.Fatal(err)
		}
	}
	for i, conn := range s.conns {
		for j := range in(i) {
			if err := conn.await(uint64(joinAck + 100 + j)); err != nil {
				t.Fatalf("connection %d leaves: %v", i, err)
			}
		}
	}
	if m, err = c.mark(); err != nil {
		t.Fatal(err)
	}
	if g := m.Stats; g.Connections != int64(n) || g.Memberships != 0 || g.Groups != 0 {
		t.Fatalf("all have left, and the node counts %+v", g)
	}
	t.Logf("%d connections joined %d groups each in %v; the wave took %v", n, soakMemberOf, joined.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
}
