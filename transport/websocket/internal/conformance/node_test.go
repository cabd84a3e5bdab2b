package conformance_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/websocket"
	"github.com/fanfare/fanfare/transport/websocket/internal/conformance"
)

// TestAutobahn runs Autobahn's cases against the WebSocket transport, whose raw clients
// get back what they say by an event handler. All are to be OK, and none non-strict.
func TestAutobahn(t *testing.T) {
	cases := conformance.Autobahn()
	all, few := 0, 50
	if underRace {
		cases = slices.DeleteFunc(cases, isLarge)
		all, few = 5, 5
	}
	t.Run("descriptor", func(t *testing.T) { runAll(t, node(t, false, all), cases) })
	// What a round is about, compression, is the same on both paths.
	t.Run("portable", func(t *testing.T) { runAll(t, node(t, true, few), cases) })
}

// TestAdditional runs the cases that Autobahn's suite lacks.
func TestAdditional(t *testing.T) {
	for _, portable := range []bool{false, true} {
		t.Run(fmt.Sprint("portable=", portable), func(t *testing.T) {
			runAll(t, node(t, portable, 0), conformance.Additional())
		})
	}
}

// runAll runs cases, beside one another unless they have the same messages.
func runAll(t *testing.T, s *conformance.Server, cases []conformance.Case) {
	for _, job := range jobs(cases) {
		t.Run(job[0].ID, func(t *testing.T) {
			t.Parallel()
			cache := conformance.NewCache()
			for _, c := range job {
				if r := conformance.Run(s, c, cache); r.Verdict != conformance.OK {
					t.Errorf("%s, %s: %s: %s", c.ID, c.About, r.Verdict, r.Why)
				}
			}
		})
	}
}

// jobs puts cases together that have the same messages.
func jobs(cases []conformance.Case) (all [][]*conformance.Case) {
	type messages struct {
		data *conformance.Data
		size int
	}
	found := map[messages]int{}
	for i := range cases {
		c := &cases[i]
		if c.Rounds == nil {
			all = append(all, []*conformance.Case{c})
			continue
		}
		m := messages{c.Rounds.Data, c.Rounds.Size}
		if at, ok := found[m]; ok {
			all[at] = append(all[at], c)
			continue
		}
		found[m] = len(all)
		all = append(all, []*conformance.Case{c})
	}
	return all
}

// node returns a server of the WebSocket transport.
func node(t *testing.T, portable bool, rounds int) *conformance.Server {
	t.Helper()
	hub := &engine.HubOptions{KeepAlive: -1, Handlers: []engine.HandlerRule{{
		UserEvents: "*",
		Handler: &engine.HandlerFuncs{OnUserEvent: func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
			return &engine.EventReply{Payload: &e.Payload}, nil
		}},
	}}}
	e, err := engine.New(&engine.Options{
		Hubs:   func(engine.HubName) *engine.HubOptions { return hub },
		Limits: engine.Limits{MessageBytes: 16 << 20, OutboundBytes: 64 << 20},
	})
	if err != nil {
		t.Fatal(err)
	}
	anyone := transport.AuthenticatorFunc(func(context.Context, engine.Credentials) (engine.Identity, error) { return engine.Identity{}, nil })
	h := websocket.NewHandler(e, anyone, &websocket.Options{Compression: true, Portable: portable})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	t.Cleanup(func() {
		e.Close()
		srv.Close()
		<-done
	})
	return &conformance.Server{
		Dial:   func() (net.Conn, error) { return net.Dial("tcp", l.Addr().String()) },
		Target: "/client/hubs/echo", Rounds: rounds,
	}
}

// TestCases is that there are as many cases as Autobahn counts, in its order.
func TestCases(t *testing.T) {
	want := map[string]int{"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126}
	cases := conformance.Autobahn()
	if len(cases) != 517 || cases[0].ID != "1.1.1" || cases[516].ID != "13.7.18" {
		t.Errorf("%d cases, from %s to %s", len(cases), cases[0].ID, cases[len(cases)-1].ID)
	}
	got, seen := map[string]int{}, map[string]bool{}
	for _, c := range append(cases, conformance.Additional()...) {
		section, _, _ := strings.Cut(c.ID, ".")
		got[section]++
		if seen[c.ID] || c.About == "" {
			t.Errorf("%s, %q: it is there twice, or says nothing", c.ID, c.About)
		}
		seen[c.ID] = true
	}
	for section, n := range want {
		if got[section] != n {
			t.Errorf("%d cases %s, expected %d", got[section], section, n)
		}
	}
}
