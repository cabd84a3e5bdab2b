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
	}
	attackAll(t, rows)
}
