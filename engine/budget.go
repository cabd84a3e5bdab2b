package engine

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
)

// budget counts the bytes of requests and events that wait, or are under way at
// event handlers, in one scope. Budgets form a tree: a connection's is below that
// of its user or network, which is below its hub's, which is below the engine's.
// Bytes that are counted in one are counted in all above it.
//
// The bound of a budget is reached from below: bytes are taken if the budget was
// not full before, so that one message passes however small the bound is, and a
// budget exceeds its bound by less than one message.
type budget struct {
	parent *budget // nil for the engine's
	bound  *bound
	used   atomic.Int64
}

// bound is the limit of all budgets of one kind.
type bound struct {
	bytes int64
	rule  string // the setting
	scope string // what a refusal calls the scope
}

// take counts n bytes, unless a budget on the way to the root is full. Then it
// counts nothing and returns the refusal.
func (b *budget) take(n int64) error {
	for s := b; s != nil; s = s.parent {
		if s.used.Add(n)-n < s.bound.bytes {
			continue
		}
		for u := b; u != s.parent; u = u.parent {
			u.used.Add(-n)
		}
		return s.refusal()
	}
	return nil
}

// add counts n bytes, whether there is room or not.
func (b *budget) add(n int64) {
	for s := b; s != nil; s = s.parent {
		s.used.Add(n)
	}
}

// give takes back n bytes.
func (b *budget) give(n int64) { b.add(-n) }

// tight reports whether a budget on the way to the root is at half of its bound.
// From there on a client has one request at a time.
func (b *budget) tight() bool { return b.reached(2) }

// slack reports whether all of them are below a quarter of their bounds.
func (b *budget) slack() bool { return !b.reached(4) }

func (b *budget) reached(part int64) bool {
	for s := b; s != nil; s = s.parent {
		if s.used.Load() >= (s.bound.bytes+part-1)/part {
			return true
		}
	}
	return false
}

func (b *budget) refusal() error {
	return &Error{
		Code: CodeUnavailable, Rule: b.bound.rule,
		Message: fmt.Sprintf("Too many events wait for their handlers: those of the %s hold %d bytes, and %s is %d. Try again when some have been handled.",
			b.bound.scope, b.used.Load(), b.bound.rule, b.bound.bytes),
	}
}

// setBounds makes the bounds of the budgets from the limits.
func (e *Engine) setBounds() {
	l := &e.limits
	e.bounds.conn = bound{int64(l.PendingEventBytes), "limits.pendingEventBytes", "connection"}
	e.bounds.client = bound{int64(l.PendingEventBytesPerUser), "limits.pendingEventBytesPerUser", "user or network"}
	e.bounds.hub = bound{int64(l.PendingEventBytesPerHub), "limits.pendingEventBytesPerHub", "hub"}
	e.bounds.node = bound{int64(l.TotalPendingEventBytes), "limits.totalPendingEventBytes", "node"}
	e.pending.bound = &e.bounds.node
}

// network is the part of a client's address that its events are counted by if it has
// no user: an IPv4 /24 or an IPv6 /56. Zero stands for an address that is not known.
type network uint64

func networkOf(a netip.Addr) network {
	const v4, v6 = 1 << 62, 2 << 62
	a = a.Unmap()
	switch {
	case a.Is4():
		b := a.As4()
		return v4 | network(b[0])<<16 | network(b[1])<<8 | network(b[2])
	case a.Is6():
		n := network(0)
		b := a.As16()
		for _, x := range b[:7] {
			n = n<<8 | network(x)
		}
		return v6 | n
	}
	return 0
}

// clientKey says whose events are counted together within a hub: those of one user,
// or of all clients of one network that have no user.
type clientKey struct {
	user    UserID
	network network
}

// clientBudgets are the budgets of a hub's users and networks. One exists while
// somebody holds it, which is while bytes are counted in it.
type clientBudgets struct {
	hub   *budget
	bound *bound

	mu sync.Mutex // guards the rest; nothing else is locked under it
	m  map[clientKey]*clientBudget
}

type clientBudget struct {
	budget
	key  clientKey
	refs int // guarded by clientBudgets.mu
}

// acquire returns the budget of key, to be released. Clients of which neither user
// nor address is known have none of their own; theirs is nil.
func (t *clientBudgets) acquire(key clientKey) *clientBudget {
	if key == (clientKey{}) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.m[key]
	if b == nil {
		b = &clientBudget{budget: budget{parent: t.hub, bound: t.bound}, key: key}
		if t.m == nil {
			t.m = make(map[clientKey]*clientBudget)
		}
		t.m[key] = b
	}
	b.refs++
	return b
}

func (t *clientBudgets) release(b *clientBudget) {
	if b == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if b.refs--; b.refs == 0 {
		if delete(t.m, b.key); len(t.m) == 0 {
			t.m = nil // maps do not shrink by themselves
		}
	}
}

// of returns the budget that is to be above a connection's: b, or the hub's.
func (t *clientBudgets) of(b *clientBudget) *budget {
	if b == nil {
		return t.hub
	}
	return &b.budget
}

// hold counts n bytes of key that belong to no lane, whether there is room or not.
// release takes them back.
func (t *clientBudgets) hold(key clientKey, n int) (release func()) {
	b := t.acquire(key)
	t.of(b).add(int64(n))
	return t.releaser(b, n)
}

// tryHold is hold, unless a budget is full.
func (t *clientBudgets) tryHold(key clientKey, n int) (release func(), _ error) {
	b := t.acquire(key)
	if err := t.of(b).take(int64(n)); err != nil {
		t.release(b)
		return nil, err
	}
	return t.releaser(b, n), nil
}

func (t *clientBudgets) releaser(b *clientBudget, n int) func() {
	return func() {
		t.of(b).give(int64(n))
		t.release(b)
	}
}

// full says why there is no room for a newcomer of key.
func (t *clientBudgets) full(key clientKey) error {
	t.mu.Lock()
	of := t.of(t.m[key])
	t.mu.Unlock()
	for s := of; s != nil; s = s.parent {
		if s.used.Load() >= s.bound.bytes {
			return s.refusal()
		}
	}
	return nil
}

// count returns how many users and networks have budgets now.
func (t *clientBudgets) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.m)
}
