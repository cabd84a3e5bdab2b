package webhook

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// registeredNames are the names of header fields that a handshake can carry, as
// the IANA registry of HTTP field names spells them
// (https://www.iana.org/assignments/http-fields, RFC 9110 section 18.4).
var registeredNames = [...]string{
	"A-IM",
	"Accept",
	"Accept-CH",
	"Accept-Charset",
	"Accept-Datetime",
	"Accept-Encoding",
	"Accept-Language",
	"Access-Control-Request-Headers",
	"Access-Control-Request-Method",
	"Alt-Used",
	"Authorization",
	"Available-Dictionary",
	"Cache-Control",
	"Cache-Status",
	"Capsule-Protocol",
	"CDN-Loop",
	"Cert-Not-After",
	"Cert-Not-Before",
	"Client-Cert",
	"Client-Cert-Chain",
	"Connection",
	"Content-Digest",
	"Content-Encoding",
	"Content-Language",
	"Content-Length",
	"Content-Location",
	"Content-Range",
	"Content-Type",
	"Cookie",
	"Date",
	"Depth",
	"Dictionary-ID",
	"DNT",
	"DPoP",
	"Early-Data",
	"Expect",
	"Forwarded",
	"From",
	"Host",
	"HTTP2-Settings",
	"If-Match",
	"If-Modified-Since",
	"If-None-Match",
	"If-Range",
	"If-Unmodified-Since",
	"Keep-Alive",
	"Last-Event-ID",
	"Max-Forwards",
	"MIME-Version",
	"OData-MaxVersion",
	"OData-Version",
	"Origin",
	"Origin-Agent-Cluster",
	"Pragma",
	"Prefer",
	"Priority",
	"Proxy-Authorization",
	"Range",
	"Referer",
	"Repr-Digest",
	"Sec-Fetch-Dest",
	"Sec-Fetch-Mode",
	"Sec-Fetch-Site",
	"Sec-Fetch-Storage-Access",
	"Sec-Fetch-User",
	"Sec-GPC",
	"Sec-Purpose",
	"Sec-Token-Binding",
	"Sec-WebSocket-Accept",
	"Sec-WebSocket-Extensions",
	"Sec-WebSocket-Key",
	"Sec-WebSocket-Protocol",
	"Sec-WebSocket-Version",
	"Signature",
	"Signature-Input",
	"SOAPAction",
	"TE",
	"Trailer",
	"Transfer-Encoding",
	"Upgrade",
	"Upgrade-Insecure-Requests",
	"User-Agent",
	"Via",
	"Want-Content-Digest",
	"Want-Repr-Digest",
	"Warning",
}

// spellings maps net/http's canonical form of a registered name to its spelling
// in the registry: Sec-Websocket-Key to Sec-WebSocket-Key.
var spellings = func() map[string]string {
	m := make(map[string]string, len(registeredNames))
	for _, name := range registeredNames {
		m[http.CanonicalHeaderKey(name)] = name
	}
	return m
}()

// fieldName returns the spelling of a client's header in the connect event: that
// of the registry for a registered name, lower case for any other one. net/http
// keeps no client's own spelling, and HTTP/2 has lower case alone. A handler that
// looks a name up by its letters therefore needs one form that does not depend on
// the client.
func fieldName(name string) string {
	if registered, ok := spellings[http.CanonicalHeaderKey(name)]; ok {
		return registered
	}
	return strings.ToLower(name)
}

// clientHeaders returns a client's headers for the connect event. Values of names
// that differ in case alone are put together, in the order of the names' bytes.
func clientHeaders(header map[string][]string) map[string][]string {
	shown := members(header, isForHandlers)
	out := make(map[string][]string, len(shown))
	for _, name := range slices.Sorted(maps.Keys(shown)) {
		spelled := fieldName(name)
		out[spelled] = append(out[spelled], shown[name]...)
		if out[spelled] == nil {
			out[spelled] = []string{}
		}
	}
	return out
}
