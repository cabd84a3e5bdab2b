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

	mu   sync.Mutex // guards the rest, and Conn.place
	one  *Conn      // the only connection; nil if there are others, or none any more
	many *[]*Conn   // all of them, once there was more than one
}

// all returns the connections, none for a user that its last one has left: that one
// is dead and out of the table. u.mu is held.
func (u *user) all() []*Conn {
	switch {
	case u.one != nil:
		return []*Conn{u.one}
	case u.many != nil:
		return *u.many
	}
	return nil
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
	return append([]*Conn(nil), u.all()...)
}

func (t *userTable) count(name string) int {
	u := t.find(name)
	if u == nil {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.all())
}

// join puts c into its user's connections.
func (t *userTable) join(c *Conn) {
	h := hashOf(string(c.user))
	st := &t.stripes[stripeOf(h)]
	for {
		st.mu.Lock()
		u := st.users.find(h, string(c.user))
		if u == nil {
			u = &user{name: c.user, one: c}
			c.inUser = u
			st.users.insert(h, u)
			st.mu.Unlock()
			return
		}
		st.mu.Unlock()
		if u.add(c) {
			return
		}
		t.forget(u) // it died between the two locks; make another
	}
}

// add puts c into u, unless u is dead.
func (u *user) add(c *Conn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := u.all()
	if len(all) == 0 {
		return false
	}
	c.inUser, c.place = u, int32(len(all))
	all = append(all, c)
	u.one, u.many = nil, &all
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
	if u.one == c {
		u.one = nil
		return true
	}
	all := *u.many
	last := len(all) - 1
	moved := all[last]
	all[c.place], moved.place = moved, c.place
	all[last] = nil
	all = all[:last]
	if cap(all) > 64 && last < cap(all)/4 {
		all = append(make([]*Conn, 0, cap(all)/2), all...)
	}
	*u.many = all
	return last == 0
}

func (t *userTable) forget(u *user) {
	h := hashOf(string(u.name))
	st := &t.stripes[stripeOf(h)]
	st.mu.Lock()
	defer st.mu.Unlock()
	st.users.remove(h, u)
}
