package engine

import "sync"

// work is the goroutines that an engine waits for when it ends. Unlike a
// sync.WaitGroup it may be waited for while more begin.
type work struct {
	mu      sync.Mutex // guards the rest
	n       int
	stopped bool
	none    chan struct{} // closed when n becomes 0; nil while nobody waits
}

// spawn runs f on a goroutine of its own. It reports false, and runs nothing,
// after stop.
func (w *work) spawn(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	w.n++
	go func() {
		defer w.done()
		f()
	}()
	return true
}

func (w *work) done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n--; w.n == 0 && w.none != nil {
		close(w.none)
		w.none = nil
	}
}

// stop lets nothing begin any more.
func (w *work) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

// wait returns when nothing runs.
func (w *work) wait() {
	for {
		w.mu.Lock()
		if w.n == 0 {
			w.mu.Unlock()
			return
		}
		if w.none == nil {
			w.none = make(chan struct{})
		}
		none := w.none
		w.mu.Unlock()
		<-none
	}
}
