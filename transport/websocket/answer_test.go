package websocket_test

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// TestAnswerSpelling is the answer 101 by the letter: there are clients that compare
// names of headers so, and clients that refuse parameters which they did not offer.
func TestAnswerSpelling(t *testing.T) {
	for name, n := range map[string]network{"descriptor": {}, "own": {own: true}, "portable": {portable: true}, "TLS": {tls: true}} {
		t.Run(name, func(t *testing.T) {
			e, guests := echoEngine(t, engine.Options{}), &transporttest.Guests{}
			s := serve(t, e, guests, n, websocket.Options{Compression: true})
			for _, c := range []struct{ name, header, want string }{
				{"nothing offered", "", ""},
				{
					"what Netty offers",
					"Sec-WebSocket-Protocol: json.webpubsub.azure.v1\r\nSec-WebSocket-Extensions: permessage-deflate;client_max_window_bits\r\n",
					"Sec-WebSocket-Protocol: json.webpubsub.azure.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
				},
				{
					"what Gorilla's client offers",
					"sec-websocket-extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n",
					"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n",
				},
			} {
				t.Run(c.name, func(t *testing.T) {
					conn, err := s.connect()
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					conn.SetDeadline(time.Now().Add(patience))
					io.WriteString(conn, "GET /client/hubs/h?access_token="+guests.Invite(engine.Identity{})+" HTTP/1.1\r\nHost: example.test\r\n"+
						"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"+c.header+"\r\n")
					var got strings.Builder
					for r := bufio.NewReader(conn); !strings.HasSuffix(got.String(), "\r\n\r\n"); {
						line, err := r.ReadString('\n')
						if err != nil {
							t.Fatal(err)
						}
						got.WriteString(line)
					}
					want := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
						"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" + c.want + "\r\n"
					if got.String() != want {
						t.Errorf("%q\nwant %q", got.String(), want)
					}
				})
			}
		})
	}
}
