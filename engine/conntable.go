package engine

import "sync"

// connTable finds connections by id.
type connTable struct {
	stripes [tableStripes]connStripe
}

type connStripe struct {
	mu sync.RWMutex
	m  map[ConnID]*Conn
}

func (t *connTable) find(id ConnID) *Conn {
	st := &t.stripes[stripeOf(string(id))]
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.m[id]
}

// insert adds c, or returns the connection that has its id.
func (t *connTable) insert(c *Conn) *Conn {
	st := &t.stripes[stripeOf(string(c.id))]
	st.mu.Lock()
	defer st.mu.Unlock()
	if old := st.m[c.id]; old != nil {
		return old
	}
	if st.m == nil {
		st.m = make(map[ConnID]*Conn)
	}
	st.m[c.id] = c
	return nil
}

func (t *connTable) remove(c *Conn) {
	st := &t.stripes[stripeOf(string(c.id))]
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.m[c.id] == c {
		if delete(st.m, c.id); len(st.m) == 0 {
			st.m = nil // maps do not shrink by themselves
		}
	}
}
