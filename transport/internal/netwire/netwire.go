// Package netwire moves bytes between the engine and a network connection. It
// is the one place that knows there are two ways to do that:
//
//   - [Descriptor], on Linux over plain TCP: the descriptor is taken out of the
//     Go runtime's hands, an idle connection owns neither goroutine nor buffer,
//     and the engine's shard writes to the socket itself.
//   - [Stream], everywhere else: TLS, other systems, in-memory pipes. One
//     goroutine reads; another writes, and lives only while there is something
//     to write.
//
// Both are an [engine.Sink] on the way out and feed a [Reader] on the way in,
// and both pass the same tests.
package netwire

import (
	"net"
	"sync"

	"github.com/fanfare/fanfare/engine"
)

// Reader is who wants the bytes that come in. Consume and Lost are called by
// one goroutine at a time, which serves other connections too: neither may wait.
type Reader interface {
	// Consume is given bytes as they came in, and may change them, but must not
	// keep them. It reports how many it took and whether it wants more. The wire
	// keeps what was not taken and calls Consume with it before it reads again:
	// after Resume if Consume wanted no more, and otherwise in the connection's
	// next turn, so that a reader can bound what it does in one turn. After
	// Resume, and once after Start, p may be empty.
	Consume(p []byte) (n int, more bool)
	// Lost tells that nothing will come any more: io.EOF, or the failure. It is
	// called at most once, and not for a wire that was closed on this side.
	Lost(err error)
	// Writable tells that a wire which took less than it was offered has room
	// again. It may be called at any time, by any goroutine.
	Writable()
}

// Wire is one network connection. Beyond the methods of [engine.Sink], which
// its shard calls, it can be told to begin and to go on reading.
type Wire interface {
	engine.Sink
	// Start begins reading, with rest taken to be the first bytes that came in.
	// It is called at most once, perhaps after Close.
	Start(rest []byte)
	// Resume goes on reading after Consume wanted no more. It may be called at
	// any time, by any goroutine, and does not block.
	Resume()
}

var _ Wire = (*Stream)(nil)

// busyBuffer is what one read may bring, and one write gathers.
const busyBuffer = 32 << 10

// buffers holds *[]byte of busyBuffer bytes.
var buffers = sync.Pool{New: func() any { b := make([]byte, busyBuffer); return &b }}

// Group makes wires that share what can be shared. The zero value is ready to
// use. It needs no closing: what it owns ends with the last wire.
type Group struct {
	// Portable makes every wire a [Stream].
	Portable bool

	pollers pollers
}

// New returns a wire over c, which belongs to it from then on. r may be called
// as soon as the wire is offered something or started.
func (g *Group) New(c net.Conn, r Reader) Wire { return g.NewAfter(c, nil, r, new(Space)) }

// NewAfter is New for a connection whose far end still has to get head, such as
// the answer to a handshake. head goes out before all that is offered, in the same
// write as the first of it: a write of its own would cost as much as that of a
// message. Nothing is written before the first call of Offer or OfferBytes, which
// may be OfferBytes(nil); a wire that is closed before has not sent head. head belongs
// to the wire: what goes out with it is appended to it, so room behind it saves a copy.
//
// in is memory that the wire may use: as a part of r's it costs less than by itself.
func (g *Group) NewAfter(c net.Conn, head []byte, r Reader, in *Space) Wire {
	if !g.Portable {
		if w := g.pollers.take(c, head, r, in); w != nil {
			return w
		}
	}
	return newStream(c, head, r)
}

// took says what part of spans the first n bytes make up: whole messages, and
// bytes of the one after.
func took(b *engine.Batch, spans []engine.Span, n int) (messages, part int) {
	for _, s := range spans {
		size := b.Size(s)
		if n >= size {
			n -= size
			messages += s.To - s.From
			continue
		}
		for i := s.From; i < s.To; i++ {
			size := b.Size(engine.Span{From: i, To: i + 1})
			if n < size {
				return messages, n
			}
			n -= size
			messages++
		}
	}
	return messages, 0
}
