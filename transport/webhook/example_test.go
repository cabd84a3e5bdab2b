package webhook_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

// An application server that greets whoever raises an event, and the client
// that brings it one.
func Example() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions { // "may I send you events?"
			w.Header().Set("WebHook-Allowed-Origin", r.Header.Get("WebHook-Request-Origin"))
			return
		}
		data, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintf(w, "%s got %q from %s", r.URL.Path, data, r.Header.Get("ce-userId"))
	}))
	defer server.Close()

	c, err := webhook.New(server.URL+"/{hub}/{event}", &webhook.Options{Origin: "rt.example.com"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	// In a program the engine does this, for the events that a rule gives to the client:
	// engine.HandlerRule{UserEvents: "*", Handler: c}.
	reply, err := c.UserEvent(context.Background(), &engine.UserEvent{
		EventContext: engine.EventContext{Hub: "chat", ConnID: "c1", UserID: "ann", ID: 1, Time: time.Now()},
		Name:         "greet",
		Payload:      engine.Payload{Type: engine.Text, Data: []byte("hello")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s: %s\n", reply.Payload.Type, reply.Payload.Data)
	// Output: text: /chat/greet got "hello" from ann
}
