package client

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// The subprotocols of [Options].
const (
	// ReliableJSON is the subprotocol json.reliable.webpubsub.azure.v1.
	ReliableJSON = "json.reliable.webpubsub.azure.v1"
	// JSON is the subprotocol json.webpubsub.azure.v1.
	JSON = "json.webpubsub.azure.v1"
	// ReliableProtobuf is the subprotocol protobuf.reliable.webpubsub.azure.v1.
	ReliableProtobuf = "protobuf.reliable.webpubsub.azure.v1"
	// Protobuf is the subprotocol protobuf.webpubsub.azure.v1.
	Protobuf = "protobuf.webpubsub.azure.v1"
	// Raw as Options.Subprotocol offers no subprotocol: frames are bare.
	Raw = "raw"
)

// Options are the knobs of a [Client]. Nil and zero mean the defaults.
type Options struct {
	// Subprotocol is [ReliableJSON] (the default, as it is with Azure's own
	// clients), [JSON], [ReliableProtobuf], [Protobuf], [Raw], or the name of a
	// custom protocol that the server's connect handler accepts; its frames are
	// the program's own, as with Raw.
	Subprotocol string
	// TLS is used for wss. Default: the system's roots.
	TLS *tls.Config
	// Header is sent with the handshake.
	Header http.Header
	// NetDial replaces the dialing of TCP.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
	// DialTimeout bounds connecting, the handshake and the wait for the
	// server's first frame, beside the context of [Dial]. Default 15 s.
	DialTimeout time.Duration
	// ReadLimit is the largest message accepted, in bytes over all its
	// fragments. Default 16 MiB.
	ReadLimit int
	// Buffer is how many events may wait for [Client.Receive] before the
	// client stops reading. Default 256.
	Buffer int
	// KeepAlive is how long the server may be silent before the client pings
	// it; twice as long ends the connection. Default 20 s, negative for never.
	KeepAlive time.Duration
	// CloseTimeout bounds the wait for the server's half of the closing
	// handshake. Default 5 s.
	CloseTimeout time.Duration
	// RecoveryWindow is how long the client tries to recover a connection of a
	// reliable subprotocol after its wire was lost. Default 30 s, which is how
	// long servers keep one; negative for never.
	RecoveryWindow time.Duration
	// RecoveryInterval is the time from one attempt to recover to the next. The
	// first is made at once. Default 1 s.
	RecoveryInterval time.Duration
	// Reconnect, if set, makes a new connection whenever one is lost and, where
	// its subprotocol is reliable, cannot be recovered.
	Reconnect *Reconnect
}

// Reconnect says how a lost connection is replaced. The new connection is a new
// one to the server: it has another id, and is put back into the groups that
// the client had joined and watched. The client gives up, and [Client.Receive]
// returns the reason, when the server has refused in a way that trying again will
// not change: a 4xx status (other than 408 and 429, and only if URL is nil), or a
// close with 1002, 1003, 1007, 1008 or 1009 (other than in answer to a recovery).
type Reconnect struct {
	// MinDelay is the pause before the second attempt in a row; the first is
	// made at once, unless the lost connection lived for less than 5 s. It
	// doubles up to MaxDelay, and each pause is shortened by up to a half at
	// random. Defaults 500 ms and 30 s.
	MinDelay, MaxDelay time.Duration
	// Attempts bounds the attempts in a row. Default: no bound.
	Attempts int
	// URL, if set, returns the URL for an attempt, with a fresh token perhaps.
	// Default: the URL given to [Dial].
	URL func(ctx context.Context) (string, error)
}

func (o *Options) withDefaults() (*Options, error) {
	var v Options
	if o != nil {
		v = *o
	}
	if v.Subprotocol == "" {
		v.Subprotocol = ReliableJSON
	}
	if v.Subprotocol == "mqtt" {
		return nil, errors.New("client: MQTT is not supported; use an MQTT client")
	}
	def := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	def(&v.DialTimeout, 15*time.Second)
	def(&v.KeepAlive, 20*time.Second)
	def(&v.CloseTimeout, 5*time.Second)
	def(&v.RecoveryWindow, 30*time.Second)
	def(&v.RecoveryInterval, time.Second)
	if v.ReadLimit <= 0 {
		v.ReadLimit = 16 << 20
	}
	if v.Buffer <= 0 {
		v.Buffer = 256
	}
	if v.Reconnect != nil {
		r := *v.Reconnect
		def(&r.MinDelay, 500*time.Millisecond)
		def(&r.MaxDelay, 30*time.Second)
		v.Reconnect = &r
	}
	return &v, nil
}

// delay returns the pause after the given attempt, counted from 1.
func (r *Reconnect) delay(attempt int) time.Duration {
	d := r.MinDelay
	for range attempt - 1 {
		if d *= 2; d >= r.MaxDelay {
			break
		}
	}
	d = min(d, r.MaxDelay)
	return d - rand.N(d/2+1) // so that the clients of a node that went do not all come back at once
}
