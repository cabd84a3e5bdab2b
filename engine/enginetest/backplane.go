package enginetest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// NewCluster returns the backplanes of n engines in one program. What one tells,
// the others that declared interest get, in order and before Tell returns.
func NewCluster(n int) []engine.Backplane {
	c := &cluster{}
	planes := make([]engine.Backplane, n)
	for i := range planes {
		node := &node{cluster: c, interest: make(map[interestKey]bool)}
		c.nodes = append(c.nodes, node)
		planes[i] = node
	}
	return planes
}

type cluster struct {
	mu    sync.RWMutex // guards the nodes' members
	nodes []*node
}

type node struct {
	cluster  *cluster
	receive  engine.Receiver
	interest map[interestKey]bool
	closed   bool
}

type interestKey struct {
	hub    engine.HubName
	target engine.Target
}

var _ engine.Backplane = (*node)(nil)

func (n *node) Start(_ context.Context, r engine.Receiver) error {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.receive = r
	return nil
}

// others returns the receivers of the other nodes that c may concern.
func (n *node) others(c *engine.Command) ([]engine.Receiver, error) {
	n.cluster.mu.RLock()
	defer n.cluster.mu.RUnlock()
	if n.closed {
		return nil, &engine.Error{Code: engine.CodeClosed, Rule: "backplane.closed", Message: "The backplane is closed."}
	}
	target := c.Target
	if target.Kind == engine.TargetConn { // whoever has clients may have this one
		target = engine.Target{Kind: engine.TargetAll}
	}
	var to []engine.Receiver
	for _, other := range n.cluster.nodes {
		if other != n && other.receive != nil && !other.closed && other.interest[interestKey{c.Hub, target}] {
			to = append(to, other.receive)
		}
	}
	return to, nil
}

func (n *node) Tell(ctx context.Context, c *engine.Command) error {
	to, err := n.others(c)
	for _, receive := range to {
		receive(ctx, c)
	}
	return err
}

func (n *node) Ask(ctx context.Context, c *engine.Command) ([]*engine.Answer, error) {
	to, err := n.others(c)
	var answers []*engine.Answer
	for _, receive := range to {
		answers = append(answers, receive(ctx, c))
	}
	return answers, err
}

func (n *node) Interest(_ context.Context, hub engine.HubName, t engine.Target, on bool) error {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if on {
		n.interest[interestKey{hub, t}] = true
	} else {
		delete(n.interest, interestKey{hub, t})
	}
	return nil
}

func (n *node) Close() error {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.closed = true
	return nil
}

// TestBackplane checks the behaviour that every [engine.Backplane] must show.
// open returns the backplanes of n nodes of one new cluster, not yet started.
func TestBackplane(t *testing.T, open func(t *testing.T, n int) []engine.Backplane) {
	group := func(name string) engine.Target { return engine.Target{Kind: engine.TargetGroup, Name: name} }
	send := func(hub engine.HubName, to engine.Target, text string) *engine.Command {
		return &engine.Command{Hub: hub, Verb: engine.VerbSend, Target: to, Message: &engine.Message{Payload: engine.Payload{Data: []byte(text)}}}
	}
	start := func(t *testing.T, planes []engine.Backplane) []*inbox {
		boxes := make([]*inbox, len(planes))
		for i, bp := range planes {
			box := &inbox{more: make(chan struct{}, 1)}
			boxes[i] = box
			if err := bp.Start(t.Context(), box.receive); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { bp.Close() })
		}
		return boxes
	}

	t.Run("told in order, to those interested, never to oneself", func(t *testing.T) {
		planes := open(t, 3)
		boxes := start(t, planes)
		for _, i := range []int{0, 1} {
			if err := planes[i].Interest(t.Context(), "chat", group("news"), true); err != nil {
				t.Fatal(err)
			}
		}
		for _, text := range []string{"a", "b", "c"} {
			if err := planes[0].Tell(t.Context(), send("chat", group("news"), text)); err != nil {
				t.Fatal(err)
			}
			if err := planes[0].Tell(t.Context(), send("other", group("news"), "no")); err != nil {
				t.Fatal(err)
			}
		}
		if got := boxes[1].await(t, 3); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("the interested node got %q", got)
		}
		if got := boxes[0].texts(); len(got) > 0 {
			t.Errorf("the node that told got %q", got)
		}
		if got := boxes[2].texts(); len(got) > 0 {
			t.Errorf("the node without interest got %q", got)
		}
	})
	t.Run("an interest that was taken back", func(t *testing.T) {
		planes := open(t, 2)
		boxes := start(t, planes)
		for _, on := range []bool{true, false} {
			if err := planes[1].Interest(t.Context(), "chat", group("news"), on); err != nil {
				t.Fatal(err)
			}
		}
		if err := planes[1].Interest(t.Context(), "chat", group("sport"), true); err != nil {
			t.Fatal(err)
		}
		planes[0].Tell(t.Context(), send("chat", group("news"), "gone"))
		planes[0].Tell(t.Context(), send("chat", group("sport"), "here"))
		if got := boxes[1].await(t, 1); !slices.Equal(got, []string{"here"}) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("answers are collected", func(t *testing.T) {
		planes := open(t, 3)
		start(t, planes)
		all := engine.Target{Kind: engine.TargetAll}
		for _, bp := range planes {
			if err := bp.Interest(t.Context(), "chat", all, true); err != nil {
				t.Fatal(err)
			}
		}
		answers, err := planes[0].Ask(t.Context(), &engine.Command{Hub: "chat", Verb: engine.VerbExists, Target: all})
		if err != nil || len(answers) != 2 || answers[0].Count+answers[1].Count != 2 {
			t.Errorf("got %d answers, error %v", len(answers), err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		planes := open(t, 2)
		start(t, planes)
		if err := errors.Join(planes[0].Close(), planes[0].Close()); err != nil {
			t.Fatal(err)
		}
		if err := planes[0].Tell(t.Context(), send("chat", group("news"), "late")); err == nil {
			t.Error("a closed backplane passed a message on")
		}
	})
}

// inbox is a node's receiver that records.
type inbox struct {
	mu   sync.Mutex
	got  []string
	more chan struct{}
}

func (b *inbox) receive(_ context.Context, c *engine.Command) *engine.Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.Message != nil {
		b.got = append(b.got, string(c.Message.Payload.Data))
	}
	select {
	case b.more <- struct{}{}:
	default:
	}
	return &engine.Answer{Count: 1}
}

func (b *inbox) texts() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.got)
}

func (b *inbox) await(t *testing.T, n int) []string {
	t.Helper()
	for {
		if got := b.texts(); len(got) >= n {
			return got
		}
		select {
		case <-b.more:
		case <-t.Context().Done():
			t.Fatalf("got %q, not %d messages", b.texts(), n)
		}
	}
}
