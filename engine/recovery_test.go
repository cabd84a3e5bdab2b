package engine_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// What was not acknowledged comes again, with the same numbers, and before what
// has come since and what comes then.
func TestReplayPrecedesLiveMessages(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := durable(t, h, open{user: "ann", groups: []engine.GroupName{"g"}})
	send := func(s string) { must(t, h.SendToGroup(t.Context(), "g", text(s), nil)) }
	for i := range 3 {
		send(fmt.Sprint(i))
	}
	c.expect("#1 text @g 0", "#2 text @g 1", "#3 text @g 2")
	c.AckUpTo(1)
	c.lose()
	c.awaitClosed()
	send("3")
	must(t, h.SendToUser(t.Context(), "ann", text("4"), nil))
	must(t, h.SendToConn(t.Context(), c.ID(), text("5"), nil))
	must(t, h.SendToAll(t.Context(), text("6"), &engine.SendOptions{Filter: "userId eq 'ann'"}))
	token := c.token()
	c = c.recover(&enginetest.Wire{}, enginetest.Lines{})
	send("7")
	c.expect("#2! text @g 1", "#3! text @g 2", "#4 text @g 3", "#5 text 4", "#6 text 5", "#7 text 6", "#8 text @g 7")
	if got := c.token(); got != token {
		t.Errorf("the hello of the new wire has the token %q, want the one that was shown, %q", got, token)
	}
	c.AckUpTo(1<<64 - 1) // above the last one is as good as the last one
	c.lose()
	c.awaitClosed()
	c = c.recover(&enginetest.Wire{}, enginetest.Lines{})
	send("8")
	c.expect("#9 text @g 8")
}

// A recovery changes nothing of the logical connection, and tells no handler.
func TestRecoveryKeepsTheConnection(t *testing.T) {
	handler := &enginetest.Handler{}
	h := start(t, handled(handler, "*")).Hub("chat")
	c := durable(t, h, open{user: "ann", roles: anything, groups: []engine.GroupName{"g"}, session: "the door's", sub: "toy"})
	do := func(op engine.Op, g engine.GroupName, id engine.AckID) error {
		done := make(chan error, 1)
		c.Do(&engine.Request{Op: op, Group: g, AckID: id, HasAck: true}, func(err error) { done <- err })
		return <-done
	}
	must(t, do(engine.OpJoin, "joined", 7))
	_, err := handler.Await(t.Context(), 2)
	must(t, err)
	c.lose()
	c.awaitClosed()
	must(t, h.AddToGroup(t.Context(), "away", c.ID()))
	must(t, h.RemoveFromGroup(t.Context(), "g", c.ID()))
	must(t, h.Revoke(t.Context(), c.ID(), engine.SendToGroup, "joined"))
	if ok, err := h.UserExists(t.Context(), "ann"); err != nil || !ok {
		t.Errorf("a connection without a wire is not seen: %t, %v", ok, err)
	}
	r, err := h.Recover(t.Context(), &engine.RecoverRequest{ConnID: c.ID(), Token: c.token()})
	must(t, err)
	if r.Session() != "the door's" || r.Subprotocol() != "toy" || r.UserID() != "ann" || r.ConnID() != c.ID() {
		t.Errorf("the recovery is of %v %q %q %q", r.Session(), r.Subprotocol(), r.UserID(), r.ConnID())
	}
	c = c.recover(&enginetest.Wire{}, enginetest.Lines{})
	wantCode(t, do(engine.OpLeave, "joined", 7), engine.CodeDuplicate)
	wantCode(t, do(engine.OpSend, "joined", 8), engine.CodeForbidden)
	for _, g := range []engine.GroupName{"g", "joined", "away"} {
		must(t, h.SendToGroup(t.Context(), g, text("x"), nil))
	}
	c.expect("#1 text @joined x", "#2 text @away x")
	must(t, h.CloseConn(t.Context(), c.ID(), "enough"))
	c.awaitClosed()
	calls, err := handler.Await(t.Context(), 3)
	must(t, err)
	want := []string{"connect 0 ann", "connected 1 ann", "disconnected 2 ann Application server closed the connection. Reason: enough"}
	if !slices.Equal(calls, want) {
		t.Errorf("got %q, want %q", calls, want)
	}
}

// Who may not have a connection back, and that trying does not harm it.
func TestRecoveryIsRefused(t *testing.T) {
	e := start(t, nil)
	h, other := e.Hub("chat"), e.Hub("other")
	cert := []*x509.Certificate{{Raw: []byte("a certificate")}}
	ann, bo := durable(t, h, open{user: "ann", sub: "toy", certs: cert}), durable(t, h, open{user: "bo"})
	plain := connect(t, h, open{lines: enginetest.Lines{Numbered: true}})
	ended := durable(t, h, open{})
	token := ended.token()
	ended.Gone(engine.FirstWire, engine.CloseNormal, "")
	ann.lose()
	ann.awaitClosed()
	tries := []struct {
		name string
		hub  *engine.Hub
		r    engine.RecoverRequest
		rule string
	}{
		{"no token", h, engine.RecoverRequest{ConnID: ann.ID(), PeerCertificates: cert}, "recovery.token"},
		{"another one's token", h, engine.RecoverRequest{ConnID: ann.ID(), Token: bo.token(), PeerCertificates: cert}, "recovery.token"},
		{"half a token", h, engine.RecoverRequest{ConnID: ann.ID(), Token: ann.token()[:10], PeerCertificates: cert}, "recovery.token"},
		{"no certificate", h, engine.RecoverRequest{ConnID: ann.ID(), Token: ann.token()}, "recovery.certificate"},
		{"another certificate", h, engine.RecoverRequest{
			ConnID: ann.ID(), Token: ann.token(), PeerCertificates: []*x509.Certificate{{Raw: []byte("b")}},
		}, "recovery.certificate"},
		{"another hub", other, engine.RecoverRequest{ConnID: ann.ID(), Token: ann.token(), PeerCertificates: cert}, "recovery.connection"},
		{"one that ended", h, engine.RecoverRequest{ConnID: ended.ID(), Token: token}, "recovery.connection"},
		{"one that cannot", h, engine.RecoverRequest{ConnID: plain.ID()}, "recovery.connection"},
		{"nobody", h, engine.RecoverRequest{ConnID: "nobody", Token: token}, "recovery.connection"},
		{"another user", h, engine.RecoverRequest{
			ConnID: ann.ID(), Identity: &engine.Identity{UserID: "bo"}, Subprotocol: "toy", PeerCertificates: cert,
		}, "recovery.identity"},
		{"another protocol", h, engine.RecoverRequest{
			ConnID: ann.ID(), Identity: &engine.Identity{UserID: "ann"}, Subprotocol: "other", PeerCertificates: cert,
		}, "recovery.identity"},
	}
	for _, try := range tries {
		t.Run(try.name, func(t *testing.T) {
			_, err := try.hub.Recover(t.Context(), &try.r)
			if e, ok := err.(*engine.Error); !ok || e.Rule != try.rule {
				t.Errorf("got %v, want the rule %s", err, try.rule)
			}
		})
	}
	w := &enginetest.Wire{}
	_, err := ann.tryRecover(h, &engine.RecoverRequest{
		ConnID: ann.ID(), Identity: &engine.Identity{UserID: "ann"}, Subprotocol: "toy", PeerCertificates: cert,
	}, w, enginetest.Lines{})
	must(t, err)
	w2 := &enginetest.Wire{}
	_, err = ann.tryRecover(h, &engine.RecoverRequest{ConnID: ann.ID(), Token: ann.token(), PeerCertificates: cert}, w2, enginetest.Lines{})
	must(t, err)
}

// What ends a connection for good, and what does not.
func TestRecoveryWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := &enginetest.Handler{}
		e := start(t, handled(handler, "*"))
		h := e.Hub("chat")
		there := func(c *client) bool {
			ok, err := h.ConnExists(t.Context(), c.ID())
			must(t, err)
			return ok
		}
		late := durable(t, h, open{user: "late"})
		late.lose()
		time.Sleep(29 * time.Second) // virtual
		if !there(late) {
			t.Error("it did not wait for its client")
		}
		time.Sleep(2 * time.Second)
		if there(late) {
			t.Error("it waits for ever")
		}
		_, err := late.tryRecover(h, &engine.RecoverRequest{ConnID: late.ID(), Token: late.token()}, &enginetest.Wire{}, enginetest.Lines{})
		wantCode(t, err, engine.CodeNotFound)
		calls, err := handler.Await(t.Context(), 3)
		must(t, err)
		if want := "disconnected 2 late The client did not come back within 30s after its connection was lost."; calls[2] != want {
			t.Errorf("got %q, want %q", calls[2], want)
		}

		// A goodbye with another code than 1000 is answered, and no end.
		away := durable(t, h, open{user: "away"})
		away.Gone(engine.FirstWire, 4000, "back soon")
		away.awaitClosed()
		if got := away.lines(1); got[0] != "close 4000" || !there(away) {
			t.Errorf("it got %q, and is there: %t", got, there(away))
		}
		away = away.recover(&enginetest.Wire{}, enginetest.Lines{})
		time.Sleep(time.Minute)
		if !there(away) {
			t.Error("the wait for a wire went on beside the wire")
		}
		// A goodbye without any code is an end, as one with 1000 is.
		gone := durable(t, h, open{})
		gone.Gone(engine.FirstWire, engine.CloseNoStatus, "")
		gone.awaitClosed()
		if got := gone.lines(1); got[0] != "close 1005" || there(gone) {
			t.Errorf("it got %q, and is there: %t", got, there(gone))
		}
		// A connection that a server closes while it has no wire is gone at once.
		away.lose()
		must(t, h.CloseConn(t.Context(), away.ID(), ""))
		if there(away) {
			t.Error("it outlived its end")
		}
		// The window may be changed.
		short := durable(t, h, open{})
		short.SetRecovery(time.Second)
		short.lose()
		time.Sleep(2 * time.Second)
		if there(short) {
			t.Error("it waited longer than it was told to")
		}
		none := durable(t, h, open{})
		none.SetRecovery(0)
		none.lose()
		synctest.Wait()
		if there(none) {
			t.Error("it waited without recovery")
		}
		must(t, e.Close())
	})
}

// A client that does not acknowledge is ended for good at its bounds, with a wire
// and without one.
func TestUnacknowledgedIsBounded(t *testing.T) {
	for name, away := range map[string]bool{"with a wire": false, "without a wire": true} {
		t.Run(name, func(t *testing.T) {
			h := start(t, &engine.Options{Limits: engine.Limits{OutboundMessages: 50}}).Hub("chat")
			c := durable(t, h, open{groups: []engine.GroupName{"g"}})
			if away {
				c.lose()
				c.awaitClosed()
			}
			for i := range 50 {
				must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
			}
			if !away {
				c.lines(50)
			}
			if ok, _ := h.ConnExists(t.Context(), c.ID()); !ok {
				t.Fatal("it ended within its bounds")
			}
			must(t, h.SendToGroup(t.Context(), "g", text("one more"), nil))
			eventually(t, func() bool {
				ok, err := h.ConnExists(t.Context(), c.ID())
				return err == nil && !ok
			})
			_, err := h.Recover(t.Context(), &engine.RecoverRequest{ConnID: c.ID(), Token: c.token()})
			wantCode(t, err, engine.CodeNotFound)
		})
	}
}

// What expires while a client has no wire makes room, and uses no number.
func TestExpiryWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, &engine.Options{Limits: engine.Limits{OutboundMessages: 10}})
		h := e.Hub("chat")
		c := durable(t, h, open{groups: []engine.GroupName{"g"}})
		must(t, h.SendToGroup(t.Context(), "g", text("delivered"), &engine.SendOptions{TTL: time.Second}))
		c.expect("#1 text @g delivered")
		c.lose()
		for range 9 {
			must(t, h.SendToGroup(t.Context(), "g", text("short"), &engine.SendOptions{TTL: time.Second}))
		}
		time.Sleep(2 * time.Second) // virtual
		must(t, h.SendToGroup(t.Context(), "g", text("long"), nil))
		must(t, h.SendToGroup(t.Context(), "g", text("longer"), nil))
		c = c.recover(&enginetest.Wire{}, enginetest.Lines{})
		c.expect("#1! text @g delivered", "#2 text @g long", "#3 text @g longer")
		must(t, e.Close())
	})
}

// A newer wire ends an older one that lives on, whose later words count for nothing.
func TestNewestWireWins(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := durable(t, h, open{groups: []engine.GroupName{"g"}})
	must(t, h.SendToGroup(t.Context(), "g", text("1"), nil))
	c.expect("#1 text @g 1")
	newer := c.recover(&enginetest.Wire{}, enginetest.Lines{})
	c.awaitClosed()
	c.Gone(engine.FirstWire, engine.CloseNormal, "")
	c.Gone(engine.FirstWire, engine.CloseAbnormal, "")
	c.EndOn(engine.FirstWire, engine.EndProtocol, engine.CloseInvalidData, "", "")
	must(t, h.SendToGroup(t.Context(), "g", text("2"), nil))
	newer.expect("#1! text @g 1", "#2 text @g 2")
	newer.Gone(newer.WireID(), engine.CloseNormal, "")
	newer.awaitClosed()
	if ok, _ := h.ConnExists(t.Context(), c.ID()); ok {
		t.Error("a goodbye did not end it")
	}
}

// countedBodies counts the bodies that are encoded; prefixes are each connection's.
type countedBodies struct {
	enginetest.Lines
	n *atomic.Int64
}

func (c countedBodies) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	if m.Kind == engine.KindData {
		c.n.Add(1)
	}
	return c.Lines.AppendBody(dst, m)
}

// Numbered connections share what they get but for its number: it is encoded once.
func TestNumberedConnectionsShareBodies(t *testing.T) {
	h := start(t, &engine.Options{Shards: 1}).Hub("chat")
	enc := countedBodies{enginetest.Lines{Numbered: true}, &atomic.Int64{}}
	var members []*client
	for i := range 50 {
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"g"}}})
		must(t, err)
		w := &enginetest.Wire{}
		conn, err := a.Open(w, &engine.OpenOptions{Encoding: enc, Numbered: true, Recovery: time.Minute, Bind: w.Bind})
		must(t, err)
		members = append(members, &client{Conn: conn, Wire: w, t: t})
		for range i { // so that all are at another number
			must(t, h.SendToConn(t.Context(), conn.ID(), text("x"), nil))
		}
		members[i].lines(i)
	}
	before := enc.n.Load()
	must(t, h.SendToGroup(t.Context(), "g", text("hello"), nil))
	for i, c := range members {
		if got, want := c.lines(i + 1)[i], fmt.Sprintf("#%d text @g hello", i+1); got != want {
			t.Errorf("member %d got %q, want %q", i, got, want)
		}
	}
	if n := enc.n.Load() - before; n != 1 {
		t.Errorf("the message was encoded %d times for 50 members", n)
	}
}

// The next wire may have another framing: then nothing is shared with those that
// it was in step with before.
func TestRecoveryInAnotherEncoding(t *testing.T) {
	h := start(t, nil).Hub("chat")
	roles := []string{engine.RoleSendToGroup, engine.RoleJoinLeaveGroup, engine.RoleGetGroupState, engine.RoleSetGroupState}
	groups := []engine.GroupName{"g"}
	for i := range 20 {
		groups = append(groups, engine.GroupName(fmt.Sprint("more", i)))
	}
	c, other := durable(t, h, open{user: "ann", roles: roles, groups: groups}), durable(t, h, open{user: "ann", groups: groups})
	must(t, c.WatchGroupState(t.Context(), "g"))
	for range 2 {
		c = c.recover(&enginetest.Wire{}, enginetest.Lines{Loud: true})
	}
	must(t, h.SendToGroup(t.Context(), "g", text("1"), nil))
	must(t, h.SendToGroup(t.Context(), "more19", text("2"), nil))
	must(t, h.SendToUser(t.Context(), "ann", text("3"), nil))
	must(t, h.SendToAll(t.Context(), text("4"), nil))
	must(t, c.SetGroupState(t.Context(), "g", map[string]string{"k": "v"}))
	got := c.lines(6)
	want := []string{
		"#1! snapshot @g!", "#2 text @g 1!", "#3 text @more19 2!", "#4 text 3!", "#5 text 4!",
		"#6 update @g " + string(c.ID()) + ":k=v,!",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	other.expect("#1 text @g 1", "#2 text @more19 2", "#3 text 3", "#4 text 4")
}

// Whatever part of a message a lost wire had taken, the whole of it comes again.
func TestRecoveryAfterPartialWrites(t *testing.T) {
	h := start(t, nil).Hub("chat")
	for room := range 40 {
		w := &enginetest.Wire{}
		c := durable(t, h, open{groups: []engine.GroupName{"g"}, wire: w})
		c.lines(0)
		w.Limit(room)
		for i := range 3 {
			must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
		}
		if room%2 == 0 {
			c.lose()
		} else {
			w.Break()
			w.Limit(-1)
			must(t, h.SendToConn(t.Context(), c.ID(), text("3"), nil))
		}
		c.awaitClosed()
		if room%2 == 0 {
			must(t, h.SendToConn(t.Context(), c.ID(), text("3"), nil))
		}
		c = c.recover(&enginetest.Wire{}, enginetest.Lines{})
		for i, line := range c.lines(4) {
			got := strings.Replace(line, "!", "", 1)
			want := fmt.Sprintf("#%d text @g %d", i+1, i)
			if i == 3 {
				want = "#4 text 3"
			}
			if got != want {
				t.Fatalf("with room for %d bytes, message %d is %q", room, i, line)
			}
		}
		must(t, h.CloseConn(t.Context(), c.ID(), ""))
	}
}

// One of a protocol that acknowledges single deliveries, with a window, gets
// back what is not acknowledged, and no more at a time than its window allows.
func TestSingleAcknowledgements(t *testing.T) {
	h := start(t, nil).Hub("chat")
	counted := func(m *engine.Message, _ any) bool { return m.Attributes == nil }
	c := durable(t, h, open{groups: []engine.GroupName{"g"}, window: 3, counted: counted})
	for i := range 5 {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
	}
	must(t, h.SendToGroup(t.Context(), "g", text("free"), &engine.SendOptions{Attributes: "free"}))
	c.expect("#1 text @g 0", "#2 text @g 1", "#3 text @g 2", "text @g [free] free")
	c.AckOne(func(n engine.SequenceID) bool { return n == 2 })
	c.Acknowledge(1)
	c.expect("#1 text @g 0", "#2 text @g 1", "#3 text @g 2", "text @g [free] free", "#4 text @g 3")
	c.AckOne(func(n engine.SequenceID) bool { return n == 77 })
	c.lose()
	c.awaitClosed()
	r, err := h.Recover(t.Context(), &engine.RecoverRequest{ConnID: c.ID(), Token: c.token()})
	must(t, err)
	w := &enginetest.Wire{}
	conn, err := r.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{Numbered: true}, Bind: w.Bind, Window: 2})
	must(t, err)
	c = &client{Conn: conn, Wire: w, t: t}
	c.expect("#1! text @g 0", "#3! text @g 2")
	c.AckOne(func(n engine.SequenceID) bool { return n == 1 })
	c.AckOne(func(n engine.SequenceID) bool { return n == 3 })
	c.Acknowledge(2)
	c.expect("#1! text @g 0", "#3! text @g 2", "#4! text @g 3", "#5 text @g 4")
}

// What is published in the very turn in which a client comes back, in another encoding,
// is encoded in that one.
func TestRecoveryInTheTurnOfAMessage(t *testing.T) {
	e := start(t, &engine.Options{Shards: 1})
	h := e.Hub("chat")
	g := &gate{make(chan struct{}, 1), make(chan struct{})}
	held := &enginetest.Wire{}
	openWith(t, h, g, held, held.Bind, &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"gate"}}})
	for _, lost := range []bool{true, false} {
		g.open = make(chan struct{})
		c := durable(t, h, open{groups: []engine.GroupName{"g"}})
		if lost {
			c.lose()
			c.awaitClosed()
		}
		must(t, h.SendToGroup(t.Context(), "gate", text("x"), nil))
		<-g.entered // and while the shard is held:
		must(t, h.SendToGroup(t.Context(), "g", text("hi"), nil))
		c = c.recover(&enginetest.Wire{}, enginetest.Lines{Loud: true})
		must(t, h.SendToGroup(t.Context(), "g", text("there"), nil))
		close(g.open)
		c.expect("#1 text @g hi!", "#2 text @g there!")
		c.Gone(c.WireID(), engine.CloseNormal, "")
		c.awaitClosed()
	}
}

// A last message may be due before the logical connection ends.
func TestLastMessageWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, nil)
		h := e.Hub("chat")
		bo := connect(t, h, open{groups: []engine.GroupName{"g"}})
		will := func(s string) *engine.Request {
			return &engine.Request{Op: engine.OpSend, Group: "g", Payload: text(s)}
		}
		at := durable(t, h, open{roles: anything})
		at.SetLast(will("at once"), 0)
		soon := durable(t, h, open{roles: anything})
		soon.SetLast(will("soon"), 5*time.Second)
		end := durable(t, h, open{roles: anything})
		end.SetLast(will("at the end"), -1)
		back := durable(t, h, open{roles: anything})
		back.SetLast(will("never"), 5*time.Second)
		for _, c := range []*client{at, soon, end, back} {
			c.lose()
		}
		back.recover(&enginetest.Wire{}, enginetest.Lines{})
		synctest.Wait()
		bo.expect("text @g at once")
		other := durable(t, h, open{roles: anything})
		other.SetLast(will("never, either"), -1)
		r, err := h.Recover(t.Context(), &engine.RecoverRequest{ConnID: other.ID(), Token: other.token()})
		must(t, err)
		w := &enginetest.Wire{}
		_, err = r.Open(w, &engine.OpenOptions{
			Encoding: enginetest.Lines{Numbered: true}, Bind: w.Bind,
			Last: &engine.LastMessage{Request: will("of the second wire"), Away: -1},
		})
		must(t, err)
		must(t, h.CloseConn(t.Context(), other.ID(), ""))
		time.Sleep(6 * time.Second) // virtual
		bo.expect("text @g at once", "text @g of the second wire", "text @g soon")
		time.Sleep(30 * time.Second)
		bo.expect("text @g at once", "text @g of the second wire", "text @g soon", "text @g at the end")
		must(t, e.Close())
	})
}

// A wire that another one replaces is lost, even if the connection never was without
// one: a last message that waits for no more is published, once, and not that of the
// new wire.
func TestLastMessageOfAReplacedWire(t *testing.T) {
	for _, tc := range []struct {
		name string
		away time.Duration
		lost bool // the old wire is lost in the turn in which the new one comes
		last bool // the new wire brings a message of its own
		want string
	}{
		{"at once", 0, false, true, "old back new end"},
		{"at once, and lost", 0, true, true, "old back new end"},
		{"at once, and none of its own", 0, false, false, "old back end"},
		{"at once, lost, and none of its own", 0, true, false, "old back end"},
		{"later", time.Second, false, true, "back new end"},
		{"later, and lost", time.Second, true, true, "back new end"},
		{"later, and kept", time.Second, false, false, "back old end"},
		{"at the end", -1, false, true, "back new end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := start(t, &engine.Options{Shards: 1})
			h := e.Hub("chat")
			bo := connect(t, h, open{groups: []engine.GroupName{"g"}})
			g := &gate{make(chan struct{}, 1), make(chan struct{})}
			held := &enginetest.Wire{}
			openWith(t, h, g, held, held.Bind, &engine.AdmitRequest{Identity: engine.Identity{Groups: []engine.GroupName{"gate"}}})
			will := func(s string) *engine.Request {
				return &engine.Request{Op: engine.OpSend, Group: "g", Payload: text(s)}
			}
			c := durable(t, h, open{roles: anything})
			c.SetLast(will("old"), tc.away)
			must(t, h.SendToGroup(t.Context(), "gate", text("x"), nil))
			<-g.entered // and while the shard is held:
			if tc.lost {
				c.lose()
			}
			r, err := h.Recover(t.Context(), &engine.RecoverRequest{ConnID: c.ID(), Token: c.token()})
			must(t, err)
			w := &enginetest.Wire{}
			o := &engine.OpenOptions{Encoding: enginetest.Lines{Numbered: true}, Bind: w.Bind}
			if tc.last {
				o.Last = &engine.LastMessage{Request: will("new")}
			}
			conn, err := r.Open(w, o)
			must(t, err)
			close(g.open)
			c = &client{Conn: conn, Wire: w, t: t}
			c.lines(0)
			must(t, h.SendToGroup(t.Context(), "g", text("back"), nil))
			must(t, h.CloseConn(t.Context(), c.ID(), ""))
			must(t, h.SendToGroup(t.Context(), "g", text("end"), nil))
			var want []string
			for _, s := range strings.Fields(tc.want) {
				want = append(want, "text @g "+s)
			}
			bo.expect(want...)
		})
	}
}

// A wire without pings of its own is ended when it is silent for too long.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, nil)
		h := e.Hub("chat")
		c := connect(t, h, open{silence: 10 * time.Second})
		for range 10 {
			time.Sleep(9 * time.Second) // virtual
			c.Heard()
		}
		if ok, _ := h.ConnExists(t.Context(), c.ID()); !ok {
			t.Error("it was heard of, and ended")
		}
		time.Sleep(9 * time.Second)
		if ok, _ := h.ConnExists(t.Context(), c.ID()); !ok {
			t.Error("it was ended too early")
		}
		time.Sleep(3 * time.Second)
		if ok, _ := h.ConnExists(t.Context(), c.ID()); ok {
			t.Error("it was not heard of, and goes on")
		}
		must(t, e.Close())
	})
}

// Connections that lose their wires at any moment, in any way, get every message
// once and in order.
func TestRecoveryUnderFire(t *testing.T) {
	const conns, messages = 8, 2000
	e := start(t, nil)
	h := e.Hub("chat")
	var fleet []*reader
	for i := range conns {
		r := &reader{t: t, random: rand.New(rand.NewPCG(1, uint64(i)))}
		r.begin(h)
		fleet = append(fleet, r)
	}
	var wg sync.WaitGroup
	for _, r := range fleet {
		wg.Go(func() { r.run(messages) })
	}
	for i := range messages {
		must(t, h.SendToGroup(t.Context(), "g", text(fmt.Sprint(i)), nil))
		if i%16 == 0 { // no faster than the slowest reader, whose bounds are not the subject
			for _, r := range fleet {
				r.await(t.Context(), i-200)
			}
		}
	}
	wg.Wait()
	for i, r := range fleet {
		if r.recoveries == 0 {
			t.Errorf("connection %d never lost its wire", i)
		}
		must(t, h.CloseConn(t.Context(), r.c.ID(), ""))
	}
}

// reader is a client that checks what it gets and is careless with its wires.
type reader struct {
	t          *testing.T
	random     *rand.Rand
	c          *client
	recoveries int

	mu      sync.Mutex
	changed sync.Cond
	got     int // messages
}

func (r *reader) begin(h *engine.Hub) {
	r.changed.L = &r.mu
	r.c = durable(r.t, h, open{groups: []engine.GroupName{"g"}})
}

// await returns once the reader has n messages.
func (r *reader) await(ctx context.Context, n int) {
	stop := context.AfterFunc(ctx, r.changed.Broadcast)
	defer stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.got < n && ctx.Err() == nil {
		r.changed.Wait()
	}
}

func (r *reader) run(messages int) {
	for r.got < messages {
		// It reads some lines, and then something happens to its wire.
		enough := 1 + r.random.IntN(200)
		var lines []string
		ctx, cancel := context.WithTimeout(r.t.Context(), patience)
		err := r.c.Await(ctx, func(got []byte, closed bool) bool {
			lines, _ = enginetest.SplitLines(got)
			return closed || len(lines) >= enough || r.got+len(lines) >= messages
		})
		cancel()
		if err != nil {
			r.t.Errorf("%v: %d messages", err, r.got)
			return
		}
		r.read(lines)
		switch r.random.IntN(4) {
		case 0:
			r.c.lose()
		case 1:
			r.c.Break()
		case 2:
			r.c.Limit(r.random.IntN(100))
			r.c.Limit(0)
		case 3: // the older wire lives on
		}
		w := &enginetest.Wire{}
		if r.random.IntN(2) == 0 {
			w.Limit(r.random.IntN(500))
		}
		r.c = r.c.recover(w, enginetest.Lines{Loud: r.random.IntN(2) == 0})
		w.Limit(-1)
		r.recoveries++
	}
}

// read takes lines of one wire, the first being its hello.
func (r *reader) read(lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range lines[1:] {
		var seq, n int
		if _, err := fmt.Sscanf(strings.Replace(line, "!", "", 1), "#%d text @g %d", &seq, &n); err != nil {
			r.t.Errorf("%q: %v", line, err)
			return
		}
		switch {
		case seq != n+1:
			r.t.Errorf("%q has another number", line)
		case seq == r.got+1:
			r.got++
		case seq > r.got:
			r.t.Errorf("%q came after %d messages", line, r.got)
			r.got = seq
		}
	}
	if r.random.IntN(3) > 0 {
		r.c.AckUpTo(engine.SequenceID(r.got))
	}
	r.changed.Broadcast()
}

// A protocol may ask the connect handler about each wire, and take the answer back
// where it finds the connection that the client wants.
func TestAdmissionRecovers(t *testing.T) {
	handler := &enginetest.Handler{}
	e := start(t, handled(handler, "*"))
	h := e.Hub("chat")
	admit := func(user engine.UserID, sub string) *engine.Admission {
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{
			ConnID: "x", TakeOver: true, Subprotocol: sub, Identity: engine.Identity{UserID: user},
		})
		must(t, err)
		return a
	}
	open := func(a *engine.Admission) (*engine.Conn, *enginetest.Wire) {
		w := &enginetest.Wire{}
		c, err := a.Open(w, &engine.OpenOptions{
			Encoding: enginetest.Lines{Numbered: true}, Numbered: true, Recovery: time.Minute, Subprotocol: "toy", Bind: w.Bind,
		})
		must(t, err)
		return c, w
	}
	c, old := open(admit("ann", "toy"))
	before := &client{Conn: c, Wire: old, t: t}
	before.lines(0) // its hello is out
	for _, who := range []struct {
		user engine.UserID
		sub  string
	}{{"eve", "toy"}, {"ann", "other"}} {
		a := admit(who.user, who.sub)
		_, err := a.Recover(t.Context())
		wantCode(t, err, engine.CodeForbidden)
		a.Abandon("not theirs")
	}
	r, err := admit("ann", "toy").Recover(t.Context())
	must(t, err)
	w := &enginetest.Wire{}
	again, err := r.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{Numbered: true}, Bind: w.Bind})
	must(t, err)
	if again != c {
		t.Error("another connection was recovered")
	}
	before.expect("close 1001")
	before.awaitClosed()
	again.End(engine.EndServer, engine.CloseNormal, "", "")
	a := admit("ann", "toy")
	_, err = a.Recover(t.Context())
	wantCode(t, err, engine.CodeNotFound)
	last, _ := open(a) // which the failure left as it was
	last.Abort(engine.EndServer, "enough")
	calls, err := handler.Await(t.Context(), 11)
	must(t, err)
	ends := 0
	for _, call := range calls {
		if strings.HasPrefix(call, "disconnected") {
			ends++
		}
	}
	if len(calls) != 11 || ends != 4 { // the two that were abandoned, and the two that were open
		t.Errorf("%d calls, %d of them of an end: %q", len(calls), ends, calls)
	}
}
