package main

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// proxies are the addresses whose forwarded headers are believed.
type proxies []netip.Prefix

func (p proxies) trusts(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// sentBy reports whether r came from a proxy that is trusted.
func (p proxies) sentBy(r *http.Request) bool {
	if len(p) == 0 {
		return false
	}
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && p.trusts(ap.Addr())
}

// origin returns the scheme and the host that a request addressed: those that a
// trusted proxy says, or else those of the connection.
func (p proxies) origin(r *http.Request) (scheme, host string) {
	scheme, host = "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if !p.sentBy(r) {
		return scheme, host
	}
	switch said := strings.ToLower(last(r.Header, "X-Forwarded-Proto")); said {
	case "https", "wss":
		scheme = "https"
	case "http", "ws":
		scheme = "http"
	}
	if said := last(r.Header, "X-Forwarded-Host"); said != "" && !strings.ContainsAny(said, "/?#@ ") {
		host = said
	}
	return scheme, host
}

// client returns the address that r was sent from, behind as many trusted
// proxies as there are.
func (p proxies) client(r *http.Request) string {
	if !p.sentBy(r) {
		return r.RemoteAddr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	found := ""
	for i := len(hops) - 1; i >= 0; i-- {
		a, ok := parseHop(strings.TrimSpace(hops[i]))
		if !ok {
			break // what stands before it was written by whoever wrote this
		}
		found = netip.AddrPortFrom(a, 0).String()
		if !p.trusts(a) {
			break
		}
	}
	if found == "" {
		return r.RemoteAddr
	}
	return found
}

// forwardedScheme is the context's key of the scheme that a proxy says.
type forwardedScheme struct{}

// resolve makes requests of trusted proxies look as they did at the proxy: the
// host and the client's address are in their usual places, and the scheme is
// where forwardedOrigin finds it.
func (p proxies) resolve(next http.Handler) http.Handler {
	if len(p) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !p.sentBy(r) {
			next.ServeHTTP(w, r)
			return
		}
		scheme, host := p.origin(r)
		told := r.WithContext(context.WithValue(r.Context(), forwardedScheme{}, scheme))
		told.Host, told.RemoteAddr = host, p.client(r)
		next.ServeHTTP(w, told)
		r.Pattern = told.Pattern // for those outside who name what was served
	})
}

// forwardedOrigin returns the scheme and host that a request addressed.
func forwardedOrigin(r *http.Request) (scheme, host string) {
	if scheme, ok := r.Context().Value(forwardedScheme{}).(string); ok {
		return scheme, r.Host
	}
	if r.TLS != nil {
		return "https", r.Host
	}
	return "http", r.Host
}

// parseHop reads an address with or without a port.
func parseHop(s string) (netip.Addr, bool) {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a, err == nil
}

// last returns the last element of a header that is a list: the one which the
// nearest proxy wrote.
func last(h http.Header, name string) string {
	values := h.Values(name)
	if len(values) == 0 {
		return ""
	}
	v := values[len(values)-1]
	return strings.TrimSpace(v[strings.LastIndexByte(v, ',')+1:])
}
