package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

// upstreams are the clients of the event handlers that the settings name. A
// client stays as long as its settings do, and with it what it knows of its
// server.
type upstreams struct {
	node    *node
	retired sync.WaitGroup
	life    context.Context // ends with close
	end     context.CancelFunc

	mu  sync.Mutex // guards the rest
	all clients
	old []*webhook.Client // out of the settings, perhaps still asked
}

// upstreamKey is what a client is made from.
type upstreamKey struct {
	template config.Secret
	origin   string
	calls    int
}

// clients are the clients of one version of the settings. They are not changed.
type clients map[upstreamKey]*webhook.Client

func newUpstreams(n *node) *upstreams {
	u := &upstreams{node: n, all: clients{}}
	u.life, u.end = context.WithCancel(context.Background())
	return u
}

// use returns the clients that c names, of which it makes those that are not
// there yet. On an error nothing changes.
func (u *upstreams) use(c *config.Config) (clients, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := clients{}
	var fresh []*webhook.Client
	for name, hub := range c.Hubs {
		for i, h := range hub.EventHandlers {
			key := u.key(c, h)
			if next[key] != nil {
				continue
			}
			if next[key] = u.all[key]; next[key] != nil {
				continue
			}
			client, err := u.client(key)
			if err != nil {
				for _, f := range fresh {
					f.Close()
				}
				return nil, fmt.Errorf("hubs.%s.eventHandlers[%d]: %w", name, i, err)
			}
			next[key] = client
			fresh = append(fresh, client)
		}
	}
	for key, client := range u.all {
		if next[key] == nil {
			u.old = append(u.old, client)
		}
	}
	u.all = next
	return next, nil
}

func (u *upstreams) key(c *config.Config, h config.EventHandler) upstreamKey {
	return upstreamKey{template: h.URLTemplate, origin: u.node.origin(c), calls: c.Limits.PendingEvents}
}

func (u *upstreams) client(k upstreamKey) (*webhook.Client, error) {
	return webhook.New(k.template.Reveal(), &webhook.Options{
		Origin:   k.origin,
		Signer:   u.node.ring, // signs nothing while local authentication is off
		MaxCalls: k.calls,
		Wrap:     u.node.tracing.upstream,
		Observe:  u.node.metrics.webhook,
		Logger:   u.node.log.With("room", "webhook"),
	})
}

// rules returns the handlers of a hub of c, whose clients are in all.
func (u *upstreams) rules(c *config.Config, all clients, h config.Hub) []engine.HandlerRule {
	var rules []engine.HandlerRule
	for _, e := range h.EventHandlers {
		rules = append(rules, engine.HandlerRule{SystemEvents: e.SystemEvents, UserEvents: e.UserEventPattern, Handler: all[u.key(c, e)]})
	}
	return rules
}

// grace is how long a client that is out of the settings is kept for events that
// had picked it before; none of them takes longer.
const grace = 100 * time.Second

// retire closes, after a while, the clients that nothing names any more.
func (u *upstreams) retire() {
	u.mu.Lock()
	old := u.old
	u.old = nil
	u.mu.Unlock()
	for _, client := range old {
		u.retired.Go(func() { // ends with the grace, or with close
			select {
			case <-time.After(grace):
			case <-u.life.Done():
			}
			client.Close()
		})
	}
}

// close ends all clients. The engine asks them no more when it is called.
func (u *upstreams) close() {
	u.end()
	u.mu.Lock()
	for _, client := range u.all {
		client.Close()
	}
	for _, client := range u.old {
		client.Close()
	}
	u.all, u.old = nil, nil
	u.mu.Unlock()
	u.retired.Wait()
}
