package websocket_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// TestAnswerAndHelloAreOneWrite counts the segments that bring the answer 101 and the
// connected message: of a socket without delay, each write makes one.
func TestAnswerAndHelloAreOneWrite(t *testing.T) {
	for name, n := range map[string]network{"descriptor": {}, "own": {own: true}, "portable": {portable: true}} {
		t.Run(name, func(t *testing.T) {
			guests := &transporttest.Guests{}
			s := serve(t, echoEngine(t, engine.Options{}), guests, n, websocket.Options{})
			conn, err := s.connect()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			io.WriteString(conn, "GET /client/hubs/h?access_token="+guests.Invite(engine.Identity{})+" HTTP/1.1\r\nHost: example.test\r\n"+
				"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"+
				"Sec-WebSocket-Protocol: json.webpubsub.azure.v1\r\n\r\n")
			var got []byte
			for b := make([]byte, 4096); !strings.Contains(string(got), `"connected"`); {
				k, err := conn.Read(b)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, b[:k]...)
			}
			if k := segments(t, conn); k != 1 {
				t.Errorf("the answer and the connected message came in %d segments, want 1", k)
			}
		})
	}
}

// segments returns how many segments with data c has received.
func segments(t *testing.T, c net.Conn) uint32 {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return info.Data_segs_in
}
