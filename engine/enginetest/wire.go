package enginetest

import (
	"context"
	"errors"
	"sync"

	"github.com/fanfare/fanfare/engine"
)

// Wire is a sink whose far end is in the same program. Like a socket it takes
// bytes while it has room and stops in the middle of a message when it has not.
// The zero value has room without end and answers a close at once.
type Wire struct {
	// KeepOpen leaves a close unanswered, as a far end that hangs.
	KeepOpen bool

	mu      sync.Mutex // guards the rest
	conn    *engine.Conn
	id      engine.WireID
	bounded bool
	room    int // bytes it still takes, if bounded
	starved bool
	got     []byte
	batches []*engine.Batch
	closed  bool
	broken  error
	changed chan struct{}
}

var _ engine.Sink = (*Wire)(nil)

// Bind tells the wire its connection; it is for [engine.OpenOptions].Bind.
func (w *Wire) Bind(c *engine.Conn, id engine.WireID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn, w.id = c, id
}

// WireID returns the wire's number among those of its connection.
func (w *Wire) WireID() engine.WireID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.id
}

// Limit makes the wire take n more bytes and then no more, until it is called
// again; negative means without end.
func (w *Wire) Limit(n int) {
	w.mu.Lock()
	w.bounded, w.room = n >= 0, n
	wake := w.starved && n != 0
	if wake {
		w.starved = false
	}
	c := w.conn
	w.mu.Unlock()
	if wake && c != nil {
		c.Writable()
	}
}

// Break makes the next write fail.
func (w *Wire) Break() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = errors.New("the wire is broken")
}

// Bytes returns all that the wire has taken.
func (w *Wire) Bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]byte(nil), w.got...)
}

// Batches returns the batches whose messages the wire was offered, in order;
// for comparing identities only, since their memory is used again.
func (w *Wire) Batches() []*engine.Batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*engine.Batch(nil), w.batches...)
}

// Closed reports whether the engine has closed the sink.
func (w *Wire) Closed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// Await returns once enough is true of what the wire has taken and of whether
// it is closed, or ctx ends.
func (w *Wire) Await(ctx context.Context, enough func(got []byte, closed bool) bool) error {
	for {
		w.mu.Lock()
		if enough(w.got, w.closed) {
			w.mu.Unlock()
			return nil
		}
		if w.changed == nil {
			w.changed = make(chan struct{})
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Offer implements [engine.Sink].
func (w *Wire) Offer(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.notify()
	if w.closed {
		return 0, 0, errors.New("enginetest: a write after close")
	}
	if w.broken != nil {
		return 0, 0, w.broken
	}
	w.batches = append(w.batches, b)
	for _, span := range spans {
		for i := span.From; i < span.To; i++ {
			p := b.Bytes(engine.Span{From: i, To: i + 1})
			if taken := w.take(p); taken < len(p) {
				return n, taken, nil
			}
			n++
			w.answer(b.Message(i))
		}
	}
	return n, 0, nil
}

// OfferBytes implements [engine.Sink].
func (w *Wire) OfferBytes(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.notify()
	if w.broken != nil {
		return 0, w.broken
	}
	return w.take(p), nil
}

// Held implements [engine.Sink].
func (w *Wire) Held() int { return 0 }

// Close implements [engine.Sink].
func (w *Wire) Close(bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.notify()
}

func (w *Wire) take(p []byte) int {
	n := len(p)
	if w.bounded && n > w.room {
		n, w.starved = w.room, true
	}
	w.room -= n
	w.got = append(w.got, p[:n]...)
	return n
}

// answer plays the far end, which closes when it is told to.
func (w *Wire) answer(m *engine.Message) {
	if m.Kind != engine.KindClose || w.KeepOpen {
		return
	}
	w.conn.Gone(w.id, m.CloseCode, "")
}

func (w *Wire) notify() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}
