package transporttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// Knock is how a client of the script comes in.
type Knock struct {
	Hub      engine.HubName
	Identity engine.Identity
	// Subprotocol is the one to offer; empty for a raw client, for whom the other
	// fields count.
	Subprotocol string
	Raw         subprotocol.RawMode
	Group       engine.GroupName
	NoEcho      bool
}

// Client is the far end of a connection that has been let in. Its methods are
// called by one goroutine. They give up after a time of their own choosing, so
// that a test fails rather than hangs.
type Client interface {
	// Send sends one message.
	Send(f subprotocol.Frame, p []byte) error
	// Receive waits for the next message. When the server has said goodbye it
	// returns a [*Closed], and keeps doing so.
	Receive() (subprotocol.Frame, []byte, error)
	// Close says goodbye and waits for the server's answer, which it returns.
	Close(code engine.CloseCode, text string) (*Closed, error)
	// Drop cuts the connection without a word.
	Drop()
}

// Closed is the server's goodbye.
type Closed struct {
	Code engine.CloseCode
	Text string
}

// Error returns the code and the text.
func (c *Closed) Error() string { return fmt.Sprintf("closed by the server: %d %q", c.Code, c.Text) }

// Door lets clients in: it serves an engine until the test ends. Dial fails the
// test if the client is not let in. What the network between them holds should be
// well below a megabyte, so that the script can fill it.
type Door func(t testing.TB, e *engine.Engine, auth transport.Authenticator) (dial func(Knock) Client)

// Run plays every conversation of the script as a subtest. stage runs one of them
// and is the place for a bubble:
//
//	transporttest.Run(t, door, synctest.Test)
//
// A nil stage just runs it.
func Run(t *testing.T, door Door, stage func(*testing.T, func(*testing.T))) {
	if stage == nil {
		stage = func(t *testing.T, f func(*testing.T)) { f(t) }
	}
	for _, s := range script {
		t.Run(s.name, func(t *testing.T) {
			stage(t, func(t *testing.T) {
				p := &play{T: t, door: door}
				s.story(p)
				p.finish()
			})
		})
	}
}

var script = []struct {
	name  string
	story func(*play)
}{
	{"the first message says who the client is", first},
	{"a joined group is heard, and left no more", joinLeave},
	{"a request is acknowledged once", acks},
	{"what is forbidden is refused and can be granted", forbidden},
	{"noEcho leaves out one connection, not its user", noEcho},
	{"a reply precedes its acknowledgement", events},
	{"an event that fails is acknowledged as failed", failedEvent},
	{"events wait for each other and reading pauses", pause},
	{"a malformed message ends the connection", malformed},
	{"the protocol's ping is answered", ping},
	{"the server's goodbye", serverCloses},
	{"the client's goodbye", clientCloses},
	{"a cut connection is noticed", dropped},
	{"a message of the largest size passes, a larger one does not", sizes},
	{"raw clients raise events", rawEvents},
	{"a raw client whose event fails is closed", rawFailedEvent},
	{"raw clients publish to their group", rawGroup},
	{"all data types reach JSON and raw clients", dataTypes},
	{"a slow reader misses nothing while it is within its bounds", slowReader},
	{"a reader that stops is ended, and holds nobody up", stoppedReader},
}

// play is one story's stage.
type play struct {
	*testing.T
	door    Door
	options engine.Options
	handler engine.HandlerFuncs

	engine *engine.Engine
	dial   func(Knock) Client

	mu     sync.Mutex
	events []string // what handlers were told
	told   chan struct{}
	raws   int

	clients []Client // all that were let in
}

func (p *play) open() {
	if p.engine != nil {
		return
	}
	if p.handler.OnDisconnected == nil {
		p.handler.OnDisconnected = func(_ context.Context, e *engine.DisconnectedEvent) {
			p.note("disconnected " + string(e.UserID) + ": " + e.Reason)
		}
	}
	p.handler.OnConnected = func(_ context.Context, e *engine.ConnectedEvent) { p.note("connected " + string(e.UserID)) }
	rule := engine.HandlerRule{SystemEvents: []string{"connect", "connected", "disconnected"}, Handler: &p.handler}
	if p.handler.OnUserEvent != nil {
		rule.UserEvents = "*"
	}
	hub := &engine.HubOptions{Handlers: []engine.HandlerRule{rule}}
	p.options.Hubs = func(engine.HubName) *engine.HubOptions { return hub }
	e, err := engine.New(&p.options)
	p.must(err)
	p.engine = e
	p.Cleanup(func() { e.Close() })
	guests := &Guests{}
	dial := p.door(p, e, guests)
	p.dial = func(k Knock) Client {
		c := dial(k)
		p.clients = append(p.clients, c)
		return c
	}
}

// finish ends the story and checks that nothing is left behind.
func (p *play) finish() {
	for _, c := range p.clients {
		c.Drop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := p.engine.Shutdown(ctx); err != nil {
		p.Errorf("shutdown: %v", err)
	}
	s := p.engine.Stats()
	if s.Connections != 0 || s.Groups != 0 || s.Memberships != 0 || s.QueuedBytes != 0 || s.QueuedMessages != 0 {
		p.Errorf("counters after the end: %+v", s)
	}
}

func (p *play) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// note records what a handler was told.
func (p *play) note(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, s)
	if p.told != nil {
		close(p.told)
		p.told = nil
	}
}

// await waits until the handlers have been told all of want, in any order.
func (p *play) await(want ...string) {
	p.Helper()
	deadline := time.After(20 * time.Second)
	for {
		p.mu.Lock()
		have := append([]string(nil), p.events...)
		told := make(chan struct{})
		if p.told == nil {
			p.told = told
		} else {
			told = p.told
		}
		p.mu.Unlock()
		missing := ""
		for _, w := range want {
			if !contains(have, w) {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-told:
		case <-deadline:
			p.Fatalf("the handler was told %q; still missing %q", have, missing)
		}
	}
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// actor is a client in a story.
type actor struct {
	Client
	p  *play
	id engine.ConnID
}

const hub = engine.HubName("stage")

// json lets a client of the JSON subprotocol in and reads its first message.
func (p *play) json(user string, roles ...string) *actor {
	p.Helper()
	p.open()
	a := &actor{p: p, Client: p.dial(Knock{
		Hub: hub, Identity: engine.Identity{UserID: engine.UserID(user), Roles: roles}, Subprotocol: subprotocol.NameJSON,
	})}
	a.hello()
	return a
}

// full lets a client with every role in.
func (p *play) full(user string) *actor {
	p.Helper()
	return p.json(user, "webpubsub.joinLeaveGroup", "webpubsub.sendToGroup")
}

// raw lets a raw client in. Nothing tells it that it is in, so this waits for the
// event.
func (p *play) raw(k Knock) *actor {
	p.Helper()
	p.open()
	k.Hub = hub
	p.raws++
	k.Identity.UserID = engine.UserID(fmt.Sprintf("rob %d", p.raws))
	a := &actor{p: p, Client: p.dial(k)}
	p.await("connected " + string(k.Identity.UserID))
	return a
}

func (a *actor) hello() {
	a.p.Helper()
	m := a.next()
	if m["type"] != "system" || m["event"] != "connected" {
		a.p.Fatalf("the first message is %v", m)
	}
	a.id = engine.ConnID(m["connectionId"].(string))
}

// say sends a JSON message.
func (a *actor) say(format string, args ...any) {
	a.p.Helper()
	a.p.must(a.Send(subprotocol.TextFrame, fmt.Appendf(nil, format, args...)))
}

// next receives one JSON message.
func (a *actor) next() map[string]any {
	a.p.Helper()
	f, data, err := a.Receive()
	if err != nil {
		a.p.Fatalf("waiting for a message: %v; the engine counts %+v", err, a.p.engine.Stats())
	}
	if f != subprotocol.TextFrame {
		a.p.Fatalf("a JSON client received a %s message", f)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		a.p.Fatalf("received %q: %v", data, err)
	}
	return m
}

// hears receives one JSON message and compares it with want, JSON too.
func (a *actor) hears(want string) {
	a.p.Helper()
	d := json.NewDecoder(strings.NewReader(want))
	d.UseNumber()
	var w map[string]any
	a.p.must(d.Decode(&w))
	got, _ := json.Marshal(a.next())
	expected, _ := json.Marshal(w)
	if !bytes.Equal(got, expected) {
		a.p.Fatalf("received %s\nexpected %s", got, expected)
	}
}

// acked receives the acknowledgement of id; name is its error, empty for success.
func (a *actor) acked(id, name string) {
	a.p.Helper()
	m := a.next()
	ok := m["type"] == "ack" && fmt.Sprint(m["ackId"]) == id && m["success"] == (name == "")
	if e, _ := m["error"].(map[string]any); name != "" && (e == nil || e["name"] != name || e["message"] == "") {
		ok = false
	}
	if !ok {
		a.p.Fatalf("received %v, expected the ack of %s with error %q", m, id, name)
	}
}

// asks sends a request with an ack id and waits for it to be acknowledged.
func (a *actor) asks(id, message, name string) {
	a.p.Helper()
	a.say(`{"ackId":%s,%s`, id, message[1:])
	a.acked(id, name)
}

// closed expects the server's goodbye next.
func (a *actor) closed(code engine.CloseCode, text string) {
	a.p.Helper()
	f, data, err := a.Receive()
	var c *Closed
	if !errors.As(err, &c) {
		a.p.Fatalf("received %s %q, %v; expected to be closed with %d", f, data, err, code)
	}
	if c.Code != code || c.Text != text {
		a.p.Fatalf("%v; expected %d %q", c, code, text)
	}
}

// receives expects one bare message next.
func (a *actor) receives(f subprotocol.Frame, data string) {
	a.p.Helper()
	gotFrame, got, err := a.Receive()
	if err != nil || gotFrame != f || string(got) != data {
		a.p.Fatalf("received %s %q, %v; expected %s %q", gotFrame, got, err, f, data)
	}
}

func (p *play) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	p.Cleanup(cancel)
	return ctx
}

func text(s string) engine.Payload { return engine.Payload{Type: engine.Text, Data: []byte(s)} }

func first(p *play) {
	p.open()
	ann := &actor{p: p, Client: p.dial(Knock{Hub: hub, Identity: engine.Identity{UserID: "ann"}, Subprotocol: subprotocol.NameJSON})}
	m := ann.next()
	if m["type"] != "system" || m["event"] != "connected" || m["userId"] != "ann" || m["connectionId"] == "" {
		p.Fatalf("the first message is %v", m)
	}
	if _, ok := m["reconnectionToken"]; ok {
		p.Fatal("a client that cannot recover got a reconnection token")
	}
	ok, err := p.engine.Hub(hub).ConnExists(p.ctx(), engine.ConnID(m["connectionId"].(string)))
	if err != nil || !ok {
		p.Fatalf("the connection it names exists: %v, %v", ok, err)
	}
}

func joinLeave(p *play) {
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"news"}`, "")
	bo.asks("1", `{"type":"sendToGroup","group":"news","dataType":"text","data":"hi"}`, "")
	ann.hears(`{"type":"message","from":"group","group":"news","fromUserId":"bo","dataType":"text","data":"hi"}`)
	ann.asks("2", `{"type":"leaveGroup","group":"news"}`, "")
	bo.asks("2", `{"type":"sendToGroup","group":"news","dataType":"text","data":"gone"}`, "")
	p.must(p.engine.Hub(hub).SendToConn(p.ctx(), ann.id, text("still here"), nil))
	ann.hears(`{"type":"message","from":"server","dataType":"text","data":"still here"}`)
}

func acks(p *play) {
	ann := p.full("ann")
	ann.asks("0", `{"type":"joinGroup","group":"a"}`, "")
	ann.asks("18446744073709551615", `{"type":"joinGroup","group":"b"}`, "")
	ann.asks("7", `{"type":"joinGroup","group":"c"}`, "")
	ann.asks("7", `{"type":"leaveGroup","group":"c"}`, "Duplicate")
	ann.say(`{"type":"sendToGroup","group":"c","dataType":"text","data":"member"}`)
	ann.hears(`{"type":"message","from":"group","group":"c","fromUserId":"ann","dataType":"text","data":"member"}`)
}

func forbidden(p *play) {
	ann := p.json("ann", "webpubsub.sendToGroup.a.*")
	ann.asks("1", `{"type":"joinGroup","group":"a"}`, "Forbidden")
	ann.say(`{"type":"joinGroup","group":"a"}`) // nothing is said without an ack id
	p.must(p.engine.Hub(hub).Grant(p.ctx(), ann.id, engine.JoinLeaveGroup, "a"))
	ann.asks("1", `{"type":"joinGroup","group":"a"}`, "")
	ann.asks("2", `{"type":"sendToGroup","group":"b","data":1}`, "Forbidden")
}

func noEcho(p *play) {
	ann, twin := p.full("ann"), p.full("ann")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	twin.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	ann.asks("2", `{"type":"sendToGroup","group":"g","noEcho":true,"dataType":"text","data":"one"}`, "")
	twin.hears(`{"type":"message","from":"group","group":"g","fromUserId":"ann","dataType":"text","data":"one"}`)
	ann.say(`{"type":"sendToGroup","group":"g","dataType":"text","data":"two"}`)
	ann.hears(`{"type":"message","from":"group","group":"g","fromUserId":"ann","dataType":"text","data":"two"}`)
	twin.hears(`{"type":"message","from":"group","group":"g","fromUserId":"ann","dataType":"text","data":"two"}`)
}

func events(p *play) {
	p.handler.OnUserEvent = func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		if e.Name == "quiet" {
			return nil, nil
		}
		reply := engine.Payload{Type: e.Payload.Type, Data: append([]byte("re: "), e.Payload.Data...)}
		return &engine.EventReply{Payload: &reply, Metadata: engine.Metadata{"n": string(e.Name)}}, nil
	}
	ann := p.json("ann")
	ann.say(`{"type":"event","event":"order","ackId":1,"dataType":"text","data":"tea"}`)
	ann.hears(`{"type":"message","from":"server","dataType":"text","data":"re: tea","metadata":{"n":"order"}}`)
	ann.acked("1", "")
	ann.asks("1", `{"type":"event","event":"order","dataType":"text","data":"tea"}`, "Duplicate")
	ann.asks("2", `{"type":"event","event":"quiet","dataType":"text","data":"x"}`, "")
}

func failedEvent(p *play) {
	ann := p.json("ann")
	ann.asks("1", `{"type":"event","event":"nobody","data":1}`, "InternalServerError")
	ann.say(`{"type":"event","event":"nobody","data":1}`)
	ann.say(`{"type":"ping"}`)
	ann.hears(`{"type":"pong"}`)
}

func pause(p *play) {
	const n = 64
	p.options.Limits.PendingEvents = 4
	gate := make(chan struct{})
	var (
		mu    sync.Mutex
		order []string
	)
	p.handler.OnUserEvent = func(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		order = append(order, string(e.Payload.Data))
		return nil, nil
	}
	ann, bo := p.json("ann"), p.json("bo")
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := ann.Send(subprotocol.TextFrame, fmt.Appendf(nil, `{"type":"event","event":"e","ackId":%d,"dataType":"text","data":"%d"}`, i, i)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range 3 { // another client is not held up meanwhile
		bo.say(`{"type":"ping"}`)
		bo.hears(`{"type":"pong"}`)
	}
	close(gate)
	for i := range n {
		ann.acked(fmt.Sprint(i), "")
	}
	p.must(<-sent)
	mu.Lock()
	defer mu.Unlock()
	for i := range n {
		if order[i] != fmt.Sprint(i) {
			p.Fatalf("the events came in the order %v", order)
		}
	}
}

func malformed(p *play) {
	const reason = "The client message is not a valid JSON protocol message."
	for _, message := range []string{`{`, `{"type":"ping"`, `{"type":"fly"}`, `{"type":"joinGroup","group":"g","ackId":"1"}`} {
		ann := p.full("ann")
		ann.say("%s", message)
		ann.closed(engine.CloseInvalidData, reason)
	}
	ann := p.full("ann")
	p.must(ann.Send(subprotocol.BinaryFrame, []byte(`{"type":"ping"}`)))
	if _, _, err := ann.Receive(); err == nil || err.(*Closed).Code != engine.CloseUnsupported {
		p.Fatalf("a binary message to the JSON subprotocol: %v", err)
	}
	p.await("disconnected ann: " + reason)
}

func ping(p *play) {
	ann := p.json("ann")
	ann.say(`{"type":"ping"}`)
	ann.hears(`{"type":"pong"}`)
	ann.say(`{"type":"sequenceAck","sequenceId":1}`) // means nothing without sequence ids
	ann.say(`{"type":"ping"}`)
	ann.hears(`{"type":"pong"}`)
}

func serverCloses(p *play) {
	ann, raw := p.json("ann"), p.raw(Knock{})
	p.must(p.engine.Hub(hub).CloseConn(p.ctx(), ann.id, "maintenance"))
	ann.hears(`{"type":"system","event":"disconnected","message":"Application server closed the connection. Reason: maintenance"}`)
	ann.closed(engine.CloseNormal, "")
	p.must(p.engine.Hub(hub).CloseUser(p.ctx(), "rob 1", "you too"))
	raw.closed(engine.CloseNormal, "")
	p.await("disconnected ann: Application server closed the connection. Reason: maintenance")
}

func clientCloses(p *play) {
	ann := p.full("ann")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	c, err := ann.Close(engine.CloseNormal, "bye")
	if err != nil || c.Code != engine.CloseNormal {
		p.Fatalf("the answer to a goodbye: %v, %v", c, err)
	}
	p.await("disconnected ann: bye")
	if ok, err := p.engine.Hub(hub).ConnExists(p.ctx(), ann.id); ok || err != nil {
		p.Fatalf("the connection still exists: %v, %v", ok, err)
	}
	c, err = p.json("bo").Close(4321, "")
	if err != nil || c.Code != 4321 {
		p.Fatalf("the answer to a goodbye: %v, %v", c, err)
	}
}

func dropped(p *play) {
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	ann.Drop()
	p.await("disconnected ann: ")
	bo.asks("1", `{"type":"sendToGroup","group":"g","data":1}`, "")
	if ok, err := p.engine.Hub(hub).GroupExists(p.ctx(), "g"); ok || err != nil {
		p.Fatalf("the group of a client that is gone exists: %v, %v", ok, err)
	}
}

func sizes(p *play) {
	const limit = 1 << 18
	p.options.Limits.MessageBytes = limit
	ann := p.full("ann")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	envelope := `{"type":"sendToGroup","group":"g","dataType":"text","data":"%s"}`
	body := strings.Repeat("x", limit-len(envelope)+len("%s"))
	ann.say(envelope, body)
	if m := ann.next(); m["data"] != body {
		p.Fatalf("the largest message came back with %d bytes", len(fmt.Sprint(m["data"])))
	}
	// The client may learn of the end while it still sends.
	sent := make(chan error, 1)
	go func() { sent <- ann.Send(subprotocol.TextFrame, fmt.Appendf(nil, envelope, body+"x")) }()
	ann.closed(engine.CloseTooLarge, transport.ReasonTooLarge)
	<-sent
}

func rawEvents(p *play) {
	p.handler.OnUserEvent = func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		if e.Name != "message" {
			return nil, fmt.Errorf("a raw client raised %q", e.Name)
		}
		return &engine.EventReply{Payload: &e.Payload}, nil
	}
	rob := p.raw(Knock{})
	p.must(rob.Send(subprotocol.TextFrame, []byte("hällo")))
	rob.receives(subprotocol.TextFrame, "hällo")
	p.must(rob.Send(subprotocol.BinaryFrame, []byte{0, 1, 0xff}))
	rob.receives(subprotocol.BinaryFrame, "\x00\x01\xff")
	p.must(rob.Send(subprotocol.TextFrame, nil))
	rob.receives(subprotocol.TextFrame, "")
}

func rawFailedEvent(p *play) {
	rob := p.raw(Knock{})
	p.must(rob.Send(subprotocol.TextFrame, []byte("anyone?")))
	rob.closed(engine.CloseInternalError, transport.ReasonInternal)
}

func rawGroup(p *play) {
	ann := p.full("ann")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	rob := p.raw(Knock{
		Identity: engine.Identity{Roles: []string{"webpubsub.sendToGroup.g"}},
		Raw:      subprotocol.SendToGroup, Group: "g",
	})
	p.must(rob.Send(subprotocol.TextFrame, []byte("hi")))
	ann.hears(`{"type":"message","from":"group","group":"g","fromUserId":"rob 1","dataType":"text","data":"hi"}`)
	p.must(rob.Send(subprotocol.BinaryFrame, []byte{1, 2}))
	ann.hears(`{"type":"message","from":"group","group":"g","fromUserId":"rob 1","dataType":"binary","data":"AQI="}`)
	mute := p.raw(Knock{Raw: subprotocol.SendToGroup, Group: "g"})
	p.must(mute.Send(subprotocol.TextFrame, []byte("hi")))
	_, _, err := mute.Receive()
	var c *Closed
	if !errors.As(err, &c) || c.Code != engine.ClosePolicy {
		p.Fatalf("a raw client without the permission: %v", err)
	}
}

func dataTypes(p *play) {
	ann, rob := p.json("ann"), p.raw(Knock{})
	h := p.engine.Hub(hub)
	for _, c := range []struct {
		payload engine.Payload
		json    string
		frame   subprotocol.Frame
	}{
		{text("a \"b\""), `"dataType":"text","data":"a \"b\""`, subprotocol.TextFrame},
		{engine.Payload{Type: engine.JSON, Data: []byte(`{"n":1.0}`)}, `"dataType":"json","data":{"n":1.0}`, subprotocol.TextFrame},
		{engine.Payload{Type: engine.JSON, Data: []byte(`"x"`)}, `"dataType":"json","data":"x"`, subprotocol.TextFrame},
		{engine.Payload{Type: engine.Binary, Data: []byte{1, 2}}, `"dataType":"binary","data":"AQI="`, subprotocol.BinaryFrame},
		{engine.Payload{Type: engine.Protobuf, Data: []byte{10, 0}}, `"dataType":"protobuf","data":"CgA="`, subprotocol.BinaryFrame},
	} {
		p.must(h.SendToAll(p.ctx(), c.payload, nil))
		ann.hears(`{"type":"message","from":"server",` + c.json + `}`)
		rob.receives(c.frame, string(c.payload.Data))
	}
}

// numbered publishes n messages of size bytes to group g, each with its number.
func (p *play) numbered(n, size int) {
	h := p.engine.Hub(hub)
	ctx := p.ctx()
	for i := range n {
		p.must(h.SendToGroup(ctx, "g", text(page(i, size)), nil))
	}
}

// page returns size bytes of text that belong to number i, and that compression
// makes little of.
func page(i, size int) string {
	src := rand.New(rand.NewPCG(uint64(i), 0))
	b := make([]byte, size)
	for j := range b {
		b[j] = ' ' + byte(src.UintN(95))
		if b[j] == '"' || b[j] == '\\' {
			b[j] = '_'
		}
	}
	return string(b)
}

// counts receives n numbered messages.
func (a *actor) counts(n, size int) {
	a.p.Helper()
	for i := range n {
		if got := a.next()["data"]; got != page(i, size) {
			a.p.Fatalf("message %d of %d is %.40q", i, n, got)
		}
	}
}

func slowReader(p *play) {
	const n, size = 900, 2000 // more than the buffers on the way hold, less than the bounds
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	bo.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	p.numbered(n, size)
	bo.counts(n, size) // all of it, while ann has read nothing
	ann.counts(n, size)
}

func stoppedReader(p *play) {
	const n, size = 1000, 2000
	p.options.Limits.OutboundBytes = 1 << 18
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	bo.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	h := p.engine.Hub(hub)
	ctx := p.ctx()
	for i := range n {
		want := page(i, size)
		p.must(h.SendToGroup(ctx, "g", text(want), nil))
		if got := bo.next()["data"]; got != want {
			p.Fatalf("message %d is %.40q", i, got)
		}
	}
	if ok, err := p.engine.Hub(hub).ConnExists(p.ctx(), ann.id); ok || err != nil {
		p.Fatalf("the reader that stopped is still there: %v, %v", ok, err)
	}
	ann.Drop()
}
