package main

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

// What of a request is believed, and from whom.
func TestForwarded(t *testing.T) {
	trusted := proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for name, test := range map[string]struct {
		from                 string
		tls                  bool
		header               http.Header
		scheme, host, client string
	}{
		"no proxy":                 {from: "192.0.2.1:5", scheme: "http", host: "node:80", client: "192.0.2.1:5"},
		"no proxy, TLS":            {from: "192.0.2.1:5", tls: true, scheme: "https", host: "node:80", client: "192.0.2.1:5"},
		"a stranger says":          {from: "192.0.2.1:5", header: http.Header{"X-Forwarded-Host": {"a"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"1.1.1.1"}}, scheme: "http", host: "node:80", client: "192.0.2.1:5"},
		"a proxy says":             {from: "10.0.0.1:5", header: http.Header{"X-Forwarded-Host": {"a:8443"}, "X-Forwarded-Proto": {"HTTPS"}, "X-Forwarded-For": {"1.1.1.1"}}, scheme: "https", host: "a:8443", client: "1.1.1.1:0"},
		"a proxy says nothing":     {from: "10.0.0.1:5", scheme: "http", host: "node:80", client: "10.0.0.1:5"},
		"a proxy of IPv6":          {from: "[fd00::1]:5", header: http.Header{"X-Forwarded-For": {"2001:db8::1"}}, scheme: "http", host: "node:80", client: "[2001:db8::1]:0"},
		"IPv4 in IPv6":             {from: "[::ffff:10.0.0.1]:5", header: http.Header{"X-Forwarded-For": {"1.1.1.1"}}, scheme: "http", host: "node:80", client: "1.1.1.1:0"},
		"two proxies":              {from: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"6.6.6.6, 1.1.1.1, 10.0.0.2"}}, scheme: "http", host: "node:80", client: "1.1.1.1:0"},
		"two lines":                {from: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"6.6.6.6", "1.1.1.1"}}, scheme: "http", host: "node:80", client: "1.1.1.1:0"},
		"nothing but proxies":      {from: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"10.0.0.3, 10.0.0.2"}}, scheme: "http", host: "node:80", client: "10.0.0.3:0"},
		"an address with its port": {from: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"1.1.1.1:99"}}, scheme: "http", host: "node:80", client: "1.1.1.1:0"},
		"rubbish before it":        {from: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"nonsense, 10.0.0.2"}}, scheme: "http", host: "node:80", client: "10.0.0.2:0"},
		"rubbish":                  {from: "10.0.0.1:5", header: http.Header{"X-Forwarded-For": {"nonsense"}, "X-Forwarded-Host": {"a/b"}, "X-Forwarded-Proto": {"gopher"}}, scheme: "http", host: "node:80", client: "10.0.0.1:5"},
		"the last one counts":      {from: "10.0.0.1:5", header: http.Header{"X-Forwarded-Host": {"evil, a"}, "X-Forwarded-Proto": {"http, https"}}, scheme: "https", host: "a", client: "10.0.0.1:5"},
		"TLS to the proxy alone":   {from: "10.0.0.1:5", tls: true, header: http.Header{"X-Forwarded-Proto": {"http"}}, scheme: "http", host: "node:80", client: "10.0.0.1:5"},
		"not an address":           {from: "@", header: http.Header{"X-Forwarded-Host": {"a"}}, scheme: "http", host: "node:80", client: "@"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr, r.Host, r.Header = test.from, "node:80", test.header
			if test.header == nil {
				r.Header = http.Header{}
			}
			if test.tls {
				r.TLS = &tls.ConnectionState{}
			}
			var scheme, host, client string
			trusted.resolve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				scheme, host = forwardedOrigin(r)
				client = r.RemoteAddr
				r.Pattern = "/served"
			})).ServeHTTP(httptest.NewRecorder(), r)
			if scheme != test.scheme || host != test.host || client != test.client {
				t.Errorf("got %s, %s, %s; want %s, %s, %s", scheme, host, client, test.scheme, test.host, test.client)
			}
			if r.Pattern != "/served" {
				t.Error("who stands outside does not learn what was served")
			}
		})
	}
}

// What the machine suggests is usable, whatever machine this is.
func TestMachine(t *testing.T) {
	if n := maxConnections(fileLimit(), 1000); n < 0 || fileLimit() > 0 && (n == 0 || n >= fileLimit()) {
		t.Errorf("%d connections for %d files", n, fileLimit())
	}
	if n := outboundMemory(); n < 0 {
		t.Errorf("%d bytes", n)
	}
}
