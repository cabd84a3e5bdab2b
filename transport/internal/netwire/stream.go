package netwire

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Bounds of a Stream.
const (
	// maxHeld is how many bytes a stream takes ahead of what it has written,
	// unless a single message is larger.
	maxHeld = 64 << 10
	// writeTimeout is how long one write may take, beyond what its bytes take at
	// slowestWrite. TLS cannot go on after a write that timed out, so it is the
	// end of the connection.
	writeTimeout = 30 * time.Second
	// slowestWrite is in bytes a second.
	slowestWrite = 16 << 10
	// flushTimeout bounds what Close(true) still writes.
	flushTimeout = 5 * time.Second
	// idleBuffer is what a connection reads into while little comes in; it
	// borrows a buffer of busyBuffer while that was not enough.
	idleBuffer = 512
)

var errClosed = errors.New("netwire: closed")

// Stream is a wire over any net.Conn.
type Stream struct {
	// Fixed at birth.
	c    net.Conn
	r    Reader
	down chan struct{} // closed by Close, or when writing failed
	wake chan struct{} // holds one token: Resume was called

	mu      sync.Mutex // guards the rest; never held across a write or a callback
	queue   []piece
	held    int   // bytes of queue, and of what is being written
	owed    bool  // something was not taken: Writable is due
	writing bool  // the writer goroutine is there
	closed  bool  // Close was called
	flush   bool  // politely
	cause   error // what ended writing
}

// piece is a run of bytes to write: messages of a batch that is retained, or a copy.
type piece struct {
	batch *engine.Batch
	bytes []byte
}

func newStream(c net.Conn, head []byte, r Reader) *Stream {
	s := &Stream{c: c, r: r, down: make(chan struct{}), wake: make(chan struct{}, 1)}
	if len(head) > 0 { // the writer gathers it with what follows
		s.queue, s.held = []piece{{bytes: head}}, len(head)
	}
	return s
}

// Start implements [Wire]. The reading goroutine ends when the connection does.
func (s *Stream) Start(rest []byte) { go s.read(rest) }

// Resume implements [Wire].
func (s *Stream) Resume() {
	select {
	case s.wake <- struct{}{}:
	default: // one token is enough
	}
}

func (s *Stream) read(p []byte) {
	small := make([]byte, idleBuffer)
	var large *[]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for {
		if !s.consume(p) {
			return
		}
		buf := small
		if large != nil {
			buf = *large
		}
		n, err := s.c.Read(buf)
		p = buf[:n]
		switch {
		case err != nil && n == 0:
			s.lost(err)
			return
		case n == len(small) && large == nil:
			large = buffers.Get().(*[]byte)
		case n < len(small) && large != nil:
			// p lies in the buffer that is given back, so it moves first.
			p = small[:copy(small, p)]
			buffers.Put(large)
			large = nil
		}
	}
}

// consume passes all of p on, and waits while the reader wants no more. It reports
// false once the wire is down.
func (s *Stream) consume(p []byte) bool {
	for {
		n, more := s.r.Consume(p)
		p = p[n:]
		switch {
		case !more:
			select {
			case <-s.wake:
			case <-s.down:
				s.lost(errClosed)
				return false
			}
		case len(p) == 0:
			return true
		default:
			runtime.Gosched() // the connection has had its turn
		}
	}
}

// lost tells the reader why there is no more, unless this side closed.
func (s *Stream) lost(err error) {
	s.mu.Lock()
	closed, cause := s.closed, s.cause
	s.mu.Unlock()
	if closed {
		return
	}
	if cause != nil {
		err = cause // the failed write is why reading failed
	} else if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) {
		err = io.EOF
	}
	s.r.Lost(err)
}

// Offer implements [engine.Sink]: it takes messages until it holds maxHeld bytes.
func (s *Stream) Offer(b *engine.Batch, spans []engine.Span) (n, part int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.err(); err != nil {
		return 0, 0, err
	}
	for _, span := range spans {
		take := s.fits(b, span)
		if take.To > take.From {
			if p := b.Bytes(take); len(p) > 0 {
				s.hold(b, p)
			}
			n += take.To - take.From
		}
		if take.To < span.To {
			s.owed = true
			break
		}
	}
	return n, 0, nil
}

// fits returns the part of span, from its beginning, that there is room for.
func (s *Stream) fits(b *engine.Batch, span engine.Span) engine.Span {
	if s.held+b.Size(span) <= maxHeld {
		return span
	}
	to, held := span.From, s.held
	for to < span.To {
		size := b.Size(engine.Span{From: to, To: to + 1})
		if held > 0 && held+size > maxHeld {
			break
		}
		held += size
		to++
	}
	return engine.Span{From: span.From, To: to}
}

// OfferBytes implements [engine.Sink]; it copies what it takes.
func (s *Stream) OfferBytes(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.err(); err != nil {
		return 0, err
	}
	n := min(len(p), max(maxHeld-s.held, 0))
	if n > 0 {
		s.push(piece{bytes: append([]byte(nil), p[:n]...)})
	} else if len(s.queue) > 0 {
		s.flushQueue()
	}
	s.owed = s.owed || n < len(p)
	return n, nil
}

// hold queues p, which lies in b. A small part of a batch is copied: a far end
// that does not read must not keep in memory, uncounted, what others were sent.
func (s *Stream) hold(b *engine.Batch, p []byte) {
	if b.Scattered() { // then p is a copy
		s.push(piece{bytes: p})
		return
	}
	if b.Size(engine.Span{To: b.Len()}) > 2*len(p) {
		s.push(piece{bytes: append([]byte(nil), p...)})
		return
	}
	b.Retain()
	s.push(piece{batch: b, bytes: p})
}

func (s *Stream) err() error {
	if s.cause != nil {
		return s.cause
	}
	if s.closed {
		return errClosed
	}
	return nil
}

func (s *Stream) push(p piece) {
	s.queue = append(s.queue, p)
	s.held += len(p.bytes)
	s.flushQueue()
}

// flushQueue sees to it that the queue is written. s.mu is held.
func (s *Stream) flushQueue() {
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

// Held implements [engine.Sink].
func (s *Stream) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// write writes what is queued and ends when nothing is. It is started by push.
func (s *Stream) write() {
	var pieces []piece
	for {
		s.mu.Lock()
		owed := s.owed && s.held < maxHeld/2 && !s.closed
		if owed {
			s.owed = false
		}
		empty := len(s.queue) == 0
		if empty {
			s.writing = false
			s.queue = nil // an idle connection keeps no queue
		} else {
			pieces, s.queue = s.queue, pieces[:0]
		}
		last := empty && s.closed
		s.mu.Unlock()
		if owed {
			s.r.Writable()
		}
		if last {
			s.c.Close()
		}
		if empty {
			return
		}
		if err := s.writeAll(pieces); err != nil {
			s.fail(err, pieces)
			return
		}
		clear(pieces)
	}
}

// writeAll writes pieces and releases each as it is done. Small ones are
// gathered, since each write costs a system call, and a record on TLS.
func (s *Stream) writeAll(pieces []piece) error {
	var gather *[]byte
	for i := 0; i < len(pieces); {
		p, n := pieces[i].bytes, 1
		if i+1 < len(pieces) && len(p)+len(pieces[i+1].bytes) <= busyBuffer {
			if gather == nil {
				gather = buffers.Get().(*[]byte)
				defer buffers.Put(gather)
			}
			buf := (*gather)[:0]
			for n = 0; i+n < len(pieces) && len(buf)+len(pieces[i+n].bytes) <= busyBuffer; n++ {
				buf = append(buf, pieces[i+n].bytes...)
			}
			p = buf
		}
		if err := s.writeOne(p); err != nil {
			return err
		}
		for j := range n {
			pieces[i+j].release()
		}
		i += n
		s.mu.Lock()
		s.held -= len(p)
		s.mu.Unlock()
	}
	return nil
}

func (s *Stream) writeOne(p []byte) error {
	s.mu.Lock()
	if s.closed && !s.flush {
		s.mu.Unlock()
		return errClosed
	}
	if !s.closed { // else Close has set the deadline
		s.c.SetWriteDeadline(time.Now().Add(writeTimeout + time.Duration(len(p))*time.Second/slowestWrite))
	}
	s.mu.Unlock()
	_, err := s.c.Write(p)
	return err
}

// fail ends writing. Closing the connection makes its reader tell why.
func (s *Stream) fail(err error, pieces []piece) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = os.ErrDeadlineExceeded // one that does not name addresses
	}
	s.mu.Lock()
	s.cause = err
	s.writing = false
	if !s.closed {
		close(s.down)
	}
	rest := s.queue
	s.queue, s.held = nil, 0
	s.mu.Unlock()
	for _, q := range [][]piece{pieces, rest} {
		for i := range q {
			q[i].release()
		}
	}
	s.c.Close()
}

func (p *piece) release() {
	if p.batch != nil {
		p.batch.Release()
	}
	*p = piece{}
}

// Close implements [engine.Sink]. What is held is still written if polite, for
// flushTimeout at most; the writer closes the connection then.
func (s *Stream) Close(polite bool) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed, s.flush = true, polite
	if s.cause == nil {
		close(s.down)
	}
	writing := s.writing
	if writing && polite {
		s.c.SetWriteDeadline(time.Now().Add(flushTimeout))
	}
	s.mu.Unlock()
	if !writing || !polite {
		// A TLS connection says goodbye while it closes, which may take a while.
		go s.c.Close()
	}
}
