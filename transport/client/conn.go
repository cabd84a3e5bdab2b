package client

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// conn is a logical connection. With a reliable subprotocol it outlives its wires.
type conn struct {
	// Fixed at birth.
	hello    Connected
	url      string // what it was dialed with; it holds a token
	reliable bool
	over     chan struct{} // closed by end
	behind   chan struct{} // holds one value when much is to be acknowledged

	// Owned by the goroutine that runs the client.
	tried     time.Time // when recovery was last attempted; zero for never
	dismissed bool      // the server has said that it ends the connection

	seen  atomic.Uint64 // the highest sequence id that was handed on
	acked atomic.Uint64 // the highest that was acknowledged, as far as is known

	mu      sync.Mutex // guards the rest
	token   string     // what recovers it
	acks    map[uint64]*pending
	streams map[string]*Stream
	err     error // why it ended
}

func newConn(url string, reliable bool) *conn {
	return &conn{
		url: url, reliable: reliable, over: make(chan struct{}), behind: make(chan struct{}, 1),
		acks: make(map[uint64]*pending), streams: make(map[string]*Stream),
	}
}

// pending is a request that waits for its ack.
type pending struct {
	req   *request
	bytes []byte
	wire  *wire      // the last one that it is or will be written to; guarded by conn.mu
	done  chan error // holds one
}

// expect registers a request that waits for its ack and is about to be written
// to w.
func (k *conn) expect(p *pending, w *wire) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	p.wire = w
	k.acks[p.req.ackID] = p
	return nil
}

// take removes and returns the request that waits for ackID; nil if none does.
func (k *conn) take(ackID uint64) *pending {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.acks[ackID]
	delete(k.acks, ackID)
	return p
}

// move reports whether p, which was to be written to w, is to be written to next
// by its caller: nobody else has seen to it meanwhile.
func (k *conn) move(p *pending, w, next *wire) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p.wire != w || k.acks[p.req.ackID] != p {
		return false
	}
	p.wire = next
	return true
}

// unanswered returns all requests that wait for an ack, in the order in which
// they were made, as about to be written to w.
func (k *conn) unanswered(w *wire) []*pending {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*pending, 0, len(k.acks))
	for _, p := range k.acks {
		p.wire = w
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pending) int {
		if a.req.ackID < b.req.ackID {
			return -1
		}
		return 1 // ids are unique
	})
	return all
}

// stream returns the stream of that id; nil if there is none.
func (k *conn) stream(id string) *Stream {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.streams[id]
}

// begin registers a stream and lets its pump run in tasks, whose end is waited for
// after that of the connection.
func (k *conn) begin(s *Stream, tasks *sync.WaitGroup) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	k.streams[s.id] = s
	tasks.Go(s.pump)
	return nil
}

func (k *conn) forget(s *Stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.streams, s.id)
}

// secret returns what recovers the connection; empty if nothing does.
func (k *conn) secret() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.token
}

// keep notes the token that recovers the connection.
func (k *conn) keep(token string) {
	if token == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.token = token
}

// fresh reports whether a delivery was not seen before. Deliveries come in order,
// and again from the first that the server has no acknowledgement of.
func (k *conn) fresh(seq uint64) bool { return !k.reliable || seq == 0 || seq > k.seen.Load() }

// hurry is how many messages may be unacknowledged before the second is over. A
// server keeps a thousand.
const hurry = 300

// saw notes a delivery that was handed on.
func (k *conn) saw(seq uint64) {
	if !k.reliable || seq == 0 {
		return
	}
	k.seen.Store(seq)
	if seq > k.acked.Load()+hurry {
		select {
		case k.behind <- struct{}{}:
		default:
		}
	}
}

// end ends the connection, once, and fails all who wait on it.
func (k *conn) end(err error) {
	k.mu.Lock()
	if k.err != nil {
		k.mu.Unlock()
		return
	}
	k.err = err
	acks, streams := k.acks, k.streams
	k.acks, k.streams = nil, nil
	close(k.over)
	k.mu.Unlock()
	for _, p := range acks {
		p.done <- err
	}
	for _, s := range streams {
		s.end(err)
	}
}
