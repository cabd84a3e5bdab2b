package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

// upstreams are the clients of the event handlers that the settings name, and the
// identity that they show. Each stays as long as its settings do, and with it what
// it knows of its server.
type upstreams struct {
	node    *node
	retired sync.WaitGroup
	life    context.Context // ends with close
	end     context.CancelFunc

	mu       sync.Mutex // guards the rest
	all      clients
	identity *serviceIdentity
	old      []io.Closer // out of the settings, perhaps still asked
}

// upstreamKey is what a client is made from.
type upstreamKey struct {
	template config.Secret
	origin   string
	calls    int
	resource string           // of its tokens; empty for none
	identity *serviceIdentity // nil for a client that needs none
}

// clients are the clients of one version of the settings. They are not changed.
type clients map[upstreamKey]*webhook.Client

func newUpstreams(n *node) *upstreams {
	u := &upstreams{node: n, all: clients{}}
	u.life, u.end = context.WithCancel(context.Background())
	return u
}

// use returns the identity and the clients that c names, of which it makes those
// that are not there yet. On an error nothing changes.
func (u *upstreams) use(c *config.Config) (*serviceIdentity, clients, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var fresh []io.Closer
	fail := func(err error) (*serviceIdentity, clients, error) {
		for _, f := range fresh {
			f.Close()
		}
		return nil, nil, err
	}
	keys, err := u.node.serviceKeys(c)
	if err != nil {
		return fail(err)
	}
	id := u.identity
	if key := identityOf(c, u.node.endpoint(c)); id == nil || id.key != key {
		if id, err = newIdentity(key, keys, u.node.log); err != nil {
			return fail(err)
		}
		fresh = append(fresh, id)
	}
	next := clients{}
	for name, hub := range c.Hubs {
		for i, h := range hub.EventHandlers {
			key := u.key(c, id, h)
			if next[key] != nil {
				continue
			}
			if next[key] = u.all[key]; next[key] != nil {
				continue
			}
			client, err := u.client(key)
			if err != nil {
				return fail(fmt.Errorf("hubs.%s.eventHandlers[%d]: %w", name, i, err))
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
	if u.identity != nil && u.identity != id {
		u.old = append(u.old, u.identity)
	} else if u.identity == id {
		id.again(keys)
	}
	u.all, u.identity = next, id
	return id, next, nil
}

func (u *upstreams) key(c *config.Config, id *serviceIdentity, h config.EventHandler) upstreamKey {
	_, origin, _ := strings.Cut(u.node.endpoint(c), "://")
	origin, _, _ = strings.Cut(origin, "/") // a host, whatever path the service is behind
	k := upstreamKey{template: h.URLTemplate, origin: origin, calls: c.Limits.PendingEvents, resource: c.Resource(h)}
	if k.resource != "" || len(h.Secrets()) > 0 {
		k.identity = id
	}
	return k
}

func (u *upstreams) client(k upstreamKey) (*webhook.Client, error) {
	o := &webhook.Options{
		Origin:   k.origin,
		Signer:   u.node.ring, // signs nothing while local authentication is off
		MaxCalls: k.calls,
		Wrap:     u.node.tracing.upstream,
		Observe:  u.node.metrics.webhook,
		Logger:   u.node.log.With("room", "webhook"),
	}
	if k.resource != "" {
		o.Tokens, o.Resource = k.identity.tokens, k.resource
	}
	if secrets := (config.EventHandler{URLTemplate: k.template}).Secrets(); len(secrets) > 0 && k.identity.secrets != nil {
		o.Secrets = k.identity.secrets
		o.Observe = func(a webhook.Attempt) {
			u.node.metrics.webhook(a)
			if a.Status == http.StatusUnauthorized || a.Status == http.StatusForbidden {
				for _, uri := range secrets {
					k.identity.secrets.Doubt(uri)
				}
			}
		}
	}
	return webhook.New(k.template.Reveal(), o)
}

// rules returns the handlers of a hub of c, whose clients are in all.
func (u *upstreams) rules(c *config.Config, id *serviceIdentity, all clients, h config.Hub) []engine.HandlerRule {
	var rules []engine.HandlerRule
	for _, e := range h.EventHandlers {
		rules = append(rules, engine.HandlerRule{SystemEvents: e.SystemEvents, UserEvents: e.UserEventPattern, Handler: all[u.key(c, id, e)]})
	}
	return rules
}

// grace is how long a client that is out of the settings is kept for events that
// had picked it before; none of them takes longer.
const grace = 100 * time.Second

// retire closes, after a while, what nothing names any more.
func (u *upstreams) retire() {
	u.mu.Lock()
	old := u.old
	u.old = nil
	u.mu.Unlock()
	for _, o := range old {
		u.retired.Go(func() { // ends with the grace, or with close
			select {
			case <-time.After(grace):
			case <-u.life.Done():
			}
			o.Close()
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
	for _, o := range u.old {
		o.Close()
	}
	if u.identity != nil {
		u.identity.Close()
	}
	u.all, u.identity, u.old = nil, nil, nil
	u.mu.Unlock()
	u.retired.Wait()
}
