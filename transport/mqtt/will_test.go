package mqtt_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
)

// When the will of a session is published, by how its network connection ended:
// at once, after a time, or never (3.1.1 section 3.1.2.5 and MQTT-3.1.2-8; 5.0 sections
// 3.1.2.5, 3.1.3.2.2 and 3.1.4).
func TestWillOfEveryEnd(t *testing.T) {
	const never = -1
	// The ends of a network connection, in the order of the columns of the table below.
	ends := []struct {
		name string
		old  string // what 3.1.1 sends in its place; empty if it has no such end
		end  func(*willRun)
	}{
		{"cut", "cut", func(r *willRun) { r.c.Close() }},
		{"DISCONNECT", "DISCONNECT", func(r *willRun) { r.leave("e0 ( )") }},
		{"DISCONNECT with the will", "", func(r *willRun) { r.leave("e0 ( 04 )") }},
		{"DISCONNECT with an error", "", func(r *willRun) { r.leave("e0 ( 80 )") }},
		{"DISCONNECT with the will, and of the session", "", func(r *willRun) { r.leave("e0 ( 04 ( 11 00000000 ) )") }},
		{"close frame", "close frame", func(r *willRun) { r.c.Write(frame(8, []byte{3, 232})) }},
		{"takeover", "takeover", func(r *willRun) { r.connect(false) }},
		{"takeover by a clean start", "takeover", func(r *willRun) { r.connect(true) }},
		{"cut, and back after 3 s", "cut", func(r *willRun) {
			r.c.Close()
			time.Sleep(3 * time.Second) // virtual
			r.connect(false)
		}},
		{"cut, and a clean start after 3 s", "cut", func(r *willRun) {
			r.c.Close()
			time.Sleep(3 * time.Second)
			r.connect(true)
		}},
		{"silence", "silence", func(r *willRun) {
			r.c.want("gone")
			r.silent = int(time.Since(r.began) / time.Second)
			if r.silent < 90 || r.silent > 105 { // 1.5 keep-alives, and a sixth
				r.t.Errorf("it may be silent for %d s", r.silent)
			}
		}},
		{"closed by a server", "closed", func(r *willRun) { r.fail(r.s.engine.Hub("chat").CloseConn(r.t.Context(), "a", "")) }},
		{"shutdown", "shutdown", func(r *willRun) { go r.s.engine.Shutdown(r.t.Context()) }},
		{"violation", "violation", func(r *willRun) { r.c.packets("00 ( )") }},
	}
	for _, tc := range []struct {
		name, connect string
		after         [14]int // seconds until the will is published
	}{
		{
			"3.1.1, clean session", "10 ( 'MQTT' 04 06 003c 'a' 'will' 'bye' )",
			[...]int{0, never, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		}, {
			"3.1.1, session to keep", "10 ( 'MQTT' 04 04 003c 'a' 'will' 'bye' )",
			[...]int{0, never, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		}, {
			"5.0", "10 ( 'MQTT' 05 06 003c ( ) 'a' ( ) 'will' 'bye' )",
			[...]int{0, never, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		}, {
			"5.0, delay", "10 ( 'MQTT' 05 04 003c ( ) 'a' ( 18 0000000a ) 'will' 'bye' )",
			[...]int{0, never, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		}, {
			"5.0, expiry", "10 ( 'MQTT' 05 06 003c ( 11 0000001e ) 'a' ( ) 'will' 'bye' )",
			[...]int{0, never, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		}, {
			"5.0, expiry, delay of 0", "10 ( 'MQTT' 05 04 003c ( 11 0000001e ) 'a' ( 18 00000000 ) 'will' 'bye' )",
			[...]int{0, never, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		}, {
			"5.0, expiry, shorter delay", "10 ( 'MQTT' 05 06 003c ( 11 0000001e ) 'a' ( 18 0000000a ) 'will' 'bye' )",
			[...]int{10, never, 10, 10, 0, 10, never, 0, never, 3, 10, 0, 0, 0},
		}, {
			"5.0, expiry, longer delay", "10 ( 'MQTT' 05 06 003c ( 11 00000006 ) 'a' ( 18 0000000a ) 'will' 'bye' )",
			[...]int{6, never, 6, 6, 0, 6, never, 0, never, 3, 6, 0, 0, 0},
		},
	} {
		for i, end := range ends {
			v5 := tc.connect[14:16] == "05"
			if !v5 && end.old == "" {
				continue
			}
			t.Run(tc.name+"/"+end.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := startWill(t, v5)
					r.c.packets(tc.connect)
					if _, p, err := r.c.read(); err != nil || p[3] != 0 {
						t.Fatal(p, err)
					}
					r.began = time.Now()
					end.end(r)
					r.check(tc.after[i])
				})
			})
		}
	}
}

// willRun is a client with a will, and somebody on another node who waits for that.
type willRun struct {
	t      *testing.T
	v5     bool
	s      *server
	c      *client
	began  time.Time
	silent int // seconds until the connection was given up
	got    chan string
}

func startWill(t *testing.T, v5 bool) *willRun {
	quiet := func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{KeepAlive: -1} }
	planes := enginetest.NewCluster(2)
	r := &willRun{
		t: t, v5: v5, got: make(chan string, 8),
		s: serve(t, engine.Options{Backplane: planes[0], Hubs: quiet}, false),
	}
	other, err := engine.New(&engine.Options{Backplane: planes[1], Hubs: quiet})
	r.fail(err)
	t.Cleanup(func() { other.Close() })
	sub, err := other.Hub("chat").Subscribe(t.Context(), &engine.SubscribeOptions{Groups: []engine.GroupName{"will"}})
	r.fail(err)
	go func() {
		for {
			m, err := sub.Receive(t.Context())
			if err != nil {
				return
			}
			r.got <- fmt.Sprintf("%s after %d s", m.Payload.Data, time.Since(r.began)/time.Second)
		}
	}()
	r.c = r.client()
	return r
}

func (r *willRun) client() *client {
	c := r.s.connect(r.t, engine.Identity{UserID: "ann", Roles: everything})
	c.SetDeadline(time.Time{})
	return c
}

func (r *willRun) fail(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *willRun) leave(packet string) {
	r.c.packets(packet)
	r.c.want("close 1000")
}

// connect connects the client once more, without a will and for long.
func (r *willRun) connect(clean bool) {
	flags := "00"
	if clean {
		flags = "02"
	}
	c := r.client()
	if r.v5 {
		c.packets("10 ( 'MQTT' 05 " + flags + " 0000 ( 11 0000001e ) 'a' )")
	} else {
		c.packets("10 ( 'MQTT' 04 " + flags + " 00b4 'a' )")
	}
	if _, p, err := c.read(); err != nil || p[3] != 0 {
		r.t.Fatal(p, err)
	}
}

// check waits for much longer than any will does, and looks at what came.
func (r *willRun) check(after int) {
	r.t.Helper()
	time.Sleep(90 * time.Second) // virtual
	var got, want []string
	for len(r.got) > 0 {
		got = append(got, <-r.got)
	}
	if after >= 0 {
		want = []string{fmt.Sprintf("bye after %d s", r.silent+after)}
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("got %q, want %q", got, want)
	}
	r.s.engine.Close()
}
