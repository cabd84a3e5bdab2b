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
}

// Stats returns a snapshot of the counters.
func (e *Engine) Stats() Stats {
	c := &e.counters
	st := Stats{
		Connections: c.connections.Load(), Groups: c.groups.Load(), Memberships: c.memberships.Load(),
		QueuedMessages: e.laggards.messages.Load(), QueuedBytes: e.laggards.bytes.Load(),
		Opened: c.opened.Load(), Ended: c.ended.Load(), MessagesIn: c.messagesIn.Load(), BytesIn: c.bytesIn.Load(),
		UnfinishedBytes: c.unfinished.Load(),
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
}

func (c *counters) published(m *Message) {
	c.messagesIn.Add(1)
	c.bytesIn.Add(int64(len(m.Payload.Data)))
}

func (c *counters) groupMade(k TargetKind) {
	if k == TargetGroup {
		c.groups.Add(1)
	}
}

func (c *counters) groupGone(k TargetKind) {
	if k == TargetGroup {
		c.groups.Add(-1)
	}
}
