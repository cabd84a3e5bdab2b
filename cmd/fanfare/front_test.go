package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// startSecureNode runs a node with TLS.
func startSecureNode(t *testing.T, environ ...string) *command {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	return startNode(t, append(environ, "FANFARE_TLS_CERT_FILE="+cert, "FANFARE_TLS_KEY_FILE="+key))
}

// connect opens a connection to a node, and sends on it. It is closed at the end of the test.
func connect(t *testing.T, n *command, send string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, send)
	return c
}

// connectSecurely is connect over TLS, with an ALPN protocol.
func connectSecurely(t *testing.T, n *command, protocol string) *tls.Conn {
	t.Helper()
	c := tls.Client(connect(t, n, ""), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}) //nolint:gosec // a test's own certificate
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

// isClosed reports whether the other end has closed c, or does so now.
func isClosed(c net.Conn) bool {
	_, err := io.Copy(io.Discard, c)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// Connections that do not send a request do not keep others out, however many they are:
// here the time that would end them does not pass.
func TestSilentConnectionsLockNobodyOut(t *testing.T) {
	const places, more = 32, 10
	const hello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" // the beginning of a ClientHello of 512 bytes
	for _, test := range []struct {
		name, send string
		secure     bool
	}{
		{"silent", "", false},
		{"half of the headers", "GET /client/hubs/chat HTTP/1.1\r\nHost: x\r\nX-A: ", false},
		{"silent, TLS", "", true},
		{"half of a ClientHello", hello, true},
		{"refused, and idle", "GET /x HTTP/1.1\r\nHost: x\r\n\r\n", false},
		{"refused, and no body", "POST /api/hubs/chat/:send?api-version=2024-12-01 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", false},
		{"served, and idle", "GET /api/health?api-version=2024-12-01 HTTP/1.1\r\nHost: x\r\n\r\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			environ := []string{fmt.Sprint("FANFARE_LIMITS_UNAUTHENTICATED_CONNECTIONS=", places), "FANFARE_LIMITS_HANDSHAKE_TIMEOUT=10m"}
			start, scheme := startNode, "http"
			if test.secure {
				start = func(t *testing.T, environ []string, _ ...string) *command { return startSecureNode(t, environ...) }
				scheme = "https"
			}
			n := start(t, environ)
			web := &http.Client{Timeout: patience, Transport: &http.Transport{
				DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a test's own certificate
			}}
			var all []net.Conn
			for i := range more * places {
				all = append(all, connect(t, n, test.send))
				if i%places != 0 {
					continue
				}
				r, err := web.Get(scheme + "://" + n.address + "/healthz")
				if err != nil {
					t.Fatalf("a health check after %d connections: %v", i+1, err)
				}
				r.Body.Close()
				if test.secure {
					continue
				}
				if _, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat"); err != nil {
					t.Fatalf("a client after %d connections: %v", i+1, err)
				}
			}
			// All but the places are closed, and none waits for its time. Which ones stay
			// depends on when their requests were answered.
			closed := make(chan bool, len(all))
			for _, c := range all {
				go func() { closed <- isClosed(c) }() // ends with c
			}
			for i := range (more - 1) * places {
				if !<-closed {
					t.Fatalf("%d of %d connections are closed; want %d", i, len(all), (more-1)*places)
				}
			}
		})
	}
}

// A refused request is answered before its body has come, and its connection is closed
// though the body never comes.
func TestRefusalsDoNotWaitForBodies(t *testing.T) {
	n := startNode(t, []string{"FANFARE_LIMITS_HANDSHAKE_TIMEOUT=300ms"})
	for _, test := range []struct {
		name, line string
		status     int
	}{
		{"data plane", "POST /api/hubs/chat/:send?api-version=2024-12-01", 401},
		{"data plane, no such operation", "POST /api/hubs/chat/:nothing?api-version=2024-12-01", 404},
		{"data plane, no such method", "PATCH /api/hubs/chat/:send?api-version=2024-12-01", 405},
		{"identity", "POST /identities?api-version=2023-10-01", 401},
		{"identity, exchange", "POST /teamsUser/:exchangeAccessToken?api-version=2023-10-01", 401},
		{"unknown path", "POST /nothing", 404},
		{"client", "POST /client/hubs/chat", 400},
		{"client, GET", "GET /client/hubs/chat", 400},
		{"MQTT client", "POST /clients/mqtt/hubs/chat", 400},
		{"Socket.IO client", "POST /clients/socketio/hubs/chat", 404},
		{"health, POST", "POST /healthz", 405},
		{"health", "GET /healthz", 200},
		{"readiness", "GET /readyz", 200},
	} {
		for _, body := range []string{"Content-Length: 100", "Content-Length: 10000000", "Transfer-Encoding: chunked"} {
			t.Run(test.name+", "+body, func(t *testing.T) {
				c := connect(t, n, test.line+" HTTP/1.1\r\nHost: x\r\n"+body+"\r\n\r\n")
				in := bufio.NewReader(c)
				r, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, r.Body)
				if r.StatusCode != test.status || !r.Close {
					t.Errorf("%s, to be closed: %v; want %d, true", r.Status, r.Close, test.status)
				}
				if !isClosed(c) {
					t.Error("the connection stays")
				}
			})
		}
	}
}

// The same on HTTP/2, where each stream has a body.
func TestRefusalsDoNotWaitForBodiesOfStreams(t *testing.T) {
	n := startSecureNode(t, "FANFARE_LIMITS_HANDSHAKE_TIMEOUT=10m")
	for path, status := range map[string]int{
		"/api/hubs/chat/:send?api-version=2024-12-01": 401, "/identities?api-version=2023-10-01": 401, "/nothing": 404, "/client/hubs/chat": 400, "/healthz": 405,
	} {
		web := http2Web() // for each request, since the connection ends with the refusal
		body, never := io.Pipe()
		r, err := web.Post("https://"+n.address+path, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		if r.StatusCode != status || r.ProtoMajor != 2 {
			t.Errorf("%s: %s by %s; want %d", path, r.Status, r.Proto, status)
		}
		r.Body.Close()
		never.Close()
		web.CloseIdleConnections()
	}
}

// http2Web returns a client with a connection of its own, over HTTP/2.
func http2Web() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, //nolint:gosec // a test's own certificate
	}}
}

// A client that sends as much of a body as HTTP/2 lets it before it reads the response
// reads that response, and not the end of its connection.
func TestRefusalsReachSendersOfLargeBodies(t *testing.T) {
	n := startSecureNode(t)
	for range 20 {
		web := http2Web()
		r, err := web.Post("https://"+n.address+"/api/hubs/chat/:send?api-version=2024-12-01", "application/octet-stream", bytes.NewReader(make([]byte, 1<<20)))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r.Body); r.StatusCode != 401 || r.ProtoMajor != 2 || len(text) == 0 || err != nil {
			t.Errorf("%s by %s, %q, %v", r.Status, r.Proto, text, err)
		}
		r.Body.Close()
		web.CloseIdleConnections()
	}
}

// An authorized request has a minute for its body, and its connection stays.
func TestAuthorizedBodiesHaveTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		c, err := b.doors.Dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const path = "/api/hubs/chat/:send"
		token := sign(t, accesskey.DevelopmentKey, "http://node.example"+path, time.Now().Add(time.Hour))
		head := "POST " + path + "?api-version=2024-12-01 HTTP/1.1\r\nHost: node.example\r\nContent-Type: text/plain\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 5\r\n\r\n"
		in := bufio.NewReader(c)
		for range 2 {
			io.WriteString(c, head+"he")
			time.Sleep(59 * time.Second)
			io.WriteString(c, "llo")
			r, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != http.StatusAccepted || r.Close {
				t.Errorf("%s, to be closed: %v", r.Status, r.Close)
			}
			r.Body.Close()
			time.Sleep(time.Minute) // an authenticated connection may wait for its next request
		}
		io.WriteString(c, head+"he")
		started := time.Now()
		if r, err := http.ReadResponse(in, nil); err != nil || r.StatusCode != http.StatusBadRequest || time.Since(started) != time.Minute {
			t.Errorf("%v, %v after %s", r, err, time.Since(started))
		}
	})
}

// RFC 9112 section 6.1: a request with Content-Length and Transfer-Encoding is the last one
// on its connection, whether it was refused or not.
func TestAmbiguousLengthsCloseConnections(t *testing.T) {
	n := startNode(t, nil)
	const path = "/api/hubs/chat/:send"
	token := sign(t, accesskey.DevelopmentKey, "http://"+n.address+path, time.Now().Add(time.Hour))
	for _, headers := range []string{"Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5"} {
		for line, status := range map[string]int{
			"POST " + path + "?api-version=2024-12-01":          202,
			"POST /api/hubs/other/:send?api-version=2024-12-01": 401,
			"GET /healthz":  200,
			"POST /nothing": 404,
		} {
			smuggled := "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
			c := connect(t, n, line+" HTTP/1.1\r\nHost: "+n.address+"\r\nContent-Type: text/plain\r\nAuthorization: Bearer "+token+"\r\n"+headers+"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"+smuggled)
			answer, err := io.ReadAll(c)
			if err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(answer), fmt.Sprintf("HTTP/1.1 %d ", status)) || strings.Count(string(answer), "HTTP/1.1 ") != 1 ||
				!strings.Contains(string(answer), "Connection: close\r\n") {
				t.Errorf("%s: %q; want one response, %d, and the end", line, answer, status)
			}
		}
	}
}

// A connection with nothing but refusals, or nothing but health checks, ends; one that has
// authenticated stays.
func TestRefusedConnectionsAreClosed(t *testing.T) {
	n := startNode(t, nil)
	const path = "/api/hubs/chat"
	refused := "HEAD " + path + "/groups/g?api-version=2024-12-01 HTTP/1.1\r\nHost: x\r\n\r\n"
	allowed := "HEAD /api/hubs/chat/groups/g?api-version=2024-12-01 HTTP/1.1\r\nHost: " + n.address + "\r\nAuthorization: Bearer " +
		sign(t, accesskey.DevelopmentKey, "http://"+n.address+path+"/groups/g", time.Now().Add(time.Hour)) + "\r\n\r\n"
	healthy := "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, test := range []struct {
		name     string
		requests []string
		answers  int // until the connection is closed; -1: it stays
	}{
		{"refused", []string{refused, refused}, 1},
		{"authorized, then refused", []string{allowed, refused, refused, allowed}, -1},
		{"health", slices.Repeat([]string{healthy}, mostUnauthenticated+10), mostUnauthenticated},
		{"health, then authorized", slices.Concat(slices.Repeat([]string{healthy}, 10), []string{allowed}, slices.Repeat([]string{healthy}, mostUnauthenticated)), -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := connect(t, n, "")
			in := bufio.NewReader(c)
			for i, request := range test.requests {
				io.WriteString(c, request)
				r, err := http.ReadResponse(in, &http.Request{Method: http.MethodHead})
				if err != nil {
					t.Fatalf("request %d: %v", i+1, err)
				}
				if last := i+1 == test.answers; r.Close != last {
					t.Fatalf("request %d: %s, to be closed: %v", i+1, r.Status, r.Close)
				} else if last {
					break
				}
			}
		})
	}
}

// TLS 1.2 has forward secrecy and authenticated encryption, or nothing.
func TestCipherSuites(t *testing.T) {
	n := startSecureNode(t)
	for _, test := range []struct {
		suite uint16
		ok    bool
	}{
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, true},
		{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, true},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, false},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, false},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, false},
	} {
		c := tls.Client(connect(t, n, ""), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{test.suite}}) //nolint:gosec // what is tested
		if err := c.Handshake(); (err == nil) != test.ok {
			t.Errorf("%s: %v", tls.CipherSuiteName(test.suite), err)
		}
	}
}
