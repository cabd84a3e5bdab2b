//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

var (
	recoveryConns = flag.Int("recovery.conns", 0, "connections of the recovery test (default 1000, 100 with the race detector)")
	recoveryCuts  = flag.Int("recovery.rounds", 6, "how often the recovery test cuts them all")
)

const (
	// recoveryPublishers are two members, and two who keep their sockets.
	recoveryPublishers = 4
	recoveryGroup      = "bench"
	// recoveryStride is how many messages everyone must get between two cuts.
	recoveryStride = 25
	// recoveryLead is how many messages the slowest member may be behind all that
	// was published. A node keeps 1,000 for a connection, the client's
	// unacknowledged 300 among them.
	recoveryLead = 400
	// recoveryPace is the time from one message to the next, while none is late.
	recoveryPace = 5 * time.Millisecond
)

// Many reliable connections lose their sockets at once, again and again, and recover
// while publishing goes on: nobody misses a message, gets one twice or out of order.
// Two of the publishers are among them, so that requests lose their sockets, too.
func TestRecovery(t *testing.T) {
	if *recoveryConns == 0 {
		if *recoveryConns = 1000; raceEnabled {
			*recoveryConns = 100
		}
	}
	if _, err := fileLimit(); err != nil {
		t.Fatal(err)
	}
	node, err := spawn("node")
	if err != nil {
		t.Fatal(err)
	}
	defer node.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()

	crowd := &crowd{}
	defer crowd.close()
	if err := crowd.join(ctx, node, *recoveryConns); err != nil {
		t.Fatal(err)
	}
	work, ctx := errgroup.WithContext(ctx)
	for _, m := range crowd.members {
		work.Go(func() error { return m.listen(ctx) })
	}
	var publishing errgroup.Group
	stop := make(chan struct{})
	for p := range recoveryPublishers {
		publishing.Go(func() error { return crowd.publish(ctx, p, stop) })
	}

	var outages []time.Duration
	var meanwhile int64 // messages that were published while someone was away
	for round := range *recoveryCuts {
		crowd.await(ctx, func(m *member) bool { return m.got.Load() >= int64((round+1)*recoveryStride) })
		start, published := time.Now(), crowd.published.Load()
		crowd.cut()
		if round%2 == 1 { // and again, while half of them are still away
			crowd.poll(ctx, func() bool { return crowd.back() >= len(crowd.members)/2 })
			crowd.cut()
		}
		crowd.poll(ctx, func() bool { return crowd.back() == len(crowd.members) })
		outages = append(outages, time.Since(start).Round(time.Millisecond))
		meanwhile += crowd.published.Load() - published
	}
	close(stop)
	if err := publishing.Wait(); err != nil {
		t.Error(err)
	}
	published := crowd.published.Load()
	crowd.await(ctx, func(m *member) bool { return m.got.Load() >= published })
	if err := crowd.settle(ctx); err != nil { // nothing more may come
		t.Error(err)
	}
	m, err := node.mark()
	if err != nil {
		t.Fatal(err)
	}
	crowd.close()
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}

	for _, m := range crowd.members {
		if got := m.got.Load(); got != published {
			t.Errorf("connection %d got %d of %d messages", m.index, got, published)
		}
	}
	if s := m.Stats; s.Opened != int64(len(crowd.members)+len(crowd.steady)) || s.Ended != 0 || s.Dropped != 0 || s.MessagesIn != published {
		t.Errorf("%d connections, %d messages, and the node counts %+v", len(crowd.members), published, s)
	}
	if n := crowd.recoveries(); n < int64(*recoveryCuts*len(crowd.members)) || meanwhile == 0 {
		t.Errorf("%d recoveries in %d rounds, %d messages meanwhile", n, *recoveryCuts, meanwhile)
	}
	t.Logf("%d connections recovered %d times, all were back after %v; everyone got %d messages, %d of them published meanwhile: %d deliveries",
		len(crowd.members), crowd.recoveries(), outages, published, meanwhile, published*int64(len(crowd.members)))
}

// crowd is many reliable clients in one group.
type crowd struct {
	members   []*member
	steady    []*client.Client // publishers outside the group
	published atomic.Int64
	once      sync.Once
}

// member is one client and what it has received.
type member struct {
	index     int
	client    *client.Client
	got       atomic.Int64
	recovered atomic.Int64
	before    int64 // what recovered was at the last cut

	mu   sync.Mutex
	link net.Conn // the present one, which cut breaks
}

// join makes n connections and puts them into the group.
func (c *crowd) join(ctx context.Context, node *child, n int) error {
	c.members = make([]*member, n)
	g, joining := errgroup.WithContext(ctx)
	g.SetLimit(dialers)
	for i := range n {
		g.Go(func() error {
			m := &member{index: i}
			var err error
			m.client, err = client.Dial(joining, "ws://"+node.Addr.String()+node.clientPath(i), &client.Options{
				NetDial: m.dial, DialTimeout: time.Minute, RecoveryWindow: time.Minute,
			})
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			c.members[i] = m
			return m.client.JoinGroup(joining, recoveryGroup)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for len(c.steady) < recoveryPublishers-2 {
		p, err := client.Dial(ctx, "ws://"+node.Addr.String()+node.clientPath(n+len(c.steady)), nil)
		if err != nil {
			return fmt.Errorf("publisher: %w", err)
		}
		c.steady = append(c.steady, p)
	}
	return nil
}

// publisher returns the client that publishes as number p.
func (c *crowd) publisher(p int) *client.Client {
	if p < len(c.steady) {
		return c.steady[p]
	}
	return c.members[p].client
}

func (m *member) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.link = conn
	m.mu.Unlock()
	return conn, nil
}

// close ends all clients.
func (c *crowd) close() {
	c.once.Do(func() {
		var wg sync.WaitGroup
		for _, p := range c.steady {
			wg.Go(func() { p.Close() })
		}
		for _, m := range c.members {
			if m != nil {
				wg.Go(func() { m.client.Close() })
			}
		}
		wg.Wait()
	})
}

// cut resets all sockets, at once.
func (c *crowd) cut() {
	links := make([]net.Conn, len(c.members))
	for i, m := range c.members {
		m.mu.Lock()
		links[i] = m.link
		m.mu.Unlock()
		m.before = m.recovered.Load()
	}
	for _, link := range links {
		link.(*net.TCPConn).SetLinger(0)
		link.Close()
	}
}

func (c *crowd) recoveries() (n int64) {
	for _, m := range c.members {
		n += m.recovered.Load()
	}
	return n
}

// back is how many members have recovered since the last cut.
func (c *crowd) back() (n int) {
	for _, m := range c.members {
		if m.recovered.Load() > m.before {
			n++
		}
	}
	return n
}

// await waits until ok is true for every member.
func (c *crowd) await(ctx context.Context, ok func(*member) bool) {
	c.poll(ctx, func() bool { return !slices.ContainsFunc(c.members, func(m *member) bool { return !ok(m) }) })
}

func (c *crowd) poll(ctx context.Context, ok func() bool) {
	for !ok() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// settle returns once every client has had an answer from the node that comes
// behind all that was sent to it before.
func (c *crowd) settle(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(dialers)
	for _, m := range c.members {
		g.Go(func() error { return m.client.Ping(ctx) })
	}
	return g.Wait()
}

// slowest returns how many messages the slowest member has got.
func (c *crowd) slowest() int64 {
	least := c.members[0].got.Load()
	for _, m := range c.members {
		least = min(least, m.got.Load())
	}
	return least
}

// publish lets publisher p publish, each message once the one before is acknowledged,
// until stop. It waits for those who are far behind.
func (c *crowd) publish(ctx context.Context, p int, stop <-chan struct{}) error {
	pace := time.NewTicker(recoveryPace * recoveryPublishers)
	defer pace.Stop()
	for k := 0; ; k++ {
		select {
		case <-stop:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-pace.C:
		}
		c.poll(ctx, func() bool { return c.published.Load()-c.slowest() < recoveryLead })
		payload := engine.Payload{Type: engine.Text, Data: fmt.Appendf(nil, "%d %d", p, k)}
		if err := c.publisher(p).SendToGroup(ctx, recoveryGroup, payload, nil); err != nil {
			return fmt.Errorf("publisher %d, message %d: %w", p, k, err)
		}
		c.published.Add(1)
	}
}

// listen counts what m receives, until its client is closed, and checks that each
// publisher's messages come in order, none missing and none twice.
func (m *member) listen(ctx context.Context) error {
	var next [recoveryPublishers]int
	for {
		e, err := m.client.Receive(ctx)
		if errors.Is(err, client.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", m.index, err)
		}
		switch e := e.(type) {
		case client.Connected:
		case client.Recovered:
			m.recovered.Add(1)
		case client.Message:
			p, k, err := stampOf(e)
			if err != nil {
				return fmt.Errorf("connection %d: %w", m.index, err)
			}
			if k != next[p] {
				return fmt.Errorf("not exact: connection %d got message %d of publisher %d, %d expected", m.index, k, p, next[p])
			}
			next[p]++
			m.got.Add(1)
		default:
			return fmt.Errorf("not exact: connection %d got %#v", m.index, e)
		}
	}
}

func stampOf(m client.Message) (p, k int, err error) {
	publisher, number, ok := strings.Cut(string(m.Payload.Data), " ")
	if !ok {
		return 0, 0, fmt.Errorf("not exact: a message %q", m.Payload.Data)
	}
	p, err1 := strconv.Atoi(publisher)
	k, err2 := strconv.Atoi(number)
	if err := errors.Join(err1, err2); err != nil || p < 0 || p >= recoveryPublishers {
		return 0, 0, fmt.Errorf("not exact: a message %q", m.Payload.Data)
	}
	return p, k, nil
}
