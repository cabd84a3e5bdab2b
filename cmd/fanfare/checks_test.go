package main

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// The other checks of compatibility with Azure Web PubSub stand in
// transport/websocket; these need a node, with its access keys.

// knock knocks at the node with a token in the query, and one in the header. It
// returns the HTTP status.
func knock(t *testing.T, n *command, hub, query, header string) int {
	t.Helper()
	url := "ws://" + n.address + "/client/hubs/" + hub
	if query != "" {
		url += "?access_token=" + query
	}
	d := ws.Dialer{Timeout: patience}
	if header != "" {
		d.Header = ws.HandshakeHeaderHTTP{"Authorization": {"Bearer " + header}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, _, _, err := d.Dial(ctx, url)
	if err == nil {
		c.Close()
		return http.StatusSwitchingProtocols
	}
	var refused ws.StatusError
	if !errors.As(err, &refused) {
		t.Fatal(err)
	}
	return int(refused)
}

// sign makes a client token.
func sign(t *testing.T, key, audience string, expires time.Time, roles ...string) string {
	t.Helper()
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"aud": audience, "exp": expires.Unix(), "sub": "ann", "role": roles,
	}).SignedString([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestCheck01Tokens(t *testing.T) {
	n := startNode(t, nil)
	audience, later := "http://"+n.address+"/client/hubs/chat", time.Now().Add(time.Hour)
	good := sign(t, accesskey.DevelopmentKey, audience, later)
	expired := sign(t, accesskey.DevelopmentKey, audience, time.Now().Add(-time.Hour))
	for name, c := range map[string]struct {
		query, header string
		status        int
	}{
		"no token":              {"", "", 401},
		"expired":               {expired, "", 401},
		"for another hub":       {sign(t, accesskey.DevelopmentKey, audience+"s", later), "", 401},
		"another's signature":   {sign(t, "another-key-of-at-least-32-characters", audience, later), "", 401},
		"in the query":          {good, "", 101},
		"in the header":         {"", good, 101},
		"the query's is better": {good, expired, 101},
		"the query's is worse":  {expired, good, 401},
	} {
		if status := knock(t, n, "chat", c.query, c.header); status != c.status {
			t.Errorf("%s: %d, expected %d", name, status, c.status)
		}
	}
}

func TestCheck02HubsWithoutRegardToCase(t *testing.T) {
	n := startNode(t, nil)
	token := sign(t, accesskey.DevelopmentKey, "http://"+n.address+"/client/hubs/chat", time.Now().Add(time.Hour))
	open(t, "ws://"+n.address+"/client/hubs/CHAT?access_token="+token, "json.webpubsub.azure.v1").hello()
	if ok, err := n.node.engine.Hub("chat").UserExists(t.Context(), "ann"); !ok || err != nil {
		t.Errorf("the client is in the hub chat: %v, %v", ok, err)
	}
}
