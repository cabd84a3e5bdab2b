package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are 1/32 of their value wide.
type histogram struct {
	counts [64 * 32]int64
	n      int64
	max    int64
}

func (h *histogram) add(ns int64) {
	ns = max(ns, 0)
	h.counts[bucket(ns)]++
	h.n++
	h.max = max(h.max, ns)
}

func bucket(ns int64) int {
	if ns < 32 {
		return int(ns)
	}
	e := bits.Len64(uint64(ns)) - 6 // ns>>e has six bits, the first of them set
	return (e+1)*32 + int(ns>>e) - 32
}

// top returns the largest duration of bucket i.
func top(i int) int64 {
	if i < 32 {
		return int64(i)
	}
	e := i/32 - 1
	return int64(i%32+33)<<e - 1
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns the duration that the share q of all does not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	want := int64(q*float64(h.n) + 0.5)
	var seen int64
	for i, c := range h.counts {
		if seen += c; seen >= want && c > 0 {
			return time.Duration(min(top(i), h.max))
		}
	}
	return time.Duration(h.max)
}
