package engine_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// An idle connection owns no goroutine.
func TestIdleConnectionsOwnNoGoroutine(t *testing.T) {
	h := start(t, nil).Hub("chat")
	connect(t, h, open{}).lines(0)
	before := runtime.NumGoroutine()
	var last *client
	for range 1000 {
		last = connect(t, h, open{groups: []engine.GroupName{"g"}, user: "u", pings: true})
	}
	last.lines(0)
	goroutines(t, before) // the clock's own may still be at work
}

// Close leaves nothing running.
func TestCloseLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	e, err := engine.New(handled(&enginetest.Handler{}, "*"))
	must(t, err)
	for range 20 {
		connect(t, e.Hub("chat"), open{pings: true, groups: []engine.GroupName{"g"}})
	}
	must(t, e.Close())
	must(t, e.Close())
	goroutines(t, before)
	if _, err := tryConnect(t, e.Hub("chat"), open{}); engine.CodeOf(err) != engine.CodeUnavailable {
		t.Errorf("a closed engine admits: %v", err)
	}
}

// A connection that is not heard of for two intervals is ended; one that
// answers is not.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := &enginetest.Handler{}
		h := start(t, handled(handler, "")).Hub("chat")
		silent := connect(t, h, open{user: "silent", pings: true})
		alive := connect(t, h, open{user: "alive", pings: true})
		began := time.Now()
		for !silent.Closed() {
			time.Sleep(time.Second)
			alive.Heard()
			if time.Since(began) > 5*time.Minute {
				t.Fatal("it was never ended")
			}
		}
		// One interval clears the sign of life of the handshake, two are silent.
		if took := time.Since(began); took < 60*time.Second || took > 65*time.Second {
			t.Errorf("ended after %v", took)
		}
		if alive.Closed() {
			t.Error("the client that was heard of is ended too")
		}
		synctest.Wait()
		calls := handler.Calls()
		if !slices.Contains(calls, "disconnected 2 silent The client did not answer pings.") {
			t.Errorf("the calls are %q", calls)
		}
		h2 := start(t, nil) // two engines in one bubble end both
		h2.Close()
	})
}

// A polite end waits for the far end, but not for ever.
func TestCloseTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, nil).Hub("chat")
		c := connect(t, h, open{wire: &enginetest.Wire{KeepOpen: true}})
		began := time.Now()
		must(t, h.CloseConn(t.Context(), c.ID(), "bye"))
		c.expect("disconnected Application server closed the connection. Reason: bye", "close 1000")
		c.awaitClosed()
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// A slow handler delays its own connection's next event, never the caller of Do,
// and a full lane asks the door to pause.
func TestLane(t *testing.T) {
	release := make(chan struct{})
	handler := &enginetest.Handler{Answer: engine.HandlerFuncs{
		OnUserEvent: func(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, nil
		},
	}}
	o := handled(handler, "*")
	o.Limits = engine.Limits{PendingEvents: 10}
	h := start(t, o).Hub("chat")
	resumed := make(chan struct{}, 1)
	c := connect(t, h, open{user: "ann", roles: anything, resume: func() { resumed <- struct{}{} }})
	done := make(chan int, 100)
	paused := -1
	for i := range 11 {
		if !c.Do(&engine.Request{Op: engine.OpEvent, Event: "e", Payload: text(fmt.Sprint(i))}, func(err error) {
			if err != nil {
				t.Error(err)
			}
			done <- i
		}) {
			paused = i
			break
		}
	}
	if paused != 10 { // one under way and ten waiting
		t.Fatalf("the lane was full at request %d", paused)
	}
	// Another connection is not delayed, nor is what bypasses the lane.
	other := connect(t, h, open{roles: anything})
	must(t, other.JoinGroup(t.Context(), "g"))
	c.Post(&engine.Message{Kind: engine.KindAck, AckID: 7})
	c.expect("ack 7")
	close(release)
	<-resumed
	for i := range 11 {
		if got := <-done; got != i {
			t.Fatalf("request %d was done before %d", got, i)
		}
	}
}

// A repeated ack id is answered before permissions are looked at; only success
// uses an id up.
func TestDuplicateAckIDs(t *testing.T) {
	h := start(t, nil).Hub("chat")
	c := connect(t, h, open{roles: []string{engine.RoleJoinLeaveGroup + ".g"}})
	do := func(op engine.Op, g engine.GroupName, id engine.AckID) error {
		done := make(chan error, 1)
		c.Do(&engine.Request{Op: op, Group: g, AckID: id, HasAck: true}, func(err error) { done <- err })
		return <-done
	}
	must(t, do(engine.OpJoin, "g", 7))
	wantCode(t, do(engine.OpLeave, "g", 7), engine.CodeDuplicate)
	wantCode(t, do(engine.OpSend, "g", 7), engine.CodeDuplicate)
	if ok, _ := h.GroupExists(t.Context(), "g"); !ok {
		t.Error("the duplicate was carried out")
	}
	wantCode(t, do(engine.OpSend, "g", 8), engine.CodeForbidden)
	must(t, h.Grant(t.Context(), c.ID(), engine.SendToGroup, "g"))
	must(t, do(engine.OpSend, "g", 8))
	wantCode(t, do(engine.OpSend, "g", 8), engine.CodeDuplicate)
	must(t, do(engine.OpSend, "g", 0))
	must(t, do(engine.OpSend, "g", 1<<64-1))
	wantCode(t, do(engine.OpSend, "g", 0), engine.CodeDuplicate)
	for id := engine.AckID(10_000); id < 11_000; id++ { // a thousand more push the first out
		must(t, do(engine.OpSend, "g", id))
	}
	must(t, do(engine.OpSend, "g", 8))
	wantCode(t, do(engine.OpSend, "g", 10_999), engine.CodeDuplicate)
}

// The life of an admission, as a handler sees it.
func TestAdmission(t *testing.T) {
	t.Run("open and close", func(t *testing.T) {
		handler := &enginetest.Handler{}
		h := start(t, handled(handler, "*")).Hub("chat")
		c := connect(t, h, open{user: "ann"})
		_, err := handler.Await(t.Context(), 2)
		must(t, err)
		_, err = c.SendEvent(t.Context(), "ping", text("x"))
		must(t, err)
		c.Gone(engine.FirstWire, engine.CloseNormal, "done")
		calls, err := handler.Await(t.Context(), 4)
		must(t, err)
		if want := []string{"connect 0 ann", "connected 1 ann", "ping 2 ann text x", "disconnected 3 ann done"}; !slices.Equal(calls, want) {
			t.Errorf("got %q, want %q", calls, want)
		}
	})
	t.Run("abandoned", func(t *testing.T) {
		handler := &enginetest.Handler{}
		h := start(t, handled(handler, "*")).Hub("chat")
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{UserID: "ann"}})
		must(t, err)
		if ok, _ := h.ConnExists(t.Context(), a.ConnID()); ok {
			t.Error("it is visible before it is open")
		}
		a.Abandon("the upgrade failed")
		a.Abandon("twice")
		calls, err := handler.Await(t.Context(), 2)
		must(t, err)
		if want := []string{"connect 0 ann", "disconnected 1 ann the upgrade failed"}; !slices.Equal(calls, want) {
			t.Errorf("got %q, want %q", calls, want)
		}
	})
	t.Run("refused with the handler's own status", func(t *testing.T) {
		handler := &enginetest.Handler{Answer: engine.HandlerFuncs{
			OnConnect: func(context.Context, *engine.ConnectEvent) (*engine.ConnectReply, error) {
				return nil, &engine.Error{Code: engine.CodeForbidden, Status: 418}
			},
		}}
		h := start(t, handled(handler, "*")).Hub("chat")
		_, err := tryConnect(t, h, open{})
		var e *engine.Error
		if !errors.As(err, &e) || e.Status != 418 {
			t.Errorf("got %v", err)
		}
		if calls := handler.Calls(); len(calls) != 1 {
			t.Errorf("a refused client raised %q", calls)
		}
	})
	t.Run("revoked on the way in", func(t *testing.T) {
		handler := &enginetest.Handler{}
		h := start(t, handled(handler, "*")).Hub("chat")
		a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{
			UserID: "ann", Groups: []engine.GroupName{"lobby"},
			Standing: func(ctx context.Context) error {
				// Whoever revokes it from now on finds the connection.
				if ok, err := h.UserExists(ctx, "ann"); !ok || err != nil {
					t.Errorf("asked before the user can be found: %v, %v", ok, err)
				}
				return engine.Errorf(engine.CodeUnauthenticated, "token.revoked", "It was revoked.")
			},
		}})
		must(t, err)
		w := &enginetest.Wire{}
		c, err := a.Open(w, &engine.OpenOptions{Encoding: enginetest.Lines{}, Bind: w.Bind})
		must(t, err)
		closed := &client{Conn: c, Wire: w, t: t}
		closed.expect("close 1008")
		closed.awaitClosed()
		if ok, _ := h.UserExists(t.Context(), "ann"); ok {
			t.Error("it is still there")
		}
		calls, err := handler.Await(t.Context(), 3)
		must(t, err)
		if !slices.Contains(calls, "disconnected 2 ann It was revoked.") {
			t.Errorf("got %q", calls)
		}
	})
	t.Run("a user that stays", func(t *testing.T) {
		named := engine.UserID("bob")
		handler := &enginetest.Handler{Answer: engine.HandlerFuncs{
			OnConnect: func(context.Context, *engine.ConnectEvent) (*engine.ConnectReply, error) {
				return &engine.ConnectReply{UserID: &named}, nil
			},
		}}
		h := start(t, handled(handler, "*")).Hub("chat")
		stands := func(context.Context) error { return nil }
		for user, code := range map[engine.UserID]engine.Code{"ann": engine.CodeForbidden, "bob": 0} {
			a, err := h.Admit(t.Context(), &engine.AdmitRequest{Identity: engine.Identity{UserID: user, Standing: stands}})
			if code != 0 {
				wantCode(t, err, code)
				continue
			}
			must(t, err)
			a.Abandon("enough")
		}
	})
	t.Run("changed by the reply", func(t *testing.T) {
		none := engine.UserID("")
		handler := &enginetest.Handler{Answer: engine.HandlerFuncs{
			OnConnect: func(context.Context, *engine.ConnectEvent) (*engine.ConnectReply, error) {
				return &engine.ConnectReply{UserID: &none, Roles: []string{}, Groups: []engine.GroupName{}, State: engine.HandlerState("s")}, nil
			},
			OnUserEvent: func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
				p := engine.Payload{Data: e.State}
				return &engine.EventReply{Payload: &p, UpdateState: func(s engine.HandlerState) engine.HandlerState {
					return append(slices.Clone(s), '!')
				}}, nil
			},
		}}
		h := start(t, handled(handler, "*")).Hub("chat")
		c := connect(t, h, open{user: "ann", roles: anything, groups: []engine.GroupName{"g"}})
		if c.UserID() != "" {
			t.Errorf("the user is %q", c.UserID())
		}
		wantCode(t, c.JoinGroup(t.Context(), "x"), engine.CodeForbidden)
		if ok, _ := h.GroupExists(t.Context(), "g"); !ok {
			t.Error("an empty list of groups took the token's groups away")
		}
		for _, want := range []string{"s", "s!", "s!!"} {
			reply, err := c.SendEvent(t.Context(), "e", text(""))
			must(t, err)
			if got := string(reply.Payload.Data); got != want {
				t.Errorf("the state is %q, want %q", got, want)
			}
		}
	})
	t.Run("ids", func(t *testing.T) {
		h := start(t, nil).Hub("chat")
		_, err := tryConnect(t, h, open{id: engine.ConnID(strings.Repeat("x", 129))})
		wantCode(t, err, engine.CodeInvalid)
		first := connect(t, h, open{id: "dev1", user: "ann", sub: "toy"})
		_, err = tryConnect(t, h, open{id: "dev1", user: "ann", sub: "toy"})
		wantCode(t, err, engine.CodeConflict)
		_, err = tryConnect(t, h, open{id: "dev1", user: "bo", sub: "toy", take: true})
		wantCode(t, err, engine.CodeConflict)
		_, err = tryConnect(t, h, open{id: "dev1", user: "ann", sub: "other", take: true})
		wantCode(t, err, engine.CodeConflict)
		second := connect(t, h, open{id: "dev1", user: "ann", sub: "toy", take: true})
		first.awaitClosed()
		must(t, h.SendToConn(t.Context(), "dev1", text("hi"), nil))
		second.expect("text hi")
	})
	t.Run("limit", func(t *testing.T) {
		h := start(t, &engine.Options{Limits: engine.Limits{Connections: 2}}).Hub("chat")
		c := connect(t, h, open{})
		connect(t, h, open{})
		_, err := tryConnect(t, h, open{})
		wantCode(t, err, engine.CodeUnavailable)
		c.Gone(engine.FirstWire, engine.CloseNormal, "")
		c.awaitClosed()
		eventually(t, func() bool { _, err := tryConnect(t, h, open{}); return err == nil })
	})
}

// Rules: the first match gets the event, listeners get copies and cannot refuse.
func TestDispatch(t *testing.T) {
	var first, second enginetest.Handler
	first.Answer.OnUserEvent = func(context.Context, *engine.UserEvent) (*engine.EventReply, error) {
		return nil, errors.New("broken")
	}
	heard := make(chan string, 10)
	h := start(t, &engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{
			Handlers: []engine.HandlerRule{
				{UserEvents: " Room.* , one", Handler: &first},
				{SystemEvents: []string{"CONNECTED"}, UserEvents: "room.**", Handler: &second},
			},
			Listeners: []engine.ListenerRule{{
				SystemEvents: []string{"connect", "disconnected"}, UserEvents: "heard,room.*",
				Listener: func(_ context.Context, e engine.ListenedEvent) { heard <- fmt.Sprintf("%T", e) },
			}},
		}
	}}).Hub("chat")
	c := connect(t, h, open{user: "ann"})
	event := func(name engine.EventName) error {
		_, err := c.SendEvent(t.Context(), name, text(string(name)))
		return err
	}
	wantCode(t, event("room.x"), engine.CodeInternal) // the first one fails, and the second is not asked
	wantCode(t, event("ONE"), engine.CodeInternal)
	must(t, event("room.x.y"))
	must(t, event("heard")) // a listener alone makes it succeed
	wantCode(t, event("connected"), engine.CodeInternal)
	if got := first.Calls(); !slices.Equal(got, []string{"room.x 2 ann text room.x", "ONE 3 ann text ONE"}) {
		t.Errorf("the first handler got %q", got)
	}
	want := []string{"connected 1 ann", "room.x.y 4 ann text room.x.y"}
	got, err := second.Await(t.Context(), 2)
	must(t, err)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the second handler got %q", got)
	}
	if got := <-heard; got != "*engine.UserEvent" {
		t.Errorf("the listener heard %s", got)
	}
	c.Gone(engine.FirstWire, engine.CloseNormal, "")
	if got := <-heard; got != "*engine.DisconnectedEvent" {
		t.Errorf("the listener heard %s", got)
	}
}

// Reload changes the rules for connections that are open.
func TestReload(t *testing.T) {
	var a, b enginetest.Handler
	now := &a
	e := start(t, &engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{Handlers: []engine.HandlerRule{{UserEvents: "*", Handler: now}}}
	}})
	c := connect(t, e.Hub("chat"), open{})
	_, err := c.SendEvent(t.Context(), "x", text(""))
	must(t, err)
	now = &b
	e.Reload()
	_, err = c.SendEvent(t.Context(), "y", text(""))
	must(t, err)
	if len(a.Calls()) != 1 || len(b.Calls()) != 1 {
		t.Errorf("the calls are %q and %q", a.Calls(), b.Calls())
	}
}

// Shutdown lets queued messages and running events finish, tells clients, and
// ends in time when a client hangs.
func TestShutdown(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	handler := &enginetest.Handler{Answer: engine.HandlerFuncs{
		OnUserEvent: func(context.Context, *engine.UserEvent) (*engine.EventReply, error) {
			close(asked)
			<-release
			return nil, nil
		},
	}}
	e := start(t, handled(handler, "*"))
	c := connect(t, e.Hub("chat"), open{user: "ann", groups: []engine.GroupName{"g"}})
	done := make(chan error, 1)
	c.Do(&engine.Request{Op: engine.OpEvent, Event: "slow"}, func(err error) { done <- err })
	<-asked
	must(t, e.Hub("chat").SendToGroup(t.Context(), "g", text("last"), nil))
	ended := make(chan error, 1)
	go func() { ended <- e.Shutdown(context.Background()) }()
	c.expect("text @g last", "disconnected The service is going away.", "close 1001")
	select {
	case <-ended:
		t.Error("Shutdown did not wait for the event")
	default:
	}
	close(release)
	must(t, <-ended)
	must(t, <-done)
	if calls := handler.Calls(); !slices.Contains(calls, "disconnected 3 ann The service is going away.") {
		t.Errorf("the calls are %q", calls)
	}

	e = start(t, nil)
	connect(t, e.Hub("chat"), open{wire: &enginetest.Wire{KeepOpen: true}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
