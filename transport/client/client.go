package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// pingMark is the content of the pings that [Client.Ping] sends on a raw
// connection, to tell their pongs from those of keep-alive.
const pingMark = "p"

// maxPending bounds the requests and invocations that wait for their answers. It
// is how many of the requests that it carried out a server remembers by their ids:
// while no more are open, none that is sent again is carried out again.
const maxPending = 1000

// Client is a connection to a server. Its methods may be called concurrently.
type Client struct {
	// Fixed at birth.
	url      string
	opts     *Options
	protocol protocol // its codec is nil on a raw connection
	events   chan Event
	slots    chan struct{}   // holds one value for each request that waits
	ctx      context.Context // ends when the client is asked to close
	cancel   context.CancelFunc
	stopped  chan struct{}  // closed when nothing runs any more
	tasks    sync.WaitGroup // what a connection has beside its wire

	mu      sync.Mutex    // guards the rest; never held across a write
	wire    *wire         // the one being read; nil while there is none
	conn    *conn         // the present one, or the last
	lost    bool          // conn is over, and a new one is being made
	changed chan struct{} // closed, and replaced, when one of those above changes
	serial  uint64        // the last number given to a request, an invocation or a stream
	groups  map[string]struct{}
	watched map[string]struct{} // groups whose state is watched
	err     error               // why the client is over
}

// Dial connects to url, the URL that a service SDK or a connection string
// yields (ws, wss, http or https), and returns once the server has accepted:
// with a subprotocol of this package after its connected message, otherwise after
// the upgrade. A server's refusal is a [*HandshakeError]. ctx bounds the dialing
// only.
func Dial(ctx context.Context, url string, o *Options) (*Client, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		url: url, opts: opts, protocol: protocols[opts.Subprotocol],
		events:  make(chan Event, opts.Buffer),
		slots:   make(chan struct{}, maxPending),
		stopped: make(chan struct{}),
		changed: make(chan struct{}),
		groups:  make(map[string]struct{}),
		watched: make(map[string]struct{}),
	}
	w, err := c.connect(ctx, url)
	if err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wire, c.conn = w, w.conn
	close(w.open)
	if c.protocol.codec != nil {
		c.events <- w.conn.hello // the buffer has room for at least one
	}
	go c.run(w)
	return c, nil
}

// ConnectionID returns the id of the present connection, or of the last one
// while a new one is being made. It is empty on a raw connection.
func (c *Client) ConnectionID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn.hello.ConnectionID
}

// UserID returns the user id that the server gave the connection; empty if
// there is none, and on a raw connection.
func (c *Client) UserID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn.hello.UserID
}

// Receive returns the next event, waiting for it until ctx ends. Once the
// client is over and its events are used up, it returns the reason: a
// [*CloseError], a [*RecoveryError], the error that broke the connection, or
// [ErrClosed].
func (c *Client) Receive(ctx context.Context) (Event, error) {
	select {
	case e, ok := <-c.events:
		if ok {
			return e, nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// SendOptions refine a message.
type SendOptions struct {
	// NoEcho leaves this connection out of the receivers (SendToGroup only).
	NoEcho bool
	// FireAndForget asks for no acknowledgement: the call returns once the
	// message is written, and a refusal goes unnoticed. So does its loss with the
	// wire: it is not sent again after a recovery.
	FireAndForget bool
	// Metadata goes with the message: ASCII, with keys up to 256 bytes, values
	// up to 1024, all together up to 8192.
	Metadata map[string]string
	// TTL is how long the message is worth delivering, in whole seconds
	// (rounded up) up to 300 s; 0 means no bound (SendToGroup only).
	TTL time.Duration
}

// JoinGroup enters a group and returns when the server has acknowledged it. A
// refusal is an [*AckError].
func (c *Client) JoinGroup(ctx context.Context, group string) error {
	return c.do(ctx, &request{verb: verbJoin, name: group}, true)
}

// LeaveGroup leaves a group and returns when the server has acknowledged it.
// Whatever it returns, unless it is an [*AckError], the group is not joined
// again after a reconnection.
func (c *Client) LeaveGroup(ctx context.Context, group string) error {
	c.mu.Lock()
	_, was := c.groups[group]
	_, watched := c.watched[group]
	delete(c.groups, group)
	delete(c.watched, group)
	c.mu.Unlock()
	err := c.do(ctx, &request{verb: verbLeave, name: group}, true)
	if ack := (*AckError)(nil); errors.As(err, &ack) {
		c.mu.Lock()
		if was {
			c.groups[group] = struct{}{}
		}
		if watched {
			c.watched[group] = struct{}{}
		}
		c.mu.Unlock()
	}
	return err
}

// SendToGroup publishes to a group, of which the client need not be a member,
// and returns when the server has acknowledged it.
func (c *Client) SendToGroup(ctx context.Context, group string, p engine.Payload, o *SendOptions) error {
	if o == nil {
		o = &SendOptions{}
	}
	r := &request{verb: verbSend, name: group, payload: &p, noEcho: o.NoEcho, metadata: o.Metadata, ttl: o.TTL}
	return c.do(ctx, r, !o.FireAndForget)
}

// SendEvent raises a user event and returns when the server's event handler
// has answered. The handler's reply, if it has one, arrives before that as a
// [Message] without a group.
func (c *Client) SendEvent(ctx context.Context, event string, p engine.Payload, o *SendOptions) error {
	if o == nil {
		o = &SendOptions{}
	}
	r := &request{verb: verbEvent, name: event, payload: &p, metadata: o.Metadata}
	return c.do(ctx, r, !o.FireAndForget)
}

// Send writes one message on a connection without a subprotocol of this package: Text
// and JSON as a text frame, the others as a binary one. What the server makes
// of it depends on the URL's webpubsub_mode.
func (c *Client) Send(ctx context.Context, p engine.Payload) error {
	if c.protocol.codec != nil {
		return errors.New("client: Send is for connections without a subprotocol; use SendToGroup or SendEvent")
	}
	w, err := c.current(ctx)
	if err != nil {
		return err
	}
	op := ws.OpBinary
	if p.Type == engine.Text || p.Type == engine.JSON {
		if op = ws.OpText; !utf8.Valid(p.Data) {
			return errors.New("client: the data is not valid UTF-8")
		}
	}
	return w.write(ctx, op, p.Data)
}

// Invoke raises a user event, like SendEvent, and returns what the server's event
// handler has answered; a payload without data if that is nothing. A failure is an
// [*InvocationError]. The server is told if ctx ends first. An invocation does not
// outlive its wire: if that is lost, Invoke returns the reason, and the handler may
// have been called.
func (c *Client) Invoke(ctx context.Context, event string, p engine.Payload) (engine.Payload, error) {
	if err := c.admit(ctx, verbInvoke); err != nil {
		return engine.Payload{}, err
	}
	defer c.leave()
	r := &request{verb: verbInvoke, id: strconv.FormatUint(c.number(), 10), name: event, payload: &p}
	b, err := c.protocol.encode(r)
	if err != nil {
		return engine.Payload{}, err
	}
	w, err := c.current(ctx)
	if err != nil {
		return engine.Payload{}, err
	}
	answer, err := w.invoke(r.id)
	if err != nil {
		return engine.Payload{}, err
	}
	if err := w.write(ctx, c.protocol.op(), b); err != nil {
		w.abandon(r.id)
		return engine.Payload{}, err
	}
	select {
	case f := <-answer:
		switch {
		case f == nil:
			return engine.Payload{}, w.cause()
		case f.fail != nil:
			return engine.Payload{}, &InvocationError{Name: f.fail.name, Message: f.fail.message}
		}
		return f.data, nil
	case <-ctx.Done():
		w.abandon(r.id)
		c.cancelInvocation(ctx, w, r.id)
		return engine.Payload{}, ctx.Err()
	}
}

// lastWord bounds what is said for a caller who waits no longer.
const lastWord = time.Second

func (c *Client) cancelInvocation(ctx context.Context, w *wire, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	b, err := c.protocol.encode(&request{verb: verbCancel, id: id})
	if err == nil {
		_ = w.write(ctx, c.protocol.op(), b) // who cannot be told has nothing to cancel
	}
}

// SetGroupState sets this connection's state in a group that it is in, in place of
// the one before; nil clears it. Whoever watches the group is told. Keys and
// values together may have 512 bytes. The state ends with the membership and with
// the connection: after a reconnection it is to be set again.
func (c *Client) SetGroupState(ctx context.Context, group string, state map[string]string) error {
	return c.do(ctx, &request{verb: verbSetState, name: group, state: state}, true)
}

// WatchGroupState asks for the state of a group that the connection is in: a
// [GroupState] with all there is, and from then on one for each change. A
// connection that was made in place of a lost one watches again.
func (c *Client) WatchGroupState(ctx context.Context, group string) error {
	return c.do(ctx, &request{verb: verbWatchState, name: group}, true)
}

// UnwatchGroupState ends what WatchGroupState began. Changes that are on their way
// may still arrive.
func (c *Client) UnwatchGroupState(ctx context.Context, group string) error {
	c.mu.Lock()
	delete(c.watched, group)
	c.mu.Unlock()
	return c.do(ctx, &request{verb: verbUnwatchState, name: group}, true)
}

// Ping returns once the server has answered a ping: the subprotocol's own, or a
// WebSocket one on a connection without it. It fails if the wire is lost first.
func (c *Client) Ping(ctx context.Context) error {
	w, err := c.current(ctx)
	if err != nil {
		return err
	}
	op, p := ws.OpPing, []byte(pingMark)
	if c.protocol.codec != nil {
		op = c.protocol.op()
		if p, err = c.protocol.encode(&request{verb: verbPing}); err != nil {
			return err
		}
	}
	pong := w.awaitPong()
	if err := w.write(ctx, op, p); err != nil {
		return err
	}
	select {
	case <-pong:
		return nil
	case <-w.over:
		return w.cause()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the connection with code 1000. See [Client.CloseWith].
func (c *Client) Close() error { return c.CloseWith(engine.CloseNormal, "") }

// CloseWith says goodbye with code and reason (at most 123 bytes), waits for
// the server's answer for at most Options.CloseTimeout, and returns with
// nothing left running. A connection of a reliable subprotocol ends at once with
// code 1000, and with another when its server has waited for its recovery. Events that had already arrived can still be received.
// It may be called more than once; later calls only wait.
func (c *Client) CloseWith(code engine.CloseCode, reason string) error {
	if err := ws.CheckCloseFrameData(ws.StatusCode(code), reason); err != nil || len(reason) > maxReason {
		return fmt.Errorf("client: close code %d with a reason of %d bytes (of at most %d) cannot be sent", code, len(reason), maxReason)
	}
	body := ws.NewCloseFrameBody(ws.StatusCode(code), reason)
	c.mu.Lock()
	w := c.wire
	already := c.ctx.Err() != nil
	c.cancel()
	c.mu.Unlock()
	if w != nil && !already {
		ctx, cancel := context.WithTimeout(context.Background(), c.opts.CloseTimeout)
		defer cancel()
		w.sayGoodbye(ctx, body)
		select {
		case <-w.over:
		case <-ctx.Done():
			w.end(ErrClosed)
		}
	}
	<-c.stopped
	return nil
}

// admit checks that the connection has requests, and waits for one's turn to be one
// of those that wait for an answer. Each success needs a call of leave.
func (c *Client) admit(ctx context.Context, v verb) error {
	if c.protocol.codec == nil {
		return fmt.Errorf("client: %s needs a subprotocol such as %s", v, ReliableJSON)
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Client) leave() { <-c.slots }

// number returns a number that no request, invocation or stream has had.
func (c *Client) number() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	return c.serial
}

// do sends a request and, if acked, waits for the ack.
func (c *Client) do(ctx context.Context, r *request, acked bool) error {
	if err := c.admit(ctx, r.verb); err != nil {
		return err
	}
	defer c.leave()
	if !acked {
		return c.tell(ctx, r)
	}
	w, err := c.current(ctx)
	if err != nil {
		return err
	}
	p, err := c.ask(ctx, w, r)
	if err != nil {
		return err
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		w.conn.take(r.ackID)
		return ctx.Err()
	}
}

// tell writes a request that is not to be acknowledged. One that a wire has not taken
// whole is written to the next, if there is one.
func (c *Client) tell(ctx context.Context, r *request) error {
	b, err := c.protocol.encode(r)
	if err != nil {
		return err
	}
	for {
		w, err := c.current(ctx)
		if err != nil {
			return err
		}
		if err := w.write(ctx, c.protocol.op(), b); err == nil || !w.conn.reliable || !w.ended() {
			return err
		}
	}
}

// register makes a request that is to be acknowledged and is about to be written to
// w.
func (c *Client) register(w *wire, r *request) (*pending, error) {
	r.ackID = c.number()
	b, err := c.protocol.encode(r)
	if err != nil {
		return nil, err
	}
	p := &pending{req: r, bytes: b, done: make(chan error, 1)}
	return p, w.conn.expect(p, w)
}

// ask writes a request that is to be acknowledged to w, or to a later wire of the
// same connection.
func (c *Client) ask(ctx context.Context, w *wire, r *request) (*pending, error) {
	p, err := c.register(w, r)
	if err != nil {
		return nil, err
	}
	for {
		err := w.write(ctx, c.protocol.op(), p.bytes)
		if err == nil {
			return p, nil
		}
		if !w.conn.reliable || !w.ended() {
			w.conn.take(r.ackID)
			return nil, err
		}
		// Who puts the connection onto its next wire writes what was registered by
		// then. This may have come too late for that.
		next, err := c.current(ctx)
		if err != nil {
			w.conn.take(r.ackID)
			return nil, err
		}
		if next.conn != w.conn || !w.conn.move(p, w, next) {
			return p, nil // it was seen to: written, or failed with its connection
		}
		w = next
	}
}

// current returns the present wire, once requests may use it. It waits while a
// connection is recovered and, on a new one, for the groups of the one before it.
func (c *Client) current(ctx context.Context) (*wire, error) {
	for {
		c.mu.Lock()
		w, err, changed := c.wire, c.err, c.changed
		switch {
		case err != nil:
		case c.ctx.Err() != nil:
			err = ErrClosed
		case w == nil && c.lost:
			err = ErrNotConnected
		}
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		var open, over <-chan struct{}
		if w != nil && !(w.ended() && w.conn.reliable) {
			open, over = w.open, w.over
		}
		select {
		case <-open:
			return w, nil
		case <-over:
			if !w.conn.reliable {
				return nil, w.cause()
			}
		case <-changed:
		case <-c.ctx.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// change tells those who wait for it that the client's state has changed. c.mu is
// held.
func (c *Client) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}
