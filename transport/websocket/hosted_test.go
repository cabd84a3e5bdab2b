package websocket_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
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

// toy is a protocol whose clients say their name first, in messages that end with a
// dot, and are then in JSON, but for a last word before the end.
type toy struct {
	said    chan string
	neglect bool
}

func (p toy) protocol() websocket.Protocol {
	return websocket.Protocol{Path: "/clients/toy/hubs/", Name: "toy", Serve: p.serve}
}

func (p toy) serve(ctx context.Context, g *websocket.Guest) {
	var name strings.Builder
	if g.Receive(func(b []byte) bool { name.Write(b); return !strings.HasSuffix(name.String(), ".") }) != nil {
		p.said <- "nothing"
		return
	}
	p.said <- name.String()
	if p.neglect {
		return
	}
	if name.String() == "eve." {
		g.Refuse(engine.Errorf(engine.CodeForbidden, "toy.eve", "No Eves."), []byte("no"), engine.ClosePolicy, "not you")
		return
	}
	r := g.Request()
	r.ConnID = engine.ConnID(strings.TrimSuffix(name.String(), "."))
	a, err := g.Hub().Admit(ctx, r)
	if err != nil {
		g.Refuse(err, nil, engine.CloseInternalError, "")
		return
	}
	enc, dec := subprotocol.JSON()
	s := &transport.Session{}
	if err := s.Open(a, g.Wire(s), &transport.SessionOptions{Decoder: dec, Encoding: websocket.Frames(lastWords{enc})}); err != nil {
		g.Refuse(err, []byte("taken"), engine.CloseNormal, "")
		return
	}
	g.Start()
}

// lastWords says goodbye before the close frame.
type lastWords struct{ subprotocol.Encoder }

func (lastWords) AppendParting(dst []byte, m *engine.Message) ([]byte, engine.CloseCode, string) {
	return append(append(dst, "goodbye "...), m.Reason...), engine.CloseNormal, "see above"
}

func toyDoor(t testing.TB, p toy, n network, o websocket.Options) (s *server, e *engine.Engine, target string) {
	t.Helper()
	return toyLimited(t, p, n, o, engine.Limits{})
}

func toyLimited(t testing.TB, p toy, n network, o websocket.Options, limits engine.Limits) (s *server, e *engine.Engine, target string) {
	t.Helper()
	e = echoEngine(t, engine.Options{Limits: limits})
	guests := &transporttest.Guests{}
	o.Protocols = []websocket.Protocol{p.protocol()}
	return serve(t, e, guests, n, o), e, "/clients/toy/hubs/h?access_token=" + guests.Invite(engine.Identity{UserID: "ann"})
}

func closeFrame(code uint16) []byte { return frame(0x88, binary.BigEndian.AppendUint16(nil, code)) }

func expectFrame(t *testing.T, c *conn, op ws.OpCode, text string) {
	t.Helper()
	got, p, err := c.readFrame()
	if err != nil || got != op || !strings.HasPrefix(string(p), text) {
		t.Fatalf("got frame %d %q %v, want %d %q", got, p, err, op, text)
	}
}

// A protocol's client is let in by its own first message, however that comes, and
// leaves with the protocol's last.
func TestProtocol(t *testing.T) {
	for _, n := range []network{{}, {own: true}, {portable: true}, {pipe: true}, {tls: true}} {
		p := toy{said: make(chan string, 8)}
		s, e, target := toyDoor(t, p, n, websocket.Options{})
		c, res := s.dial(t, target, "x, Toy", nil)
		if c == nil || c.protocol != "Toy" {
			t.Fatalf("not let in: %s", res)
		}
		c.write(frame(0x89, []byte("are you there?")))
		expectFrame(t, c, ws.OpPong, "are you there?")
		c.write(append(frame(0x82, []byte("an")), append(frame(0x82, []byte("n.")), frame(0x81, []byte(`{"type":"ping"}`))...)...))
		if said := <-p.said; said != "ann." {
			t.Fatalf("it said %q", said)
		}
		expectFrame(t, c, ws.OpText, `{"type":"system","event":"connected"`)
		expectFrame(t, c, ws.OpText, `{"type":"pong"}`)

		other, _ := s.dial(t, target, "toy", nil)
		other.write(frame(0x82, []byte("ann."))) // whose name is taken
		expectFrame(t, other, ws.OpBinary, "taken")
		expectFrame(t, other, ws.OpClose, "\x03\xe8")

		if err := e.Hub("h").CloseConn(t.Context(), "ann", ""); err != nil {
			t.Fatal(err)
		}
		expectFrame(t, c, ws.OpText, `{"type":"system","event":"disconnected"`)
		expectFrame(t, c, ws.OpBinary, "goodbye ClosedByAppServer")
		expectFrame(t, c, ws.OpClose, "\x03\xe8see above")
	}
}

// How a client of a protocol fails to be let in.
func TestProtocolRefused(t *testing.T) {
	p := toy{said: make(chan string, 8)}
	s, _, target := toyDoor(t, p, network{}, websocket.Options{})
	for _, tc := range []struct {
		name string
		send []byte
		want []string // frames: the op, and the payload in hex or text
		said string
	}{
		{"refused", frame(0x82, []byte("eve.")), []string{"2no", "8\x03\xf0not you"}, "eve."},
		{"text", frame(0x81, []byte("ann.")), []string{"8\x03\xebThe subprotocol requires binary messages."}, "nothing"},
		{"a frame that is none", []byte{0x83, 0x80, 0, 0, 0, 0}, []string{"8\x03\xeaThe client frame is invalid."}, "nothing"},
		{"a goodbye", closeFrame(1000), []string{"8\x03\xe8"}, "nothing"},
		{"a goodbye that is none", frame(0x88, []byte{1}), []string{"8\x03\xea"}, "nothing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := s.dial(t, target, "toy", nil)
			c.write(tc.send)
			for _, want := range tc.want {
				expectFrame(t, c, ws.OpCode(want[0]-'0'), want[1:])
			}
			c.Drop()
			if said := <-p.said; said != tc.said {
				t.Errorf("it said %q", said)
			}
		})
	}
	for _, tc := range []struct{ target, protocols, want string }{
		{target, "", "400 Clients of /clients/toy/hubs/h must offer the subprotocol toy"},
		{target, "json.webpubsub.azure.v1", "400 Clients of"},
		{"/clients/toy/hubs/h", "toy", "401 "},
		{"/clients/toy/hubs/", "toy", "400 "},
		{"/clients/toy/hubs/a/b", "toy", "404 "},
	} {
		if c, res := s.dial(t, tc.target, tc.protocols, nil); c != nil || !strings.HasPrefix(res, tc.want) {
			t.Errorf("%s offering %q: %s, want %s", tc.target, tc.protocols, res, tc.want)
		}
	}
}

// Clients that do not say who they are are bounded, in number and in time.
func TestProtocolIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := toy{said: make(chan string, 8)}
		s, e, target := toyDoor(t, p, network{pipe: true}, websocket.Options{UnauthenticatedConnections: 1, HandshakeTimeout: 3 * time.Second})
		first, _ := s.dial(t, target, "toy", nil)
		synctest.Wait()
		second, res := s.dial(t, target, "toy", nil)
		if second == nil {
			t.Fatalf("a second one is refused: %s", res)
		}
		began := time.Now()
		op, reason, err := first.readFrame()
		if err != nil || op != ws.OpClose || !strings.HasSuffix(string(reason), "[limits.unauthenticatedConnections]") || time.Since(began) > 0 {
			t.Errorf("the first one got %d %q, %v after %s", op, reason, err, time.Since(began))
		}
		if _, p, err := second.readFrame(); err == nil {
			t.Errorf("the second one got %s", hex.EncodeToString(p))
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it was cut after %s", took)
		}
		synctest.Wait()
		third, res := s.dial(t, target, "toy", nil)
		if third == nil {
			t.Fatalf("a third one: %s", res)
		}
		third.write(frame(0x82, []byte("ann.")))
		synctest.Wait()
		if c, res := s.dial(t, target, "toy", nil); c == nil { // the third one has begun, and stays
			t.Errorf("a fourth one: %s", res)
		}
		if op, _, err := third.readFrame(); err != nil || op == ws.OpClose {
			t.Errorf("the third one got %d, %v", op, err)
		}
		e.Close()
		time.Sleep(4 * time.Second) // the fourth one's time
	})
}

// A client that its protocol leaves lying is cut.
func TestProtocolNeglects(t *testing.T) {
	p := toy{said: make(chan string, 1), neglect: true}
	s, _, target := toyDoor(t, p, network{}, websocket.Options{})
	c, _ := s.dial(t, target, "toy", nil)
	c.write(frame(0x82, []byte("ann.")))
	if _, p, err := c.readFrame(); err == nil {
		t.Errorf("it got %q", p)
	}
}
