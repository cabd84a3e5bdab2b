package engine

import "hash/maphash"

// named is what an index finds: a pointer to something with a name.
type named interface {
	comparable
	key() string
}

// index finds things by their names. It is a hash table, with linear probing, of
// the pointers alone: a map would hold the name's header beside each, and three
// times as much memory. The zero value is empty. The caller hashes names, once for
// the index and for the choice among several.
type index[E named] struct {
	slots []E // a power of two of them, of which some are empty
	used  int
}

var tableSeed = maphash.MakeSeed()

func hashOf(name string) uint64 { return maphash.String(tableSeed, name) }

// leastSlots is the least size of an index that is not empty.
const leastSlots = 4

// home returns where something with the hash h belongs.
func (x *index[E]) home(h uint64) int { return int(h>>32) & (len(x.slots) - 1) }

// find returns what has the name, whose hash is h; nil for nothing.
func (x *index[E]) find(h uint64, name string) (_ E) {
	var none E
	if x.used == 0 {
		return none
	}
	for i := x.home(h); ; i = (i + 1) & (len(x.slots) - 1) {
		if e := x.slots[i]; e == none || e.key() == name {
			return e
		}
	}
}

// insert adds e, whose name has the hash h and is not in x.
func (x *index[E]) insert(h uint64, e E) {
	if 4*(x.used+1) > 3*len(x.slots) {
		x.resize(max(leastSlots, 2*len(x.slots)))
	}
	x.place(h, e)
	x.used++
}

func (x *index[E]) place(h uint64, e E) {
	var none E
	i := x.home(h)
	for x.slots[i] != none {
		i = (i + 1) & (len(x.slots) - 1)
	}
	x.slots[i] = e
}

// remove takes e out, whose name has the hash h, and reports whether it was in x.
func (x *index[E]) remove(h uint64, e E) bool {
	var none E
	if x.used == 0 {
		return false
	}
	mask := len(x.slots) - 1
	i := x.home(h)
	for x.slots[i] != e {
		if x.slots[i] == none {
			return false
		}
		i = (i + 1) & mask
	}
	// What follows moves up, unless it stands before its home then.
	for j := (i + 1) & mask; x.slots[j] != none; j = (j + 1) & mask {
		home := x.home(hashOf(x.slots[j].key()))
		if (j-home)&mask >= (j-i)&mask {
			x.slots[i] = x.slots[j]
			i = j
		}
	}
	x.slots[i] = none
	x.used--
	switch {
	case x.used == 0:
		x.slots = nil
	case len(x.slots) > leastSlots && 8*x.used < len(x.slots):
		x.resize(len(x.slots) / 2)
	}
	return true
}

func (x *index[E]) resize(n int) {
	var none E
	old := x.slots
	x.slots = make([]E, n)
	for _, e := range old {
		if e != none {
			x.place(hashOf(e.key()), e)
		}
	}
}
