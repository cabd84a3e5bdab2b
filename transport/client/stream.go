package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/fanfare/fanfare/engine"
)

const (
	// streamWindow and streamBytes bound what a stream keeps of parts that the
	// server has not acknowledged: so many, and their frames of so many bytes,
	// beside the last one.
	streamWindow = 64
	streamBytes  = 1 << 20
	// maxStreamIdle, maxStreamMessage and maxStreamCode are what nodes accept; they
	// would end the connection of a client that says more.
	maxStreamIdle    = 24 * time.Hour
	maxStreamMessage = 4096
	maxStreamCode    = 256
	// streamPause is how long a publisher waits with parts that the server could
	// not take.
	streamPause = 100 * time.Millisecond
)

// errStreamOver is what a stream that was ended by its own program returns.
var errStreamOver = errors.New("client: the stream was closed")

// StreamOptions refine a stream.
type StreamOptions struct {
	// NoEcho leaves this connection out of the receivers.
	NoEcho bool
	// IdleTimeout is how long the server waits for a sign of life before it ends
	// the stream, from a millisecond to a day. The client gives one in half of that
	// time, whatever the program does, so this is how soon subscribers learn that
	// the client is gone. Default 5 min.
	IdleTimeout time.Duration
}

// Stream publishes a message to a group in parts, which subscribers get as they
// come, in order and each once: as a [Message] with its Stream set. A recovered
// connection goes on with its streams; another end of the connection ends them.
// The methods may be called concurrently. A stream that is not closed stays with
// the client until that is.
type Stream struct {
	// Fixed at birth.
	client *Client
	conn   *conn
	id     string
	start  []byte // the frame that begins it
	idle   time.Duration
	work   chan struct{} // holds one value when there may be something to write
	over   chan struct{} // closed by end

	mu      sync.Mutex    // guards the rest
	changed chan struct{} // closed, and replaced, when one of those below changes
	parts   [][]byte      // the frames that the server has not acknowledged, oldest first
	bytes   int           // of parts
	first   uint64        // the number of parts[0]
	closing bool          // nothing more comes from the program
	last    []byte        // the frame that ends it; nil until closing
	begun   bool          // the server knows the stream
	pausing bool          // the server could not take parts[0] for the moment
	err     error         // why it is over, unless its program ended it
	said    told          // what was written to the last wire
	before  told          // what was written to wires that are lost
}

// told is how much of a stream was written to a wire.
type told struct {
	start, end bool
	parts      int // of those that are not acknowledged
}

// OpenStream begins a stream to a group, of which the client need not be a member,
// and returns when the server has acknowledged it. A refusal is a [*StreamError].
func (c *Client) OpenStream(ctx context.Context, group string, o *StreamOptions) (*Stream, error) {
	if err := c.admit(ctx, verbStreamStart); err != nil {
		return nil, err
	}
	defer c.leave()
	if o == nil {
		o = &StreamOptions{}
	}
	if d := o.IdleTimeout; d != 0 && (d < time.Millisecond || d > maxStreamIdle) {
		return nil, fmt.Errorf("client: IdleTimeout %v is not between 1ms and %v", d, maxStreamIdle)
	}
	s := &Stream{
		client: c, id: strconv.FormatUint(c.number(), 10), idle: o.IdleTimeout, first: 1,
		work: make(chan struct{}, 1), over: make(chan struct{}), changed: make(chan struct{}),
	}
	var err error
	r := &request{verb: verbStreamStart, name: group, id: s.id, noEcho: o.NoEcho, idle: o.IdleTimeout}
	if s.start, err = c.protocol.encode(r); err != nil {
		return nil, err
	}
	if s.idle == 0 {
		s.idle = engine.DefaultStreamIdle
	}
	w, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	s.conn = w.conn
	if err := s.conn.begin(s, &c.tasks); err != nil {
		return nil, err
	}
	err = s.await(ctx, func() bool { return s.begun })
	if err == nil {
		return s, nil
	}
	// Should the server still answer, the stream ends at once.
	if e := s.finish(&engine.StreamError{Message: "The publisher gave up."}); e != nil {
		return nil, e
	}
	return nil, err
}

// ID returns the stream's name, by which subscribers know its parts. It is unique
// among the streams of the connection.
func (s *Stream) ID() string { return s.id }

// Send publishes the next part. It returns once the part is on its way, and waits
// while the server has not acknowledged some dozens of them or a MiB. If it fails
// the part will not be published. What becomes of the last ones is known when Close
// has returned.
func (s *Stream) Send(ctx context.Context, p engine.Payload) error {
	for {
		s.mu.Lock()
		if err := s.usable(); err != nil {
			s.mu.Unlock()
			return err
		}
		if len(s.parts) == 0 || len(s.parts) < streamWindow && s.bytes < streamBytes {
			break
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer s.mu.Unlock()
	r := &request{verb: verbStreamData, id: s.id, seq: s.first + uint64(len(s.parts)), payload: &p}
	b, err := s.client.protocol.encode(r)
	if err != nil {
		return err
	}
	s.parts = append(s.parts, b)
	s.bytes += len(b)
	s.wake()
	return nil
}

// usable returns why nothing more can be published; nil if it can. s.mu is held.
func (s *Stream) usable() error {
	select {
	case <-s.over:
		if s.err != nil {
			return s.err
		}
		return errStreamOver
	default:
	}
	if s.closing {
		return errStreamOver
	}
	return nil
}

// Close ends the stream and returns once the server has everything. It may be
// called again, if ctx has ended before.
func (s *Stream) Close(ctx context.Context) error {
	return s.close(ctx, nil)
}

// CloseWithError ends the stream, after the parts that were sent, and tells its
// subscribers that it failed: they get a part with End and an Err of the name
// UserError, with this message (at most 4096 bytes) and this code of the program's
// own (at most 256). Either may be empty.
func (s *Stream) CloseWithError(ctx context.Context, message, code string) error {
	if len(message) > maxStreamMessage || len(code) > maxStreamCode {
		return fmt.Errorf("client: a stream cannot end with a message of %d bytes (of at most %d) and a code of %d (of at most %d)",
			len(message), maxStreamMessage, len(code), maxStreamCode)
	}
	return s.close(ctx, &engine.StreamError{Message: message, UserCode: code})
}

func (s *Stream) close(ctx context.Context, fail *engine.StreamError) error {
	if err := s.finish(fail); err != nil {
		return err
	}
	return s.await(ctx, func() bool { return false })
}

// finish lets the stream end after its last part. The first call counts.
func (s *Stream) finish(fail *engine.StreamError) error {
	b, err := s.client.protocol.encode(&request{verb: verbStreamEnd, id: s.id, fail: fail})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.closing, s.last = true, b
		s.wake()
	}
	return nil
}

// await waits until ok, which is called with s.mu held, or the stream is over.
func (s *Stream) await(ctx context.Context, ok func() bool) error {
	for {
		s.mu.Lock()
		done, changed := ok(), s.changed
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-s.over:
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.err
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wake tells the pump and who waits that something has changed. s.mu is held.
func (s *Stream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
	select {
	case s.work <- struct{}{}:
	default:
	}
}

// hear takes what the server says about the stream. The reading goroutine calls it.
func (s *Stream) hear(f *frame) {
	if f.word == wordStreamClosed {
		s.closed(f.fail)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = true
	for len(s.parts) > 0 && s.first < f.next {
		s.bytes -= len(s.parts[0])
		s.parts = s.parts[1:]
		s.first++
		s.said.parts = max(s.said.parts-1, 0)
	}
	if f.word == wordStreamNack {
		// What was written behind the part that was not taken is not taken either,
		// and brings a nack each: one pause for all of them.
		s.pausing = true
	}
	s.wake()
}

// closed takes the server's word that there is no such stream any more.
func (s *Stream) closed(fail *failure) {
	s.mu.Lock()
	said, before, begun := s.said, s.before, s.begun
	s.mu.Unlock()
	switch {
	case fail == nil && said.end, fail != nil && fail.name == engine.StreamNotFound && before.end:
		// In the second case the end was taken, and the answer lost with its wire.
		s.end(nil)
	case fail == nil:
		s.end(&StreamError{Message: "no reason was given"})
	case fail.name == engine.StreamBadRequest && before.start && !begun:
		// The start was taken, and the answer lost with its wire: the id is in use.
		s.mu.Lock()
		s.begun = true
		s.wake()
		s.mu.Unlock()
	default:
		s.end(&StreamError{Name: fail.name, Message: fail.message})
	}
}

// end notes that the stream is over, once.
func (s *Stream) end(err error) {
	s.conn.forget(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.over:
		return
	default:
	}
	s.err = err
	s.parts, s.bytes = nil, 0
	close(s.over)
	s.wake()
}

// pump writes what is to be written, to one wire after the other, until the stream
// is over.
func (s *Stream) pump() {
	c := s.client
	for more := true; more; {
		w, err := c.current(c.ctx)
		if err == nil && w.conn != s.conn {
			err = ErrNotConnected // and is over already, as its connection is
		}
		if err != nil {
			s.end(err)
			return
		}
		more = s.pour(w)
	}
}

// pour writes to w until it is over, or the client, or the stream; it reports
// whether the stream is not.
func (s *Stream) pour(w *wire) bool {
	s.mu.Lock()
	s.before.start = s.before.start || s.said.start
	s.before.end = s.before.end || s.said.end
	s.said = told{start: s.begun} // what the server has not acknowledged is written again
	s.mu.Unlock()
	for {
		b, wait := s.due()
		if b == nil {
			timer := time.NewTimer(wait)
			select {
			case <-s.work:
			case <-timer.C:
				b = s.rested()
			case <-w.over:
				timer.Stop()
				return true
			case <-s.over:
				timer.Stop()
				return false
			}
			timer.Stop()
		}
		if b == nil {
			continue
		}
		if err := w.write(s.client.ctx, s.client.protocol.op(), b); err != nil {
			return true
		}
	}
}

// due returns what is to be written next, as written; or for how long nothing is,
// unless something changes.
func (s *Stream) due() ([]byte, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.pausing:
		return nil, streamPause
	case !s.said.start:
		s.said.start = true
		return s.start, 0
	case s.begun && s.said.parts < len(s.parts):
		s.said.parts++
		return s.parts[s.said.parts-1], 0
	case s.begun && s.closing && len(s.parts) == 0 && !s.said.end:
		s.said.end = true
		return s.last, 0
	}
	return nil, s.idle / 2
}

// rested does what is due when nothing has changed for long enough: the parts that
// the server could not take are written again, and the server of a silent program
// gets a sign of life, which it returns.
func (s *Stream) rested() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pausing {
		s.pausing, s.said.parts = false, 0
		return nil
	}
	if !s.begun || s.said.end {
		return nil
	}
	b, err := s.client.protocol.encode(&request{verb: verbStreamData, id: s.id})
	if err != nil {
		return nil // it has nothing that could be wrong
	}
	return b
}
