package engine

import "sync/atomic"

// Stats are an engine's counters: what there is now, then totals since the start.
type Stats struct {
	Hubs, Connections, Groups, Memberships int64
	// Queued is what connections are owed because they read slowly or have no wire,
	// and what they have not acknowledged.
	QueuedMessages, QueuedBytes int64
	// UnfinishedBytes is what is kept of messages that have not arrived completely.
	UnfinishedBytes int64

	Opened, Ended int64
	// In is what clients and servers published; Out is deliveries that a sink took.
	MessagesIn, BytesIn   int64
	MessagesOut, BytesOut int64
	// Dropped is deliveries lost to connections that were ended with messages waiting.
	Dropped int64

	// PendingEventBytes is what Limits.TotalPendingEventBytes bounds, now.
	PendingEventBytes int64
	// EventsDropped is requests of connections that had ended, and connected and
	// disconnected events, that were given up. RequestsRefused is requests that there
	// was no room for.
	EventsDropped, RequestsRefused int64
	// GroupBytes is what Limits.TotalGroupBytes bounds, now.
	GroupBytes int64
}

// Stats returns a snapshot of the counters.
func (e *Engine) Stats() Stats {
	c := &e.counters
	st := Stats{
		Connections: c.connections.Load(), Groups: c.groups.Load(), Memberships: c.memberships.Load(),
		QueuedMessages: e.laggards.messages.Load(), QueuedBytes: e.laggards.bytes.Load(),
		UnfinishedBytes:   c.unfinished.Load(),
		PendingEventBytes: e.pending.used.Load(), EventsDropped: c.eventsDropped.Load(), RequestsRefused: c.requestsRefused.Load(),
		GroupBytes: c.groupBytes.Load(),
		Opened:     c.opened.Load(), Ended: c.ended.Load(), MessagesIn: c.messagesIn.Load(), BytesIn: c.bytesIn.Load(),
	}
	e.mu.RLock()
	st.Hubs = int64(len(e.hubs))
	e.mu.RUnlock()
	for _, s := range e.shards {
		st.MessagesOut += s.delivered.Load()
		st.BytesOut += s.deliveredBytes.Load()
		st.Dropped += s.dropped.Load()
	}
	return st
}

type counters struct {
	reserved            atomic.Int64 // admissions and sinks that are not closed yet
	connections, groups atomic.Int64
	memberships         atomic.Int64
	opened, ended       atomic.Int64
	messagesIn, bytesIn atomic.Int64
	unfinished          atomic.Int64 // bytes of unfinished messages
	eventsDropped       atomic.Int64
	requestsRefused     atomic.Int64
	groupBytes          atomic.Int64
}

func (c *counters) published(m *Message) {
	c.messagesIn.Add(1)
	c.bytesIn.Add(int64(len(m.Payload.Data)))
}

func (c *counters) groupMade(k TargetKind, name string) {
	if k == TargetGroup {
		c.groups.Add(1)
		c.groupBytes.Add(int64(groupOverhead + len(name)))
	}
}

func (c *counters) groupGone(k TargetKind, name string) {
	if k == TargetGroup {
		c.groups.Add(-1)
		c.groupBytes.Add(-int64(groupOverhead + len(name)))
	}
}
