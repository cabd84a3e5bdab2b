package mqtt_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/mqtt"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// server is an engine behind a WebSocket door with MQTT.
type server struct {
	engine *engine.Engine
	guests *transporttest.Guests
	dial   func() (net.Conn, error)
	addr   string // of sockets; empty over pipes
}

// serve runs a door until the test ends: over pipes, or over sockets on loopback.
func serve(t testing.TB, o engine.Options, sockets bool) *server {
	t.Helper()
	e, err := engine.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{engine: e, guests: &transporttest.Guests{}}
	h := websocket.NewHandler(e, s.guests, &websocket.Options{Protocols: []websocket.Protocol{mqtt.Protocol(nil)}})
	var l net.Listener
	if sockets {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		s.addr = l.Addr().String()
		s.dial = func() (net.Conn, error) { return net.Dial("tcp", s.addr) }
	} else {
		pl := transporttest.Listen()
		l, s.dial = pl, pl.Dial
	}
	srv := &http.Server{Handler: h}
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

// everything is the roles of a client that may do all.
var everything = []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"}

// client is a WebSocket client that knows nothing of MQTT.
type client struct {
	net.Conn
	r *bufio.Reader
	t testing.TB
}

// target is where clients of MQTT connect to.
func (s *server) target(id engine.Identity) string {
	return "/clients/mqtt/hubs/chat?access_token=" + s.guests.Invite(id)
}

// handshake asks for an upgrade and returns the answer.
func (s *server) handshake(t testing.TB, target, protocol string) (*client, *http.Response) {
	t.Helper()
	c, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	offer := ""
	if protocol != "" {
		offer = "Sec-WebSocket-Protocol: " + protocol + "\r\n"
	}
	go fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n", target, offer)
	cl := &client{Conn: c, r: bufio.NewReader(c), t: t}
	res, err := http.ReadResponse(cl.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cl, res
}

// connect upgrades as a client of MQTT.
func (s *server) connect(t testing.TB, id engine.Identity) *client {
	t.Helper()
	c, res := s.handshake(t, s.target(id), "mqtt")
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-Websocket-Protocol") != "mqtt" {
		t.Fatalf("the handshake was answered %s, %v", res.Status, res.Header)
	}
	return c
}

// enter connects a client of 5.0, as ann, who may do all, with a client id.
func (s *server) enter(t testing.TB, id string) *client {
	t.Helper()
	c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
	c.packets("10 ( 'MQTT' 05 02 003c ( ) '" + id + "' )")
	c.want(connack5)
	return c
}

// frame makes a masked frame.
func frame(op ws.OpCode, p []byte) []byte {
	var b bytes.Buffer
	ws.WriteFrame(&b, ws.MaskFrameInPlace(ws.NewFrame(op, true, bytes.Clone(p))))
	return b.Bytes()
}

// send sends p in one binary message.
func (c *client) send(p []byte) {
	c.t.Helper()
	if _, err := c.Write(frame(ws.OpBinary, p)); err != nil {
		c.t.Fatal(err)
	}
}

// packets sends packets in the notation of the transcripts.
func (c *client) packets(notation string) {
	c.t.Helper()
	p, err := parseNotation(notation)
	if err != nil {
		c.t.Fatal(err)
	}
	c.send(p.bytes)
}

// read returns the next frame that is no ping.
func (c *client) read() (ws.OpCode, []byte, error) {
	for {
		h, err := ws.ReadHeader(c.r)
		if err != nil {
			return 0, nil, err
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(c.r, p); err != nil {
			return 0, nil, err
		}
		if h.OpCode != ws.OpPing {
			return h.OpCode, p, nil
		}
	}
}

// want checks the next frame: a packet in the notation of the transcripts, or "close
// CODE", or "gone" for an end without a word.
func (c *client) want(notation string) {
	c.t.Helper()
	if err := c.check(notation); err != nil {
		c.t.Fatal(err)
	}
}

// wantDisconnect checks that the next frame is a DISCONNECT of the reason code, whose
// Reason String says more.
func (c *client) wantDisconnect(code string) {
	c.t.Helper()
	op, p, err := c.read()
	// The fixed header, the code, the length of the properties, and their first.
	said := regexp.MustCompile("^e0(?:[89a-f].)*[0-7]." + code + "(?:[89a-f].)*[0-7].1f")
	if err != nil || op != ws.OpBinary || !said.MatchString(hex.EncodeToString(p)) {
		c.t.Fatalf("got a frame of type %d, %x, %v; want a DISCONNECT of 0x%s with a Reason String", op, p, err, code)
	}
}

func (c *client) check(notation string) error {
	op, p, err := c.read()
	got := "gone"
	switch {
	case err != nil:
	case op == ws.OpClose:
		got = "close"
		if len(p) >= 2 {
			got += " " + strconv.Itoa(int(binary.BigEndian.Uint16(p)))
		}
	case op == ws.OpBinary:
		want, err := parseNotation(notation)
		if err == nil && want.matches(p) {
			return nil
		}
		if err == nil {
			notation = want.String()
		}
		got = hex.EncodeToString(p)
	default:
		got = fmt.Sprintf("a frame of type %d", op)
	}
	if got != notation {
		return fmt.Errorf("got  %s %v\nwant %s", got, err, notation)
	}
	return nil
}

// pattern is bytes, some of which may be any.
type pattern struct {
	bytes []byte
	any   []bool
}

func (p *pattern) add(b ...byte) {
	p.bytes = append(p.bytes, b...)
	p.any = append(p.any, make([]bool, len(b))...)
}

func (p *pattern) append(o *pattern) {
	p.bytes = append(p.bytes, o.bytes...)
	p.any = append(p.any, o.any...)
}

func (p *pattern) matches(b []byte) bool {
	if len(b) != len(p.bytes) {
		return false
	}
	for i := range b {
		if !p.any[i] && b[i] != p.bytes[i] {
			return false
		}
	}
	return true
}

func (p *pattern) String() string { return hex.EncodeToString(p.bytes) }

// parseNotation reads the notation of the transcripts: see testdata/v5.txt.
func parseNotation(s string) (*pattern, error) {
	stack := []*pattern{{}}
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		top := stack[len(stack)-1]
		switch s[0] {
		case '(':
			stack = append(stack, &pattern{})
			s = s[1:]
			continue
		case ')':
			if len(stack) == 1 {
				return nil, fmt.Errorf("a ) too many")
			}
			stack = stack[:len(stack)-1]
			outer := stack[len(stack)-1]
			n := len(top.bytes)
			for ; n > 0x7f; n >>= 7 {
				outer.add(byte(n) | 0x80)
			}
			outer.add(byte(n))
			outer.append(top)
			s = s[1:]
			continue
		case '\'', '"':
			end := strings.IndexByte(s[1:], s[0])
			if end < 0 {
				return nil, fmt.Errorf("a quotation without an end: %s", s)
			}
			text := s[1 : 1+end]
			if s[0] == '\'' {
				top.add(byte(len(text)>>8), byte(len(text)))
			}
			top.add([]byte(text)...)
			s = s[end+2:]
			continue
		}
		word := s
		if i := strings.IndexAny(s, " ()'\""); i >= 0 {
			word = s[:i]
		}
		s = s[len(word):]
		if n, ok := strings.CutPrefix(word, "*"); ok {
			count, err := strconv.Atoi(n)
			if err != nil {
				return nil, err
			}
			for range count {
				top.bytes, top.any = append(top.bytes, 0), append(top.any, true)
			}
			continue
		}
		b, err := hex.DecodeString(word)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
		top.add(b...)
	}
	if len(stack) != 1 {
		return nil, fmt.Errorf("a ) is missing")
	}
	return stack[0], nil
}

// handled is a hub whose events go to h.
func handled(h engine.EventHandler) engine.Options {
	return engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{Handlers: []engine.HandlerRule{{
			SystemEvents: []string{"connect", "connected", "disconnected"}, UserEvents: "*", Handler: h,
		}}}
	}}
}

// soon is a context that ends when patience does.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
