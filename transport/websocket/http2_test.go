package websocket_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// withExtendedConnect runs f where net/http takes an extended CONNECT, which it
// decides when the process starts: in this process, or else in another one that runs
// the same test.
func withExtendedConnect(t *testing.T, f func(t *testing.T)) {
	const setting = "http2xconnect=1"
	if strings.Contains(os.Getenv("GODEBUG"), setting) {
		f(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), "GODEBUG="+strings.Trim(os.Getenv("GODEBUG")+","+setting, ","))
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestScriptOverHTTP2 plays the conversations that every transport must hold over
// streams of HTTP/2.
func TestScriptOverHTTP2(t *testing.T) {
	withExtendedConnect(t, func(t *testing.T) {
		t.Run("pipes", func(t *testing.T) {
			transporttest.Run(t, door(network{http2: true, pipe: true}), synctest.Test)
		})
		t.Run("TLS, compressed", func(t *testing.T) {
			transporttest.Run(t, door(network{http2: true, tls: true, compressed: true}), leakless)
		})
	})
}

// streams is a server and one HTTP/2 connection to it, on which there are clients.
type streams struct {
	*h2client
	engine  *engine.Engine
	guests  *transporttest.Guests
	handled atomic.Int32 // requests whose handler has not returned
}

func newStreams(t *testing.T, o engine.Options, change func(*http.Server)) *streams {
	t.Helper()
	s := &streams{engine: echoEngine(t, o), guests: &transporttest.Guests{}}
	h := websocket.NewHandler(s.engine, s.guests, nil)
	l := transporttest.Listen()
	srv := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handled.Add(1)
		defer s.handled.Add(-1)
		h.ServeHTTP(w, r)
	})}
	srv.Protocols.SetUnencryptedHTTP2(true)
	if change != nil {
		change(srv)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	c, err := l.Dial()
	if err != nil {
		t.Fatal(err)
	}
	if s.h2client, err = h2dial(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.engine.Close()
		c.Close()
		srv.Close()
		<-done
	})
	return s
}

// client lets a client in that is in the group g.
func (s *streams) client(t *testing.T, protocol string) *conn {
	t.Helper()
	token := s.guests.Invite(engine.Identity{Roles: []string{"webpubsub.sendToGroup"}, Groups: []engine.GroupName{"g"}})
	c, res := s.conn(t, "/client/hubs/chat?access_token="+token, protocol, nil)
	if c == nil {
		t.Fatal(res)
	}
	return c
}

// A stream is not a request: the times that a server gives to requests do not count
// for it.
func TestStreamOutlivesTheTimesOfRequests(t *testing.T) {
	withExtendedConnect(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStreams(t, engine.Options{Hubs: func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{KeepAlive: time.Hour} }}, func(srv *http.Server) {
				srv.ReadTimeout, srv.WriteTimeout, srv.IdleTimeout = time.Second, 2*time.Second, 3*time.Second
			})
			c := s.client(t, azureJSON)
			c.hello()
			for range 3 {
				time.Sleep(10 * time.Minute) // longer than any write may take, too
				c.alive()
			}
			if n := s.handled.Load(); n != 1 {
				t.Errorf("%d handlers are there", n)
			}
		})
	})
}

// The end of a stream is the end of its connection, and the others on the same
// HTTP/2 connection go on.
func TestStreamsEndAlone(t *testing.T) {
	withExtendedConnect(t, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ended := make(chan engine.EndReason, 10)
			s := newStreams(t, engine.Options{
				Hubs:     func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{KeepAlive: time.Hour} },
				Observer: engine.Observer{ConnEnded: func(_ engine.HubName, _ engine.CloseCode, why engine.EndReason) { ended <- why }},
			}, nil)
			stays := s.client(t, azureJSON)
			stays.hello()
			over := func(what string) {
				t.Helper()
				<-ended
				synctest.Wait()
				stays.alive()
				if n := s.handled.Load(); n != 1 {
					t.Errorf("%s: %d handlers are there", what, n)
				}
			}

			c := s.client(t, azureJSON)
			c.hello()
			c.Conn.(*h2stream).cancel()
			over("a stream that its client cut")

			c = s.client(t, azureJSON)
			c.hello()
			c.Conn.(*h2stream).end()
			over("a stream whose client has no more to say")
			if _, err := io.ReadAll(c.r); err != nil {
				t.Errorf("its server ends it with %v", err)
			}

			c = s.client(t, azureJSON)
			c.hello()
			if closed, err := c.Close(engine.CloseNormal, ""); err != nil || closed.Code != engine.CloseNormal {
				t.Errorf("the answer to a close frame is %v, %v", closed, err)
			}
			over("a connection that its client closed")

			c = s.client(t, azureJSON)
			id := c.hello().ConnectionID
			if err := s.engine.Hub("chat").CloseConn(t.Context(), engine.ConnID(id), "enough"); err != nil {
				t.Fatal(err)
			}
			c.next(ws.OpText)
			c.expectClose(engine.CloseNormal)
			c.write(frame(0x88, []byte{3, 232}))
			c.awaitEnd()
			over("a connection that its server closed")

			// The client takes nothing: the stream is cut after a while.
			c = s.client(t, azureJSON)
			id = c.hello().ConnectionID
			page := engine.Payload{Type: engine.Text, Data: []byte(strings.Repeat("x", 1<<20))}
			if err := s.engine.Hub("chat").SendToConn(t.Context(), engine.ConnID(id), page, nil); err != nil {
				t.Fatal(err)
			}
			over("a stream whose client reads nothing")
			if _, err := io.ReadAll(c.r); err == nil {
				t.Error("the stream ended as if all had been sent")
			}

			// A recovery that is refused leaves no handler either.
			gone, _ := s.conn(t, "/client/hubs/chat?awps_connection_id=x&awps_reconnection_token=y", reliableJSON, nil)
			gone.notRecovered()
			synctest.Wait()
			if n := s.handled.Load(); n != 1 {
				t.Errorf("after a recovery that failed there are %d handlers", n)
			}
		})
	})
}

// A handshake over HTTP/2 is held to the same rules, and the connect handler sees
// the same of it.
func TestExtendedConnect(t *testing.T) {
	withExtendedConnect(t, func(t *testing.T) {
		g := newGate(t, websocket.Options{AllowedOrigins: func(websocket.OriginRequest) *websocket.Origins {
			return &websocket.Origins{Own: true}
		}})
		l := transporttest.Listen()
		srv := &http.Server{Handler: g.handler, Protocols: new(http.Protocols)}
		srv.Protocols.SetUnencryptedHTTP2(true)
		go srv.Serve(l) // ends with srv
		t.Cleanup(func() { srv.Close() })
		c, err := l.Dial()
		if err != nil {
			t.Fatal(err)
		}
		h, err := h2dial(c)
		if err != nil {
			t.Fatal(err)
		}
		const good = "/client/hubs/chat?access_token=good&tag=a"
		for _, test := range []struct {
			name, target string
			more         map[string]string
			want         string
		}{
			{"a GET", good, map[string]string{":method": "GET", ":protocol": ""}, "400 This is no WebSocket handshake: it is a \"GET\" over HTTP/2.0, which has no upgrade; expected a GET over HTTP/1.1 (a client that does TLS offers http/1.1 alone by ALPN), or an extended CONNECT (RFC 8441), which the server takes if its process was started with GODEBUG=http2xconnect=1. [websocket.upgrade]"},
			{"a GET of what the fallback has", "/elsewhere", map[string]string{":method": "GET", ":protocol": ""}, "404"},
			{"another protocol", good, map[string]string{":protocol": "connect-udp"}, "501 The :protocol of the request is \"connect-udp\", expected websocket. [websocket.protocol]"},
			{"an early version", good, map[string]string{"sec-websocket-version": "8"}, "400 The WebSocket version is \"8\", expected 13. [websocket.version]"},
			{"no version", good, map[string]string{"sec-websocket-version": ""}, "400"},
			{"a length", good, map[string]string{"content-length": "5"}, "400 A WebSocket handshake cannot have a Content-Length: the stream's data are the frames. [websocket.body]"},
			{"no token", "/client/hubs/chat", nil, "401 No token: expected one in access_token or the Authorization header. [token.missing]"},
			{"two tokens", good + "&access_token=other", nil, "401"},
			{"a foreign page", good, map[string]string{"origin": "https://eve.example"}, "403"},
			{"a bad subprotocol", good, map[string]string{"sec-websocket-protocol": "a b"}, "400"},
			{"no hub", "/client/hubs/?access_token=good", nil, "400"},
		} {
			s, err := h.websocket(test.target, test.more)
			if err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			s.SetDeadline(time.Now().Add(patience))
			said, err := io.ReadAll(s)
			if got := s.status + " " + strings.TrimSpace(string(said)); err != nil || !strings.HasPrefix(got, test.want) {
				t.Errorf("%s is answered with %s, %v; want %s", test.name, got, err, test.want)
			}
		}
		if len(g.asked) > 0 {
			t.Fatalf("the connect handler was asked %d times", len(g.asked))
		}
		cl, res := h.conn(t, good, "foo, "+azureJSON, http.Header{"Origin": {"http://example.test"}, "X-Custom": {"value"}, "Cookie": {"a=b"}})
		if cl == nil || cl.protocol != azureJSON {
			t.Fatalf("%s", res)
		}
		cl.hello()
		g.mu.Lock()
		defer g.mu.Unlock()
		want := map[string][]string{
			"Host": {"example.test"}, "Origin": {"http://example.test"}, "X-Custom": {"value"}, "Cookie": {"a=b"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {"foo, " + azureJSON},
		}
		if got := g.asked[0]; !reflect.DeepEqual(got.Header, want) || !slices.Equal(got.Subprotocols, []string{"foo", azureJSON}) || !slices.Equal(got.Query["tag"], []string{"a"}) {
			t.Errorf("the connect handler is shown %v, %v, %v; want %v", got.Header, got.Subprotocols, got.Query, want)
		}
	})
}
