package mqtt

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
	"github.com/fanfare/fanfare/transport/websocket"
)

// state is what an MQTT session remembers beyond one network connection, apart from
// what the engine keeps (4.1). It is the connection's OpenOptions.Session.
type state struct {
	id string // fixed at birth

	mu       sync.Mutex
	held     map[uint16]bool           // publications of QoS 2 that were taken and not released
	underWay int                       // publications of QoS 1 that are not acknowledged
	released []uint16                  // deliveries of QoS 2 whose PUBREL is not answered, in the order of the PUBRECs
	noLocal  map[engine.GroupName]bool // groups whose messages of its own the client does not want
}

// take notes an inbound publication. again says that one of QoS 2 has been taken
// before; full, that there are too many.
func (st *state) take(p *publish) (again, full bool) {
	if p.qos == 0 {
		return false, false
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if p.qos == 2 && st.held[p.id] {
		return true, false
	}
	if len(st.held)+st.underWay >= maxInbound {
		return false, true
	}
	if p.qos == 1 {
		st.underWay++
		return false, false
	}
	if st.held == nil {
		st.held = map[uint16]bool{}
	}
	st.held[p.id] = true
	return false, false
}

// settle notes that a publication was answered, by a refusal or not.
func (st *state) settle(qos byte, id uint16, refused bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case qos == 1:
		st.underWay--
	case qos == 2 && refused:
		delete(st.held, id)
	}
}

// release forgets an inbound publication of QoS 2 and reports whether it was there.
func (st *state) release(id uint16) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	there := st.held[id]
	delete(st.held, id)
	return there
}

// received notes that the client has a delivery of QoS 2. It reports false for one
// that it has told of before, and bounded false for too many.
func (st *state) received(id uint16) (fresh, bounded bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if slices.Contains(st.released, id) {
		return false, true
	}
	if len(st.released) >= maxInbound {
		return false, false
	}
	st.released = append(st.released, id)
	return true, true
}

// completed forgets such a delivery and reports whether it was there.
func (st *state) completed(id uint16) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	i := slices.Index(st.released, id)
	if i < 0 {
		return false
	}
	if st.released = slices.Delete(st.released, i, i+1); len(st.released) == 0 {
		st.released = nil
	}
	return true
}

// unreleased returns the deliveries whose PUBREL is not answered, in the order in which
// they are sent again (MQTT-4.6.0-4).
func (st *state) unreleased() []uint16 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return slices.Clone(st.released)
}

func (st *state) waiting() int {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.released)
}

// local notes whether the client wants its own messages to g.
func (st *state) local(g engine.GroupName, no bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !no {
		delete(st.noLocal, g)
		return
	}
	if st.noLocal == nil {
		st.noLocal = map[engine.GroupName]bool{}
	}
	st.noLocal[g] = true
}

func (st *state) isNoLocal(g engine.GroupName) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.noLocal[g]
}

// session is one network connection of an MQTT session: its packets, between a wire
// and the engine.
type session struct {
	// Fixed before the wire is read.
	door      *door
	version   byte
	lasts     bool   // the CONNECT asked for a session that outlives its wire
	maxPacket uint32 // what the client takes, 0 for all
	wire      transport.Wire
	state     *state
	received  func(int)
	conn      *engine.Conn
	id        engine.WireID

	details atomic.Pointer[Details]
	over    atomic.Bool // the logical connection has ended, or is another wire's
	stopped atomic.Bool // mirrors paused or yielded, for Wants

	in      sync.Mutex // guards the rest; held while packets are read, never by what the engine waits for
	split   splitter
	partial *engine.Unfinished // what the engine was told of split.part; nil for nothing
	control transport.ControlRate
	paused  bool // the engine's lane is full; it will call resume
	yielded bool // what split holds is for the wire's next turn
	deaf    bool // the client has said goodbye, or broke the protocol
}

var _ websocket.Session = (*session)(nil)

// Over implements [websocket.Session].
func (s *session) Over() bool { return s.over.Load() }

// Wants implements [websocket.Session]. It goes on with the packets that were left
// for this turn.
func (s *session) Wants() bool {
	if !s.stopped.Load() {
		return true
	}
	s.in.Lock()
	defer s.in.Unlock()
	if !s.yielded {
		return !s.stopped.Load()
	}
	s.yielded = false
	s.stopped.Store(false)
	s.complete() // from now on a part of a packet is timed
	return s.read(nil)
}

// Message implements [websocket.Session].
func (s *session) Message(f subprotocol.Frame, p []byte) (more bool) {
	if s.Over() {
		return true
	}
	s.in.Lock()
	defer s.in.Unlock()
	if f != subprotocol.BinaryFrame && !s.deaf {
		s.deaf = true // nothing behind it is carried out
		s.Refuse(engine.CloseUnsupported, "The subprotocol requires binary messages.", "a text message")
	}
	s.received(len(p))
	return s.read(p)
}

// read carries out the packets that p completes, and keeps what it does not. It
// reports false once the engine wants no more, or the client has had its turn. s.in
// is held.
func (s *session) read(p []byte) (more bool) {
	b := s.split.add(p)
	for n := 0; !s.deaf && !s.Over(); n++ { // another wire may have taken its place meanwhile
		first, body, rest, ok, bad := s.split.next(b)
		if bad != nil {
			s.fail(bad)
			break
		}
		if !ok {
			s.split.keep(b)
			s.track(s.conn.Unfinished)
			return true
		}
		s.complete()
		if n == packetsPerTurn {
			s.leave(b, true)
			s.wire.Resume()
			return false
		}
		b = rest
		more, bad := s.packet(first, body)
		if bad != nil {
			s.fail(bad)
			break
		}
		if !more && !s.deaf {
			s.leave(b, s.yielded)
			return false
		}
	}
	s.complete()
	s.split.keep(nil)
	return true
}

// begin starts reading the wire. What came behind the CONNECT is carried out first.
func (s *session) begin(g *websocket.Guest) {
	s.in.Lock()
	rest := s.split.part
	if len(rest) > 0 {
		s.leave(rest, true)
	}
	s.in.Unlock()
	g.Start()
	if len(rest) > 0 {
		s.wire.Resume()
	}
}

// resume is called by the engine once for each time that its lane was full. Packets
// that came with the one that filled it are carried out first.
func (s *session) resume() {
	s.in.Lock()
	defer s.in.Unlock()
	if !s.paused {
		return
	}
	s.paused = false
	s.complete()
	if !s.read(nil) {
		return
	}
	s.stopped.Store(false)
	s.wire.Resume()
}

// ended is called by the engine when the logical connection is over, or has another
// wire. The wire is read on, for the client's goodbye.
func (s *session) ended() {
	s.over.Store(true)
	if s.stopped.Swap(false) {
		s.wire.Resume()
	}
}

// WirePing implements [websocket.Session].
func (s *session) WirePing(payload []byte) {
	if s.Over() {
		return
	}
	s.conn.Post(&engine.Message{
		Kind:    engine.KindWirePong,
		Payload: engine.Payload{Type: engine.Binary, Data: append([]byte(nil), payload...)},
	})
}

// Heard implements [websocket.Session].
func (s *session) Heard() {
	if !s.Over() {
		s.conn.Heard()
	}
}

// Yield implements [websocket.Session].
func (s *session) Yield() { s.wire.Resume() }

// Stuck implements [websocket.Session]. The session may go on on another wire.
func (s *session) Stuck(detail string) { s.Gone(engine.CloseAbnormal, detail) }

// Writable implements [websocket.Session].
func (s *session) Writable() { s.conn.Writable() }

// Gone implements [websocket.Session]. To MQTT a close frame is a network connection
// that is lost: only a DISCONNECT takes leave.
func (s *session) Gone(code engine.CloseCode, text string) {
	if code == engine.CloseNormal {
		code = engine.CloseGoingAway // which does not end what can be recovered
	}
	s.over.Store(true)
	s.conn.Gone(s.id, code, text)
}

// Refuse implements [websocket.Session].
func (s *session) Refuse(code engine.CloseCode, reason, detail string) {
	s.end(closeReason(code), code, reason, detail)
}

// fail ends the connection because of f.
func (s *session) fail(f *fault) {
	s.deaf = true
	code := engine.CloseProtocolError
	if f.code == codePacketTooLarge {
		code = engine.CloseTooLarge
	}
	s.end(f.code, code, "", f.detail)
}

func (s *session) end(reason byte, code engine.CloseCode, text, detail string) {
	if s.Over() {
		return
	}
	c := s.conn
	s.door.log.Info("disconnected an MQTT client that broke its protocol", "rule", "mqtt.protocol", "connection", c.ID(), "hub", c.Hub().Name(),
		"reason", fmt.Sprintf("0x%02x", reason), "detail", detail)
	if text == "" {
		text = detail
	}
	c.EndAfter(s.id, func() {
		if s.Over() {
			return // meanwhile, or on another wire
		}
		if s.version == version5 {
			c.SetDetails(s.details.Load().parted(false, reason, nil))
			s.post(parting{code: reason, reason: text}.within(s.maxPacket))
		}
		c.EndOn(s.id, engine.EndProtocol, code, "", text)
	})
}

// post sends a packet to the client.
func (s *session) post(p control) {
	s.conn.Post(&engine.Message{Kind: engine.KindControl, Attributes: p})
}

// packet carries out one packet of the client. more is false if the engine wants no
// more for now. s.in is held.
func (s *session) packet(first byte, body []byte) (more bool, bad *fault) {
	if bad := checkFlags(first); bad != nil {
		return true, bad
	}
	switch kind := first >> 4; kind {
	case typePublish:
		p, bad := parsePublish(s.version, first, body)
		if bad != nil {
			return true, bad
		}
		return s.publish(p)
	case typePuback, typePubrec, typePubrel, typePubcomp:
		a, bad := parseAck(s.version, first, body)
		if bad != nil {
			return true, bad
		}
		news, bad := s.acknowledged(a)
		if bad != nil {
			return true, bad
		}
		return s.data(news), nil
	case typeSubscribe, typeUnsubscribe:
		p, bad := parseSubscribe(s.version, kind, body)
		if bad != nil {
			return true, bad
		}
		return s.subscribe(kind, p)
	case typePingreq:
		if len(body) > 0 {
			return true, malformed("a PINGREQ has a body")
		}
		s.post(pong{})
		return s.data(false), nil
	case typeDisconnect:
		d, bad := parseDisconnect(s.version, body)
		if bad != nil {
			return true, bad
		}
		return true, s.disconnected(d)
	case typeConnect:
		return true, violation("a second CONNECT")
	default:
		return true, violation("a packet of type %d, which a client does not send here", kind)
	}
}

// disconnected takes the client's leave.
func (s *session) disconnected(d disconnect) *fault {
	c := s.conn
	if d.properties.has(propSessionExpiry) {
		if d.properties.sessionExpiry > 0 && !s.lasts {
			return violation("a DISCONNECT gives a session a life that its CONNECT did not")
		}
		c.SetRecovery(min(time.Duration(d.properties.sessionExpiry)*time.Second, maxSession))
	}
	s.deaf = true
	c.SetDetails(s.details.Load().parted(true, d.code, d.properties.user))
	if s.version == version311 || d.code == codeSuccess {
		c.SetLast(nil, 0) // whoever leaves in peace leaves no will (3.14.4)
	}
	s.Gone(engine.CloseGoingAway, d.properties.reason)
	return nil
}

// acknowledged takes what the client says about deliveries, and about publications of
// its own. It reports whether that was news.
func (s *session) acknowledged(a ack) (news bool, _ *fault) {
	match := func(seq engine.SequenceID) bool { return packetID(seq) == a.id }
	switch a.kind {
	case typePuback:
		s.conn.AckOne(match)
		s.conn.Acknowledge(1)
	case typePubrec:
		if a.code >= codeUnspecified { // it does not want it, and that is all
			s.conn.AckOne(match)
			s.conn.Acknowledge(1)
			return true, nil
		}
		fresh, bounded := s.state.received(a.id)
		if !bounded {
			return false, &fault{codeReceiveMax, "a client acknowledges more deliveries than there can be"}
		}
		if fresh {
			s.conn.AckOne(match)
		}
		s.post(ack{kind: typePubrel, id: a.id})
		return fresh, nil
	case typePubrel:
		done := ack{kind: typePubcomp, id: a.id}
		there := s.state.release(a.id)
		if !there {
			done.code = codeIDNotFound
		}
		s.post(done)
		return there, nil
	case typePubcomp:
		if !s.state.completed(a.id) {
			return false, nil
		}
		s.conn.Acknowledge(1)
	}
	return true, nil
}

// subscribe carries out a SUBSCRIBE or an UNSUBSCRIBE. Its acknowledgement follows
// the last of the joins.
func (s *session) subscribe(kind byte, p *subscribe) (more bool, bad *fault) {
	r := &results{kind: kind + 1, id: p.id, codes: make([]byte, len(p.filters))}
	if n := r.size(); s.maxPacket > 0 && int64(n) > int64(s.maxPacket) {
		return true, &fault{codePacketTooLarge, fmt.Sprintf("the answer to %d topic filters has %d bytes, the client takes %d", len(p.filters), n, s.maxPacket)}
	}
	var left atomic.Int32
	left.Store(int32(len(p.filters)) + 1)
	done := func() {
		if left.Add(-1) == 0 {
			s.post(r)
		}
	}
	more = true
	for i, f := range p.filters {
		q, code := s.membership(kind, f, p.properties.subscription)
		r.codes[i] = code
		if q == nil {
			done()
			continue
		}
		q.OnLeave = func(member bool) {
			if !member {
				r.codes[i] = codeNoSubscription
			}
		}
		before := s.state.isNoLocal(q.Group)
		s.state.local(q.Group, kind == typeSubscribe && f.noLocal)
		ok := s.conn.Do(q, func(err error) {
			if err != nil { // nothing is kept of what was refused
				s.state.local(q.Group, before)
				r.codes[i] = filterCode(kind, err)
			}
			done()
		})
		more = more && ok
	}
	done()
	return more, nil
}

// membership returns the request that f comes to, and the code of its success; or no
// request, and what there is to say without one.
func (s *session) membership(kind byte, f filter, id int) (*engine.Request, byte) {
	granted := byte(codeSuccess)
	if kind == typeSubscribe {
		granted = f.qos
	}
	switch {
	case !wellFormed(f.topic):
		return nil, codeFilterInvalid
	case kind == typeUnsubscribe && (strings.HasPrefix(f.topic, sharedTopics) || !publishable(f.topic)):
		return nil, codeNoSubscription // there are none
	case strings.HasPrefix(f.topic, sharedTopics):
		return nil, codeSharedSubscriptions
	case !publishable(f.topic):
		return nil, codeWildcards
	case strings.HasPrefix(f.topic, reserved):
		return nil, granted // what is addressed to the client there reaches it anyway
	}
	g, err := engine.ParseGroupName(f.topic)
	if err != nil {
		return nil, codeFilterInvalid
	}
	if kind == typeUnsubscribe {
		return &engine.Request{Op: engine.OpLeave, Group: g}, granted
	}
	return &engine.Request{Op: engine.OpJoin, Group: g, Membership: &subscription{qos: f.qos, id: id}}, granted
}

// wellFormed reports whether s can be a topic filter: its wildcards stand for whole
// levels, and # for the last (4.7.1).
func wellFormed(s string) bool {
	levels := strings.Split(s, "/")
	for i, level := range levels {
		if len(level) > 1 && !publishable(level) || level == "#" && i < len(levels)-1 {
			return false
		}
	}
	return s != ""
}

// publish carries out a PUBLISH.
func (s *session) publish(p *publish) (more bool, bad *fault) {
	switch {
	case p.properties.has(propAlias):
		return true, &fault{codeTopicAlias, "a PUBLISH has a topic alias; there are none here"}
	case p.topic == "":
		return true, violation("a PUBLISH has no topic")
	case p.retain:
		return true, &fault{codeRetain, "a PUBLISH is to be retained; there are no retained messages here"}
	}
	again, full := s.state.take(p)
	if full {
		return true, &fault{codeReceiveMax, fmt.Sprintf("the client has %d publications under way, the most that is allowed", maxInbound)}
	}
	if again {
		s.post(ack{kind: typePubrec, id: p.id})
		return true, nil
	}
	q, code := s.request(p)
	switch {
	case q == nil && p.qos == 0: // which has no answer that could say so (3.3.2.1, 3.3.2.3.2)
		detail := "a PUBLISH of QoS 0 has a topic that cannot be published to"
		if code == codeFormatInvalid {
			detail = "a PUBLISH of QoS 0 has a payload or content type of another format than it says"
		}
		return true, &fault{code, detail}
	case q == nil:
		s.answer(p.qos, p.id, code)
		return true, nil
	}
	qos, id := p.qos, p.id // p is not kept
	event := q.Op == engine.OpEvent
	if event {
		q.OnReply = func(r *engine.EventReply) { s.replied(q, r) }
	}
	return s.conn.Do(q, func(err error) {
		code := byte(codeSuccess)
		switch {
		case err == nil:
		case event && engine.CodeOf(err) == engine.CodeInternal:
			s.failed(q, err) // which is an answer, too
		default:
			code = requestCode(err)
		}
		s.answer(qos, id, code)
	}), nil
}

// answer acknowledges a publication, or says why not. It has no words for that to a
// client of 3.1.1, whose connection is ended instead (3.1.1 section 3.3.5).
func (s *session) answer(qos byte, id uint16, code byte) {
	if qos == 0 {
		return // nobody waits for an answer
	}
	s.state.settle(qos, id, code >= codeUnspecified)
	if code >= codeUnspecified && s.version == version311 {
		s.end(code, engine.ClosePolicy, "", fmt.Sprintf("a PUBLISH was refused (reason code 0x%02x), and MQTT 3.1.1 has no packet that says so", code))
		return
	}
	kind := byte(typePuback)
	if qos == 2 {
		kind = typePubrec
	}
	s.post(ack{kind: kind, id: id, code: code})
}

// request returns what p asks of the engine; or none, and the code of its refusal.
func (s *session) request(p *publish) (*engine.Request, byte) {
	payload := append([]byte(nil), p.payload...)
	if p.properties.format == 1 && !utf8.Valid(payload) {
		return nil, codeFormatInvalid
	}
	if event, ok := strings.CutPrefix(p.topic, eventTopics); ok {
		n, err := engine.ParseEventName(event)
		if err != nil {
			return nil, codeTopicInvalid
		}
		if t := p.properties.contentType; t != "" {
			if _, _, err := mime.ParseMediaType(t); err != nil {
				return nil, codeFormatInvalid // it becomes a header
			}
		}
		q := p.properties.request("", p.qos, payload)
		q.Op, q.Event = engine.OpEvent, n
		return q, codeSuccess
	}
	g, err := engine.ParseGroupName(p.topic)
	if err != nil || !publishable(p.topic) || strings.HasPrefix(p.topic, reserved) {
		return nil, codeTopicInvalid
	}
	q := p.properties.request(g, p.qos, payload)
	q.NoEcho = s.state.isNoLocal(g)
	return q, codeSuccess
}

// request makes an OpSend of a publication with the properties.
func (p *properties) request(g engine.GroupName, qos byte, payload []byte) *engine.Request {
	q := &engine.Request{
		Op: engine.OpSend, Group: g,
		Payload: engine.Payload{Type: p.dataType(payload), Data: payload},
		Attributes: &publication{
			qos: qos, hasFormat: p.has(propFormat), format: p.format, contentType: p.contentType,
			responseTopic: p.responseTopic, correlation: p.correlation, user: p.user,
		},
	}
	if p.has(propExpiry) {
		// An interval of 0 is one that has passed by the time anybody waits.
		q.TTL = max(time.Duration(p.expiry)*time.Second, time.Millisecond)
	}
	return q
}

// dataType is what a payload is to clients of other protocols (Azure Web PubSub,
// cross-protocol communication). Text and JSON that are not what they are said to be
// are bytes: they would break the frames of those who get them.
func (p *properties) dataType(payload []byte) engine.DataType {
	media, _, _ := strings.Cut(p.contentType, ";")
	switch strings.ToLower(strings.TrimSpace(media)) {
	case "application/json":
		if json.Valid(payload) && utf8.Valid(payload) {
			return engine.JSON
		}
	case "text/plain":
		if utf8.Valid(payload) {
			return engine.Text
		}
	case "application/x-protobuf":
		return engine.Protobuf
	case "":
		if p.format == 1 {
			return engine.Text
		}
	}
	return engine.Binary
}

// replied publishes a handler's answer to the client that raised the event.
func (s *session) replied(q *engine.Request, r *engine.EventReply) {
	out := &reply{status: http.StatusOK}
	if r != nil {
		if passed, ok := r.Attributes.(*reply); ok {
			out = passed
		} else if r.Payload != nil {
			out.body, out.contentType = r.Payload.Data, contentTypes[r.Payload.Type&3]
		}
	}
	s.respond(q, "/succeeded", out)
}

// failed publishes what became of an event whose handler failed.
func (s *session) failed(q *engine.Request, err error) {
	out := &reply{status: http.StatusInternalServerError}
	var e *engine.Error
	if errors.As(err, &e) {
		if passed, ok := e.Reply.(*reply); ok {
			out = passed
		} else if e.Status != 0 {
			out.status = e.Status
		}
	}
	s.respond(q, "/failed", out)
}

func (s *session) respond(q *engine.Request, how string, r *reply) {
	asked := q.Attributes.(*publication)
	p := &publication{
		topic: eventTopics + string(q.Event) + how, qos: asked.qos,
		contentType: r.contentType, correlation: asked.correlation,
		user: fitting(append([]Property{{"azure-status-code", strconv.Itoa(r.status)}}, r.user...)),
	}
	if !encodable(p.contentType) || len(p.contentType) > maxReason {
		p.contentType = ""
	}
	s.conn.Post(&engine.Message{
		Kind: engine.KindData, Payload: engine.Payload{Type: engine.Binary, Data: r.body}, Attributes: p,
	})
}

// sortedNames returns the names of h in order.
func sortedNames(h http.Header) []string { return slices.Sorted(maps.Keys(h)) }
