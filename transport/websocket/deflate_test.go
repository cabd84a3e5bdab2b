package websocket_test

import (
	"bytes"
	"compress/flate"
	"io"
)

// The client's end of permessage-deflate, by the standard library.

func compress(p []byte) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	w.Write(p)
	w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}

func decompress(p []byte) ([]byte, error) {
	end := []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}
	return io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(p), bytes.NewReader(end))))
}

// takeover is the compressor of a client that refers to what it has sent before.
type takeover struct {
	out bytes.Buffer
	w   *flate.Writer
}

func newTakeover() *takeover {
	c := &takeover{}
	c.w, _ = flate.NewWriter(&c.out, flate.BestCompression)
	return c
}

func (c *takeover) compress(p []byte) []byte {
	c.out.Reset()
	c.w.Write(p)
	c.w.Flush()
	return bytes.TrimSuffix(bytes.Clone(c.out.Bytes()), []byte{0, 0, 0xff, 0xff})
}
