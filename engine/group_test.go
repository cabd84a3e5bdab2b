package engine

import (
	"fmt"
	"sync"
	"testing"
)

// While one group is held for work over all its members, another one that is
// found under the same lock of the table can still be joined, published to and
// left.
func TestNoLockIsSharedForWorkOverMembers(t *testing.T) {
	e, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	h := e.Hub("chat")
	sub, err := h.Subscribe(t.Context(), &SubscribeOptions{Groups: []GroupName{"held"}})
	if err != nil {
		t.Fatal(err)
	}
	var same GroupName // in the stripe of "held"
	for i := 0; same == ""; i++ {
		if name := fmt.Sprint(i); stripeOf(hashOf(name)) == stripeOf(hashOf("held")) {
			same = GroupName(name)
		}
	}
	held := h.groups.find("held")
	held.mu.Lock()
	defer held.mu.Unlock()
	c := sub.Conn()
	for _, do := range []func() error{
		func() error { return c.JoinGroup(t.Context(), same) },
		func() error { return h.SendToGroup(t.Context(), same, Payload{Data: []byte("x")}, nil) },
		func() error { return c.LeaveGroup(t.Context(), same) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := sub.Receive(t.Context()); err != nil || string(m.Payload.Data) != "x" {
		t.Fatal(m, err)
	}
}

// Groups are made, found and forgotten while many join and leave at once.
func TestGroupTableUnderLoad(t *testing.T) {
	e, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := e.Hub("chat")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			sub, err := h.Subscribe(t.Context(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 500 {
				g := GroupName(fmt.Sprint(i % 3))
				if err := sub.Conn().JoinGroup(t.Context(), g); err != nil {
					t.Error(err)
				}
				if ok, _ := h.GroupExists(t.Context(), g); !ok {
					t.Errorf("group %s does not exist while it has a member", g)
				}
				if err := sub.Conn().LeaveGroup(t.Context(), g); err != nil {
					t.Error(err)
				}
			}
			sub.Close()
		})
	}
	wg.Wait()
	if st := e.Stats(); st.Groups != 0 || st.Memberships != 0 {
		t.Errorf("left over: %+v", st)
	}
	e.Close()
	for _, s := range e.shards {
		if len(s.sets) != 0 || len(s.codecs) != 0 {
			t.Errorf("the shard still has %d sets and %d encoders", len(s.sets), len(s.codecs))
		}
	}
}

// nullSink takes everything.
type nullSink struct{}

func (nullSink) Offer(_ *Batch, spans []Span) (n, part int, err error) {
	for _, s := range spans {
		n += s.To - s.From
	}
	return n, 0, nil
}
func (nullSink) OfferBytes(p []byte) (int, error) { return len(p), nil }
func (nullSink) Held() int                        { return 0 }
func (nullSink) Close(bool)                       {}

// plain is the smallest encoding: the payload.
type plain struct{}

func (plain) AppendBody(dst []byte, m *Message) ([]byte, bool) {
	return append(dst, m.Payload.Data...), true
}
func (plain) AppendPrefix(dst []byte, _ *Message, _ Own, n int) []byte {
	return append(dst, byte(n>>8), byte(n))
}
func (plain) Own() bool { return false }

// fanout returns a shard that the caller drives, with n members in a group.
func fanout(tb testing.TB, n int) (*shard, *group) {
	e, err := New(&Options{Shards: 1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	s := newShard(e, 0)
	g := &group{kind: TargetGroup, perShard: make([]int32, 1)}
	for range n {
		c := &Conn{hub: e.Hub("chat"), shard: s, sink: nullSink{}}
		s.open(c, &opening{encoding: plain{}, hello: &Message{Kind: KindConnected}})
		m := &membership{conn: c, group: g}
		g.add(m, false)
	}
	turn(s)
	return s, g
}

// turn is one turn of the loop.
func turn(s *shard) {
	s.take()
	for i := 0; i < len(s.taken); {
		i += s.apply(s.taken[i:])
	}
	s.flush()
	clear(s.taken)
}

// A delivery allocates nothing: what a turn allocates does not grow with the
// members.
func TestDeliveryAllocatesNothing(t *testing.T) {
	s, g := fanout(t, 1000)
	m := &Message{Kind: KindData, Group: "g", Payload: Payload{Data: make([]byte, 128)}}
	publish := func() {
		for range 4 {
			s.post(entry{op: opPublish, group: g, message: m})
		}
		turn(s)
	}
	publish()
	if n := testing.AllocsPerRun(100, publish); n > 0 {
		t.Errorf("%v allocations for 4,000 deliveries", n)
	}
}

func BenchmarkTurn(b *testing.B) {
	for _, members := range []int{1, 100, 1000} {
		for _, messages := range []int{1, 16} {
			b.Run(fmt.Sprintf("members=%d/messages=%d", members, messages), func(b *testing.B) {
				s, g := fanout(b, members)
				m := &Message{Kind: KindData, Group: "g", Payload: Payload{Data: make([]byte, 128)}}
				b.ReportAllocs()
				for b.Loop() {
					for range messages {
						s.post(entry{op: opPublish, group: g, message: m})
					}
					turn(s)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*members*messages), "ns/delivery")
			})
		}
	}
}
