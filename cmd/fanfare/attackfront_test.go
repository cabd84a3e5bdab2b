package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// attackFront is what clients without credentials try on the listener: to keep others
// out, to hold connections, and to fill the log.
func attackFront(t *testing.T) {
	const places = 16
	bound := fmt.Sprint("FANFARE_LIMITS_UNAUTHENTICATED_CONNECTIONS=", places)
	plain := startNode(t, []string{bound, "FANFARE_LIMITS_HANDSHAKE_TIMEOUT=10m"})
	secure := startSecureNode(t, bound, "FANFARE_LIMITS_HANDSHAKE_TIMEOUT=10m")
	quick := startNode(t, []string{bound, "FANFARE_LIMITS_HANDSHAKE_TIMEOUT=200ms"})
	if status, said := get(t, "http://"+plain.address+"/healthz"); status != http.StatusOK {
		t.Fatalf("%d %s", status, said)
	}
	if _, err := dial(t, plain.environ(accesskey.DevelopmentKey), "--hub", "chat"); err != nil {
		t.Fatal(err)
	}

	// first opens more connections than there are places, and returns what the first
	// one is told.
	first := func(n *command, send string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			c := connect(t, n, send)
			for range 2 * places {
				connect(t, n, send)
			}
			return told(t, c)
		}
	}
	alone := func(n *command, send string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			return told(t, connect(t, n, send))
		}
	}
	// bounded checks, after an attack, how many connections stay.
	bounded := func(try func(t *testing.T) (int, string)) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			status, said := try(t)
			eventually(t, "no more connections stay than there are places", func() bool { return gauge(t, plain, "fanfare_unauthenticated_connections") <= places })
			return status, said
		}
	}
	const body = "Content-Length: 100\r\n\r\n"
	attackAll(t, []attack{
		{"silent connections", bounded(first(plain, "")), 503, "limits.unauthenticatedConnections"},
		{"halves of headers", bounded(first(plain, "GET / HTTP/1.1\r\nHost: x\r\nX-A: ")), 503, "limits.unauthenticatedConnections"},
		{"halves of a ClientHello", logged(secure, "limits.unauthenticatedConnections", first(secure, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")), 0, "limits.unauthenticatedConnections"},
		{"a silent connection", alone(quick, ""), 408, "limits.handshakeTimeout"},
		{"half of a header", alone(quick, "GET / HTTP/1.1\r\nHost: x\r\nX-A: "), 408, "limits.handshakeTimeout"},
		{"a body that does not come, data plane", logged(quick, "token.missing", alone(quick, "POST /api/hubs/chat/:send?api-version=2024-12-01 HTTP/1.1\r\nHost: x\r\n"+body)), 401, "token.missing"},
		{"a body that does not come, identity", alone(quick, "POST /identities?api-version=2023-10-01 HTTP/1.1\r\nHost: x\r\n"+body), 401, "close"},
		{"a body that does not come, client", alone(quick, "POST /client/hubs/chat HTTP/1.1\r\nHost: x\r\n"+body), 400, "websocket.upgrade"},
		{"a body that does not come, unknown path", alone(quick, "POST /x HTTP/1.1\r\nHost: x\r\n"+body), 404, "close"},
		{"a body that does not come, health", alone(quick, "GET /healthz HTTP/1.1\r\nHost: x\r\n"+body), 200, "close"},
		{"Content-Length and Transfer-Encoding", alone(plain, "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), 405, "close"},
		{"a cipher suite with CBC", func(t *testing.T) (int, string) {
			c := tls.Client(connect(t, secure, ""), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}) //nolint:gosec // the attack
			return 0, fmt.Sprint(c.Handshake())
		}, 0, "handshake failure"},
		{"HTTP/2 SETTINGS without end", logged(secure, "http2.overhead", flood(secure, func(s *stream2) error { return s.WriteSettings() })), 0, "http2.overhead"},
		{"HTTP/2 PING without end", flood(secure, func(s *stream2) error { return s.WritePing(false, [8]byte{}) }), 0, "ended"},
		{"HTTP/2 resets without end", flood(secure, func(s *stream2) error { return s.reset("/x") }), int(http2.ErrCodeNo), "ended"},
		{"refusals that fill the log", func(t *testing.T) (int, string) {
			const refusals, most = 200, 20
			before := strings.Count(plain.err.String(), "\n")
			status := 0
			for range refusals {
				status, _ = told(t, connect(t, plain, "GET /client/hubs/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"))
			}
			if lines := strings.Count(plain.err.String(), "\n") - before; lines > most {
				t.Errorf("%d lines for %d refusals", lines, refusals)
			}
			return status, plain.err.String()
		}, 401, "token.missing"},
	})
}

// told returns the status and the text of a response, the last one of its connection,
// with "close" if it says so.
func told(t *testing.T, c net.Conn) (int, string) {
	t.Helper()
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, err.Error()
	}
	text, _ := io.ReadAll(r.Body)
	if _, err := in.ReadByte(); err == nil {
		return r.StatusCode, "and more"
	}
	if r.Close {
		text = append(text, " close"...)
	}
	return r.StatusCode, string(text)
}

// flood sends frames until the connection is closed.
func flood(n *command, send func(s *stream2) error) func(t *testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		s := newStream2(t, n)
		for range 2_000_000 {
			if send(s) != nil {
				break
			}
		}
		select {
		case e := <-s.ended:
			return int(e.code), "ended"
		case <-time.After(patience):
			return 0, "stays"
		}
	}
}

// gauge returns the value of a metric without labels.
func gauge(t *testing.T, n *command, name string) float64 {
	t.Helper()
	families, err := n.node.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}
