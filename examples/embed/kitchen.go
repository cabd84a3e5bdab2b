// Command embed is a take-away with a real-time engine inside: guests connect
// with any Azure Web PubSub client and order; the kitchen, a goroutine of the
// same process, is a member of a group like any client.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/rest"
	"github.com/fanfare/fanfare/transport/websocket"
)

const (
	hub     engine.HubName   = "takeaway"
	kitchen engine.GroupName = "kitchen"
)

var menu = []string{"dumplings", "noodles", "soup"}

// takeAway is the service: an engine, what guests ask of it, and a kitchen.
type takeAway struct {
	engine *engine.Engine
	orders *engine.Subscription
	key    accesskey.Key
	cooked chan struct{} // closed when the kitchen has shut
}

// newTakeAway opens the service. Close ends it.
func newTakeAway() (*takeAway, error) {
	s := &takeAway{key: accesskey.Generate(), cooked: make(chan struct{})}
	rules := []engine.HandlerRule{{
		SystemEvents: []string{engine.SystemConnect},
		UserEvents:   "order",
		Handler:      &engine.HandlerFuncs{OnConnect: s.admit, OnUserEvent: s.order},
	}}
	var err error
	s.engine, err = engine.New(&engine.Options{
		Hubs: func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{Handlers: rules} },
	})
	if err != nil {
		return nil, err
	}
	s.orders, err = s.engine.Hub(hub).Subscribe(context.Background(), &engine.SubscribeOptions{
		UserID: "the cook", Groups: []engine.GroupName{kitchen},
	})
	if err != nil {
		return nil, err
	}
	go s.cook() // ends with the subscription; Close waits for it
	return s, nil
}

// Close drains: guests are told, and the kitchen shuts.
func (s *takeAway) Close(ctx context.Context) error {
	err := s.engine.Shutdown(ctx)
	<-s.cooked
	return err
}

// Handler is the whole service. The doors stand before the mux, since both read
// paths as they were sent, and a mux would tidy them up.
func (s *takeAway) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.home)
	mux.HandleFunc("GET /login", s.login)
	mux.HandleFunc("GET /stats", s.stats)

	ring := accesskey.NewRing(s.key, accesskey.Key{})
	servers := rest.NewHandler(s.engine, authn.Servers(accesskey.NewServers(ring, nil)), &rest.Options{Fallback: mux})
	return websocket.NewHandler(s.engine, authn.Clients(accesskey.NewClients(ring, nil)), &websocket.Options{Fallback: servers})
}

// admit lets guests in who have a name.
func (s *takeAway) admit(_ context.Context, e *engine.ConnectEvent) (*engine.ConnectReply, error) {
	if e.UserID == "" {
		return nil, &engine.Error{
			Code: engine.CodeForbidden, Rule: "takeaway.name", Status: http.StatusForbidden,
			Message: "Guests need a name: connect with a URL from /login?name=...",
		}
	}
	return nil, nil // as the token says
}

// order answers a guest, and puts what is on the menu before the kitchen.
func (s *takeAway) order(ctx context.Context, e *engine.UserEvent) (*engine.EventReply, error) {
	dish := string(e.Payload.Data)
	if !slices.Contains(menu, dish) {
		return reply("We have " + strings.Join(menu, ", ") + "."), nil
	}
	ticket, err := json.Marshal(map[string]string{"guest": string(e.UserID), "dish": dish})
	if err != nil {
		return nil, err
	}
	if err := s.engine.Hub(hub).SendToGroup(ctx, kitchen, engine.Payload{Type: engine.JSON, Data: ticket}, nil); err != nil {
		return nil, err
	}
	return reply("One " + dish + ", coming up."), nil
}

func reply(text string) *engine.EventReply {
	return &engine.EventReply{Payload: &engine.Payload{Type: engine.Text, Data: []byte(text)}}
}

// cook works through the tickets until the subscription ends.
func (s *takeAway) cook() {
	defer close(s.cooked)
	ctx := context.Background()
	for {
		m, err := s.orders.Receive(ctx)
		if err != nil {
			return
		}
		var ticket struct{ Guest, Dish string }
		if m.Kind != engine.KindData || json.Unmarshal(m.Payload.Data, &ticket) != nil {
			continue
		}
		ready := engine.Payload{Type: engine.Text, Data: []byte("Your " + ticket.Dish + " is ready.")}
		_ = s.engine.Hub(hub).SendToUser(ctx, engine.UserID(ticket.Guest), ready, nil) // guests may have left
	}
}

func (s *takeAway) home(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "Today: %s.\nGet a client URL from /login?name=you and raise the event \"order\".\n", strings.Join(menu, ", "))
}

// login hands out a client URL. A real service would ask who this is.
func (s *takeAway) login(w http.ResponseWriter, r *http.Request) {
	service, err := accesskey.ParseConnectionString("Endpoint=http://" + r.Host + ";AccessKey=" + s.key.Reveal())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	url, err := service.ClientURL(hub, token.Claims{User: engine.UserID(r.FormValue("name")), Lifetime: time.Hour})
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, url)
}

// stats shows the engine's counters; a metrics library would read them here.
func (s *takeAway) stats(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.engine.Stats()) // the caller may have left
}
