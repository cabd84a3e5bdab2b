package mqtt_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// What ends the connection of a client: with a DISCONNECT of the reason code in 5.0,
// by closing it in 3.1.1.
func TestIllegalPackets(t *testing.T) {
	s := serve(t, engine.Options{Limits: engine.Limits{MessageBytes: 1 << 16}}, false)
	filters := func(one string) string { return strings.Repeat(one, 257) }
	for _, tc := range []struct {
		name       string
		five, code string // in 5.0; empty for what it does not have, or allows
		three      string // in 3.1.1; likewise
		closed     string // by WebSocket's close code
		closed3    string // in 3.1.1, if that is another one
	}{
		{name: "a second CONNECT (MQTT-3.1.0-2)", five: "10 ( 'MQTT' 05 02 003c ( ) 'a' )", code: "82", three: "10 ( 'MQTT' 04 02 003c 'a' )"},
		{name: "a CONNACK", five: "20 ( 00 00 ( ) )", code: "82", three: "20 ( 00 00 )"},
		{name: "a SUBACK", five: "90 ( 0001 ( ) 00 )", code: "82", three: "90 ( 0001 00 )"},
		{name: "an UNSUBACK", five: "b0 ( 0001 ( ) 00 )", code: "82", three: "b0 ( 0001 )"},
		{name: "a PINGRESP", five: "d0 ( )", code: "82", three: "d0 ( )"},
		{name: "AUTH without a method in CONNECT (4.12)", five: "f0 ( )", code: "82", three: "f0 ( )"},
		{name: "AUTH with a method", five: "f0 ( 18 ( 15 'SCRAM' ) )", code: "82"},
		{name: "flags of an AUTH", five: "f1 ( )", code: "81"},
		{name: "a reserved type", five: "00 ( )", code: "82", three: "00 ( )"},
		{name: "a length in five bytes", five: "30 80 80 80 80 01", code: "81", three: "30 80 80 80 80 01"},
		{name: "a length that is not the shortest", five: "c0 80 00", code: "81", three: "c0 80 00"},

		{name: "a PUBLISH of QoS 3 (MQTT-3.3.1-4)", five: "36 ( 't' 0001 ( ) )", code: "81", three: "36 ( 't' 0001 )"},
		{name: "a repeated PUBLISH of QoS 0 (MQTT-3.3.1-2)", five: "38 ( 't' ( ) )", code: "81", three: "38 ( 't' )"},
		{name: "a PUBLISH of id 0", five: "32 ( 't' 0000 ( ) )", code: "82", three: "34 ( 't' 0000 )"},
		{name: "a PUBLISH that ends in its topic", five: "30 ( 0005 \"t\" )", code: "81", three: "30 ( 0005 \"t\" )"},
		{name: "a PUBLISH that ends before its id", five: "32 ( 't' )", code: "81", three: "32 ( 't' )"},
		{name: "a PUBLISH without properties", five: "30 ( 't' )", code: "81"},
		{name: "a PUBLISH without a topic", five: "30 ( '' ( ) )", code: "82", three: "30 ( '' )"},
		{name: "a topic that is not UTF-8 (MQTT-3.3.2-1)", five: "30 ( 0001 ff ( ) )", code: "81", three: "30 ( 0001 ff )"},
		{name: "a topic with a surrogate (MQTT-1.5.4-1)", five: "30 ( 0003 eda080 ( ) )", code: "81", three: "30 ( 0003 eda080 )"},
		{name: "a topic with U+0000 (MQTT-1.5.4-2)", five: "30 ( 0002 7400 ( ) )", code: "81", three: "30 ( 0002 7400 )"},
		{name: "a topic with + (MQTT-3.3.2-2)", five: "30 ( 'a/+' ( ) \"x\" )", code: "90", three: "30 ( 'a/+' \"x\" )"},
		{name: "a topic with # (MQTT-3.3.2-2)", five: "30 ( '#' ( ) \"x\" )", code: "90", three: "30 ( '#' \"x\" )"},
		{name: "a topic with # and QoS 1", three: "32 ( '#' 0001 \"x\" )", closed3: "1008"},
		{name: "a topic with # and QoS 2", three: "34 ( '#' 0001 \"x\" )", closed3: "1008"},
		{name: "a blank topic", five: "30 ( ' ' ( ) )", code: "90", three: "30 ( ' ' )"},
		{name: "a topic of the service", five: "30 ( '$webpubsub/x' ( ) )", code: "90", three: "30 ( '$webpubsub/x' )"},
		{name: "an event without a name", five: "30 ( '$webpubsub/server/events/' ( ) )", code: "90", three: "30 ( '$webpubsub/server/events/' )"},
		{name: "a long topic", five: "30 ( '" + strings.Repeat("t", 1025) + "' ( ) )", code: "90", three: "30 ( '" + strings.Repeat("t", 1025) + "' )"},
		{name: "text that is not UTF-8", five: "30 ( 't' ( 01 01 ) ff )", code: "99"},
		{name: "an event whose content type is none", five: "30 ( '$webpubsub/server/events/x' ( 03 'a b' ) )", code: "99"},
		{name: "a topic alias", five: "30 ( '' ( 23 0001 ) )", code: "94"},
		{name: "a topic alias beside a topic", five: "30 ( 't' ( 23 0001 ) )", code: "94"},
		{name: "a topic alias of 0 (MQTT-3.3.2-8)", five: "30 ( 't' ( 23 0000 ) )", code: "94"},
		{name: "a retained PUBLISH", five: "31 ( 't' ( ) )", code: "9a", three: "31 ( 't' )"},
		{name: "a retained PUBLISH of QoS 2", five: "35 ( 't' 0001 ( ) )", code: "9a", three: "35 ( 't' 0001 )"},
		{name: "a subscription identifier in a PUBLISH (MQTT-3.3.4-6)", five: "30 ( 't' ( 0b 01 ) )", code: "82"},
		{name: "a response topic with a wildcard (MQTT-3.3.2-14)", five: "30 ( 't' ( 08 '#' ) )", code: "82"},
		{name: "a payload format of 2", five: "30 ( 't' ( 01 02 ) )", code: "82"},
		{name: "a content type twice", five: "30 ( 't' ( 03 'a' 03 'a' ) )", code: "82"},
		{name: "a property that is none", five: "30 ( 't' ( 7f ) )", code: "82"},
		{name: "properties that end inside one", five: "30 ( 't' ( 02 0000 ) )", code: "81"},
		{name: "properties longer than the packet", five: "30 ( 't' 05 )", code: "81"},
		{name: "too many user properties", five: "30 ( 't' ( " + filters("26 0000 0000 ") + ") )", code: "97"},
		{name: "too long a packet", five: "30 80 80 80 01", code: "95", three: "30 80 80 80 01", closed: "1009"},
		{name: "a byte too many", five: "30 ( 't' ( ) *65529 )", code: "95", three: "30 ( 't' *65530 )", closed: "1009"},
		{name: "too long a packet, whole", five: "30 ( 't' ( ) *70000 )", code: "95", three: "30 ( 't' *70000 )", closed: "1009"},

		{name: "a PUBACK without an id", five: "40 ( )", code: "81", three: "40 ( )"},
		{name: "a PUBACK of id 0", five: "40 ( 0000 )", code: "82", three: "40 ( 0000 )"},
		{name: "a PUBREC of id 0", five: "50 ( 0000 )", code: "82", three: "50 ( 0000 )"},
		{name: "a PUBREL of id 0", five: "62 ( 0000 )", code: "82", three: "62 ( 0000 )"},
		{name: "a PUBCOMP of id 0", five: "70 ( 0000 )", code: "82", three: "70 ( 0000 )"},
		{name: "flags of a PUBACK", five: "42 ( 0001 )", code: "81", three: "42 ( 0001 )"},
		{name: "flags of a PUBREC", five: "52 ( 0001 )", code: "81", three: "52 ( 0001 )"},
		{name: "flags of a PUBREL (MQTT-3.6.1-1)", five: "60 ( 0001 )", code: "81", three: "60 ( 0001 )"},
		{name: "flags of a PUBCOMP", five: "72 ( 0001 )", code: "81", three: "72 ( 0001 )"},
		{name: "a PUBACK of another packet's code (MQTT-3.4.2-1)", five: "40 ( 0001 92 )", code: "82"},
		{name: "a PUBREC of another packet's code (MQTT-3.5.2-1)", five: "50 ( 0001 01 )", code: "82"},
		{name: "a PUBREL of another packet's code (MQTT-3.6.2-1)", five: "62 ( 0001 80 )", code: "82"},
		{name: "a PUBCOMP of another packet's code (MQTT-3.7.2-1)", five: "70 ( 0001 10 )", code: "82"},
		{name: "a PUBACK with a code in 3.1.1", three: "40 ( 0001 00 )"},
		{name: "a property of another packet in a PUBACK", five: "40 ( 0001 00 ( 01 01 ) )", code: "82"},
		{name: "a reason twice in a PUBREC", five: "50 ( 0001 00 ( 1f 'a' 1f 'b' ) )", code: "82"},
		{name: "bytes behind a PUBCOMP", five: "70 ( 0001 00 ( ) 00 )", code: "81", three: "70 ( 0001 00 )"},

		{name: "flags of a SUBSCRIBE (MQTT-3.8.1-1)", five: "80 ( 0001 ( ) 't' 00 )", code: "81", three: "80 ( 0001 't' 00 )"},
		{name: "a SUBSCRIBE of id 0", five: "82 ( 0000 ( ) 't' 00 )", code: "82", three: "82 ( 0000 't' 00 )"},
		{name: "a SUBSCRIBE of nothing (MQTT-3.8.3-2)", five: "82 ( 0001 ( ) )", code: "82", three: "82 ( 0001 )"},
		{name: "a SUBSCRIBE without options", five: "82 ( 0001 ( ) 't' )", code: "81", three: "82 ( 0001 't' )"},
		{name: "options that are reserved (MQTT-3.8.3-5)", five: "82 ( 0001 ( ) 't' 40 )", code: "81", three: "82 ( 0001 't' 04 )"},
		{name: "a subscription of QoS 3", five: "82 ( 0001 ( ) 't' 03 )", code: "81", three: "82 ( 0001 't' 03 )"},
		{name: "retain handling 3", five: "82 ( 0001 ( ) 't' 30 )", code: "82"},
		{name: "a shared subscription without its own (MQTT-3.8.3-4)", five: "82 ( 0001 ( ) '$share/g/t' 04 )", code: "82"},
		{name: "a subscription identifier of 0", five: "82 ( 0001 ( 0b 00 ) 't' 00 )", code: "82"},
		{name: "two subscription identifiers", five: "82 ( 0001 ( 0b 01 0b 02 ) 't' 00 )", code: "82"},
		{name: "a filter that is not UTF-8 (MQTT-3.8.3-1)", five: "82 ( 0001 ( ) 0001 ff 00 )", code: "81", three: "82 ( 0001 0001 ff 00 )"},
		{name: "too many topics", five: "82 ( 0001 ( ) " + filters("'t' 00 ") + ")", code: "97", three: "82 ( 0001 " + filters("'t' 00 ") + ")"},
		{name: "flags of an UNSUBSCRIBE (MQTT-3.10.1-1)", five: "a0 ( 0001 ( ) 't' )", code: "81", three: "a0 ( 0001 't' )"},
		{name: "an UNSUBSCRIBE of id 0", five: "a2 ( 0000 ( ) 't' )", code: "82", three: "a2 ( 0000 't' )"},
		{name: "an UNSUBSCRIBE of nothing (MQTT-3.10.3-2)", five: "a2 ( 0001 ( ) )", code: "82", three: "a2 ( 0001 )"},
		{name: "a subscription identifier in an UNSUBSCRIBE", five: "a2 ( 0001 ( 0b 01 ) 't' )", code: "82"},
		{name: "a filter that is not UTF-8 in an UNSUBSCRIBE", five: "a2 ( 0001 ( ) 0001 ff )", code: "81", three: "a2 ( 0001 0001 ff )"},

		{name: "a PINGREQ with a body", five: "c0 ( 00 )", code: "81", three: "c0 ( 00 )"},
		{name: "flags of a PINGREQ", five: "c1 ( )", code: "81", three: "c1 ( )"},
		{name: "flags of a DISCONNECT (MQTT-3.14.1-1)", five: "e1 ( )", code: "81", three: "e1 ( )"},
		{name: "a DISCONNECT with a body in 3.1.1", three: "e0 ( 00 )"},
		{name: "a DISCONNECT of a server's code (MQTT-3.14.2-1)", five: "e0 ( 8e )", code: "82"},
		{name: "a DISCONNECT of no code", five: "e0 ( 42 ( ) )", code: "82"},
		{name: "a DISCONNECT to another server", five: "e0 ( 00 ( 1c 'x' ) )", code: "82"},
		{name: "a session that begins to last at its end", five: "e0 ( 00 ( 11 0000001e ) )", code: "82"},
	} {
		if tc.closed == "" {
			tc.closed = "1002"
		}
		if tc.closed3 == "" {
			tc.closed3 = tc.closed
		}
		if tc.five != "" {
			t.Run("5.0: "+tc.name, func(t *testing.T) {
				c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
				c.packets("10 ( 'MQTT' 05 02 003c ( ) '' )")
				c.want("20 ( 00 00 ( 21 0400 25 00 27 00010000 12 0020 *32 28 00 2a 00 ) )")
				c.packets(tc.five)
				c.wantDisconnect(tc.code)
				c.want("close " + tc.closed)
			})
		}
		if tc.three != "" {
			t.Run("3.1.1: "+tc.name, func(t *testing.T) {
				c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
				c.packets("10 ( 'MQTT' 04 02 003c '' )")
				c.want("20 ( 00 00 )")
				c.packets(tc.three)
				c.want("close " + tc.closed3)
			})
		}
	}
	t.Run("text", func(t *testing.T) {
		c := s.connect(t, engine.Identity{})
		c.packets("10 ( 'MQTT' 05 02 003c ( ) 'a' )")
		c.want("20 ( 00 00 ( 21 0400 25 00 27 00010000 28 00 2a 00 ) )")
		c.Write(frame(1, []byte("hello")))
		c.wantDisconnect("81")
		c.want("close 1003")
	})
	t.Run("text before CONNECT", func(t *testing.T) {
		c := s.connect(t, engine.Identity{})
		c.Write(frame(1, []byte("hello")))
		c.want("close 1003")
	})
}

// What is as large as may be is taken, in one WebSocket message or in several.
func TestLargestPacket(t *testing.T) {
	s := serve(t, engine.Options{Limits: engine.Limits{MessageBytes: 1 << 16}}, false)
	c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
	c.packets("10 ( 'MQTT' 05 02 003c ( ) 'a' )")
	c.want("20 ( 00 00 ( 21 0400 25 00 27 00010000 28 00 2a 00 ) )")
	p, err := parseNotation("32 ( 't' 0001 ( ) *65526 )")
	if err != nil || len(p.bytes) != 1<<16 {
		t.Fatalf("it has %d bytes, %v", len(p.bytes), err)
	}
	c.send(p.bytes)
	c.want("40 ( 0001 )")
	c.send(p.bytes[:1<<15])
	c.send(p.bytes[1<<15:])
	c.want("40 ( 0001 )")
}

// A CONNACK that is larger than the client's Maximum Packet Size is not sent: first it
// goes without its user properties, then without its reason, then not at all.
func TestConnackWithinTheMaximumPacketSize(t *testing.T) {
	answer := ""
	s, _ := upstream(t, answering(&answer))
	const (
		bare    = "20 ( 00 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 ) )" // 19 bytes
		given   = "20 ( 00 00 ( 21 0400 25 00 27 00100000 12 0020 *32 28 00 2a 00 ) )"
		user    = "20 ( 00 00 ( 21 0400 25 00 27 00100000 28 00 2a 00 26 'n' 'v' ) )" // 26 bytes
		accept  = `200 {"mqtt":{"userProperties":[{"name":"n","value":"v"}]}}`
		refuse  = `401 {"mqtt":{"code":138,"reason":"no","userProperties":[{"name":"n","value":"seven c"}]}}`
		verbose = `401 {"mqtt":{"code":138,"reason":"fifteen letters","userProperties":[]}}`
	)
	for _, tc := range []struct {
		name   string
		most   int
		id     string
		answer string
		want   string // empty for nothing
		closed string // empty for not
	}{
		{"accepted, with all", 26, "a", accept, user, ""},
		{"accepted, without user properties", 25, "a", accept, bare, ""},
		{"accepted, as small as can be", 19, "a", accept, bare, ""},
		{"accepted, too large", 18, "a", accept, "20 ( 00 83 ( ) )", "1000"},
		{"accepted, with an id", 54, "", accept, given, ""},
		{"accepted, too large with an id", 53, "", accept, "20 ( 00 83 ( ) )", "1000"},
		{"accepted, no room for a refusal", 4, "a", accept, "", "1009"},
		{"refused, with all", 23, "a", refuse, "20 ( 00 8a ( 1f 'no' 26 'n' 'seven c' ) )", "1000"},
		{"refused, without user properties", 22, "a", refuse, "20 ( 00 8a ( 1f 'no' ) )", "1000"},
		{"refused, without a reason", 22, "a", verbose, "20 ( 00 8a ( ) )", "1000"},
		{"no room for any packet", 1, "a", refuse, "", "1009"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			answer = tc.answer
			c := s.connect(t, engine.Identity{})
			c.packets(fmt.Sprintf("10 ( 'MQTT' 05 02 003c ( 27 %08x ) '%s' )", tc.most, tc.id))
			if tc.want != "" {
				_, p, err := c.read()
				want, _ := parseNotation(tc.want)
				if err != nil || len(p) > tc.most || !want.matches(p) {
					t.Fatalf("got %x, %v; want %s of at most %d bytes", p, err, want, tc.most)
				}
			}
			if tc.closed != "" {
				c.want("close " + tc.closed)
				return
			}
			c.packets("c0 ( )")
			c.want("d0 ( )")
		})
	}
}

// An answer that is larger than the client's Maximum Packet Size is not sent either:
// the client is told that it asked for too much.
func TestSubackWithinTheMaximumPacketSize(t *testing.T) {
	s := serve(t, engine.Options{}, false)
	for _, kind := range []string{"82 ( 0001 ( ) %s )", "a2 ( 0001 ( ) %s )"} {
		filter := "'t' 00 "
		if kind[0] == 'a' {
			filter = "'t' "
		}
		c := s.connect(t, engine.Identity{UserID: "ann", Roles: everything})
		c.packets("10 ( 'MQTT' 05 02 003c ( 27 00000040 ) '' )")
		if _, _, err := c.read(); err != nil {
			t.Fatal(err)
		}
		c.packets(fmt.Sprintf(kind, strings.Repeat(filter, 59)))
		if _, p, err := c.read(); err != nil || len(p) != 64 || bytes.Contains(p[5:], []byte{0x80}) {
			t.Fatalf("got %x, %v", p, err)
		}
		c.packets(fmt.Sprintf(kind, strings.Repeat(filter, 60)))
		c.want("e0 ( 95 ( ) )") // for whose reason there is no room
		c.want("close 1009")
	}
}
