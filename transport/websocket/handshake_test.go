package websocket_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// gate is a door whose connect handler and authenticator remember what they saw.
type gate struct {
	*server
	mu       sync.Mutex
	shown    []engine.Credentials
	asked    []*engine.ConnectEvent
	ended    []string
	over     chan string // reasons of disconnected events
	opened   int
	log      bytes.Buffer
	refusals []string // rules
	reply    func(*engine.ConnectEvent) (*engine.ConnectReply, error)
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(p)
}

func newGate(t testing.TB, o websocket.Options) *gate {
	g := &gate{over: make(chan string, 16), reply: func(*engine.ConnectEvent) (*engine.ConnectReply, error) { return nil, nil }}
	hub := &engine.HubOptions{Handlers: []engine.HandlerRule{{
		SystemEvents: []string{"connect", "connected", "disconnected"},
		Handler: &engine.HandlerFuncs{
			OnConnect: func(_ context.Context, e *engine.ConnectEvent) (*engine.ConnectReply, error) {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.asked = append(g.asked, e)
				return g.reply(e)
			},
			OnConnected: func(context.Context, *engine.ConnectedEvent) {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.opened++
			},
			OnDisconnected: func(_ context.Context, e *engine.DisconnectedEvent) {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.ended = append(g.ended, e.Reason)
				g.over <- e.Reason
			},
		},
	}}}
	e := echoEngine(t, engine.Options{
		Hubs:   func(engine.HubName) *engine.HubOptions { return hub },
		Limits: engine.Limits{CloseTimeout: time.Second},
	})
	auth := transport.AuthenticatorFunc(func(ctx context.Context, c engine.Credentials) (engine.Identity, error) {
		g.mu.Lock()
		g.shown = append(g.shown, c)
		g.mu.Unlock()
		switch c.Token {
		case "good":
			return engine.Identity{UserID: "ann", Claims: map[string][]string{"sub": {"ann"}}}, nil
		case "badgroup":
			return engine.Identity{}, engine.Errorf(engine.CodeInvalid, "token.group", "The claim webpubsub.group is blank.")
		case "slow":
			<-ctx.Done()
			return engine.Identity{}, ctx.Err()
		case "broken":
			return engine.Identity{}, errors.New("the secret store is on fire")
		}
		return engine.Identity{}, &engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "token.missing",
			Message: "No token: expected one in access_token or the Authorization header.", Detail: "for the log",
		}
	})
	o.Logger = slog.New(slog.NewTextHandler(g, nil))
	o.Observer.Refused = func(_ engine.HubName, _ int, rule string) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.refusals = append(g.refusals, rule)
	}
	g.server = serve(t, e, auth, network{}, o)
	return g
}

const (
	azureJSON    = "json.webpubsub.azure.v1"
	reliableJSON = "json.reliable.webpubsub.azure.v1"
)

// TestHandshake goes through the checks of a client that knocks, in their order.
func TestHandshake(t *testing.T) {
	type want struct {
		status   string // of a refusal, with a part of the body behind it
		rule     string // of a refusal
		protocol string // of a connection
		asked    bool   // the connect handler was
	}
	cases := []struct {
		name, target, protocols string
		header                  http.Header
		reply                   func(*engine.ConnectEvent) (*engine.ConnectReply, error)
		want                    want
	}{
		{name: "a raw client", target: "/client/hubs/chat?access_token=good", want: want{asked: true}},
		{name: "the older form", target: "/client/?hub=chat&access_token=good", want: want{asked: true}},
		{name: "the older form without a slash", target: "/client?access_token=good&hub=chat", want: want{asked: true}},
		{name: "a hub in capitals", target: "/client/hubs/CHAT?access_token=good", want: want{asked: true}},
		{name: "an escaped hub", target: "/client/hubs/c%68at?access_token=good", want: want{asked: true}},
		{name: "a token in the header", target: "/client/hubs/chat", header: http.Header{"Authorization": {"bearer good"}}, want: want{asked: true}},
		{name: "the token of the query counts first", target: "/client/hubs/chat?ACCESS_token=good", header: http.Header{"Authorization": {"Bearer bad"}}, want: want{asked: true}},
		{name: "and is no better for it", target: "/client/hubs/chat?access_token=bad", header: http.Header{"Authorization": {"Bearer good"}},
			want: want{status: "401 No token", rule: "token.missing"}},

		{name: "an empty hub", target: "/client/hubs/?access_token=good", want: want{status: "400 hub", rule: "name.hub"}},
		{name: "no hub in the older form", target: "/client/?access_token=good", want: want{status: "400 hub", rule: "name.hub"}},
		{name: "a hub that cannot be", target: "/client/hubs/1chat?access_token=good", want: want{status: "400 hub", rule: "name.hub"}},
		{name: "an escaped slash is part of the name", target: "/client/hubs/a%2Fb?access_token=good", want: want{status: "400 hub", rule: "name.hub"}},
		{name: "dots are a name", target: "/client/hubs/..?access_token=good", want: want{status: "400 hub", rule: "name.hub"}},
		{name: "the hub is checked before the token", target: "/client/hubs/-", want: want{status: "400", rule: "name.hub"}},
		{name: "no token", target: "/client/hubs/chat", want: want{status: "401 No token: expected one in access_token or the Authorization header. [token.missing]", rule: "token.missing"}},
		{name: "a reconnection token alone is an ordinary connection", target: "/client/hubs/chat?awps_reconnection_token=x", want: want{status: "401", rule: "token.missing"}},
		{name: "an invalid claim", target: "/client/hubs/chat?access_token=badgroup", want: want{status: "400 The claim", rule: "token.group"}},
		{name: "an authenticator that fails", target: "/client/hubs/chat?access_token=broken", want: want{status: "500 Internal Server Error"}},
		{name: "an authenticator that does not answer", target: "/client/hubs/chat?access_token=slow", want: want{status: "504", rule: "limits.handshakeTimeout"}},
		{name: "a raw mode that is none, whatever is offered", target: "/client/hubs/chat?access_token=good&webpubsub_mode=fly", protocols: azureJSON,
			want: want{status: "400 The query parameter webpubsub_mode", rule: "raw.webpubsub_mode"}},
		{name: "a raw mode without its group", target: "/client/hubs/chat?access_token=good&webpubsub_mode=sendToGroup", want: want{status: "400", rule: "raw.group"}},
		{name: "noEcho that is no boolean", target: "/client/hubs/chat?access_token=good&webpubsub_mode=sendToGroup&group=g&noEcho=1", want: want{status: "400", rule: "raw.noEcho"}},
		{name: "raw parameters come after the token", target: "/client/hubs/chat?webpubsub_mode=fly", want: want{status: "401", rule: "token.missing"}},
		{name: "an empty raw mode", target: "/client/hubs/chat?access_token=good&webpubsub_mode=", want: want{asked: true}},

		{name: "the JSON subprotocol", target: "/client/hubs/chat?access_token=good", protocols: azureJSON, want: want{asked: true, protocol: azureJSON}},
		{name: "in the client's spelling", target: "/client/hubs/chat?access_token=good", protocols: "JSON.WebPubSub.Azure.V1", want: want{asked: true, protocol: "JSON.WebPubSub.Azure.V1"}},
		{name: "the first that is known", target: "/client/hubs/chat?access_token=good", protocols: "foo.v1, " + reliableJSON + ", " + azureJSON, want: want{asked: true, protocol: reliableJSON}},
		{name: "a protobuf one", target: "/client/hubs/chat?access_token=good", protocols: "protobuf.webpubsub.azure.v1, " + azureJSON, want: want{asked: true, protocol: "protobuf.webpubsub.azure.v1"}},
		{name: "an unknown one", target: "/client/hubs/chat?access_token=good", protocols: "foo.v1", want: want{asked: true}},
		{name: "an offer that is no list", target: "/client/hubs/chat?access_token=good", protocols: "a b/c", want: want{status: "400", rule: "websocket.subprotocol"}},
		{name: "the handler chooses a custom one", target: "/client/hubs/chat?access_token=good", protocols: azureJSON + ", Foo.v1",
			reply: choosing("foo.V1"), want: want{asked: true, protocol: "Foo.v1"}},
		{name: "the handler chooses what was not offered", target: "/client/hubs/chat?access_token=good", protocols: azureJSON,
			reply: choosing("bar.v1"), want: want{asked: true, status: "500 The event handler chose", rule: "connect.subprotocol"}},
		{name: "the handler chooses one of Azure's", target: "/client/hubs/chat?access_token=good", protocols: reliableJSON + ", " + azureJSON,
			reply: choosing(azureJSON), want: want{asked: true, protocol: azureJSON}},
		{name: "the handler chooses one of Azure's that was not offered", target: "/client/hubs/chat?access_token=good", protocols: azureJSON,
			reply: choosing(reliableJSON), want: want{asked: true, status: "500 The event handler chose", rule: "connect.subprotocol"}},
		{name: "the handler refuses", target: "/client/hubs/chat?access_token=good", reply: refusing(401), want: want{asked: true, status: "401 "}},
		{name: "the handler has enough", target: "/client/hubs/chat?access_token=good", reply: refusing(429), want: want{asked: true, status: "429 "}},
		{name: "the handler redirects", target: "/client/hubs/chat?access_token=good", reply: refusing(302), want: want{asked: true, status: "302 "}},
		{name: "the handler fails", target: "/client/hubs/chat?access_token=good",
			reply: func(*engine.ConnectEvent) (*engine.ConnectReply, error) { return nil, errors.New("boom") }, want: want{asked: true, status: "500"}},

		{name: "MQTT", target: "/clients/mqtt/hubs/chat?access_token=good", protocols: "mqtt", want: want{status: "404 This build does not serve MQTT clients", rule: "client.kind"}},
		{name: "Socket.IO", target: "/clients/socketio/hubs/chat/?EIO=4", want: want{status: "404 This build does not serve Socket.IO clients", rule: "client.kind"}},
		{name: "another path", target: "/elsewhere", want: want{status: "418 the fallback: /elsewhere"}},
		{name: "a path below", target: "/client/hubs/chat/more", want: want{status: "418 the fallback"}},
		{name: "two slashes are a name", target: "//client/hubs/chat?access_token=good", want: want{status: "418 the fallback"}},
		{name: "dots are not walked", target: "/x/../client/hubs/chat?access_token=good", want: want{status: "418 the fallback"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			limit := patience
			if c.want.rule == "limits.handshakeTimeout" {
				limit = 50 * time.Millisecond
			}
			g := newGate(t, websocket.Options{
				HandshakeTimeout: limit,
				Fallback: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.WriteHeader(http.StatusTeapot)
					io.WriteString(w, "the fallback: "+r.URL.Path)
				}),
			})
			if c.reply != nil {
				g.reply = c.reply
			}
			cl, res := g.dial(t, c.target, c.protocols, c.header)
			if cl != nil {
				res = ""
				if cl.protocol != c.want.protocol {
					t.Errorf("the subprotocol is %q, expected %q", cl.protocol, c.want.protocol)
				}
			}
			if !strings.HasPrefix(res, c.want.status) || (res == "") != (c.want.status == "") {
				t.Errorf("the answer is %q, expected %q", res, c.want.status)
			}
			if body, _ := strings.CutSuffix(res, "\n"); strings.Contains(body, "\n") {
				t.Errorf("the body has more than one line: %q", res)
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if (len(g.asked) > 0) != c.want.asked {
				t.Errorf("the connect handler was asked %d times", len(g.asked))
			}
			refused := c.want.status != "" && !strings.HasPrefix(c.want.status, "418")
			if lines := strings.Count(g.log.String(), "refused a client"); refused != (lines == 1) {
				t.Errorf("the log has %d lines about it: %s", lines, g.log.String())
			}
			if refused && (len(g.refusals) != 1 || c.want.rule != "" && g.refusals[0] != c.want.rule) {
				t.Errorf("the observer was told of the rules %q, expected %q", g.refusals, c.want.rule)
			}
			if refused && (g.opened > 0) {
				t.Error("a refused connection was opened")
			}
			if strings.Contains(g.log.String(), "good") || strings.Contains(res, "on fire") {
				t.Errorf("a secret got out: %s; %s", res, g.log.String())
			}
		})
	}
}

func choosing(name string) func(*engine.ConnectEvent) (*engine.ConnectReply, error) {
	return func(*engine.ConnectEvent) (*engine.ConnectReply, error) {
		return &engine.ConnectReply{Subprotocol: name}, nil
	}
}

func refusing(status int) func(*engine.ConnectEvent) (*engine.ConnectReply, error) {
	return func(*engine.ConnectEvent) (*engine.ConnectReply, error) {
		return nil, &engine.Error{Code: engine.CodeForbidden, Status: status, Message: "The handler's own words."}
	}
}

// TestNoHandshake are requests that are no WebSocket handshake.
func TestNoHandshake(t *testing.T) {
	e := echoEngine(t, engine.Options{})
	h := websocket.NewHandler(e, &transporttest.Guests{}, nil)
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"a browser's look":                   {func(r *http.Request) { r.Header = http.Header{} }, 400},
		"a POST":                             {func(r *http.Request) { r.Method = http.MethodPost }, 400},
		"HTTP/1.0":                           {func(r *http.Request) { r.Proto, r.ProtoMinor = "HTTP/1.0", 0 }, 400},
		"HTTP/2":                             {func(r *http.Request) { r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/2.0", 2, 0 }, 400},
		"another upgrade":                    {func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, 400},
		"no upgrade":                         {func(r *http.Request) { r.Header.Set("Connection", "keep-alive") }, 400},
		"an upgrade whose name begins alike": {func(r *http.Request) { r.Header.Set("Upgrade", "websockets, h2c") }, 400},
		"no key":                             {func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") }, 400},
		"two keys":                           {func(r *http.Request) { r.Header.Add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") }, 400},
		"a key that is no base64":            {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j!Q==") }, 400},
		"a key of 15 bytes":                  {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j") }, 400},
		"a key of 17 bytes":                  {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWQ=") }, 400},
		"a key of 18 bytes":                  {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWRk") }, 400},
		"two versions":                       {func(r *http.Request) { r.Header.Add("Sec-WebSocket-Version", "13") }, 400},
		"two versions, the second one early": {func(r *http.Request) { r.Header.Add("Sec-WebSocket-Version", "8") }, 400},
		"two versions in a line":             {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "13, 8") }, 426},
		"a body":                             {func(r *http.Request) { r.ContentLength = 1 }, 400},
		"a body of unknown length":           {func(r *http.Request) { r.ContentLength = -1 }, 400},
		"a CONNECT over HTTP/2":              {func(r *http.Request) { r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor = "CONNECT", "HTTP/2.0", 2, 0 }, 400},
		"a CONNECT of another protocol": {func(r *http.Request) {
			r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor, r.Header[":protocol"] = "CONNECT", "HTTP/2.0", 2, 0, []string{"connect-udp"}
		}, 501},
		"a CONNECT without a version": {func(r *http.Request) {
			r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor, r.Header = "CONNECT", "HTTP/2.0", 2, 0, http.Header{":protocol": {"websocket"}}
		}, 400},
		"a CONNECT with an early version": {func(r *http.Request) {
			r.Method, r.Proto, r.ProtoMajor, r.ProtoMinor, r.Header = "CONNECT", "HTTP/2.0", 2, 0, http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"8"}}
		}, 400},
		"a subprotocol with a blank":    {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "foo bar") }, 400},
		"a subprotocol in quotes":       {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", `"foo"`) }, 400},
		"subprotocols with a semicolon": {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "foo; bar") }, 400},
		"no version":                    {func(r *http.Request) { r.Header.Del("Sec-WebSocket-Version") }, 400},
		"an early version":              {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, 426},
		"nothing but a path":            {func(r *http.Request) { r.URL.Path = "/client/hubs/"; r.Header = http.Header{} }, 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/client/hubs/chat", nil)
			for k, v := range map[string]string{
				"Upgrade": "websocket", "Connection": "keep-alive, Upgrade",
				"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13",
			} {
				r.Header.Set(k, v)
			}
			c.change(r)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status || !strings.Contains(w.Body.String(), "expected") {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if version := w.Header()["Sec-WebSocket-Version"]; strings.Contains(w.Body.String(), "[websocket.version]") && !slices.Equal(version, []string{"13"}) {
				t.Fatal("the answer does not say which version it wants")
			}
			if c.status == 426 && w.Header().Get("Upgrade") != "websocket" {
				t.Fatal("the answer does not say what to upgrade to (RFC 9110 section 15.5.22)")
			}
		})
	}
}

// TestHandshakeLists are requests whose headers are lists of more than one form (RFC
// 9110 section 5.6.1), as proxies and some clients write them.
func TestHandshakeLists(t *testing.T) {
	g := newGate(t, websocket.Options{})
	const key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
	const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n" + key
	for header, want := range map[string]string{
		upgrade: "",
		"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" + key:                         "",
		"Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: websocket\r\n" + key:           "",
		"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n" + key:                                "",
		"Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n" + key:                     "",
		"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n" + key:                     "",
		"Connection: Upgrade\r\nUpgrade:h2c ,\twebsocket\t\r\n" + key:                             "",
		upgrade + "Content-Length: 0\r\n":                                                         "",
		upgrade + "Sec-WebSocket-Protocol:\r\n":                                                   "",
		upgrade + "Sec-WebSocket-Protocol: ,\r\n":                                                 "",
		upgrade + "Sec-WebSocket-Protocol: , ,\t,\r\n":                                            "",
		upgrade + "Sec-WebSocket-Protocol: foo,,\r\n":                                             "",
		upgrade + "Sec-WebSocket-Protocol: ,foo, " + azureJSON + ",\r\n":                          azureJSON,
		upgrade + "Sec-WebSocket-Protocol:\r\nSec-WebSocket-Protocol: " + azureJSON + "\r\n":      azureJSON,
		upgrade + "Sec-WebSocket-Protocol: foo\r\nSec-WebSocket-Protocol:" + azureJSON + "\t\r\n": azureJSON,
	} {
		c, err := g.connect()
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "GET /client/hubs/chat?access_token=good HTTP/1.1\r\nHost: a\r\n"+header+"\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, protocol := res.Header["Sec-Websocket-Protocol"]
		if res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || res.Header.Get("Sec-Websocket-Protocol") != want || protocol != (want != "") {
			t.Errorf("%q is answered with %s and %v; want 101 and the subprotocol %q", header, res.Status, res.Header, want)
		}
		c.Close()
	}
}

// The body of a request that has one is not taken for frames.
func TestHandshakeWithABody(t *testing.T) {
	for _, network := range []network{{}, {own: true}, {portable: true}, {tls: true}, {tls: true, own: true}} {
		e := echoEngine(t, engine.Options{})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, network, websocket.Options{})
		token := guests.Invite(engine.Identity{Roles: []string{"webpubsub.joinLeaveGroup"}})
		join := string(frame(0x81, []byte(`{"type":"joinGroup","group":"g"}`)))
		for _, body := range []string{
			fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(join), join),
			fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(join), join),
			"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		} {
			c, err := s.connect()
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(c, "GET /client/hubs/chat?access_token="+token+" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: "+azureJSON+"\r\n"+body); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(c)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != 400 || !strings.Contains(string(said), "[websocket.body]") || !res.Close {
				t.Errorf("%q is answered with %s %s, %v", body, res.Status, said, err)
			}
			if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
				t.Errorf("%q: then came %q, %v; want the end", body, b, err)
			}
			c.Close()
		}
		if n := e.Stats().Connections; n != 0 {
			t.Errorf("%d connections", n)
		}
	}
}

// TestNoRecovery is the answer to those who want a connection back that is not
// there: 101, so that they can be told to give up (an HTTP status would make them
// try again).
func TestNoRecovery(t *testing.T) {
	g := newGate(t, websocket.Options{})
	for _, c := range []struct{ target, protocols, want string }{
		{"/client/hubs/chat?awps_connection_id=x&awps_reconnection_token=y", azureJSON, azureJSON},
		{"/client/hubs/chat?awps_connection_id=x", "foo, " + reliableJSON, reliableJSON},
		{"/client/hubs/chat?AWPS_connection_id=x&access_token=expired", "", ""},
	} {
		cl, res := g.dial(t, c.target, c.protocols, nil)
		if cl == nil {
			t.Fatalf("%s: %s", c.target, res)
		}
		if cl.protocol != c.want {
			t.Errorf("%s: the subprotocol is %q", c.target, cl.protocol)
		}
		_, _, err := cl.Receive()
		var closed *transporttest.Closed
		if !errors.As(err, &closed) || closed.Code != 1008 || closed.Text != "The connection could not be recovered." {
			t.Errorf("%s: %v", c.target, err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.shown)+len(g.asked)+g.opened+len(g.ended) > 0 {
		t.Error("a recovery looked like a new connection")
	}
	if strings.Join(g.refusals, " ") != "recovery.connection recovery.connection recovery.connection" {
		t.Errorf("the observer was told of the rules %q", g.refusals)
	}
}

// TestCredentials is what the authenticator and the connect handler get to see.
func TestCredentials(t *testing.T) {
	look := func(t *testing.T, g *gate, target string, header http.Header) engine.Credentials {
		t.Helper()
		if c, res := g.dial(t, target, "", header); c == nil {
			t.Fatal(res)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.shown[len(g.shown)-1]
	}
	forwarded := http.Header{
		"X-Forwarded-Proto": {"https"}, "X-Forwarded-Host": {"rt.example.com"}, "X-Forwarded-For": {"10.9.8.7, 203.0.113.9"},
	}
	t.Run("as addressed", func(t *testing.T) {
		c := look(t, newGate(t, websocket.Options{}), "/client/hubs/CH%41T?access_token=good", forwarded)
		if c.Hub != "chat" || c.Audience != "http://example.test/client/hubs/CH%41T" || !c.RemoteAddr.Addr().IsLoopback() {
			t.Fatalf("%+v", c)
		}
	})
	t.Run("in the older form", func(t *testing.T) {
		c := look(t, newGate(t, websocket.Options{}), "/client/?hub=Chat&access_token=good", nil)
		if c.Audience != "http://example.test/client/hubs/Chat" {
			t.Fatalf("%+v", c)
		}
	})
	t.Run("through a trusted proxy", func(t *testing.T) {
		g := newGate(t, websocket.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
		c := look(t, g, "/client/hubs/chat?access_token=good", forwarded)
		if c.Audience != "https://rt.example.com/client/hubs/chat" || c.RemoteAddr.Addr() != netip.MustParseAddr("203.0.113.9") {
			t.Fatalf("%+v", c)
		}
	})
	t.Run("with a public name", func(t *testing.T) {
		g := newGate(t, websocket.Options{PublicEndpoint: "https://rt.example.com/"})
		if c := look(t, g, "/client/hubs/chat?access_token=good", nil); c.Audience != "https://rt.example.com/client/hubs/chat" {
			t.Fatalf("%+v", c)
		}
	})
	t.Run("the connect event", func(t *testing.T) {
		g := newGate(t, websocket.Options{})
		if c, res := g.dial(t, "/client/hubs/chat?Access_Token=good&tag=a&tag=b", "foo, bar", http.Header{
			"Authorization": {"Bearer secret"}, "X-Asrs-Internal-Thing": {"x"}, "X-Custom": {"v"}, "Cookie": {"k=v"},
		}); c == nil {
			t.Fatal(res)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		e := g.asked[0]
		if len(e.Query) != 1 || strings.Join(e.Query["tag"], " ") != "a b" {
			t.Errorf("query: %v", e.Query)
		}
		if e.Header["Authorization"] != nil || e.Header["X-Asrs-Internal-Thing"] != nil || e.Header["X-Custom"][0] != "v" ||
			e.Header["Cookie"][0] != "k=v" || e.Header["Host"][0] != "example.test" {
			t.Errorf("header: %v", e.Header)
		}
		if strings.Join(e.Subprotocols, " ") != "foo bar" || e.UserID != "ann" || e.Claims["sub"][0] != "ann" {
			t.Errorf("%+v", e)
		}
	})
}

// TestUnauthenticatedLimit fills the room for clients that are being looked at.
func TestUnauthenticatedLimit(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	auth := transport.AuthenticatorFunc(func(context.Context, engine.Credentials) (engine.Identity, error) {
		inside <- struct{}{}
		<-leave
		return engine.Identity{}, nil
	})
	s := serve(t, echoEngine(t, engine.Options{}), auth, network{}, websocket.Options{UnauthenticatedConnections: 1})
	first := make(chan *conn)
	go func() {
		c, _ := s.dial(t, "/client/hubs/chat", "", nil)
		first <- c
	}()
	<-inside
	if c, res := s.dial(t, "/client/hubs/chat", "", nil); c != nil || !strings.HasPrefix(res, "503 ") {
		t.Fatalf("the second client: %s", res)
	}
	close(leave)
	if <-first == nil {
		t.Fatal("the first client was refused")
	}
}

// TestDisconnectedAlone is a client that connect let in and the upgrade did not.
func TestDisconnectedAlone(t *testing.T) {
	g := newGate(t, websocket.Options{})
	g.reply = choosing("bar")
	if c, _ := g.dial(t, "/client/hubs/chat?access_token=good", "foo", nil); c != nil {
		t.Fatal("let in")
	}
	select {
	case <-g.over:
	case <-time.After(patience):
		t.Fatal("no disconnected event")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened > 0 || len(g.ended) != 1 {
		t.Fatalf("connected %d times, disconnected %d times", g.opened, len(g.ended))
	}
}
