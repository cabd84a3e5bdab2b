package engine_test

import (
	"context"
	"fmt"

	"github.com/fanfare/fanfare/engine"
)

// An engine is useful inside one program: subscribers are members of groups like
// any client.
func Example() {
	e, _ := engine.New(nil)
	defer e.Close()
	ctx := context.Background()
	chat := e.Hub("chat")

	bo, _ := chat.Subscribe(ctx, &engine.SubscribeOptions{UserID: "bo", Groups: []engine.GroupName{"news"}})
	_ = chat.SendToGroup(ctx, "news", engine.Payload{Data: []byte("hello")}, nil)

	m, _ := bo.Receive(ctx)
	fmt.Printf("%s: %s\n", m.Group, m.Payload.Data)
	// Output: news: hello
}

// Handlers in plain Go decide who comes in and answer what clients raise.
func ExampleHandlerFuncs() {
	greet := &engine.HandlerFuncs{
		OnConnect: func(_ context.Context, e *engine.ConnectEvent) (*engine.ConnectReply, error) {
			if e.UserID == "" {
				return nil, engine.Errorf(engine.CodeForbidden, "names.only", "Come back with a name.")
			}
			return nil, nil
		},
	}
	e, _ := engine.New(&engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		return &engine.HubOptions{Handlers: []engine.HandlerRule{{SystemEvents: []string{"connect"}, Handler: greet}}}
	}})
	defer e.Close()

	_, err := e.Hub("chat").Admit(context.Background(), &engine.AdmitRequest{})
	fmt.Println(err)
	// Output: Come back with a name. [names.only]
}
