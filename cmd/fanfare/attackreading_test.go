package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// rawClient is a WebSocket client that sends any bytes.
type rawClient struct {
	net.Conn
	r *bufio.Reader
}

// dialRaw connects an anonymous client to a path of the node; without a subprotocol
// if that is empty.
func dialRaw(t *testing.T, url, protocol string) *rawClient {
	t.Helper()
	d := ws.Dialer{TLSConfig: &tls.Config{InsecureSkipVerify: true}} // the test's own node
	if protocol != "" {
		d.Protocols = []string{protocol}
	}
	c, r, _, err := d.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if r == nil {
		r = bufio.NewReader(c)
	}
	return &rawClient{c, r}
}

// ended reads until the node says why the connection ends, by a close frame or a
// DISCONNECT of MQTT 5.0, and returns the code and the text.
func (c *rawClient) ended() (code int, text string) {
	for {
		h, err := ws.ReadHeader(c.r)
		if err != nil {
			return 0, "without a word: " + err.Error()
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(c.r, p); err != nil {
			return 0, "within a frame: " + err.Error()
		}
		switch {
		case h.OpCode == ws.OpClose && len(p) >= 2:
			return int(binary.BigEndian.Uint16(p)), string(p[2:])
		case h.OpCode == ws.OpBinary && len(p) > 2 && p[0] == 0xe0:
			return int(p[2]), string(p[3:])
		case h.OpCode == ws.OpPing:
			c.Write(maskedFrame(ws.OpPong, true, p))
		}
	}
}

func maskedFrame(op ws.OpCode, fin bool, p []byte) []byte {
	var b bytes.Buffer
	ws.WriteFrame(&b, ws.MaskFrameInPlace(ws.NewFrame(op, fin, bytes.Clone(p))))
	return b.Bytes()
}

// anonymousConnect is a CONNECT of MQTT 5.0 without a client id, in a frame.
var anonymousConnect = maskedFrame(ws.OpBinary, true, []byte("\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"))

// readingAttack is what a client sends of which it wants to be read for ever.
type readingAttack struct {
	name, path, protocol string
	first                []byte        // once
	again                []byte        // from then on; nil for nothing
	every                time.Duration // 0: as fast as it can
	status               int
	reason               string
}

// run sends it and returns how the client was ended.
func (a *readingAttack) run(c *rawClient) (code int, text string) {
	go func() {
		_, err := c.Write(a.first)
		for err == nil && a.again != nil {
			time.Sleep(a.every)
			_, err = c.Write(a.again)
		}
	}()
	return c.ended()
}

// What is tried by clients that have come in: messages that never end, and more
// frames than anybody needs.
func attackReading(t *testing.T) {
	const (
		client, mqtt = "/client/hubs/chat", "/clients/mqtt/hubs/chat"
		json         = "json.webpubsub.azure.v1"
		drip         = 50 * time.Millisecond
		late         = "not complete within 500ms [limits.messageTimeout"
		busy         = "more than 100 pings, empty frames and the like a second [limits.controlRate"
	)
	many := func(frame []byte) []byte { return bytes.Repeat(frame, 5000) }
	ping, empty := maskedFrame(ws.OpPing, true, nil), maskedFrame(ws.OpContinuation, false, nil)
	begun := maskedFrame(ws.OpText, false, []byte("abc"))
	attacks := []readingAttack{
		{"a header that never ends", client, "", []byte{0x81}, nil, 0, 1008, late},
		{"a payload that drips", client, "", []byte{0x82, 0xff, 0, 0, 0, 0, 0, 0x0f, 0xff, 0xff, 1, 2, 3, 4}, []byte{1}, drip, 1008, late},
		{"fragments without an end, and pings", client, "", begun, append(bytes.Clone(ping), empty...), drip, 1008, late},
		{"half a control frame in a message", client, json, append(bytes.Clone(begun), ping[0]), nil, 0, 1008, late},
		{"an MQTT packet over many frames", mqtt, "mqtt", append(bytes.Clone(anonymousConnect), maskedFrame(ws.OpBinary, true, []byte{0x30, 0xff, 0x7f})...),
			maskedFrame(ws.OpBinary, true, []byte{1}), drip, 0x80, late},
		{"pings", client, "", nil, many(ping), 0, 1008, busy},
		{"pongs", client, json, nil, many(maskedFrame(ws.OpPong, true, nil)), 0, 1008, busy},
		{"JSON pings", client, json, nil, many(maskedFrame(ws.OpText, true, []byte(`{"type":"ping"}`))), 0, 1008, busy},
		{"acknowledgements of nothing", client, "json.reliable.webpubsub.azure.v1", nil,
			many(maskedFrame(ws.OpText, true, []byte(`{"type":"sequenceAck","sequenceId":1}`))), 0, 1008, busy},
		{"protobuf pings", client, "protobuf.webpubsub.azure.v1", nil, many(maskedFrame(ws.OpBinary, true, []byte{0x4a, 0})), 0, 1008, busy},
		{"PINGREQs, a frame each", mqtt, "mqtt", anonymousConnect, many(maskedFrame(ws.OpBinary, true, []byte{0xc0, 0})), 0, 0x96, busy},
		{"PINGREQs, many in a frame", mqtt, "mqtt", anonymousConnect, maskedFrame(ws.OpBinary, true, many([]byte{0xc0, 0})), 0, 0x96, busy},
		{"pings before CONNECT", mqtt, "mqtt", nil, many(ping), 0, 1008, "more than 200 pings and empty frames before its first packet. [limits.controlRate"},
	}
	flood := readingAttack{"empty fragments", client, "", nil, many(empty), 0, 1008, busy}
	flood.first = maskedFrame(ws.OpText, false, nil)

	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, 1)
	settings := "listen: 127.0.0.1:0\nhubs: { chat: { anonymousConnectPolicy: allow } }\n"
	plain := startNode(t, nil, "--config", file(t, "fanfare.yaml", settings+"limits: { messageTimeout: 500ms }\n"))
	secure := startNode(t, nil, "--config", file(t, "tls.yaml", settings+"limits: { messageTimeout: 500ms }\ntls: { certFile: "+certFile+", keyFile: "+keyFile+" }\n"))
	patient := startNode(t, nil, "--config", file(t, "patient.yaml", settings))
	small := startNode(t, nil, "--config", file(t, "small.yaml", settings+"limits: { totalUnfinishedBytes: 2097152 }\n"))

	// All at once, since each flood takes some seconds.
	type outcome struct {
		code int
		text string
	}
	var rows []attack
	begin := func(name, endpoint string, a readingAttack) {
		done := make(chan outcome, 1)
		c := dialRaw(t, endpoint+a.path, a.protocol)
		go func() {
			code, text := a.run(c)
			done <- outcome{code, text}
		}()
		rows = append(rows, attack{name, func(*testing.T) (int, string) {
			o := <-done
			return o.code, o.text
		}, a.status, a.reason})
	}
	for _, a := range attacks {
		begin(a.name, "ws://"+plain.address, a)
		begin(a.name+", over TLS", "wss://"+secure.address, a)
	}
	begin(flood.name, "ws://"+patient.address, flood) // they do not end their message either
	// Of three that have almost a whole message each, one has to go.
	large := make(chan outcome, 3)
	for range 3 {
		a := readingAttack{first: maskedFrame(ws.OpText, false, make([]byte, 1000<<10))}
		c := dialRaw(t, "ws://"+small.address+client, "")
		go func() {
			code, text := a.run(c)
			large <- outcome{code, text}
		}()
	}
	rows = append(rows, attack{"more unfinished bytes than the node takes", func(*testing.T) (int, string) {
		o := <-large
		return o.code, o.text
	}, 1008, "over 2097152 bytes, this one the most [limits.totalUnfinishedBytes"})
	attackAll(t, rows)
	for n, reasons := range map[*command][]string{plain: {"MessageTimeout", "ControlRate"}, secure: {"MessageTimeout", "ControlRate"}, small: {"TotalUnfinished"}} {
		for _, reason := range reasons {
			if !strings.Contains(n.err.String(), "reason="+reason) {
				t.Errorf("the log does not say that a connection ended for %s", reason)
			}
		}
	}
}
