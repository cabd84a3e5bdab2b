package engine

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// Span is the half-open range [From, To) of messages in a [Batch].
type Span struct{ From, To int }

// Batch is a run of messages and their bytes in one encoding, which any number
// of connections share. It is immutable while anyone but its maker holds a
// reference, and its memory is used again once the last one is released.
type Batch struct {
	refs atomic.Int32
	home *sync.Pool

	msgs  []*Message
	bytes []byte
	ends  []int // ends[i] is where message i's bytes end
	// members are the memberships behind the messages, in a batch made for one
	// connection whose encoding asks for their options; else empty.
	members []*membership
	// seqs are the numbers of the messages' deliveries, 0 for those without one,
	// in a batch made for one numbered connection; else empty.
	seqs []SequenceID
	// lent are large bodies that lie in other batches, which b holds references to.
	lent      []loan
	lentBytes int
}

// loan is the end of message msg: bytes of another batch, to stand behind b's own
// bytes up to at.
type loan struct {
	msg, at int
	bytes   []byte
	from    *Batch
}

// Len returns the number of messages.
func (b *Batch) Len() int { return len(b.msgs) }

// Message returns message i.
func (b *Batch) Message(i int) *Message { return b.msgs[i] }

// Bytes returns the bytes of the messages in s side by side: a part of b, but a
// copy if b is scattered. They are empty in a batch without an encoding.
func (b *Batch) Bytes(s Span) []byte {
	switch {
	case len(b.bytes) == 0:
		return nil
	case len(b.lent) > 0:
		return bytes.Join(b.Pieces(nil, s), nil)
	}
	return b.bytes[b.start(s.From):b.start(s.To):b.start(s.To)]
}

// Scattered reports whether b's bytes do not all lie side by side.
func (b *Batch) Scattered() bool { return len(b.lent) > 0 }

// Pieces appends the bytes of the messages in s, where they lie.
func (b *Batch) Pieces(dst [][]byte, s Span) [][]byte {
	from, to := b.start(s.From), b.start(s.To) // less what is lent: places in b.bytes
	for _, l := range b.lent {
		switch {
		case l.msg >= s.To:
		case l.msg < s.From:
			from, to = from-len(l.bytes), to-len(l.bytes)
		default:
			if from < l.at {
				dst = append(dst, b.bytes[from:l.at])
			}
			dst = append(dst, l.bytes)
			from, to = l.at, to-len(l.bytes)
		}
	}
	if from < to && len(b.bytes) > 0 {
		dst = append(dst, b.bytes[from:to])
	}
	return dst
}

// Size returns how many bytes the messages in s count for.
func (b *Batch) Size(s Span) int { return b.start(s.To) - b.start(s.From) }

// Retain adds a reference: the batch stays valid until the matching Release.
func (b *Batch) Retain() { b.refs.Add(1) }

// Release gives back a reference. The batch must not be used after it.
func (b *Batch) Release() {
	if b.refs.Add(-1) == 0 {
		b.reset()
		if b.home != nil {
			b.home.Put(b)
		}
	}
}

func (b *Batch) member(i int) *membership {
	if len(b.members) == 0 {
		return nil
	}
	return b.members[i]
}

func (b *Batch) seq(i int) SequenceID {
	if len(b.seqs) == 0 {
		return 0
	}
	return b.seqs[i]
}

func (b *Batch) start(i int) int {
	if i == 0 {
		return 0
	}
	return b.ends[i-1]
}

// maxPooledBatch is the largest byte buffer that goes back to a pool: one huge
// message must not pin its memory for ever.
const maxPooledBatch = 1 << 20

func (b *Batch) reset() {
	clear(b.msgs)
	clear(b.members)
	for _, l := range b.lent {
		l.from.Release()
	}
	clear(b.lent)
	b.lent, b.lentBytes = b.lent[:0], 0
	b.msgs, b.members, b.ends, b.seqs = b.msgs[:0], b.members[:0], b.ends[:0], b.seqs[:0]
	if cap(b.bytes) > maxPooledBatch {
		b.bytes = nil
	}
	b.bytes = b.bytes[:0]
}
