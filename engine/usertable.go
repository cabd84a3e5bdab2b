package engine

import "sync"

// userTable finds the connections of users. A user is much like a group, but mostly
// of one connection, and the shards have no slices of its members: the publisher
// names them. That is a third of the memory.
type userTable struct {
	stripes [tableStripes]userStripe
}

type userStripe struct {
	mu    sync.RWMutex
	users index[*user]
}

// user is the connections of one user, while there are any.
type user struct {
	name UserID

	mu    sync.Mutex // guards the rest, and Conn.place
	conns []*Conn
	one   [1]*Conn // room for conns
	dead  bool     // left by its last connection and out of the table
}

func (u *user) key() string { return string(u.name) }

func (t *userTable) find(name string) *user {
	h := hashOf(name)
	st := &t.stripes[stripeOf(h)]
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.users.find(h, name)
}

// snapshot returns the named user's connections as they are now.
func (t *userTable) snapshot(name string) []*Conn {
	u := t.find(name)
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*Conn(nil), u.conns...)
}

func (t *userTable) count(name string) int {
	u := t.find(name)
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

// join puts c into its user's connections.
func (t *userTable) join(c *Conn) {
	h := hashOf(string(c.user))
	st := &t.stripes[stripeOf(h)]
	for {
		st.mu.Lock()
		u := st.users.find(h, string(c.user))
		if u == nil {
			u = &user{name: c.user}
			u.conns = u.one[:0]
			st.users.insert(h, u)
		}
		st.mu.Unlock()
		if u.add(c) {
			return
		}
		t.forget(u) // it died between the two locks; make another
	}
}

func (u *user) add(c *Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.dead {
		return false
	}
	c.inUser, c.place = u, int32(len(u.conns))
	u.conns = append(u.conns, c)
	return true
}

// leave takes c out of its user's connections.
func (t *userTable) leave(c *Conn) {
	if c.inUser.remove(c) {
		t.forget(c.inUser)
	}
}

// remove reports whether u is now dead.
func (u *user) remove(c *Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := len(u.conns) - 1
	moved := u.conns[last]
	u.conns[c.place], moved.place = moved, c.place
	u.conns[last] = nil
	u.conns = u.conns[:last]
	if cap(u.conns) > 64 && last < cap(u.conns)/4 {
		u.conns = append(make([]*Conn, 0, cap(u.conns)/2), u.conns...)
	}
	u.dead = last == 0
	return u.dead
}

func (t *userTable) forget(u *user) {
	h := hashOf(string(u.name))
	st := &t.stripes[stripeOf(h)]
	st.mu.Lock()
	defer st.mu.Unlock()
	st.users.remove(h, u)
}
