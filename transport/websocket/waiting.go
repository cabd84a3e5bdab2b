package websocket

import (
	"container/list"
	"net"
	"sync"
	"time"
)

// waitingClients are the clients of a [Protocol] that have been answered 101 and have not
// sent their first message. When there are too many, the one that has waited for longest
// is refused, so that clients that send nothing do not keep others out.
type waitingClients struct {
	mu    sync.Mutex // guards the rest
	order list.List  // of *waitingClient, the longest waiting first
}

// waitingClient is one of them.
type waitingClient struct {
	conn    net.Conn
	element *list.Element // nil once it has been evicted
}

// add begins the waiting of a client, and ends that of the longest waiting one if more
// than most are waiting: its reads fail from then on.
func (w *waitingClients) add(c net.Conn, most int) *waitingClient {
	w.mu.Lock()
	defer w.mu.Unlock()
	added := &waitingClient{conn: c}
	added.element = w.order.PushBack(added)
	if w.order.Len() > most {
		evicted := w.order.Remove(w.order.Front()).(*waitingClient)
		evicted.element = nil
		_ = evicted.conn.SetReadDeadline(time.Unix(1, 0)) // fails where the connection is closed
	}
	return added
}

// remove ends the waiting of c, and reports whether it had been evicted.
func (w *waitingClients) remove(c *waitingClient) (evicted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.element == nil {
		return true
	}
	w.order.Remove(c.element)
	c.element = nil
	return false
}
