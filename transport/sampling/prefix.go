package sampling

import "net/netip"

// The lengths of the prefixes that one party usually has at its disposal.
const (
	prefixBits4 = 24
	prefixBits6 = 56
)

// Prefix returns the address prefix that a's connections and refusals are counted under:
// the /24 of an IPv4 address, the /56 of an IPv6 address. An IPv4 address in IPv6 form is
// an IPv4 address. The prefix of an invalid address is the zero Prefix.
func Prefix(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := prefixBits6
	if a.Is4() {
		bits = prefixBits4
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// PrefixOf is [Prefix] for an address as [net.Addr] and http.Request.RemoteAddr have it,
// with a port or without.
func PrefixOf(remote string) netip.Prefix {
	if ap, err := netip.ParseAddrPort(remote); err == nil {
		return Prefix(ap.Addr())
	}
	a, err := netip.ParseAddr(remote)
	if err != nil {
		return netip.Prefix{}
	}
	return Prefix(a)
}
