package main

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/transport/client"
)

// page is what the script of a page can ask the browser of its user for: a
// WebSocket at any URL, with the user's certificate if the user has one.
func (by *person) page(origin, url string, protocol string, more ...http.Header) func(t *testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		for _, h := range more {
			for name, values := range h {
				header[name] = values
			}
		}
		if protocol != "mqtt" {
			c, err := client.Dial(t.Context(), url, &client.Options{TLS: by.shows(), Header: header})
			return answered(t, c, err)
		}
		said := ""
		d := ws.Dialer{Timeout: patience, TLSConfig: by.shows(), Protocols: []string{protocol}, Header: ws.HandshakeHeaderHTTP(header),
			OnStatusError: func(_ int, _ []byte, r io.Reader) {
				if res, err := http.ReadResponse(bufio.NewReader(r), nil); err == nil {
					b, _ := io.ReadAll(res.Body)
					said = string(b)
				}
			}}
		c, _, _, err := d.Dial(t.Context(), url)
		if err == nil {
			c.Close()
			return http.StatusSwitchingProtocols, ""
		}
		if status, ok := errors.AsType[ws.StatusError](err); ok {
			return int(status), said
		}
		t.Fatal(err)
		return 0, ""
	}
}

// What a foreign page tries in its visitor's browser: to connect with what the
// browser adds by itself, or with the key that everyone knows.
func attackOrigins(t *testing.T) {
	var nobody *person
	root := nobody.authority(t, "root")
	ann := root.issue(t, "ann", nil)
	g := newGuard(t)
	g.knows[ann.thumbprint()] = "ann"
	const eve = "https://eve.example"
	hubs := `accessKeys: { primary: ` + ownKey + ` }
hubs:
  plant: { clientCertificates: { caFile: ` + file(t, "ca.pem", root.pem()) + ` } }
  judged: { anonymousConnectPolicy: allow, eventHandlers: [ { urlTemplate: "` + g.URL + `", systemEvents: [connect] } ] }
  listed: { allowedOrigins: ["https://*.example.com"], clientCertificates: { caFile: ` + file(t, "ca.pem", root.pem()) + ` } }
`
	start := func(more string) *command {
		return startNode(t, nil, "--config", file(t, "fanfare.yaml", tlsNode(t, ", clientCertEnabled: true")+more+hubs))
	}
	n := start("")
	at := func(n *command, path string) string { return "wss://" + n.address + path }
	own := "https://" + n.address
	token := sign(t, ownKey, own+"/client/hubs/plant", time.Now().Add(time.Hour))
	for _, way := range []func(*testing.T) (int, string){
		ann.page("", at(n, "/client/hubs/plant"), ""),
		ann.page(own, at(n, "/client/hubs/plant"), ""),
		ann.page("", at(n, "/clients/mqtt/hubs/plant"), "mqtt"),
		ann.page(own, at(n, "/clients/mqtt/hubs/plant"), "mqtt"),
		ann.page(own, at(n, "/client/hubs/judged"), ""),
		ann.page(eve, at(n, "/client/hubs/plant?access_token="+token), ""), // a page with a token was given it
		ann.page("https://a.example.com", at(n, "/client/hubs/listed"), ""),
	} {
		letIn(t, 101, way)
	}
	port := n.address[strings.LastIndexByte(n.address, ':'):]
	attackAll(t, []attack{
		{"a visitor's certificate", ann.page(eve, at(n, "/client/hubs/plant"), ""), 403, "allowedOrigins"},
		{"a visitor's certificate, by name", ann.page(eve, at(n, "/client/hubs/plant"), ""), 403, eve},
		{"a visitor's certificate, in the older form", ann.page(eve, at(n, "/client/?hub=plant"), ""), 403, "allowedOrigins"},
		{"a visitor's certificate, over MQTT", ann.page(eve, at(n, "/clients/mqtt/hubs/plant"), "mqtt"), 403, "allowedOrigins"},
		{"a visitor's certificate, from a sandbox", ann.page("null", at(n, "/client/hubs/plant"), ""), 403, "allowedOrigins"},
		{"a visitor's certificate, from a page without TLS", ann.page("http://"+n.address, at(n, "/client/hubs/plant"), ""), 403, "allowedOrigins"},
		{"a visitor's certificate, from another port", ann.page("https://127.0.0.1", at(n, "/client/hubs/plant"), ""), 403, "allowedOrigins"},
		{"a visitor's certificate, from a host that begins alike", ann.page("https://127.0.0.1.eve.example"+port, at(n, "/client/hubs/plant"), ""), 403, "allowedOrigins"},
		{"a visitor's certificate that the connect handler knows", ann.page(eve, at(n, "/client/hubs/judged"), ""), 403, "allowedOrigins"},
		{"a visitor's certificate beside an empty token", ann.page(eve, at(n, "/client/hubs/plant?access_token="), ""), 403, "allowedOrigins"},
		{"a visitor's certificate beside a made-up token", ann.page(eve, at(n, "/client/hubs/plant?access_token=x"), ""), 401, "token.malformed"},
		{"a visitor's certificate beside a recovery, over MQTT", ann.page(eve, at(n, "/clients/mqtt/hubs/plant?awps_connection_id=x&awps_reconnection_token=y"), "mqtt"), 403, "allowedOrigins"},
		{"another node's host that no proxy handed on", ann.page("https://rt.example.com", at(n, "/client/hubs/plant"), "", http.Header{"X-Forwarded-Host": {"rt.example.com"}}), 403, "allowedOrigins"},
		{"a page that a hub's own list does not have", ann.page(own, at(n, "/client/hubs/listed"), ""), 403, "hubs.listed.allowedOrigins"},
		{"a list's host without a subdomain", ann.page("https://example.com", at(n, "/client/hubs/listed"), ""), 403, "hubs.listed.allowedOrigins"},
		{"a list's host as the end of another", ann.page("https://eveexample.com", at(n, "/client/hubs/listed"), ""), 403, "hubs.listed.allowedOrigins"},
		{"a token, from a page that the list does not have", nobody.page(eve, at(n, "/client/hubs/listed?access_token="+sign(t, ownKey, own+"/client/hubs/listed", time.Now().Add(time.Hour))), ""), 403, "hubs.listed.allowedOrigins"},
		{"a recovery, from a page that the list does not have", nobody.page(eve, at(n, "/client/hubs/listed?awps_connection_id=x&awps_reconnection_token=y"), ""), 403, "hubs.listed.allowedOrigins"},
	})

	// What clients call the node is its origin, whatever address they used.
	named := start("publicEndpoint: https://rt.example.com\n")
	letIn(t, 101, ann.page("https://rt.example.com", at(named, "/client/hubs/plant"), ""))
	attackAll(t, []attack{
		{"the address of a node that has a name", ann.page("https://"+named.address, at(named, "/client/hubs/plant"), ""), 403, "https://rt.example.com"},
	})

	// A proxy says what its clients addressed.
	behind := startNode(t, nil, "--config", file(t, "fanfare.yaml", "listen: 127.0.0.1:0\ntrustedProxies: [127.0.0.1]\nclientCertHeader: client-cert\n"+hubs))
	front := frontend(t, behind.address).Listener.Addr().String()
	letIn(t, 101, ann.page("https://"+front, "wss://"+front+"/client/hubs/plant", ""))
	attackAll(t, []attack{
		{"a visitor's certificate, through a proxy", ann.page(eve, "wss://"+front+"/client/hubs/plant", ""), 403, "https://" + front},
		{"the address of the node behind a proxy", ann.page("http://"+behind.address, "wss://"+front+"/client/hubs/plant", ""), 403, "allowedOrigins"},
	})

	attackDevelopmentOrigins(t)
}

// What any page can try on the node of the developer who reads it.
func attackDevelopmentOrigins(t *testing.T) {
	const eve = "https://eve.example"
	var nobody *person
	path := file(t, "fanfare.yaml", "listen: 127.0.0.1:0\n")
	n := startNode(t, nil, "--config", path)
	to := func(path string) string {
		return "ws://" + n.address + path + "?access_token=" + sign(t, accesskey.DevelopmentKey, "http://"+n.address+path, time.Now().Add(time.Hour))
	}
	chat, mqtt := to("/client/hubs/chat"), to("/clients/mqtt/hubs/chat")
	for _, origin := range []string{"", "http://localhost:3000", "https://127.0.0.1:5173", "http://[::1]"} {
		letIn(t, 101, nobody.page(origin, chat, ""))
		letIn(t, 101, nobody.page(origin, mqtt, "mqtt"))
	}
	attackAll(t, []attack{
		{"the key that everyone knows, from any page", nobody.page(eve, chat, ""), 403, "allowedOrigins"},
		{"the key that everyone knows, over MQTT", nobody.page(eve, mqtt, "mqtt"), 403, "allowedOrigins"},
		{"the key that everyone knows, from a sandbox", nobody.page("null", chat, ""), 403, "allowedOrigins"},
		{"the key that everyone knows, from a name that leads to this machine", nobody.page("http://rebound.eve.example:8080", chat, ""), 403, "allowedOrigins"},
		{"the key that everyone knows, from a host that begins alike", nobody.page("http://localhost.eve.example", chat, ""), 403, "allowedOrigins"},
		{"a guess at a connection, from any page", nobody.page(eve, "ws://"+n.address+"/client/hubs/chat?awps_connection_id=x&awps_reconnection_token=y", ""), 403, "allowedOrigins"},
	})

	rewrite(t, path, "listen: 127.0.0.1:0\nallowedOrigins: [\"https://eve.example\"]\n")
	n.signals <- syscall.SIGHUP
	n.err.wait(t, "the settings were read again")
	letIn(t, 101, nobody.page(eve, chat, ""))
	attackAll(t, []attack{
		{"a page of this machine that the list does not have", nobody.page("http://localhost:3000", chat, ""), 403, "https://eve.example"},
	})
}
