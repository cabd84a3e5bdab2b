package enginetest

import (
	"context"
	"fmt"
	"sync"

	"github.com/fanfare/fanfare/engine"
)

// Handler is an [engine.EventHandler] that records, one line for each call, what
// it was told, and answers by its functions where they are set.
type Handler struct {
	Answer engine.HandlerFuncs

	mu    sync.Mutex
	calls []string
	news  chan struct{}
}

var _ engine.EventHandler = (*Handler)(nil)

// Calls returns what was recorded: "connect 0 ann", "connected 1 ann",
// "message 2 ann text hello", "disconnected 3 ann reason".
func (h *Handler) Calls() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.calls...)
}

// Await returns the calls once there are n, or ctx ends.
func (h *Handler) Await(ctx context.Context, n int) ([]string, error) {
	for {
		h.mu.Lock()
		calls := append([]string(nil), h.calls...)
		if h.news == nil {
			h.news = make(chan struct{})
		}
		news := h.news
		h.mu.Unlock()
		if len(calls) >= n {
			return calls, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return calls, fmt.Errorf("enginetest: %d of %d calls: %w", len(calls), n, ctx.Err())
		}
	}
}

func (h *Handler) record(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
	if h.news != nil {
		close(h.news)
		h.news = nil
	}
}

// Connect implements [engine.EventHandler].
func (h *Handler) Connect(ctx context.Context, e *engine.ConnectEvent) (*engine.ConnectReply, error) {
	h.record("connect %d %s", e.ID, e.UserID)
	return h.Answer.Connect(ctx, e)
}

// Connected implements [engine.EventHandler].
func (h *Handler) Connected(ctx context.Context, e *engine.ConnectedEvent) (*engine.NotifyReply, error) {
	h.record("connected %d %s", e.ID, e.UserID)
	return h.Answer.Connected(ctx, e)
}

// Disconnected implements [engine.EventHandler].
func (h *Handler) Disconnected(ctx context.Context, e *engine.DisconnectedEvent) (*engine.NotifyReply, error) {
	h.record("disconnected %d %s %s", e.ID, e.UserID, e.Reason)
	return h.Answer.Disconnected(ctx, e)
}

// UserEvent implements [engine.EventHandler].
func (h *Handler) UserEvent(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
	h.record("%s %d %s %s %s", e.Name, e.ID, e.UserID, e.Payload.Type, e.Payload.Data)
	return h.Answer.UserEvent(ctx, e)
}
