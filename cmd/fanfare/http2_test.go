package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
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

// A node whose process takes extended CONNECTs serves WebSocket and MQTT over the
// streams of one HTTP/2 connection, within its limits, and drains them as others.
func TestNodeServesWebSocketsOverHTTP2(t *testing.T) {
	n := startProcess(t, []string{"GODEBUG=http2xconnect=1"}, "--config", file(t, "fanfare.yaml",
		tlsNode(t, "")+"accessKeys: { primary: "+ownKey+" }\nlimits: { connections: 4 }\n"))
	tr := &http2.Transport{TLSClientConfig: (*person)(nil).shows()}
	t.Cleanup(tr.CloseIdleConnections)
	connect := func(path, protocol string) (*stream, int, string) {
		t.Helper()
		token := sign(t, ownKey, "https://"+n.address+path, time.Now().Add(time.Hour), "webpubsub.sendToGroup", "webpubsub.joinLeaveGroup")
		body, w := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodConnect, "https://"+n.address+path+"?access_token="+token, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Protocol": {protocol}}
		res, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close(); res.Body.Close() })
		if res.StatusCode != http.StatusOK {
			said, _ := io.ReadAll(res.Body)
			return nil, res.StatusCode, string(said)
		}
		if got := res.Header.Get("Sec-Websocket-Protocol"); got != protocol {
			t.Errorf("the subprotocol is %q; want %q", got, protocol)
		}
		return &stream{t, w, bufio.NewReader(res.Body)}, res.StatusCode, ""
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
		if f := c.hears(); !strings.Contains(string(f.Payload), string(text)) {
			t.Errorf("client %d got %d bytes", i, len(f.Payload))
		}
	}

	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		for {
			f := c.hears()
			if f.Header.OpCode == ws.OpText {
				continue // that it is disconnected
			}
			if code, _ := ws.ParseCloseFrameData(f.Payload); f.Header.OpCode != ws.OpClose || code != ws.StatusGoingAway {
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
