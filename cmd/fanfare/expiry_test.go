package main

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

// What was not delivered in time is not delivered, whether a server or a client
// said how long it is worth it: messageTtlSeconds and ttlSeconds.
func TestMessagesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t)
		wires, open := make(chan net.Conn, 1), make(chan struct{}, 1)
		open <- struct{}{}
		away := b.clientBy(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case <-open:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			c, err := b.doors.Dial()
			if err == nil {
				wires <- c
			}
			return c, err
		})
		if err := away.JoinGroup(t.Context(), "g"); err != nil {
			t.Fatal(err)
		}
		peer := b.client(t)
		publish := func(text string, ttl time.Duration) {
			t.Helper()
			p := engine.Payload{Type: engine.Text, Data: []byte(text)}
			if err := peer.SendToGroup(t.Context(), "g", p, &client.SendOptions{TTL: ttl}); err != nil {
				t.Fatal(err)
			}
		}
		(<-wires).Close()
		synctest.Wait()
		publish("of a client, for a second", time.Second)
		publish("of a client, for a minute", time.Minute)
		b.send(t, "of a server, for a second", "?messageTtlSeconds=1")
		b.send(t, "of a server, for a minute", "?messageTtlSeconds=60")
		b.send(t, "of a server, for ever", "")
		time.Sleep(2 * time.Second) // virtual
		open <- struct{}{}
		mustReceive[client.Recovered](t, away)
		for _, want := range []string{"of a client, for a minute", "of a server, for a minute", "of a server, for ever"} {
			if m := mustReceive[client.Message](t, away); string(m.Payload.Data) != want {
				t.Errorf("received %q; want %q", m.Payload.Data, want)
			}
		}
	})
}

// send sends text to group g through REST.
func (b *bubble) send(t *testing.T, text, query string) {
	t.Helper()
	conn, err := accesskey.ParseConnectionString("Endpoint=http://node.example;AccessKey=" + accesskey.DevelopmentKey)
	if err != nil {
		t.Fatal(err)
	}
	target := conn.Endpoint + "/api/hubs/chat/groups/g/:send" + query
	signed, err := conn.ServerToken(target)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+signed)
	r.Header.Set("Content-Type", "text/plain")
	through := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return b.doors.Dial() },
		DisableKeepAlives: true,
	}
	answer, err := through.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		t.Fatalf("REST: %s", answer.Status)
	}
}
