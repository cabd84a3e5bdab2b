package engine

import (
	"context"
	"sync"
)

// SubscribeOptions describe an in-process subscriber. Nil means an anonymous
// one in no group.
type SubscribeOptions struct {
	UserID UserID
	Groups []GroupName
	// Buffer is how many messages the subscription holds before the engine's
	// own outbound bounds begin to count. Default: Limits.OutboundMessages.
	Buffer int
}

// Subscribe opens an in-process connection: a first-class member of groups,
// seen by every verb, that receives messages as Go values. It may do everything
// and raises no events. ctx bounds the call, not the subscription, which ends
// with Close, with a verb that closes it, or with the engine.
func (h *Hub) Subscribe(ctx context.Context, o *SubscribeOptions) (*Subscription, error) {
	if o == nil {
		o = &SubscribeOptions{}
	}
	e := h.engine
	if err := e.reserve(); err != nil {
		return nil, err
	}
	buffer := o.Buffer
	if buffer <= 0 {
		buffer = e.limits.OutboundMessages
	}
	s := &Subscription{room: buffer, ready: make(chan struct{}, 1)}
	s.conn = &Conn{
		id: newConnID(), user: o.UserID, hub: h, shard: e.shardFor(), sink: (*subscriptionSink)(s),
		grants: allGrants, quiet: true, nextEvent: 1,
	}
	if err := h.enter(ctx, s.conn, &entrance{hello: &Message{Kind: KindConnected, ConnID: s.conn.id, User: o.UserID}, groups: o.Groups}); err != nil {
		e.unreserve()
		return nil, err
	}
	if err := h.joinInitial(ctx, s.conn, o.Groups); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Subscription is an in-process subscriber. Receive may be called by one
// goroutine at a time, the other methods by any.
type Subscription struct {
	conn *Conn
	room int

	mu     sync.Mutex // guards the rest
	queue  []*Message
	held   int
	starve bool // Offer was refused; Receive owes a Writable
	over   bool
	ready  chan struct{} // has a token when queue or over changed
}

// Conn returns the subscription's connection: its id, and the verbs of a client.
func (s *Subscription) Conn() *Conn { return s.conn }

// Receive returns the next message. It waits for one, until ctx ends or, with
// CodeClosed, the subscription is over and all that it got has been received.
func (s *Subscription) Receive(ctx context.Context) (*Message, error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			m := s.queue[0]
			s.queue[0] = nil
			s.queue = s.queue[1:]
			s.held -= m.size()
			wake := s.starve && len(s.queue) <= s.room/2
			if wake {
				s.starve = false
			}
			s.mu.Unlock()
			if wake {
				s.conn.Writable()
			}
			return m, nil
		}
		over := s.over
		s.mu.Unlock()
		if over {
			return nil, errConnOver
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close ends the subscription.
func (s *Subscription) Close() error {
	s.conn.Abort(EndClient, "The subscription was closed.")
	return nil
}

// subscriptionSink is a Subscription as its shard sees it.
type subscriptionSink Subscription

var _ Sink = (*subscriptionSink)(nil)

func (s *subscriptionSink) Offer(b *Batch, spans []Span) (n, part int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	for _, span := range spans {
		for i := span.From; i < span.To; i++ {
			m := b.Message(i)
			if m.Kind == KindClose {
				s.conn.Gone(FirstWire, m.CloseCode, "") // there is no far end to wait for
			}
			if !m.Kind.Numbered() {
				n++
				continue
			}
			if len(s.queue) >= s.room {
				s.starve = true
				return n, 0, nil
			}
			s.queue = append(s.queue, m)
			s.held += m.size()
			n++
		}
	}
	return n, 0, nil
}

func (s *subscriptionSink) OfferBytes(p []byte) (int, error) { return len(p), nil }

func (s *subscriptionSink) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *subscriptionSink) Close(bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.wake()
}

func (s *subscriptionSink) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}
