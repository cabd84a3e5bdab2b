package websocket_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/client"
	"github.com/fanfare/fanfare/transport/websocket"
)

// A service that believes everybody's name, and lets them into one group.
func Example() {
	e, err := engine.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	door := websocket.NewHandler(e, transport.AuthenticatorFunc(
		func(_ context.Context, c engine.Credentials) (engine.Identity, error) {
			return engine.Identity{UserID: engine.UserID(c.Token), Roles: []string{"webpubsub.joinLeaveGroup.news"}}, nil
		}), nil)
	srv := httptest.NewServer(door)
	defer srv.Close()

	ctx := context.Background()
	url := strings.Replace(srv.URL, "http:", "ws:", 1) + "/client/hubs/chat?access_token=ann"
	ann, err := client.Dial(ctx, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.Close()
	if err := ann.JoinGroup(ctx, "news"); err != nil {
		log.Fatal(err)
	}
	p := engine.Payload{Type: engine.Text, Data: []byte("hello, ")}
	p.Data = append(p.Data, ann.UserID()...)
	if err := e.Hub("chat").SendToGroup(ctx, "news", p, nil); err != nil {
		log.Fatal(err)
	}
	for {
		event, err := ann.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if m, ok := event.(client.Message); ok {
			fmt.Printf("%s: %s\n", m.Group, m.Payload.Data)
			return
		}
	}
	// Output: news: hello, ann
}
