package websocket_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/engine/enginetest"
	"github.com/fanfare/fanfare/transport"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// greeting is the first message of a client of a JSON subprotocol.
type greeting struct{ ConnectionID, ReconnectionToken, UserID string }

// hello reads it.
func (c *conn) hello() (g greeting) {
	c.t.Helper()
	if p := c.next(ws.OpText); json.Unmarshal(p, &g) != nil || g.ConnectionID == "" {
		c.t.Fatalf("the first message is %q", p)
	}
	return g
}

// recovery is where a client goes to have its connection back.
func (g greeting) recovery() string {
	return "/client/hubs/chat?" + url.Values{
		"awps_connection_id": {g.ConnectionID}, "awps_reconnection_token": {g.ReconnectionToken},
	}.Encode()
}

// notRecovered expects the door's word that there is nothing to be had.
func (c *conn) notRecovered() {
	c.t.Helper()
	_, p, err := c.Receive()
	var closed *transporttest.Closed
	if !errors.As(err, &closed) || closed.Code != engine.ClosePolicy || closed.Text != transport.ReasonNotRecovered {
		c.t.Fatalf("received %q, %v", p, err)
	}
}

// TestRecoverySubprotocol is a connection that keeps the subprotocol it began
// with, whatever else its client offers and shows.
func TestRecoverySubprotocol(t *testing.T) {
	g := newGate(t, websocket.Options{})
	c, _ := g.dial(t, "/client/hubs/chat?access_token=good", reliableJSON, nil)
	me := c.hello()
	for _, try := range []struct{ more, protocols, want string }{
		{"", reliableJSON, reliableJSON},
		{"", "foo, JSON.Reliable.WebPubSub.Azure.V1", "JSON.Reliable.WebPubSub.Azure.V1"},
		{"&access_token=expired", "protobuf.reliable.webpubsub.azure.v1, " + reliableJSON, reliableJSON},
		{"&webpubsub_mode=fly", reliableJSON, reliableJSON},
	} {
		c.Drop()
		var res string
		if c, res = g.dial(t, me.recovery()+try.more, try.protocols, nil); c == nil {
			t.Fatal(res)
		}
		if c.protocol != try.want {
			t.Errorf("offered %q, got %q", try.protocols, c.protocol)
		}
		if again := c.hello(); again != me {
			t.Errorf("%+v came back as %+v", me, again)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.shown) != 1 || len(g.asked) != 1 || g.opened > 1 || len(g.ended) > 0 || len(g.refusals) > 0 {
		t.Errorf("shown %d, asked %d, opened %d, ended %q, refused %q", len(g.shown), len(g.asked), g.opened, g.ended, g.refusals)
	}
	if strings.Contains(g.log.String(), me.ReconnectionToken) {
		t.Error("the log holds a token")
	}
}

// A recovery that does not offer the connection's subprotocol is refused, and the
// wire that the connection has stays.
func TestRecoveryWithoutTheSubprotocol(t *testing.T) {
	for _, portable := range []bool{false, true} {
		g := newGate(t, websocket.Options{Portable: portable, Compression: true})
		c, _ := g.dial(t, "/client/hubs/chat?access_token=good", reliableJSON, nil)
		me := c.hello()
		for _, try := range []struct{ protocols, want string }{
			{"", ""},
			{"foo", ""},
			{azureJSON, azureJSON},
			{"foo, protobuf.reliable.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1"},
		} {
			again, res := g.dial(t, me.recovery(), try.protocols, nil)
			if again == nil {
				t.Fatal(res)
			}
			if again.protocol != try.want {
				t.Errorf("offered %q, got %q; want %q", try.protocols, again.protocol, try.want)
			}
			const reason = "The connection could not be recovered: its subprotocol, json.reliable.webpubsub.azure.v1, was not offered."
			_, p, err := again.Receive()
			if closed, ok := errors.AsType[*transporttest.Closed](err); !ok || closed.Code != 1008 || closed.Text != reason {
				t.Errorf("offered %q: received %q, %v; want a close frame of 1008 and %q", try.protocols, p, err, reason)
			}
			c.alive()
		}
		// Other attempts that fail do no harm either.
		for _, target := range []string{
			strings.Replace(me.recovery(), "/hubs/chat", "/hubs/other", 1),
			strings.Replace(me.recovery(), "token=", "token=x", 1),
		} {
			again, _ := g.dial(t, target, reliableJSON, nil)
			again.notRecovered()
		}
		if again, res := g.dial(t, me.recovery()+"&access_token=a&access_token=b", reliableJSON, nil); again != nil || !strings.HasPrefix(res, "401 ") {
			t.Errorf("two access tokens are answered with %q", res)
		}
		c.alive()
		g.mu.Lock()
		if want := "recovery.subprotocol"; len(g.refusals) != 7 || g.refusals[0] != want || g.refusals[3] != want || len(g.ended) > 0 {
			t.Errorf("the refusals are %q, the ends %q", g.refusals, g.ended)
		}
		g.mu.Unlock()
		next, _ := g.dial(t, me.recovery(), "foo, "+reliableJSON, nil)
		if again := next.hello(); again != me {
			t.Errorf("%+v came back as %+v", me, again)
		}
	}
}

// TestRecoveryMakesNoHub is a stranger who asks for connections in hubs that
// nobody has used: hubs stay once they are made.
func TestRecoveryMakesNoHub(t *testing.T) {
	e := echoEngine(t, engine.Options{})
	s := serve(t, e, &transporttest.Guests{}, network{}, websocket.Options{})
	for i := range 3 {
		c, _ := s.dial(t, fmt.Sprintf("/client/hubs/hub%d?awps_connection_id=x", i), reliableJSON, nil)
		c.notRecovered()
	}
	if n := e.Stats().Hubs; n != 0 {
		t.Errorf("there are %d hubs", n)
	}
}

// TestRecoveryOfAnotherProtocol is a connection of a door of its own kind, which
// this one does not know how to go on with.
func TestRecoveryOfAnotherProtocol(t *testing.T) {
	e := echoEngine(t, engine.Options{})
	s := serve(t, e, &transporttest.Guests{}, network{}, websocket.Options{})
	a, err := e.Hub("chat").Admit(t.Context(), &engine.AdmitRequest{})
	if err != nil {
		t.Fatal(err)
	}
	w := &enginetest.Wire{}
	if _, err := a.Open(w, &engine.OpenOptions{
		Encoding: enginetest.Lines{Numbered: true}, Subprotocol: "mine", Numbered: true, Recovery: time.Minute, Bind: w.Bind,
	}); err != nil {
		t.Fatal(err)
	}
	var said []string
	if err := w.Await(t.Context(), func(got []byte, _ bool) bool {
		said = strings.Fields(string(got))
		return len(said) >= 3
	}); err != nil {
		t.Fatal(err)
	}
	id, token := said[len(said)-2], said[len(said)-1]
	if id != string(a.ConnID()) {
		t.Fatalf("the first message is %q", said)
	}
	c, _ := s.dial(t, greeting{ConnectionID: id, ReconnectionToken: token}.recovery(), reliableJSON, nil)
	c.notRecovered()
	if ok, err := e.Hub("chat").ConnExists(t.Context(), a.ConnID()); !ok || err != nil {
		t.Errorf("it has taken harm: %v, %v", ok, err)
	}
}

// TestRecoveryOff is a door that recovers nothing.
func TestRecoveryOff(t *testing.T) {
	g := newGate(t, websocket.Options{RecoveryWindow: -1})
	c, _ := g.dial(t, "/client/hubs/chat?access_token=good", reliableJSON, nil)
	me := c.hello()
	if me.ReconnectionToken != "" {
		t.Errorf("the client got the token %q", me.ReconnectionToken)
	}
	again, _ := g.dial(t, me.recovery(), reliableJSON, nil)
	again.notRecovered()
	c.Drop()
	<-g.over // at once, and not after a window
}

// TestRecoveryWindow is a window of another length than the default.
func TestRecoveryWindow(t *testing.T) {
	clock, over := transporttest.NewClock(), make(chan struct{})
	e := echoEngine(t, engine.Options{
		Clock:    clock,
		Observer: engine.Observer{ConnEnded: func(engine.HubName, engine.CloseCode, engine.EndReason) { close(over) }},
	})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, network{}, websocket.Options{RecoveryWindow: 7 * time.Second})
	c, _ := s.dial(t, "/client/hubs/chat?access_token="+guests.Invite(engine.Identity{}), reliableJSON, nil)
	c.hello()
	c.Drop()
	if took, ok := clock.Until(over, 100*time.Millisecond, time.Minute); !ok || took < 7*time.Second {
		t.Errorf("the connection was kept for %s", took)
	}
}

// TestRecoveryOfTheSilent is a client that is there and says nothing: its wire is
// given up, its connection is not.
func TestRecoveryOfTheSilent(t *testing.T) {
	clock := transporttest.NewClock()
	e := echoEngine(t, engine.Options{
		Clock: clock,
		Hubs:  func(engine.HubName) *engine.HubOptions { return &engine.HubOptions{KeepAlive: 20 * time.Second} },
	})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, network{}, websocket.Options{})
	c, _ := s.dial(t, "/client/hubs/chat?access_token="+guests.Invite(engine.Identity{}), reliableJSON, nil)
	me := c.hello()
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		for {
			if _, _, err := c.frame(); err != nil { // reads pings, and answers none
				return
			}
		}
	}()
	if took, ok := clock.Until(cut, 250*time.Millisecond, time.Hour); !ok || took < 40*time.Second {
		t.Fatalf("the wire was given up after %s: %v", took, ok)
	}
	c, _ = s.dial(t, me.recovery(), reliableJSON, nil)
	if again := c.hello(); again != me {
		t.Errorf("%+v came back as %+v", me, again)
	}
}

// TestRecoveryOfTheStuck is a client that takes nothing for so long that its wire
// is given up, over a wire that the door writes to with a time limit.
func TestRecoveryOfTheStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over atomic.Int32
		e := echoEngine(t, engine.Options{
			Observer: engine.Observer{ConnEnded: func(engine.HubName, engine.CloseCode, engine.EndReason) { over.Add(1) }},
		})
		guests := &transporttest.Guests{}
		s := serve(t, e, guests, network{pipe: true}, websocket.Options{RecoveryWindow: time.Hour})
		c, _ := s.dial(t, "/client/hubs/chat?access_token="+guests.Invite(engine.Identity{Groups: []engine.GroupName{"g"}}), reliableJSON, nil)
		me := c.hello()
		text := strings.Repeat("x", 1<<16)
		for range 5 {
			e.Hub("chat").SendToGroup(t.Context(), "g", engine.Payload{Data: []byte(text)}, nil)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if _, err := io.ReadAll(c.r); err != nil {
			t.Errorf("the wire was not closed: %v", err)
		}
		if over.Load() > 0 {
			t.Fatal("the connection has ended with its wire")
		}
		c, _ = s.dial(t, me.recovery(), reliableJSON, nil)
		c.hello()
		for i := range 5 {
			c.hears(told(i+1, text))
		}
		c.Drop()
		e.Close()
	})
}

// TestRecoveryWhenCrowded is a client that wants its connection back while the
// room for those who are not known yet is full: it is to try again.
func TestRecoveryWhenCrowded(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	auth := transport.AuthenticatorFunc(func(_ context.Context, c engine.Credentials) (engine.Identity, error) {
		if c.Token == "slow" {
			inside <- struct{}{}
			<-leave
		}
		return engine.Identity{}, nil
	})
	s := serve(t, echoEngine(t, engine.Options{}), auth, network{}, websocket.Options{UnauthenticatedConnections: 1})
	c, _ := s.dial(t, "/client/hubs/chat", reliableJSON, nil)
	me := c.hello()
	slow := make(chan *conn)
	go func() {
		c, _ := s.dial(t, "/client/hubs/chat?access_token=slow", "", nil)
		slow <- c
	}()
	<-inside
	if again, res := s.dial(t, me.recovery(), reliableJSON, nil); again != nil || !strings.HasPrefix(res, "503 ") {
		t.Errorf("it was answered %q", res)
	}
	close(leave)
	<-slow
	again, res := s.dial(t, me.recovery(), reliableJSON, nil)
	if again == nil {
		t.Fatal(res)
	}
	again.hello()
}

// TestRecoveryWithoutCompression is a connection whose wires are compressed, and
// then not, and then again.
func TestRecoveryWithoutCompression(t *testing.T) {
	e := echoEngine(t, engine.Options{})
	guests := &transporttest.Guests{}
	s := serve(t, e, guests, network{}, websocket.Options{Compression: true})
	offer := http.Header{"Sec-Websocket-Extensions": {"permessage-deflate"}}
	c, _ := s.dial(t, "/client/hubs/chat?access_token="+guests.Invite(engine.Identity{Groups: []engine.GroupName{"g"}}), reliableJSON, offer)
	me := c.hello()
	long := strings.Repeat("much the same ", 100)
	say := func() {
		if err := e.Hub("chat").SendToGroup(t.Context(), "g", engine.Payload{Data: []byte(long)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	const message = `{"sequenceId":%d,"type":"message","from":"group","group":"g","dataType":"text","data":"`
	say()
	for i, header := range []http.Header{nil, offer, nil} {
		c.hears(message+long+`"}`, 1)
		for n := range i {
			c.hears(message+long+`"}`, n+2)
		}
		c.Drop()
		say()
		if c, _ = s.dial(t, me.recovery(), reliableJSON, header); c.deflated != (header != nil) {
			t.Fatalf("compressed: %v", c.deflated)
		}
		c.hello()
	}
}

// TestRecoveryShowsTheCertificateAgain is a client that came with a certificate,
// and gets its connection back with the same one alone.
func TestRecoveryShowsTheCertificateAgain(t *testing.T) {
	e := echoEngine(t, engine.Options{})
	guests := &transporttest.Guests{}
	srv := httptest.NewUnstartedServer(websocket.NewHandler(e, guests, nil))
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	t.Cleanup(func() {
		e.Close()
		srv.Close()
	})
	dial := func(target string, certs ...tls.Certificate) *conn {
		t.Helper()
		s := &server{connect: func() (net.Conn, error) {
			// The test's own server, whose name nobody vouches for.
			d := tls.Dialer{Config: &tls.Config{Certificates: certs, InsecureSkipVerify: true}}
			return d.DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
		}}
		c, res := s.dial(t, target, reliableJSON, nil)
		if c == nil {
			t.Fatal(res)
		}
		return c
	}
	mine, another := clientCertificate(t), clientCertificate(t)
	c := dial("/client/hubs/chat?access_token="+guests.Invite(engine.Identity{}), mine)
	me := c.hello()
	c.Drop()
	dial(me.recovery()).notRecovered()
	dial(me.recovery(), another).notRecovered()
	if again := dial(me.recovery(), mine).hello(); again != me {
		t.Errorf("%+v came back as %+v", me, again)
	}
}

func clientCertificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
