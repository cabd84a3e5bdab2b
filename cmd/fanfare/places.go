package main

import (
	"container/heap"
	"container/list"
	"net/netip"
)

// places are a bounded number of places for connections, shared by address prefix. When
// one connection too many comes, the oldest connection of the prefix that has the most
// places loses its place. So a prefix can have all places while nobody else wants one,
// and of n prefixes that want more than there are, each keeps an n-th.
//
// Connections whose share is the zero Prefix share nothing with the others.
type places struct {
	most   int
	taken  int
	shares map[netip.Prefix]*share
	order  shareHeap
}

// share is the connections of one prefix, the oldest first.
type share struct {
	prefix netip.Prefix
	conns  list.List // of *inbound
	index  int       // in places.order
}

func newPlaces(most int) *places {
	return &places{most: most, shares: make(map[netip.Prefix]*share)}
}

// place is where a connection has its place; the zero place is none.
type place struct {
	in      *places
	share   *share
	element *list.Element
}

// add gives c a place in the share of prefix, and returns the connection that lost its
// place for it, if one did.
func (s *places) add(c *inbound, prefix netip.Prefix) (evicted *inbound) {
	of, ok := s.shares[prefix]
	if !ok {
		of = &share{prefix: prefix}
		s.shares[prefix] = of
		of.conns.PushBack(c)
		heap.Push(&s.order, of)
	} else {
		of.conns.PushBack(c)
		heap.Fix(&s.order, of.index)
	}
	c.place = place{in: s, share: of, element: of.conns.Back()}
	s.taken++
	if s.taken <= s.most {
		return nil
	}
	evicted = s.order[0].conns.Front().Value.(*inbound)
	evicted.place.leave()
	return evicted
}

// leave gives the place back.
func (p *place) leave() {
	if p.in == nil {
		return
	}
	s, of := p.in, p.share
	of.conns.Remove(p.element)
	s.taken--
	if of.conns.Len() == 0 {
		heap.Remove(&s.order, of.index)
		delete(s.shares, of.prefix)
	} else {
		heap.Fix(&s.order, of.index)
	}
	*p = place{}
}

// shareHeap has the share with the most connections on top, and of several the one
// whose oldest connection is the oldest.
type shareHeap []*share

var _ heap.Interface = (*shareHeap)(nil)

func (h shareHeap) Len() int { return len(h) }

func (h shareHeap) Less(i, j int) bool {
	a, b := &h[i].conns, &h[j].conns
	if a.Len() != b.Len() {
		return a.Len() > b.Len()
	}
	return a.Front().Value.(*inbound).since.Before(b.Front().Value.(*inbound).since)
}

func (h shareHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *shareHeap) Push(x any) {
	s := x.(*share)
	s.index = len(*h)
	*h = append(*h, s)
}

// Pop implements heap.Interface.
func (h *shareHeap) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
