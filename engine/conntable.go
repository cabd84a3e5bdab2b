package engine

import "sync"

// connTable finds connections by id.
type connTable struct {
	stripes [tableStripes]connStripe
}

type connStripe struct {
	mu    sync.RWMutex
	conns index[*Conn]
}

func (c *Conn) key() string { return string(c.id) }

func (t *connTable) find(id ConnID) *Conn {
	h := hashOf(string(id))
	st := &t.stripes[stripeOf(h)]
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.conns.find(h, string(id))
}

// insert adds c, or returns the connection that has its id.
func (t *connTable) insert(c *Conn) *Conn {
	h := hashOf(string(c.id))
	st := &t.stripes[stripeOf(h)]
	st.mu.Lock()
	defer st.mu.Unlock()
	if old := st.conns.find(h, string(c.id)); old != nil {
		return old
	}
	st.conns.insert(h, c)
	return nil
}

func (t *connTable) remove(c *Conn) {
	h := hashOf(string(c.id))
	st := &t.stripes[stripeOf(h)]
	st.mu.Lock()
	defer st.mu.Unlock()
	st.conns.remove(h, c)
}
