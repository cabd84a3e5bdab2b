package client_test

import (
	"context"
	"fmt"
	"log"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

func Example() {
	s := serve(&testing.T{}, &server{}) // in place of a node's client URL
	defer s.stop()

	ctx := context.Background()
	c, err := client.Dial(ctx, s.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if err := c.JoinGroup(ctx, "news"); err != nil {
		log.Fatal(err)
	}
	hello := engine.Payload{Type: engine.Text, Data: []byte("hello")}
	if err := c.SendToGroup(ctx, "news", hello, nil); err != nil {
		log.Fatal(err)
	}
	for {
		event, err := c.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		switch e := event.(type) {
		case client.Connected:
			fmt.Println("connected as", e.UserID)
		case client.Message:
			fmt.Printf("%s in %s: %s\n", e.FromUserID, e.Group, e.Payload.Data)
			return
		}
	}
	// Output:
	// connected as kim
	// kim in news: hello
}
