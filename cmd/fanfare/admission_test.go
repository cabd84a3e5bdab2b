package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// peer is the node's end of a connection that nothing comes in on.
type peer struct {
	net.Conn // nil: only what is below is used
	remote   string
	told     strings.Builder
	closed   atomic.Bool
}

func (p *peer) RemoteAddr() net.Addr             { return tcpAddr(p.remote) }
func (p *peer) SetWriteDeadline(time.Time) error { return nil }
func (p *peer) Write(b []byte) (int, error)      { return p.told.Write(b) }
func (p *peer) Close() error                     { p.closed.Store(true); return nil }
func tcpAddr(s string) net.Addr                  { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
func gone(peers []*peer) (closed []int) {
	for i, p := range peers {
		if p.closed.Load() {
			closed = append(closed, i)
		}
	}
	return closed
}

// fakeListener accepts what is in its channel.
type fakeListener struct {
	net.Listener
	next chan func() (net.Conn, error)
}

func (l *fakeListener) Accept() (net.Conn, error) { return (<-l.next)() }

// When there are too many, the oldest connection of the prefix with the most goes.
func TestOldestOfTheLargestPrefixIsClosed(t *testing.T) {
	for _, test := range []struct {
		name  string
		comes string // remote addresses, one letter each
		gone  []int
	}{
		{"no more than are allowed", "aaaa", nil},
		{"one prefix", "aaaaaa", []int{0, 1}},
		{"another prefix finds a place", "aaaab", []int{0}},
		{"and keeps it", "aaaabaaaa", []int{0, 1, 2, 3, 5}},
		{"also when it came first", "baaaaaa", []int{1, 2, 3}},
		{"prefixes end with equal shares", "aaaabbbb", []int{0, 1, 4, 5}},
		{"of equal shares the oldest goes", "abcde", []int{0}},
		{"the same /24", "aAaAa", []int{0}},
		{"the same /56", "sSsSs", []int{0}},
		{"IPv4 in IPv6 form is IPv4", "aMaMab", []int{0, 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			addresses := map[rune]string{
				'a': "192.0.2.1:1", 'A': "192.0.2.200:1", 'b': "198.51.100.1:1", 'c': "203.0.113.1:1", 'd': "10.0.0.1:1", 'e': "10.0.1.1:1",
				's': "[2001:db8::1]:1", 'S': "[2001:db8:0:ff::1]:1", 'M': "[::ffff:192.0.2.7]:1",
			}
			var closed []string
			a := newAdmission(nil, admissionOptions{Places: 5, Timeout: time.Hour, Closed: func(_ net.Addr, rule, _ string) { closed = append(closed, rule) }})
			defer a.timerStop()
			var peers []*peer
			for _, letter := range test.comes {
				p := &peer{remote: addresses[letter]}
				peers = append(peers, p)
				a.admit(p)
			}
			if got := gone(peers); !slices.Equal(got, test.gone) {
				t.Errorf("closed %v; want %v", got, test.gone)
			}
			for _, rule := range closed {
				if rule != "limits.unauthenticatedConnections" {
					t.Errorf("closed by %s", rule)
				}
			}
			for _, i := range gone(peers) {
				if told := peers[i].told.String(); !strings.HasPrefix(told, "HTTP/1.1 503 ") || !strings.Contains(told, "[limits.unauthenticatedConnections]") {
					t.Errorf("connection %d was told %q", i, told)
				}
			}
		})
	}
}

func (a *admission) timerStop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
}

// in returns what a knows of p.
func (a *admission) in(p *peer) *inbound {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conns[p]
}

// request lets p send a request, which is answered.
func (a *admission) request(p *peer, client string, health bool, granted, proven bool) {
	in := a.in(p)
	var c netip.Addr
	if client != "" {
		c = netip.MustParseAddr(client)
	}
	a.begin(in, c, health)
	if granted {
		a.grant(in, proven)
	}
	a.end(in, granted, false)
}

func TestPlacesOfConnections(t *testing.T) {
	const places = 17 // 16 and one for health
	for _, test := range []struct {
		name    string
		remote  string
		request func(a *admission, p *peer)
		stays   bool
	}{
		{"silent", "192.0.2.1:1", func(*admission, *peer) {}, false},
		{"refused", "192.0.2.1:1", func(a *admission, p *peer) { a.request(p, "", false, false, false) }, false},
		{"authenticated", "192.0.2.1:1", func(a *admission, p *peer) { a.request(p, "", false, true, true) }, true},
		{"authenticated, then refused", "192.0.2.1:1", func(a *admission, p *peer) {
			a.request(p, "", false, true, true)
			a.request(p, "", false, false, false)
		}, true},
		{"anonymous, and no client in the end", "192.0.2.1:1", func(a *admission, p *peer) { a.request(p, "", false, true, false) }, false},
		{"anonymous, while its request is served", "192.0.2.1:1", func(a *admission, p *peer) {
			a.begin(a.in(p), netip.Addr{}, false)
			a.grant(a.in(p), false)
		}, true},
		{"a WebSocket", "192.0.2.1:1", func(a *admission, p *peer) { a.state(p, http.StateHijacked) }, true},
		{"a health check", "192.0.2.1:1", func(a *admission, p *peer) { a.request(p, "", true, false, false) }, true},
		{"a health check, then another request", "192.0.2.1:1", func(a *admission, p *peer) {
			a.request(p, "", true, false, false)
			a.request(p, "", false, false, false)
		}, false},
		{"a proxy", "10.0.0.1:1", func(*admission, *peer) {}, true},
		{"a proxy, which waits for its next request", "10.0.0.1:1", func(a *admission, p *peer) { a.request(p, "192.0.2.9", false, false, false) }, true},
		{"a proxy with a request of a client", "10.0.0.1:1", func(a *admission, p *peer) { a.begin(a.in(p), netip.MustParseAddr("192.0.2.9"), false) }, false},
		{"a proxy with a request of its own", "10.0.0.1:1", func(a *admission, p *peer) { a.begin(a.in(p), netip.MustParseAddr("10.0.0.1"), false) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			proxy := netip.MustParseAddr("10.0.0.1")
			a := newAdmission(nil, admissionOptions{Places: places, Timeout: time.Hour, Trusts: func(a netip.Addr) bool { return a == proxy }})
			defer a.timerStop()
			p := &peer{remote: test.remote}
			a.admit(p)
			test.request(a, p)
			for i := range 10 * places {
				a.admit(&peer{remote: fmt.Sprintf("192.0.2.1:%d", i+2)})
			}
			if p.closed.Load() == test.stays {
				t.Errorf("closed: %v", p.closed.Load())
			}
			if len(a.conns) > 2*places+2 {
				t.Errorf("%d connections are known", len(a.conns))
			}
		})
	}
}

// A proxy's connections are many, and none of them is closed for being the oldest, up to
// a bound of their own.
func TestProxiesHaveABoundOfTheirOwn(t *testing.T) {
	a := newAdmission(nil, admissionOptions{Places: 4, Timeout: time.Hour, Trusts: func(netip.Addr) bool { return true }})
	defer a.timerStop()
	var peers []*peer
	for i := range 6 {
		peers = append(peers, &peer{remote: fmt.Sprintf("10.0.0.1:%d", i+1)})
		a.admit(peers[i])
	}
	if got := gone(peers); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("closed %v", got)
	}
}

// A connection that waits for longest since its last request is the oldest.
func TestRequestsMakeConnectionsYoung(t *testing.T) {
	a := newAdmission(nil, admissionOptions{Places: 4, Timeout: time.Hour}) // three, and one for health
	defer a.timerStop()
	var peers []*peer
	for i := range 5 {
		peers = append(peers, &peer{remote: fmt.Sprintf("192.0.2.1:%d", i+1)})
	}
	for _, step := range []int{0, 1, 2} {
		a.admit(peers[step])
	}
	a.request(peers[0], "", false, false, false)
	a.admit(peers[3])
	a.admit(peers[4])
	if got := gone(peers); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("closed %v", got)
	}
}

func TestUnauthenticatedConnectionsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards rules
		var rules []string
		a := newAdmission(nil, admissionOptions{Places: 100, Timeout: 10 * time.Second, Trusts: func(a netip.Addr) bool { return a.Is6() },
			Closed: func(_ net.Addr, rule, _ string) {
				mu.Lock()
				defer mu.Unlock()
				rules = append(rules, rule)
			}})
		silent, refused, serving, health, proxy, silentProxy, client := &peer{remote: "192.0.2.1:1"}, &peer{remote: "192.0.2.1:2"}, &peer{remote: "192.0.2.1:3"},
			&peer{remote: "192.0.2.1:4"}, &peer{remote: "[::1]:5"}, &peer{remote: "[::1]:6"}, &peer{remote: "192.0.2.1:7"}
		all := []*peer{silent, refused, serving, health, proxy, silentProxy, client}
		for _, p := range all {
			a.admit(p)
		}
		time.Sleep(9 * time.Second)
		a.request(refused, "", false, false, false)
		a.begin(a.in(serving), netip.Addr{}, false)
		a.request(health, "", true, false, false)
		a.request(proxy, "192.0.2.9", false, false, false)
		a.request(client, "", false, true, true)
		if got := gone(all); got != nil {
			t.Errorf("closed %v after 9 s", got)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := gone(all); !slices.Equal(got, []int{0, 5}) {
			t.Errorf("closed %v after 11 s", got)
		}
		if told := silent.told.String(); !strings.HasPrefix(told, "HTTP/1.1 408 ") || !strings.Contains(told, "[limits.handshakeTimeout]") {
			t.Errorf("the silent one was told %q", told)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := gone(all); !slices.Equal(got, []int{0, 1, 5}) {
			t.Errorf("closed %v after 21 s", got)
		}
		if refused.told.Len() > 0 {
			t.Errorf("a connection that had a response was told %q", refused.told.String())
		}
		if !slices.Equal(rules, []string{"limits.handshakeTimeout", "limits.handshakeTimeout", "limits.handshakeTimeout"}) {
			t.Errorf("rules: %v", rules)
		}
		for _, p := range all {
			a.state(p, http.StateClosed)
		}
		if len(a.conns) > 0 || a.order.Len() > 0 || a.unauthenticated() > 0 {
			t.Error("something is left of connections that are closed")
		}
		time.Sleep(time.Minute) // ends the timer
	})
}

// Where there are no descriptors, unauthenticated connections give theirs.
func TestNoDescriptorsAreLeft(t *testing.T) {
	for _, no := range []error{syscall.EMFILE, syscall.ENFILE} {
		l := &fakeListener{next: make(chan func() (net.Conn, error), 4)}
		a := newAdmission(l, admissionOptions{Places: 100, Timeout: time.Hour})
		defer a.timerStop()
		old, young := &peer{remote: "192.0.2.1:1"}, &peer{remote: "192.0.2.1:2"}
		a.admit(old)
		failed := func() (net.Conn, error) { return nil, &net.OpError{Op: "accept", Err: no} }
		l.next <- failed
		l.next <- func() (net.Conn, error) { return young, nil }
		if c, err := a.Accept(); err != nil || c != young || !old.closed.Load() {
			t.Errorf("%v, %v; the old one is closed: %v", c, err, old.closed.Load())
		}
		a.state(young, http.StateHijacked)
		l.next <- failed
		if _, err := a.Accept(); !errors.Is(err, no) || young.closed.Load() {
			t.Errorf("with no unauthenticated connection: %v", err)
		}
	}
}

// A node that cannot serve any more ends with exit code 1.
func TestListenerFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := newAdmission(l, admissionOptions{Places: 1, Timeout: time.Hour})
	defer a.timerStop()
	accepted := make(chan error, 1)
	go func() {
		for {
			if _, err := a.Accept(); err != nil {
				accepted <- err
				return
			}
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a.Close()
	select {
	case err := <-accepted:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Accept does not return")
	}
}

func TestAdmissionIsSafeForConcurrentUse(t *testing.T) {
	a := newAdmission(nil, admissionOptions{Places: 8, Timeout: time.Millisecond, Trusts: func(a netip.Addr) bool { return a.Is6() }})
	defer a.timerStop()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 200 {
				remote := fmt.Sprintf("192.0.%d.1:%d", i%3, j+1)
				if i == 7 {
					remote = "[::1]:1"
				}
				near, far := net.Pipe()
				c := &addressed{near, tcpAddr(remote)}
				a.admit(c)
				a.mu.Lock()
				in := a.conns[c]
				a.mu.Unlock()
				if in != nil {
					a.begin(in, netip.MustParseAddr("192.0.2.9"), j%3 == 0)
					if j%2 == 0 {
						a.grant(in, j%4 == 0)
					}
					a.end(in, j%2 == 0, j%5 == 0)
				}
				if j%2 == 0 {
					a.state(c, http.StateClosed)
				}
				io.Copy(io.Discard, io.LimitReader(far, 0))
				far.Close()
			}
		})
	}
	all.Wait()
	if n := a.unauthenticated(); n > 8+8 {
		t.Errorf("%d places are taken", n)
	}
}

// addressed is a connection from an address of the test's choice.
type addressed struct {
	net.Conn
	remote net.Addr
}

func (a *addressed) RemoteAddr() net.Addr { return a.remote }

func TestFilesBoundPlaces(t *testing.T) {
	for _, test := range []struct {
		files, set, connections int
		proxies                 bool
		clients, places         int
	}{
		{0, 1000, 0, false, 0, 1000},
		{1024, 1000, 0, false, 768, 128},
		{1024, 1000, 0, true, 768, 64},
		{1024, 10, 0, false, 768, 10},
		{1024, 1000, 1024, false, 768, 16},
		{20_000, 1000, 0, false, 18_000, 1000},
		{20_000, 1000, 0, true, 16_000, 1000},
		{1 << 20, 5000, 0, false, 1<<20 - 10_000, 5000},
		{64, 1000, 0, false, 32, 16},
	} {
		c := config.Default()
		c.Limits.UnauthenticatedConnections, c.Limits.Connections = test.set, test.connections
		if test.proxies {
			c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		}
		clients, places := maxConnections(test.files, unauthenticatedConnections(c)), unauthenticatedPlaces(c, test.files)
		if clients != test.clients || places != test.places {
			t.Errorf("%+v: %d connections, %d of them unauthenticated", test, clients, places)
		}
	}
}
