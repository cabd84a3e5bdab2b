// Package calls makes the HTTP clients with which this house asks others for what
// it proves itself with. Whatever answers gets no more of our time and memory
// than it needs, and cannot send us elsewhere.
package calls

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options are what callers differ in.
type Options struct {
	// TLS configures connections; nil trusts what the system trusts.
	TLS *tls.Config
	// Proxy picks a proxy, as [http.ProxyFromEnvironment] does; nil uses none.
	Proxy func(*http.Request) (*url.URL, error)
	// MaxBody bounds the body of a reply, in bytes. Reading on is an error.
	MaxBody int64
}

// NewClient returns a client that follows no redirect: a reply that is one is
// returned as it is.
func NewClient(o Options) *http.Client {
	return &http.Client{
		Transport:     &bounded{NewTransport(o), o.MaxBody},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// NewTransport returns the transport of such a client, without the bound on
// bodies, for those who must have one of this type.
func NewTransport(o Options) *http.Transport {
	d := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Transport{
		DialContext:            d.DialContext,
		Proxy:                  o.Proxy,
		TLSClientConfig:        o.TLS.Clone(),
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		ForceAttemptHTTP2:      true, // a dialer of one's own turns it off
		MaxConnsPerHost:        8,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// bounded bounds the bodies of replies.
type bounded struct {
	base *http.Transport
	max  int64
}

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.base.RoundTrip(r)
	if err == nil {
		resp.Body = &body{resp.Body, b.max, b.max}
	}
	return resp, err
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (b *bounded) CloseIdleConnections() { b.base.CloseIdleConnections() }

// body ends with an error where it goes on behind its bound.
type body struct {
	io.ReadCloser
	left, max int64
}

func (b *body) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("the reply has more than %d bytes", b.max)
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return max(n-1, 0), fmt.Errorf("the reply has more than %d bytes", b.max)
	}
	return n, err
}

// Line makes one line of what others say, cut where it is long, for an error.
func Line(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 512 {
		s = strings.ToValidUTF8(s[:512], "") + "..."
	}
	return s
}
