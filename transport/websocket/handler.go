package websocket

import (
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/internal/netwire"
)

// Options are the knobs of a [Handler]. Nil and zero mean the defaults.
type Options struct {
	// Fallback serves the requests that are not for this door. Default: 404.
	Fallback http.Handler
	// Logger gets a line for each refusal; see transport/sampling for a bound on them.
	// Default: discard.
	Logger *slog.Logger
	// Observer is told what metrics count.
	Observer Observer

	// HandshakeTimeout bounds the authentication of a client, and the writing of
	// the answer to it. The connect event has its own bound, Limits.EventTimeout
	// of the engine. Default 10 s.
	HandshakeTimeout time.Duration
	// UnauthenticatedConnections bounds the clients that are being authenticated
	// at one time; more are refused with 503. It also bounds the clients of Protocols
	// that have not sent their first message; when there are more, the one that has
	// waited for longest is refused. Default 1000.
	UnauthenticatedConnections int

	// RecoveryWindow is how long a connection of a reliable subprotocol can be
	// recovered after its wire was lost. Default 30 s; negative for never.
	RecoveryWindow time.Duration

	// Compression accepts permessage-deflate (RFC 7692) from clients that offer
	// it. It costs processor time for each message and encoding, though not for
	// each receiver. Default: off.
	Compression bool
	// CompressionMemory bounds the bytes that are kept of what clients have sent
	// compressed, which the next message of each may refer to: up to 32 KiB for a
	// client that does not offer client_no_context_takeover. A client for which
	// there is no room goes without compression. Default 256 MiB; negative for
	// none, so that only clients that offer client_no_context_takeover compress.
	CompressionMemory int
	// Portable makes every connection use the runtime's network poller and a
	// reading goroutine, as those that are not plain TCP on Linux do anyway.
	Portable bool

	// Protocols are other protocols that clients speak over this door's wires.
	Protocols []Protocol

	// PublicEndpoint is what clients call this service, such as
	// "https://rt.example.com": scheme and host of Credentials.Audience. Default:
	// the scheme and host that a client's request names.
	PublicEndpoint string
	// TrustedProxies are the addresses whose X-Forwarded-Proto, -Host and -For
	// headers are believed. Default: none.
	TrustedProxies []netip.Prefix
	// AllowedOrigins returns the origins whose pages may connect a client like the
	// one that asks, before anything is asked about its credentials. It is called,
	// concurrently, for requests that have an Origin header. Default, and where it
	// returns nil: every origin. An embedder whose [transport.Authenticator] goes by
	// anything that a browser adds by itself, such as cookies, must set it.
	AllowedOrigins func(OriginRequest) *Origins
	// CertificateHeader is the header in which TrustedProxies hand on their
	// clients' certificates. They must remove it from what clients send. Default:
	// none is believed. Either way no such header reaches the authenticator or the
	// connect event.
	CertificateHeader CertificateHeader
}

// Observer is told what happens at the door, for metrics. Any member may be nil.
// The functions are called on hot paths and must not block.
type Observer struct {
	// Refused is called for each client that was not let in, with the HTTP
	// status it got and the rule that refused it. hub is empty if the client
	// named none that is valid.
	Refused func(hub engine.HubName, status int, rule string)
	// Received is called for each whole message of a client, with its size after
	// decompression.
	Received func(hub engine.HubName, bytes int)
}

// Handler is the door. It is safe for concurrent use and needs no closing: its
// connections end with the engine, and what they share ends with the last of them.
type Handler struct {
	engine *engine.Engine
	auth   transport.Authenticator
	o      Options
	limits engine.Limits
	wires  netwire.Group

	sessions sync.Map // of *transport.SessionOptions, by sessionKey

	waiting  waitingClients
	knocking atomic.Int64 // clients that are being authenticated
	leaving  atomic.Int64 // clients that were refused after the answer 101
	windows  atomic.Int64 // bytes of CompressionMemory that are spoken for
}

// NewHandler returns the door to e. auth says who its clients are.
func NewHandler(e *engine.Engine, auth transport.Authenticator, o *Options) *Handler {
	h := &Handler{engine: e, auth: auth, limits: e.Limits()}
	if o != nil {
		h.o = *o
	}
	if h.o.Fallback == nil {
		h.o.Fallback = http.NotFoundHandler()
	}
	if h.o.Logger == nil {
		h.o.Logger = slog.New(slog.DiscardHandler)
	}
	if h.o.HandshakeTimeout == 0 {
		h.o.HandshakeTimeout = 10 * time.Second
	}
	if h.o.UnauthenticatedConnections == 0 {
		h.o.UnauthenticatedConnections = 1000
	}
	if h.o.CompressionMemory == 0 {
		h.o.CompressionMemory = 256 << 20
	}
	if h.o.RecoveryWindow == 0 {
		h.o.RecoveryWindow = 30 * time.Second
	}
	h.wires.Portable = h.o.Portable
	return h
}

// ServeHTTP implements [http.Handler]. It returns once the connection is open, or,
// over HTTP/2, once it is closed.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k := knock{h: h, w: w, r: r}
	var err error
	if p, t, ok := h.hosted(r.URL); ok {
		err = k.host(p, t)
	} else if t, mine := parseTarget(r.URL); mine {
		err = k.serve(t)
	} else {
		h.o.Fallback.ServeHTTP(w, r)
		return
	}
	if err != nil {
		k.refuse(err)
	}
	if c := k.stream; c != nil {
		k = knock{} // what was only for the handshake
		c.wait()
	}
}
