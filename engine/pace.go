package engine

import "time"

// pace decides how long a shard waits before a turn, on purpose. A shard that is
// busy writing messages one at a time does better to wait a few milliseconds and
// let several share a write: each costs less, and under load comes sooner. An
// idle shard does not wait, nor does one whose writes carry many messages
// already (BenchmarkFanout at fixed rates).
type pace struct {
	started, ended time.Time // of the last turn
	busy           float64   // share of time spent in turns, smoothed
	depth          float64   // messages a write, smoothed
}

const (
	maxWindow   = 5 * time.Millisecond
	paceIdle    = 50 * time.Millisecond // a pause that makes what was measured stale
	paceBusy    = 0.4                   // share of time from which waiting begins,
	paceFull    = 0.8                   // and at which it is longest
	paceDeep    = 8                     // messages a write from which it is no use
	paceSmooth  = 0.2
	paceMinSize = 64 // connections in a turn below which a turn is short anyway
)

func (p *pace) begin(now time.Time) {
	if now.Sub(p.ended) > paceIdle {
		p.busy, p.depth = 0, 0
		p.started = now
		return
	}
	p.started = now
}

// end notes that a turn made deliveries to conns connections.
func (p *pace) end(now time.Time, deliveries, conns int) {
	took := now.Sub(p.started)
	since := now.Sub(p.ended)
	p.ended = now
	if since <= 0 || since > paceIdle {
		return
	}
	if conns < paceMinSize {
		p.busy *= 1 - paceSmooth
		return
	}
	p.busy += paceSmooth * (float64(took)/float64(since) - p.busy)
	p.depth += paceSmooth * (float64(deliveries)/float64(conns) - p.depth)
}

// window returns how long to wait before the next turn begins.
func (p *pace) window(now time.Time) time.Duration {
	if p.busy <= paceBusy || p.depth >= paceDeep {
		return 0
	}
	share := min(1, (p.busy-paceBusy)/(paceFull-paceBusy))
	return p.started.Add(time.Duration(share * float64(maxWindow))).Sub(now)
}
