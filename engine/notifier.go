package engine

import "sync"

// notifier runs functions on as few goroutines as the load needs: none while
// idle, and never more than most, with a bounded queue behind them.
type notifier struct {
	most int

	mu     sync.Mutex
	active int
	queue  []func()
}

// maxNotes bounds the notifications that wait for one handler, as a multiple of
// the calls that may be under way: a node that loses all its clients at once
// must still be able to say so.
const maxNotes = 64

func (n *notifier) run(e *Engine, f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.active >= n.most {
		if len(n.queue) >= maxNotes*n.most {
			return false
		}
		n.queue = append(n.queue, f)
		return true
	}
	n.active++
	if !e.spawn(func() { n.work(f) }) {
		n.active--
		return false
	}
	return true
}

func (n *notifier) work(f func()) {
	for {
		f()
		n.mu.Lock()
		if len(n.queue) == 0 {
			n.active--
			n.queue = nil
			n.mu.Unlock()
			return
		}
		f = n.queue[0]
		n.queue[0] = nil
		n.queue = n.queue[1:]
		n.mu.Unlock()
	}
}
