package websocket

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// Origins says which origins' pages may open connections. A browser names the
// origin of a page in the Origin header of its handshake, and sends the handshake
// whatever the origin is, together with the user's client certificate and cookies
// (RFC 6455 section 10.2). A request without the header comes from no page, and
// passes. The zero Origins lets no page in.
type Origins struct {
	// Patterns are the origins that pass.
	Patterns []OriginPattern
	// Own lets the service's own origin pass: that of Options.PublicEndpoint, or
	// else the scheme and host that the request is addressed to.
	Own bool
	// Loopback lets origins pass that only this machine can serve: http and https
	// on localhost, the names below it (RFC 6761 section 6.3), 127.0.0.0/8 and
	// [::1], on any port.
	Loopback bool
	// Setting names the setting that would let other origins pass, for refusals,
	// which have it as their rule. Default: websocket.allowedOrigins.
	Setting string
}

// OriginRequest is what the choice of a client's [Origins] can depend on.
type OriginRequest struct {
	// Hub is the hub that the client wants to enter.
	Hub engine.HubName
	// Token reports that the client shows a token: an access token, or the one of
	// the connection that it wants back. Another origin's page has none of either.
	Token bool
	// Certificate reports that the client shows a certificate, which browsers do for
	// every page.
	Certificate bool
}

// maxOrigin bounds an origin: a host name has at most 253 bytes.
const maxOrigin = 300

// OriginPattern is an origin, or several. The zero OriginPattern is none.
type OriginPattern struct {
	any       bool
	subdomain bool // of host
	origin    origin
}

// origin is the three parts of an origin in one form (RFC 6454 section 4): lower
// case, and a port where the scheme has a default one.
type origin struct{ scheme, host, port string }

// ParseOriginPattern parses scheme://host or scheme://host:port, letter case and
// default ports aside; scheme://*.host for all subdomains of a host, at any depth,
// without the host itself; or * for every origin, opaque ones ("null") included.
func ParseOriginPattern(s string) (OriginPattern, error) {
	const expected = "expected *, or scheme://host with the port if it is not the scheme's own, such as https://app.example.com or https://*.example.com"
	if s == "*" {
		return OriginPattern{any: true}, nil
	}
	if strings.EqualFold(s, "null") {
		return OriginPattern{}, fmt.Errorf("found null, which every sandboxed page sends; %s", expected)
	}
	scheme, rest, ok := strings.Cut(s, "://")
	subdomain := false
	if ok {
		rest, subdomain = strings.CutPrefix(rest, "*.")
	}
	o, ok := parseOrigin(scheme + "://" + rest)
	switch {
	case !ok:
		return OriginPattern{}, fmt.Errorf("found %s; %s", excerpt(s), expected)
	case o.scheme == "ws" || o.scheme == "wss":
		return OriginPattern{}, fmt.Errorf("found %s; an origin is that of the page, so its scheme is http or https", excerpt(s))
	case subdomain && isAddress(o.host):
		return OriginPattern{}, fmt.Errorf("found %s; an IP address has no subdomains", excerpt(s))
	}
	return OriginPattern{subdomain: subdomain, origin: o}, nil
}

// parseOrigin parses a serialized origin (RFC 6454 section 6.1) in any letter case.
func parseOrigin(s string) (o origin, ok bool) {
	scheme, host, ok := strings.Cut(s, "://")
	if !ok || len(s) > maxOrigin || !isScheme(scheme) {
		return origin{}, false
	}
	o.scheme = strings.ToLower(scheme)
	if h, port, err := net.SplitHostPort(host); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return origin{}, false
		}
		host, o.port = h, strconv.FormatUint(n, 10)
	} else {
		bare, bracketed := strings.CutPrefix(host, "[")
		if bracketed {
			if host, ok = strings.CutSuffix(bare, "]"); !ok || !strings.Contains(host, ":") {
				return origin{}, false
			}
		} else if strings.Contains(host, ":") {
			return origin{}, false
		}
	}
	if o.port == "" {
		o.port = defaultPorts[o.scheme]
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Zone() == "" {
		o.host = a.String()
		return o, true
	}
	o.host = strings.ToLower(host)
	return o, isHostname(o.host)
}

var defaultPorts = map[string]string{"http": "80", "https": "443"}

// isScheme reports whether s is a scheme's name (RFC 3986 section 3.1).
func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if !('a' <= c && c <= 'z' || i > 0 && ('0' <= s[i] && s[i] <= '9' || strings.IndexByte("+-.", s[i]) >= 0)) {
			return false
		}
	}
	return s != ""
}

// isHostname reports whether s consists of labels as browsers write them: other
// alphabets as xn--. A dot at the end makes another origin of the same host.
func isHostname(s string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return len(s) <= 253
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// String returns the pattern in the form that [ParseOriginPattern] reads.
func (p OriginPattern) String() string {
	host := p.origin.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if p.subdomain {
		host = "*." + host
	}
	switch {
	case p.any:
		return "*"
	case p.origin == origin{}:
		return ""
	case p.origin.port == defaultPorts[p.origin.scheme]:
		return p.origin.scheme + "://" + host
	}
	return p.origin.scheme + "://" + host + ":" + p.origin.port
}

// Matches reports whether an origin is one of the pattern's; named is what the Origin
// header of a request holds.
func (p OriginPattern) Matches(named string) bool {
	o, ok := parseOrigin(named)
	return p.any || ok && p.matches(o)
}

func (p OriginPattern) matches(o origin) bool {
	switch {
	case p.any:
		return true
	case p.origin == origin{} || p.origin.scheme != o.scheme || p.origin.port != o.port:
		return false
	case p.subdomain:
		return strings.HasSuffix(o.host, "."+p.origin.host)
	}
	return p.origin.host == o.host
}

// isLoopback reports whether only this machine can serve the origin.
func (o origin) isLoopback() bool {
	if o.scheme != "http" && o.scheme != "https" {
		return false
	}
	if a, err := netip.ParseAddr(o.host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return o.host == "localhost" || strings.HasSuffix(o.host, ".localhost")
}

// check reports whether a page of the origin that the header names may connect to a
// service whose own origin is own.
func (s *Origins) check(named, own string) bool {
	if slices.ContainsFunc(s.Patterns, func(p OriginPattern) bool { return p.any }) {
		return true
	}
	o, ok := parseOrigin(named)
	if !ok { // null, or what no browser sends
		return false
	}
	if s.Loopback && o.isLoopback() {
		return true
	}
	if s.Own {
		if own, ok := parseOrigin(own); ok && own == o {
			return true
		}
	}
	return slices.ContainsFunc(s.Patterns, func(p OriginPattern) bool { return p.matches(o) })
}

// expected says what would pass, in words that follow "expected".
func (s *Origins) expected(own string) string {
	var all []string
	if s.Own {
		all = append(all, "the service's own origin, "+excerpt(own))
	}
	if s.Loopback {
		all = append(all, "an origin of this machine, such as http://localhost:3000")
	}
	for i, p := range s.Patterns {
		if i == maxPatternsShown {
			all = append(all, fmt.Sprintf("one of %d others", len(s.Patterns)-i))
			break
		}
		all = append(all, p.String())
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", or ")
}

// maxPatternsShown bounds the text of a refusal.
const maxPatternsShown = 3

// checkOrigin refuses a page whose origin may not connect.
func (k *knock) checkOrigin(token bool) error {
	values := k.r.Header["Origin"]
	if k.h.o.AllowedOrigins == nil || len(values) == 0 || len(values) == 1 && values[0] == "" {
		return nil
	}
	allowed := k.h.o.AllowedOrigins(OriginRequest{Hub: k.hub, Token: token, Certificate: len(k.certs) > 0})
	if allowed == nil {
		return nil
	}
	rule := allowed.Setting
	if rule == "" {
		rule = "websocket.allowedOrigins"
	}
	if len(values) > 1 {
		return engine.Errorf(engine.CodeForbidden, rule, "The request has %d Origin headers, expected one.", len(values))
	}
	own := k.ownOrigin()
	if allowed.check(values[0], own) {
		return nil
	}
	return engine.Errorf(engine.CodeForbidden, rule,
		"Pages of the origin %s may not connect to this hub: expected %s. The setting %s can allow it.", excerpt(values[0]), allowed.expected(own), rule)
}

// ownOrigin returns the origin of the service as its clients know it.
func (k *knock) ownOrigin() string {
	if u, err := url.Parse(k.h.o.PublicEndpoint); err == nil && u.Host != "" {
		return u.Scheme + "://" + u.Host
	}
	_, host, scheme := k.addressed()
	if len(k.certs) > 0 {
		scheme = "https" // only TLS carries certificates, even where a proxy does not say that it ends it
	}
	return scheme + "://" + host
}
