package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/net/http2"
)

// stream is a WebSocket client over a stream of HTTP/2.
type stream struct {
	t *testing.T
	w *io.PipeWriter
	r *bufio.Reader
}

func (s *stream) says(text string) {
	s.t.Helper()
	if err := ws.WriteFrame(s.w, ws.MaskFrame(ws.NewTextFrame([]byte(text)))); err != nil {
		s.t.Fatal(err)
	}
}

// hears returns the next frame that is no ping.
func (s *stream) hears() ws.Frame {
	s.t.Helper()
	for {
		f, err := ws.ReadFrame(s.r)
		if err != nil {
			s.t.Fatal(err)
		}
		if f.Header.OpCode != ws.OpPing {
			return f
		}
	}
}

// http2Client is an HTTP/2 connection to a node.
type http2Client struct {
	tr      *http2.Transport //nolint:staticcheck // http.Transport, which is to replace it, sends no :protocol
	t       *testing.T
	address string
}

func newHTTP2(t *testing.T, address string) *http2Client {
	tr := &http2.Transport{TLSClientConfig: (*person)(nil).shows()} //nolint:staticcheck // see http2Client
	t.Cleanup(tr.CloseIdleConnections)                              //nolint:staticcheck // see http2Client
	return &http2Client{tr, t, address}
}

// websocket opens a WebSocket. Where it is refused it returns the status and the text.
func (c *http2Client) websocket(target, protocol string) (_ *stream, status int, said string) {
	c.t.Helper()
	body, w := io.Pipe()
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodConnect, "https://"+c.address+target, body)
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {protocol}}
	res, err := c.tr.RoundTrip(r) //nolint:staticcheck // see http2Client
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { w.Close(); res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		return nil, res.StatusCode, string(text)
	}
	if got := res.Header.Get("Sec-Websocket-Protocol"); got != protocol {
		c.t.Errorf("the subprotocol is %q; want %q", got, protocol)
	}
	return &stream{c.t, w, bufio.NewReader(res.Body)}, res.StatusCode, ""
}

// A node whose process takes extended CONNECTs serves WebSocket and MQTT over the
// streams of one HTTP/2 connection, within its limits, and drains them as others.
func TestNodeServesWebSocketsOverHTTP2(t *testing.T) {
	n := startProcess(t, []string{"GODEBUG=http2xconnect=1"}, "--config", file(t, "fanfare.yaml",
		tlsNode(t, "")+"accessKeys: { primary: "+ownKey+" }\nlimits: { connections: 4 }\n"))
	connection := newHTTP2(t, n.address)
	connect := func(path, protocol string) (*stream, int, string) {
		t.Helper()
		token := sign(t, ownKey, "https://"+n.address+path, time.Now().Add(time.Hour), "webpubsub.sendToGroup", "webpubsub.joinLeaveGroup")
		return connection.websocket(path+"?access_token="+token, protocol)
	}
	const json1 = "json.webpubsub.azure.v1"
	var clients []*stream
	for range 3 {
		c, status, said := connect("/client/hubs/chat", json1)
		if c == nil {
			t.Fatal(status, said)
		}
		if f := c.hears(); !strings.Contains(string(f.Payload), `"event":"connected"`) {
			t.Fatalf("the first message is %s", f.Payload)
		}
		c.says(`{"type":"joinGroup","group":"g","ackId":1}`)
		if f := c.hears(); !strings.Contains(string(f.Payload), `"success":true`) {
			t.Fatalf("the answer to joinGroup is %s", f.Payload)
		}
		clients = append(clients, c)
	}
	phone, status, said := connect("/clients/mqtt/hubs/chat", "mqtt")
	if phone == nil {
		t.Fatal(status, said)
	}
	if err := ws.WriteFrame(phone.w, ws.MaskFrame(ws.NewBinaryFrame(mqttConnect(5, true, "phone")))); err != nil {
		t.Fatal(err)
	}
	if f := phone.hears(); len(f.Payload) < 4 || f.Payload[0] != 0x20 || f.Payload[3] != 0 {
		t.Fatalf("the answer to CONNECT is %x", f.Payload)
	}
	if c, status, said := connect("/client/hubs/chat", json1); c != nil || status != http.StatusServiceUnavailable || !strings.Contains(said, "limits.connections") {
		t.Errorf("a fifth client is answered with %d %s; want 503 and limits.connections", status, said)
	}
	text, err := json.Marshal(strings.Repeat("x", 100_000)) // more than a window of HTTP/2 holds
	if err != nil {
		t.Fatal(err)
	}
	clients[0].says(`{"type":"sendToGroup","group":"g","dataType":"text","data":` + string(text) + `}`)
	for i, c := range clients {
		if f := c.hears(); !bytes.Contains(f.Payload, text) {
			t.Errorf("client %d got %d bytes", i, len(f.Payload))
		}
	}

	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, c := range append(clients, phone) {
		for {
			f := c.hears()
			if f.Header.OpCode.IsData() {
				continue // that it is disconnected
			}
			want := ws.StatusGoingAway
			if c == phone {
				want = ws.StatusNormalClosure // the packet before it said more
			}
			if code, _ := ws.ParseCloseFrameData(f.Payload); f.Header.OpCode != ws.OpClose || code != want {
				t.Errorf("the node's goodbye is %v %q", f.Header, f.Payload)
			}
			break
		}
		if err := ws.WriteFrame(c.w, ws.MaskFrame(ws.NewCloseFrame(nil))); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
			t.Errorf("after its close frame the node sends %q, %v", rest, err)
		}
	}
	if code := n.wait(t); code != exitOK {
		t.Errorf("the node ends with %d:\n%s", code, n.err)
	}
}

// A client that recovers its connection shows no credential of its own, and its HTTP/2
// connection is not one of the unauthenticated ones all the same.
func TestRecoveredStreamNeedsNoPlace(t *testing.T) {
	n := startProcess(t, []string{"GODEBUG=http2xconnect=1"}, "--config", file(t, "fanfare.yaml",
		tlsNode(t, "")+"accessKeys: { primary: "+ownKey+" }\nlimits: { unauthenticatedConnections: 4 }\n"))
	const path, protocol = "/client/hubs/chat", "json.reliable.webpubsub.azure.v1"
	token := sign(t, ownKey, "https://"+n.address+path, time.Now().Add(time.Hour))
	c, status, said := newHTTP2(t, n.address).websocket(path+"?access_token="+token, protocol)
	if c == nil {
		t.Fatal(status, said)
	}
	var hello struct{ ConnectionID, ReconnectionToken string }
	if err := json.Unmarshal(c.hears().Payload, &hello); err != nil {
		t.Fatal(err)
	}
	c, status, said = newHTTP2(t, n.address).websocket(path+"?awps_connection_id="+hello.ConnectionID+"&awps_reconnection_token="+hello.ReconnectionToken, protocol)
	if c == nil {
		t.Fatal(status, said)
	}
	c.hears() // its hello
	for range 20 {
		silent, err := net.Dial("tcp", n.address)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	n.err.wait(t, "limits.unauthenticatedConnections") // the oldest of them was closed
	for range 100 {
		c.says(`{"type":"ping"}`)
		if f := c.hears(); string(f.Payload) != `{"type":"pong"}` {
			t.Fatalf("the answer to a ping is %v %s", f.Header, f.Payload)
		}
	}
}
