package engine_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// free is the attribute of messages that windowed connections do not count.
var free = &engine.SendOptions{Attributes: "free"}

func counted(m *engine.Message, _ any) bool { return m.Attributes == nil }

// windowed opens a connection in the group g with a window of n deliveries.
func windowed(t *testing.T, h *engine.Hub, n int) *client {
	t.Helper()
	return connect(t, h, open{
		roles: anything, groups: []engine.GroupName{"g"}, lines: enginetest.Lines{Numbered: true}, window: n, counted: counted,
	})
}

// A full window holds back what counts, in order, and nothing else.
func TestWindow(t *testing.T) {
	h := start(t, nil).Hub("chat")
	a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Roles: anything}})
	must(t, err)
	w := &enginetest.Wire{}
	conn, err := a.Open(w, &engine.OpenOptions{
		Encoding: enginetest.Lines{Numbered: true}, Numbered: true, Bind: w.Bind, Window: 2,
		Counted: func(m *engine.Message, membership any) bool { return membership == "qos1" && m.Attributes == nil },
	})
	must(t, err)
	c := &client{Conn: conn, Wire: w, t: t}
	done := make(chan error, 1)
	c.Do(&engine.Request{Op: engine.OpJoin, Group: "g", Membership: "qos1"}, func(err error) { done <- err })
	must(t, <-done)
	send := func(s string, o *engine.SendOptions) { must(t, h.SendToGroup(t.Context(), "g", text(s), o)) }
	for i := range 5 {
		send(fmt.Sprint(i), nil)
	}
	send("free", free)
	c.Post(&engine.Message{Kind: engine.KindAck, AckID: 1})
	want := []string{"#1 {qos1} text @g 0", "#2 {qos1} text @g 1", "{qos1} text @g [free] free", "ack 1"}
	c.expect(want...)
	c.Acknowledge(1)
	want = append(want, "#3 {qos1} text @g 2")
	c.expect(want...)
	c.Limit(3) // the sink's room is another matter
	c.Acknowledge(2)
	send("behind", free)
	c.Limit(-1)
	want = append(want, "#4 {qos1} text @g 3", "#5 {qos1} text @g 4", "{qos1} text @g [free] behind")
	c.expect(want...)
	c.Acknowledge(10) // more than there are
	for i := range 3 {
		send(fmt.Sprint(5+i), nil)
	}
	send("end", free)
	c.expect(append(want, "#6 {qos1} text @g 5", "#7 {qos1} text @g 6", "{qos1} text @g [free] end")...)
}

// A client that acknowledges nothing is ended at its outbound bounds, with its wire in
// order and without one; what it owed is forgotten with it.
func TestWindowIsBounded(t *testing.T) {
	for name, limits := range map[string]engine.Limits{
		"messages": {OutboundMessages: 50}, "bytes": {OutboundBytes: 50 << 10}, "bytes of all": {TotalOutboundBytes: 50 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, &engine.Options{Limits: limits})
			h := e.Hub("chat")
			w := &enginetest.Wire{}
			a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"g"}}})
			must(t, err)
			c, err := a.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: w.Bind, Window: 1})
			must(t, err)
			for range 60 {
				must(t, h.SendToGroup(t.Context(), "g", text(strings.Repeat("x", 1<<10)), nil))
			}
			(&client{Conn: c, Wire: w, t: t}).awaitClosed()
			eventually(t, func() bool { return e.Stats().Connections == 0 })
			if st := e.Stats(); st.QueuedMessages != 0 || st.QueuedBytes != 0 || st.Dropped == 0 {
				t.Errorf("it is gone, and %d messages (%d bytes) wait; %d were dropped", st.QueuedMessages, st.QueuedBytes, st.Dropped)
			}
		})
	}
}

// The goodbye does not wait for the window, and nothing follows it.
func TestWindowDoesNotHoldTheGoodbye(t *testing.T) {
	e := start(t, nil)
	h := e.Hub("chat")
	w := &enginetest.Wire{KeepOpen: true}
	c := connect(t, h, open{groups: []engine.GroupName{"g"}, lines: enginetest.Lines{Numbered: true}, window: 1, wire: w})
	for i := range 3 {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
	}
	c.expect("#1 text @g 0")
	must(t, h.CloseConn(t.Context(), c.ID(), "enough"))
	want := []string{"#1 text @g 0", "disconnected Application server closed the connection. Reason: enough", "close 1000"}
	c.expect(want...)
	c.Acknowledge(1)
	c.Gone(engine.FirstWire, engine.CloseNormal, "")
	c.awaitClosed()
	c.expect(want...)
	if st := e.Stats(); st.Dropped != 2 || st.QueuedMessages != 0 {
		t.Errorf("%d were dropped and %d wait, want 2 and 0", st.Dropped, st.QueuedMessages)
	}
}

// Not even what an acknowledgement makes room for in the turn of the goodbye follows it.
func TestWindowInTheTurnOfTheGoodbye(t *testing.T) {
	e := start(t, &engine.Options{Shards: 1})
	h := e.Hub("chat")
	g := &gate{make(chan struct{}, 1), make(chan struct{})}
	held := &enginetest.Wire{}
	openWith(t, h, g, held, held.Bind, &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"gate"}}})
	c := windowed(t, h, 1)
	for i := range 2 {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
	}
	c.expect("#1 text @g 0")
	must(t, h.SendToGroup(t.Context(), "gate", text("x"), nil))
	<-g.entered // and while the shard is held:
	must(t, h.CloseConn(t.Context(), c.ID(), ""))
	c.Acknowledge(1)
	close(g.open)
	c.awaitClosed()
	c.expect("#1 text @g 0", "disconnected Application server closed the connection.", "close 1000")
}

// Deliveries of an earlier wire hold places of the next one's window.
func TestWindowOfTheNextWire(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := durable(t, h, open{groups: []engine.GroupName{"g"}, window: 3})
	for i := range 5 {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
	}
	c.expect("#1 text @g 0", "#2 text @g 1", "#3 text @g 2")
	c.AckOne(func(n engine.SequenceID) bool { return n == 1 }) // has arrived, and keeps its place
	r, err := h.Recover(t.Context(), &engine.RecoverRequest{ConnID: c.ID(), Token: c.token()})
	must(t, err)
	w := &enginetest.Wire{}
	conn, err := r.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{Numbered: true}, Bind: w.Bind, Window: 2, UnderWay: 1})
	must(t, err)
	c = &client{Conn: conn, Wire: w, t: t}
	c.Post(&engine.Message{Kind: engine.KindAck, AckID: 1})
	c.expect("#2! text @g 1", "ack 1")
	for n := range 4 {
		c.Acknowledge(1)
		c.expect([]string{"#2! text @g 1", "ack 1", "#3! text @g 2", "#4 text @g 3", "#5 text @g 4"}[:min(3+n, 5)]...)
	}
}

// What expires while it waits for the window is not delivered, and takes no number.
func TestWindowAndExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, nil)
		h := e.Hub("chat")
		c := windowed(t, h, 1)
		for i := range 4 {
			must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), &engine.SendOptions{TTL: time.Duration(i%2) * time.Minute}))
		}
		c.expect("#1 text @g 0")
		time.Sleep(2 * time.Minute) // virtual
		c.Acknowledge(1)
		c.expect("#1 text @g 0", "#2 text @g 2")
		c.Acknowledge(1)
		must(t, h.SendToGroup(t.Context(), "g", text("4"), nil))
		c.expect("#1 text @g 0", "#2 text @g 2", "#3 text @g 4")
		must(t, e.Close())
	})
}

// choosy is an encoding that sends no messages of more than a few bytes.
type choosy struct{ enginetest.Lines }

func (c choosy) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	if len(m.Payload.Data) > 8 {
		return dst, false
	}
	return c.Lines.AppendBody(dst, m)
}

// A delivery that the encoding of the next wire does not send takes no place for ever.
func TestWindowAndMessagesThatAreNotSent(t *testing.T) {
	e := start(t, nil)
	h := e.Hub("chat")
	c := durable(t, h, open{groups: []engine.GroupName{"g"}, window: 2})
	for _, s := range []string{"a long message", "another long one", "a third of these", "short"} {
		must(t, h.SendToGroup(t.Context(), "g", text(s), nil))
	}
	c.expect("#1 text @g a long message", "#2 text @g another long one")
	r, err := h.Recover(t.Context(), &engine.RecoverRequest{ConnID: c.ID(), Token: c.token()})
	must(t, err)
	w := &enginetest.Wire{}
	conn, err := r.Open(w, &engine.OpenOptions{Encoding: choosy{enginetest.Lines{Numbered: true}}, Bind: w.Bind, Window: 1})
	must(t, err)
	c = &client{Conn: conn, Wire: w, t: t}
	c.expect("#3 text @g short")
	eventually(t, func() bool { return e.Stats().QueuedMessages == 1 }) // the short one
}

// Whatever a sink takes at a time and whenever a client acknowledges: what counts comes
// in order and once, what does not comes in order, and never are more under way than
// the window allows; on wires that are lost, too.
func TestWindowUnderFire(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { windowUnderFire(t, rand.New(rand.NewPCG(seed, 7)), seed%2 == 0) })
		})
	}
}

// windowUnderFire is one run. If stuck is true, wires are lost while they have no room.
func windowUnderFire(t *testing.T, random *rand.Rand, stuck bool) {
	const messages, size = 200, 3
	e := start(t, &engine.Options{Shards: 1})
	h := e.Hub("chat")
	c := durable(t, h, open{groups: []engine.GroupName{"g"}, window: size, counted: counted})
	var arrived, loose []string // what has come in full: what counts, the rest
	seen, under := 0, 0         // lines that were looked at; deliveries under way on this wire
	look := func() {
		synctest.Wait()
		lines, _ := enginetest.SplitLines(c.Bytes())
		for _, line := range lines[min(seen, len(lines)):] {
			seen++
			body := line[strings.LastIndexByte(line, ' ')+1:]
			switch {
			case strings.HasPrefix(line, "connected"):
			case strings.HasPrefix(line, "#"):
				if under++; under > size {
					t.Fatalf("%d deliveries are under way: %q", under, lines)
				}
				if !strings.Contains(line, "! ") || !slices.Contains(arrived, body) {
					arrived = append(arrived, body)
				}
			default:
				loose = append(loose, body)
			}
		}
	}
	acknowledge := func(n int) {
		look()
		for ; n > 0 && under > 0; n-- {
			under--
			c.AckOne(func(engine.SequenceID) bool { return true }) // the oldest
			c.Acknowledge(1)
		}
		look()
	}
	var want, wantLoose []string
	for i := 0; i < messages; {
		switch random.IntN(8) {
		case 0, 1, 2:
			must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint("c", i)), nil))
			want = append(want, fmt.Sprint("c", i))
			i++
		case 3:
			must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint("f", i)), free))
			wantLoose = append(wantLoose, fmt.Sprint("f", i))
			i++
		case 4:
			c.Limit(random.IntN(60))
		case 5, 6:
			acknowledge(1 + random.IntN(size))
		case 7:
			if random.IntN(8) > 0 {
				break
			}
			if !stuck {
				c.Limit(-1)
			}
			look()
			c.lose()
			c.awaitClosed()
			r, err := h.Recover(t.Context(), &engine.RecoverRequest{ConnID: c.ID(), Token: c.token()})
			must(t, err)
			w := &enginetest.Wire{}
			w.Limit(random.IntN(200))
			conn, err := r.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{Numbered: true}, Bind: w.Bind, Window: size})
			must(t, err)
			c, seen, under = &client{Conn: conn, Wire: w, t: t}, 0, 0
			w.Limit(-1)
			look()
		}
	}
	c.Limit(-1)
	for range messages {
		acknowledge(size)
	}
	if !slices.Equal(arrived, want) {
		t.Errorf("got  %q\nwant %q", arrived, want)
	}
	if stuck { // what a lost wire had taken in part is not sent again, if it does not count
		wantLoose = slices.DeleteFunc(wantLoose, func(s string) bool { return !slices.Contains(loose, s) })
	}
	if !slices.Equal(loose, wantLoose) {
		t.Errorf("what does not count:\ngot  %q\nwant %q", loose, wantLoose)
	}
	if st := e.Stats(); st.QueuedMessages != 0 || st.QueuedBytes != 0 {
		t.Errorf("all has arrived, and %d messages (%d bytes) wait", st.QueuedMessages, st.QueuedBytes)
	}
	must(t, e.Close())
}
