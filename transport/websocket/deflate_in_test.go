package websocket

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestAcceptDeflate is what offers of permessage-deflate are answered with.
func TestAcceptDeflate(t *testing.T) {
	const deflate = "permessage-deflate"
	for _, c := range []struct {
		offer, response string
		server, client  uint8
	}{
		{deflate, deflate, 15, 15},
		{deflate + "; client_max_window_bits", deflate, 15, 15},
		{deflate + ";client_max_window_bits", deflate, 15, 15},
		{deflate + "; client_max_window_bits=10", deflate, 15, 10},
		{deflate + "; client_max_window_bits=\"10\"", deflate, 15, 10},
		{deflate + "; client_no_context_takeover; client_max_window_bits", deflate + "; client_no_context_takeover", 15, 0},
		{deflate + "; server_no_context_takeover", deflate + "; server_no_context_takeover", 15, 15},
		{deflate + "; server_max_window_bits=15", deflate + "; server_max_window_bits=15", 15, 15},
		{deflate + "; server_max_window_bits=9; client_no_context_takeover", deflate + "; server_max_window_bits=9; client_no_context_takeover", 9, 0},
		{deflate + "; server_max_window_bits=8", deflate + "; server_max_window_bits=8", 8, 15},
		{deflate + "; server_max_window_bits=7, " + deflate + "; client_no_context_takeover", deflate + "; client_no_context_takeover", 15, 0},
		{"x-webkit-deflate-frame, " + deflate, deflate, 15, 15},
		{offer: deflate + "; client_max_window_bits=16"},
		{offer: deflate + "; client_max_window_bits=7"},
		{offer: deflate + "; client_max_window_bits; client_max_window_bits"},
		{offer: deflate + "; server_no_context_takeover; server_no_context_takeover"},
		{offer: deflate + "; server_max_window_bits"},
		{offer: deflate + "; server_max_window_bits=7"},
		{offer: deflate + "; server_max_window_bits=16"},
		{offer: deflate + "; server_max_window_bits=09"},
		{offer: deflate + "; server_max_window_bits=+9"},
		{offer: deflate + "; server_no_context_takeover=1"},
		{offer: deflate + "; surprise"},
		{offer: "x-webkit-deflate-frame"},
	} {
		got := acceptDeflate([]string{c.offer}, func(int) bool { return true })
		if want := (agreement{c.response, c.server, c.client}); got != want {
			t.Errorf("%s: %+v, want %+v", c.offer, got, want)
		}
	}
}

// TestAcceptDeflateWithoutRoom is what is agreed where no window can be kept.
func TestAcceptDeflateWithoutRoom(t *testing.T) {
	full := func(int) bool { return false }
	if got := acceptDeflate([]string{"permessage-deflate; client_max_window_bits"}, full); got != (agreement{}) {
		t.Errorf("%+v", got)
	}
	offers := []string{"permessage-deflate", "permessage-deflate; client_no_context_takeover"}
	if got, want := acceptDeflate(offers, full), (agreement{"permessage-deflate; client_no_context_takeover", 15, 0}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestInflate is about messages whose blocks say that they are the last.
func TestInflate(t *testing.T) {
	for _, c := range []struct{ name, payload, want string }{
		{"no block is the last (RFC 7692, 7.2.3.1)", "f248cdc9c90700", "Hello"},
		{"a stored block (7.2.3.3)", "000500faff48656c6c6f00", "Hello"},
		{"two blocks (7.2.3.5)", "f24805000000ffffcac9c90700", "Hello"},
		{"a last block, and the header before the tail (7.2.3.4)", "f348cdc9c9070000", "Hello"},
		{"a last block and nothing else", "f348cdc9c90700", "Hello"},
		{"a last block in the middle", "f348cd0100cac90700", "Hello"},
		{"two last blocks", "f348cd0100cbc9070000", "Hello"},
		{"the header before the tail is of a last block", "f248cdc9c90704", "Hello"},
		{"nothing (7.2.3.6)", "00", ""},
		{"nothing, in a last block", "030000", ""},
		{"no block", "", "refused"},
		{"junk behind a last block", "f348cdc9c90700ff", "refused"},
		{"more junk", "f348cdc9c90700deadbeef", "refused"},
		{"a last block that is cut short", "f348cdc9", "refused"},
		{"a block of an unknown type", "06", "refused"},
		{"a reference to before the beginning", "4a04620000", "refused"},
	} {
		p, err := hex.DecodeString(c.payload)
		if err != nil {
			t.Fatal(err)
		}
		out, bad := inflated(p, 100, nil)
		got := string(out)
		if bad != nil {
			got = "refused"
			if bad != errDeflate {
				t.Errorf("%s: %v", c.name, bad)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if _, bad := inflated(bytes.Repeat([]byte{0x03, 0x00}, maxLastBlocks+1), 100, nil); bad != errDeflate {
		t.Errorf("%d last blocks: %v", maxLastBlocks+1, bad)
	}
	if _, bad := inflated(bytes.Repeat([]byte{0x03, 0x00}, maxLastBlocks), 100, nil); bad != nil {
		t.Errorf("%d last blocks: %v", maxLastBlocks, bad)
	}
}

// TestCompressedLimit is that of two random messages the one at the limit passes,
// though deflate makes it longer, and the one above it does not.
func TestCompressedLimit(t *testing.T) {
	const limit = 1 << 16
	p := make([]byte, limit+1)
	src := rand.NewChaCha8([32]byte{})
	src.Read(p)
	packed := deflate(bytes.Clone(p[:limit]), 0, 15)
	if len(packed) <= limit {
		t.Fatalf("%d bytes", len(packed))
	}
	if out, bad := inflated(packed, limit, nil); bad != nil || len(out) != limit {
		t.Errorf("%d bytes, %v", len(out), bad)
	}
	if _, bad := inflated(deflate(p, 0, 15), limit, nil); bad != errTooLarge {
		t.Errorf("one byte more: %v", bad)
	}
}

// TestWindowMoves is that a window holds the end of what was added, in no more memory
// than its size.
func TestWindowMoves(t *testing.T) {
	var all strings.Builder
	w := &window{size: 256}
	for i := range 600 {
		p := strings.Repeat(string(rune('a'+i%26)), i)
		w.add([]byte(p))
		all.WriteString(p)
		want := all.String()[max(0, all.Len()-w.size):]
		if string(w.data) != want || cap(w.data) > w.size {
			t.Fatalf("after %d: %q in %d bytes, want %q", i, w.data, cap(w.data), want)
		}
	}
}
