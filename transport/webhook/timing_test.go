package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

// statuses answers with one status after another, and then with the last.
func statuses(list ...int) http.HandlerFunc {
	var n atomic.Int32
	return func(w http.ResponseWriter, _ *http.Request) {
		i := min(int(n.Add(1)), len(list)) - 1
		w.WriteHeader(list[i])
	}
}

// stall answers when the request or the test's patience ends.
func stall(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// A retry is the same request again: same ids, same body.
func TestRetryRepeatsTheSameRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{reply: statuses(503, 200)}
		c := newClient(t, "http://h.example/{event}", &webhook.Options{Wrap: pipes(t, u)})
		began := time.Now()
		if _, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: about(0)}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %v, want 1s", took)
		}
		posts := u.Posts()
		if len(posts) != 2 {
			t.Fatalf("got %d requests, want 2", len(posts))
		}
		if posts[0].header.Get("ce-id") != "0" || posts[0].body == "" {
			t.Errorf("got %+v", posts[0])
		}
		posts[0].at = posts[1].at
		if !reflect.DeepEqual(posts[0], posts[1]) {
			t.Errorf("the requests differ:\n%+v\n%+v", posts[0], posts[1])
		}
		// The next event is another one.
		if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
			t.Fatal(err)
		}
		if a, b := posts[0].header.Get("x-ms-client-request-id"), u.last(t).header.Get("x-ms-client-request-id"); a == b {
			t.Error("two events share a request id")
		}
	})
}

// Four attempts, after pauses of 1, 3 and 5 seconds, for 408, all of 5xx and
// exchanges that break.
func TestEvent08FourAttemptsThenFailure(t *testing.T) {
	cut := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	}
	tests := map[string]struct {
		reply  http.HandlerFunc
		rule   string
		status int
	}{
		"408":    {statuses(408), "event.status", 408},
		"500":    {statuses(500), "event.status", 500},
		"599":    {statuses(599), "event.status", 599},
		"broken": {cut, "event.unreachable", 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{reply: test.reply}
				var seen []webhook.Attempt
				c := newClient(t, "http://h.example/{event}", &webhook.Options{Wrap: pipes(t, u), Observe: func(a webhook.Attempt) {
					if a.Event != "validate" {
						seen = append(seen, a)
					}
				}})
				began := time.Now()
				_, err := c.UserEvent(t.Context(), text("x"))
				if e := refusal(t, err, test.rule); e.Status != test.status {
					t.Errorf("got status %d", e.Status)
				}
				if took := time.Since(began); took != 9*time.Second {
					t.Errorf("it took %v, want 9s", took)
				}
				var at []time.Duration
				for _, p := range u.Posts() {
					at = append(at, p.at.Sub(began))
				}
				if want := []time.Duration{0, time.Second, 4 * time.Second, 9 * time.Second}; !reflect.DeepEqual(at, want) {
					t.Errorf("attempts at %v, want %v", at, want)
				}
				if len(seen) != 4 || seen[3] != (webhook.Attempt{Hub: "chat", Event: "user", Number: 4, Status: test.status, Outcome: test.rule}) {
					t.Errorf("the observer saw %+v", seen)
				}
				want := webhook.Stats{Events: 1, Failed: 1, Attempts: 5, Retries: 3, Validations: 1}
				if got := c.Stats(); got != want {
					t.Errorf("got stats %+v, want %+v", got, want)
				}
			})
		})
	}
}

// A timeout is final, and is an error without a status.
func TestEvent08TimeoutIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{reply: stall}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		began := time.Now()
		_, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: about(0)})
		if e := refusal(t, err, "event.timeout"); e.Status != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %+v", e)
		}
		if took := time.Since(began); took != 100*time.Second {
			t.Errorf("it took %v, want 100s", took)
		}
		if n := len(u.Posts()); n != 1 {
			t.Errorf("got %d requests", n)
		}
	})
}

// The time for an event includes its retries and their pauses.
func TestTimeIsForAllAttemptsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(40 * time.Second)
			w.WriteHeader(500)
		}
		u := &upstream{reply: slow}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		began := time.Now()
		_, err := c.UserEvent(t.Context(), text("x"))
		refusal(t, err, "event.timeout")
		if took := time.Since(began); took != 100*time.Second {
			t.Errorf("it took %v, want 100s", took)
		}
		if n := len(u.Posts()); n != 3 {
			t.Errorf("got %d requests, want those at 0, 41 and 84 s", n)
		}
		time.Sleep(time.Minute) // of the bubble: until the server's last handler is done
	})
}

// The limit is on the headers; a body has as much time again, and no more.
func TestBodyHasTimeOfItsOwn(t *testing.T) {
	for name, test := range map[string]struct {
		body time.Duration
		rule string
		took time.Duration
	}{
		"in time":  {99 * time.Second, "", 198 * time.Second},
		"too late": {101 * time.Second, "event.timeout", 199 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
					time.Sleep(99 * time.Second)
					w.Header().Set("Content-Type", "text/plain")
					w.(http.Flusher).Flush()
					time.Sleep(test.body)
					io.WriteString(w, "done")
				}}
				c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
				began := time.Now()
				reply, err := c.UserEvent(t.Context(), text("x"))
				if took := time.Since(began); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				if test.rule != "" {
					refusal(t, err, test.rule)
				} else if err != nil || string(reply.Payload.Data) != "done" {
					t.Errorf("got %+v, %v", reply, err)
				}
				time.Sleep(time.Minute)
			})
		})
	}
}

// The engine's own deadline is a timeout, too; a caller that goes away is not.
func TestCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{reply: stall}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.UserEvent(ctx, text("x"))
		refusal(t, err, "event.timeout")

		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = c.UserEvent(ctx, text("x"))
		if e := refusal(t, err, "event.cancelled"); e.Code != engine.CodeClosed || !errors.Is(err, context.Canceled) {
			t.Errorf("got %+v", e)
		}

		// Also while it waits for the next attempt.
		u.now(func() { u.reply = statuses(500) })
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(2*time.Second, cancel)
		_, err = c.UserEvent(ctx, text("x"))
		if e := refusal(t, err, "event.cancelled"); !strings.Contains(e.Detail, "status 500") {
			t.Errorf("the detail does not say what came before: %s", e.Detail)
		}
	})
}

// A reply that breaks off after its status is not asked for again: the server
// has done its work.
func TestBrokenBodyIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			io.WriteString(w, "half")
		}}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		_, err := c.UserEvent(t.Context(), text("x"))
		refusal(t, err, "event.reply")
		if n := len(u.Posts()); n != 1 {
			t.Errorf("got %d requests", n)
		}
	})
}

// No more than MaxCalls requests are under way; the rest wait, and not while a
// failed one pauses.
func TestCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		u := &upstream{reply: func(w http.ResponseWriter, r *http.Request) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
		}}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u), MaxCalls: 2})
		began := time.Now()
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := most.Load(); got != 2 {
			t.Errorf("%d requests were under way at once, want 2", got)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %v, want 3s", took)
		}
		u.now(func() { u.reply = statuses(500) })
		began = time.Now()
		for range 3 {
			wg.Go(func() {
				_, err := c.UserEvent(t.Context(), text("x"))
				refusal(t, err, "event.status")
			})
		}
		wg.Wait()
		if took := time.Since(began); took != 9*time.Second {
			t.Errorf("three failing events took %v, want 9s, as one does", took)
		}
	})
}

// Waiting for a free call counts.
func TestWaitForAFreeCallTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{reply: stall}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u), MaxCalls: 1, Timeout: 10 * time.Second})
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.UserEvent(t.Context(), text("x"))
			refusal(t, err, "event.timeout")
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := c.UserEvent(ctx, text("y"))
		if e := refusal(t, err, "event.timeout"); !strings.Contains(e.Detail, "1 calls under way") {
			t.Errorf("got detail %q", e.Detail)
		}
		wg.Wait()
		if n := len(u.Posts()); n != 1 {
			t.Errorf("got %d requests", n)
		}
	})
}

// There is no further attempt once the event's connection has ended: not after the one
// under way, and not after the pause that has begun. The failure is that of the attempt.
func TestRetriesEndWithTheConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		leaves, answers, took time.Duration
		reply                 int
		posts                 int
	}{
		"before the attempt":      {0, time.Minute, time.Minute, 500, 1},
		"during the attempt":      {30 * time.Second, time.Minute, time.Minute, 503, 1},
		"during the first pause":  {500 * time.Millisecond, 0, 500 * time.Millisecond, 500, 1},
		"during the second pause": {3 * time.Second, 0, 3 * time.Second, 408, 2},
		"of a success":            {30 * time.Second, time.Minute, time.Minute, 200, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
					time.Sleep(tc.answers)
					w.WriteHeader(tc.reply)
				}}
				c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
				left := make(chan struct{})
				timer := time.AfterFunc(tc.leaves, func() { close(left) })
				defer timer.Stop()
				began := time.Now()
				e := text("x")
				e.Left = left
				_, err := c.UserEvent(t.Context(), e)
				if tc.reply == 200 {
					if err != nil {
						t.Error(err)
					}
				} else if e := refusal(t, err, "event.status"); e.Status != tc.reply {
					t.Errorf("got status %d", e.Status)
				}
				if took := time.Since(began); took != tc.took {
					t.Errorf("it took %v, want %v", took, tc.took)
				}
				time.Sleep(time.Minute)
				if n := len(u.Posts()); n != tc.posts {
					t.Errorf("there were %d attempts, want %d", n, tc.posts)
				}
			})
		})
	}
}

// A disconnected event is not held up by a connected event.
func TestDisconnectedMayOvertakeConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{reply: func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("ce-eventName") == "connected" {
				time.Sleep(time.Minute)
			}
		}}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Connected(t.Context(), &engine.ConnectedEvent{EventContext: about(1)}); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		began := time.Now()
		if _, err := c.Disconnected(t.Context(), &engine.DisconnectedEvent{EventContext: about(2)}); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		wg.Wait()
	})
}

// Shutdown waits for what is under way; Close ends it. Nothing is left running,
// which the bubble checks.
func TestShutdownAndClose(t *testing.T) {
	slow := func(http.ResponseWriter, *http.Request) { time.Sleep(10 * time.Second) }
	t.Run("shutdown drains", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, &upstream{reply: slow})})
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			began := time.Now()
			if err := c.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took != 10*time.Second {
				t.Errorf("it took %v", took)
			}
			wg.Wait()
			if err := c.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			_, err := c.UserEvent(t.Context(), text("x"))
			if e := refusal(t, err, "event.closed"); e.Code != engine.CodeClosed {
				t.Errorf("got code %v", e.Code)
			}
		})
	})
	t.Run("shutdown gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, &upstream{reply: stall})})
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := c.UserEvent(t.Context(), text("x"))
				refusal(t, err, "event.closed")
			})
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := c.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			wg.Wait()
		})
	})
	t.Run("close cuts, validations too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, &upstream{validate: stall})})
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := c.UserEvent(t.Context(), text("x"))
				refusal(t, err, "event.closed")
			})
			synctest.Wait()
			began := time.Now()
			c.Close()
			c.Close()
			if took := time.Since(began); took != 0 {
				t.Errorf("it took %v", took)
			}
			wg.Wait()
		})
	})
}

// Validation: which answers grant, and what is asked.
func TestEvent18Validation(t *testing.T) {
	grant := func(lines ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for _, l := range lines {
				w.Header().Add("WebHook-Allowed-Origin", l)
			}
		}
	}
	byMethod := func(options int, get http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				get(w, r)
				return
			}
			w.WriteHeader(options)
		}
	}
	refuse := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WebHook-Allowed-Origin", "*")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
		}
	}
	tests := []struct {
		name     string
		validate http.HandlerFunc
		granted  bool
		asked    string
	}{
		{"star", grant("*"), true, "OPTIONS"},
		{"host in another case", grant("RT.Example.COM"), true, "OPTIONS"},
		{"host with our port", grant("rt.example.com:8080"), true, "OPTIONS"},
		{"host with another port", grant("rt.example.com:8081"), false, "OPTIONS"},
		{"one of several lines", grant("other.example.com", "rt.example.com"), true, "OPTIONS"},
		{"a list in one line", grant("other.example.com, rt.example.com"), false, "OPTIONS"},
		{"another host", grant("other.example.com"), false, "OPTIONS"},
		{"nothing granted", grant(), false, "OPTIONS"},
		{"OPTIONS unknown, GET grants", byMethod(404, grant("*")), true, "OPTIONS GET"},
		{"OPTIONS unknown, GET refuses", byMethod(404, grant()), false, "OPTIONS GET"},
		{"OPTIONS and GET unknown", byMethod(404, refuse(404)), false, "OPTIONS GET"},
		{"405 is final", byMethod(405, grant("*")), false, "OPTIONS"},
		{"401 is final", refuse(401), false, "OPTIONS"},
		{"a redirect is not followed", refuse(302), false, "OPTIONS"},
		{"retried like an event", func() http.HandlerFunc {
			s := statuses(503, 200)
			return func(w http.ResponseWriter, r *http.Request) { w.Header().Set("WebHook-Allowed-Origin", "*"); s(w, r) }
		}(), true, "OPTIONS OPTIONS"},
		{"503 for good", refuse(503), false, "OPTIONS OPTIONS OPTIONS OPTIONS"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &upstream{validate: test.validate}
				c := newClient(t, "http://h.example/{hub}/{event}?code=s3cret", &webhook.Options{
					Origin: "rt.example.com:8080", Wrap: pipes(t, u), Signer: signer("sig")})
				_, err := c.UserEvent(t.Context(), text("x"))
				posts := len(u.Posts())
				if test.granted && (err != nil || posts != 1) {
					t.Errorf("got %v and %d events", err, posts)
				}
				if !test.granted {
					e := refusal(t, err, "event.validation")
					if e.Status != 0 || posts != 0 {
						t.Errorf("got status %d and %d events", e.Status, posts)
					}
					if strings.Contains(e.Error()+e.Detail, "s3cret") {
						t.Errorf("the error shows the query: %v %s", e, e.Detail)
					}
				}
				var asked []string
				for _, r := range u.Checks() {
					asked = append(asked, r.method)
					r.header.Del("User-Agent")
					want := http.Header{"Ce-Awpsversion": {"1.0"}, "Webhook-Request-Origin": {"rt.example.com"}}
					if r.uri != "/chat/validate?code=s3cret" || !reflect.DeepEqual(r.header, want) {
						t.Errorf("got %s with %v", r.uri, r.header)
					}
				}
				if got := strings.Join(asked, " "); got != test.asked {
					t.Errorf("asked %q, want %q", got, test.asked)
				}
			})
		})
	}
}

// A handler that does not answer OPTIONS in 10 s has refused; it is not asked twice.
func TestValidationTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{validate: stall}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		began := time.Now()
		_, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: about(0)})
		refusal(t, err, "event.validation")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v, want 10s", took)
		}
		if n := len(u.Checks()); n != 1 {
			t.Errorf("got %d requests", n)
		}
	})
}

// The first check is shared by all who come, and survives the one who caused it.
func TestEvent18FirstValidationIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{validate: func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(5 * time.Second)
			w.Header().Set("WebHook-Allowed-Origin", "*")
		}}
		c := newClient(t, "http://h.example/{hub}/{event}", &webhook.Options{Wrap: pipes(t, u)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.UserEvent(ctx, text("x"))
			refusal(t, err, "event.timeout")
		})
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := len(u.Posts()); n != 0 {
			t.Errorf("%d events did not wait", n)
		}
		wg.Wait()
		if checks, posts := len(u.Checks()), len(u.Posts()); checks != 1 || posts != 10 {
			t.Errorf("got %d checks and %d events, want 1 and 10", checks, posts)
		}
		// Another hub is another URL.
		e := text("x")
		e.Hub = "other"
		if _, err := c.UserEvent(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if checks := u.Checks(); len(checks) != 2 || checks[1].uri != "/other/validate" {
			t.Errorf("got %d checks", len(checks))
		}
	})
}

// A grant holds for 60 s; then the next use asks again, and does not wait.
func TestEvent18GrantHoldsForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		raise := func() error {
			_, err := c.UserEvent(t.Context(), text("x"))
			synctest.Wait()
			return err
		}
		want := func(checks int) {
			t.Helper()
			if n := len(u.Checks()); n != checks {
				t.Fatalf("got %d checks, want %d", n, checks)
			}
		}
		ok := func() {
			t.Helper()
			if err := raise(); err != nil {
				t.Fatal(err)
			}
		}
		ok()
		time.Sleep(59 * time.Second)
		ok()
		want(1)
		time.Sleep(time.Hour) // nobody asks, so nobody is asked
		want(1)

		u.now(func() { u.validate = statuses(403) })
		ok() // by the last result, while it is being asked
		want(2)
		refusal(t, raise(), "event.validation")
		want(2)

		u.now(func() { u.validate = nil })
		time.Sleep(time.Second)
		refusal(t, raise(), "event.validation") // by the last result again
		want(3)
		ok()
	})
}

// After failures the pauses grow from 1 to 60 seconds.
func TestValidationBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{validate: statuses(403)}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		raise := func() {
			t.Helper()
			_, err := c.UserEvent(t.Context(), text("x"))
			refusal(t, err, "event.validation")
			synctest.Wait()
		}
		raise()
		checks := 1
		for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
			time.Sleep(pause*time.Second - time.Millisecond)
			raise()
			if n := len(u.Checks()); n != checks {
				t.Fatalf("asked before %d s were over", pause)
			}
			time.Sleep(time.Millisecond)
			raise()
			checks++
			if n := len(u.Checks()); n != checks {
				t.Fatalf("not asked after %d s", pause)
			}
		}
		// A success in between starts anew.
		use := func(wait time.Duration) int {
			time.Sleep(wait)
			c.UserEvent(t.Context(), text("x"))
			synctest.Wait()
			return len(u.Checks())
		}
		u.now(func() { u.validate = nil })
		use(time.Minute) // granted
		u.now(func() { u.validate = statuses(403) })
		checks = use(time.Minute) // refused
		if n := use(time.Second); n != checks+1 {
			t.Error("not asked 1 s after the first failure that followed a success")
		}
	})
}

// Many hubs do not make the client remember without end.
func TestValidationsRememberedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := map[string]int{}
		c := newClient(t, "http://h.example/{hub}/{event}", &webhook.Options{Wrap: func(http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method == http.MethodOptions {
					asked[r.URL.Path]++
				}
				return &http.Response{StatusCode: 200, Header: http.Header{"Webhook-Allowed-Origin": {"*"}}, Body: http.NoBody}, nil
			})
		}})
		raise := func(hub string) {
			t.Helper()
			e := text("x")
			e.Hub = engine.HubName(hub)
			if _, err := c.UserEvent(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		for i := range 1024 {
			raise(fmt.Sprint("h", i))
		}
		raise("h0") // the youngest now
		raise("new")
		raise("h0")
		if n := asked["/h0/validate"]; n != 1 {
			t.Errorf("h0 was validated %d times although it was used", n)
		}
		raise("h1")
		if n := asked["/h1/validate"]; n != 2 {
			t.Errorf("h1 was validated %d times, want it forgotten in between", n)
		}
	})
}

// The body of a failure is read so that the connection can be used again, but
// not waited for.
func TestFailureWithEndlessBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{reply: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(503)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}}
		c := newClient(t, "http://h.example/", &webhook.Options{Wrap: pipes(t, u)})
		began := time.Now()
		_, err := c.UserEvent(t.Context(), text("x"))
		if e := refusal(t, err, "event.status"); e.Status != 503 {
			t.Errorf("got status %d", e.Status)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
		if n := len(u.Posts()); n != 4 {
			t.Errorf("got %d requests", n)
		}
	})
}

// A handler that changes its mind is worth a line in the log, once each time,
// and without the query of its URL.
func TestChangeOfMindIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		u := &upstream{}
		c := newClient(t, "http://h.example/?code=s3cret", &webhook.Options{Wrap: pipes(t, u),
			Logger: slog.New(slog.NewTextHandler(&log, nil))})
		raise := func() {
			c.UserEvent(t.Context(), text("x"))
			synctest.Wait()
			time.Sleep(time.Minute)
		}
		raise()
		if log.Len() != 0 {
			t.Errorf("a first success was logged: %s", &log)
		}
		u.now(func() { u.validate = statuses(403) })
		raise()
		raise()
		u.now(func() { u.validate = nil })
		raise()
		raise()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "answered 403") || !strings.Contains(lines[1], "level=INFO") {
			t.Errorf("got %q", lines)
		}
		if strings.Contains(log.String(), "s3cret") {
			t.Errorf("the log shows the query: %s", &log)
		}
	})
}
