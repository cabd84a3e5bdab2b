package transporttest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

func first(p *play) {
	p.open()
	ann := &actor{p: p, Client: p.dial(Knock{Hub: hub, Identity: engine.Identity{UserID: "ann"}, Subprotocol: p.tongue.name})}
	m := ann.next()
	if m["type"] != "system" || m["event"] != "connected" || m["userId"] != "ann" || m["connectionId"] == "" {
		p.Fatalf("the first message is %v", m)
	}
	if token, _ := m["reconnectionToken"].(string); (token != "") != p.tongue.reliable {
		p.Fatalf("the reconnection token is %v", m["reconnectionToken"])
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
	ann := p.client("ann", "webpubsub.sendToGroup.a.*")
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
	ann := p.client("ann")
	ann.say(`{"type":"event","event":"order","ackId":1,"dataType":"text","data":"tea"}`)
	ann.hears(`{"type":"message","from":"server","dataType":"text","data":"re: tea","metadata":{"n":"order"}}`)
	ann.acked("1", "")
	ann.asks("1", `{"type":"event","event":"order","dataType":"text","data":"tea"}`, "Duplicate")
	ann.asks("2", `{"type":"event","event":"quiet","dataType":"text","data":"x"}`, "")
}

func failedEvent(p *play) {
	ann := p.client("ann")
	ann.asks("1", `{"type":"event","event":"nobody","data":1}`, "InternalServerError")
	ann.say(`{"type":"event","event":"nobody","data":1}`)
	ann.say(`{"type":"ping"}`)
	ann.hears(`{"type":"pong"}`)
}

func unsendable(p *play) {
	p.handler.OnUserEvent = func(context.Context, *engine.UserEvent) (*engine.EventReply, error) { return nil, nil }
	ann, bo := p.full("ann"), p.full("bo")
	ann.asks("1", `{"type":"joinGroup","group":"g"}`, "")
	ann.asks("2", `{"type":"sendToGroup","group":"g","dataType":"protobuf","data":"CgZ0eXBlLngSAQE="}`, "BadRequest")
	ann.asks("3", `{"type":"event","event":"e","dataType":"Protobuf","data":"CgZ0eXBlLngSAQE="}`, "BadRequest")
	ann.asks("1", `{"type":"event","event":"e","dataType":"PROTOBUF","data":"not base64","metadata":{"a":"b"}}`, "Duplicate")
	ann.asks("2", `{"type":"event","event":"e","dataType":"text","data":"x"}`, "") // the refusal has not used the number up
	ann.say(`{"type":"sendToGroup","group":"g","dataType":"protobuf","data":"CgZ0eXBlLngSAQE="}`)
	ann.say(`{"type":"event","event":"e","dataType":"protobuf","data":""}`)
	ann.pings() // nothing is said without an ack id
	ann.say(`{"type":"invoke","invocationId":"i","target":"event","event":"e","dataType":"protobuf","data":"CgA="}`)
	ann.hearsLike(`{"type":"invokeResponse","invocationId":"i","success":false,"error":{"name":"BadRequest"}}`)

	bo.say(`{"type":"sendToGroup","group":"g","stream":{"streamId":"s"}}`)
	bo.hears(`{"type":"streamAck","streamId":"s","expectedSequenceId":1}`)
	bo.say(`{"type":"streamData","streamId":"s","streamSequenceId":1,"dataType":"protobuf","data":"CgA="}`)
	bo.hearsLike(`{"type":"streamClosed","streamId":"s","error":{"name":"BadRequest"}}`)
	ann.hearsLike(`{"type":"message","stream":{"streamId":"s","streamSequenceId":1,"endOfStream":true,"error":{"name":"BadRequest"}}}`)
	bo.say(`{"type":"sendToGroup","group":"g","stream":{"streamId":"s"}}`) // the id is free again
	bo.hears(`{"type":"streamAck","streamId":"s","expectedSequenceId":1}`)
	ann.pings()
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
	ann, bo := p.client("ann"), p.client("bo")
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := ann.Send(p.tongue.say(fmt.Appendf(nil, `{"type":"event","event":"e","ackId":%d,"dataType":"text","data":"%d"}`, i, i))); err != nil {
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

// lastEvent has a client leave while one of its events is under way and others wait:
// those are carried out, and disconnected follows.
func lastEvent(p *play) {
	began := make(chan struct{}, 3)
	p.handler.OnUserEvent = func(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		p.note("begin " + string(e.Name))
		began <- struct{}{}
		select {
		case <-e.Left: // a handler that would try again stops here
		case <-ctx.Done():
			p.Error("the event under way was cancelled")
		}
		p.note("end " + string(e.Name))
		return nil, errors.New("it failed")
	}
	ann := p.client("ann")
	for i, name := range []string{"a", "b", "c"} {
		ann.say(`{"type":"event","event":%q,"ackId":%d,"dataType":"text","data":"x"}`, name, i)
	}
	<-began
	if _, err := ann.Close(engine.CloseNormal, "bye"); err != nil {
		p.Fatal(err)
	}
	p.await("disconnected ann: bye")
	p.mu.Lock()
	defer p.mu.Unlock()
	got := slices.DeleteFunc(slices.Clone(p.events), func(s string) bool { return s == "connected ann" })
	if want := []string{"begin a", "end a", "begin b", "end b", "begin c", "end c", "disconnected ann: bye"}; !slices.Equal(got, want) {
		p.Fatalf("the handler was told %q, want %q", got, want)
	}
}

func malformed(p *play) {
	g := p.tongue
	f, ping := g.say([]byte(`{"type":"ping"}`))
	for _, message := range g.malformed {
		ann := p.full("ann")
		p.must(ann.Send(f, []byte(message)))
		ann.closed(engine.CloseInvalidData, g.reason)
		if g.reliable {
			p.refused(ann.id, ann.token)
		}
	}
	ann := p.full("ann")
	p.must(ann.Send(subprotocol.BinaryFrame-f, ping))
	var c *Closed
	if _, _, err := ann.Receive(); !errors.As(err, &c) || c.Code != engine.CloseUnsupported {
		p.Fatalf("a message in the wrong kind of frame: %v", err)
	}
	p.await("disconnected ann: " + g.reason)
}

func ping(p *play) {
	ann := p.client("ann")
	ann.say(`{"type":"ping"}`)
	ann.hears(`{"type":"pong"}`)
	ann.say(`{"type":"sequenceAck","sequenceId":1}`) // means nothing without sequence ids, nor before the first
	ann.say(`{"type":"ping"}`)
	ann.hears(`{"type":"pong"}`)
}

func serverCloses(p *play) {
	ann, raw := p.client("ann"), p.raw(Knock{})
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
	c, err = p.client("bo").Close(4321, "")
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
	body := strings.Repeat("x", limit-1000)
	_, message := p.tongue.say(fmt.Appendf(nil, envelope, body))
	body += strings.Repeat("x", limit-len(message))
	ann.say(envelope, body)
	if m := ann.next(); m["data"] != body {
		p.Fatalf("the largest message came back with %d bytes", len(fmt.Sprint(m["data"])))
	}
	// The client may learn of the end while it still sends.
	sent := make(chan error, 1)
	go func() { sent <- ann.Send(p.tongue.say(fmt.Appendf(nil, envelope, body+"x"))) }()
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
	ann, rob := p.client("ann"), p.raw(Knock{})
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
		{engine.Payload{Type: engine.Protobuf, Data: []byte("\x0a\x01t\x12\x01\x01")}, `"dataType":"protobuf","data":"CgF0EgEB"`, subprotocol.BinaryFrame},
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
		if p.tongue.reliable && i%32 == 0 {
			bo.confirms(bo.seq)
		}
	}
	if ok, err := p.engine.Hub(hub).ConnExists(p.ctx(), ann.id); ok || err != nil {
		p.Fatalf("the reader that stopped is still there: %v, %v", ok, err)
	}
	ann.Drop()
}
