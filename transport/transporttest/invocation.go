package transporttest

import (
	"context"
	"fmt"

	"github.com/fanfare/fanfare/engine"
)

// invoke invokes an event with the invocation's id.
const invoke = `{"type":"invoke","invocationId":"%s","target":"event","event":"wait","dataType":"text","data":"%[1]s"}`

func invocations(p *play) {
	p.handler.OnUserEvent = func(_ context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		switch e.Name {
		case "sum":
			return &engine.EventReply{Payload: &engine.Payload{Type: engine.JSON, Data: []byte("3")}}, nil
		case "empty":
			return &engine.EventReply{Payload: &engine.Payload{Type: engine.Text}}, nil
		case "quiet":
			return nil, nil
		}
		return nil, &engine.Error{Code: engine.CodeForbidden, Status: 403, Message: "the handler's own words"}
	}
	ann := p.client("ann") // it takes no role
	ann.say(`{"type":"invoke","invocationId":"1","target":"event","event":"sum","dataType":"json","data":[1,2]}`)
	ann.hears(`{"type":"invokeResponse","invocationId":"1","success":true,"dataType":"json","data":3}`)
	ann.say(`{"type":"invoke","invocationId":"1","target":"event","event":"quiet","dataType":"text","data":""}`) // the id is free again
	ann.hears(`{"type":"invokeResponse","invocationId":"1","success":true}`)
	ann.say(`{"type":"invoke","invocationId":"2","target":"event","event":"empty","dataType":"text","data":""}`)
	ann.hears(`{"type":"invokeResponse","invocationId":"2","success":true,"dataType":"text","data":""}`)
	ann.say(`{"type":"invoke","invocationId":"3","target":"event","event":"no","dataType":"text","data":""}`)
	ann.hears(`{"type":"invokeResponse","invocationId":"3","success":false,"error":{"name":"InternalServerError","message":"Internal server error"}}`)
	ann.pings()
}

func cancelled(p *play) {
	began, ended := make(chan string, 2), make(chan string, 2)
	p.handler.OnUserEvent = func(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		began <- string(e.Payload.Data)
		if string(e.Payload.Data) == "last" {
			return nil, nil
		}
		<-ctx.Done()
		ended <- string(e.Payload.Data)
		return nil, ctx.Err()
	}
	ann := p.client("ann")
	ann.say(invoke, "first")
	if got := <-began; got != "first" {
		p.Fatalf("the handler was asked %q", got)
	}
	ann.say(invoke, "first") // in use
	ann.hearsLike(`{"type":"invokeResponse","invocationId":"first","success":false,"error":{"name":"BadRequest"}}`)
	ann.say(invoke, "second")
	ann.say(invoke, "last")
	ann.say(`{"type":"cancelInvocation","invocationId":"nobody"}`)
	ann.say(`{"type":"cancelInvocation","invocationId":"second"}`) // which waits behind the first
	ann.say(`{"type":"cancelInvocation","invocationId":"first"}`)
	if got := <-ended; got != "first" {
		p.Fatalf("%q was cancelled", got)
	}
	ann.hearsLike(`{"type":"invokeResponse","invocationId":"first","success":false}`)
	ann.hearsLike(`{"type":"invokeResponse","invocationId":"second","success":false}`)
	ann.hears(`{"type":"invokeResponse","invocationId":"last","success":true}`)
	if got := <-began; got != "last" {
		p.Fatalf("the handler was asked %q, which was cancelled before", got)
	}
	ann.say(`{"type":"cancelInvocation","invocationId":"last"}`)
	ann.pings()
}

func manyInvocations(p *play) {
	const n = 64
	p.options.Limits.PendingEvents = 4
	gate := make(chan struct{})
	p.handler.OnUserEvent = func(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
		select {
		case <-gate:
		case <-ctx.Done():
		}
		return &engine.EventReply{Payload: &e.Payload}, ctx.Err()
	}
	ann, bo := p.client("ann"), p.client("bo")
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := ann.Send(p.tongue.say(fmt.Appendf(nil, invoke, fmt.Sprint(i)))); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range 3 { // another client is not held up meanwhile
		bo.pings()
	}
	close(gate)
	for i := range n {
		ann.hears(fmt.Sprintf(`{"type":"invokeResponse","invocationId":"%d","success":true,"dataType":"text","data":"%[1]d"}`, i))
	}
	p.must(<-sent)
	ann.pings()
}

func invocationOnALostWire(p *play) {
	began, leave := make(chan struct{}), make(chan struct{})
	p.handler.OnUserEvent = func(context.Context, *engine.UserEvent) (*engine.EventReply, error) {
		began <- struct{}{}
		<-leave
		return nil, nil
	}
	ann := p.client("ann")
	ann.say(invoke, "1")
	<-began
	again := p.recover(ann)
	again.say(invoke, "1") // another one, which waits behind the first
	again.pings()
	leave <- struct{}{}
	<-began
	again.pings() // the first was answered by then, and its wire is gone
	leave <- struct{}{}
	again.hears(`{"type":"invokeResponse","invocationId":"1","success":true}`)
	again.pings()
}
