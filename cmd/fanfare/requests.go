package main

import "sync"

// requests are those that are being served. An http.Server does not wait for
// the ones that it gave away, those of WebSocket clients.
type requests struct {
	mu     sync.RWMutex // guards ended
	ended  bool
	served sync.WaitGroup
}

// enter counts a request in, unless all has ended.
func (r *requests) enter() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.ended {
		r.served.Add(1)
	}
	return !r.ended
}

func (r *requests) leave() { r.served.Done() }

// end lets nobody in any more and waits for those who are.
func (r *requests) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.served.Wait()
}
