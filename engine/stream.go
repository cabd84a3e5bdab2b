package engine

import (
	"fmt"
	"time"
)

// stream is one that a connection publishes, part by part. Guarded by Conn.mu of
// its publisher, whose requests come one at a time.
type stream struct {
	group  GroupName
	noEcho bool
	next   uint64 // the number that is expected
	idle   time.Duration
	ends   time.Time // unless the publisher gives a sign of life
}

// maxStreams bounds the streams that one connection publishes at a time.
const maxStreams = 100

// beginStream opens a stream, and tells the publisher of it.
func (h *Hub) beginStream(c *Conn, r *Request) {
	id := r.Stream.ID
	if err := c.check(r, SendToGroup, "send to"); err != nil {
		c.streamClosed(id, &StreamError{Name: StreamForbidden, Message: asError(err).Message})
		return
	}
	st := &stream{group: r.Group, noEcho: r.NoEcho, next: 1, idle: r.Stream.Idle}
	if st.idle <= 0 {
		st.idle = DefaultStreamIdle
	}
	st.ends = h.engine.clock.Now().Add(st.idle)
	c.mu.Lock()
	streams := c.extra.get().streams
	used, over := streams[id] != nil, c.isOver
	full := len(streams) >= maxStreams
	if !used && !full && !over {
		x := c.more()
		if x.streams == nil {
			x.streams = make(map[string]*stream)
		}
		x.streams[id] = st
	}
	c.mu.Unlock()
	switch {
	case over:
	case used:
		c.streamClosed(id, &StreamError{Name: StreamBadRequest, Message: "The stream id is in use on this connection."})
	case full:
		c.streamClosed(id, &StreamError{
			Name: StreamBadRequest, Message: fmt.Sprintf("The connection has %d streams, the most that is allowed.", maxStreams),
		})
	default:
		c.shard.post(entry{op: opTask, conn: c})
		c.Post(&Message{Kind: KindStreamAck, Stream: &StreamPart{ID: id, Seq: 1}})
	}
}

// streamData publishes a part, if it is the next one, and says what is expected.
func (h *Hub) streamData(c *Conn, r *Request) {
	id, seq := r.Stream.ID, r.Stream.Seq
	now := h.engine.clock.Now()
	c.mu.Lock()
	st := c.extra.get().streams[id]
	var next uint64
	if st != nil {
		st.ends = now.Add(st.idle)
		next = st.next
	}
	c.mu.Unlock()
	switch {
	case st == nil:
		c.streamClosed(id, &StreamError{Name: StreamNotFound, Message: "The connection publishes no such stream."})
		return
	case seq == 0: // a sign of life
		return
	case seq > next:
		c.Post(&Message{Kind: KindStreamNack, Stream: &StreamPart{ID: id, Seq: next, Err: &StreamError{
			Name: StreamInvalidSeq, Message: fmt.Sprintf("The next part to be taken is %d; this is %d.", next, seq),
		}}})
		return
	case seq == next:
		if why := c.refusesPart(st, r); why != nil {
			if taken := c.takeStream(id); taken != nil {
				h.endStream(c, id, taken, why)
				c.streamClosed(id, why)
			}
			return
		}
		if err := h.publishPart(c, st, &r.Payload, r.Metadata, &StreamPart{ID: id, Seq: seq}); err != nil {
			c.Post(&Message{Kind: KindStreamNack, Stream: &StreamPart{ID: id, Seq: next, Err: &StreamError{
				Name: StreamTransient, Message: asError(err).Message,
			}}})
			return
		}
		next++
		c.mu.Lock()
		st.next = next
		c.mu.Unlock()
	}
	c.Post(&Message{Kind: KindStreamAck, Stream: &StreamPart{ID: id, Seq: next}})
}

// refusesPart returns why r, the next part of c's stream st, cannot be published by
// anyone who tries again, or nil.
func (c *Conn) refusesPart(st *stream, r *Request) *StreamError {
	switch {
	case !c.Permitted(SendToGroup, st.group):
		return &StreamError{Name: StreamForbidden, Message: "The permission to send to the group was taken back."}
	case r.Refused != nil:
		return &StreamError{Name: StreamBadRequest, Message: r.Refused.Message}
	}
	return nil
}

// finishStream ends a stream by its publisher's wish.
func (h *Hub) finishStream(c *Conn, r *Request) {
	st := c.takeStream(r.Stream.ID)
	if st == nil {
		c.streamClosed(r.Stream.ID, &StreamError{Name: StreamNotFound, Message: "The connection publishes no such stream."})
		return
	}
	h.endStream(c, r.Stream.ID, st, r.Stream.Err)
	c.streamClosed(r.Stream.ID, nil)
}

// takeStream takes a stream away from c, nil if there is none.
func (c *Conn) takeStream(id string) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.extra.get().streams[id]
	if st != nil {
		delete(c.extra.streams, id)
	}
	return st
}

// endStream tells a stream's subscribers that it is over.
func (h *Hub) endStream(c *Conn, id string, st *stream, why *StreamError) {
	part := &StreamPart{ID: id, Seq: st.next, End: true, Err: why}
	if err := h.publishPart(c, st, &Payload{Type: Text, Data: []byte{}}, nil, part); err != nil {
		h.engine.logFailure("the end of a stream was not told to other nodes", err, "hub", h.name, "connection", c.id)
	}
}

func (h *Hub) publishPart(c *Conn, st *stream, p *Payload, metadata Metadata, part *StreamPart) error {
	return h.publishFrom(c, &Message{
		Kind: KindData, Group: st.group, From: c.user, Sender: c.id, NoEcho: st.noEcho,
		Payload: *p, Metadata: metadata, Stream: part,
	})
}

// expireStreams ends those of c's streams whose publisher has been silent for
// too long, and returns when the next one is due; zero for never.
func (h *Hub) expireStreams(c *Conn, now time.Time) (next time.Time) {
	idle := make(map[string]*stream)
	c.mu.Lock()
	for id, st := range c.extra.get().streams {
		if now.Before(st.ends) {
			next = earlier(next, st.ends)
			continue
		}
		idle[id] = st
		delete(c.extra.streams, id)
	}
	c.mu.Unlock()
	for id, st := range idle {
		why := &StreamError{Name: StreamIdleTimeout, Message: fmt.Sprintf("The publisher was silent for %s.", st.idle)}
		h.endStream(c, id, st, why)
		c.streamClosed(id, why)
	}
	return next
}

// streamClosed tells a publisher that its stream is over, or never was.
func (c *Conn) streamClosed(id string, why *StreamError) {
	c.Post(&Message{Kind: KindStreamClosed, Stream: &StreamPart{ID: id, Err: why}})
}
