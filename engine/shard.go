package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// shard writes to its connections. Everything that leaves a connection, and
// every join, leave and end of it, is an entry of its shard's one queue, so the
// order in which things were queued is the order in which they happen.
//
// A turn takes all that has queued, encodes each message once per encoding, and
// gives every connection one contiguous run of bytes where it can. Nothing is
// done per member by publishers, and no goroutine wakes per delivery.
type shard struct {
	engine   *Engine
	index    int
	maxSends int

	mu      sync.Mutex // guards the queue; nothing else is locked under it
	arrived sync.Cond  // signalled when the queue is no longer empty
	waiting bool
	queue   []entry
	bytes   int           // of the messages in queue
	sends   int           // messages in queue for more than one connection
	stopped bool          // nothing is queued any more
	room    chan struct{} // closed when the queue is taken; nil while nobody waits

	full atomic.Bool // the queue is over its bounds

	// Owned by the loop.
	taken   []entry
	sets    map[*group]*memberSet
	holds   map[*membership]*held // watchers that wait for a snapshot
	codecs  map[Encoding]*encoder
	live    *Conn // the connections whose sink is open, linked
	plans   []plan
	peak    int // the most plans in one of the last turns
	most    int // the most entries in one of the last turns
	turns   uint
	scratch []byte
	spans   []Span
	places  []int
	private sync.Pool
	wheel   wheel
	pace    pace

	unfinished unfinishedList // has a mutex of its own

	delivered, deliveredBytes, dropped atomic.Int64
	done                               chan struct{}
}

// Bounds of a shard's queue: over them publishers wait for the shard to take
// it. They never wait for a client. What many may get is bounded more tightly
// (shard.maxSends), by half of what one connection may be owed: a turn must not
// by itself make a client that keeps up look slow.
const (
	maxQueued      = 16_384
	maxQueuedBytes = 16 << 20
)

type entryOp uint8

const (
	opPublish     entryOp = iota // message to all of group but conn and conns
	opSelected                   // message to conns
	opOpen                       // conn begins
	opJoin                       // member
	opLeave                      // member
	opMove                       // member leaves, to join again at once
	opReplace                    // member takes the place of old
	opPost                       // message to conn
	opFinish                     // conn ends: closing messages, flush, linger
	opGone                       // conn's wire is gone or has said goodbye
	opAbort                      // conn is cut
	opWritable                   // conn's sink has room
	opAcknowledge                // n of conn's deliveries have arrived
	opAckUpTo                    // so have all of them up to number seq
	opAckOne                     // so has the one that match finds
	opAttach                     // conn gets another wire
	opWireGone                   // one of conn's wires is gone; conn may outlive it
	opHandOver                   // conn's state is taken, and conn ends here
	opTask                       // conn's streams have changed, or its last message
	opHold                       // what member gets is kept back
	opRelease                    // member's message, and then what was kept back
	opTick                       // the wheel turns
	opStop                       // the engine is closed
)

// entry is one thing for a shard to do.
type entry struct {
	op      entryOp
	polite  bool // opGone: answer and flush before closing
	wire    WireID
	n       int // a count, or a SequenceID
	match   func(SequenceID) bool
	conn    *Conn
	group   *group
	member  *membership
	old     *membership
	message *Message
	conns   []*Conn
	opening *opening
	closing *closing
	taken   chan<- *deliveries // opHandOver
}

// opening is how a connection begins, or goes on with another wire.
type opening struct {
	encoding Encoding
	hello    *Message
	hold     bool       // until opWritable
	adopted  *ConnState // what it was elsewhere; nil for one that is new

	// Of opAttach.
	sink     Sink
	wire     WireID
	pings    time.Duration
	window   int
	underWay int
	counted  func(*Message, any) bool
}

// closing is what a connection is told at its end.
type closing struct {
	reason    EndReason
	text      string // of KindDisconnected; empty to leave it out
	code      CloseCode
	closeText string
}

func newShard(e *Engine, index int) *shard {
	s := &shard{
		engine: e, index: index, maxSends: max(1, e.limits.OutboundMessages/2),
		sets:   make(map[*group]*memberSet),
		codecs: make(map[Encoding]*encoder),
		done:   make(chan struct{}),
	}
	s.arrived.L = &s.mu
	s.private.New = func() any { return &Batch{home: &s.private} }
	s.wheel.init(e.clock.Now())
	s.unfinished.engine = e
	return s
}

// post appends entries, side by side. It never blocks. After opStop it does
// nothing.
func (s *shard) post(entries ...entry) {
	n, sends := 0, 0
	for i := range entries {
		if m := entries[i].message; m != nil {
			n += m.size()
		}
		if op := entries[i].op; op == opPublish || op == opSelected {
			sends++
		}
	}
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return
	}
	s.stopped = entries[len(entries)-1].op == opStop
	s.queue = append(s.queue, entries...)
	s.bytes += n
	s.sends += sends
	if s.sends > s.maxSends || len(s.queue) > maxQueued || s.bytes > maxQueuedBytes {
		s.full.Store(true)
	}
	if s.waiting {
		s.waiting = false
		s.arrived.Signal()
	}
	s.mu.Unlock()
}

// waitRoom returns once the queue is within its bounds again.
func (s *shard) waitRoom(ctx context.Context) error {
	for {
		if !s.full.Load() {
			return nil
		}
		s.mu.Lock()
		if !s.full.Load() {
			s.mu.Unlock()
			return nil
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room := s.room
		s.mu.Unlock()
		select {
		case <-room:
		case <-s.done:
			return errEngineClosed
		case <-ctx.Done():
			return contextError(ctx, "publish")
		}
	}
}

// loop runs until opStop.
func (s *shard) loop() {
	defer close(s.done)
	for {
		s.take()
		s.pace.begin(s.engine.clock.Now())
		for i := 0; i < len(s.taken); {
			if s.taken[i].op == opStop {
				s.flush()
				for s.live != nil {
					s.closeSink(s.live, false)
				}
				return
			}
			i += s.apply(s.taken[i:])
		}
		n, writes := s.flush()
		s.pace.end(s.engine.clock.Now(), n, writes)
		s.armTick()
		s.tidy()
	}
}

// tidy gives back what a turn and, in time, a burst of them have left behind.
func (s *shard) tidy() {
	clear(s.taken)
	if s.live == nil {
		s.plans, s.taken, s.scratch, s.spans, s.places, s.peak = nil, nil, nil, nil, nil, 0
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.queue = nil
		}
		s.mu.Unlock()
		return
	}
	s.most = max(s.most, len(s.taken))
	if s.turns++; s.turns%tidyTurns == 0 {
		if cap(s.plans) > 1024 && s.peak < cap(s.plans)/4 {
			s.plans = nil
		}
		if cap(s.taken) > 1024 && s.most < cap(s.taken)/4 {
			s.taken = nil
		}
		s.peak, s.most = 0, 0
	}
}

// tidyTurns is how many turns the memory of the plans, and of the queue, is kept
// for another turn as large.
const tidyTurns = 256

// take waits until something has queued, and for the window that the pace asks
// for, and then takes it all.
func (s *shard) take() {
	s.mu.Lock()
	for len(s.queue) == 0 {
		s.waiting = true
		s.arrived.Wait()
	}
	s.mu.Unlock()
	if w := s.pace.window(s.engine.clock.Now()); w > 0 {
		time.Sleep(w)
	}
	s.mu.Lock()
	s.queue, s.taken = s.taken[:0], s.queue
	s.bytes, s.sends = 0, 0
	s.full.Store(false)
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
	s.mu.Unlock()
}

// apply carries out the first of entries, or a run of publications to one
// group, and returns how many it did.
func (s *shard) apply(entries []entry) int {
	en := &entries[0]
	switch en.op {
	case opPublish:
		n := 1
		for n < len(entries) && entries[n].op == opPublish && entries[n].group == en.group {
			n++
		}
		if en.group.kind == TargetWatchers {
			s.publishState(en.group, entries[:n])
		} else {
			s.publish(en.group, entries[:n])
		}
		return n
	case opSelected:
		for _, c := range en.conns {
			if !c.takes(en.message) {
				continue
			}
			x := c.codec
			if x.selected != en.message {
				x.selected, x.at = en.message, -1
				if !en.message.expired(s.engine.clock.Now()) && s.append(x.shared, x, en.message) {
					x.at = x.shared.Len() - 1
				}
			}
			if x.at >= 0 {
				s.plan(c, x.shared, Span{x.at, x.at + 1}, nil)
			}
		}
	case opPost:
		if en.conn.takes(en.message) {
			s.solo(en.conn, en.message)
		}
	case opOpen:
		s.open(en.conn, en.opening)
	case opJoin:
		s.join(en.member)
	case opReplace:
		s.replace(en.old, en.member)
	case opLeave:
		s.leave(en.member)
		delete(s.holds, en.member)
	case opMove:
		s.leave(en.member)
	case opFinish:
		s.finish(en.conn, en.closing)
	case opGone:
		s.gone(en.conn, en.polite, en.closing)
	case opAbort:
		s.drop(en.conn)
	case opWritable:
		s.writable(en.conn)
	case opAcknowledge:
		if w := en.conn.window; w != nil {
			w.acknowledge(en.n)
			if en.conn.plan == 0 { // else deliver does, behind what this turn has for it
				s.writable(en.conn)
			}
		}
	case opAckUpTo:
		if d := en.conn.durable; d != nil && en.conn.state != connDead {
			d.replay.ackUpTo(SequenceID(en.n))
			s.reckon(en.conn)
		}
	case opAckOne:
		if d := en.conn.durable; d != nil && en.conn.state != connDead {
			d.replay.ackOne(en.match)
			s.reckon(en.conn)
		}
	case opAttach:
		s.attach(en.conn, en.opening)
	case opWireGone:
		s.wireGone(en.conn, en.wire, en.polite, en.closing)
	case opHandOver:
		s.handOver(en.conn, en.closing, en.taken)
	case opTask:
		s.task(en.conn)
	case opHold:
		s.hold(en.member)
	case opRelease:
		s.release(en.member, en.message)
	case opTick:
		s.tick()
	}
	return 1
}

// takes reports whether m is for c as it is now: while it has no wire, only what
// it is to get on the next one.
func (c *Conn) takes(m *Message) bool {
	return c.state == connOpen || c.state == connDetached && m.Kind.Numbered()
}
