package mqtt

import "encoding/binary"

// Property is a name and a value of MQTT 5.0's user properties. There may be
// several of one name.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// properties are those of a packet that this door has a use for (5.0 section 2.2.2.2).
type properties struct {
	present       uint64 // a bit for each identifier that was there
	format        byte
	expiry        uint32
	contentType   string
	responseTopic string
	correlation   []byte
	subscription  int
	sessionExpiry uint32
	authMethod    string
	willDelay     uint32
	reason        string
	receiveMax    uint16
	maxPacket     uint32
	user          []Property
}

// has reports whether the property was there.
func (p *properties) has(id byte) bool { return p.present&(1<<id) != 0 }

// The identifiers of properties.
const (
	propFormat           = 1
	propExpiry           = 2
	propContentType      = 3
	propResponseTopic    = 8
	propCorrelation      = 9
	propSubscription     = 11
	propSessionExpiry    = 17
	propAssignedID       = 18
	propAuthMethod       = 21
	propAuthData         = 22
	propProblemInfo      = 23
	propWillDelay        = 24
	propResponseInfo     = 25
	propReason           = 31
	propReceiveMax       = 33
	propAliasMax         = 34
	propAlias            = 35
	propRetainAvailable  = 37
	propUser             = 38
	propMaxPacket        = 39
	propWildcards        = 40
	propSharedSubscribes = 42
)

// willProperties stands for the properties of a will among the packet types.
const willProperties = 0

// allowed says which properties a client may put into which packet, a bit for
// each identifier.
var allowed = [16]uint64{
	willProperties:  bits(propFormat, propExpiry, propContentType, propResponseTopic, propCorrelation, propWillDelay, propUser),
	typeConnect:     bits(propSessionExpiry, propAuthMethod, propAuthData, propProblemInfo, propResponseInfo, propReceiveMax, propAliasMax, propUser, propMaxPacket),
	typePublish:     bits(propFormat, propExpiry, propContentType, propResponseTopic, propCorrelation, propAlias, propUser),
	typePuback:      bits(propReason, propUser),
	typePubrec:      bits(propReason, propUser),
	typePubrel:      bits(propReason, propUser),
	typePubcomp:     bits(propReason, propUser),
	typeSubscribe:   bits(propSubscription, propUser),
	typeUnsubscribe: bits(propUser),
	typeDisconnect:  bits(propSessionExpiry, propReason, propUser),
}

func bits(ids ...byte) (set uint64) {
	for _, id := range ids {
		set |= 1 << id
	}
	return set
}

// properties reads the properties of a packet of the kind.
func (s *scanner) properties(kind byte) (p properties) {
	in := &scanner{b: s.take(s.varint())}
	for len(in.b) > 0 {
		id := in.varint()
		if in.bad != nil {
			break
		}
		if id > 63 || allowed[kind]&(1<<id) == 0 {
			in.fail(violation("property %d in a packet of type %d", id, kind))
			break
		}
		if p.has(byte(id)) && id != propUser {
			in.fail(violation("property %d is there twice", id))
			break
		}
		p.present |= 1 << id
		in.property(byte(id), &p)
	}
	if in.bad != nil {
		s.fail(in.bad)
	}
	return p
}

func (s *scanner) property(id byte, p *properties) {
	switch id {
	case propFormat:
		p.format = s.flag(id)
	case propExpiry:
		p.expiry = s.uint32()
	case propContentType:
		p.contentType = s.text()
	case propResponseTopic:
		p.responseTopic = s.text()
		if s.bad == nil && !publishable(p.responseTopic) {
			s.fail(violation("a response topic is empty or holds a wildcard"))
		}
	case propCorrelation:
		p.correlation = append([]byte{}, s.binary()...) // empty is not none
	case propSubscription:
		if p.subscription = s.varint(); p.subscription == 0 && s.bad == nil {
			s.fail(violation("a subscription identifier is 0"))
		}
	case propSessionExpiry:
		p.sessionExpiry = s.uint32()
	case propAuthMethod:
		p.authMethod = s.text()
	case propAuthData:
		s.binary()
	case propProblemInfo, propResponseInfo:
		s.flag(id)
	case propWillDelay:
		p.willDelay = s.uint32()
	case propReason:
		p.reason = s.text()
	case propReceiveMax:
		if p.receiveMax = s.uint16(); p.receiveMax == 0 && s.bad == nil {
			s.fail(violation("the receive maximum is 0"))
		}
	case propAliasMax, propAlias:
		s.uint16()
	case propMaxPacket:
		if p.maxPacket = s.uint32(); p.maxPacket == 0 && s.bad == nil {
			s.fail(violation("the maximum packet size is 0"))
		}
	case propUser:
		if len(p.user) == maxUserProperties {
			s.fail(&fault{codeQuotaExceeded, "a packet has more user properties than 256"})
			return
		}
		p.user = append(p.user, Property{s.text(), s.text()})
	}
}

// flag reads a property that is 0 or 1.
func (s *scanner) flag(id byte) byte {
	v := s.byte()
	if v > 1 {
		s.fail(violation("property %d is %d, expected 0 or 1", id, v))
	}
	return v
}

// The appenders make one property each, identifier included.

func appendText(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func appendTextProperty(dst []byte, id byte, s string) []byte { return appendText(append(dst, id), s) }

func appendUser(dst []byte, user []Property) []byte {
	for _, p := range user {
		dst = appendText(appendTextProperty(dst, propUser, p.Name), p.Value)
	}
	return dst
}

func userLen(user []Property) (n int) {
	for _, p := range user {
		n += 5 + len(p.Name) + len(p.Value)
	}
	return n
}

func appendVarint(dst []byte, v int) []byte {
	for v > 0x7f {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func varintLen(v int) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	}
	return 4
}
