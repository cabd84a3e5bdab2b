package accesskey_test

import (
	"context"
	"fmt"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// A node holds a ring; an application server holds a connection string, and
// signs what it sends and what its clients show.
func Example() {
	key := accesskey.Generate()
	ring := accesskey.NewRing(key, accesskey.Key{})
	app, err := accesskey.ParseConnectionString("Endpoint=https://rt.example.com;AccessKey=" + key.Reveal() + ";Version=1.0;")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(app)

	text, err := app.ClientToken("chat", token.Claims{User: "ann"})
	if err != nil {
		fmt.Println(err)
		return
	}
	id, err := accesskey.NewClients(ring, nil).Authenticate(context.Background(), engine.Credentials{
		Hub: "chat", Audience: "wss://rt.example.com/client/hubs/chat", Token: text,
	})
	fmt.Println(id.UserID, err)

	ring.RegeneratePrimary()
	_, err = accesskey.NewClients(ring, nil).Authenticate(context.Background(), engine.Credentials{
		Hub: "chat", Audience: "wss://rt.example.com/client/hubs/chat", Token: text,
	})
	fmt.Println(err.(*engine.Error).Rule)
	// Output:
	// Endpoint=https://rt.example.com;AccessKey=(hidden key);Version=1.0;
	// ann <nil>
	// token.signature
}
