package websocket_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// TestGoodbyeAndNoMore is a client that closes its half of the wire behind its
// close frame: it still gets what it asked for, and the answer to its goodbye.
func TestGoodbyeAndNoMore(t *testing.T) {
	for _, portable := range []bool{false, true} {
		e := echoEngine(t, engine.Options{})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, network{portable: portable}, websocket.Options{})
		target := "/client/hubs/h?access_token=" + guests.Invite(engine.Identity{})
		bad := 0
		for range 200 {
			c, _ := s.dial(t, target, "json.webpubsub.azure.v1", nil)
			c.readFrame()
			c.write(append(frame(0x81, []byte(`{"type":"ping"}`)), frame(0x88, binary.BigEndian.AppendUint16(nil, 1000))...))
			c.Conn.(*net.TCPConn).CloseWrite()
			if op, _, err := c.readFrame(); err != nil || op != ws.OpText {
				bad++
			} else if op, _, err := c.readFrame(); err != nil || op != ws.OpClose {
				bad++
			}
			c.Drop()
		}
		if bad > 0 {
			t.Errorf("portable %v: %d of 200 got no answer to their goodbye", portable, bad)
		}
	}
}

// TestConnectionInTwoLines is a proxy's handshake.
func TestConnectionInTwoLines(t *testing.T) {
	g := newGate(t, websocket.Options{})
	c, err := g.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, "GET /client/hubs/chat?access_token=good HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
}

// TestRecoveryHoldsNobodyUp is a stranger who wants a connection back and then
// does not say goodbye.
func TestRecoveryHoldsNobodyUp(t *testing.T) {
	g := newGate(t, websocket.Options{UnauthenticatedConnections: 1})
	for i := range 3 {
		if c, res := g.dial(t, "/client/hubs/chat?awps_connection_id=x", "", nil); c == nil {
			t.Fatal(i, res)
		} else if text := c.expectClose(1008); text == "" {
			t.Fatal("no reason")
		}
	}
	if c, res := g.dial(t, "/client/hubs/chat?access_token=good", "", nil); c == nil {
		t.Fatal(res)
	}
}

// TestSlowIsNotSilent is a client that is always behind, and reads.
func TestSlowIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var why []engine.EndReason
		e := echoEngine(t, engine.Options{
			Hubs: func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{KeepAlive: 20 * time.Second} },
			Observer: engine.Observer{ConnEnded: func(_ engine.HubName, _ engine.CloseCode, r engine.EndReason) {
				mu.Lock()
				why = append(why, r)
				mu.Unlock()
			}},
		})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, network{pipe: true}, websocket.Options{})
		c, _ := s.dial(t, "/client/hubs/h?access_token="+guests.Invite(engine.Identity{Groups: []engine.GroupName{"g"}}), "", nil)
		synctest.Wait()
		say := func() {
			e.Hub("h").SendToGroup(t.Context(), "g", engine.Payload{Type: engine.Text, Data: make([]byte, 10<<10)}, nil)
		}
		for range 300 {
			say()
			synctest.Wait()
		}
		for i := range 180 {
			time.Sleep(time.Second)
			say()
			if _, _, err := c.readFrame(); err != nil {
				mu.Lock()
				t.Fatalf("after %d s: %v, %v", i, err, why)
			}
		}
		c.Drop()
		e.Close()
	})
}
