package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

const (
	// JSON is the subprotocol json.webpubsub.azure.v1.
	JSON = "json.webpubsub.azure.v1"
	// Raw as Options.Subprotocol offers no subprotocol: frames are bare.
	Raw = "raw"
)

// pingMark is the content of the pings that [Client.Ping] sends on a raw
// connection, to tell their pongs from those of keep-alive.
const pingMark = "p"

// Options are the knobs of a [Client]. Nil and zero mean the defaults.
type Options struct {
	// Subprotocol is [JSON] (the default), [Raw], or the name of a custom
	// protocol that the server's connect handler accepts; its frames are the
	// program's own, as with Raw.
	Subprotocol string
	// TLS is used for wss. Default: the system's roots.
	TLS *tls.Config
	// Header is sent with the handshake.
	Header http.Header
	// NetDial replaces the dialing of TCP.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
	// DialTimeout bounds connecting, the handshake and the wait for the
	// server's first frame, beside the context of [Dial]. Default 15 s.
	DialTimeout time.Duration
	// ReadLimit is the largest message accepted, in bytes over all its
	// fragments. Default 16 MiB.
	ReadLimit int
	// Buffer is how many events may wait for [Client.Receive] before the
	// client stops reading. Default 256.
	Buffer int
	// KeepAlive is how long the server may be silent before the client pings
	// it; twice as long ends the connection. Default 20 s, negative for never.
	KeepAlive time.Duration
	// CloseTimeout bounds the wait for the server's half of the closing
	// handshake. Default 5 s.
	CloseTimeout time.Duration
	// Reconnect, if set, makes a new connection whenever one is lost.
	Reconnect *Reconnect
}

// Reconnect says how a lost connection is replaced. The new connection is a new
// one to the server: it has another id, and is put back into the groups that
// the client had joined. The client gives up, and [Client.Receive] returns the
// reason, when the server has refused in a way that trying again will not
// change: a 4xx status (other than 408 and 429, and only if URL is nil), or a
// close with 1002, 1003, 1007, 1008 or 1009.
type Reconnect struct {
	// MinDelay is the pause before the second attempt in a row; the first is
	// made at once, unless the lost connection lived for less than 5 s. It doubles up to MaxDelay, and each pause is shortened by
	// up to a half at random. Defaults 500 ms and 30 s.
	MinDelay, MaxDelay time.Duration
	// Attempts bounds the attempts in a row. Default: no bound.
	Attempts int
	// URL, if set, returns the URL for an attempt, with a fresh token perhaps.
	// Default: the URL given to [Dial].
	URL func(ctx context.Context) (string, error)
}

func (o *Options) withDefaults() (*Options, error) {
	var v Options
	if o != nil {
		v = *o
	}
	if v.Subprotocol == "" {
		v.Subprotocol = JSON
	}
	switch v.Subprotocol {
	case "json.reliable.webpubsub.azure.v1", "protobuf.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1", "mqtt":
		return nil, fmt.Errorf("client: subprotocol %s is not supported; use %s or %s", v.Subprotocol, JSON, Raw)
	}
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	def(&v.DialTimeout, 15*time.Second)
	def(&v.KeepAlive, 20*time.Second)
	def(&v.CloseTimeout, 5*time.Second)
	if v.ReadLimit <= 0 {
		v.ReadLimit = 16 << 20
	}
	if v.Buffer <= 0 {
		v.Buffer = 256
	}
	if v.Reconnect != nil {
		r := *v.Reconnect
		def(&r.MinDelay, 500*time.Millisecond)
		def(&r.MaxDelay, 30*time.Second)
		v.Reconnect = &r
	}
	return &v, nil
}

// Client is a connection to a server. Its methods may be called concurrently.
type Client struct {
	// Fixed at birth.
	url     string
	opts    *Options
	json    bool
	events  chan Event
	ctx     context.Context // ends when the client is asked to close
	cancel  context.CancelFunc
	stopped chan struct{} // closed when nothing runs any more

	mu     sync.Mutex // guards the rest; never held across a write
	wire   *wire      // the one being read; nil while there is none
	first  Connected  // of the present connection
	ackID  uint64     // the last one used
	groups map[string]struct{}
	err    error // why the client is over
}

// Dial connects to url, the URL that a service SDK or a connection string
// yields (ws, wss, http or https), and returns once the server has accepted:
// with [JSON] after its connected message, otherwise after the upgrade. A
// server's refusal is a [*HandshakeError]. ctx bounds the dialing only.
func Dial(ctx context.Context, url string, o *Options) (*Client, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		url: url, opts: opts, json: opts.Subprotocol == JSON,
		events:  make(chan Event, opts.Buffer),
		stopped: make(chan struct{}),
		groups:  make(map[string]struct{}),
	}
	w, first, err := c.connect(ctx, url)
	if err != nil {
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.wire, c.first = w, first
	close(w.open)
	if c.json {
		c.events <- first // the buffer has room for at least one
	}
	go c.run(w)
	return c, nil
}

// connect makes a wire and, with JSON, reads the server's connected message.
func (c *Client) connect(ctx context.Context, url string) (*wire, Connected, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	w, err := dialWire(ctx, url, c.opts)
	if err != nil {
		return nil, Connected{}, err
	}
	if !c.json {
		return w, Connected{}, nil
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		w.conn.SetReadDeadline(time.Unix(1, 0))
		close(cut)
	})
	first, err := readConnected(ctx, w)
	if !stop() {
		<-cut // the deadline must not be set after it is cleared
		err = fmt.Errorf("client: dial: wait for the server's connected message: %w", ctx.Err())
	}
	if err != nil {
		w.end(err)
		return nil, Connected{}, err
	}
	w.conn.SetReadDeadline(time.Time{})
	return w, first, nil
}

func readConnected(ctx context.Context, w *wire) (Connected, error) {
	op, p, err := w.next(ctx)
	if err != nil {
		return Connected{}, fmt.Errorf("client: dial: wait for the server's connected message: %w", err)
	}
	f, err := decodeFrame(p)
	if err != nil || op != ws.OpText || f.Type != "system" || f.Event != "connected" {
		_ = w.breach(ctx, engine.CloseProtocolError, "the first frame is not a connected message")
		return Connected{}, errors.New("client: dial: the server's first frame is not a connected message")
	}
	return Connected{ConnectionID: f.ConnectionID, UserID: f.UserID}, nil
}

// ConnectionID returns the id of the present connection, or of the last one
// while a new one is being made. It is empty on a raw connection.
func (c *Client) ConnectionID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first.ConnectionID
}

// UserID returns the user id that the server gave the connection; empty if
// there is none, and on a raw connection.
func (c *Client) UserID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first.UserID
}

// Receive returns the next event, waiting for it until ctx ends. Once the
// client is over and its events are used up, it returns the reason: a
// [*CloseError], the error that broke the connection, or [ErrClosed].
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
	// message is written, and a refusal goes unnoticed.
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
	return c.do(ctx, &request{kind: "joinGroup", name: group}, true)
}

// LeaveGroup leaves a group and returns when the server has acknowledged it.
// Whatever it returns, unless it is an [*AckError], the group is not joined
// again after a reconnection.
func (c *Client) LeaveGroup(ctx context.Context, group string) error {
	c.mu.Lock()
	_, was := c.groups[group]
	delete(c.groups, group)
	c.mu.Unlock()
	err := c.do(ctx, &request{kind: "leaveGroup", name: group}, true)
	if ack := (*AckError)(nil); was && errors.As(err, &ack) {
		c.mu.Lock()
		c.groups[group] = struct{}{}
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
	r := &request{kind: "sendToGroup", name: group, payload: &p, noEcho: o.NoEcho, metadata: o.Metadata, ttl: o.TTL}
	return c.do(ctx, r, !o.FireAndForget)
}

// SendEvent raises a user event and returns when the server's event handler
// has answered. The handler's reply, if it has one, arrives before that as a
// [Message] without a group.
func (c *Client) SendEvent(ctx context.Context, event string, p engine.Payload, o *SendOptions) error {
	if o == nil {
		o = &SendOptions{}
	}
	r := &request{kind: "event", name: event, payload: &p, metadata: o.Metadata}
	return c.do(ctx, r, !o.FireAndForget)
}

// Send writes one message on a connection without the JSON subprotocol: Text
// and JSON as a text frame, the others as a binary one. What the server makes
// of it depends on the URL's webpubsub_mode.
func (c *Client) Send(ctx context.Context, p engine.Payload) error {
	if c.json {
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

// Ping returns once the server has answered a ping: the JSON subprotocol's own,
// or a WebSocket one on a connection without it.
func (c *Client) Ping(ctx context.Context) error {
	w, err := c.current(ctx)
	if err != nil {
		return err
	}
	pong := w.awaitPong()
	if c.json {
		err = w.write(ctx, ws.OpText, []byte(`{"type":"ping"}`))
	} else {
		err = w.write(ctx, ws.OpPing, []byte(pingMark))
	}
	if err != nil {
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
// nothing left running. Events that had already arrived can still be received.
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

// current returns the present wire, once it is back in the groups of the one
// before it.
func (c *Client) current(ctx context.Context) (*wire, error) {
	c.mu.Lock()
	w, err := c.wire, c.err
	switch {
	case err != nil:
	case c.ctx.Err() != nil:
		err = ErrClosed
	case w == nil:
		err = ErrNotConnected
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-w.open:
		return w, nil
	case <-w.over:
		return nil, w.cause()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// do sends a request of the JSON subprotocol and, if acked, waits for the ack.
func (c *Client) do(ctx context.Context, r *request, acked bool) error {
	if !c.json {
		return fmt.Errorf("client: %s needs subprotocol %s", r.kind, JSON)
	}
	w, err := c.current(ctx)
	if err != nil {
		return err
	}
	ackID, p, err := c.send(ctx, w, r, acked)
	if err != nil || !acked {
		return err
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		w.take(ackID)
		return ctx.Err()
	}
}

func (c *Client) send(ctx context.Context, w *wire, r *request, acked bool) (ackID uint64, p *pending, err error) {
	if acked {
		c.mu.Lock()
		c.ackID++
		ackID = c.ackID
		c.mu.Unlock()
	}
	b, err := r.encode(ackID, acked)
	if err != nil {
		return 0, nil, err
	}
	if acked {
		if p, err = w.expect(ackID, r); err != nil {
			return 0, nil, err
		}
	}
	if err := w.write(ctx, ws.OpText, b); err != nil {
		w.take(ackID)
		return 0, nil, err
	}
	return ackID, p, nil
}

// run reads one wire after the other until the client is over.
func (c *Client) run(w *wire) {
	defer close(c.stopped)
	defer close(c.events)
	rejoin, quick := false, 0
	for {
		err := c.serve(w, rejoin)
		if time.Since(w.start) < steady {
			quick++
		} else {
			quick = 0
		}
		w = nil
		var first Connected
		if r := c.opts.Reconnect; r != nil && c.ctx.Err() == nil && !final(err, r) {
			c.push(Lost{Err: err})
			w, first, err = c.reconnect(quick)
			rejoin = true
		}
		if w == nil || !c.adopt(w, first) {
			c.finish(err)
			return
		}
		if c.json {
			c.push(first)
		}
	}
}

// steady is how long a connection must live for its loss to be followed by an
// attempt without a pause: else a server that accepts and drops would be
// called in a tight loop.
const steady = 5 * time.Second

// adopt makes w the wire that Close looks for, unless Close was called.
func (c *Client) adopt(w *wire, first Connected) bool {
	c.mu.Lock()
	if c.ctx.Err() == nil {
		c.wire, c.first = w, first
		c.mu.Unlock()
		return true
	}
	c.mu.Unlock()
	w.end(ErrClosed)
	return false
}

// finish notes why the client is over.
func (c *Client) finish(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err = err; c.ctx.Err() != nil {
		c.err = ErrClosed
	}
	c.cancel()
}

// serve reads w until it ends, and returns why it did.
func (c *Client) serve(w *wire, rejoin bool) error {
	var wg sync.WaitGroup
	if c.opts.KeepAlive > 0 {
		wg.Go(func() { c.keepAlive(w) })
	}
	if rejoin {
		wg.Go(func() { c.rejoin(w) })
	}
	err := c.read(w)
	if closed := (*CloseError)(nil); !errors.As(err, &closed) {
		err = fmt.Errorf("client: connection lost: %w", noEOF(err))
	}
	w.end(err)
	wg.Wait()
	c.mu.Lock()
	c.wire = nil
	c.mu.Unlock()
	return w.cause()
}

func (c *Client) read(w *wire) error {
	// Not c.ctx: a farewell is answered after Close was called, too.
	ctx := context.Background()
	for {
		op, p, err := w.next(ctx)
		if err != nil {
			return err
		}
		if !c.json {
			t := engine.Binary
			if op == ws.OpText {
				t = engine.Text
			}
			c.deliver(w, Message{Payload: engine.Payload{Type: t, Data: append([]byte(nil), p...)}})
			continue
		}
		if op != ws.OpText {
			return w.breach(ctx, engine.CloseUnsupported, "the server sent a binary frame on a JSON connection")
		}
		f, err := decodeFrame(p)
		if err == nil {
			err = c.handle(w, f)
		}
		if err != nil {
			// The server is told that its frame was wrong, the program how.
			_ = w.breach(ctx, engine.CloseInvalidData, "the server's message is not a valid JSON protocol message")
			return err
		}
	}
}

func (c *Client) handle(w *wire, f *serverFrame) error {
	switch f.Type {
	case "ack":
		p := w.take(*f.AckID)
		if p == nil {
			return nil // the caller has given up
		}
		if f.Success {
			c.acked(p.req)
			p.done <- nil
			return nil
		}
		e := &AckError{AckID: *f.AckID}
		if f.Error != nil {
			e.Name, e.Message = f.Error.Name, f.Error.Message
		}
		p.done <- e
	case "message":
		data, err := f.payload()
		if err != nil {
			return err
		}
		c.deliver(w, Message{Group: f.Group, FromUserID: f.FromUserID, Payload: data, Metadata: f.Metadata})
	case "pong":
		w.ponged()
	case "system":
		if f.Event == "disconnected" {
			c.deliver(w, Disconnected{Text: f.Message})
		}
	}
	return nil
}

// acked notes what the client is a member of. The reading goroutine does it,
// so that it is done before the loss of the connection is noticed.
func (c *Client) acked(r *request) {
	if r.kind == "joinGroup" {
		c.mu.Lock()
		c.groups[r.name] = struct{}{}
		c.mu.Unlock()
	}
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

// keepAlive pings a silent server and ends the wire of a dead one.
func (c *Client) keepAlive(w *wire) {
	t := time.NewTicker(c.opts.KeepAlive)
	defer t.Stop()
	for {
		select {
		case <-w.over:
			return
		case <-t.C:
		}
		if w.stalled.Load() {
			continue
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
}

// reconnect makes a new wire, or says why it gave up. quick is how many
// connections in a row did not last.
func (c *Client) reconnect(quick int) (*wire, Connected, error) {
	r := c.opts.Reconnect
	if quick > 0 && !c.pause(r.delay(quick)) {
		return nil, Connected{}, ErrClosed
	}
	for attempt := 1; ; attempt++ {
		url, err := c.url, error(nil)
		if r.URL != nil {
			url, err = r.URL(c.ctx)
		}
		var w *wire
		var first Connected
		if err == nil {
			w, first, err = c.connect(c.ctx, url)
		}
		if err == nil {
			return w, first, nil
		}
		if final(err, r) || attempt == r.Attempts {
			return nil, Connected{}, fmt.Errorf("client: reconnect, attempt %d: %w", attempt, err)
		}
		if !c.pause(r.delay(attempt)) {
			return nil, Connected{}, ErrClosed
		}
	}
}

// pause waits and reports whether the client is still wanted.
func (c *Client) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// delay returns the pause after the given attempt, counted from 1.
func (r *Reconnect) delay(attempt int) time.Duration {
	d := r.MinDelay
	for range attempt - 1 {
		if d *= 2; d >= r.MaxDelay {
			break
		}
	}
	d = min(d, r.MaxDelay)
	return d - rand.N(d/2+1) // so that the clients of a node that went do not all come back at once
}

// rejoin puts a new connection into the groups of the one before it and then
// opens it to the program. All joins are written first, so that a later
// LeaveGroup cannot be overtaken by them.
func (c *Client) rejoin(w *wire) {
	ctx := c.ctx
	c.mu.Lock()
	var groups []string
	for g := range c.groups {
		groups = append(groups, g)
	}
	c.mu.Unlock()
	waits := make([]*pending, 0, len(groups))
	for _, g := range groups {
		_, p, err := c.send(ctx, w, &request{kind: "joinGroup", name: g}, true)
		if err != nil {
			return // the wire is lost or the client closed: whoever reads will see to it
		}
		waits = append(waits, p)
	}
	close(w.open)
	for i, p := range waits {
		if err := <-p.done; err != nil {
			if ack := (*AckError)(nil); !errors.As(err, &ack) {
				return
			}
			c.mu.Lock()
			delete(c.groups, groups[i])
			c.mu.Unlock()
			c.push(RejoinFailed{Group: groups[i], Err: err})
		}
	}
}

// final reports whether err would come again if the client tried again.
func final(err error, r *Reconnect) bool {
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
