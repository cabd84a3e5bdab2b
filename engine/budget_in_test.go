package engine

import (
	"net/netip"
	"sync"
	"testing"
)

// A budget takes bytes until it or one above it is full, and then counts nothing of
// what it refuses.
func TestBudgetTakesUntilOneOnTheWayIsFull(t *testing.T) {
	node := &budget{bound: &bound{100, "node", "node"}}
	hub := &budget{parent: node, bound: &bound{50, "hub", "hub"}}
	other := &budget{parent: node, bound: &bound{50, "hub", "hub"}}
	used := func(want ...int64) {
		t.Helper()
		for i, b := range []*budget{hub, other, node} {
			if got := b.used.Load(); got != want[i] {
				t.Errorf("budget %d has %d bytes, want %d", i, got, want[i])
			}
		}
	}
	rule := func(b *budget, n int64) string {
		if err := b.take(n); err != nil {
			return asError(err).Rule
		}
		return ""
	}
	for _, step := range []struct {
		b      *budget
		n      int64
		rule   string
		used   [3]int64
		tight  bool
		slack  bool
		reason string
	}{
		{hub, 12, "", [3]int64{12, 0, 12}, false, true, "below a quarter"},
		{hub, 1, "", [3]int64{13, 0, 13}, false, false, "at a quarter"},
		{hub, 12, "", [3]int64{25, 0, 25}, true, false, "at half"},
		{hub, 30, "", [3]int64{55, 0, 55}, true, false, "one message more than there is room for"},
		{hub, 1, "hub", [3]int64{55, 0, 55}, true, false, "full"},
		{other, 44, "", [3]int64{55, 44, 99}, true, false, "another one has its own room"},
		{other, 5, "", [3]int64{55, 49, 104}, true, false, "the root has room for one more"},
		{other, 1, "node", [3]int64{55, 49, 104}, true, false, "the root is full"},
	} {
		if got := rule(step.b, step.n); got != step.rule {
			t.Errorf("%s: refused by %q, want %q", step.reason, got, step.rule)
		}
		used(step.used[:]...)
		if step.b.tight() != step.tight || step.b.slack() != step.slack {
			t.Errorf("%s: tight %t, slack %t", step.reason, step.b.tight(), step.b.slack())
		}
	}
	hub.give(55)
	other.give(49)
	used(0, 0, 0)
	hub.add(1000)
	used(1000, 0, 1000)
}

// Many that take at the same time exceed the bound by less than one message.
func TestBudgetHoldsUnderConcurrentUse(t *testing.T) {
	node := &budget{bound: &bound{1000, "node", "node"}}
	var most int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		b := &budget{parent: node, bound: &bound{1 << 40, "conn", "conn"}}
		wg.Go(func() {
			for range 2000 {
				if b.take(70) != nil {
					continue
				}
				mu.Lock()
				most = max(most, node.used.Load())
				mu.Unlock()
				b.give(70)
			}
		})
	}
	wg.Wait()
	if node.used.Load() != 0 {
		t.Errorf("%d bytes are left", node.used.Load())
	}
	if most >= 1000+8*70 { // those that are being refused show for a moment
		t.Errorf("there were %d bytes", most)
	}
}

// The table of users and networks has those alone that have bytes.
func TestClientBudgetsExistWhileBytesAreCounted(t *testing.T) {
	hub := &budget{bound: &bound{100, "hub", "hub"}}
	table := &clientBudgets{hub: hub, bound: &bound{10, "user", "user"}}
	ann, bo := clientKey{user: "ann"}, clientKey{user: "bo"}
	first := table.hold(ann, 6)
	second, err := table.tryHold(ann, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.tryHold(ann, 1); asError(err).Rule != "user" {
		t.Errorf("got %v", err)
	}
	third, err := table.tryHold(bo, 1)
	if err != nil || table.count() != 2 {
		t.Fatalf("%v; %d users", err, table.count())
	}
	nobody := table.hold(clientKey{}, 1) // counts in the hub alone
	if table.count() != 2 || hub.used.Load() != 14 {
		t.Errorf("%d users, %d bytes", table.count(), hub.used.Load())
	}
	first()
	third()
	if table.count() != 1 {
		t.Errorf("%d users", table.count())
	}
	second()
	nobody()
	if table.count() != 0 || table.m != nil || hub.used.Load() != 0 {
		t.Errorf("%d users, %d bytes are left", table.count(), hub.used.Load())
	}
}

func TestNetworksOfAddresses(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.255", true},
		{"192.0.2.1", "192.0.3.1", false},
		{"192.0.2.1", "::ffff:192.0.2.9", true},
		{"2001:db8:0:1200::1", "2001:db8:0:12ff:ffff::", true},
		{"2001:db8:0:1200::1", "2001:db8:0:1300::1", false},
		{"fe80::1%eth0", "fe80::2%eth1", true},
		{"0.0.0.0", "::", false},
	} {
		a, b := networkOf(netip.MustParseAddr(tc.a)), networkOf(netip.MustParseAddr(tc.b))
		if (a == b) != tc.same || a == 0 || b == 0 {
			t.Errorf("%s and %s are in %x and %x", tc.a, tc.b, a, b)
		}
	}
	if networkOf(netip.Addr{}) != 0 {
		t.Error("no address has a network")
	}
}
