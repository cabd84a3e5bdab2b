package transport

import (
	"context"
	"sync"

	"github.com/fanfare/fanfare/engine"
)

// invocations are those of a session that are under way, by the client's name for
// each, with what cancels it. Every one of them is in the connection's lane, which
// bounds them. The last one to end takes the table with it.
type invocations struct {
	mu      sync.Mutex
	cancels map[string]context.CancelFunc // nil once it is out of use
}

// beginInvocation notes an invocation in the session's table, which it returns, or
// nil if the name is in use. Only the reading goroutine comes here, so there is
// nobody else to make a table.
func (s *Session) beginInvocation(name string, cancel context.CancelFunc) *invocations {
	if t := s.invocations.Load(); t != nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		if _, taken := t.cancels[name]; taken {
			return nil
		}
		if t.cancels != nil {
			t.cancels[name] = cancel
			return t
		}
	}
	t := &invocations{cancels: map[string]context.CancelFunc{name: cancel}}
	s.invocations.Store(t)
	return t
}

// endInvocation forgets an invocation of t, whose name is free from then on.
func (s *Session) endInvocation(t *invocations, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancels[name]()
	if delete(t.cancels, name); len(t.cancels) == 0 {
		t.cancels = nil
		s.invocations.CompareAndSwap(t, nil)
	}
}

// cancelInvocation ends an invocation early. One that is not under way has been
// answered: it reports false.
func (s *Session) cancelInvocation(name string) bool {
	t := s.invocations.Load()
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	cancel := t.cancels[name]
	if cancel != nil {
		cancel()
	}
	return cancel != nil
}

// invoke hands r to the engine, as do does, and answers the invocation name once
// its outcome is known: with the handler's reply, or with why there is none.
func (s *Session) invoke(name string, r *engine.Request) (more bool) {
	ctx, cancel := context.WithCancel(context.Background())
	table := s.beginInvocation(name, cancel)
	if table == nil {
		cancel()
		s.conn.Post(&engine.Message{
			Kind: engine.KindInvokeResponse, Invocation: name,
			Err: engine.Errorf(engine.CodeConflict, "invocation.id",
				"The invocation id is in use: it names an invocation that has not been answered yet."),
		})
		return true
	}
	response := &engine.Message{Kind: engine.KindInvokeResponse, Invocation: name}
	r.Cancel = ctx
	r.OnReply = func(reply *engine.EventReply) {
		if reply == nil {
			return
		}
		response.Metadata = reply.Metadata
		if reply.Payload == nil {
			return
		}
		response.Payload = *reply.Payload
		if response.Payload.Data == nil {
			response.Payload.Data = []byte{} // nil would say that there is no payload
		}
	}
	return s.hand(r, func(err error) {
		s.endInvocation(table, name)
		// A client gives up its invocations with their wire; on the next one the
		// name may stand for another.
		if !s.Over() {
			response.Err = engineError(err)
			s.conn.Post(response)
		}
	})
}
