package websocket_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fanfare/fanfare/engine"
	pb "github.com/fanfare/fanfare/proto/azure/webpubsub/v1"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// The twenty-five checks of compatibility with Azure Web PubSub, over sockets. The
// first two, which need a node with access keys, stand in cmd/fanfare.

const (
	protobufName = "protobuf.webpubsub.azure.v1"

	malformedJSON = "The client message is not a valid JSON protocol message."
)

// party is an open door whose clients are welcome.
type party struct {
	*server
	t      *testing.T
	hub    *engine.Hub
	guests *transporttest.Guests
}

// newParty serves an engine with a handler; nil for none.
func newParty(t *testing.T, handler *engine.HandlerFuncs, o engine.Options) *party {
	hub := &engine.HubOptions{KeepAlive: -1}
	if handler != nil {
		hub.Handlers = []engine.HandlerRule{{
			UserEvents: "*", SystemEvents: []string{"connect", "connected", "disconnected"}, Handler: handler,
		}}
	}
	o.Hubs = func(engine.HubName) *engine.HubOptions { return hub }
	e := echoEngine(t, o)
	guests := &transporttest.Guests{}
	return &party{server: serve(t, e, guests, network{}, websocket.Options{}), t: t, hub: e.Hub("chat"), guests: guests}
}

// enter lets a client in; query is more of its URL.
func (p *party) enter(id engine.Identity, protocol, query string) *conn {
	p.t.Helper()
	c, res := p.dial(p.t, "/client/hubs/chat?access_token="+p.guests.Invite(id)+query, protocol, nil)
	if c == nil {
		p.t.Fatal(res)
	}
	return c
}

// everything is the identity of a client that may do everything and begins in
// group g.
func everything(user engine.UserID) engine.Identity {
	return engine.Identity{
		UserID: user, Groups: []engine.GroupName{"g"}, Roles: []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"},
	}
}

// welcome lets a client in and reads its first message.
func (p *party) welcome(id engine.Identity, protocol string) (*conn, greeting) {
	p.t.Helper()
	c := p.enter(id, protocol, "")
	return c, c.hello()
}

// back has a client ask for its connection.
func (p *party) back(g greeting) *conn {
	p.t.Helper()
	c, res := p.dial(p.t, g.recovery(), reliableJSON, nil)
	if c == nil {
		p.t.Fatal(res)
	}
	return c
}

// tell publishes texts to group g.
func (p *party) tell(texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		if err := p.hub.SendToGroup(p.t.Context(), "g", engine.Payload{Data: []byte(text)}, nil); err != nil {
			p.t.Fatal(err)
		}
	}
}

// told is what p.tell makes of text for a reliable client.
func told(seq int, text string) string {
	return fmt.Sprintf(`{"sequenceId":%d,"type":"message","from":"group","group":"g","dataType":"text","data":"%s"}`, seq, text)
}

// closes expects the server's goodbye next.
func (c *conn) closes(code engine.CloseCode, text string) {
	c.t.Helper()
	if f, p, err := c.Receive(); err == nil || err.Error() != (&transporttest.Closed{Code: code, Text: text}).Error() {
		c.t.Fatalf("received the %s message %q, %v; expected to be closed with %d %q", f, p, err, code, text)
	}
}

// refused expects the acknowledgement of a request that failed.
func (c *conn) refused(id, name string) {
	c.t.Helper()
	_, p, err := c.Receive()
	if want := `{"type":"ack","ackId":` + id + `,"success":false,"error":{"name":"` + name + `"`; err != nil || !strings.HasPrefix(string(p), want) {
		c.t.Fatalf("received %s, %v\nexpected %s", p, err, want)
	}
}

// granted expects that of one that succeeded.
func (c *conn) granted(id string) {
	c.t.Helper()
	c.hears(`{"type":"ack","ackId":%s,"success":true}`, id)
}

// alive checks that the connection is open and that nothing is on its way.
func (c *conn) alive() {
	c.t.Helper()
	c.says(`{"type":"ping"}`)
	c.hears(`{"type":"pong"}`)
}

func TestCheck03HandlerRefuses(t *testing.T) {
	g := newGate(t, websocket.Options{})
	g.reply = refusing(429)
	if c, res := g.dial(t, "/client/hubs/chat?access_token=good", azureJSON, nil); c != nil || res != "429 " {
		t.Errorf("the answer is %q, expected the status 429 alone", res)
	}
	g.reply = choosing("") // whoever comes next is told of after it
	c, _ := g.dial(t, "/client/hubs/chat?access_token=good", azureJSON, nil)
	c.Close(engine.CloseNormal, "bye")
	if reason := <-g.over; reason != "bye" {
		t.Errorf("disconnected was raised for %q", reason)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened > 1 || len(g.ended) != 1 {
		t.Errorf("connected was raised %d times, disconnected %d times", g.opened, len(g.ended))
	}
}

func TestCheck04HandlerEmptiesGroupsAndRoles(t *testing.T) {
	p := newParty(t, &engine.HandlerFuncs{OnConnect: func(context.Context, *engine.ConnectEvent) (*engine.ConnectReply, error) {
		return &engine.ConnectReply{Groups: []engine.GroupName{}, Roles: []string{}}, nil
	}}, engine.Options{})
	ann, _ := p.welcome(everything("ann"), azureJSON)
	p.tell("you are in")
	ann.hears(`{"type":"message","from":"group","group":"g","dataType":"text","data":"you are in"}`)
	ann.says(`{"type":"sendToGroup","group":"g","data":1,"ackId":1}`)
	ann.refused("1", "Forbidden")
	ann.says(`{"type":"leaveGroup","group":"g","ackId":2}`)
	ann.refused("2", "Forbidden")
}

func TestCheck05SubprotocolInTheClientsSpelling(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, _ := p.welcome(engine.Identity{}, "JSON.WebPubSub.Azure.V1")
	if c.protocol != "JSON.WebPubSub.Azure.V1" {
		t.Errorf("the subprotocol is %q", c.protocol)
	}
	c.alive()
}

func TestCheck06UnknownSubprotocolIsRaw(t *testing.T) {
	p := newParty(t, echo, engine.Options{})
	c := p.enter(engine.Identity{}, "foo.v1", "")
	if c.protocol != "" {
		t.Errorf("the subprotocol is %q", c.protocol)
	}
	c.says(`not an envelope`)
	c.hears(`not an envelope`)
}

// echo answers events with what they hold.
var echo = &engine.HandlerFuncs{OnUserEvent: func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
	return &engine.EventReply{Payload: &e.Payload}, nil
}}

func TestCheck07FirstFrame(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	for protocol, reliable := range map[string]bool{azureJSON: false, reliableJSON: true} {
		var m map[string]any
		if err := json.Unmarshal(p.enter(engine.Identity{UserID: "ann"}, protocol, "").next(ws.OpText), &m); err != nil {
			t.Fatal(err)
		}
		token, _ := m["reconnectionToken"].(string)
		if m["type"] != "system" || m["event"] != "connected" || m["userId"] != "ann" || m["connectionId"] == "" || (token != "") != reliable {
			t.Errorf("%s begins with %v", protocol, m)
		}
	}
}

func TestCheck08ForbiddenWithoutAckIDIsSilent(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, _ := p.welcome(engine.Identity{}, azureJSON)
	c.says(`{"type":"joinGroup","group":"g"}`)
	c.says(`{"type":"sendToGroup","group":"g","data":1}`)
	c.alive()
}

func TestCheck09AckIDsAreExact(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, _ := p.welcome(everything("ann"), azureJSON)
	for _, id := range []string{"0", "9007199254740993", "18446744073709551615"} {
		c.says(`{"type":"joinGroup","group":"h","ackId":%s}`, id)
		c.granted(id)
	}
}

func TestCheck10AckIDsCountOnce(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, me := p.welcome(everything("ann"), reliableJSON)
	c.says(`{"type":"joinGroup","group":"h","ackId":7}`)
	c.granted("7")
	c.says(`{"type":"leaveGroup","group":"h","ackId":7}`)
	c.refused("7", "Duplicate")
	c.Drop()
	c = p.back(me)
	c.hello()
	c.says(`{"type":"leaveGroup","group":"h","ackId":7}`)
	c.refused("7", "Duplicate")
	if ok, err := p.hub.GroupExists(t.Context(), "h"); !ok || err != nil {
		t.Errorf("it is still a member: %v, %v", ok, err)
	}
}

func TestCheck11FailureUsesNoAckID(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, me := p.welcome(engine.Identity{}, azureJSON)
	c.says(`{"type":"joinGroup","group":"h","ackId":1}`)
	c.refused("1", "Forbidden")
	if err := p.hub.Grant(t.Context(), engine.ConnID(me.ConnectionID), engine.JoinLeaveGroup, "h"); err != nil {
		t.Fatal(err)
	}
	c.says(`{"type":"joinGroup","group":"h","ackId":1}`)
	c.granted("1")
}

func TestCheck12ReplyPrecedesAck(t *testing.T) {
	p := newParty(t, echo, engine.Options{})
	c, _ := p.welcome(engine.Identity{}, azureJSON)
	c.says(`{"type":"event","event":"order","dataType":"text","data":"tea","ackId":1}`)
	c.hears(`{"type":"message","from":"server","dataType":"text","data":"tea"}`)
	c.granted("1")
}

func TestCheck13EventThatNobodyHandles(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, _ := p.welcome(engine.Identity{}, azureJSON)
	c.says(`{"type":"event","event":"order","dataType":"text","data":"tea","ackId":1}`)
	c.refused("1", "InternalServerError")
	c.alive()
	raw := p.enter(engine.Identity{}, "", "")
	raw.says("tea")
	raw.closes(engine.CloseInternalError, transport.ReasonInternal)
}

func TestCheck14MalformedEndsWithoutAck(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	for _, message := range []string{
		`{"type":"joinGroup","group":"g","ackId":"5"}`,
		`{"type":"sendToGroup","group":"g","ackId":5,"data":1,"ttlSeconds":301}`,
		`{"type":"sendToGroup","group":"g","ackId":5,"data":1,"metadata":{"a":"1","a":"2"}}`,
		`{"type":"sendToGroup","group":"g","ackId":5,"data":null}`,
	} {
		c, me := p.welcome(everything("ann"), reliableJSON)
		c.says("%s", message)
		c.closes(engine.CloseInvalidData, malformedJSON)
		p.back(me).notRecovered()
	}
}

func TestCheck15WrongKindOfFrame(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	for protocol, f := range map[string]subprotocol.Frame{
		azureJSON: subprotocol.BinaryFrame, reliableJSON: subprotocol.BinaryFrame,
		protobufName: subprotocol.TextFrame, "protobuf.reliable.webpubsub.azure.v1": subprotocol.TextFrame,
	} {
		c := p.enter(engine.Identity{}, protocol, "")
		if err := c.Send(f, []byte(`{"type":"ping"}`)); err != nil {
			t.Fatal(err)
		}
		c.expectClose(engine.CloseUnsupported)
	}
}

func TestCheck16EventNames(t *testing.T) {
	p := newParty(t, echo, engine.Options{})
	c, _ := p.welcome(engine.Identity{}, azureJSON)
	name := strings.Repeat("e", 128)
	c.says(`{"type":"event","event":"%s","dataType":"text","data":"tea","ackId":1}`, name)
	c.hears(`{"type":"message","from":"server","dataType":"text","data":"tea"}`)
	c.granted("1")
	c.says(`{"type":"event","event":"%se","dataType":"text","data":"tea","ackId":2}`, name)
	c.closes(engine.CloseInvalidData, malformedJSON)
}

// raw lets a raw client in. It is in its groups once it is answered.
func (p *party) raw(id engine.Identity, query string) *conn {
	p.t.Helper()
	c := p.enter(id, "", query)
	c.says("here?")
	c.hears("here?")
	return c
}

func TestCheck17DataIsJSONByDefault(t *testing.T) {
	p := newParty(t, echo, engine.Options{})
	c, _ := p.welcome(everything("ann"), azureJSON)
	raw := p.raw(everything("rob"), "")
	c.says(`{"type":"sendToGroup","group":"g","data":"x"}`)
	c.hears(`{"type":"message","from":"group","group":"g","fromUserId":"ann","dataType":"json","data":"x"}`)
	raw.hears(`"x"`)
}

func TestCheck18ProtobufData(t *testing.T) {
	p := newParty(t, echo, engine.Options{})
	peer, _ := p.welcome(everything("ann"), azureJSON)
	raw := p.raw(everything("rob"), "")
	c := p.enter(everything("bo"), protobufName, "")
	message, err := proto.Marshal(&pb.UpstreamMessage{Message: &pb.UpstreamMessage_SendToGroup{SendToGroup: &pb.SendToGroup{
		Group: "g", Data: &pb.MessageData{Data: &pb.MessageData_ProtobufData{ProtobufData: &anypb.Any{TypeUrl: "t", Value: []byte{1}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(subprotocol.BinaryFrame, message); err != nil {
		t.Fatal(err)
	}
	peer.hears(`{"type":"message","from":"group","group":"g","fromUserId":"bo","dataType":"protobuf","data":"CgF0EgEB"}`)
	if f, got, err := raw.Receive(); f != subprotocol.BinaryFrame || string(got) != "\x0a\x01t\x12\x01\x01" {
		t.Errorf("a raw client received the %s message %q, %v", f, got, err)
	}
}

func TestCheck19NoEcho(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	ann, _ := p.welcome(everything("ann"), azureJSON)
	twin, _ := p.welcome(everything("ann"), azureJSON)
	ann.says(`{"type":"sendToGroup","group":"g","noEcho":true,"dataType":"text","data":"x","ackId":1}`)
	ann.granted("1")
	twin.hears(`{"type":"message","from":"group","group":"g","fromUserId":"ann","dataType":"text","data":"x"}`)
	ann.alive()
}

func TestCheck20Patterns(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	send := func(c *conn, id int, group string) string {
		t.Helper()
		c.says(`{"type":"sendToGroup","group":"%s","data":1,"ackId":%d}`, group, id)
		return fmt.Sprint(id)
	}
	c, me := p.welcome(engine.Identity{Roles: []string{"webpubsub.sendToGroups.a.*"}}, azureJSON)
	c.granted(send(c, 1, "a.b"))
	c.refused(send(c, 2, "a.b.c"), "Forbidden")
	if err := p.hub.Revoke(t.Context(), engine.ConnID(me.ConnectionID), engine.SendToGroup, "a.b"); err != nil {
		t.Fatal(err)
	}
	c.refused(send(c, 3, "a.b"), "Forbidden")
	c.granted(send(c, 4, "a.d"))
	deep, _ := p.welcome(engine.Identity{Roles: []string{"webpubsub.sendToGroups.a.**"}}, azureJSON)
	deep.granted(send(deep, 1, "a.b"))
	deep.granted(send(deep, 2, "a.b.c"))
}

func TestCheck21RawToAGroup(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c := p.enter(engine.Identity{}, "", "&webpubsub_mode=sendToGroup&group=g")
	c.says("hi")
	c.expectClose(engine.ClosePolicy)
	target := "/client/hubs/chat?access_token=" + p.guests.Invite(everything("ann")) + "&webpubsub_mode=sendToGroup"
	if c, res := p.dial(t, target, "", nil); c != nil || !strings.HasPrefix(res, "400 ") {
		t.Errorf("without a group the answer is %q", res)
	}
}

func TestCheck22Recovery(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, me := p.welcome(everything("ann"), reliableJSON)
	p.tell("one")
	c.hears(told(1, "one"))
	c.says(`{"type":"sequenceAck","sequenceId":1}`)
	c.alive()
	c.Drop()
	p.tell("two", "three", "four")
	c = p.back(me)
	p.tell("five")
	if again := c.hello(); again != me {
		t.Errorf("%+v came back as %+v", me, again)
	}
	for i, text := range []string{"two", "three", "four", "five"} {
		c.hears(told(2+i, text))
	}
}

func TestCheck23FailedRecovery(t *testing.T) {
	clock, over := transporttest.NewClock(), make(chan struct{}, 3)
	p := newParty(t, nil, engine.Options{
		Clock:    clock,
		Observer: engine.Observer{ConnEnded: func(engine.HubName, engine.CloseCode, engine.EndReason) { over <- struct{}{} }},
	})
	ann, me := p.welcome(everything("ann"), reliableJSON)
	bo, other := p.welcome(everything("bo"), reliableJSON)

	p.back(greeting{ConnectionID: me.ConnectionID, ReconnectionToken: "wrong"}).notRecovered()
	p.back(greeting{ConnectionID: me.ConnectionID, ReconnectionToken: other.ReconnectionToken}).notRecovered()
	ann.alive() // a wrong try does no harm
	bo.alive()

	if _, err := bo.Close(engine.CloseNormal, ""); err != nil {
		t.Fatal(err)
	}
	<-over
	p.back(other).notRecovered()

	ann.Drop()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		<-over
	}()
	if took, ok := clock.Until(gone, 250*time.Millisecond, 10*time.Minute); !ok || took < 30*time.Second {
		t.Errorf("the connection was kept for %s", took)
	}
	p.back(me).notRecovered()
}

func TestCheck24SequenceAcks(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, me := p.welcome(everything("ann"), reliableJSON)
	p.tell("1", "2", "3")
	for i := range 3 {
		c.hears(told(i+1, fmt.Sprint(i+1)))
	}
	c.says(`{"type":"sequenceAck","sequenceId":2}`) // for both
	c.alive()
	c.Drop()
	c = p.back(me)
	c.hello()
	c.hears(told(3, "3"))
	c.says(`{"type":"sequenceAck","sequenceId":1000000}`) // for all there are
	c.alive()
	c.Drop()
	c = p.back(me)
	c.hello()
	c.alive()

	plain, _ := p.welcome(engine.Identity{}, azureJSON)
	plain.says(`{"type":"sequenceAck","sequenceId":1}`)
	plain.alive()

	const most = 1000
	for i := range most {
		text := fmt.Sprint(i + 4)
		p.tell(text)
		c.hears(told(i+4, text))
	}
	c.alive()
	p.tell("one too many")
	for {
		if _, _, err := c.readFrame(); err != nil {
			break
		}
	}
	p.back(me).notRecovered()
}

func TestCheck25Endings(t *testing.T) {
	p := newParty(t, nil, engine.Options{})
	c, me := p.welcome(engine.Identity{}, azureJSON)
	if err := p.hub.CloseConn(t.Context(), engine.ConnID(me.ConnectionID), "maintenance"); err != nil {
		t.Fatal(err)
	}
	c.hears(`{"type":"system","event":"disconnected","message":"Application server closed the connection. Reason: maintenance"}`)
	c.closes(engine.CloseNormal, "")

	c, _ = p.welcome(everything("ann"), azureJSON)
	go c.Send(subprotocol.TextFrame, make([]byte, 1<<20+1)) // the server need not read it all
	c.closes(engine.CloseTooLarge, transport.ReasonTooLarge)
}

// A message that is dropped without an answer has a line in the log, and the many
// behind it have none.
func TestDroppedMessagesAreLoggedOnce(t *testing.T) {
	g := newGate(t, websocket.Options{})
	c, _ := g.dial(t, "/client/hubs/chat?access_token=good", azureJSON, nil)
	c.next(ws.OpText) // its hello
	for range 3 {
		c.says(`{"type":"event","event":"e","dataType":"protobuf","data":"CgA="}`)
	}
	c.says(`{"type":"event","event":"e","ackId":1,"dataType":"protobuf","data":"CgA="}`)
	c.refused("1", "BadRequest")
	c.alive()
	g.mu.Lock()
	defer g.mu.Unlock()
	if log := g.log.String(); strings.Count(log, "dropped a message") != 1 || !strings.Contains(log, "request.dataType") {
		t.Errorf("the log is %s", log)
	}
}
