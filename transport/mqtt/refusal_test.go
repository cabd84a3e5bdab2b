package mqtt_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fanfare/fanfare/engine"
)

// Who is not upgraded, and by which rule.
func TestHandshakeRefused(t *testing.T) {
	s := serve(t, engine.Options{}, false)
	good := s.target(engine.Identity{UserID: "ann"})
	for _, tc := range []struct {
		name, target, protocol string
		status                 int
		rule                   string
	}{
		{"no subprotocol", good, "", 400, "websocket.subprotocol"},
		{"another subprotocol", good, "json.webpubsub.azure.v1", 400, "websocket.subprotocol"},
		{"no token", "/clients/mqtt/hubs/chat", "mqtt", 401, "token.missing"},
		{"a bad token", "/clients/mqtt/hubs/chat?access_token=x", "mqtt", 401, "token.missing"},
		{"a hub that cannot be", strings.Replace(good, "hubs/chat", "hubs/1", 1), "mqtt", 400, "name.hub"},
		{"no hub", strings.Replace(good, "hubs/chat", "hubs/", 1), "mqtt", 400, "name.hub"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, res := s.handshake(t, tc.target, tc.protocol)
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != tc.status || !strings.Contains(string(body), "["+tc.rule+"]") {
				t.Errorf("got %d %s, want %d [%s]", res.StatusCode, body, tc.status, tc.rule)
			}
		})
	}
	if _, res := s.handshake(t, good, "x, MQTT"); res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-Websocket-Protocol") != "MQTT" {
		t.Errorf("among others, in capitals: %d %v", res.StatusCode, res.Header)
	}
}

// Which CONNECT is refused, and how.
func TestConnectRefused(t *testing.T) {
	s := serve(t, engine.Options{}, false)
	long := strings.Repeat("x", 129)
	will := func(flags, topic, payload string) string {
		return "10 ( 'MQTT' 04 " + flags + " 003c 'a' " + topic + " " + payload + " )"
	}
	will5 := func(flags, topic, payload string) string {
		return "10 ( 'MQTT' 05 " + flags + " 003c ( ) 'a' ( ) " + topic + " " + payload + " )"
	}
	reason := func(code, text string) string { return "20 ( 00 " + code + " ( 1f '" + text + "' ) )" }
	const idRule = "A client id has 1 to 128 letters and digits; this one, of %d bytes, does not."
	const willTopic = "The topic of a will has 1 to 1024 bytes and no wildcard, and does not begin with $webpubsub/."
	for _, tc := range []struct{ name, packet, answer, closed string }{
		{"3.1.1: an id with a dash", "10 ( 'MQTT' 04 02 003c 'a-b' )", "20 ( 00 02 )", "1000"},
		{"3.1.1: a long id", "10 ( 'MQTT' 04 02 003c '" + long + "' )", "20 ( 00 02 )", "1000"},
		{"3.1.1: no id, and a session to keep", "10 ( 'MQTT' 04 00 003c '' )", "20 ( 00 02 )", "1000"},
		{"3.1.1: no keep-alive", "10 ( 'MQTT' 04 02 0000 'a' )", "20 ( 00 03 )", "1000"},
		{"3.1.1: a long keep-alive", "10 ( 'MQTT' 04 02 00b5 'a' )", "20 ( 00 03 )", "1000"},
		{"3.1.1: a blank will topic", will("06", "' '", "'x'"), "20 ( 00 03 )", "1000"},
		{"3.1.1: a long will topic", will("06", "'"+strings.Repeat("t", 1025)+"'", "'x'"), "20 ( 00 03 )", "1000"},
		{"3.1.1: a long will", will("06", "'t'", "'"+strings.Repeat("x", 2001)+"'"), "20 ( 00 03 )", "1000"},
		{"3.1.1: a retained will", will("26", "'t'", "'x'"), "20 ( 00 03 )", "1000"},
		{"3.1", "10 ( 'MQIsdp' 03 02 003c 'a' )", "", "1002"},
		{"version 6", "10 ( 'MQTT' 06 02 003c 'a' )", reason("84", "The CONNECT cannot be taken: the protocol level is 6, expected 4 (3.1.1) or 5 (5.0)."), "1000"},
		{"version 127", "10 ( 'MQTT' 7f 02 003c 'a' )", reason("84", "The CONNECT cannot be taken: the protocol level is 127, expected 4 (3.1.1) or 5 (5.0)."), "1000"},
		{"version 4 of a bridge", "10 ( 'MQTT' 84 02 003c 'a' )", "20 ( 00 01 )", "1000"},
		{"version 0", "10 ( 'MQTT' 00 02 003c 'a' )", "20 ( 00 01 )", "1000"},
		{"version 3", "10 ( 'MQTT' 03 02 003c 'a' )", "20 ( 00 01 )", "1000"},

		{"5.0: an id with a dash", "10 ( 'MQTT' 05 02 003c ( ) 'a-b' )", reason("85", fmt.Sprintf(idRule, 3)), "1000"},
		{"5.0: a long id", "10 ( 'MQTT' 05 02 003c ( ) '" + long + "' )", reason("85", fmt.Sprintf(idRule, 129)), "1000"},
		{"5.0: extended authentication", "10 ( 'MQTT' 05 02 003c ( 15 'SCRAM' ) 'a' )",
			reason("8c", "There is no extended authentication here: prove yourself by a token in the handshake, or by user name and password."), "1000"},
		{"5.0: extended authentication with data", "10 ( 'MQTT' 05 02 003c ( 15 'SCRAM' 16 'x' ) 'a' )",
			reason("8c", "There is no extended authentication here: prove yourself by a token in the handshake, or by user name and password."), "1000"},
		{"5.0: authentication data of no method", "10 ( 'MQTT' 05 02 003c ( 16 'x' ) 'a' )",
			reason("82", "The CONNECT has Authentication Data and no Authentication Method, which says what it is."), "1000"},
		{"5.0: a retained will", will5("26", "'t'", "'x'"), reason("9a", "There are no retained messages here; the will asks to be one."), "1000"},
		{"5.0: a long will", will5("06", "'t'", "'"+strings.Repeat("x", 2001)+"'"), reason("95", "The will has 2001 bytes, at most 2000 are allowed."), "1000"},
		{"5.0: a will that is not the text it says it is", "10 ( 'MQTT' 05 06 003c ( ) 'a' ( 01 01 ) 't' 0001 ff )",
			reason("99", "The payload format indicator of the will says UTF-8, and its payload is not."), "1000"},
		{"5.0: a will to all", will5("06", "'#'", "'x'"), reason("90", willTopic), "1000"},
		{"5.0: a will for the service", will5("06", "'$webpubsub/server/events/x'", "'x'"), reason("90", willTopic), "1000"},
		{"5.0: a blank will topic", will5("06", "' '", "'x'"), reason("90", "The topic of a will may not be blank."), "1000"},

		{"no CONNECT", "c0 ( )", "", "1002"},
		{"nonsense", "ff ff ff", "", "1002"},
		{"flags", "11 ( 'MQTT' 04 02 003c 'a' )", "", "1002"},
		{"the reserved flag", "10 ( 'MQTT' 04 03 003c 'a' )", "", "1002"},
		{"flags of a will that is not there", "10 ( 'MQTT' 04 22 003c 'a' )", "", "1002"},
		{"a will of QoS 3", will("1e", "'t'", "'x'"), "", "1002"},
		{"a password without a user name", "10 ( 'MQTT' 04 42 003c 'a' 'pw' )", "", "1002"},
		{"bytes behind the end", "10 ( 'MQTT' 04 02 003c 'a' 00 )", "", "1002"},
		{"an end inside a field", "10 ( 'MQTT' 04 02 003c 0005 \"a\" )", "", "1002"},
		{"a length in too many bytes", "10 80 80 80 80 01", "", "1002"},
		{"a length that is not the shortest", "10 80 00", "", "1002"},
		{"too long a packet", "10 ff ff ff 7f", "", "1002"},
		{"an id that is not UTF-8", "10 ( 'MQTT' 04 02 003c 0001 ff )", "", "1002"},
		{"an id with U+0000", "10 ( 'MQTT' 04 02 003c 0001 00 )", "", "1002"},
		{"5.0: a property twice", "10 ( 'MQTT' 05 02 003c ( 11 00000001 11 00000001 ) 'a' )", reason("82", "The CONNECT cannot be taken: property 17 is there twice."), "1000"},
		{"5.0: a property of another packet", "10 ( 'MQTT' 05 02 003c ( 23 0001 ) 'a' )", reason("82", "The CONNECT cannot be taken: property 35 in a packet of type 1."), "1000"},
		{"5.0: a property that is none", "10 ( 'MQTT' 05 02 003c ( 7f ) 'a' )", reason("82", "The CONNECT cannot be taken: property 127 in a packet of type 1."), "1000"},
		{"5.0: properties that end inside one", "10 ( 'MQTT' 05 02 003c ( 11 0000 ) 'a' )", reason("81", "The CONNECT cannot be taken: a packet ends inside a field."), "1000"},
		{"5.0: a receive maximum of 0", "10 ( 'MQTT' 05 02 003c ( 21 0000 ) 'a' )", reason("82", "The CONNECT cannot be taken: the receive maximum is 0."), "1000"},
		{"5.0: a maximum packet size of 0", "10 ( 'MQTT' 05 02 003c ( 27 00000000 ) 'a' )", reason("82", "The CONNECT cannot be taken: the maximum packet size is 0."), "1000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := s.connect(t, engine.Identity{UserID: "ann"})
			c.packets(tc.packet + " c0 ( )") // what follows is not looked at
			if tc.answer != "" {
				c.want(tc.answer)
			}
			c.want("close " + tc.closed)
		})
	}
}

// A client that has too much under way is disconnected.
func TestReceiveMaximum(t *testing.T) {
	s := serve(t, engine.Options{}, false)
	c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
	c.packets("10 ( 'MQTT' 05 02 003c ( ) 'a' )")
	c.want("20 ( 00 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 ) )")
	for id := 1; id <= 1024; id++ {
		c.packets(fmt.Sprintf("34 ( 't' %04x ( ) )", id))
		c.want(fmt.Sprintf("50 ( %04x )", id))
	}
	c.packets("34 ( 't' 0401 ( ) )")
	c.wantDisconnect("93")
	c.want("close 1002")
}

// A client that does not say who it is loses its place in time.
func TestHandshakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, engine.Options{}, false)
		c := s.connect(t, engine.Identity{})
		c.send([]byte{0x10})
		c.want("gone")
		s.engine.Shutdown(context.Background())
	})
}

// A subscriber that does not read is ended by what waits for it, properties included.
func TestPropertiesCount(t *testing.T) {
	ended := make(chan engine.EndReason, 1)
	s := serve(t, engine.Options{
		Limits:   engine.Limits{OutboundBytes: 1 << 20},
		Observer: engine.Observer{ConnEnded: func(_ engine.HubName, _ engine.CloseCode, r engine.EndReason) { ended <- r }},
	}, false)
	slow := s.connect(t, engine.Identity{UserID: "slow", Roles: everything})
	slow.packets("10 ( 'MQTT' 05 02 003c ( 21 0001 ) 'slow' )") // one delivery at a time
	slow.want(connack5)
	slow.packets("82 ( 0001 ( ) 't' 01 )")
	slow.want("90 ( 0001 ( ) 01 )")
	c := s.enter(t, "ann")
	for id := 1; id <= 20; id++ {
		c.packets(fmt.Sprintf("32 ( 't' %04x ( 26 'k' '%s' ) )", id, strings.Repeat("v", 60_000)))
		c.want(fmt.Sprintf("40 ( %04x )", id))
	}
	select {
	case r := <-ended:
		if r != engine.EndSlow {
			t.Errorf("it ended for %s", r)
		}
		if _, p, err := slow.read(); err != nil || p[0] != 0x32 {
			t.Fatal("not a PUBLISH", err)
		}
		slow.wantDisconnect("97")
		slow.want("close 1000")
	case <-soon(t).Done():
		t.Error("1.2 MB of properties wait, and nobody minds")
	}
}
