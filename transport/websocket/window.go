package websocket

import (
	"sync/atomic"

	"github.com/fanfare/fanfare/transport/internal/netwire"
)

// window is the end of what a client's compressed messages have become, which its next
// one may refer to (RFC 7692 section 7.2.1, context takeover). It grows with what the
// client sends: one that has sent nothing owns no bytes of it.
type window struct {
	data []byte
	size int // the most that data is to hold; 0 if each message stands alone

	inflated int // bytes that came of compressed messages in this turn
}

// add moves the window on by p. A nil window stays as it is.
func (w *window) add(p []byte) {
	if w == nil {
		return
	}
	p = p[max(0, len(p)-w.size):]
	if drop := len(w.data) + len(p) - w.size; drop > 0 {
		w.data = w.data[:copy(w.data, w.data[drop:])]
	}
	if need := len(w.data) + len(p); need > cap(w.data) {
		w.data = append(make([]byte, 0, min(w.size, max(need, 2*cap(w.data)))), w.data...)
	}
	w.data = append(w.data, p...)
}

// reserveWindow takes size bytes of [Options].CompressionMemory, if they are there.
func (h *Handler) reserveWindow(size int) bool {
	if h.windows.Add(int64(size)) <= int64(h.o.CompressionMemory) {
		return true
	}
	h.windows.Add(-int64(size))
	return false
}

// windowWire is a wire with a window of so many bytes, which it gives back.
type windowWire struct {
	netwire.Wire
	windows *atomic.Int64
	size    int
}

// Close implements [engine.Sink].
func (w *windowWire) Close(polite bool) {
	w.windows.Add(-int64(w.size))
	w.Wire.Close(polite)
}
