package conformance

import (
	"bytes"
	"hash/maphash"
)

// Cache keeps what is the same in several cases with rounds: the client's compressed
// messages, and what the server has been shown to send for them. It is for one goroutine
// at a time, and holds what belongs to one size of one kind of data: another one
// replaces it.
type Cache struct {
	of     messages
	seed   maphash.Seed
	packed map[params][][]byte
	proven map[proof]bool
}

// messages names a sequence of messages.
type messages struct {
	data *Data
	size int
}

// proof says that a compressed message, which refers to nothing but itself, is the i-th
// message, in a window.
type proof struct {
	i, window int
	hash      uint64
}

// NewCache returns an empty cache.
func NewCache() *Cache { return &Cache{seed: maphash.MakeSeed()} }

// enter empties the cache unless it is of m.
func (c *Cache) enter(m messages) {
	if c.of != m {
		c.of, c.packed, c.proven = m, map[params][][]byte{}, map[proof]bool{}
	}
}

// compressed returns the first n messages, compressed one after the other.
func (c *Cache) compressed(n int, p params) [][]byte {
	all := c.packed[p]
	if len(all) < n {
		all = all[:0]
		w := newCompressor(p)
		for i := range n {
			all = append(all, w.compress(c.of.data.message(i, c.of.size)))
		}
		c.packed[p] = all
	}
	return all
}

// rounds sends one message after the other.
func (r *run) rounds() {
	x := r.Rounds
	n := x.Count
	if r.server.Rounds != 0 {
		n = min(n, r.server.Rounds)
	}
	r.cache.enter(messages{x.Data, x.Size})
	var packed [][]byte
	if r.conn.deflate {
		packed = r.cache.compressed(n, r.conn.client)
	}
	var b []byte
	for i := 0; i < n && !r.over(); i++ {
		want := x.Data.message(i, x.Size)
		b = b[:0]
		if packed == nil {
			b = appendFragments(b, x, want, 0)
		} else {
			b = appendFragments(b, x, packed[i], 4)
		}
		if r.write(b) != nil {
			r.fail("round %d: the connection ended", i)
			return
		}
		r.echo(i, want)
	}
}

// appendFragments appends a message as it travels.
func appendFragments(b []byte, x *Rounds, p []byte, rsv byte) []byte {
	f := Frame{Op: opText, RSV: rsv}
	if x.Data.Kind == Binary {
		f.Op = opBinary
	}
	for {
		f.Payload, f.More = p, false
		if x.Fragment > 0 && len(p) > x.Fragment {
			f.Payload, f.More = p[:x.Fragment], true
		}
		b = f.append(b)
		p = p[len(f.Payload):]
		if !f.More {
			return b
		}
		f.Op, f.RSV = opContinuation, 0
	}
}

// echo waits for the i-th message to come back.
func (r *run) echo(i int, want []byte) {
	m, ok := r.conn.next(r.patience)
	switch {
	case !ok:
		r.fail("round %d: nothing came within %s", i, r.patience)
		return
	case m.err != nil:
		r.eof = true
		r.fail("round %d: the connection ended: %v", i, m.err)
		return
	case (m.op == opText) != (r.Rounds.Data.Kind == Text) || m.op > opBinary:
		r.fail("round %d: came a frame of opcode %x", i, m.op)
		return
	}
	got := m.payload
	if m.compressed {
		is := proof{i, r.conn.server.window, maphash.Bytes(r.cache.seed, got)}
		if r.cache.proven[is] {
			r.conn.remember(want)
			return
		}
		out, back, err := r.conn.in.inflate(got, r.conn.before, r.conn.server.window)
		if err != nil {
			r.fail("round %d: a compressed message that does not decompress: %v", i, err)
			return
		}
		r.conn.remember(out)
		got = out
		r.cache.proven[is] = back == 0 && bytes.Equal(got, want)
	}
	if !bytes.Equal(got, want) {
		r.fail("round %d: %d bytes came back as %d others", i, len(want), len(got))
	}
}
