package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// stream is one sequence of messages: a publisher and a group.
type stream struct {
	group     string
	publisher *conn
	receivers int
}

// traffic says what is published, and how fast.
type traffic struct {
	streams  []stream // take turns, message by message
	payload  int      // bytes
	acked    bool     // ask for acks, and count a message as under way until its ack came
	noEcho   bool
	nats     bool    // in the words of NATS, which has no acks and no noEcho
	rate     float64 // deliveries a second; 0 for as fast as inFlight allows
	inFlight int
	sent     []uint32 // per stream, kept between the parts of a run
	k        uint64   // the next message's number

	scratch, stamped []byte
}

// burst is what one part of a run showed.
type burst struct {
	messages   int64
	deliveries int64
	wall       time.Duration
	latency    *histogram
	late       time.Duration // how far publishing itself fell behind, at most
}

// patience is how long a run may go without progress.
const patience = 30 * time.Second

// publish publishes for d and returns once every member has got everything.
func (t *traffic) publish(s *swarm, d time.Duration) (*burst, error) {
	t.begin()
	s.latency() // forget what was before
	before, first := s.delivered(), t.k
	start := time.Now()
	var late time.Duration
	var err error
	if t.rate > 0 {
		late, err = t.paced(s, start, d)
	} else {
		err = t.saturate(s, start.Add(d))
	}
	if err != nil {
		return nil, err
	}
	if err := t.drain(s); err != nil {
		return nil, err
	}
	return &burst{
		messages: int64(t.k - first), deliveries: s.delivered() - before,
		wall: time.Since(start), latency: s.latency(), late: late,
	}, nil
}

// publishEach publishes n messages in every stream, inFlight of them under way,
// and returns once every member has got everything.
func (t *traffic) publishEach(s *swarm, n int) error {
	t.begin()
	for range n * len(t.streams) {
		for t.underWay(s) >= uint64(t.inFlight) {
			if err := t.wait(s); err != nil {
				return err
			}
		}
		if err := t.add(s, time.Now().UnixNano()).flush(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return t.drain(s)
}

// begin makes room for what a run keeps, once.
func (t *traffic) begin() {
	if t.sent == nil {
		t.sent = make([]uint32, len(t.streams))
		t.stamped = make([]byte, t.payload)
	}
}

// saturate keeps inFlight messages under way. A message is under way until its
// last member has it and, where it is acked, its ack has come.
func (t *traffic) saturate(s *swarm, until time.Time) error {
	for time.Now().Before(until) {
		if t.underWay(s) >= uint64(t.inFlight) {
			if err := t.wait(s); err != nil {
				return err
			}
			continue
		}
		now := time.Now().UnixNano()
		var last *conn
		for t.underWay(s) < uint64(t.inFlight) {
			c := t.add(s, now)
			if last != nil && last != c {
				if err := last.flush(); err != nil {
					return fmt.Errorf("publish: %w", err)
				}
			}
			last = c
		}
		if err := last.flush(); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	return nil
}

// paced publishes each message when it is due, whatever has become of those
// before it.
func (t *traffic) paced(s *swarm, start time.Time, d time.Duration) (late time.Duration, err error) {
	// The runtime's timers are a millisecond coarse, the thread's are not.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	deliveries := 0.0
	for {
		due := start.Add(time.Duration(deliveries / t.rate * float64(time.Second)))
		if due.Sub(start) >= d {
			return late, nil
		}
		if wait := time.Until(due); wait > 0 {
			ts := unix.NsecToTimespec(int64(wait))
			unix.Nanosleep(&ts, nil) // an early return is seen below
			if time.Until(due) > 0 {
				continue
			}
		}
		late = max(late, time.Since(due))
		if t.underWay(s) >= ring-1 {
			return 0, fmt.Errorf("overload: %d messages under way at %.0f deliveries/s", ring-1, t.rate)
		}
		if err := s.err(); err != nil {
			return 0, err
		}
		deliveries += float64(t.streams[t.k%uint64(len(t.streams))].receivers)
		if err := t.add(s, due.UnixNano()).flush(); err != nil {
			return 0, fmt.Errorf("publish: %w", err)
		}
	}
}

func (t *traffic) underWay(s *swarm) uint64 { return t.k - s.completed.Load() }

// add makes the next message and puts it into its publisher's buffer.
func (t *traffic) add(s *swarm, due int64) *conn {
	i := int(t.k % uint64(len(t.streams)))
	st := &t.streams[i]
	stamp{k: t.k, stream: uint32(i), seq: uint64(t.sent[i]), due: due}.put(t.stamped)
	missing := int32(st.receivers)
	if t.acked {
		missing++
	}
	s.left[t.k%ring].Store(missing)
	c := st.publisher
	if t.nats {
		c.out, t.scratch = appendNATSPublish(c.out, t.scratch, st.group, t.stamped)
	} else {
		c.out, t.scratch = appendPublish(c.out, t.scratch, st.group, t.k+1, t.acked, t.noEcho, t.stamped)
	}
	t.sent[i]++
	t.k++
	return c
}

// wait waits for a message to be complete.
func (t *traffic) wait(s *swarm) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case <-s.wake:
		return s.err()
	case <-s.failed:
		return s.err()
	case <-timeout.C:
		return fmt.Errorf("not exact: %d messages are under way and nothing arrived for %v", t.underWay(s), patience)
	}
}

// drain waits until nothing is under way.
func (t *traffic) drain(s *swarm) error {
	for t.underWay(s) > 0 {
		if err := t.wait(s); err != nil {
			return err
		}
	}
	return s.err()
}
