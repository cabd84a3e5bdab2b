package engine_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// within fails the test if f goes on for ever.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s: still waiting after %s", what, patience)
	}
}

func openWith(t *testing.T, h *engine.Hub, enc engine.Encoding, sink engine.Sink, bind func(*engine.Conn, engine.WireID), r *engine.AdmitRequest) *engine.Conn {
	t.Helper()
	a, err := h.Admit(t.Context(), r)
	must(t, err)
	c, err := a.Open(sink, &engine.OpenOptions{Encoding: enc, Bind: bind})
	must(t, err)
	return c
}

type counting struct{ n *atomic.Int64 }

func (c counting) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	if m.Kind == engine.KindData {
		c.n.Add(1)
	}
	return enginetest.Lines{}.AppendBody(dst, m)
}
func (c counting) AppendPrefix(dst []byte, m *engine.Message, o engine.Own, n int) []byte { return dst }
func (c counting) Own() bool                                                              { return false }

// gate's body blocks its shard until it is opened.
type gate struct {
	entered chan struct{}
	open    chan struct{}
}

func (g *gate) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	if m.Kind == engine.KindData {
		select {
		case g.entered <- struct{}{}:
		default:
		}
		<-g.open
	}
	return enginetest.Lines{}.AppendBody(dst, m)
}
func (g *gate) AppendPrefix(dst []byte, m *engine.Message, o engine.Own, n int) []byte { return dst }
func (g *gate) Own() bool                                                              { return false }

// stuck is a backplane whose declarations of groups wait.
type stuck struct {
	engine.Backplane
	entered chan struct{}
	release chan struct{}
	all     bool
}

func (s *stuck) Interest(ctx context.Context, hub engine.HubName, t engine.Target, on bool) error {
	if on && (t.Kind == engine.TargetGroup || s.all) {
		select {
		case s.entered <- struct{}{}:
		default:
		}
		select {
		case <-s.release:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Backplane.Interest(ctx, hub, t, on)
}

// Close closes the sinks of connections that are only waiting for a goodbye.
func TestCloseClosesLingeringSinks(t *testing.T) {
	e := start(t, nil)
	h := e.Hub("chat")
	c := connect(t, h, open{wire: &enginetest.Wire{KeepOpen: true}})
	must(t, h.CloseConn(t.Context(), c.ID(), ""))
	c.expect("disconnected Application server closed the connection.", "close 1000")
	must(t, e.Close())
	if !c.Closed() {
		t.Error("Engine.Close returned and the lingering connection's sink was never closed")
	}
}

// A wire may break before Open has returned.
func TestGoneWhileOpening(t *testing.T) {
	e := start(t, nil)
	h := e.Hub("chat")
	a, err := h.Admit(t.Context(), &engine.AdmitRequest{})
	must(t, err)
	w := &enginetest.Wire{}
	_, err = a.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: func(c *engine.Conn, id engine.WireID) {
		w.Bind(c, id)
		c.Gone(engine.FirstWire, engine.CloseAbnormal, "the wire broke")
	}})
	t.Log(err)
}

// A connection that never was may be told that it is gone.
func TestGoneAfterOpenFailed(t *testing.T) {
	e := start(t, nil)
	h := e.Hub("chat")
	connect(t, h, open{id: "x"})
	a, err := h.Admit(t.Context(), &engine.AdmitRequest{ConnID: "x"})
	must(t, err)
	var bound *engine.Conn
	_, err = a.Open(&enginetest.Wire{}, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: func(c *engine.Conn, _ engine.WireID) { bound = c }})
	wantCode(t, err, engine.CodeConflict)
	bound.Gone(engine.FirstWire, engine.CloseAbnormal, "the wire broke")
}

// What is called at a takeover may call the engine.
func TestTakeOverHoldsNoLock(t *testing.T) {
	var e *engine.Engine
	o := &engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{Listeners: []engine.ListenerRule{{SystemEvents: []string{"disconnected"},
			Listener: func(context.Context, engine.ListenedEvent) { e.Hub("audit") }}}}
	}}
	e = start(t, o)
	h := e.Hub("chat")
	connect(t, h, open{id: "x"})
	within(t, "takeover", func() { connect(t, h, open{id: "x", take: true}) })
}

// A message to a selection is encoded once, too.
func TestFilteredSendIsEncodedOnce(t *testing.T) {
	e := start(t, &engine.Options{Shards: 1})
	h := e.Hub("chat")
	enc := counting{new(atomic.Int64)}
	var ws []*enginetest.Wire
	for range 100 {
		w := &enginetest.Wire{}
		openWith(t, h, enc, w, w.Bind, &engine.AdmitRequest{Identity: engine.Identity{UserID: "u"}})
		ws = append(ws, w)
	}
	must(t, h.SendToAll(t.Context(), text("hello"), &engine.SendOptions{Filter: "userId eq 'u'"}))
	for _, w := range ws {
		must(t, w.Await(t.Context(), func(b []byte, _ bool) bool { l, _ := enginetest.SplitLines(b); return len(l) == 2 }))
	}
	if n := enc.n.Load(); n != 1 {
		t.Errorf("encoded %d times for one encoding on one shard", n)
	}
}

// What other nodes send counts against the bounds of a shard's queue.
func TestRemoteSendsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		planes := enginetest.NewCluster(2)
		a := start(t, &engine.Options{Shards: 1, Backplane: planes[0]})
		b := start(t, &engine.Options{Shards: 1, Backplane: planes[1]})
		g := &gate{make(chan struct{}, 1), make(chan struct{})}
		w := &enginetest.Wire{}
		openWith(t, b.Hub("chat"), g, w, w.Bind, &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"g"}}})
		var sent atomic.Int64
		p := engine.Payload{Data: make([]byte, 1<<20)}
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 64 {
				if err := a.Hub("chat").SendToGroup(context.Background(), "g", p, nil); err != nil {
					t.Error(err)
				}
				sent.Add(1)
			}
		})
		synctest.Wait() // the shard is held in its first message
		// One queue is in the shard's hands, and one more has filled up.
		if n := sent.Load(); n > 36 {
			t.Errorf("%d MiB are held for a stalled shard of the other node; its queue's bound is 16 MiB", n)
		}
		close(g.open)
		wg.Wait()
	})
}

// A client whose answers pile up at a busy shard is asked to pause.
func TestRequestsAreBounded(t *testing.T) {
	e := start(t, &engine.Options{Shards: 1})
	g := &gate{make(chan struct{}, 1), make(chan struct{})}
	w := &enginetest.Wire{}
	h := e.Hub("chat")
	c := openWith(t, h, g, w, w.Bind, &engine.AdmitRequest{Identity: engine.Identity{Roles: anything, Groups: []engine.GroupName{"g"}}})
	must(t, h.SendToGroup(t.Context(), "g", text("x"), nil))
	<-g.entered
	n := 0
	for ; n < 500_000; n++ {
		ok := c.Do(&engine.Request{Op: engine.OpLeave, Group: "q"}, func(err error) { c.Post(&engine.Message{Kind: engine.KindAck}) })
		if !ok {
			break
		}
	}
	close(g.open)
	if n == 500_000 {
		t.Errorf("%d requests of one client answered into a stalled shard, the lane never asked for a pause", n)
	}
}

// A member that joins again with other options misses nothing.
func TestRejoinLosesNothing(t *testing.T) {
	e := start(t, &engine.Options{Shards: 1})
	h := e.Hub("chat")
	c := connect(t, h, open{roles: anything, groups: []engine.GroupName{"g"}})
	// A second member keeps the group alive: only the swap is under test.
	connect(t, h, open{roles: anything, groups: []engine.GroupName{"g"}})
	const n = 20000
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			done := make(chan struct{})
			c.Do(&engine.Request{Op: engine.OpJoin, Group: "g", Membership: i}, func(error) { close(done) })
			<-done
		}
	})
	for i := range n {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
	}
	close(stop)
	wg.Wait()
	must(t, h.SendToConn(t.Context(), c.ID(), text("end"), nil))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var lines []string
	err := c.Wire.Await(ctx, func(b []byte, _ bool) bool {
		return len(b) > 9 && string(b[len(b)-9:]) == "text end\n"
	})
	must(t, err)
	lines, _ = enginetest.SplitLines(c.Bytes())
	if got := len(lines) - 2; got != n {
		t.Errorf("a member that changed its options got %d of %d messages", got, n)
	}
}

// A lane is bounded by bytes, too.
func TestLaneIsBoundedByBytes(t *testing.T) {
	release := make(chan struct{})
	handler := &enginetest.Handler{Answer: engine.HandlerFuncs{OnUserEvent: func(context.Context, *engine.UserEvent) (*engine.EventReply, error) {
		<-release
		return nil, nil
	}}}
	e := start(t, handled(handler, "*"))
	c := connect(t, e.Hub("chat"), open{})
	p := engine.Payload{Data: make([]byte, 1<<20)}
	n := 0
	for n < 5000 && c.Do(&engine.Request{Op: engine.OpEvent, Event: "e", Payload: p}, func(error) {}) {
		n++
	}
	close(release)
	if n > 64 {
		t.Errorf("one connection made the engine hold %d requests of 1 MiB", n)
	}
}

// A verb that waits for the backplane ends with its context.
func TestVerbsEndWithTheirContext(t *testing.T) {
	bp := &stuck{Backplane: enginetest.NewCluster(1)[0], entered: make(chan struct{}, 1), release: make(chan struct{})}
	e := start(t, &engine.Options{Backplane: bp})
	t.Cleanup(func() { close(bp.release) })
	h := e.Hub("chat")
	c := connect(t, h, open{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	within(t, "AddToGroup", func() { t.Log(h.AddToGroup(ctx, "g", c.ID())) })
}

func TestSubscribeEndsWithItsContext(t *testing.T) {
	bp := &stuck{Backplane: enginetest.NewCluster(1)[0], entered: make(chan struct{}, 1), release: make(chan struct{}), all: true}
	e := start(t, &engine.Options{Backplane: bp})
	t.Cleanup(func() { close(bp.release) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	within(t, "Subscribe", func() { _, err := e.Hub("chat").Subscribe(ctx, nil); t.Log(err) })
}

// A connection that is closed while it still joins its groups is told of in order.
func TestConnectedPrecedesDisconnected(t *testing.T) {
	bp := &stuck{Backplane: enginetest.NewCluster(1)[0], entered: make(chan struct{}, 1), release: make(chan struct{})}
	var mu sync.Mutex
	var got []string
	e := start(t, &engine.Options{Backplane: bp, Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{Listeners: []engine.ListenerRule{{SystemEvents: []string{"connected", "disconnected"},
			Listener: func(_ context.Context, ev engine.ListenedEvent) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprintf("%T", ev))
			}}}}
	}})
	h := e.Hub("chat")
	done := make(chan struct{})
	go func() {
		defer close(done)
		connect(t, h, open{id: "x", groups: []engine.GroupName{"g"}})
	}()
	<-bp.entered
	must(t, h.CloseConn(t.Context(), "x", ""))
	close(bp.release)
	<-done
	if got[0] != "*engine.ConnectedEvent" {
		t.Errorf("the events came as %q", got)
	}
}

// A connection that was closed publishes no more, even while it lingers.
func TestNothingIsDoneForAClosedConnection(t *testing.T) {
	e := start(t, nil)
	h := e.Hub("chat")
	bo := connect(t, h, open{groups: []engine.GroupName{"g"}})
	eve := connect(t, h, open{roles: anything, wire: &enginetest.Wire{KeepOpen: true}})
	must(t, h.CloseConn(t.Context(), eve.ID(), "banned"))
	err := eve.SendToGroup(t.Context(), "g", text("still here"), false)
	if engine.CodeOf(err) != engine.CodeClosed || err == nil {
		t.Errorf("a banned connection's send: %v; bo got %q", err, bo.lines(1))
	}
}

// Roles may hold any character; the cache does not take one list for another.
func TestRolesAreNotMixedUp(t *testing.T) {
	h := start(t, nil).Hub("chat")
	connect(t, h, open{roles: []string{"webpubsub.sendToGroup.a", "webpubsub.sendToGroup"}})
	c := connect(t, h, open{roles: []string{"webpubsub.sendToGroup.a\x00webpubsub.sendToGroup"}})
	if c.Permitted(engine.SendToGroup, "anything") {
		t.Error("one literal role was taken for two others out of the cache")
	}
}

// A limit that makes no sense is none.
func TestListLimits(t *testing.T) {
	h := start(t, nil).Hub("chat")
	connect(t, h, open{groups: []engine.GroupName{"g"}})
	for _, n := range []int{-1, -2, int(^uint(0) >> 1)} {
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("limit %d: %v", n, r)
				}
			}()
			h.ListGroup(t.Context(), "g", "", n)
		}()
	}
}

// A client that reads slowly is not pinged, and not ended for want of an answer.
func TestSlowProgressIsASignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := &enginetest.Handler{}
		h := start(t, handled(handler, "")).Hub("chat")
		w := &enginetest.Wire{}
		w.Limit(1 << 10)
		c := connect(t, h, open{user: "ann", pings: true, wire: w, groups: []engine.GroupName{"g"}})
		for range 900 {
			must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprintf("%01000d", 1)), nil))
		}
		for range 200 {
			w.Limit(4 << 10) // it reads 4 KiB a second, answering whatever asks for an answer
			time.Sleep(time.Second)
			synctest.Wait()
			if c.Closed() {
				t.Fatalf("a reading client that was never pinged was ended: %q", handler.Calls())
			}
		}
	})
}

// An id in use on another node is in use.
func TestConnIDIsUniqueInTheCluster(t *testing.T) {
	planes := enginetest.NewCluster(2)
	a := start(t, &engine.Options{Backplane: planes[0]})
	b := start(t, &engine.Options{Backplane: planes[1]})
	old := connect(t, a.Hub("chat"), open{id: "x", user: "ann"})
	if _, err := tryConnect(t, b.Hub("chat"), open{id: "x", user: "eve"}); err == nil {
		t.Error("a second connection with the same id, of another user, without takeover")
	}
	_ = old
}

// A closed engine takes nothing.
func TestVerbsAfterClose(t *testing.T) {
	e := start(t, nil)
	h := e.Hub("chat")
	must(t, e.Close())
	if err := h.SendToAll(t.Context(), text("x"), nil); err == nil {
		t.Error("a closed engine took a message")
	}
}

// Shutdown waits for what an abandoned admission raises.
func TestShutdownWaitsForAbandoned(t *testing.T) {
	lost := 0
	for range 300 {
		handler := &enginetest.Handler{}
		e := start(t, handled(handler, ""))
		a, err := e.Hub("chat").Admit(t.Context(), &engine.AdmitRequest{})
		must(t, err)
		done := make(chan error, 1)
		go func() { done <- e.Shutdown(context.Background()) }()
		eventually(t, e.Draining)
		a.Abandon("upgrade failed")
		must(t, <-done)
		if len(handler.Calls()) != 2 {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("Shutdown lost %d of 300 disconnected events", lost)
	}
}

// Whoever ends a connection during Shutdown, its event arrives.
func TestShutdownLosesNoEvent(t *testing.T) {
	lost := 0
	for range 300 {
		handler := &enginetest.Handler{}
		e := start(t, handled(handler, ""))
		c := connect(t, e.Hub("chat"), open{})
		go c.Gone(engine.FirstWire, engine.CloseAbnormal, "x")
		must(t, e.Shutdown(context.Background()))
		n := 0
		for _, l := range handler.Calls() {
			if len(l) > 12 && l[:12] == "disconnected" {
				n++
			}
		}
		if n != 1 {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("lost %d of 300", lost)
	}
}

// Subscribe joins all its groups, or fails.
func TestSubscribeJoinsAllGroups(t *testing.T) {
	h := start(t, &engine.Options{Limits: engine.Limits{GroupsPerConnection: 1}}).Hub("chat")
	s, err := h.Subscribe(t.Context(), &engine.SubscribeOptions{Groups: []engine.GroupName{"a", "b"}})
	if err == nil {
		t.Error("Subscribe said yes, and is not in group b")
		s.Close()
	}
}

// A refused reservation that is the last to go wakes Shutdown.
func TestShutdownOfAFullEngine(t *testing.T) {
	for range 400 {
		e := start(t, &engine.Options{Shards: 1, Limits: engine.Limits{Connections: 1}})
		h := e.Hub("chat")
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{})
		must(t, err)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if x, err := h.Admit(context.Background(), &engine.AdmitRequest{}); err == nil {
						x.Abandon("")
					} else if e.Draining() {
						return
					}
				}
			})
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		go a.Abandon("")
		err = e.Shutdown(ctx)
		cancel()
		close(stop)
		wg.Wait()
		if err != nil {
			t.Fatal("Shutdown of an empty engine:", err)
		}
	}
}

// An encoding that cannot be compared is found out when it is handed over.
func TestEncodingMustBeComparable(t *testing.T) {
	h := start(t, nil).Hub("chat")
	a, err := h.Admit(t.Context(), &engine.AdmitRequest{})
	must(t, err)
	defer a.Abandon("")
	defer func() {
		if recover() == nil {
			t.Error("Open took it")
		}
	}()
	a.Open(&enginetest.Wire{}, &engine.OpenOptions{Encoding: slicy{counting{}, []int{1}}})
}

type slicy struct {
	engine.Encoding
	v any
}

// An admission that opens after Shutdown began is refused.
func TestOpenWhileDraining(t *testing.T) {
	e := start(t, nil)
	a, err := e.Hub("chat").Admit(t.Context(), &engine.AdmitRequest{})
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- e.Shutdown(context.Background()) }()
	eventually(t, e.Draining)
	w := &enginetest.Wire{}
	_, err = a.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: w.Bind})
	wantCode(t, err, engine.CodeClosed)
	must(t, <-done)
}

// A subscriber that does nothing but receive keeps up with a publisher.
func TestSubscriberKeepsUp(t *testing.T) {
	h := start(t, nil).Hub("chat")
	s, err := h.Subscribe(t.Context(), &engine.SubscribeOptions{Groups: []engine.GroupName{"g"}, Buffer: 10_000})
	must(t, err)
	const n = 10_000
	go func() {
		for i := range n {
			h.SendToGroup(context.Background(), "g", text(fmt.Sprint(i)), nil)
		}
	}()
	for i := range n {
		m, err := s.Receive(t.Context())
		must(t, err)
		if got := string(m.Payload.Data); got != fmt.Sprint(i) {
			t.Fatalf("got message %s, want %d", got, i)
		}
	}
}

// A reader with room is not ended for a burst of messages that are small.
func TestBurst(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := connect(t, h, open{groups: []engine.GroupName{"g"}})
	for i := range 20_000 {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
	}
	c.expect(numbered("text @g %d", 20_000)...)
}

// idle takes everything and never answers.
type idle struct{}

func (idle) Offer(_ *engine.Batch, spans []engine.Span) (n, part int, err error) {
	for _, s := range spans {
		n += s.To - s.From
	}
	return n, 0, nil
}
func (idle) OfferBytes(p []byte) (int, error) { return len(p), nil }
func (idle) Held() int                        { return 0 }
func (idle) Close(bool)                       {}

// What connections cost is given back when they have gone, though they were to
// be pinged in an hour.
func TestMemoryIsGivenBack(t *testing.T) {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	e := start(t, &engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{KeepAlive: time.Hour}
	}})
	h := e.Hub("chat")
	before := heap()
	const n = 20_000
	conns := make([]*engine.Conn, 0, n)
	for range n {
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"g"}}})
		must(t, err)
		c, err := a.Open(idle{}, &engine.OpenOptions{Encoding: enginetest.Lines{}, WirePings: true})
		must(t, err)
		conns = append(conns, c)
	}
	must(t, h.SendToGroup(t.Context(), "g", text("x"), nil))
	eventually(t, func() bool { return e.Stats().MessagesOut >= 2*n })
	t.Logf("a connection takes %d bytes", (heap()-before)/n)
	for i, c := range conns {
		c.Gone(engine.FirstWire, engine.CloseAbnormal, "")
		conns[i] = nil
	}
	eventually(t, func() bool { return e.Stats().Connections == 0 })
	var left int64
	eventually(t, func() bool { left = heap() - before; return left < 512<<10 })
	t.Logf("%d bytes are left of %d connections", left, n)
}

// Reload does not double what may be under way at one handler.
func TestReloadKeepsBounds(t *testing.T) {
	asked, release := make(chan struct{}, 2), make(chan struct{})
	handler := &enginetest.Handler{Answer: engine.HandlerFuncs{
		OnUserEvent: func(context.Context, *engine.UserEvent) (*engine.EventReply, error) {
			asked <- struct{}{}
			<-release
			return nil, nil
		},
	}}
	synctest.Test(t, func(t *testing.T) {
		asked, release = make(chan struct{}, 2), make(chan struct{})
		o := handled(handler, "*")
		o.Limits.PendingEvents = 1
		e := start(t, o)
		a, b := connect(t, e.Hub("chat"), open{}), connect(t, e.Hub("chat"), open{})
		a.Do(&engine.Request{Op: engine.OpEvent, Event: "e"}, func(error) {})
		<-asked
		e.Reload()
		b.Do(&engine.Request{Op: engine.OpEvent, Event: "e"}, func(error) {})
		synctest.Wait()
		if len(asked) > 0 {
			t.Error("two calls are under way, where one is allowed")
		}
		close(release)
		<-asked
	})
}
