package engine

import "sync"

// draining is an end that waits for what its connection asked before. Guarded by
// Conn.mu.
type draining struct {
	wire WireID
	end  func()      // at most once
	stop func() bool // the timer that calls end, too
}

// EndAfter calls end, which is to end the connection because of what came by wire, once
// all that the connection asked before has been carried out and answered, or has taken
// longer than [Limits].CloseTimeout. It may do so before it returns. The caller lets
// nothing more be asked. Of several calls for a connection that waits the first counts.
func (c *Conn) EndAfter(wire WireID, end func()) {
	c.mu.Lock()
	if !c.busy || c.isOver {
		c.mu.Unlock()
		end()
		return
	}
	defer c.mu.Unlock()
	if l := c.openLane(); l.draining == nil {
		end = sync.OnceFunc(end)
		e := c.hub.engine
		l.draining = &draining{wire: wire, end: end, stop: e.clock.AfterFunc(e.limits.CloseTimeout, end)}
	}
}

// finish calls the end that has waited. It is called without Conn.mu.
func (d *draining) finish() {
	d.stop()
	d.end()
}

// leaves notes that the far end of wire has said goodbye, if the end of c waits: then
// it is no end of its own. It reports whether that is so.
func (c *Conn) leaves(wire WireID) bool {
	c.mu.Lock()
	waits := c.lane != nil && c.lane.draining != nil && c.lane.draining.wire == wire && !c.isOver
	c.mu.Unlock()
	if waits {
		c.shard.post(entry{op: opLeaves, conn: c, wire: wire})
	}
	return waits
}
