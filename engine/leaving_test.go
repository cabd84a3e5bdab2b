package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// hanging is a handler that takes user events and answers them when it is told to.
type hanging struct {
	enginetest.Handler
	answer chan error

	mu    sync.Mutex
	order []string // "begin x", "end x" for user events, and "disconnected"
}

func newHanging() *hanging {
	h := &hanging{answer: make(chan error)}
	h.Answer = engine.HandlerFuncs{
		OnUserEvent: func(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
			h.note("begin " + string(e.Name))
			defer h.note("end " + string(e.Name))
			select {
			case err := <-h.answer:
				return nil, err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		OnDisconnected: func(context.Context, *engine.DisconnectedEvent) { h.note("disconnected") },
	}
	return h
}

func (h *hanging) note(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.order = append(h.order, s)
}

func (h *hanging) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.order)
}

// raise asks for a user event of n bytes and returns whether the client may go on.
func raise(c *engine.Conn, name engine.EventName, n int, done func(error)) bool {
	return c.Do(&engine.Request{Op: engine.OpEvent, Event: name, Payload: engine.Payload{Type: engine.Binary, Data: make([]byte, n)}}, done)
}

func ignored(error) {}

// bye makes the client say goodbye.
func (c *client) bye() { c.Gone(c.WireID(), engine.CloseNormal, "bye") }

// Events that a client made before it left are carried out one after the other, and
// disconnected is the last.
func TestDisconnectedFollowsTheLastEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHanging()
		c := connect(t, start(t, handled(h, "*")).Hub("chat"), open{user: "ann"})
		for _, name := range []engine.EventName{"a", "b", "c"} {
			raise(c.Conn, name, 10, ignored)
		}
		synctest.Wait()
		c.bye()
		want := []string{"begin a"}
		for i, name := range []string{"a", "b", "c"} {
			synctest.Wait()
			if got := h.seen(); !slices.Equal(got, want) {
				t.Fatalf("the handler saw %q, want %q", got, want)
			}
			h.answer <- errors.New("no")
			want = append(want, "end "+name)
			if i < 2 {
				want = append(want, "begin "+string("bc"[i]))
			}
		}
		synctest.Wait()
		want = append(want, "disconnected")
		if got := h.seen(); !slices.Equal(got, want) {
			t.Fatalf("the handler saw %q, want %q", got, want)
		}
	})
}

// What a client that left has waiting ends within the time for one event, though each
// of its events has that time.
func TestEventsOfAClientThatLeftEndWithinTheTimeOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHanging()
		o := handled(h, "*")
		o.Limits.EventTimeout = 10 * time.Second
		e := start(t, o)
		c := connect(t, e.Hub("chat"), open{user: "ann"})
		var failed []error
		for _, name := range []engine.EventName{"a", "b", "c"} {
			raise(c.Conn, name, 10, func(err error) { failed = append(failed, err) })
		}
		time.Sleep(9 * time.Second)
		c.bye() // a has a second left, b all of its time, c never begins
		time.Sleep(10*time.Second - 1)
		want := []string{"begin a", "end a", "begin b"}
		if got := h.seen(); !slices.Equal(got, want) {
			t.Fatalf("the handler saw %q, want %q", got, want)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		want = append(want, "end b", "disconnected")
		if got := h.seen(); !slices.Equal(got, want) {
			t.Fatalf("the handler saw %q, want %q", got, want)
		}
		if len(failed) != 3 || slices.Contains(failed, nil) {
			t.Errorf("the outcomes are %v", failed)
		}
		if st := e.Stats(); st.EventsDropped != 2 || st.PendingEventBytes != 0 {
			t.Errorf("%d events dropped, %d bytes pending", st.EventsDropped, st.PendingEventBytes)
		}
	})
}

// Left tells a handler that the connection has ended, and not before: not while a lost
// wire can be replaced.
func TestLeftIsClosedWhenTheConnectionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := make(chan (<-chan struct{}), 2)
		handler := &engine.HandlerFuncs{
			OnConnected: func(ctx context.Context, e *engine.ConnectedEvent) {
				left <- e.Left
				<-e.Left
			},
			OnUserEvent: func(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
				left <- e.Left
				<-e.Left
				return nil, errors.New("no further attempt")
			},
			OnDisconnected: func(_ context.Context, e *engine.DisconnectedEvent) {
				if e.Left != nil {
					t.Error("disconnected, which is to be tried again, ends with its connection")
				}
			},
		}
		h := start(t, handled(handler, "*")).Hub("chat")
		isOpen := func(left <-chan struct{}) bool {
			select {
			case <-left:
				return false
			default:
				return true
			}
		}
		c := durable(t, h, open{user: "ann"})
		raise(c.Conn, "e", 1, ignored)
		ofConnected, ofEvent := <-left, <-left
		c.lose()
		synctest.Wait()
		if !isOpen(ofConnected) || !isOpen(ofEvent) {
			t.Error("a connection that may be recovered counts as ended")
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if isOpen(ofConnected) || isOpen(ofEvent) {
			t.Error("the connection has ended, and its handler does not know")
		}

		s, err := h.Subscribe(t.Context(), nil)
		must(t, err)
		raise(s.Conn(), "e", 1, ignored)
		ofEvent = <-left
		must(t, s.Close())
		synctest.Wait()
		if isOpen(ofEvent) {
			t.Error("the subscription has ended, and its handler does not know")
		}
	})
}

// A client that leaves events behind and comes again does not make the node hold more:
// what it left counts for its user, and is dropped from half of the bound on.
func TestEventsLeftBehindStayCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100_000
		h := newHanging()
		o := handled(h, "*")
		o.Limits = engine.Limits{PendingEventBytes: 8 * size, PendingEventBytesPerUser: 16 * size, PendingEventBytesPerHub: 64 * size, TotalPendingEventBytes: 256 * size}
		var log lockedBuffer
		o.Logger = log.logger()
		e := start(t, o)
		var most int64
		for range 50 {
			c, err := tryConnect(t, e.Hub("chat"), open{user: "ann"})
			must(t, err)
			for i := range 8 {
				if !raise(c.Conn, engine.EventName(fmt.Sprint("e", i)), size, ignored) {
					break
				}
			}
			most = max(most, e.Stats().PendingEventBytes)
			c.bye()
			synctest.Wait()
		}
		st := e.Stats()
		if st.PendingEventBytes > 9*size { // half of the bound, and a little for what goes with it
			t.Errorf("clients that left hold %d bytes", st.PendingEventBytes)
		}
		if most > 14*size { // that, and half of what one connection may have
			t.Errorf("there were %d bytes", most)
		}
		if st.EventsDropped < 100 {
			t.Errorf("%d events were dropped", st.EventsDropped)
		}
		if text := log.String(); strings.Count(text, "were given up") != 1 || !strings.Contains(text, "too many bytes of events wait") {
			t.Errorf("the log says %s", text)
		}
		// The others are not concerned.
		connect(t, e.Hub("chat"), open{user: "bo"})
		time.Sleep(101 * time.Second)
		synctest.Wait()
		if st := e.Stats(); st.PendingEventBytes != 0 {
			t.Errorf("%d bytes are left", st.PendingEventBytes)
		}
		if n := strings.Count(strings.Join(h.seen(), ","), "disconnected"); n != 50 {
			t.Errorf("%d of 50 clients are said to have gone", n)
		}
	})
}
