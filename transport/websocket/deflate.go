package websocket

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/gobwas/httphead"
	"github.com/klauspost/compress/flate"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
)

// permessage-deflate (RFC 7692), without context takeover in either direction: a
// message compresses the same for everyone, and no connection owns a window.

const extensionDeflate = "permessage-deflate"

// deflateResponse accepts an offer. Both directions forget each message.
const deflateResponse = extensionDeflate + "; server_no_context_takeover; client_no_context_takeover"

// acceptDeflate returns the answer to the first of the offers in the values of
// Sec-WebSocket-Extensions that can be accepted, and "" if none can. An offer that
// wants a smaller window of the server is declined; so is one with a parameter
// that is unknown, repeated, or has a bad value (section 7.1).
func acceptDeflate(offers []string) string {
	for _, line := range offers {
		options, ok := httphead.ParseOptions([]byte(line), nil)
		if !ok {
			return ""
		}
		for _, o := range options {
			if !strings.EqualFold(string(o.Name), extensionDeflate) {
				continue
			}
			if window, ok := acceptable(o); ok && window {
				return deflateResponse + "; server_max_window_bits=15" // asked for, it must be answered
			} else if ok {
				return deflateResponse
			}
		}
	}
	return ""
}

// acceptable reports whether o can be accepted, and whether it asks for a bound of
// the server's window.
func acceptable(o httphead.Option) (window, ok bool) {
	ok = true
	var seen []string
	o.Parameters.ForEach(func(k, v []byte) bool {
		if slices.Contains(seen, string(k)) {
			ok = false
			return false
		}
		seen = append(seen, string(k))
		switch string(k) {
		case "server_no_context_takeover", "client_no_context_takeover":
			ok = len(v) == 0
		case "client_max_window_bits":
			// Without an answer to it the client uses the full window, which is
			// what the reader has.
			ok = len(v) == 0 || windowBits(v)
		case "server_max_window_bits":
			window, ok = true, string(v) == "15"
		default:
			ok = false
		}
		return ok
	})
	return window, ok
}

func windowBits(v []byte) bool {
	return len(v) == 1 && (v[0] == '8' || v[0] == '9') || len(v) == 2 && v[0] == '1' && '0' <= v[1] && v[1] <= '5'
}

// tail is what ends a message's compressed data and does not travel.
var tail = []byte{0x00, 0x00, 0xff, 0xff}

// end finishes a stream: the tail, and an empty last block.
var end = []byte{0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff}

// compressor is a flate.Writer with its output.
type compressor struct {
	out bytes.Buffer
	w   *flate.Writer
}

var compressors = sync.Pool{New: func() any {
	c := &compressor{}
	c.w, _ = flate.NewWriter(&c.out, flate.BestSpeed) // fails for unknown levels only
	return c
}}

// deflate replaces dst[at:] by its compressed form. The same bytes always give
// the same form.
func deflate(dst []byte, at int) []byte {
	c := compressors.Get().(*compressor)
	defer compressors.Put(c)
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

var decompressors = sync.Pool{New: func() any { return flate.NewReader(nil) }}

var errDeflate = &frameError{engine.CloseInvalidData, transport.ReasonInvalidFrame, "a compressed message that does not decompress"}

// inflate decompresses p, up to limit bytes: a few bytes may stand for very many.
func inflate(p []byte, limit int) ([]byte, *frameError) {
	r := decompressors.Get().(io.ReadCloser)
	defer func() {
		r.(flate.Resetter).Reset(bytes.NewReader(nil), nil) // lets go of p
		decompressors.Put(r)
	}()
	r.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(p), bytes.NewReader(end)), nil)
	var out bytes.Buffer
	n, err := out.ReadFrom(io.LimitReader(r, int64(limit)+1))
	switch {
	case err != nil:
		return nil, errDeflate
	case n > int64(limit):
		return nil, errTooLarge
	}
	return out.Bytes(), nil
}
