package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// open serves a take-away until the test ends.
func open(t *testing.T) (*takeAway, *httptest.Server) {
	t.Helper()
	s, err := newTakeAway()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(s.Handler())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		server.Close()
	})
	return s, server
}

// get returns what the service's own mux answers.
func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %s", url, r.Status, body)
	}
	return strings.TrimSpace(string(body))
}

// guest is a client that speaks the JSON subprotocol.
type guest struct {
	t    *testing.T
	conn io.ReadWriteCloser
}

func connect(t *testing.T, url string) (*guest, error) {
	t.Helper()
	conn, buffered, _, err := ws.Dialer{Protocols: []string{"json.webpubsub.azure.v1"}}.Dial(t.Context(), url)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if buffered == nil {
		return &guest{t, conn}, nil
	}
	// What came right behind the answer to the handshake.
	return &guest{t, struct {
		io.Reader
		io.WriteCloser
	}{io.MultiReader(buffered, conn), conn}}, nil
}

func (g *guest) say(json string) {
	g.t.Helper()
	if err := wsutil.WriteClientText(g.conn, []byte(json)); err != nil {
		g.t.Fatal(err)
	}
}

// hears reads the next message and checks that it is want, given as JSON.
func (g *guest) hears(want string) {
	g.t.Helper()
	got, err := wsutil.ReadServerText(g.conn)
	if err != nil {
		g.t.Fatalf("waited for %s: %v", want, err)
	}
	if !bytes.Equal(canonical(g.t, got), canonical(g.t, []byte(want))) {
		g.t.Fatalf("the guest hears %s, want %s", got, want)
	}
}

// canonical drops what differs from run to run, and orders the rest.
func canonical(t *testing.T, text []byte) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	delete(m, "connectionId")
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGuestOrdersAndIsServed(t *testing.T) {
	_, server := open(t)
	g, err := connect(t, get(t, server.URL+"/login?name=ann"))
	if err != nil {
		t.Fatal(err)
	}
	g.hears(`{"type":"system","event":"connected","userId":"ann"}`)

	g.say(`{"type":"event","event":"order","dataType":"text","data":"pizza","ackId":1}`)
	g.hears(`{"type":"message","from":"server","dataType":"text","data":"We have dumplings, noodles, soup."}`)
	g.hears(`{"type":"ack","ackId":1,"success":true}`)

	g.say(`{"type":"event","event":"order","dataType":"text","data":"soup"}`)
	// The kitchen is quicker than the waiter at times: two messages, in either order.
	var seen []string
	for range 2 {
		m, err := wsutil.ReadServerText(g.conn)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, string(m))
	}
	all := strings.Join(seen, "\n")
	for _, want := range []string{`"data":"One soup, coming up."`, `"data":"Your soup is ready."`} {
		if !strings.Contains(all, want) {
			t.Errorf("the guest hears\n%s\nwant %s in it", all, want)
		}
	}

	var stats struct{ Connections int64 }
	if err := json.Unmarshal([]byte(get(t, server.URL+"/stats")), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Connections != 2 { // the guest and the kitchen
		t.Errorf("%d connections, want 2", stats.Connections)
	}
}

func TestGuestWithoutNameIsTurnedAway(t *testing.T) {
	_, server := open(t)
	_, err := connect(t, get(t, server.URL+"/login"))
	var status ws.StatusError
	if !errors.As(err, &status) || int(status) != http.StatusForbidden {
		t.Fatalf("connecting without a name: %v, want status 403", err)
	}
}

// TestServersReachGuests sends through REST, as another service with the key would.
func TestServersReachGuests(t *testing.T) {
	s, server := open(t)
	g, err := connect(t, get(t, server.URL+"/login?name=ann"))
	if err != nil {
		t.Fatal(err)
	}
	g.hears(`{"type":"system","event":"connected","userId":"ann"}`)

	service, err := accesskey.ParseConnectionString("Endpoint=" + server.URL + ";AccessKey=" + s.key.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	target := server.URL + "/api/hubs/takeaway/users/" + url.PathEscape("ann") + "/:send?api-version=2024-12-01"
	bearer, err := service.ServerToken(target)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader("We close at ten."))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	r.Header.Set("Content-Type", "text/plain")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted {
		t.Fatalf("send to ann: %s, want 202", answer.Status)
	}
	g.hears(`{"type":"message","from":"server","dataType":"text","data":"We close at ten."}`)
}
