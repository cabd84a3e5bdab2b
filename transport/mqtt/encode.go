package mqtt

import (
	"encoding/binary"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
	"github.com/fanfare/fanfare/transport/websocket"
)

// name is the subprotocol's name on the wire.
const name = "mqtt"

// The topics that are not groups.
const (
	reserved     = "$webpubsub/"
	sharedTopics = "$share/"
	eventTopics  = reserved + "server/events/"
	messageTopic = reserved + "server/messages"
)

// serverQoS is the QoS that what no MQTT client published is sent with, and that a
// subscription which no client made is granted.
const serverQoS = 1

// publication is what an MQTT client said about a message beyond what the engine
// knows: the Attributes of the message. It is immutable.
type publication struct {
	// topic is where the message goes if it has no group.
	topic         string
	qos           byte
	hasFormat     bool
	format        byte
	contentType   string
	responseTopic string
	correlation   []byte
	user          []Property
}

var _ engine.Sized = (*publication)(nil)

// Size implements [engine.Sized].
func (p *publication) Size() int {
	const own, property = 160, 32
	n := own + len(p.topic) + len(p.contentType) + len(p.responseTopic) + len(p.correlation)
	for _, u := range p.user {
		n += property + len(u.Name) + len(u.Value)
	}
	return n
}

// subscription is the options that a client joined a group with: the membership's.
type subscription struct {
	qos byte
	id  int // its identifier; 0 for none
}

// quality returns the QoS that m is delivered with to a member with the options.
func quality(m *engine.Message, membership any) byte {
	if m.Kind != engine.KindData {
		return 0
	}
	sent := byte(serverQoS)
	p, _ := m.Attributes.(*publication)
	if p != nil {
		sent = p.qos
	}
	granted := byte(serverQoS)
	switch s, ok := membership.(*subscription); {
	case ok:
		granted = s.qos
	case p != nil && p.topic != "":
		granted = 2 // an answer to the client's own request
	}
	return min(sent, granted)
}

// counts says which deliveries the client acknowledges.
func counts(m *engine.Message, membership any) bool { return quality(m, membership) > 0 }

// packetID returns the packet identifier of a delivery. Of those under way, which
// the window bounds far below 65535, no two have the same.
func packetID(seq engine.SequenceID) uint16 { return uint16((uint64(seq)-1)%65535) + 1 }

// encoder is MQTT's outgoing half.
type encoder struct {
	version byte
	// maxPacket is what the client takes, 0 for all: a publication that is larger is
	// left out (5.0 section 3.1.2.11.4).
	maxPacket uint32
}

var (
	_ subprotocol.Encoder = encoder{}
	_ websocket.Parting   = encoder{}
)

func (e encoder) Name() string                            { return name }
func (e encoder) Frame(*engine.Message) subprotocol.Frame { return subprotocol.BinaryFrame }
func (e encoder) Own() bool                               { return true }

// AppendBody implements [subprotocol.Encoder]. The body of a PUBLISH is its payload,
// in 5.0 behind those properties that are the same for all; everything else about it
// is the connection's own.
func (e encoder) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	switch m.Kind {
	case engine.KindData:
		if e.maxPacket > 0 && e.largest(m) > int(e.maxPacket) {
			return dst, false
		}
		if e.version == version5 {
			dst = appendShared(dst, m)
		}
		return append(dst, m.Payload.Data...), true
	case engine.KindConnected:
		c, ok := m.Attributes.(*connack)
		if !ok {
			return dst, false
		}
		return c.append(dst, e.version), true
	case engine.KindControl:
		c, ok := m.Attributes.(control)
		if !ok {
			return dst, false
		}
		return c.append(dst, e.version), true
	}
	return dst, false
}

// AppendOwn implements [subprotocol.Encoder].
func (e encoder) AppendOwn(dst []byte, m *engine.Message, own engine.Own) []byte {
	if m.Kind != engine.KindData {
		return dst
	}
	qos := quality(m, own.Membership)
	if own.Seq == 0 {
		qos = 0 // the engine was told not to count it
	}
	topic := topicOf(m)
	length := 2 + len(topic) + len(m.Payload.Data)
	if qos > 0 {
		length += 2
	}
	var room [16]byte
	mine := room[:0]
	shared := 0
	if e.version == version5 {
		mine = appendMine(mine, m, own.Membership)
		shared = sharedLen(m)
		length += varintLen(len(mine)+shared) + len(mine) + shared
	}
	first := byte(typePublish<<4) | qos<<1
	if own.Again && qos > 0 {
		first |= 8
	}
	dst = appendVarint(append(dst, first), length)
	dst = appendText(dst, topic)
	if qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, packetID(own.Seq))
	}
	if e.version == version5 {
		dst = append(appendVarint(dst, len(mine)+shared), mine...)
	}
	return dst
}

// topicOf returns the topic that m is published to.
func topicOf(m *engine.Message) string {
	if m.Group != "" {
		return string(m.Group)
	}
	if p, ok := m.Attributes.(*publication); ok && p.topic != "" {
		return p.topic
	}
	return messageTopic
}

// largest is the most that m comes to with any membership.
func (e encoder) largest(m *engine.Message) int {
	const id, expiry, subscription = 2, 5, 5
	n := 2 + len(topicOf(m)) + id + len(m.Payload.Data)
	if e.version == version5 {
		properties := subscription + sharedLen(m)
		if !m.Expires.IsZero() {
			properties += expiry
		}
		n += varintLen(properties) + properties
	}
	return 1 + varintLen(n) + n
}

// appendMine appends the properties of a PUBLISH that are the connection's own, or
// differ from one moment to the next.
func appendMine(dst []byte, m *engine.Message, membership any) []byte {
	if !m.Expires.IsZero() {
		// What is left of the publisher's interval (3.3.2.3.3), never 0.
		left := (time.Until(m.Expires) + time.Second - 1) / time.Second
		dst = binary.BigEndian.AppendUint32(append(dst, propExpiry), uint32(max(left, 1)))
	}
	if s, ok := membership.(*subscription); ok && s.id > 0 {
		dst = appendVarint(append(dst, propSubscription), s.id)
	}
	return dst
}

// contentTypes are the media types of data that no MQTT client published (Azure Web
// PubSub, cross-protocol communication).
var contentTypes = [...]string{
	engine.Text:     "text/plain",
	engine.JSON:     "application/json",
	engine.Binary:   "application/octet-stream",
	engine.Protobuf: "application/x-protobuf",
}

// described returns what is known of m's payload.
func described(m *engine.Message) (hasFormat bool, format byte, contentType string, p *publication) {
	if p, _ = m.Attributes.(*publication); p != nil {
		return p.hasFormat, p.format, p.contentType, p
	}
	text := m.Payload.Type == engine.Text || m.Payload.Type == engine.JSON
	if text {
		format = 1
	}
	return text, format, contentTypes[m.Payload.Type&3], nil
}

// appendShared appends the properties of a PUBLISH that are the same for all.
func appendShared(dst []byte, m *engine.Message) []byte {
	hasFormat, format, contentType, p := described(m)
	if hasFormat {
		dst = append(dst, propFormat, format)
	}
	if contentType != "" {
		dst = appendTextProperty(dst, propContentType, contentType)
	}
	if p == nil {
		return dst
	}
	if p.responseTopic != "" {
		dst = appendTextProperty(dst, propResponseTopic, p.responseTopic)
	}
	if p.correlation != nil {
		dst = append(binary.BigEndian.AppendUint16(append(dst, propCorrelation), uint16(len(p.correlation))), p.correlation...)
	}
	return appendUser(dst, p.user)
}

// sharedLen is the length of what appendShared appends.
func sharedLen(m *engine.Message) (n int) {
	hasFormat, _, contentType, p := described(m)
	if hasFormat {
		n += 2
	}
	if contentType != "" {
		n += 3 + len(contentType)
	}
	if p == nil {
		return n
	}
	if p.responseTopic != "" {
		n += 3 + len(p.responseTopic)
	}
	if p.correlation != nil {
		n += 3 + len(p.correlation)
	}
	return n + userLen(p.user)
}

// AppendParting implements [websocket.Parting]: a client of 5.0 is told why the
// connection ends. The close frame is then that of a normal end, since MQTT has said
// what there is to say.
func (e encoder) AppendParting(dst []byte, m *engine.Message) ([]byte, engine.CloseCode, string) {
	if m.Reason == engine.EndProtocol { // of which the client has been told
		return dst, m.CloseCode, m.Text
	}
	if code, ok := partingCode(m); ok && e.version == version5 {
		dst = parting{code: code, reason: m.Text}.within(e.maxPacket).append(dst, e.version)
	}
	return dst, engine.CloseNormal, ""
}

// control is a packet that is not a PUBLISH: the Attributes of a KindControl.
type control interface {
	append(dst []byte, version byte) []byte
}

// appendPacket appends a packet with the fixed header's first byte.
func appendPacket(dst []byte, first byte, body []byte) []byte {
	return append(appendVarint(append(dst, first), len(body)), body...)
}

// connack is a CONNACK (3.2).
type connack struct {
	present bool
	code    byte // in the words of the client's version
	// Of 5.0 alone; what is empty is left out.
	properties []byte
}

func (c *connack) append(dst []byte, version byte) []byte {
	body := []byte{0, c.code}
	if c.present {
		body[0] = 1
	}
	if version == version5 {
		body = append(appendVarint(body, len(c.properties)), c.properties...)
	}
	return appendPacket(dst, typeConnack<<4, body)
}

func (a ack) append(dst []byte, version byte) []byte {
	first := a.kind << 4
	if a.kind == typePubrel {
		first |= 2
	}
	body := binary.BigEndian.AppendUint16(nil, a.id)
	if version == version5 && a.code != codeSuccess {
		body = append(body, a.code)
	}
	return appendPacket(dst, first, body)
}

// results is a SUBACK (3.9) or an UNSUBACK (3.11).
type results struct {
	kind  byte
	id    uint16
	codes []byte
}

// size is the length of the packet, at most.
func (r *results) size() int {
	const id, properties = 2, 1
	n := id + properties + len(r.codes)
	return 1 + varintLen(n) + n
}

func (r *results) append(dst []byte, version byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, r.id)
	switch {
	case version == version5:
		body = append(append(body, 0), r.codes...)
	case r.kind == typeSuback:
		for _, c := range r.codes {
			body = append(body, min(c, codeUnspecified)) // the one failure that 3.1.1 knows
		}
	}
	return appendPacket(dst, r.kind<<4, body)
}

// pong is a PINGRESP (3.13).
type pong struct{}

func (pong) append(dst []byte, _ byte) []byte { return append(dst, typePingresp<<4, 0) }

// parting is a DISCONNECT from this end (3.14), which 3.1.1 does not have.
type parting struct {
	code   byte
	reason string
}

// within returns p without its reason, if that is too long for a packet or for the
// client's Maximum Packet Size (MQTT-3.14.2-3); 0 is none.
func (p parting) within(maxPacket uint32) parting {
	if len(p.reason) > maxReason || maxPacket > 0 && len(p.append(nil, version5)) > int(min(maxPacket, 1<<30)) {
		p.reason = ""
	}
	return p
}

func (p parting) append(dst []byte, version byte) []byte {
	if version != version5 {
		return dst
	}
	body := []byte{p.code}
	if p.reason == "" {
		body = append(body, 0)
	} else {
		reason := appendTextProperty(nil, propReason, p.reason)
		body = append(appendVarint(body, len(reason)), reason...)
	}
	return appendPacket(dst, typeDisconnect<<4, body)
}
