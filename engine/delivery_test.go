package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// Members with equal encodings get the same batch, not copies.
func TestMembersShareBytes(t *testing.T) {
	h := start(t, &engine.Options{Shards: 1}).Hub("chat")
	var members []*client
	for range 10 {
		c := connect(t, h, open{groups: []engine.GroupName{"g"}})
		c.lines(0)
		members = append(members, c)
	}
	must(t, h.SendToGroup(t.Context(), "g", text("hello"), nil))
	var first *engine.Batch
	for _, m := range members {
		m.expect("text @g hello")
		batches := m.Batches()
		last := batches[len(batches)-1]
		if first == nil {
			first = last
		}
		if last != first {
			t.Error("two members in step got different batches")
		}
	}
}

// A member that is left out of some messages gets the others, in order and once.
func TestLeftOutStaysInStep(t *testing.T) {
	h := start(t, &engine.Options{Shards: 2}).Hub("chat")
	const n, each = 8, 40
	var chat []*client
	for i := range n {
		chat = append(chat, connect(t, h, open{roles: anything, groups: []engine.GroupName{"g"}, user: engine.UserID(fmt.Sprint("u", i))}))
	}
	var wg sync.WaitGroup
	for i, c := range chat {
		wg.Go(func() {
			for k := range each {
				c.Do(&engine.Request{Op: engine.OpSend, Group: "g", NoEcho: true, Payload: text(fmt.Sprint(i, "-", k))}, func(err error) {
					if err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
	wg.Wait()
	must(t, h.SendToGroup(t.Context(), "g", text("end"), nil))
	for i, c := range chat {
		lines := c.lines((n-1)*each + 1)
		if lines[len(lines)-1] != "text @g end" || len(lines) != (n-1)*each+1 {
			t.Fatalf("%d lines, the last %q", len(lines), lines[len(lines)-1])
		}
		next := make(map[string]int)
		for _, line := range lines[:len(lines)-1] {
			f := strings.Fields(line)
			from, k, _ := strings.Cut(f[3], "-")
			if from == fmt.Sprint(i) {
				t.Fatalf("an echo: %s", line)
			}
			if k != fmt.Sprint(next[from]) {
				t.Fatalf("got %s, want message %d of %s", line, next[from], from)
			}
			next[from]++
		}
	}
}

// Whatever room their wires have, at whatever byte they stop, members get every
// message whole, once and in order.
func TestPartialWrites(t *testing.T) {
	for _, lines := range []enginetest.Lines{{}, {Numbered: true}} {
		t.Run(fmt.Sprintf("numbered=%t", lines.Numbered), func(t *testing.T) {
			h := start(t, nil).Hub("chat")
			const n, messages = 20, 400
			var members []*client
			for range n {
				c := connect(t, h, open{groups: []engine.GroupName{"g"}, lines: lines})
				c.Limit(rand.IntN(100))
				members = append(members, c)
			}
			var wg sync.WaitGroup
			for _, c := range members { // far ends that read now and then
				wg.Go(func() {
					for range messages {
						c.Limit(rand.IntN(60))
					}
					c.Limit(-1)
				})
			}
			for i := range messages {
				must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
			}
			wg.Wait()
			want := numbered("text @g %d", messages)
			if lines.Numbered {
				for i := range want {
					want[i] = fmt.Sprintf("#%d %s", i+1, want[i])
				}
			}
			for _, c := range members {
				c.expect(want...)
			}
		})
	}
}

// A sequence id is given at the first write: a message that expired while it
// was queued uses none.
func TestExpiredUsesNoSequenceID(t *testing.T) {
	clock := newClock()
	e := start(t, &engine.Options{Clock: clock})
	h := e.Hub("chat")
	c := connect(t, h, open{groups: []engine.GroupName{"g"}, lines: enginetest.Lines{Numbered: true}})
	c.lines(0)
	c.Limit(0)
	must(t, h.SendToGroup(t.Context(), "g", text("one"), nil))
	must(t, h.SendToGroup(t.Context(), "g", text("late"), &engine.SendOptions{TTL: time.Second}))
	must(t, h.SendToGroup(t.Context(), "g", text("two"), nil))
	eventually(t, func() bool { return e.Stats().QueuedMessages == 3 })
	clock.advance(2 * time.Second)
	c.Limit(-1)
	c.expect("#1 text @g one", "#2 text @g two")
}

// The hooks that a protocol has: options on a membership, attributes on a message.
func TestOpaqueHooks(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := connect(t, h, open{roles: anything, lines: enginetest.Lines{Numbered: true}})
	done := make(chan error, 1)
	c.Do(&engine.Request{Op: engine.OpJoin, Group: "g", Membership: "qos1"}, func(err error) { done <- err })
	must(t, <-done)
	must(t, h.SendToGroup(t.Context(), "g", text("x"), &engine.SendOptions{Attributes: "retain", Metadata: engine.Metadata{"k": "v"}}))
	c.Limit(0) // what waits keeps the options it was published under
	must(t, h.SendToGroup(t.Context(), "g", text("w"), nil))
	c.Do(&engine.Request{Op: engine.OpJoin, Group: "g", Membership: "qos2"}, func(err error) { done <- err })
	must(t, <-done)
	must(t, h.SendToGroup(t.Context(), "g", text("y"), nil))
	c.Limit(-1)
	c.expect("#1 {qos1} text @g k=v [retain] x", "#2 {qos1} text @g w", "#3 {qos2} text @g y")
}

// pieces is a sink that notes where the last piece of each offer lies.
type pieces struct {
	enginetest.Wire
	last chan []byte

	scattered bool // the last batch was
}

func (p *pieces) Offer(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	b.Retain() // for good
	for _, span := range spans {
		if list := b.Pieces(nil, span); len(list) > 0 {
			p.scattered = b.Scattered()
			p.last <- list[len(list)-1]
		}
		n += span.To - span.From
	}
	return n, 0, nil
}

// A large body is written from one place to all, behind prefixes of their own; a
// small one is copied behind each.
func TestLargeBodiesAreNotCopied(t *testing.T) {
	for name, size := range map[string]int{"large": 64 << 10, "small": 100} {
		t.Run(name, func(t *testing.T) {
			h := start(t, &engine.Options{Shards: 1}).Hub("chat")
			var sinks []*pieces
			for range 3 {
				p := &pieces{last: make(chan []byte, 2)}
				a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"g"}}})
				must(t, err)
				_, err = a.Open(p, &engine.OpenOptions{Encoding: enginetest.Lines{Numbered: true}, Numbered: true, Bind: p.Bind})
				must(t, err)
				<-p.last // hello
				sinks = append(sinks, p)
			}
			body := strings.Repeat("x", size)
			must(t, h.SendToGroup(t.Context(), "g", text(body), nil))
			first := <-sinks[0].last
			for _, p := range sinks[1:] {
				next := <-p.last
				if p.scattered != (name == "large") {
					t.Errorf("scattered: %t", p.scattered)
				}
				if !bytes.HasSuffix(next, []byte(body+"\n")) {
					t.Fatalf("the last piece has %d bytes", len(next))
				}
				if name == "large" && &next[0] != &first[0] {
					t.Error("the body was copied")
				}
			}
		})
	}
}

// A batch that a sink keeps is not written over.
func TestRetainedBatch(t *testing.T) {
	h := start(t, &engine.Options{Shards: 1}).Hub("chat")
	a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"g"}}})
	must(t, err)
	k := &keeper{kept: make(chan *engine.Batch, 300)}
	_, err = a.Open(k, &engine.OpenOptions{Encoding: enginetest.Lines{}})
	must(t, err)
	(<-k.kept).Release() // hello
	for i := range 100 {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
	}
	var got []string
	var batches []*engine.Batch
	for len(got) < 100 {
		b := <-k.kept
		batches = append(batches, b)
		lines, _ := enginetest.SplitLines(b.Bytes(engine.Span{To: b.Len()}))
		got = append(got, lines...)
	}
	again := []string{}
	for _, b := range batches {
		lines, _ := enginetest.SplitLines(b.Bytes(engine.Span{To: b.Len()}))
		again = append(again, lines...)
		b.Release()
	}
	if want := numbered("text @g %d", 100); !slices.Equal(again, want) {
		t.Errorf("got %q", again)
	}
}

// keeper is a sink that keeps whole batches.
type keeper struct{ kept chan *engine.Batch }

func (k *keeper) Offer(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	b.Retain()
	k.kept <- b
	for _, s := range spans {
		n += s.To - s.From
	}
	return n, 0, nil
}
func (k *keeper) OfferBytes(p []byte) (int, error) { return len(p), nil }
func (k *keeper) Held() int                        { return 0 }
func (k *keeper) Close(bool)                       {}

// No publisher waits for a slow reader; one that goes over its bounds is ended,
// with the reason in its event, and the others do not notice.
func TestSlowReaderIsEnded(t *testing.T) {
	handler := &enginetest.Handler{}
	o := handled(handler, "")
	o.Limits = engine.Limits{OutboundMessages: 100}
	h := start(t, o).Hub("chat")
	slow := connect(t, h, open{user: "slow", groups: []engine.GroupName{"g"}})
	fast := connect(t, h, open{user: "fast", groups: []engine.GroupName{"g"}})
	slow.lines(0)
	slow.Limit(30)
	const n = 500
	for i := range n {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
	}
	fast.expect(numbered("text @g %d", n)...)
	slow.awaitClosed()
	calls, err := handler.Await(t.Context(), 5)
	must(t, err)
	if !slices.ContainsFunc(calls, func(s string) bool {
		return strings.HasPrefix(s, "disconnected 2 slow The client reads too slowly:")
	}) {
		t.Errorf("the events are %q", calls)
	}
	lines, rest := enginetest.SplitLines(slow.Bytes())
	for i, line := range lines[1:] {
		if want := fmt.Sprint("text @g ", i); line != want {
			t.Errorf("a gap: got %q, want %q", line, want)
		}
	}
	if want := fmt.Sprint("text @g ", len(lines)-1); !strings.HasPrefix(want, rest) {
		t.Errorf("the torn line is %q, want the start of %q", rest, want)
	}
}

func TestSlowReaderByBytes(t *testing.T) {
	h := start(t, &engine.Options{Limits: engine.Limits{OutboundBytes: 10_000}}).Hub("chat")
	slow := connect(t, h, open{groups: []engine.GroupName{"g"}})
	slow.lines(0)
	slow.Limit(1)
	for range 20 {
		must(t, h.SendToGroup(t.Context(), "g", text(strings.Repeat("x", 1000)), nil))
	}
	slow.awaitClosed()
}

// heavy are attributes that a stranger made large.
type heavy struct{ bytes int }

func (h heavy) Size() int { return h.bytes }

// What a protocol attaches to messages counts, too.
func TestSlowReaderByAttributes(t *testing.T) {
	h := start(t, &engine.Options{Limits: engine.Limits{OutboundBytes: 10_000}}).Hub("chat")
	slow := connect(t, h, open{groups: []engine.GroupName{"g"}})
	sender := connect(t, h, open{roles: anything})
	slow.lines(0)
	slow.Limit(1)
	for range 20 {
		done := make(chan error, 1)
		sender.Do(&engine.Request{Op: engine.OpSend, Group: "g", Payload: text("x"), Attributes: heavy{1000}}, func(err error) { done <- err })
		must(t, <-done)
	}
	slow.awaitClosed()
}

// When all together are owed too much, the largest laggard ends first.
func TestTotalOutboundBound(t *testing.T) {
	h := start(t, &engine.Options{Limits: engine.Limits{TotalOutboundBytes: 200_000}}).Hub("chat")
	small := connect(t, h, open{user: "small", groups: []engine.GroupName{"g"}})
	large := connect(t, h, open{user: "large", groups: []engine.GroupName{"g", "big"}})
	for _, c := range []*client{small, large} {
		c.lines(0)
		c.Limit(0)
	}
	must(t, h.SendToGroup(t.Context(), "g", text("kept"), nil))
	for range 300 {
		must(t, h.SendToGroup(t.Context(), "big", text(strings.Repeat("x", 1000)), nil))
	}
	large.awaitClosed()
	small.Limit(-1)
	small.expect("text @g kept")
	if ok, _ := h.UserExists(t.Context(), "large"); ok {
		t.Error("the largest laggard still exists")
	}
}

func TestBrokenSink(t *testing.T) {
	handler := &enginetest.Handler{}
	h := start(t, handled(handler, "")).Hub("chat")
	c := connect(t, h, open{user: "ann", groups: []engine.GroupName{"g"}})
	c.lines(0)
	c.Break()
	must(t, h.SendToGroup(t.Context(), "g", text("x"), nil))
	c.awaitClosed()
	calls, err := handler.Await(t.Context(), 3)
	must(t, err)
	if !slices.Contains(calls, "disconnected 2 ann the wire is broken") {
		t.Errorf("got %q", calls)
	}
}

// Descriptors are used again as soon as their sink is closed. While connections
// come and go during fan-out, no byte reaches a stranger.
func TestNoByteReachesAStranger(t *testing.T) {
	h := start(t, nil).Hub("chat")
	fds := &descriptors{}
	const workers, rounds = 8, 200
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range workers {
		name := engine.GroupName(fmt.Sprint("g", g))
		wg.Go(func() { // a publisher for each group
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					h.SendToGroup(t.Context(), name, text(string(name)), nil)
				}
			}
		})
	}
	var clients sync.WaitGroup
	for g := range workers {
		name := engine.GroupName(fmt.Sprint("g", g))
		clients.Go(func() {
			for i := range rounds {
				a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{name}}})
				if err != nil {
					t.Error(err)
					return
				}
				s := fds.open(string(name))
				c, err := a.Open(s, &engine.OpenOptions{Encoding: enginetest.Lines{}})
				if err != nil {
					t.Error(err)
					return
				}
				if i%10 == 0 { // some stay until they got something
					<-s.wrote
				}
				switch i % 3 {
				case 0:
					c.Abort(engine.EndLost, "cut")
				case 1:
					c.Gone(engine.FirstWire, engine.CloseNormal, "")
				case 2:
					c.Gone(engine.FirstWire, engine.CloseAbnormal, "")
				}
				<-s.done
			}
		})
	}
	clients.Wait()
	close(stop)
	wg.Wait()
	for _, bad := range fds.strangers() {
		t.Error(bad)
	}
	if fds.written() == 0 {
		t.Error("nothing was delivered at all")
	}
}

// descriptors plays the kernel's table: the lowest free number is given out, and
// a write goes to whoever has the number now.
type descriptors struct {
	mu    sync.Mutex
	owner []string // "" is free
	bad   []string
	n     int
}

type descriptor struct {
	table *descriptors
	fd    int
	first sync.Once
	wrote chan struct{} // closed at the first message
	done  chan struct{}
}

func (d *descriptors) open(owner string) *descriptor {
	d.mu.Lock()
	defer d.mu.Unlock()
	fd := slices.Index(d.owner, "")
	if fd < 0 {
		fd = len(d.owner)
		d.owner = append(d.owner, "")
	}
	d.owner[fd] = owner
	return &descriptor{table: d, fd: fd, wrote: make(chan struct{}), done: make(chan struct{})}
}

func (d *descriptors) strangers() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bad
}

func (d *descriptors) written() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

func (s *descriptor) Offer(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	s.table.mu.Lock()
	defer s.table.mu.Unlock()
	for _, span := range spans {
		lines, _ := enginetest.SplitLines(b.Bytes(span))
		for _, line := range lines {
			if strings.HasPrefix(line, "text ") {
				s.table.n++
				s.first.Do(func() { close(s.wrote) })
				if owner := s.table.owner[s.fd]; !strings.HasSuffix(line, " "+owner) && len(s.table.bad) < 10 {
					s.table.bad = append(s.table.bad, fmt.Sprintf("descriptor %d of %q got %q", s.fd, owner, line))
				}
			}
		}
		n += span.To - span.From
	}
	return n, 0, nil
}
func (s *descriptor) OfferBytes(p []byte) (int, error) { return len(p), nil }
func (s *descriptor) Held() int                        { return 0 }
func (s *descriptor) Close(bool) {
	s.table.mu.Lock()
	s.table.owner[s.fd] = ""
	s.table.mu.Unlock()
	close(s.done)
}

// clock is time that the test moves.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	timers []*clockTimer
}

type clockTimer struct {
	at      time.Time
	f       func()
	stopped bool
}

func newClock() *clock { return &clock{now: time.Unix(1_700_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	tm := &clockTimer{at: c.now.Add(d), f: f}
	c.timers = append(c.timers, tm)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		was := !tm.stopped
		tm.stopped = true
		return was
	}
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	var due []*clockTimer
	c.timers = slices.DeleteFunc(c.timers, func(tm *clockTimer) bool {
		if tm.stopped || tm.at.After(c.now) {
			return false
		}
		due = append(due, tm)
		return true
	})
	c.mu.Unlock()
	for _, tm := range due {
		tm.f()
	}
}
