package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// connect makes a new connection on a new wire and, with a subprotocol of this
// package, reads the server's connected message.
func (c *Client) connect(ctx context.Context, url string) (*wire, error) {
	w, f, err := c.first(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	w.conn = newConn(url, c.protocol.reliable)
	if f == nil {
		return w, nil
	}
	if f.word != wordConnected {
		err := w.breach(ctx, engine.CloseProtocolError, "the first frame is not a connected message")
		w.end(err)
		return nil, errors.New("client: dial: the server's first frame is not a connected message")
	}
	w.conn.hello = f.hello
	w.conn.keep(f.token)
	return w, nil
}

// first makes a wire, says hello if there is something to say, and returns what
// the server says first; nothing on a raw connection.
func (c *Client) first(ctx context.Context, url string, hello []byte) (*wire, *frame, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	w, err := dialWire(ctx, url, c.opts)
	if err != nil || c.protocol.codec == nil {
		return w, nil, err
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		w.link.SetReadDeadline(time.Unix(1, 0))
		close(cut)
	})
	if len(hello) > 0 {
		err = w.write(ctx, c.protocol.op(), hello)
	}
	var f *frame
	if err == nil {
		f, err = c.next(ctx, w)
	}
	if !stop() {
		<-cut // the deadline must not be set after it is cleared
		err = ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("client: dial: wait for the server's first message: %w", err)
		w.end(err)
		return nil, nil, err
	}
	w.link.SetReadDeadline(time.Time{})
	return w, f, nil
}

// next reads one frame of the subprotocol.
func (c *Client) next(ctx context.Context, w *wire) (*frame, error) {
	op, p, err := w.next(ctx)
	if err != nil {
		return nil, err
	}
	if op != c.protocol.op() {
		return nil, w.breach(ctx, engine.CloseUnsupported, "the server sent a frame of a kind that the subprotocol has not")
	}
	f, err := c.protocol.decode(p)
	if err != nil {
		// The server is told that its frame was wrong, the program how.
		breach := w.breach(ctx, engine.CloseInvalidData, "the server's message is not a valid message of the subprotocol")
		breach.detail = err
		return nil, breach
	}
	return f, nil
}

// run reads one wire after the other until the client is over.
func (c *Client) run(w *wire) {
	defer close(c.stopped)
	defer close(c.events)
	defer c.tasks.Wait()      // they end with the connections they are for
	prepare := func(*wire) {} // puts a wire in order and opens it; Dial did so for the first
	quick := 0
	for {
		lost := c.serve(w, prepare)
		next, err := c.recover(w.conn, lost)
		event := Event(Recovered{Err: lost})
		prepare = c.resend
		if next == nil {
			w.conn.end(err)
			if time.Since(w.start) < steady {
				quick++
			} else {
				quick = 0
			}
			if r := c.opts.Reconnect; r != nil && c.ctx.Err() == nil && !final(err, r) {
				c.replaced()
				c.push(Lost{Err: err})
				next, err = c.reconnect(quick)
				prepare = c.rejoin
			}
		}
		if next == nil || !c.adopt(next) {
			c.finish(err)
			return
		}
		if next.conn != w.conn {
			event = next.conn.hello
		}
		if c.protocol.codec != nil {
			c.push(event)
		}
		w = next
	}
}

// steady is how long a connection must live for its loss to be followed by an
// attempt without a pause: else a server that accepts and drops would be
// called in a tight loop.
const steady = 5 * time.Second

// replaced tells that the connection is over, and that there will be another.
func (c *Client) replaced() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
	c.change()
}

// adopt makes w the wire that requests and Close look for, unless Close was called.
func (c *Client) adopt(w *wire) bool {
	c.mu.Lock()
	if c.ctx.Err() == nil {
		c.wire, c.conn, c.lost = w, w.conn, false
		c.change()
		c.mu.Unlock()
		return true
	}
	c.mu.Unlock()
	w.end(ErrClosed)
	w.conn.end(ErrClosed)
	return false
}

// finish notes why the client is over.
func (c *Client) finish(err error) {
	c.mu.Lock()
	if c.err = err; c.ctx.Err() != nil {
		c.err = ErrClosed
	}
	c.cancel()
	c.change()
	c.mu.Unlock()
}

// serve reads w until it ends, and returns why it did.
func (c *Client) serve(w *wire, prepare func(*wire)) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.tend(w) })
	wg.Go(func() { prepare(w) })
	err := c.read(w)
	if closed := (*CloseError)(nil); !errors.As(err, &closed) {
		err = fmt.Errorf("client: connection lost: %w", noEOF(err))
	}
	w.end(err)
	wg.Wait()
	c.mu.Lock()
	c.wire = nil
	c.change()
	c.mu.Unlock()
	return w.cause()
}

func (c *Client) read(w *wire) error {
	// Not c.ctx: a farewell is answered after Close was called, too.
	ctx := context.Background()
	if c.protocol.codec == nil {
		return c.readRaw(ctx, w)
	}
	if w.held != nil {
		c.handle(w, w.held)
		w.held = nil
	}
	for {
		f, err := c.next(ctx, w)
		if err != nil {
			return err
		}
		c.handle(w, f)
	}
}

func (c *Client) readRaw(ctx context.Context, w *wire) error {
	for {
		op, p, err := w.next(ctx)
		if err != nil {
			return err
		}
		t := engine.Binary
		if op == ws.OpText {
			t = engine.Text
		}
		c.deliver(w, Message{Payload: engine.Payload{Type: t, Data: append([]byte(nil), p...)}})
	}
}

func (c *Client) handle(w *wire, f *frame) {
	switch f.word {
	case wordMessage, wordState:
		if w.conn.fresh(f.seq) {
			c.deliver(w, f.event)
			w.conn.saw(f.seq)
		}
	case wordAck:
		if p := w.conn.take(f.ackID); p != nil { // else the caller has given up
			p.done <- c.outcome(p.req, f)
		}
	case wordPong:
		w.ponged()
	case wordConnected:
		w.conn.keep(f.token)
	case wordDisconnected:
		w.conn.dismissed = true
		c.deliver(w, Disconnected{Text: f.text})
	case wordInvokeResponse:
		w.answer(f)
	case wordStreamAck, wordStreamNack, wordStreamClosed:
		if s := w.conn.stream(f.id); s != nil { // else its program has given up
			s.hear(f)
		}
	case wordUnknown:
	}
}

// outcome returns what f means for r, and notes what the client is a member of.
// The reading goroutine does it, so that it is done before the loss of the
// connection is noticed.
func (c *Client) outcome(r *request, f *frame) error {
	// A duplicate is a request that was carried out, and whose ack was lost.
	if f.fail != nil && f.fail.name != "Duplicate" {
		return &AckError{AckID: f.ackID, Name: f.fail.name, Message: f.fail.message}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.verb {
	case verbJoin:
		c.groups[r.name] = struct{}{}
	case verbWatchState:
		c.watched[r.name] = struct{}{}
	}
	return nil
}

// push hands e to Receive, waiting for room; after Close it is dropped.
func (c *Client) push(e Event) {
	select {
	case c.events <- e:
	case <-c.ctx.Done():
	}
}

// deliver is push for the reading goroutine: while it waits, the silence is the
// program's and not the server's.
func (c *Client) deliver(w *wire, e Event) {
	select {
	case c.events <- e:
		return
	default:
	}
	w.stalled.Store(true)
	c.push(e)
	w.hear()
	w.stalled.Store(false)
}

// tend acknowledges what was received, pings a silent server, and ends the wire of
// a dead one.
func (c *Client) tend(w *wire) {
	var acks, silence <-chan time.Time
	if w.conn.reliable {
		t := time.NewTicker(ackInterval)
		defer t.Stop()
		acks = t.C
	}
	if c.opts.KeepAlive > 0 {
		t := time.NewTicker(c.opts.KeepAlive)
		defer t.Stop()
		silence = t.C
	}
	for {
		select {
		case <-w.over:
			return
		case <-acks:
			c.acknowledge(w)
		case <-w.conn.behind:
			c.acknowledge(w)
		case <-silence:
			c.keepAlive(w)
		}
	}
}

func (c *Client) keepAlive(w *wire) {
	if w.stalled.Load() {
		return
	}
	silent := time.Since(w.start) - time.Duration(w.heard.Load())
	if silent >= 2*c.opts.KeepAlive {
		w.end(fmt.Errorf("client: the server was silent for %v", silent.Round(time.Millisecond)))
		return
	}
	if silent >= c.opts.KeepAlive {
		ctx, cancel := context.WithTimeout(context.Background(), c.opts.KeepAlive)
		_ = w.write(ctx, ws.OpPing, nil) // a failure shows in the silence
		cancel()
	}
}

// reconnect makes a new connection, or says why it gave up. quick is how many
// connections in a row did not last.
func (c *Client) reconnect(quick int) (*wire, error) {
	r := c.opts.Reconnect
	if quick > 0 && !pause(c.ctx, r.delay(quick)) {
		return nil, ErrClosed
	}
	for attempt := 1; ; attempt++ {
		url, err := c.url, error(nil)
		if r.URL != nil {
			url, err = r.URL(c.ctx)
		}
		var w *wire
		if err == nil {
			w, err = c.connect(c.ctx, url)
		}
		if err == nil {
			return w, nil
		}
		if final(err, r) || attempt == r.Attempts {
			return nil, fmt.Errorf("client: reconnect, attempt %d: %w", attempt, err)
		}
		if !pause(c.ctx, r.delay(attempt)) {
			return nil, ErrClosed
		}
	}
}

// pause waits for d, or until ctx ends, and reports which.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// rejoin puts a new connection into the groups of the one before it, and opens its
// wire. All of that is written first, so that a later LeaveGroup cannot be
// overtaken by it.
func (c *Client) rejoin(w *wire) {
	var requests []*request
	c.mu.Lock()
	for g := range c.groups {
		requests = append(requests, &request{verb: verbJoin, name: g})
	}
	for g := range c.watched {
		requests = append(requests, &request{verb: verbWatchState, name: g})
	}
	c.mu.Unlock()
	waiting := make([]*pending, 0, len(requests))
	for _, r := range requests {
		p, err := c.register(w, r)
		if err != nil {
			return // the connection is over: whoever reads will see to it
		}
		waiting = append(waiting, p)
	}
	c.tasks.Go(func() {
		for _, p := range waiting {
			c.rejoined(p.req, <-p.done)
		}
	})
	c.open(w, waiting)
}

// rejoined sees to the answer to a request of rejoin.
func (c *Client) rejoined(r *request, err error) {
	if ack := (*AckError)(nil); !errors.As(err, &ack) {
		return // it succeeded, or the connection is over
	}
	c.mu.Lock()
	if r.verb == verbJoin {
		delete(c.groups, r.name)
	} else {
		delete(c.watched, r.name)
	}
	c.mu.Unlock()
	c.push(RejoinFailed{Group: r.name, Watch: r.verb == verbWatchState, Err: err})
}

// open writes requests to a wire and then opens it to others. Without success the
// wire is over, or the client.
func (c *Client) open(w *wire, first []*pending) {
	for _, p := range first {
		if err := w.write(c.ctx, c.protocol.op(), p.bytes); err != nil {
			return
		}
	}
	close(w.open)
}

// final reports whether err would come again if the client tried again.
func final(err error, r *Reconnect) bool {
	var failed *RecoveryError
	if errors.As(err, &failed) {
		return false // the end of the old connection says nothing about a new one
	}
	var refused *HandshakeError
	if errors.As(err, &refused) {
		s := refused.Status
		return r.URL == nil && s >= 400 && s < 500 && s != http.StatusRequestTimeout && s != http.StatusTooManyRequests
	}
	var closed *CloseError
	if errors.As(err, &closed) {
		switch closed.Code {
		case engine.CloseProtocolError, engine.CloseUnsupported, engine.CloseInvalidData, engine.ClosePolicy, engine.CloseTooLarge:
			return true
		}
	}
	return false
}
