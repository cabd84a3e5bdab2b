package mqtt_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/mqtt"
	"github.com/fanfare/fanfare/transport/websocket"
)

// MQTT clients come in by the WebSocket door, beside those of Azure's protocols.
func Example() {
	e, err := engine.New(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Close()
	anybody := transport.AuthenticatorFunc(func(context.Context, engine.Credentials) (engine.Identity, error) {
		return engine.Identity{Roles: []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"}}, nil
	})
	srv := httptest.NewServer(websocket.NewHandler(e, anybody, &websocket.Options{
		Protocols: []websocket.Protocol{mqtt.Protocol(nil)},
	}))
	defer srv.Close()

	url := strings.Replace(srv.URL, "http", "ws", 1) + "/clients/mqtt/hubs/chat"
	c := paho.NewClient(paho.NewClientOptions().AddBroker(url).SetClientID("ann"))
	got := make(chan string)
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		fmt.Println(t.Error())
		return
	}
	defer c.Disconnect(100)
	c.Subscribe("news", 1, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }).Wait()
	if err := e.Hub("chat").SendToGroup(context.Background(), "news", engine.Payload{Data: []byte("hello")}, nil); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(<-got)
	// Output: hello
}
