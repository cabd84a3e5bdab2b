package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
)

// Engine is a set of hubs and the shards that write to their connections. All
// methods may be called concurrently.
type Engine struct {
	node       NodeID
	limits     Limits
	log        *slog.Logger
	observer   Observer
	clock      Clock
	backplane  Backplane
	hubOptions func(HubName) *HubOptions

	shards    []*shard
	nextShard atomic.Uint32
	roles     rolesCache
	laggards  laggards
	interests interests
	counters  counters
	pending   budget // bytes of events; the root
	bounds    struct{ conn, client, hub, node bound }
	drops     dropLog

	ctx    context.Context // ends with the engine
	cancel context.CancelFunc

	mu       sync.RWMutex // guards the rest
	hubs     map[HubName]*Hub
	reloads  int           // calls of Reload
	draining bool          // admits and opens nobody any more
	idle     chan struct{} // closed when the last connection ends; nil while nobody waits

	work work // goroutines of lanes and notifiers
	once sync.Once
}

var (
	errEngineClosed = &Error{Code: CodeClosed, Rule: "engine.closed", Message: "The engine is closed."}
	errConnOver     = &Error{Code: CodeClosed, Rule: "connection.over", Message: "The connection has ended."}
)

// New returns a running engine; nil options mean the defaults. It fails only if
// the backplane does not start. The caller ends it with Shutdown or Close.
func New(o *Options) (*Engine, error) {
	if o == nil {
		o = &Options{}
	}
	e := &Engine{
		node: o.NodeID, limits: o.Limits.withDefaults(), log: o.Logger, observer: o.Observer,
		clock: o.Clock, backplane: o.Backplane, hubOptions: o.Hubs, hubs: make(map[HubName]*Hub),
	}
	if e.node == "" {
		var b [8]byte
		rand.Read(b[:])
		e.node = NodeID(hex.EncodeToString(b[:]))
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.clock == nil {
		e.clock = systemClock{}
	}
	n := o.Shards
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.setBounds()
	for i := range n {
		e.shards = append(e.shards, newShard(e, i))
	}
	for _, s := range e.shards {
		go s.loop() // ends with opStop, which Close posts and waits for
	}
	if e.backplane != nil {
		if err := e.backplane.Start(e.ctx, e.receive); err != nil {
			e.Close()
			return nil, err
		}
	}
	return e, nil
}

// NodeID returns the engine's name among those that share a backplane.
func (e *Engine) NodeID() NodeID { return e.node }

// Clock returns the time that the engine goes by.
func (e *Engine) Clock() Clock { return e.clock }

// Limits returns the limits in force, defaults filled in.
func (e *Engine) Limits() Limits { return e.limits }

// Hub returns the named hub, which is made on first use. name comes from [ParseHubName].
func (e *Engine) Hub(name HubName) *Hub {
	e.mu.RLock()
	h, before := e.hubs[name], e.reloads
	e.mu.RUnlock()
	if h != nil {
		return h
	}
	h = newHub(e, name)
	e.mu.Lock()
	reloads := e.reloads
	if have := e.hubs[name]; have != nil {
		e.mu.Unlock()
		return have
	}
	e.hubs[name] = h
	e.mu.Unlock()
	if reloads != before { // which did not see this hub, and it may not have seen the new settings
		h.configure()
	}
	return h
}

// FindHub is Hub for those who have proven nothing yet: a name that has not been
// used makes no hub, and nil is returned.
func (e *Engine) FindHub(name HubName) *Hub { return e.lookup(name) }

func (e *Engine) lookup(name HubName) *Hub {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.hubs[name]
}

// Hubs returns the hubs that were used on this node since the start, in no order.
func (e *Engine) Hubs() []*Hub {
	e.mu.RLock()
	defer e.mu.RUnlock()
	hubs := make([]*Hub, 0, len(e.hubs))
	for _, h := range e.hubs {
		hubs = append(hubs, h)
	}
	return hubs
}

// Reload asks Options.Hubs again for the settings of every hub. Connections
// stay; the next event goes by the new rules.
func (e *Engine) Reload() {
	e.mu.Lock()
	e.reloads++
	e.mu.Unlock()
	for _, h := range e.Hubs() {
		h.configure()
	}
}

// Draining reports whether the engine takes no new connections any more.
func (e *Engine) Draining() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.draining
}

// Shutdown drains: it admits nobody any more, lets every client have what is
// queued for it, tells it and closes it with [CloseGoingAway], waits for events
// that are under way, and then closes. If ctx ends first it closes at once and
// returns ctx's error.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	e.draining = true
	if e.idle == nil {
		e.idle = make(chan struct{})
	}
	idle := e.idle
	e.mu.Unlock()
	for _, h := range e.Hubs() {
		for _, c := range h.all.snapshot() {
			c.End(EndShutdown, CloseGoingAway, "The service is going away.", "")
		}
	}
	e.checkIdle()
	done := make(chan struct{})
	go func() { // ends with the work, or with Close
		select {
		case <-idle:
			e.work.wait()
			close(done)
		case <-e.ctx.Done():
		}
	}()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(err, e.Close())
}

// Close cuts every connection and returns once nothing of the engine runs any
// more. It may be called twice.
func (e *Engine) Close() error {
	var err error
	e.once.Do(func() {
		e.mu.Lock()
		e.draining = true
		e.mu.Unlock()
		for _, h := range e.Hubs() {
			for _, c := range h.all.snapshot() {
				c.Abort(EndShutdown, "The service is going away.")
			}
		}
		e.work.stop()
		e.cancel()
		e.work.wait()
		for _, s := range e.shards {
			s.post(entry{op: opStop})
		}
		for _, s := range e.shards {
			<-s.done
		}
		if e.backplane != nil {
			err = e.backplane.Close()
		}
	})
	return err
}

// spawn runs f on a goroutine that Close waits for. It reports false, and runs
// nothing, once the engine is closed.
func (e *Engine) spawn(f func()) bool { return e.work.spawn(f) }

// reserve takes a place for one more connection.
func (e *Engine) reserve() error {
	if e.Draining() {
		return Errorf(CodeUnavailable, "engine.draining", "This node is going away and takes no new connections.")
	}
	n := e.counters.reserved.Add(1)
	if most := int64(e.limits.Connections); most > 0 && n > most {
		e.unreserve()
		return Errorf(CodeUnavailable, "limits.connections", "This node has %d connections, the most that is allowed.", most)
	}
	return nil
}

func (e *Engine) unreserve() {
	e.counters.reserved.Add(-1)
	e.checkIdle()
}

// checkIdle wakes Shutdown when the last sink is closed.
func (e *Engine) checkIdle() {
	if e.counters.reserved.Load() > 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.draining && e.idle != nil {
		select {
		case <-e.idle:
		default:
			close(e.idle)
		}
	}
}

// shardFor picks a shard for a new connection, in turn.
func (e *Engine) shardFor() *shard {
	return e.shards[e.nextShard.Add(1)%uint32(len(e.shards))]
}

// connOpened tells the observer; appear has told the counters.
func (e *Engine) connOpened(c *Conn) {
	if e.observer.ConnOpened != nil {
		e.observer.ConnOpened(c.hub.name)
	}
}

// connOver notes that a logical connection is over.
func (e *Engine) connOver(c *Conn, reason EndReason, code CloseCode, text string) {
	e.counters.connections.Add(-1)
	e.counters.ended.Add(1)
	if e.observer.ConnEnded != nil {
		e.observer.ConnEnded(c.hub.name, code, reason)
	}
	level := slog.LevelDebug
	switch reason {
	case EndSlow, EndOverload, EndProtocol, EndMessageTimeout, EndUnfinished, EndControlRate:
		level = slog.LevelWarn
	}
	if !e.log.Enabled(e.ctx, level) { // whose arguments would be made for nothing
		return
	}
	e.log.Log(e.ctx, level, "a connection ended", "hub", c.hub.name, "connection", c.id, "user", c.user,
		"reason", reason, "code", code, "text", text)
}

// span begins a traced operation.
func (e *Engine) span(ctx context.Context, name string, h HubName) (context.Context, func(error)) {
	if e.observer.Span == nil {
		return ctx, func(error) {}
	}
	return e.observer.Span(ctx, name, h)
}

func (e *Engine) overfull() bool {
	for _, s := range e.shards {
		if s.full.Load() {
			return true
		}
	}
	return false
}

// waitRoom waits until no shard's queue is over its bounds.
func (e *Engine) waitRoom(ctx context.Context) error {
	for _, s := range e.shards {
		if err := s.waitRoom(ctx); err != nil {
			return err
		}
	}
	return nil
}

// logFailure logs err with everything that an *Error knows.
func (e *Engine) logFailure(what string, err error, args ...any) {
	var ee *Error
	if errors.As(err, &ee) {
		args = append(args, "rule", ee.Rule, "status", ee.Status, "detail", ee.Detail)
	}
	e.log.Warn(what, append(args, "error", err)...)
}

// contextError says what ended ctx.
func contextError(ctx context.Context, rule string) error {
	code, text := CodeClosed, "The caller went away before it was done."
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code, text = CodeTimeout, "It took longer than allowed."
	}
	return &Error{Code: code, Rule: rule + ".timeout", Message: text, Err: context.Cause(ctx)}
}

func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: CodeInternal, Message: "Internal server error", Err: err}
}
