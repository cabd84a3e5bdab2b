package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// asWritten sends a request as it is written, with \n for line ends, and returns
// the answer.
func asWritten(address, request string) func(t *testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusSwitchingProtocols {
			return res.StatusCode, ""
		}
		said, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(said)
	}
}

// What is tried with the request of the handshake itself.
func attackHandshake(t *testing.T) {
	n := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + ownKey})
	token := func(path string) string {
		return sign(t, ownKey, "http://"+n.address+path, time.Now().Add(time.Hour))
	}
	var rows []attack
	for _, kind := range []struct{ name, path, protocol string }{
		{"WebSocket", "/client/hubs/chat", "json.webpubsub.azure.v1"},
		{"MQTT", "/clients/mqtt/hubs/chat", "mqtt"},
	} {
		good, other := token(kind.path), token("/client/hubs/other")
		with := func(query, more string) func(t *testing.T) (int, string) {
			return asWritten(n.address, fmt.Sprintf("GET %s%s HTTP/1.1\nHost: %s\nConnection: Upgrade\nUpgrade: websocket\n"+
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\nSec-WebSocket-Protocol: %s\n%s\n", kind.path, query, n.address, kind.protocol, more))
		}
		letIn(t, 101, with("?access_token="+good, ""))
		letIn(t, 101, with("?access_token="+good, "Upgrade: h2c\nContent-Length: 0\nSec-WebSocket-Protocol: ,\n"))
		letIn(t, 101, with("?access_token="+good+"&ACCESS_TOKEN="+good, ""))
		letIn(t, 101, with("", "Authorization: Bearer "+good+"\n"))
		row := func(name string, try func(t *testing.T) (int, string), status int, rule string) {
			rows = append(rows, attack{kind.name + ": " + name, try, status, rule})
		}
		row("two Authorization headers, the first one good", with("", "Authorization: Bearer "+good+"\nAuthorization: Bearer "+other+"\n"), 401, "token.malformed")
		row("two Authorization headers, the second one good", with("", "Authorization: Bearer "+other+"\nAuthorization: Bearer "+good+"\n"), 401, "token.malformed")
		row("two Authorization headers of two schemes", with("", "Authorization: Basic YTpi\nAuthorization: Bearer "+good+"\n"), 401, "token.malformed")
		row("two Authorization headers beside a good token", with("?access_token="+good, "Authorization: Bearer "+good+"\nauthorization: Bearer "+good+"\n"), 401, "token.malformed")
		row("two tokens in one Authorization header", with("", "Authorization: Bearer "+good+", Bearer "+other+"\n"), 401, "token.malformed")
		row("two tokens in the query", with("?access_token="+good+"&access_token="+other, ""), 401, "token.malformed")
		row("two tokens in the query, spelled differently", with("?access_token="+good+"&Access_Token="+other, ""), 401, "token.malformed")
		join := "\x81\xa0\x00\x00\x00\x00" + `{"type":"joinGroup","group":"g"} `
		row("frames in a body", with("?access_token="+good, fmt.Sprintf("Content-Length: %d\n\n%s", len(join), join)), 400, "websocket.body")
		row("frames in a chunked body", with("?access_token="+good, fmt.Sprintf("Transfer-Encoding: chunked\n\n%x\n%s\n0\n\n", len(join), join)), 400, "websocket.body")
		row("a body that does not come", with("?access_token="+good, "Content-Length: 100000\n"), 400, "websocket.body")
		row("two keys", with("?access_token="+good, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"), 400, "websocket.upgrade")
		row("two versions", with("?access_token="+good, "Sec-WebSocket-Version: 13\n"), 400, "websocket.upgrade")
		row("a line break for the answer, in a subprotocol", with("?access_token="+good, "Sec-WebSocket-Protocol: a%0d%0aSet-Cookie: b\n"), 400, "websocket.subprotocol")
	}
	attackAll(t, rows)
	attackServersTwice(t, n)
	attackHTTP2(t)
}

// What is tried with two credentials where servers show theirs.
func attackServersTwice(t *testing.T, n *command) {
	server := func(header string) func(t *testing.T) (int, string) {
		return asWritten(n.address, "POST /api/hubs/chat/:send?api-version=2024-12-01 HTTP/1.1\nHost: "+n.address+"\nContent-Type: text/plain\nContent-Length: 1\n"+header+"\nx")
	}
	manager := func(header string) func(t *testing.T) (int, string) {
		return asWritten(n.address, "POST /identities?api-version=2023-10-01 HTTP/1.1\nHost: "+n.address+"\nContent-Type: application/json\nContent-Length: 2\n"+header+"\n{}")
	}
	good := "Authorization: Bearer " + serverToken(t, n, ownKey, "/api/hubs/chat/:send") + "\n"
	other := "Authorization: Bearer " + serverToken(t, n, ownKey, "/api/hubs/other/:send") + "\n"
	signed := "Authorization: HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature=AAAA\n"
	letIn(t, 202, server(good))
	attackAll(t, []attack{
		{"REST: two Authorization headers, the first one good", server(good + other), 401, "token.malformed"},
		{"REST: two Authorization headers, the second one good", server(other + good), 401, "token.malformed"},
		{"REST: two Authorization headers that are the same", server(good + good), 401, "token.malformed"},
		{"identity: two signatures", manager(signed + signed), 401, "signed.header"},
		{"identity: a signature and a token", manager(signed + good), 401, "signed.header"},
	})
}

// What is tried with HTTP/2 where it carries no WebSocket.
func attackHTTP2(t *testing.T) {
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", tlsNode(t, "")+"accessKeys: { primary: "+ownKey+" }\n"))
	tr := &http.Transport{TLSClientConfig: (*person)(nil).shows(), ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	over2 := func(method, path string, body string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			r, err := http.NewRequestWithContext(t.Context(), method, "https://"+n.address+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			res, err := tr.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.ProtoMajor != 2 {
				t.Fatalf("the answer is %s", res.Proto)
			}
			said, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return res.StatusCode, string(said)
		}
	}
	letIn(t, 200, over2("GET", "/healthz", ""))
	attackAll(t, []attack{
		{"HTTP/2: a GET of a client's path", over2("GET", "/client/hubs/chat", ""), 400, "expected a GET over HTTP/1.1"},
		{"HTTP/2: a GET of a client's path, by rule", over2("GET", "/client/?hub=chat", ""), 400, "websocket.upgrade"},
		{"HTTP/2: a GET of an MQTT client's path", over2("GET", "/clients/mqtt/hubs/chat", ""), 400, "GODEBUG=http2xconnect=1"},
		{"HTTP/2: a POST of frames", over2("POST", "/client/hubs/chat", "\x81\x00"), 400, "websocket.upgrade"},
	})
}
