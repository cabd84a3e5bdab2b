package main

import (
	"encoding/json"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// Some handlers look a client's headers up by their letters: one of Microsoft's
// samples reads Sec-WebSocket-Key, another one refuses whoever carries "failure".
// Both see the same spelling on all transports, whatever the client wrote.
func TestConnectHandlersFindHeadersByTheirLetters(t *testing.T) {
	type connectHeaders struct{ Headers map[string][]string }
	seen := make(chan map[string][]string, 1)
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		var event connectHeaders
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			t.Error(err)
		}
		seen <- event.Headers
		if len(event.Headers["failure"]) > 0 {
			w.WriteHeader(http.StatusForbidden)
		}
	}, `[{urlTemplate: 'URL/{event}', systemEvents: [connect]}]`)
	dial := func(path, protocol string, header http.Header) error {
		t.Helper()
		at := "://" + h.address + path
		d := ws.Dialer{Timeout: patience, Protocols: []string{protocol}, Header: ws.HandshakeHeaderHTTP(header)}
		c, _, _, err := d.Dial(t.Context(), "ws"+at+"?access_token="+sign(t, h.key, "http"+at, time.Now().Add(time.Hour)))
		if err != nil {
			return err
		}
		defer c.Close()
		if protocol == "mqtt" {
			if err := ws.WriteFrame(c, ws.MaskFrame(ws.NewBinaryFrame(mqttConnect(5, true, "phone")))); err != nil {
				t.Fatal(err)
			}
			f, err := ws.ReadFrame(c)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Payload) < 4 || f.Payload[0] != 0x20 {
				t.Fatalf("the answer to CONNECT is %x", f.Payload)
			}
			if f.Payload[3] != 0 {
				return ws.StatusError(http.StatusForbidden)
			}
		}
		return nil
	}
	for _, kind := range [][2]string{{"/client/hubs/chat", "json.webpubsub.azure.v1"}, {"/clients/mqtt/hubs/chat", "mqtt"}} {
		header := http.Header{"HEADER1": {"value1"}, "user-agent": {"Sensor"}, "origin": {"http://localhost"}}
		if err := dial(kind[0], kind[1], header); err != nil {
			t.Fatalf("%s: %v", kind[1], err)
		}
		got := <-seen
		want := map[string][]string{
			"header1": {"value1"}, "User-Agent": {"Sensor"}, "Origin": {"http://localhost"}, "Host": {h.address},
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-WebSocket-Version": {"13"}, "Sec-WebSocket-Protocol": {kind[1]},
		}
		if key := got["Sec-WebSocket-Key"]; len(key) != 1 || len(key[0]) != 24 {
			t.Errorf("%s: Sec-WebSocket-Key is %q in %v", kind[1], key, got)
		}
		delete(got, "Sec-WebSocket-Key")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: the headers are\n%v, want\n%v", kind[1], got, want)
		}
		for _, name := range []string{"failure", "Failure", "FAILURE"} {
			if err := dial(kind[0], kind[1], http.Header{name: {"yes"}}); err == nil {
				t.Errorf("%s: a client with the header %s is let in", kind[1], name)
			}
			<-seen
		}
	}
}
