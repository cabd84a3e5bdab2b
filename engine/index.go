package engine

import (
	"hash/maphash"
	"math/bits"
)

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
	slots []E // of which a fifth or more are empty
	used  int
}

var tableSeed = maphash.MakeSeed()

func hashOf(name string) uint64 { return maphash.String(tableSeed, name) }

// home returns where something with the hash h belongs.
func (x *index[E]) home(h uint64) int {
	place, _ := bits.Mul64(h, uint64(len(x.slots)))
	return int(place)
}

// next returns the slot behind i.
func (x *index[E]) next(i int) int {
	if i++; i < len(x.slots) {
		return i
	}
	return 0
}

// behind returns how far slot i is behind slot from.
func (x *index[E]) behind(i, from int) int {
	if i < from {
		return i + len(x.slots) - from
	}
	return i - from
}

// find returns what has the name, whose hash is h; nil for nothing.
func (x *index[E]) find(h uint64, name string) (_ E) {
	var none E
	if x.used == 0 {
		return none
	}
	for i := x.home(h); ; i = x.next(i) {
		if e := x.slots[i]; e == none || e.key() == name {
			return e
		}
	}
}

// insert adds e, whose name has the hash h and is not in x.
func (x *index[E]) insert(h uint64, e E) {
	if n := x.used + 1; 5*n > 4*len(x.slots) {
		x.resize(3*n/2 + 2)
	}
	x.place(h, e)
	x.used++
}

func (x *index[E]) place(h uint64, e E) {
	var none E
	i := x.home(h)
	for x.slots[i] != none {
		i = x.next(i)
	}
	x.slots[i] = e
}

// remove takes e out, whose name has the hash h, and reports whether it was in x.
func (x *index[E]) remove(h uint64, e E) bool {
	var none E
	if x.used == 0 {
		return false
	}
	i := x.home(h)
	for x.slots[i] != e {
		if x.slots[i] == none {
			return false
		}
		i = x.next(i)
	}
	// What follows moves up, unless it stands before its home then.
	for j := x.next(i); x.slots[j] != none; j = x.next(j) {
		if home := x.home(hashOf(x.slots[j].key())); x.behind(j, home) >= x.behind(j, i) {
			x.slots[i] = x.slots[j]
			i = j
		}
	}
	x.slots[i] = none
	x.used--
	switch {
	case x.used == 0:
		x.slots = nil
	case len(x.slots) > 8 && 4*x.used < len(x.slots):
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
