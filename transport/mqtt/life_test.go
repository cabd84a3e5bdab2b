package mqtt_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// bubble runs f in virtual time, with a door over pipes whose wires are not pinged.
func bubble(t *testing.T, o engine.Options, f func(t *testing.T, s *server)) {
	if o.Hubs == nil {
		o.Hubs = func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{KeepAlive: -1} }
	}
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, o, false)
		f(t, s)
		s.engine.Close()
	})
}

// watcher is a client that has subscribed to will, for as long as it takes.
func watcher(t *testing.T, s *server) *client {
	t.Helper()
	c := s.connect(t, engine.Identity{UserID: "watcher", Roles: everything})
	c.SetDeadline(time.Time{})
	c.packets("10 ( 'MQTT' 05 02 0000 ( ) 'watcher' )")
	c.want(connack5)
	c.packets("82 ( 0001 ( ) 'will' 00 )")
	c.want("90 ( 0001 ( ) 00 )")
	return c
}

// When a will is published, and when it is not.
func TestWill(t *testing.T) {
	const (
		v4   = "10 ( 'MQTT' 04 06 003c 'a' 'will' 'bye' )"
		kept = "10 ( 'MQTT' 04 04 003c 'a' 'will' 'bye' )"
		v5   = "10 ( 'MQTT' 05 06 003c ( ) 'a' ( 03 'text/plain' ) 'will' 'bye' )"
		late = "10 ( 'MQTT' 05 06 003c ( 11 0000001e ) 'a' ( 18 0000000a ) 'will' 'bye' )"
		slow = "10 ( 'MQTT' 05 06 003c ( 11 00000005 ) 'a' ( 18 0000000a ) 'will' 'bye' )"
	)
	drop := func(*testing.T, *server, *client) {}
	say := func(packet string) func(*testing.T, *server, *client) {
		return func(_ *testing.T, _ *server, c *client) {
			c.packets(packet)
			c.want("close 1000")
		}
	}
	for _, tc := range []struct {
		name, connect string
		end           func(*testing.T, *server, *client)
		after         time.Duration // until it is published; negative for never
	}{
		{"3.1.1, lost", v4, drop, 0},
		{"3.1.1, lost, with a session to keep", kept, drop, 0},
		{"3.1.1, in peace", v4, say("e0 ( )"), -1},
		{"5.0, lost", v5, drop, 0},
		{"5.0, in peace", v5, say("e0 ( )"), -1},
		{"5.0, with the will", v5, say("e0 ( 04 )"), 0},
		{"5.0, lost, with a delay", late, drop, 10 * time.Second},
		{"5.0, the session ends before the delay", slow, drop, 5 * time.Second},
		{"5.0, with the will, with a delay", late, say("e0 ( 04 )"), 10 * time.Second},
		{"5.0, closed by a server", v5, func(t *testing.T, s *server, _ *client) {
			if err := s.engine.Hub("chat").CloseConn(t.Context(), "a", ""); err != nil {
				t.Fatal(err)
			}
		}, 0},
		{"5.0, back in time", late, func(t *testing.T, s *server, c *client) {
			c.Close()
			time.Sleep(9 * time.Second)
			c = s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
			c.packets("10 ( 'MQTT' 05 00 003c ( 11 0000001e ) 'a' )") // without a will
			if _, _, err := c.read(); err != nil {
				t.Error(err)
			}
			c.packets("e0 ( )")
			c.want("close 1000")
		}, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, engine.Options{}, func(t *testing.T, s *server) {
				w := watcher(t, s)
				c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
				c.packets(tc.connect)
				if _, p, err := c.read(); err != nil || p[3] != 0 {
					t.Fatal(p, err)
				}
				tc.end(t, s, c)
				began := time.Now()
				c.Close()
				if tc.after < 0 {
					time.Sleep(time.Minute)
					w.packets("c0 ( )")
					w.want("d0 ( )") // and nothing before it
					return
				}
				if tc.connect == v5 {
					w.want("30 ( 'will' ( 03 'text/plain' ) \"bye\" )")
				} else {
					w.want("30 ( 'will' ( ) \"bye\" )")
				}
				if took := time.Since(began); took < tc.after || took > tc.after+2*time.Second {
					t.Errorf("it was published after %s, want %s", took, tc.after)
				}
			})
		})
	}
}

// A will needs the permission that any publication does.
func TestWillWithoutPermission(t *testing.T) {
	bubble(t, engine.Options{}, func(t *testing.T, s *server) {
		w := watcher(t, s)
		c := s.connect(t, engine.Identity{UserID: "eve"})
		c.packets("10 ( 'MQTT' 04 06 003c 'e' 'will' 'bye' )")
		c.want("20 ( 00 00 )")
		c.Close()
		synctest.Wait()
		w.packets("c0 ( )")
		w.want("d0 ( )")
	})
}

// A client is heard of within one and a half of its keep-alives, or not any more.
func TestKeepAlive(t *testing.T) {
	ended := make(chan engine.EndReason, 4)
	o := engine.Options{Observer: engine.Observer{ConnEnded: func(_ engine.HubName, _ engine.CloseCode, r engine.EndReason) { ended <- r }}}
	synctest.Test(t, func(t *testing.T) {
		ended = make(chan engine.EndReason, 4)
		s := serve(t, o, false)
		alive := s.connect(t, engine.Identity{})
		silent := s.connect(t, engine.Identity{})
		for _, c := range []*client{alive, silent} {
			c.SetDeadline(time.Time{})
			c.packets("10 ( 'MQTT' 04 02 003c '' )")
			c.want("20 ( 00 00 )")
		}
		began := time.Now()
		for range 10 {
			time.Sleep(55 * time.Second)
			alive.packets("c0 ( )")
			alive.want("d0 ( )")
		}
		silent.want("gone")
		if r := <-ended; r != engine.EndPingTimeout {
			t.Errorf("the silent client ended for %s", r)
		}
		if n := s.engine.Stats().Connections; n != 1 {
			t.Errorf("after %s there are %d connections", time.Since(began), n)
		}
		s.engine.Close()
	})
}

// How long a session outlives its network connection.
func TestSessionExpiry(t *testing.T) {
	for _, tc := range []struct {
		connect string
		lives   time.Duration
	}{
		{"10 ( 'MQTT' 04 02 003c 'a' )", 0},
		{"10 ( 'MQTT' 04 00 003c 'a' )", 30 * time.Second},
		{"10 ( 'MQTT' 05 00 003c ( ) 'a' )", 0},
		{"10 ( 'MQTT' 05 02 003c ( 11 0000000a ) 'a' )", 10 * time.Second},
		{"10 ( 'MQTT' 05 02 003c ( 11 ffffffff ) 'a' )", 30 * time.Second},
	} {
		t.Run(fmt.Sprint(tc.connect), func(t *testing.T) {
			h := &enginetest.Handler{}
			bubble(t, handled(h), func(t *testing.T, s *server) {
				c := s.connect(t, engine.Identity{UserID: "ann"})
				c.packets(tc.connect)
				if _, _, err := c.read(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				c.Close()
				calls, err := h.Await(context.Background(), 3) // the last two in any order
				if err != nil || !slices.ContainsFunc(calls, func(c string) bool { return strings.HasPrefix(c, "disconnected 2 ann ") }) {
					t.Fatal(calls, err)
				}
				if took := time.Since(began); took < tc.lives || took > tc.lives+2*time.Second {
					t.Errorf("it ended after %s, want %s", took, tc.lives)
				}
			})
		})
	}
}
