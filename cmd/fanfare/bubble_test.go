package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/webhook"
)

// bubble is a node and its event handler over pipes, in a synctest bubble: what
// takes them seconds takes the test none.
type bubble struct {
	*upstream
	doors *transporttest.Listener
}

// handler is one handler of a bubble's hub chat.
type handler struct {
	path   string // of its URL template
	system []string
	users  string
}

func newBubble(t *testing.T, handlers ...handler) *bubble {
	t.Helper()
	b := &bubble{
		upstream: &upstream{events: make(chan *http.Request, 100), checks: make(chan *http.Request, 100)},
		doors:    transporttest.Listen(),
	}
	behind := transporttest.Listen()
	upward := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return behind.Dial() }}

	c, hub := config.Default(), config.Hub{KeepAlive: 20}
	for _, h := range handlers {
		hub.EventHandlers = append(hub.EventHandlers, config.EventHandler{
			URLTemplate: config.Secret("http://upstream.example" + h.path), SystemEvents: h.system, UserEventPattern: h.users,
		})
	}
	c.Hubs = map[string]config.Hub{"chat": hub}
	n, err := newNode(c, func(*config.Config) string { return "http://node.example" }, slog.New(slog.DiscardHandler), new(slog.LevelVar), newMetrics(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// No hub has been used yet, and so no client asked for.
	for key, made := range n.upstreams.all {
		made.Close()
		if n.upstreams.all[key], err = webhook.New(key.template.Reveal(), &webhook.Options{
			Origin: key.origin, Signer: n.ring, Wrap: func(http.RoundTripper) http.RoundTripper { return upward },
		}); err != nil {
			t.Fatal(err)
		}
	}

	front := n.admission(c, b.doors, false)
	outer, inner := n.httpServer(c, front), &http.Server{Handler: b.upstream}
	var running sync.WaitGroup
	running.Go(func() { outer.Serve(front) })
	running.Go(func() { inner.Serve(behind) })
	t.Cleanup(func() {
		n.close()
		outer.Close()
		upward.CloseIdleConnections()
		inner.Close()
		running.Wait()
	})
	return b
}

// client lets a client in.
func (b *bubble) client(t *testing.T) *client.Client {
	t.Helper()
	return b.clientBy(t, func(context.Context, string, string) (net.Conn, error) { return b.doors.Dial() })
}

// clientBy lets a client in that dials in its own way. It may do all to groups.
func (b *bubble) clientBy(t *testing.T, dial func(context.Context, string, string) (net.Conn, error)) *client.Client {
	t.Helper()
	const hub = "://node.example/client/hubs/chat"
	token := sign(t, accesskey.DevelopmentKey, "http"+hub, time.Now().Add(time.Hour),
		engine.RoleJoinLeaveGroup, engine.RoleSendToGroup)
	c, err := client.Dial(t.Context(), "ws"+hub+"?access_token="+token, &client.Options{NetDial: dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	mustReceive[client.Connected](t, c)
	return c
}
