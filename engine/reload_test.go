package engine_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// A hub that is made while settings change gets the new ones.
func TestReloadBesideANewHub(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	handled := make(chan string, 1)
	handler := func(name string) []engine.HandlerRule {
		return []engine.HandlerRule{{SystemEvents: []string{"connect"}, Handler: &engine.HandlerFuncs{
			OnConnect: func(context.Context, *engine.ConnectEvent) (*engine.ConnectReply, error) {
				handled <- name
				return nil, nil
			},
		}}}
	}
	e := start(t, &engine.Options{Hubs: func(engine.HubName) *engine.HubOptions {
		if calls.Add(1) == 1 {
			close(asked)
			<-release
			return &engine.HubOptions{Handlers: handler("old")}
		}
		return &engine.HubOptions{Handlers: handler("new")}
	}})
	made := make(chan *engine.Hub)
	go func() { made <- e.Hub("chat") }()
	<-asked
	e.Reload()
	close(release)
	a, err := (<-made).Admit(t.Context(), &engine.AdmitRequest{})
	must(t, err)
	a.Abandon("")
	if got := <-handled; got != "new" {
		t.Errorf("the %s handler was asked", got)
	}
}
