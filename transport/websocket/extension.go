package websocket

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gobwas/httphead"
)

const extensionDeflate = "permessage-deflate"

// Windows of deflate have 2^bits bytes (RFC 7692 section 7.1.2).
const (
	minWindowBits = 8
	maxWindowBits = 15
	maxWindow     = 1 << maxWindowBits
)

// agreement is what a handshake has settled about permessage-deflate (RFC 7692). The
// zero agreement is no compression.
type agreement struct {
	response string // for Sec-WebSocket-Extensions
	server   uint8  // bits of the window that messages to the client are compressed with; 0 without compression
	client   uint8  // bits of the window that the client's messages share; 0 if each stands alone
}

// kept returns how many bytes of what the client has sent must be kept.
func (a agreement) kept() int {
	if a.client == 0 {
		return 0
	}
	return 1 << a.client
}

// acceptDeflate accepts the first of the offers in the values of
// Sec-WebSocket-Extensions that can be accepted, and returns the zero agreement if
// none can. An offer with a parameter that is unknown, repeated, or has a bad value is
// declined (section 7.1). So is one for which reserve, which is called with the size
// of a window that would have to be kept, finds no room.
//
// The response names the parameters that were offered and no others: there are
// clients that refuse those that they did not name, though section 7.1.1 would allow
// a server to. A server that does not use its context need not say so.
func acceptDeflate(offers []string, reserve func(size int) bool) agreement {
	for _, line := range offers {
		options, ok := httphead.ParseOptions([]byte(line), nil)
		if !ok {
			return agreement{}
		}
		for _, o := range options {
			if !strings.EqualFold(string(o.Name), extensionDeflate) {
				continue
			}
			a, ok := agree(o)
			if ok && (a.client == 0 || reserve(a.kept())) {
				return a
			}
		}
	}
	return agreement{}
}

// agree returns what the offer o comes to.
func agree(o httphead.Option) (a agreement, ok bool) {
	a = agreement{response: extensionDeflate, server: maxWindowBits, client: maxWindowBits}
	alone := false // each of the client's messages
	var seen []string
	ok = true
	o.Parameters.ForEach(func(k, v []byte) bool {
		name, value := string(k), string(v)
		ok = !slices.Contains(seen, name)
		seen = append(seen, name)
		switch name {
		case "server_no_context_takeover":
			ok = ok && value == ""
			a.response += "; " + name
		case "client_no_context_takeover":
			ok, alone = ok && value == "", true
			a.response += "; " + name
		case "server_max_window_bits":
			bits, valid := windowBits(value)
			ok, a.server = ok && valid, bits
			a.response += "; " + name + "=" + value
		case "client_max_window_bits":
			// Without an answer to it the client uses the window that it has named,
			// or the largest. A smaller one is not asked for: there are clients that
			// offer it and have none.
			if value != "" {
				bits, valid := windowBits(value)
				ok, a.client = ok && valid, bits
			}
		default:
			ok = false
		}
		return ok
	})
	if alone {
		a.client = 0
	}
	return a, ok
}

// windowBits reads the value of a parameter about a window.
func windowBits(v string) (bits uint8, ok bool) {
	n, err := strconv.ParseUint(v, 10, 8)
	ok = err == nil && n >= minWindowBits && n <= maxWindowBits && strconv.FormatUint(n, 10) == v
	return uint8(n), ok
}
