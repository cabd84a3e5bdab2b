// Package watch tells of changes to keys without ever waiting for those who listen.
package watch

import (
	"context"
	"strings"
	"sync"
)

// Hub hands changes to watchers. Of a key whose change a watcher has not taken yet
// it keeps the newest alone, so what waits is bounded by the number of keys. It is
// safe for concurrent use; the zero Hub is ready.
type Hub[T any] struct {
	wg sync.WaitGroup

	mu       sync.Mutex // guards the rest, and the watchers' fields
	watchers map[*watcher[T]]struct{}
	closed   bool
}

type watcher[T any] struct {
	prefix string
	out    chan T
	cancel context.CancelFunc

	pending map[string]T
	order   []string
	wake    chan struct{} // of room for one
}

// Tell hands a change of key to its watchers. It does not block.
func (h *Hub[T]) Tell(key string, change T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if !strings.HasPrefix(key, w.prefix) {
			continue
		}
		if _, waiting := w.pending[key]; !waiting {
			w.order = append(w.order, key)
		}
		w.pending[key] = change
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Watch returns a channel of all changes from now on to keys that begin with prefix.
// It is closed when ctx ends, and when the hub is closed.
func (h *Hub[T]) Watch(ctx context.Context, prefix string) <-chan T {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher[T]{prefix: prefix, out: make(chan T), cancel: cancel, pending: map[string]T{}, wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		cancel()
		close(w.out)
		return w.out
	}
	if h.watchers == nil {
		h.watchers = map[*watcher[T]]struct{}{}
	}
	h.watchers[w] = struct{}{}
	h.wg.Go(func() { h.serve(ctx, w) })
	return w.out
}

// serve ends with ctx.
func (h *Hub[T]) serve(ctx context.Context, w *watcher[T]) {
	defer close(w.out)
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, w)
		w.cancel()
	}()
	for {
		change, ok := h.take(w)
		if !ok {
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case w.out <- change:
		case <-ctx.Done():
			return
		}
	}
}

func (h *Hub[T]) take(w *watcher[T]) (change T, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(w.order) == 0 {
		w.order = nil
		return change, false
	}
	key := w.order[0]
	w.order = w.order[1:]
	change = w.pending[key]
	delete(w.pending, key)
	return change, true
}

// Close ends all watchers and waits for them. Later ones end at once.
func (h *Hub[T]) Close() {
	h.mu.Lock()
	h.closed = true
	for w := range h.watchers {
		w.cancel()
	}
	h.mu.Unlock()
	h.wg.Wait()
}
