package websocket

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/flate"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
)

// Messages are compressed without context takeover (RFC 7692 section 7.1.1.1): each
// is the same for everyone, and no connection owns what one was compressed with.

// tail is what ends a message's compressed data and does not travel.
var tail = []byte{0x00, 0x00, 0xff, 0xff}

// compressor is a flate.Writer with its output.
type compressor struct {
	out bytes.Buffer
	w   *flate.Writer
}

func newCompressor(window uint8) *compressor {
	c := &compressor{}
	// These fail for unknown levels and sizes only.
	if window == maxWindowBits {
		c.w, _ = flate.NewWriter(&c.out, flate.BestSpeed)
	} else {
		c.w, _ = flate.NewWriterWindow(&c.out, 1<<window)
	}
	return c
}

// compressors holds *compressor, by the bits of the window.
var compressors [maxWindowBits + 1]sync.Pool

// deflate replaces dst[at:] by its compressed form, in which nothing refers to what
// is more than a window before it. The same bytes always give the same form.
func deflate(dst []byte, at int, window uint8) []byte {
	pool := &compressors[window]
	c, ok := pool.Get().(*compressor)
	if !ok {
		c = newCompressor(window)
	}
	defer pool.Put(c)
	c.out.Reset()
	c.w.Reset(&c.out)
	_, _ = c.w.Write(dst[at:]) // writes to memory do not fail
	_ = c.w.Flush()
	return append(dst[:at], bytes.TrimSuffix(c.out.Bytes(), tail)...)
}

// A block that is not compressed has a header of five bytes and at most 65535
// bytes (RFC 1951 section 3.2.4).
const (
	storedHeader = 5
	maxStored    = 0xffff
)

// store turns dst[at:] into blocks that are not compressed and not the last.
func store(dst []byte, at int) []byte {
	for at < len(dst) {
		n := min(len(dst)-at, maxStored)
		var head [storedHeader]byte
		binary.LittleEndian.PutUint16(head[1:], uint16(n))
		binary.LittleEndian.PutUint16(head[3:], ^uint16(n))
		dst = slices.Insert(dst, at, head[:]...)
		at += storedHeader + n
	}
	return dst
}

var errDeflate = &frameError{engine.CloseInvalidData, transport.ReasonInvalidFrame, "a compressed message that does not decompress"}

// end finishes a client's message: the tail, and an empty last block, whose end shows
// that all before it was read.
var end = []byte{0x00, 0x00, 0xff, 0xff, lastStored, 0x00, 0x00, 0xff, 0xff}

// lastStored begins a block that is not compressed and the last.
const lastStored = 0x01

// maxLastBlocks is how many blocks of one message may say that they are the last.
// Each of them makes the inflater begin anew, which costs more than its two bytes.
const maxLastBlocks = 4096

// inflater decompresses messages of clients.
type inflater struct {
	in   []byte
	src  bytes.Reader // of in
	r    io.ReadCloser
	out  bytes.Buffer
	dict []byte
}

// inflaters holds *inflater.
var inflaters = sync.Pool{New: func() any {
	i := &inflater{}
	i.r = flate.NewReader(&i.src)
	return i
}}

// maxPooledInflater is the most memory that an inflater keeps for its next message.
const maxPooledInflater = 256 << 10

// free gives i back, and with it what inflate has returned.
func (i *inflater) free() {
	if cap(i.in) <= maxPooledInflater && i.out.Cap() <= maxPooledInflater {
		inflaters.Put(i)
	}
}

// inflate decompresses p, the payload of a message, up to limit bytes: a few bytes
// may stand for very many. w is the client's window, nil if none is kept. What it
// returns is valid until free.
//
// A block that says it is the last ends neither the message nor the window: the next
// one begins at the next byte (RFC 7692 section 7.2.3.4).
func (i *inflater) inflate(p []byte, limit int, w *window) ([]byte, *frameError) {
	i.in = append(append(i.in[:0], p...), end...)
	i.src.Reset(i.in)
	i.out.Reset()
	var before []byte
	if w != nil {
		before = w.data
	}
	for range maxLastBlocks {
		i.r.(flate.Resetter).Reset(&i.src, i.dictionary(before))
		_, err := i.out.ReadFrom(io.LimitReader(i.r, int64(limit-i.out.Len())+1))
		switch {
		case err != nil:
			return nil, errDeflate
		case i.out.Len() > limit:
			return nil, errTooLarge
		}
		switch i.src.Len() {
		case 0, // it was the block that inflate has added
			len(end),             // it was the client's, which left out the header before the tail
			len(end) - len(tail): // that header was of a last block
			w.add(i.out.Bytes())
			return i.out.Bytes(), nil
		}
		if i.src.Len() < len(end) {
			return nil, errDeflate
		}
	}
	return nil, errDeflate
}

// dictionary returns what the next block may refer to: the end of before, and of what
// has come of the message so far.
func (i *inflater) dictionary(before []byte) []byte {
	out := i.out.Bytes()
	if len(out) == 0 {
		return before
	}
	if len(before) > 0 && len(out) < maxWindow {
		i.dict = append(append(i.dict[:0], before...), out...)
		out = i.dict
	}
	return out[max(0, len(out)-maxWindow):]
}
