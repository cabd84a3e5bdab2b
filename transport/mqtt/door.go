package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/websocket"
)

// Options are the knobs of the door. Nil and zero mean the defaults.
type Options struct {
	// Logger gets a line when a client is disconnected for what it sent. Default: discard.
	Logger *slog.Logger
}

// Bounds of the service (Azure Web PubSub, MQTT connection parameters).
const (
	maxClientID    = 128
	maxKeepAlive   = 180 // seconds, in 3.1.1
	maxWillTopic   = 1024
	maxWillPayload = 2000
	maxSession     = 30 * time.Second
)

// Bounds of what is under way.
const (
	// maxWindow is how many deliveries may be unacknowledged, whatever the client
	// allows: half of what may wait for a connection by default.
	maxWindow = 500
	// maxInbound is how many of its publications a client may have under way: the
	// receive maximum that it is told.
	maxInbound = 1024
)

// Protocol returns MQTT as a protocol of the WebSocket door.
func Protocol(o *Options) websocket.Protocol {
	d := &door{log: slog.New(slog.DiscardHandler)}
	if o != nil && o.Logger != nil {
		d.log = o.Logger
	}
	return websocket.Protocol{Path: "/clients/mqtt/hubs/", Name: name, Serve: d.serve}
}

type door struct {
	log *slog.Logger
}

// refusal is a CONNECT that is answered by a CONNACK of code, in the words of 5.0.
type refusal struct {
	code byte
	err  *engine.Error
}

func refuse(code byte, rule, format string, args ...any) *refusal {
	return &refusal{code, engine.Errorf(engine.CodeInvalid, rule, format, args...)}
}

// knock is one client that has come in by the handshake.
type knock struct {
	door    *door
	guest   *websocket.Guest
	split   splitter
	connect *connect
}

// serve lets a client in that has been authenticated, if its CONNECT and the hub
// agree.
func (d *door) serve(ctx context.Context, g *websocket.Guest) {
	k := &knock{door: d, guest: g, split: splitter{limit: g.Limits().MessageBytes}}
	var bad *fault
	err := g.Receive(func(p []byte) bool {
		var done bool
		done, bad = k.first(p)
		return !done && bad == nil
	})
	if err != nil {
		return // the door has said why
	}
	switch {
	case bad != nil && k.connect != nil:
		k.turnAway(refuse(bad.code, "mqtt.connect", "The CONNECT cannot be taken: %s.", bad.detail))
		return
	case bad != nil: // before there is a version to answer in, or one that has words for it (4.13)
		g.Refuse(engine.Errorf(engine.CodeInvalid, "mqtt.connect", "%s", bad.detail), nil, engine.CloseProtocolError, "The first packet is no CONNECT that can be read.")
		return
	}
	if r := k.check(); r != nil {
		k.turnAway(r)
		return
	}
	if err := k.enter(ctx); err != nil {
		k.turnAwayBy(err)
	}
}

// first looks for the CONNECT in p and reports whether it is complete.
func (k *knock) first(p []byte) (done bool, _ *fault) {
	b := k.split.add(p)
	if len(b) > 0 && b[0] != typeConnect<<4 {
		return false, violation("the first packet begins with 0x%02x, expected a CONNECT, 0x10", b[0])
	}
	_, body, rest, ok, bad := k.split.next(b)
	if bad != nil {
		return false, bad
	}
	if !ok {
		k.split.keep(b)
		return false, nil
	}
	c, bad := parseConnect(body)
	if bad == nil || bad.code == codeUnsupportedVersion || c != nil && c.version == version5 {
		k.connect = c
	}
	if bad == nil {
		k.split.keep(rest)
	}
	return true, bad
}

// check applies the bounds of the service and what it lacks.
func (k *knock) check() *refusal {
	c := k.connect
	switch {
	case c.clientID == "" && c.version == version311 && !c.clean:
		return refuse(codeClientID, "mqtt.clientId", "A client of MQTT 3.1.1 without a client id must ask for a clean session.")
	case len(c.clientID) > maxClientID || strings.IndexFunc(c.clientID, func(r rune) bool {
		return (r < '0' || '9' < r) && (r < 'A' || 'Z' < r) && (r < 'a' || 'z' < r)
	}) >= 0:
		return refuse(codeClientID, "mqtt.clientId", "A client id has 1 to %d letters and digits; this one, of %d bytes, does not.", maxClientID, len(c.clientID))
	case c.version == version311 && (c.keepAlive == 0 || c.keepAlive > maxKeepAlive):
		return refuse(codeUnspecified, "mqtt.keepAlive", "The keep-alive of MQTT 3.1.1 is 1 to %d s here; this client asks for %d.", maxKeepAlive, c.keepAlive)
	case c.properties.has(propAuthData) && !c.properties.has(propAuthMethod):
		return refuse(codeProtocolError, "mqtt.authentication", "The CONNECT has Authentication Data and no Authentication Method, which says what it is.")
	case c.properties.has(propAuthMethod):
		return refuse(codeAuthMethod, "mqtt.authentication", "There is no extended authentication here: prove yourself by a token in the handshake, or by user name and password.")
	}
	if r := k.checkSize(); r != nil {
		return r
	}
	return c.will.check()
}

// checkSize refuses a client whose Maximum Packet Size is too small for the CONNACK
// that accepts it (MQTT-3.1.2-24). Its user properties do not count: they are left out.
func (k *knock) checkSize() *refusal {
	most := int64(k.connect.properties.maxPacket)
	if most == 0 {
		return nil
	}
	id := engine.ConnID(newID()) // as long as the one that may be assigned
	if n := len(k.connack(nil, false, id).append(nil, version5)); int64(n) > most {
		return refuse(codeImplementation, "mqtt.maximumPacketSize", "The CONNACK has %d bytes, and the client's Maximum Packet Size is %d.", n, most)
	}
	return nil
}

// check applies the bounds of the service to a will; nil is none.
func (w *will) check() *refusal {
	if w == nil {
		return nil
	}
	switch {
	case w.retain:
		return refuse(codeRetain, "mqtt.retain", "There are no retained messages here; the will asks to be one.")
	case len(w.payload) > maxWillPayload:
		return refuse(codePacketTooLarge, "mqtt.will", "The will has %d bytes, at most %d are allowed.", len(w.payload), maxWillPayload)
	case w.properties.format == 1 && !utf8.Valid(w.payload):
		return refuse(codeFormatInvalid, "mqtt.will", "The payload format indicator of the will says UTF-8, and its payload is not.")
	case len(w.topic) > maxWillTopic || !publishable(w.topic) || strings.HasPrefix(w.topic, reserved):
		return refuse(codeTopicInvalid, "mqtt.will", "The topic of a will has 1 to %d bytes and no wildcard, and does not begin with %s.", maxWillTopic, reserved)
	}
	if _, err := engine.ParseGroupName(w.topic); err != nil {
		return refuse(codeTopicInvalid, "mqtt.will", "The topic of a will may not be blank.")
	}
	return nil
}

// publishable reports whether s can be a topic name (4.7.1, 4.7.3).
func publishable(s string) bool { return s != "" && !strings.ContainsAny(s, "+#") }

// turnAway answers the CONNECT with a refusal.
func (k *knock) turnAway(r *refusal) {
	code, answer := r.code, &Answer{Reason: r.err.Message}
	if k.connect.form() != version5 {
		code = returnCode(code)
	}
	k.goodbye(code, answer, r.err)
}

// turnAwayBy does so in the words of the event handler, if the hub's error has any.
func (k *knock) turnAwayBy(err error) {
	code, answer := admitCode(k.connect.version, err)
	var e *engine.Error
	if answer.Reason == "" && errors.As(err, &e) && e.Status == 0 {
		answer.Reason = e.Message
	}
	k.goodbye(code, answer, err)
}

func (k *knock) goodbye(code byte, a *Answer, err error) {
	version := k.connect.form()
	most := int(min(k.connect.properties.maxPacket, 1<<30))
	for _, properties := range a.properties(version) {
		packet := (&connack{code: code, properties: properties}).append(nil, version)
		if most == 0 || len(packet) <= most {
			k.guest.Refuse(err, packet, engine.CloseNormal, "")
			return
		}
	}
	k.guest.Refuse(err, nil, engine.CloseTooLarge, "The CONNACK is larger than the client's Maximum Packet Size.")
}

// properties are those of a CONNACK that refuses, from all of them to none: the first
// ones go with which the packet is within the client's Maximum Packet Size
// (MQTT-3.2.2-19, MQTT-3.2.2-20).
func (a *Answer) properties(version byte) [][]byte {
	if version != version5 {
		return [][]byte{nil}
	}
	var reason []byte
	if a.Reason != "" && len(a.Reason) <= maxReason && encodable(a.Reason) {
		reason = appendTextProperty(nil, propReason, a.Reason)
	}
	return [][]byte{appendUser(slices.Clip(reason), fitting(a.UserProperties)), reason, nil}
}

// maxReason bounds the text that goes into a packet as its reason.
const maxReason = 1024

// fitting returns the user properties that a packet can hold: a handler's, who need
// not know MQTT's bounds.
func fitting(user []Property) []Property {
	var fit []Property
	for _, p := range user {
		if len(fit) < maxUserProperties && len(p.Name) <= 0xffff && len(p.Value) <= 0xffff && encodable(p.Name) && encodable(p.Value) {
			fit = append(fit, p)
		}
	}
	return fit
}

// encodable reports whether s can be a UTF-8 Encoded String.
func encodable(s string) bool { return strings.ToValidUTF8(s, "") == s && strings.IndexByte(s, 0) < 0 }

// newID makes an id for a network connection or a session.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// enter asks the hub and opens, or resumes, the session. The event handler is asked
// about every CONNECT; what it says about user, groups and roles counts for a new
// session alone (Azure Web PubSub, MQTT cloud events).
func (k *knock) enter(ctx context.Context) error {
	c := k.connect
	details := &Details{PhysicalConnectionID: newID(), Connect: c.forHandlers()}
	r := k.guest.Request()
	r.ConnID = engine.ConnID(c.clientID)
	r.TakeOver = true
	r.Subprotocol = name
	r.Details = details
	a, err := k.guest.Hub().Admit(ctx, r)
	if err != nil {
		return err
	}
	if chosen := a.Subprotocol(); chosen != "" && !strings.EqualFold(chosen, name) {
		err := engine.Errorf(engine.CodeInternal, "connect.subprotocol", "The event handler chose another subprotocol than %s for a client that speaks it.", name)
		a.Abandon(err.Message)
		return err
	}
	answer, _ := a.Details().(*Answer)
	s := &session{
		door: k.door, version: c.version, lasts: k.expiry() > 0, maxPacket: c.properties.maxPacket,
		split: k.split, received: k.guest.Received(),
	}
	if !c.clean && c.clientID != "" {
		recovery, err := a.Recover(ctx)
		if err == nil {
			return k.resume(s, recovery, details, answer)
		}
		if engine.CodeOf(err) != engine.CodeNotFound {
			a.Abandon("The client id is that of another client's session.")
			return err
		}
	}
	s.state = &state{id: newID()}
	s.details.Store(details.session(s.state.id))
	o := k.openOptions(s, answer, false, a.ConnID())
	o.Subprotocol, o.Numbered = name, true
	o.Recovery, o.Session, o.Details = k.expiry(), s.state, s.details.Load()
	s.wire = k.guest.Wire(s)
	if _, err := a.Open(s.wire, o); err != nil {
		return err
	}
	s.begin(k.guest)
	return nil
}

// resume puts the session onto its new wire.
func (k *knock) resume(s *session, r *engine.Recovery, details *Details, answer *Answer) error {
	st, ok := r.Session().(*state)
	if !ok { // adopted from another node, by somebody who does not know Unmarshal
		return engine.Errorf(engine.CodeInternal, "mqtt.session", "The session is not one of MQTT's.")
	}
	s.state = st
	s.details.Store(details.session(s.state.id))
	s.wire = k.guest.Wire(s)
	conn, err := r.Open(s.wire, k.openOptions(s, answer, true, r.ConnID()))
	if err != nil {
		return err
	}
	conn.SetDetails(s.details.Load())
	conn.SetRecovery(k.expiry())
	for _, id := range s.state.unreleased() {
		s.post(ack{kind: typePubrel, id: id})
	}
	s.begin(k.guest)
	return nil
}

// openOptions are those of a wire.
func (k *knock) openOptions(s *session, answer *Answer, present bool, id engine.ConnID) *engine.OpenOptions {
	c := k.connect
	window := maxWindow
	if n := int(c.properties.receiveMax); n > 0 {
		window = min(window, n)
	}
	return &engine.OpenOptions{
		Counted:  counts,
		Encoding: websocket.Frames(encoder{c.version, c.properties.maxPacket}),
		Window:   window,
		// What it has of an earlier network connection and has not completed.
		UnderWay: s.state.waiting(),
		// Half as long again as the client promised (3.1.2.10). One that promised
		// nothing is asked by the wire's own pings.
		Silence:   time.Duration(c.keepAlive) * time.Second * 3 / 2,
		WirePings: c.keepAlive == 0,
		Bind:      func(conn *engine.Conn, wire engine.WireID) { s.conn, s.id = conn, wire },
		Resume:    s.resume,
		Ended:     s.ended,
		Hello:     k.connack(answer, present, id),
		Last:      c.last(),
	}
}

// connack accepts the client and says what of its wishes it gets.
func (k *knock) connack(answer *Answer, present bool, id engine.ConnID) *connack {
	c := k.connect
	a := &connack{present: present}
	if c.version != version5 {
		return a
	}
	p := a.properties
	if want := time.Duration(c.properties.sessionExpiry) * time.Second; want > maxSession {
		p = binary.BigEndian.AppendUint32(append(p, propSessionExpiry), uint32(maxSession/time.Second))
	}
	p = binary.BigEndian.AppendUint16(append(p, propReceiveMax), maxInbound)
	p = append(p, propRetainAvailable, 0)
	p = binary.BigEndian.AppendUint32(append(p, propMaxPacket), uint32(min(k.guest.Limits().MessageBytes, 1<<28)))
	if c.clientID == "" {
		p = appendTextProperty(p, propAssignedID, string(id))
	}
	p = append(p, propWildcards, 0, propSharedSubscribes, 0)
	if answer != nil {
		a.properties = appendUser(slices.Clip(p), fitting(answer.UserProperties))
		if most := c.properties.maxPacket; most == 0 || int64(len(a.append(nil, version5))) <= int64(most) {
			return a
		}
	}
	a.properties = p // without them (MQTT-3.2.2-20)
	return a
}

// expiry is how long the session is to outlive its network connection.
func (k *knock) expiry() time.Duration {
	c := k.connect
	switch {
	case c.version == version5:
		return min(time.Duration(c.properties.sessionExpiry)*time.Second, maxSession)
	case c.clean:
		return 0
	}
	return maxSession
}

// forHandlers is what the connect handler is shown of the packet.
func (c *connect) forHandlers() *Connect {
	h := &Connect{ProtocolVersion: int(c.version), CleanStart: c.clean, UserProperties: c.properties.user}
	if c.hasUsername {
		h.Username = &c.username
	}
	if c.hasPassword {
		h.Password = append([]byte{}, c.password...)
	}
	return h
}

// last is the will, or that there is none.
func (c *connect) last() *engine.LastMessage {
	w := c.will
	if w == nil {
		return &engine.LastMessage{}
	}
	r := w.properties.request(engine.GroupName(w.topic), w.qos, w.payload)
	return &engine.LastMessage{Request: r, Away: time.Duration(w.properties.willDelay) * time.Second}
}
