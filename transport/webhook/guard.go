package webhook

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/fanfare/fanfare/engine"
)

const (
	// dialTimeout bounds one TCP connect, and one TLS handshake. net/http lets a
	// dial go on after the request that asked for it has gone, so it needs an
	// end of its own.
	dialTimeout = 30 * time.Second
	// maxReplyHeader bounds the headers of a reply.
	maxReplyHeader = 64 << 10
	idleTimeout    = 90 * time.Second
	// checkConns are connections above those that events may use, so that a
	// validation never waits for an event.
	checkConns = 16
)

// newTransport returns the transport that every call goes through. The guard
// sits in its dialer, after the name was resolved, so that no name and no
// rebinding of a name gets around it. For the same reason it uses no proxy: a
// proxy would resolve the name where the guard cannot see it.
func newTransport(calls int, conf *tls.Config) *http.Transport {
	d := &net.Dialer{Timeout: dialTimeout, ControlContext: guard}
	return &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        conf.Clone(),
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      true, // a dialer of one's own turns it off
		MaxConnsPerHost:        calls + checkConns,
		MaxIdleConnsPerHost:    calls, // the default of 2 would make every burst dial anew
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxReplyHeader,
		DisableCompression:     true, // so that the limit on bodies counts what came over the wire
		// Without pings a connection that died in silence takes every event of the next minutes with it.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// loopbackOnly in a context confines a dial to loopback addresses: what goes
// over the connection carries a bearer token in clear text.
type loopbackOnly struct{}

// guard refuses a connection by the address that is about to be dialed.
func guard(ctx context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &engine.Error{Code: engine.CodeInternal, Rule: "event.address",
			Message: "The event handler's address is not an IP address.", Err: err}
	}
	if forbidden(ap.Addr()) {
		return errForbidden(ap.Addr())
	}
	if ctx.Value(loopbackOnly{}) != nil && !ap.Addr().Unmap().IsLoopback() {
		return errBearerInClear(ap.Addr().String())
	}
	return nil
}

// forbiddenPrefixes hold what no event handler has any business at: link-local
// addresses, and the places where clouds keep a machine's metadata and tokens.
var forbiddenPrefixes = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),     // link-local, RFC 3927; metadata of most clouds
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure's platform endpoint
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud's metadata
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud's metadata, of its first generation
	netip.MustParsePrefix("fe80::/10"),          // link-local, RFC 4291
	netip.MustParsePrefix("fd00:ec2::/32"),      // AWS: metadata at ::254, and its neighbours
	netip.MustParsePrefix("fd20:ce::254/128"),   // Google Cloud's metadata
	netip.MustParsePrefix("fd00:c1::/32"),       // Oracle Cloud's metadata
	netip.MustParsePrefix("fd00:42::42/128"),    // Scaleway's metadata
}

// Prefixes of IPv6 addresses that stand for the IPv4 address in their last 32 bits.
var (
	nat64        = netip.MustParsePrefix("64:ff9b::/96")    // RFC 6052
	localNAT64   = netip.MustParsePrefix("64:ff9b:1::/48")  // RFC 8215, with prefixes of 96 bits as is usual
	translated   = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765
	v4Compatible = netip.MustParsePrefix("::/96")           // RFC 4291, deprecated but still routed by some
	sixToFour    = netip.MustParsePrefix("2002::/16")       // RFC 3056: the IPv4 address follows the prefix
)

func forbidden(a netip.Addr) bool {
	a = a.WithZone("").Unmap() // a Prefix contains no address with a zone
	for _, p := range forbiddenPrefixes {
		if p.Contains(a) {
			return true
		}
	}
	b := a.As16()
	switch {
	case nat64.Contains(a), localNAT64.Contains(a), translated.Contains(a), v4Compatible.Contains(a):
		return forbidden(netip.AddrFrom4([4]byte(b[12:16])))
	case sixToFour.Contains(a):
		return forbidden(netip.AddrFrom4([4]byte(b[2:6])))
	}
	return false
}

func errForbidden(a netip.Addr) *engine.Error {
	return &engine.Error{Code: engine.CodeInternal, Rule: "event.address",
		Message: "The event handler is at an address that is not allowed.",
		Detail:  "it is at " + a.String() + ", a link-local or metadata address; any other address would pass"}
}

func errBearerInClear(host string) *engine.Error {
	return &engine.Error{Code: engine.CodeInternal, Rule: "event.address",
		Message: "A bearer token is sent to an event handler over https, or over http to this machine alone.",
		Detail:  "the handler is at http://" + host + "; https://, or a loopback address, would pass"}
}
