package websocket

import "testing"

// TestAcceptDeflate is what offers of permessage-deflate are answered with.
func TestAcceptDeflate(t *testing.T) {
	for offer, want := range map[string]string{
		"permessage-deflate":                                                         deflateResponse,
		"permessage-deflate; client_max_window_bits":                                 deflateResponse,
		"permessage-deflate; client_max_window_bits=16":                              "",
		"permessage-deflate; client_max_window_bits; client_max_window_bits":         "",
		"permessage-deflate; server_no_context_takeover; server_no_context_takeover": "",
		"permessage-deflate; server_max_window_bits=15":                              deflateResponse + "; server_max_window_bits=15",
		"permessage-deflate; server_max_window_bits=10":                              "",
		"permessage-deflate; server_max_window_bits=10, permessage-deflate":          deflateResponse,
		"permessage-deflate; server_no_context_takeover=1":                           "",
		"x-webkit-deflate-frame":                                                     "",
	} {
		if got := acceptDeflate([]string{offer}); got != want {
			t.Errorf("%s: %q, want %q", offer, got, want)
		}
	}
}
