package websocket_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// patience is how long a test waits for what must come. In a bubble it is
// virtual.
const patience = time.Minute

// TestScript plays the conversations that every door must hold, over both paths.
func TestScript(t *testing.T) {
	t.Run("pipes", func(t *testing.T) {
		transporttest.Run(t, door(network{pipe: true}), synctest.Test)
	})
	t.Run("sockets", func(t *testing.T) {
		transporttest.Run(t, door(network{}), leakless)
	})
	t.Run("path=own", func(t *testing.T) {
		transporttest.Run(t, door(network{own: true}), leakless)
	})
	t.Run("portable sockets", func(t *testing.T) {
		transporttest.Run(t, door(network{portable: true}), leakless)
	})
	t.Run("TLS", func(t *testing.T) {
		transporttest.Run(t, door(network{tls: true}), leakless)
	})
	t.Run("compressed sockets", func(t *testing.T) {
		transporttest.Run(t, door(network{compressed: true}), leakless)
	})
}

// leakless runs f and checks that its goroutines are gone afterwards.
func leakless(t *testing.T, f func(*testing.T)) {
	before := runtime.NumGoroutine()
	t.Run("", f)
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
	}
}

// network is how the tests reach a door.
type network struct {
	pipe       bool // in memory
	portable   bool
	own        bool // through [websocket.NewListener]
	compressed bool
	tls        bool
	http2      bool // each client on a connection of its own
}

// server is a running door.
type server struct {
	handler *websocket.Handler
	connect func() (net.Conn, error)
	http2   bool
}

// serve runs a door until the test ends.
func serve(t testing.TB, e *engine.Engine, auth transport.Authenticator, n network, o websocket.Options) *server {
	o.Portable = o.Portable || n.portable
	o.Compression = o.Compression || n.compressed
	h := websocket.NewHandler(e, auth, &o)
	srv := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(n.http2)
	srv.Protocols.SetUnencryptedHTTP2(n.http2)
	s := &server{handler: h, http2: n.http2}
	var l net.Listener
	if n.pipe {
		pl := transporttest.Listen()
		l, s.connect = pl, pl.Dial
	} else {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		if n.own {
			l = websocket.NewListener(narrowed(t, l))
		} else {
			l = narrow{l}
		}
		s.connect = func() (net.Conn, error) {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.(*net.TCPConn).SetReadBuffer(socketBuffer)
			}
			return c, err
		}
	}
	if n.tls {
		var protocols []string
		if n.http2 {
			protocols = []string{"h2"}
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: protocols})
		plain := s.connect
		s.connect = func() (net.Conn, error) {
			c, err := plain()
			if err != nil {
				return nil, err
			}
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}), nil // the test's own server
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	t.Cleanup(func() {
		e.Close()
		srv.Close()
		<-done
	})
	return s
}

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	return s.TLS.Certificates[0]
}

// narrow is a listener whose sockets hold little.
type narrow struct{ net.Listener }

const socketBuffer = 32 << 10

func (l narrow) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c.(*net.TCPConn).SetWriteBuffer(socketBuffer)
	}
	return c, err
}

// narrowed is narrow for a listener whose connections have their options from its
// socket. On systems where they have not, buffers are larger.
func narrowed(t testing.TB, l net.Listener) net.Listener {
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { setWriteBuffer(fd, socketBuffer) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func door(n network) transporttest.Door {
	return func(t testing.TB, e *engine.Engine, auth transport.Authenticator) func(transporttest.Knock) transporttest.Client {
		s := serve(t, e, auth, n, websocket.Options{})
		return func(k transporttest.Knock) transporttest.Client {
			q := make(url.Values)
			if k.Recover != "" {
				q.Set("awps_connection_id", string(k.Recover))
				q.Set("awps_reconnection_token", k.ReconnectionToken)
			} else {
				q.Set("access_token", auth.(*transporttest.Guests).Invite(k.Identity))
			}
			if k.Subprotocol == "" && k.Raw != subprotocol.SendEvent {
				q.Set("webpubsub_mode", k.Raw.String())
				q.Set("group", string(k.Group))
				q.Set("noEcho", fmt.Sprint(k.NoEcho))
			}
			var header http.Header
			if n.compressed {
				header = http.Header{"Sec-Websocket-Extensions": {"permessage-deflate; client_max_window_bits"}}
			}
			c, res := s.dial(t, "/client/hubs/"+string(k.Hub)+"?"+q.Encode(), k.Subprotocol, header)
			if c == nil {
				t.Fatalf("not let in: %s", res)
			}
			return c
		}
	}
}

// dial knocks. Unless the answer is 101 it returns no client, and the status with
// the body.
func (s *server) dial(t testing.TB, target, protocols string, header http.Header) (*conn, string) {
	t.Helper()
	if s.http2 {
		return s.h2dial(t, target, protocols, header)
	}
	c, err := s.connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	req := "GET " + target + " HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	if protocols != "" {
		req += "Sec-WebSocket-Protocol: " + protocols + "\r\n"
	}
	for name, values := range header {
		for _, v := range values {
			req += name + ": " + v + "\r\n"
		}
	}
	c.SetDeadline(time.Now().Add(patience))
	go io.WriteString(c, req+"\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("the answer to %s: %v", target, err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(res.Body)
		c.Close()
		return nil, fmt.Sprintf("%d %s", res.StatusCode, body)
	}
	if got, want := res.Header.Get("Sec-Websocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; got != want {
		t.Fatalf("Sec-WebSocket-Accept is %q", got)
	}
	return &conn{
		t: t, Conn: c, r: r,
		protocol: res.Header.Get("Sec-Websocket-Protocol"),
		deflated: strings.HasPrefix(res.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate"),
	}, ""
}

// conn is the client's end of a connection.
type conn struct {
	net.Conn
	t        testing.TB
	r        *bufio.Reader
	protocol string
	deflated bool
	closed   *transporttest.Closed
	pings    int // that it has answered
	mute     bool
}

var mask = [4]byte{0x12, 0x34, 0x56, 0x78}

// frame returns the bytes of a client's frame.
func frame(first byte, p []byte) []byte {
	b := []byte{first}
	switch {
	case len(p) < 126:
		b = append(b, 0x80|byte(len(p)))
	case len(p) <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(len(p)))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(len(p)))
	}
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, p...)
	ws.Cipher(b[at:], mask, 0)
	return b
}

func (c *conn) Send(f subprotocol.Frame, p []byte) error {
	first := byte(0x81)
	if f == subprotocol.BinaryFrame {
		first = 0x82
	}
	if c.deflated && len(p) > 0 {
		first |= 0x40
		p = compress(p)
	}
	return c.write(frame(first, p))
}

func (c *conn) write(b []byte) error {
	c.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.Conn.Write(b)
	return err
}

func (c *conn) Receive() (subprotocol.Frame, []byte, error) {
	c.SetReadDeadline(time.Now().Add(patience)) // for all of it: pings come for ever
	for {
		if c.closed != nil {
			return 0, nil, c.closed
		}
		op, p, err := c.frame()
		if err != nil {
			return 0, nil, err
		}
		switch op {
		case ws.OpText:
			return subprotocol.TextFrame, p, nil
		case ws.OpBinary:
			return subprotocol.BinaryFrame, p, nil
		case ws.OpPing:
			if !c.mute {
				c.pings++
				if err := c.write(frame(0x8a, p)); err != nil {
					return 0, nil, err
				}
			}
		case ws.OpClose:
			c.closed = &transporttest.Closed{}
			if len(p) >= 2 {
				c.closed.Code, c.closed.Text = engine.CloseCode(binary.BigEndian.Uint16(p)), string(p[2:])
			}
			c.write(frame(0x88, p)) // may meet a server that has closed already
			c.awaitEnd()
		}
	}
}

// awaitEnd checks that nothing follows the server's close frame, and that it is
// the server that closes first (RFC 6455 section 7.1.1).
func (c *conn) awaitEnd() {
	c.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(c.r)
	if len(rest) > 0 || err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		c.t.Errorf("after the close frame came %q, %v", rest, err)
	}
}

// readFrame reads one frame of the server and checks what a client must.
func (c *conn) readFrame() (ws.OpCode, []byte, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	return c.frame()
}

func (c *conn) frame() (ws.OpCode, []byte, error) {
	h, err := ws.ReadHeader(c.r)
	if err != nil {
		return 0, nil, err
	}
	compressed := h.Rsv1()
	if compressed && c.deflated && h.OpCode.IsData() {
		h.Rsv = 0
	}
	if h.Masked || h.Rsv != 0 || !h.Fin {
		return 0, nil, fmt.Errorf("the server sent a frame with the header %+v", h)
	}
	p := make([]byte, h.Length)
	if _, err := io.ReadFull(c.r, p); err != nil {
		return 0, nil, err
	}
	if compressed {
		if p, err = decompress(p); err != nil {
			return 0, nil, err
		}
	}
	return h.OpCode, p, nil
}

func (c *conn) Close(code engine.CloseCode, text string) (*transporttest.Closed, error) {
	body := append(binary.BigEndian.AppendUint16(nil, uint16(code)), text...)
	if err := c.write(frame(0x88, body)); err != nil {
		return nil, err
	}
	for {
		op, p, err := c.readFrame()
		if err != nil {
			return nil, err
		}
		if op == ws.OpClose {
			c.closed = &transporttest.Closed{Code: engine.CloseCode(binary.BigEndian.Uint16(p)), Text: string(p[2:])}
			c.awaitEnd()
			return c.closed, nil
		}
	}
}

func (c *conn) Drop() { c.Conn.Close() }

// next reads one frame, which must be of kind op.
func (c *conn) next(op ws.OpCode) []byte {
	c.t.Helper()
	got, p, err := c.readFrame()
	if err != nil || got != op {
		c.t.Fatalf("received frame %x %q, %v; expected %x", got, p, err, op)
	}
	return p
}

// says sends a text message.
func (c *conn) says(format string, args ...any) {
	c.t.Helper()
	if err := c.Send(subprotocol.TextFrame, fmt.Appendf(nil, format, args...)); err != nil {
		c.t.Fatal(err)
	}
}

// hears reads one text message, which must be want.
func (c *conn) hears(want string, args ...any) {
	c.t.Helper()
	f, p, err := c.Receive()
	if want = fmt.Sprintf(want, args...); err != nil || f != subprotocol.TextFrame || string(p) != want {
		c.t.Fatalf("received the %s message %s, %v\nexpected %s", f, p, err, want)
	}
}

// skipData reads the data frames that come first.
func (c *conn) skipData() {
	for {
		if b, err := c.r.Peek(1); err != nil || !ws.OpCode(b[0]&0x0f).IsData() {
			return
		}
		c.readFrame()
	}
}

// expectClose reads frames until the close frame, which must hold code.
func (c *conn) expectClose(code engine.CloseCode) string {
	c.t.Helper()
	for {
		op, p, err := c.readFrame()
		if err != nil {
			c.t.Fatalf("waiting for close %d: %v", code, err)
		}
		if op != ws.OpClose {
			continue
		}
		if got := engine.CloseCode(binary.BigEndian.Uint16(append(bytes.Clone(p), 0, 0))); got != code {
			c.t.Fatalf("closed with %d %q, expected %d", got, p[min(2, len(p)):], code)
		}
		return string(p[2:])
	}
}
