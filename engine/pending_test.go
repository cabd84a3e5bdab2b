package engine_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *lockedBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func wantRule(t *testing.T, err error, code engine.Code, rule, bound string) {
	t.Helper()
	var e *engine.Error
	if !errors.As(err, &e) || e.Code != code || e.Rule != rule || !strings.Contains(e.Message, rule) || !strings.Contains(e.Message, bound) {
		t.Errorf("got %v; want %v by %s, which names itself and %s", err, code, rule, bound)
	}
}

// admit asks for a client of an address, and gives it up at once if it gets in.
func admit(t *testing.T, h *engine.Hub, user engine.UserID, addr string) error {
	t.Helper()
	r := &engine.AdmitRequest{Identity: engine.Identity{UserID: user}}
	if addr != "" {
		r.RemoteAddr = netip.MustParseAddr(addr)
	}
	a, err := h.Admit(t.Context(), r)
	if err == nil {
		a.Abandon("it was only asked for")
	}
	return err
}

// connectFrom opens a connection of a client without a user.
func connectFrom(t *testing.T, h *engine.Hub, addr string) *engine.Conn {
	t.Helper()
	a, err := h.Admit(t.Context(), &engine.AdmitRequest{RemoteAddr: netip.MustParseAddr(addr)})
	must(t, err)
	c, err := a.Open(idle{}, &engine.OpenOptions{})
	must(t, err)
	return c
}

// From half of a bound on, of whatever scope, a connection has one event at a time, and
// goes on when that is done.
func TestReadingPausesWhereBytesOfEventsAreShort(t *testing.T) {
	const size = 100_000
	for name, tc := range map[string]struct {
		limits engine.Limits
		same   bool // both connections are of one user
		hub    engine.HubName
		reads  int // events of the first that are taken before it is to pause
		second bool
	}{
		"connection": {engine.Limits{PendingEventBytes: 8 * size}, true, "chat", 4, true},
		"user":       {engine.Limits{PendingEventBytesPerUser: 4 * size}, true, "chat", 2, false},
		"other user": {engine.Limits{PendingEventBytesPerUser: 4 * size}, false, "chat", 2, true},
		"hub":        {engine.Limits{PendingEventBytesPerHub: 4 * size, PendingEventBytesPerUser: 100 * size}, false, "chat", 2, false},
		"other hub":  {engine.Limits{PendingEventBytesPerHub: 4 * size, PendingEventBytesPerUser: 100 * size}, false, "news", 2, true},
		"node":       {engine.Limits{TotalPendingEventBytes: 4 * size, PendingEventBytesPerHub: 100 * size, PendingEventBytesPerUser: 100 * size}, false, "news", 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHanging()
				o := handled(h, "*")
				o.Limits = tc.limits
				e := start(t, o)
				resumed := 0
				a := connect(t, e.Hub("chat"), open{user: "ann", resume: func() { resumed++ }})
				other := engine.UserID("bo")
				if tc.same {
					other = "ann"
				}
				b := connect(t, e.Hub(tc.hub), open{user: other, resume: func() { resumed += 10 }})
				n := 1
				for raise(a.Conn, "e", size, ignored) {
					if n++; n > 100 {
						t.Fatal("reading never pauses")
					}
				}
				if n != tc.reads {
					t.Errorf("reading pauses after %d events, want %d", n, tc.reads)
				}
				if more := raise(b.Conn, "f", 1, ignored); more != tc.second {
					t.Errorf("the second connection is read: %t", more)
				}
				for range n + 1 {
					h.answer <- nil
					synctest.Wait()
				}
				want := 1
				if !tc.second {
					want = 11
				}
				if resumed != want {
					t.Errorf("resumed is %d, want %d", resumed, want)
				}
				if !raise(a.Conn, "e", 1, ignored) {
					t.Error("reading pauses though nothing waits")
				}
				h.answer <- nil
			})
		})
	}
}

// However many connections there are, their events hold no more than the bounds: what
// is too much is refused with the rule and its bound.
func TestEventsOverTheBoundsAreRefused(t *testing.T) {
	const size = 100_000
	for rule, tc := range map[string]struct {
		limits engine.Limits
		most   int64
	}{
		"limits.pendingEventBytesPerUser": {engine.Limits{PendingEventBytesPerUser: 10 * size, TotalPendingEventBytes: 1 << 40}, 10 * size},
		"limits.pendingEventBytesPerHub":  {engine.Limits{PendingEventBytesPerHub: 10 * size, PendingEventBytesPerUser: 1 << 40, TotalPendingEventBytes: 1 << 40}, 10 * size},
		"limits.totalPendingEventBytes":   {engine.Limits{TotalPendingEventBytes: 10 * size, PendingEventBytesPerHub: 1 << 40, PendingEventBytesPerUser: 1 << 40}, 10 * size},
	} {
		t.Run(rule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHanging()
				o := handled(h, "*")
				o.Limits = tc.limits
				e := start(t, o)
				var clients []*client
				for range 40 {
					clients = append(clients, connect(t, e.Hub("chat"), open{user: "ann"}))
				}
				var refused []error // while they are asked for; later ones take too long
				for _, c := range clients {
					raise(c.Conn, "e", size, func(err error) {
						if err != nil && engine.CodeOf(err) == engine.CodeUnavailable {
							refused = append(refused, err)
						}
					})
				}
				synctest.Wait()
				st := e.Stats()
				if st.PendingEventBytes < tc.most || st.PendingEventBytes > tc.most+2*size {
					t.Errorf("%d bytes are pending, where %d may be", st.PendingEventBytes, tc.most)
				}
				if len(refused) < 29 || int64(len(refused)) != st.RequestsRefused {
					t.Errorf("%d of 40 events were refused, %d counted", len(refused), st.RequestsRefused)
				}
				wantRule(t, refused[0], engine.CodeUnavailable, rule, fmt.Sprint(tc.most))
				// A newcomer is refused likewise; other users only if it is not the user's bound.
				wantRule(t, admit(t, e.Hub("chat"), "ann", ""), engine.CodeUnavailable, rule, fmt.Sprint(tc.most))
				if err := admit(t, e.Hub("chat"), "bo", ""); (err == nil) != strings.HasSuffix(rule, "PerUser") {
					t.Errorf("another user: %v", err)
				}
				if err := admit(t, e.Hub("news"), "bo", ""); (err == nil) == strings.HasPrefix(rule, "limits.total") {
					t.Errorf("another hub: %v", err)
				}
				time.Sleep(101 * time.Second)
				synctest.Wait()
				if err := admit(t, e.Hub("chat"), "ann", ""); err != nil {
					t.Errorf("when all is done: %v", err)
				}
			})
		})
	}
}

// Clients without a user count by their network, and those of which nothing is known in
// their hub alone.
func TestClientsWithoutAUserCountByTheirNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100_000
		h := newHanging()
		o := handled(h, "*")
		o.Limits.PendingEventBytesPerUser = 2 * size
		e := start(t, o)
		hub := e.Hub("chat")
		raise(connectFrom(t, hub, "192.0.2.1"), "e", 3*size, ignored)
		raise(connectFrom(t, hub, "2001:db8:0:1200::1"), "e", 3*size, ignored)
		raise(connect(t, hub, open{}).Conn, "e", 3*size, ignored)
		synctest.Wait()
		for addr, in := range map[string]bool{
			"192.0.2.200": false, "::ffff:192.0.2.9": false, "192.0.3.1": true,
			"2001:db8:0:12ff::9": false, "2001:db8:0:1300::": true, "": true,
		} {
			if err := admit(t, hub, "", addr); (err == nil) != in {
				t.Errorf("%s: %v", addr, err)
			}
			if err := admit(t, hub, "ann", addr); err != nil {
				t.Errorf("a user at %s: %v", addr, err)
			}
		}
	})
}

// What a client says for its connect event counts while the handler is asked, and the
// user that the handler names counts from then on.
func TestConnectEventsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		hang := newHanging()
		hang.Answer.OnConnect = func(ctx context.Context, e *engine.ConnectEvent) (*engine.ConnectReply, error) {
			<-gate
			user := engine.UserID("ann")
			return &engine.ConnectReply{UserID: &user}, nil
		}
		o := handled(hang, "*")
		o.Limits.PendingEventBytesPerUser = 150_000
		e := start(t, o)
		big := strings.Repeat("x", 30_000)
		r := &engine.AdmitRequest{
			RemoteAddr: netip.MustParseAddr("192.0.2.1"),
			Header:     map[string][]string{"A": {big}}, Query: map[string][]string{"b": {big}},
			PeerCertificates: []*x509.Certificate{{Raw: []byte(big)}},
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			a, err := e.Hub("chat").Admit(t.Context(), r)
			if err != nil {
				t.Error(err)
				return
			}
			a.Abandon("")
		})
		synctest.Wait()
		if n := e.Stats().PendingEventBytes; n < 90_000 {
			t.Errorf("%d bytes are pending", n)
		}
		wantRule(t, admit(t, e.Hub("chat"), "", "192.0.2.2"), engine.CodeUnavailable, "limits.pendingEventBytesPerUser", "150000")
		close(gate)
		wg.Wait()
		synctest.Wait()
		if n := e.Stats().PendingEventBytes; n != 0 {
			t.Errorf("%d bytes are pending after the answer", n)
		}
		// Now ann, as the handler says, has too much.
		c := connectFrom(t, e.Hub("chat"), "192.0.2.3")
		raise(c, "e", 200_000, ignored)
		wantRule(t, admit(t, e.Hub("chat"), "", "192.0.2.2"), engine.CodeUnavailable, "limits.pendingEventBytesPerUser", "150000")
	})
}

// Clients that come and go while the handler of disconnected hangs are refused, once
// what waits for it is at the bound.
func TestQueuedNotificationsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		handler := &engine.HandlerFuncs{OnDisconnected: func(context.Context, *engine.DisconnectedEvent) { <-hold }}
		e := start(t, &engine.Options{
			Limits: engine.Limits{PendingEvents: 2, PendingEventBytesPerUser: 100_000},
			Hubs: func(engine.HubName) *engine.HubOptions {
				return &engine.HubOptions{Handlers: []engine.HandlerRule{{SystemEvents: []string{"disconnected"}, Handler: handler}}}
			},
		})
		n := 0
		var err error
		for ; n < 1000; n++ {
			var c *client
			if c, err = tryConnect(t, e.Hub("chat"), open{user: "ann"}); err != nil {
				break
			}
			c.bye()
			synctest.Wait()
		}
		wantRule(t, err, engine.CodeUnavailable, "limits.pendingEventBytesPerUser", "100000")
		if n < 20 || n > 100 {
			t.Errorf("%d clients came and went", n)
		}
		close(hold)
		synctest.Wait()
		connect(t, e.Hub("chat"), open{user: "ann"})
	})
}

// Requests that wait behind an event count, too: they are held by it.
func TestRequestsBehindAnEventAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHanging()
		o := handled(h, "*")
		o.Limits.PendingEventBytes = 800_000
		e := start(t, o)
		c := connect(t, e.Hub("chat"), open{user: "ann", roles: anything})
		raise(c.Conn, "e", 1, ignored)
		n := 1
		for c.Do(&engine.Request{Op: engine.OpSend, Group: "g", Payload: engine.Payload{Data: make([]byte, 100_000)}}, ignored) {
			n++
		}
		if n != 4 || e.Stats().PendingEventBytes < 400_000 {
			t.Errorf("reading pauses after %d messages with %d bytes pending", n, e.Stats().PendingEventBytes)
		}
		h.answer <- nil
		synctest.Wait()
		if got := e.Stats().PendingEventBytes; got != 0 {
			t.Errorf("%d bytes are left", got)
		}
	})
}

// Publishing without an event before it is counted nowhere.
func TestPublishingIsNotCounted(t *testing.T) {
	hub := start(t, &engine.Options{Limits: engine.Limits{TotalPendingEventBytes: 1}}).Hub("chat")
	c := connect(t, hub, open{roles: anything, groups: []engine.GroupName{"g"}})
	for range 3 {
		must(t, c.SendToGroup(t.Context(), "g", text("x"), false))
	}
	c.expect("text @g x", "text @g x", "text @g x")
}
