//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// The processes that are measured are this test program, in another role.
func TestMain(m *testing.M) {
	if handled, err := asChild(); handled {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestStamp(t *testing.T) {
	for _, size := range []int{minPayload, 128, 2048} {
		p := make([]byte, size)
		want := stamp{k: 1 << 60, stream: 1 << 31, seq: 12345, due: time.Now().UnixNano()}
		want.put(p)
		if got, err := readStamp(p); err != nil || got != want {
			t.Errorf("readStamp of %d bytes = %+v, %v, want %+v", size, got, err, want)
		}
		for i := range p {
			damaged := bytes.Clone(p)
			damaged[i] ^= 1
			if _, err := readStamp(damaged); err == nil {
				t.Fatalf("byte %d of %d may change unseen", i, size)
			}
		}
	}
	if _, err := readStamp(make([]byte, minPayload-1)); err == nil {
		t.Error("a payload without room for a stamp was taken")
	}
}

func TestHistogram(t *testing.T) {
	var h, other histogram
	var all []int64
	for i := range 20_000 {
		v := int64(rand.ExpFloat64() * float64(5*time.Millisecond))
		all = append(all, v)
		if i%2 == 0 {
			h.add(v)
		} else {
			other.add(v)
		}
	}
	h.merge(&other)
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.99, 0.999, 1} {
		want := float64(all[min(len(all)-1, int(q*float64(len(all))))])
		if got := float64(h.quantile(q)); got < want*0.95 || got > want*1.05+1 {
			t.Errorf("quantile(%v) = %v, want about %v", q, time.Duration(got), time.Duration(want))
		}
	}
	for _, v := range []int64{0, 1, 31, 32, 33, 63, 64, 1 << 20, 1<<40 + 12345} {
		if i := bucket(v); top(i) < v || (i > 0 && top(i-1) >= v) {
			t.Errorf("%d is in bucket %d, from %d to %d", v, i, top(i-1)+1, top(i))
		}
	}
}

func TestSplit(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 1000, 65535, 65536, maxFrame} {
		body := bytes.Repeat([]byte{'x'}, n)
		b := append(appendHeader(nil, ws.OpText, n), body...)
		for _, cut := range []int{0, 1, 2, 3, len(b) - 1} {
			if cut >= len(b) {
				continue
			}
			if _, _, ok, bad := split(b[:cut]); ok || bad {
				t.Errorf("a frame of %d bytes, cut after %d: ok %v, bad %v", n, cut, ok, bad)
			}
		}
		f, rest, ok, bad := split(append(b, 'r'))
		if !ok || bad || f.op != ws.OpText || !bytes.Equal(f.body, body) || string(rest) != "r" {
			t.Errorf("a frame of %d bytes was not split off: ok %v, bad %v", n, ok, bad)
		}
	}
	for name, b := range map[string][]byte{
		"masked":     {0x81, 0x81, 0, 0, 0, 0, 'x'},
		"compressed": {0xc1, 1, 'x'},
		"fragment":   {0x01, 1, 'x'},
		"too large":  appendHeader(nil, ws.OpText, maxFrame+1),
	} {
		if _, _, _, bad := split(b); !bad {
			t.Errorf("%s: not found bad", name)
		}
	}
}

func TestPayloadOf(t *testing.T) {
	p := make([]byte, 100)
	stamp{k: 7}.put(p)
	f, _, ok, _ := split(appendEnvelope(nil, p))
	if !ok || !bytes.Equal(payloadOf(f.body, 100), p) {
		t.Error("the payload of the bare loop's envelope was not found")
	}
	other := fmt.Appendf(nil, `{"type":"message","data":"%s","group":"g"}`, p)
	if !bytes.Equal(payloadOf(other, 100), p) {
		t.Error("a payload that is not the last field was not found")
	}
	for _, s := range []string{`{"type":"ack","ackId":7,"success":true}`, `{"data":"short"}`, ``} {
		if got := payloadOf([]byte(s), 100); got != nil {
			t.Errorf("payloadOf(%s) = %q", s, got)
		}
	}
	if id, success, ok := ackOf([]byte(`{"type":"ack","ackId":18446744073709551615,"success":false}`)); id != 1<<64-1 || success || !ok {
		t.Errorf("ackOf = %d, %v, %v", id, success, ok)
	}
}

// forger is a server that can be told to cheat.
type forger struct {
	t     *testing.T
	l     net.Listener
	cheat func(f *forger, k int, frame []byte) // in place of handing frame to all members
	nack  int                                  // which publish is refused, from 1

	mu      sync.Mutex
	members []net.Conn
	k       int
	held    []byte
}

func forge(t *testing.T, f *forger) *forger {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.t, f.l = t, l
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { f.serve(c) })
		}
	})
	return f
}

func (f *forger) serve(c net.Conn) {
	defer c.Close()
	u := ws.Upgrader{Protocol: func([]byte) bool { return true }}
	if _, err := u.Upgrade(c); err != nil {
		return
	}
	say := func(s string, args ...any) {
		s = fmt.Sprintf(s, args...)
		c.Write(append(appendHeader(nil, ws.OpText, len(s)), s...))
	}
	say(`{"type":"system","event":"connected","connectionId":"c"}`)
	for {
		fr, err := ws.ReadFrame(c)
		if err != nil {
			return
		}
		p := ws.UnmaskFrameInPlace(fr).Payload
		ack, _, _ := ackOf(append(bytes.Clone(p), `"type":"ack"`...))
		f.mu.Lock()
		if bytes.Contains(p, []byte("joinGroup")) {
			f.members = append(f.members, c)
			say(`{"type":"ack","ackId":%d,"success":true}`, ack)
		} else {
			frame := appendEnvelope(nil, payloadOf(p, 128))
			f.k++
			if f.cheat != nil {
				f.cheat(f, f.k, frame)
			} else {
				f.toAll(frame)
			}
			say(`{"type":"ack","ackId":%d,"success":%v}`, ack, f.k != f.nack)
		}
		f.mu.Unlock()
	}
}

// forged is the number of members that a run knows of; who joins after them is
// a stranger to it.
const forged = 2

func (f *forger) toAll(frame []byte) {
	for _, c := range f.members[:forged] {
		c.Write(frame)
	}
}

// A run has a figure only if it is exact: every way of being wrong is noticed.
func TestWhatIsNotExactHasNoFigure(t *testing.T) {
	only := func(n int, do func(f *forger, frame []byte)) func(*forger, int, []byte) {
		return func(f *forger, k int, frame []byte) {
			if k == n {
				do(f, frame)
			} else {
				f.toAll(frame)
			}
		}
	}
	for name, test := range map[string]struct {
		cheat func(f *forger, k int, frame []byte)
		nack  int
		want  string
	}{
		"faithful": {},
		"lost": {cheat: only(20, func(f *forger, frame []byte) {
			f.members[0].Write(frame)
		}), want: "got message 20 of stream 0, 19 expected"},
		"twice": {cheat: only(20, func(f *forger, frame []byte) {
			f.toAll(frame)
			f.members[1].Write(frame)
		}), want: "got message 19"},
		"out of order": {cheat: func(f *forger, k int, frame []byte) {
			switch k {
			case 20:
				f.held = bytes.Clone(frame)
			case 21:
				f.toAll(frame)
				f.toAll(f.held)
			default:
				f.toAll(frame)
			}
		}, want: "got message 20"},
		"damaged": {cheat: only(20, func(f *forger, frame []byte) {
			f.members[0].Write(frame)
			frame[len(frame)-20] ^= 1
			f.members[1].Write(frame)
		}), want: "damaged"},
		"cut": {cheat: only(20, func(f *forger, frame []byte) {
			f.members[0].Write(frame)
			f.members[1].Close()
		}), want: "ended a connection: connection 1"},
		"closed": {cheat: only(20, func(f *forger, frame []byte) {
			f.members[0].Write(frame)
			f.members[1].Write(ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1001, ""))))
		}), want: "closed connection 1"},
		"something else": {cheat: only(20, func(f *forger, frame []byte) {
			f.members[0].Write(frame)
			f.members[1].Write([]byte("\x81\x02{}"))
		}), want: "got \"{}\""},
		"no frame": {cheat: only(20, func(f *forger, frame []byte) {
			f.members[0].Write(frame)
			f.members[1].Write([]byte("HTTP/1.1"))
		}), want: "no frame"},
		"to a stranger": {cheat: only(20, func(f *forger, frame []byte) {
			f.toAll(frame)
			f.members[forged].Write(frame)
		}), want: "must not get"},
		"refused": {nack: 20, want: "whose last ack was 19"},
	} {
		t.Run(name, func(t *testing.T) {
			f := forge(t, &forger{cheat: test.cheat, nack: test.nack})
			addr := f.l.Addr().(*net.TCPAddr).AddrPort()
			s := &swarm{size: 128, failed: make(chan struct{}), wake: make(chan struct{}, 1)}
			defer s.close()
			// One after the other, so that connection i is the forger's member i: the
			// members, a stranger, the publisher.
			for i := range forged + 2 {
				groups := []string{"bench"}
				if i > forged {
					groups = nil
				}
				c, err := dial(i, target{addr: addr, path: func(int) string { return "/" }, groups: func(int) []string { return groups }})
				if err != nil {
					t.Fatal(err)
				}
				c.swarm = s
				s.conns = append(s.conns, c)
			}
			s.expect(1, func(i, _ int) bool { return i < forged })
			if err := s.start(2); err != nil {
				t.Fatal(err)
			}
			tr := &traffic{streams: []stream{{"bench", s.conns[forged+1], forged}}, payload: 128, acked: true, inFlight: 8}
			b, err := tr.publish(s, time.Second)
			if err == nil {
				err = s.check(tr.sent)
			}
			if test.want == "" {
				if err != nil || b.messages < 20 || b.deliveries != forged*b.messages || b.latency.n != b.deliveries {
					t.Fatalf("publish = %+v, %v", b, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "not exact") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one with %q", err, test.want)
			}
		})
	}
}

// What is missing at the end is noticed, too: nobody waits for it for ever.
func TestCheckFindsWhatIsMissing(t *testing.T) {
	s := &swarm{conns: []*conn{{index: 0, next: []uint32{5, absent}}, {index: 1, next: []uint32{4, 2}}}}
	if err := s.check([]uint32{5, 2}); err == nil || !strings.Contains(err.Error(), "connection 1 got 4 of the 5") {
		t.Errorf("check = %v", err)
	}
	s.conns[1].next[0] = 5
	if err := s.check([]uint32{5, 2}); err != nil {
		t.Errorf("check = %v", err)
	}
	s.conns[0].partial = []byte("x")
	if err := s.check([]uint32{5, 2}); err == nil {
		t.Error("a part of a frame was not noticed")
	}
}

func TestGroupsOfTen(t *testing.T) {
	l := load{members: 1000, groups: 10_000}
	perConn := make([]int, l.members)
	for g := range l.groups {
		n := 0
		for i := range l.members {
			if l.member(i, g) {
				n++
				perConn[i]++
			}
		}
		if n != groupSize {
			t.Fatalf("group %d has %d members", g, n)
		}
	}
	for i, n := range perConn {
		if n != 100 || (i == 42 && len(l.groupsOf(i)) != n) {
			t.Fatalf("connection %d is in %d groups", i, n)
		}
	}
}

// Every scenario runs, is exact, and writes a line that benchstat reads.
func TestScenarios(t *testing.T) {
	for args, want := range map[string]string{
		"fanout --members 20 --payload 64 --rate saturated,2000":                          "BenchmarkFanout/members=20/payload=64/rate=2000/codec=json-",
		"fanout --members 20 --payload 64 --rate saturated --protocol json,json.reliable": "BenchmarkFanout/members=20/payload=64/rate=saturated/codec=json.reliable-",
		"reliable --members 20 --rate saturated":                                          "BenchmarkReliable/members=20/payload=128/rate=saturated/codec=json.reliable-",
		"bare --members 5 --rate 1000":                                                    "BenchmarkBare/mode=write/members=5/",
		"chat --members 20":                                                               "BenchmarkChat/members=20/",
		"groups --members 1000 --groups 50 --rate 2000":                                   "BenchmarkGroups/members=1000/",
		"stalled --members 5 --payload 100000 --rate 1000":                                "BenchmarkStalled/members=5/",
		"churn --members 50":                                                              "BenchmarkChurn/conns=50",
		"idle --members 100":                                                              "BenchmarkIdle/members=100",
		"idle-tls --members 10":                                                           "BenchmarkIdleTLS/members=10",
		"users --users 2000":                                                              "BenchmarkUsers/store=file/users=2000/step=again-",
	} {
		t.Run(args, func(t *testing.T) {
			var out strings.Builder
			list := append(strings.Fields(args), "--rounds", "1", "--duration", "200ms", "--warmup", "50ms", "--rest", "100ms")
			if err := run(context.Background(), list, &out, io.Discard); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), want) || !strings.Contains(out.String(), "# medians") {
				t.Errorf("output:\n%s", out.String())
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, args := range []string{
		"", "--members 1", "nothing", "fanout --members 0", "fanout --members x", "fanout --payload 63", "fanout --rate -1", "fanout --protocol mqtt",
		"fanout --rounds 0", "users --users 0", "fanout more", "fanout --inflight 100000", "fanout --what",
	} {
		err := run(context.Background(), strings.Fields(args), io.Discard, io.Discard)
		if _, ok := err.(*usageError); !ok {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
}

func TestReport(t *testing.T) {
	var out strings.Builder
	r := &report{out: &out}
	for _, v := range []float64{3, 1, 2} {
		r.add(row{name: "X/n=1", n: 10, nsPerOp: 1.5, metrics: []metric{{"cpu-s/M", v}}})
		r.goal(goal{id: "T", what: "w", unit: "x", most: 2}, v)
		r.goal(goal{id: "U", what: "w", unit: "x", least: 2.5}, v)
	}
	r.summary(&out)
	for _, want := range []string{"\t        10\t         1.5 ns/op\t         3 cpu-s/M\n", "2 cpu-s/M (3.00x)", "<= 2 x reached", ">= 2.5 x MISSED"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing from\n%s", want, out.String())
		}
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median = %v", m)
	}
}

// A NATS server may cut its stream of lines into WebSocket messages anywhere.
func TestNATSFeed(t *testing.T) {
	const size, messages = 128, 50
	var all []byte
	payload := make([]byte, size)
	all = append(all, "INFO {}\r\n+OK\r\n"...)
	for k := range messages {
		stamp{k: uint64(k), seq: uint64(k), due: 1}.put(payload)
		all = append(fmt.Appendf(all, "MSG bench 1 %d\r\n%s\r\n", size, payload), "PONG\r\n"...)
	}
	for range 50 {
		s := &swarm{size: size, failed: make(chan struct{}), wake: make(chan struct{}, 1)}
		r := &reader{swarm: s, seen: make([]seen, seenRing), counts: make([]int32, ring)}
		c := &conn{swarm: s, next: make([]uint32, 1), nats: new([]byte)}
		var n int64
		for rest := all; len(rest) > 0; {
			cut := 1 + rand.IntN(min(len(rest), 300))
			n += r.natsFeed(c, bytes.Clone(rest[:cut]))
			rest = rest[cut:]
		}
		if err := s.err(); err != nil || n != messages || c.next[0] != messages || len(*c.nats) != 0 {
			t.Fatalf("%d of %d messages, %q left, %v", n, messages, *c.nats, err)
		}
	}
	for _, bad := range []string{"-ERR 'Slow Consumer'\r\n", "MSG bench 1 7\r\n", "MSG bench 1 x\r\n"} {
		s := &swarm{size: size, failed: make(chan struct{})}
		r := &reader{swarm: s}
		r.natsFeed(&conn{swarm: s, nats: new([]byte)}, []byte(bad))
		if s.err() == nil {
			t.Errorf("%q was not noticed", bad)
		}
	}
}

// On a reliable connection the server's own numbers must be right, too.
func TestSequenceIDs(t *testing.T) {
	for name, test := range map[string]struct {
		frames []string
		want   string // what the run fails with; empty for not at all
	}{
		"in order":  {frames: []string{`{"sequenceId":1,"a":1}`, `{"sequenceId":2,"a":1}`}},
		"twice":     {frames: []string{`{"sequenceId":1}`, `{"sequenceId":1}`}, want: "sequence id 2 expected"},
		"a gap":     {frames: []string{`{"sequenceId":2}`}, want: "sequence id 1 expected"},
		"none":      {frames: []string{`{"a":1}`}, want: "sequence id 1 expected"},
		"no number": {frames: []string{`{"sequenceId":"1"}`}, want: "sequence id 1 expected"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &swarm{failed: make(chan struct{})}
			r, c := &reader{swarm: s}, &conn{swarm: s, reliable: true}
			for _, body := range test.frames {
				f := frame{body: []byte(body)}
				if r.number(c, &f) && string(f.body) != `,"a":1}` && test.want == "" {
					t.Errorf("what remains of %s is %s", body, f.body)
				}
			}
			if err := s.err(); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q", err, test.want)
			}
		})
	}
}
