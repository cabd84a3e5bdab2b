package mqtt

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// The packet types of MQTT (5.0 section 2.1.2; 3.1.1 has all but AUTH).
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

// The protocol levels (3.1.2.2).
const (
	version311 = 4
	version5   = 5
)

// Bounds of what one packet may hold, beyond its size.
const (
	maxTopics         = 256 // of one SUBSCRIBE or UNSUBSCRIBE
	maxUserProperties = 256
)

// fault is a packet that breaks the protocol, or a bound. It ends the connection
// with code, where the client's version has a packet for that.
type fault struct {
	code   byte
	detail string // for the log; it quotes no payload
}

func (f *fault) Error() string { return fmt.Sprintf("mqtt: %s (reason code 0x%02x)", f.detail, f.code) }

func malformed(format string, args ...any) *fault {
	return &fault{codeMalformed, fmt.Sprintf(format, args...)}
}

func violation(format string, args ...any) *fault {
	return &fault{codeProtocolError, fmt.Sprintf(format, args...)}
}

// splitter makes packets of a client's bytes, which come in messages that may
// hold less than a packet or more (5.0 section 6: MQTT-6.0.0-2). Between packets it
// holds nothing; while one is incomplete it holds what has arrived of it, never
// room for what was announced.
type splitter struct {
	limit int // of a packet, fixed header included
	part  []byte
	large bool // part is the end of something larger
}

// add takes p behind what it holds, and returns all of that to be read by next. The
// result is valid until the next call, or as long as p if it held nothing.
func (s *splitter) add(p []byte) []byte {
	if len(s.part) == 0 {
		return p
	}
	s.part = append(s.part, p...)
	return s.part
}

// keep holds rest, the end of what add returned, which next could not read or nobody
// wanted to.
func (s *splitter) keep(rest []byte) {
	switch {
	case len(rest) == 0:
		s.part, s.large = nil, false
	case len(rest) == len(s.part) && !s.large: // all of it: a packet that comes in small pieces is not copied for each
	default:
		s.part, s.large = append([]byte(nil), rest...), false
	}
}

// leave is keep for many packets that are taken off a few at a time: they are not
// copied for each.
func (s *splitter) leave(rest []byte) {
	if len(s.part) == 0 || len(rest) < smallRest {
		s.keep(rest)
		return
	}
	s.part, s.large = rest, true
}

// smallRest is what leave copies, to give back the memory of what it is the end of.
const smallRest = 4 << 10

// next splits the first packet off b: its first byte, what follows its fixed
// header, and what follows the packet. ok is false if b does not hold it whole.
func (s *splitter) next(b []byte) (first byte, body, rest []byte, ok bool, bad *fault) {
	length, shift := 0, 0
	for i := 1; i < len(b); i++ {
		length |= int(b[i]&0x7f) << shift
		if b[i]&0x80 == 0 {
			if shift > 0 && b[i] == 0 {
				return 0, nil, nil, false, malformed("a remaining length is not written in the fewest bytes")
			}
			if i+1+length > s.limit {
				return 0, nil, nil, false, &fault{codePacketTooLarge, fmt.Sprintf("a packet has %d bytes, limits.messageBytes allows %d", i+1+length, s.limit)}
			}
			if i+1+length > len(b) {
				return 0, nil, nil, false, nil
			}
			return b[0], b[i+1 : i+1+length], b[i+1+length:], true, nil
		}
		if shift += 7; shift > 21 {
			return 0, nil, nil, false, malformed("a remaining length has more than four bytes")
		}
	}
	return 0, nil, nil, false, nil
}

// flags checks the low bits of a packet's first byte, which are fixed for all
// packets but PUBLISH (2.1.3).
func checkFlags(first byte) *fault {
	want := byte(0)
	switch first >> 4 {
	case typePublish:
		return nil
	case typePubrel, typeSubscribe, typeUnsubscribe:
		want = 2
	}
	if first&0x0f != want {
		return malformed("packet type %d has the flags %d, expected %d", first>>4, first&0x0f, want)
	}
	return nil
}

// scanner reads the fields of one packet. After the first mistake it yields zeros.
type scanner struct {
	b   []byte
	bad *fault
}

func (s *scanner) fail(f *fault) {
	if s.bad == nil {
		s.bad = f
	}
	s.b = nil
}

func (s *scanner) take(n int) []byte {
	if len(s.b) < n {
		s.fail(malformed("a packet ends inside a field"))
		return nil
	}
	p := s.b[:n]
	s.b = s.b[n:]
	return p
}

func (s *scanner) byte() byte {
	if p := s.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (s *scanner) uint16() uint16 {
	if p := s.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (s *scanner) uint32() uint32 {
	if p := s.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

// varint reads a Variable Byte Integer (5.0 section 1.5.5).
func (s *scanner) varint() int {
	v := 0
	for shift := 0; shift <= 21; shift += 7 {
		c := s.byte()
		v |= int(c&0x7f) << shift
		if c&0x80 == 0 {
			if shift > 0 && c == 0 {
				s.fail(malformed("a variable byte integer is not written in the fewest bytes"))
			}
			return v
		}
	}
	s.fail(malformed("a variable byte integer has more than four bytes"))
	return 0
}

// binary reads Binary Data. The result is part of the packet.
func (s *scanner) binary() []byte { return s.take(int(s.uint16())) }

// text reads a UTF-8 Encoded String (1.5.4), which must not hold U+0000.
func (s *scanner) text() string {
	p := s.binary()
	if !utf8.Valid(p) {
		s.fail(malformed("a string is not UTF-8"))
		return ""
	}
	for _, c := range p {
		if c == 0 {
			s.fail(malformed("a string holds U+0000"))
			return ""
		}
	}
	return string(p)
}

// id reads a packet identifier.
func (s *scanner) id() uint16 {
	v := s.uint16()
	if v == 0 && s.bad == nil {
		s.fail(violation("a packet identifier is 0"))
	}
	return v
}

// reason reads the reason code of a packet of the kind.
func (s *scanner) reason(kind byte) byte {
	c := s.byte()
	if s.bad == nil && !sent[kind][c] {
		s.fail(violation("a packet of type %d has the reason code 0x%02x", kind, c))
	}
	return c
}

// end reports the first mistake; bytes that are left are one.
func (s *scanner) end() *fault {
	if s.bad == nil && len(s.b) > 0 {
		s.fail(malformed("%d bytes follow the last field of a packet", len(s.b)))
	}
	return s.bad
}

// connect is a CONNECT packet (3.1).
type connect struct {
	version     byte
	clean       bool
	keepAlive   uint16
	clientID    string
	hasUsername bool
	username    string
	hasPassword bool
	password    []byte
	will        *will
	properties  properties
}

// form returns the version whose packets the client is answered in. One whose version
// is not spoken here is told so in the nearest one: levels above 5 in 5.0, whose
// CONNACK has room for a reason, those below in 3.1.1. The highest bit is not of the
// level: bridges between servers set it.
func (c *connect) form() byte {
	if c.version&0x7f >= version5 {
		return version5
	}
	return version311
}

// will is the will message of a CONNECT packet.
type will struct {
	topic      string
	payload    []byte
	qos        byte
	retain     bool
	properties properties
}

// parseConnect reads a CONNECT packet. A version that is neither 3.1.1 nor 5.0 is a
// fault of codeUnsupportedVersion, with the version in the result.
func parseConnect(body []byte) (*connect, *fault) {
	s := &scanner{b: body}
	c := &connect{}
	if name := s.text(); name != "MQTT" && s.bad == nil {
		return nil, &fault{codeUnsupportedVersion, fmt.Sprintf("the protocol is called %.16q, expected \"MQTT\"", name)}
	}
	c.version = s.byte()
	if s.bad == nil && c.version != version311 && c.version != version5 {
		return c, &fault{codeUnsupportedVersion, fmt.Sprintf("the protocol level is %d, expected 4 (3.1.1) or 5 (5.0)", c.version)}
	}
	flags := s.byte()
	c.clean = flags&0x02 != 0
	c.keepAlive = s.uint16()
	hasWill := flags&0x04 != 0
	c.hasPassword, c.hasUsername = flags&0x40 != 0, flags&0x80 != 0
	switch {
	case s.bad != nil:
	case flags&0x01 != 0:
		s.fail(malformed("the reserved flag of a CONNECT is set"))
	case !hasWill && flags&0x38 != 0:
		s.fail(malformed("a CONNECT without a will has flags for one"))
	case flags&0x18 == 0x18:
		s.fail(malformed("the will's QoS is 3"))
	case c.version == version311 && c.hasPassword && !c.hasUsername:
		s.fail(malformed("a CONNECT has a password and no user name (MQTT-3.1.2-22)"))
	}
	if c.version == version5 {
		c.properties = s.properties(typeConnect)
	}
	c.clientID = s.text()
	if hasWill {
		w := &will{qos: flags >> 3 & 3, retain: flags&0x20 != 0}
		if c.version == version5 {
			w.properties = s.properties(willProperties)
		}
		w.topic = s.text()
		w.payload = append([]byte(nil), s.binary()...)
		c.will = w
	}
	if c.hasUsername {
		c.username = s.text()
	}
	if c.hasPassword {
		c.password = append([]byte(nil), s.binary()...)
	}
	return c, s.end()
}

// publish is a PUBLISH packet (3.3). The payload is part of the packet's bytes.
type publish struct {
	qos        byte
	dup        bool
	retain     bool
	topic      string
	id         uint16 // 0 for QoS 0
	properties properties
	payload    []byte
}

func parsePublish(version, first byte, body []byte) (*publish, *fault) {
	p := &publish{qos: first >> 1 & 3, dup: first&8 != 0, retain: first&1 != 0}
	if p.qos == 3 {
		return nil, malformed("the QoS of a PUBLISH is 3")
	}
	if p.qos == 0 && p.dup {
		return nil, malformed("a PUBLISH of QoS 0 is marked as sent before")
	}
	s := &scanner{b: body}
	p.topic = s.text()
	if p.qos > 0 {
		p.id = s.id()
	}
	if version == version5 {
		p.properties = s.properties(typePublish)
	}
	if s.bad != nil {
		return nil, s.bad
	}
	p.payload = s.b
	return p, nil
}

// ack is a PUBACK, PUBREC, PUBREL or PUBCOMP packet (3.4 to 3.7).
type ack struct {
	kind byte
	id   uint16
	code byte
}

func parseAck(version, first byte, body []byte) (ack, *fault) {
	s := &scanner{b: body}
	a := ack{kind: first >> 4, id: s.id()}
	if version == version5 && len(s.b) > 0 {
		a.code = s.reason(a.kind)
		if len(s.b) > 0 {
			s.properties(a.kind)
		}
	}
	return a, s.end()
}

// filter is one topic filter of a SUBSCRIBE, with its options.
type filter struct {
	topic   string
	qos     byte
	noLocal bool
}

// subscribe is a SUBSCRIBE packet (3.8), or an UNSUBSCRIBE packet (3.10), whose
// filters have no options.
type subscribe struct {
	id         uint16
	filters    []filter
	properties properties
}

func parseSubscribe(version byte, kind byte, body []byte) (*subscribe, *fault) {
	s := &scanner{b: body}
	p := &subscribe{id: s.id()}
	if version == version5 {
		p.properties = s.properties(kind)
	}
	for len(s.b) > 0 {
		if len(p.filters) == maxTopics {
			return nil, &fault{codeQuotaExceeded, fmt.Sprintf("a packet has more than %d topic filters", maxTopics)}
		}
		f := filter{topic: s.text()}
		if kind == typeSubscribe {
			o := s.byte()
			f.qos, f.noLocal = o&3, o&4 != 0
			reserved := byte(0xfc)
			if version == version5 {
				reserved = 0xc0
			}
			switch {
			case f.noLocal && version == version5 && strings.HasPrefix(f.topic, sharedTopics):
				s.fail(violation("a shared subscription has the No Local option (MQTT-3.8.3-4)"))
			case f.qos == 3 || o&reserved != 0:
				s.fail(malformed("the options of a subscription are 0x%02x", o))
			case version == version5 && o&0x30 == 0x30:
				s.fail(violation("the retain handling of a subscription is 3"))
			}
		}
		p.filters = append(p.filters, f)
	}
	if s.bad == nil && len(p.filters) == 0 {
		s.fail(violation("a packet has no topic filter"))
	}
	return p, s.end()
}

// disconnect is a DISCONNECT packet (3.14).
type disconnect struct {
	code       byte
	properties properties
}

func parseDisconnect(version byte, body []byte) (disconnect, *fault) {
	s := &scanner{b: body}
	var d disconnect
	if version == version5 && len(s.b) > 0 {
		d.code = s.reason(typeDisconnect)
		if len(s.b) > 0 {
			d.properties = s.properties(typeDisconnect)
		}
	}
	return d, s.end()
}
