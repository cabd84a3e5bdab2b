package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bench is one invocation.
type bench struct {
	ctx      context.Context
	report   *report
	progress io.Writer

	rounds   int
	attempts int // at a fixed rate, if it was not kept
	warmup   time.Duration
	duration time.Duration
	readers  int
	inFlight int
	rest     time.Duration // how long connections are idle before memory is measured
	failures []error
	portable bool
	profile  string // a directory for the nodes' profiles; empty for none
	binary   string // a build of cmd/fanfare to measure; empty for that of this tree
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// failed says why a measurement has no figure, and lets the next ones go on.
func (b *bench) failed(what string, err error) error {
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	b.say("NO FIGURE: %s: %v", what, err)
	b.failures = append(b.failures, fmt.Errorf("%s: %w", what, err))
	return nil
}

func (b *bench) node(settings ...string) (*child, error) {
	if b.portable {
		settings = append(settings, portableVariable+"=1")
	}
	if b.profile != "" {
		settings = append(settings, profileVariable+"="+b.profile)
	}
	return spawn("node", settings...)
}

// serverOf starts what l is put on.
func (b *bench) serverOf(l load) (*child, error) {
	if l.nats != "" {
		return start(exec.Command(l.nats), "nats-server")
	}
	var settings []string
	if l.rate > 0 {
		// The bound on what waits for one connection is 1,000 messages, which is
		// no time at all where one member gets everything.
		if perMember := l.rate / float64(l.members); perMember > 2000 {
			settings = append(settings, fmt.Sprintf("%s=%.0f", outboundVariable, perMember/2))
		}
	}
	return b.node(settings...)
}

// load is one way of putting traffic on a node.
type load struct {
	members    int
	payload    int
	rate       float64 // deliveries a second; 0 for saturated
	publishers int     // 0: one that is not a member; else so many members take turns
	groups     int     // 0: one group of all; else so many groups of ten
	acked      bool
	noEcho     bool
	stalled    bool   // one more member stops reading
	outsider   bool   // one publisher that is not a member, also with groups
	protocol   string // the members' subprotocol; empty for plainJSON
	nats       string // the binary of a nats-server to put it on, in place of a node
}

// groupSize is the size of a group where there are many.
const groupSize = 10

// stride sets the members of one group apart, so that no two connections share
// all their groups.
const stride = 97

// member reports whether connection i is in group g of l, among l.members.
func (l *load) member(i, g int) bool {
	if i >= l.members {
		return false
	}
	if l.groups == 0 {
		return true
	}
	d := ((i-g)%l.members + l.members) % l.members
	return d%stride == 0 && d/stride < groupSize
}

func (l *load) groupsOf(i int) []string {
	if l.groups == 0 {
		return []string{"bench"}
	}
	var in []string
	for g := range l.groups {
		if l.member(i, g) {
			in = append(in, groupName(g))
		}
	}
	return in
}

func groupName(g int) string { return fmt.Sprintf("group-%d", g) }

// hasOutsider reports whether a connection that is in no group publishes.
func (l *load) hasOutsider() bool { return l.outsider || l.publishers == 0 && l.groups == 0 }

// name is the load as the tail of a benchmark's name.
func (l *load) name() string {
	codec := plainJSON
	switch {
	case l.nats != "":
		codec = "nats"
	case l.protocol != "":
		codec = l.protocol
	}
	s := fmt.Sprintf("/members=%d/payload=%d/rate=%s/codec=%s", l.members, l.payload, rateName(l.rate), codec)
	if l.groups > 0 {
		s += fmt.Sprintf("/groups=%d", l.groups)
	}
	if !l.acked && l.nats == "" {
		s += "/acks=no"
	}
	if l.outsider {
		s += "/publisher=one"
	}
	return s
}

func rateName(rate float64) string {
	if rate == 0 {
		return "saturated"
	}
	return fmt.Sprintf("%.0f", rate)
}

// steadily calls measure until it has kept the rate, which it cannot where
// others use the machine: what falls behind coalesces, and then costs less than
// what it stands for. The last attempt counts in any case.
func (b *bench) steadily(what string, rate float64, measure func() (*sample, error)) (*sample, error) {
	for i := 1; ; i++ {
		s, err := measure()
		if errors.Is(err, errEnded) && rate > 0 && i < b.attempts {
			b.say("%s fell behind: %v; once more", what, err)
			continue
		}
		if err != nil || rate == 0 {
			return s, err
		}
		got := float64(s.deliveries) / s.wall.Seconds()
		if got >= 0.9*rate || i >= b.attempts {
			return s, nil
		}
		b.say("%s kept up only %.0f of %.0f deliveries/s; once more", what, got, rate)
	}
}

// runLoad measures l, on a node of its own.
func (b *bench) runLoad(l load) (*sample, error) {
	return b.steadily("the node", l.rate, func() (*sample, error) { return b.loadOnce(l) })
}

func (b *bench) loadOnce(l load) (*sample, error) {
	c, err := b.serverOf(l)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	t := target{addr: c.Addr, path: c.clientPath, groups: l.groupsOf, protocol: l.protocol, nats: l.nats != ""}
	// After the members comes the publisher, where it is not one of them.
	n := l.members
	if l.hasOutsider() {
		n++
		t.groups = func(i int) []string {
			if i == l.members {
				return nil
			}
			return l.groupsOf(i)
		}
	}
	s, err := newSwarm(b.ctx, n, l.payload, t)
	if err != nil {
		return nil, err
	}
	defer s.close()
	tr := l.traffic(s)
	tr.inFlight = b.inFlight
	s.expect(len(tr.streams), func(i, st int) bool {
		if l.groups > 0 {
			return l.member(i, st)
		}
		return i < l.members && !(l.noEcho && s.conns[i] == tr.streams[st].publisher)
	})
	if l.stalled {
		stuck := target{addr: c.Addr, path: func(int) string { return c.clientPath(n) }, groups: oneGroup("bench"), recvBuf: 4096}
		lame, err := newSwarm(b.ctx, 1, l.payload, stuck)
		if err != nil {
			return nil, err
		}
		defer lame.close()
	}
	if err := s.start(b.readers); err != nil {
		return nil, err
	}
	if _, err := tr.publish(s, b.warmup); err != nil {
		return nil, err
	}
	m0, err := c.mark()
	if err != nil {
		return nil, err
	}
	own := cpuTime()
	res, err := tr.publish(s, b.duration)
	if err != nil {
		return nil, err
	}
	own = cpuTime() - own
	m1, err := c.mark()
	if err != nil {
		return nil, err
	}
	if err := s.check(tr.sent); err != nil {
		return nil, err
	}
	if l.stalled && m1.Stats.Ended == 0 {
		return nil, fmt.Errorf("the reader that stopped was not given up within %v: its buffers are not full yet, take a longer duration", b.warmup+b.duration)
	}
	if res.deliveries == 0 {
		return nil, fmt.Errorf("nothing was delivered in %v", b.duration)
	}
	return &sample{
		messages: res.messages, deliveries: res.deliveries, wall: res.wall,
		cpu: m1.CPU - m0.CPU, loadCPU: own, latency: res.latency,
	}, nil
}

// traffic says who publishes what in l.
func (l *load) traffic(s *swarm) *traffic {
	t := &traffic{payload: l.payload, acked: l.acked, noEcho: l.noEcho, rate: l.rate, nats: l.nats != ""}
	switch {
	case l.groups > 0:
		for g := range l.groups {
			publisher := s.conns[g%l.members] // the first member of the group
			if l.outsider {
				publisher = s.conns[l.members]
			}
			t.streams = append(t.streams, stream{groupName(g), publisher, groupSize})
		}
	case l.publishers > 0:
		receivers := l.members
		if l.noEcho {
			receivers--
		}
		for i := range l.publishers {
			t.streams = append(t.streams, stream{"bench", s.conns[i], receivers})
		}
	default:
		t.streams = []stream{{"bench", s.conns[l.members], l.members}}
	}
	return t
}

// floor is a round's bare figures, in CPU-seconds per million deliveries.
type floor map[string]float64

// bare measures the bare loop in the modes that matter at a rate.
func (b *bench) bare(members, payload int, rate float64) (floor, error) {
	modes := []bareMode{bareNetConn, bareRaw}
	if rate == 0 {
		modes = append(modes, bareRaw16)
	}
	f := floor{}
	for _, m := range modes {
		s, err := b.runBare(m, members, payload, rate)
		if err != nil {
			return nil, fmt.Errorf("bare loop, %s: %w", m.name, err)
		}
		f[m.name] = s.perMillion()
		name := fmt.Sprintf("Bare/mode=%s/members=%d/payload=%d/rate=%s", m.name, members, payload, rateName(rate))
		b.report.add(s.row(name, rate > 0))
	}
	return f, nil
}

// fanout measures one group of all members, in each subprotocol, beside the bare
// loop.
func (b *bench) fanout(members []int, payloads []int, rates []float64, protocols []string) error {
	for _, rate := range rates {
		for _, payload := range payloads {
			for _, n := range members {
				for round := range b.rounds {
					if err := b.fanoutRound(n, payload, rate, protocols, round); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func (b *bench) fanoutRound(members, payload int, rate float64, protocols []string, round int) error {
	l := load{members: members, payload: payload, rate: rate, acked: true, protocol: protocols[0]}
	b.say("fanout%s, round %d of %d", l.name(), round+1, b.rounds)
	f, err := b.bare(members, payload, rate)
	if err != nil {
		return b.failed("fanout"+l.name(), err)
	}
	for i, p := range protocols {
		if l.protocol = p; i > 0 {
			b.say("fanout%s, round %d of %d", l.name(), round+1, b.rounds)
		}
		s, err := b.runLoad(l)
		if err != nil {
			if err := b.failed("fanout"+l.name(), err); err != nil {
				return err
			}
			continue
		}
		ratios := []metric{
			{"x-netconn", s.perMillion() / f[bareNetConn.name]},
			{"x-write", s.perMillion() / f[bareRaw.name]},
		}
		if rate == 0 {
			ratios = append([]metric{{"x-write16", s.perMillion() / f[bareRaw16.name]}}, ratios...)
		}
		b.report.add(s.row("Fanout"+l.name(), rate > 0, ratios...))
		if p == plainJSON {
			b.fanoutGoals(l, s, ratios)
		}
	}
	return nil
}

// reliable measures the reliable subprotocol, whose deliveries have numbers and are
// kept until they are acknowledged, beside the plain one.
func (b *bench) reliable(members, payload int, rate float64) error {
	plain := load{members: members, payload: payload, rate: rate, acked: true}
	numbered := plain
	numbered.protocol = reliableJSON
	return b.pair("Reliable", plain, numbered, func(plain, numbered *sample) metric {
		v := numbered.perMillion() / plain.perMillion()
		g := goal{id: "-", what: fmt.Sprintf("reliable JSON, N=%d, %d B, %s: CPU over plain JSON", members, payload, rateName(rate)), unit: "x"}
		if rate == 0 && members == 1000 && payload == 128 {
			g.id, g.most = "T10", 2
		}
		b.report.goal(g, v)
		return metric{"x-plain", v}
	})
}

func (b *bench) fanoutGoals(l load, s *sample, ratios []metric) {
	where := fmt.Sprintf("N=%d, %d B, %s", l.members, l.payload, rateName(l.rate))
	switch {
	case l.rate == 0:
		g := goal{id: "-", what: where + ": CPU over the bare 16-frame loop", unit: "x"}
		if l.members == 1000 && l.payload == 128 {
			g.id, g.most = "T1", 1.3
		}
		b.report.goal(g, ratios[0].value)
	case l.rate == 100_000:
		g := goal{id: "-", what: where + ": CPU over the bare net.Conn loop", unit: "x"}
		if l.members >= 1000 && l.payload == 128 {
			g.id, g.most = "T2", 1.05
		}
		b.report.goal(g, ratios[0].value)
	case l.rate == 300_000 && l.payload == 2048:
		b.report.goal(goal{id: "T12", what: where + ": p99", unit: "ms", most: 50}, ms(s.latency.quantile(0.99)))
	}
}

// chat measures members that publish in turn, each to all others.
func (b *bench) chat(members, payload int, rate float64) error {
	one := load{members: members, payload: payload, rate: rate, acked: true}
	many := one
	many.publishers, many.noEcho = members, true
	return b.pair("Chat", one, many, func(one, many *sample) metric {
		v := many.perMillion() / one.perMillion()
		b.report.goal(goal{id: "T11b", what: fmt.Sprintf("chat with noEcho, N=%d, %s: CPU over one publisher", members, rateName(rate)), unit: "x", most: 1.5}, v)
		return metric{"x-one-publisher", v}
	})
}

// groups measures many small groups against one large one: published to by a
// member of each, and by one outsider, which shows what is due to reading from
// many connections.
func (b *bench) groups(members, payload, groups int, rate float64) error {
	one := load{members: members, payload: payload, rate: rate}
	many := one
	many.groups = groups
	outsider := many
	outsider.outsider = true
	relate := func(who string, most float64) func(one, many *sample) metric {
		return func(one, many *sample) metric {
			v := many.perMillion() / one.perMillion()
			id := "T11"
			if most == 0 {
				id = "-"
			}
			what := fmt.Sprintf("%d groups of %d, %s/s, %s: CPU over one group of %d", groups, groupSize, rateName(rate), who, members)
			b.report.goal(goal{id: id, what: what, unit: "x", most: most}, v)
			return metric{"x-one-group", v}
		}
	}
	if err := b.pair("Groups", one, many, relate("members publish", 1.3)); err != nil {
		return err
	}
	return b.pair("Groups", one, outsider, relate("one publishes", 0))
}

// stalled measures what a member that stops reading does to the others.
func (b *bench) stalled(members, payload int, rate float64) error {
	// Long enough for the stalled reader's buffers to fill and for the node to
	// give it up, so that both are in the figure.
	defer func(d time.Duration) { b.duration = d }(b.duration)
	b.duration = max(b.duration, 4*time.Second)
	without := load{members: members, payload: payload, rate: rate, acked: true}
	with := without
	with.stalled = true
	return b.pair("Stalled", without, with, func(without, with *sample) metric {
		v := float64(with.latency.quantile(0.99)) / float64(without.latency.quantile(0.99))
		b.report.goal(goal{id: "T9", what: fmt.Sprintf("a stalled reader, N=%d, %d B, %s/s: the others' p99", members, payload, rateName(rate)), unit: "x", most: 1.1}, v)
		return metric{"x-p99-without", v}
	})
}

// pair measures two loads in each round and relates the second to the first.
func (b *bench) pair(name string, first, second load, relate func(first, second *sample) metric) error {
	for round := range b.rounds {
		b.say("%s%s, round %d of %d", strings.ToLower(name), second.name(), round+1, b.rounds)
		s1, err := b.runLoad(first)
		if err != nil {
			if err := b.failed(name+"Base"+first.name(), err); err != nil {
				return err
			}
			continue
		}
		b.report.add(s1.row(name+"Base"+first.name(), first.rate > 0))
		s2, err := b.runLoad(second)
		if err != nil {
			if err := b.failed(name+second.name(), err); err != nil {
				return err
			}
			continue
		}
		b.report.add(s2.row(name+second.name(), second.rate > 0, relate(s1, s2)))
	}
	return nil
}

// idle measures the node's memory for a connection that is joined and silent.
func (b *bench) idle(members int) error {
	for round := range b.rounds {
		b.say("idle/members=%d, round %d of %d", members, round+1, b.rounds)
		if err := b.idleOnce(members); err != nil {
			return fmt.Errorf("idle: %w", err)
		}
	}
	return nil
}

func (b *bench) idleOnce(members int) error {
	c, err := b.node()
	if err != nil {
		return err
	}
	defer c.stop()
	t := target{addr: c.Addr, path: c.clientPath, groups: oneGroup("bench")}
	// A first connection brings in the code that all of them run.
	first, err := newSwarm(b.ctx, 1, minPayload, t)
	if err != nil {
		return err
	}
	first.close()
	return b.memory(c, "Idle", members, goal{id: "T6", what: fmt.Sprintf("RSS for each idle joined connection, %d of them, after %v", members, b.rest), unit: "B", most: 1024}, func() (func(), error) {
		s, err := newSwarm(b.ctx, members, minPayload, t)
		if err != nil {
			return nil, err
		}
		s.expect(1, func(int, int) bool { return true })
		return s.close, s.start(1) // pings are answered
	})
}

// memory measures what connections that connect makes add to the node c.
func (b *bench) memory(c *child, name string, members int, g goal, connect func() (func(), error)) error {
	m0, err := c.settled(func(m mark) bool { return m.Stats.Connections == 0 })
	if err != nil {
		return err
	}
	empty, err := c.rss()
	if err != nil {
		return err
	}
	start := time.Now()
	stop, err := connect()
	if stop != nil {
		defer stop()
	}
	if err != nil {
		return err
	}
	took := time.Since(start)
	fresh, err := c.rss()
	if err != nil {
		return err
	}
	// The node gives memory back by itself, in its own time.
	select {
	case <-time.After(b.rest):
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	full, err := c.rss()
	if err != nil {
		return err
	}
	m, err := c.settled(func(m mark) bool { return m.Stats.Memberships == int64(members) })
	if err != nil {
		return err
	}
	least, err := c.rss()
	if err != nil {
		return err
	}
	if b.profile != "" {
		if _, err := c.tell(command{Do: "heap"}); err != nil {
			return err
		}
	}
	each := float64(full-empty) / float64(members)
	b.report.add(row{
		name: fmt.Sprintf("%s/members=%d", name, members), n: int64(members), nsPerOp: float64(took.Nanoseconds()) / float64(members),
		metrics: []metric{
			{"RSS-B/conn", each},
			{"heap-B/conn", (float64(m.Heap) - float64(m0.Heap)) / float64(members)},
			{"RSS-at-once-B/conn", float64(fresh-empty) / float64(members)},
			{"RSS-after-GC-B/conn", float64(least-empty) / float64(members)},
			{"empty-RSS-MB", float64(empty) / 1e6},
			{"goroutines/conn", float64(m.Goroutines) / float64(members)},
		},
	})
	b.report.goal(g, each)
	return nil
}

// fileLimit raises this process's limit of open files as far as it may and
// returns it; children inherit it.
func fileLimit() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	r.Cur = r.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	return int(r.Cur), nil
}

// bares measures the bare loop alone.
func (b *bench) bares(members, payloads []int, rates []float64) error {
	for _, rate := range rates {
		for _, payload := range payloads {
			for _, n := range members {
				for round := range b.rounds {
					b.say("bare/members=%d/payload=%d/rate=%s, round %d of %d", n, payload, rateName(rate), round+1, b.rounds)
					if _, err := b.bare(n, payload, rate); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
