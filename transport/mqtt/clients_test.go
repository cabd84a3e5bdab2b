package mqtt_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
	gorilla "github.com/gorilla/websocket"

	"github.com/fanfare/fanfare/engine"
)

// wires are the network connections of a client, which a test cuts.
type wires struct {
	mu   sync.Mutex
	last net.Conn
	cuts int
}

func (w *wires) dial(network, addr string) (net.Conn, error) {
	c, err := net.Dial(network, addr)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = c
	return c, err
}

func (w *wires) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last.Close()
	w.cuts++
}

// message is a publication as a client of either library got it.
type message struct {
	topic, payload string
	qos            byte
}

// dial5 connects a client of Eclipse Paho, MQTT 5.0, which comes back by itself.
func dial5(t *testing.T, s *server, id string, w *wires, got func(*paho5.Publish)) *autopaho.ConnectionManager {
	t.Helper()
	u, err := url.Parse("ws://" + s.addr + s.target(engine.Identity{UserID: engine.UserID(id), Roles: everything}))
	if err != nil {
		t.Fatal(err)
	}
	cfg := autopaho.ClientConfig{
		ServerUrls: []*url.URL{u}, KeepAlive: 30, CleanStartOnInitialConnection: true, SessionExpiryInterval: 30,
		ReconnectBackoff: func(int) time.Duration { return 0 },
		WebSocketCfg: &autopaho.WebSocketConfig{Dialer: func(*url.URL, *tls.Config) *gorilla.Dialer {
			return &gorilla.Dialer{Subprotocols: []string{"mqtt"}, NetDial: w.dial}
		}},
		ClientConfig: paho5.ClientConfig{
			ClientID: id,
			OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
				got(p.Packet)
				return true, nil
			}},
		},
	}
	c, err := autopaho.NewConnection(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Disconnect(context.Background()) })
	if err := c.AwaitConnection(soon(t)); err != nil {
		t.Fatal(err)
	}
	return c
}

// dial3 connects a client of Eclipse Paho, MQTT 3.1.1.
func dial3(t *testing.T, s *server, id string, got func(paho3.Message)) paho3.Client {
	t.Helper()
	o := paho3.NewClientOptions().
		AddBroker("ws://" + s.addr + s.target(engine.Identity{UserID: engine.UserID(id), Roles: everything})).
		SetClientID(id).SetProtocolVersion(4).SetCleanSession(false).SetKeepAlive(30 * time.Second).
		SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) { got(m) })
	c := paho3.NewClient(o)
	wait3(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(100) })
	return c
}

func wait3(t *testing.T, token paho3.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) {
		t.Fatal("no answer in time")
	}
	if err := token.Error(); err != nil {
		t.Fatal(err)
	}
}

// TestPaho lets clients of both versions, of libraries that others wrote, talk with
// each other, in each QoS.
func TestPaho(t *testing.T) {
	s := serve(t, engine.Options{}, true)
	const each = 50
	messages5, messages3 := make(chan message, 6*each), make(chan message, 6*each)
	five := dial5(t, s, "five", &wires{}, func(p *paho5.Publish) { messages5 <- message{p.Topic, string(p.Payload), p.QoS} })
	three := dial3(t, s, "three", func(m paho3.Message) { messages3 <- message{m.Topic(), string(m.Payload()), m.Qos()} })
	ack, err := five.Subscribe(soon(t), &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "t", QoS: 2}}})
	if err != nil || !slices.Equal(ack.Reasons, []byte{2}) {
		t.Fatal(ack, err)
	}
	wait3(t, three.Subscribe("t", 2, nil))
	var want []message
	for qos := range byte(3) {
		for i := range each {
			m := message{"t", fmt.Sprintf("%d of QoS %d", i, qos), qos}
			want = append(want, m)
			if i%2 == 0 {
				if _, err := five.Publish(soon(t), &paho5.Publish{Topic: m.topic, Payload: []byte(m.payload), QoS: qos}); err != nil {
					t.Fatal(err)
				}
			} else {
				wait3(t, three.Publish(m.topic, qos, false, m.payload))
			}
		}
	}
	for name, messages := range map[string]chan message{"five": messages5, "three": messages3} {
		seen := map[message]int{}
		for range want {
			select {
			case m := <-messages:
				seen[m]++
			case <-soon(t).Done():
				t.Fatalf("%s got %d of %d messages", name, len(seen), len(want))
			}
		}
		for _, m := range want {
			if seen[m] != 1 {
				t.Errorf("%s got %v %d times", name, m, seen[m])
			}
		}
	}
	if _, err := five.Subscribe(soon(t), &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "a/#", QoS: 1}}}); err == nil {
		t.Error("a wildcard was granted")
	}
}

// TestPahoLosesItsWire cuts a subscriber's network connection again and again: of QoS
// 1 nothing is lost, and of QoS 2 nothing comes twice either.
func TestPahoLosesItsWire(t *testing.T) {
	s := serve(t, engine.Options{}, true)
	const count = 300
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			got := make(chan string, 4*count)
			w := &wires{}
			n := 0
			sub := dial5(t, s, fmt.Sprintf("sub%d", qos), w, func(p *paho5.Publish) {
				if n++; n%40 == 0 {
					w.cut() // before it is acknowledged
				}
				got <- string(p.Payload)
			})
			if _, err := sub.Subscribe(soon(t), &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: "t", QoS: qos}}}); err != nil {
				t.Fatal(err)
			}
			pub := dial5(t, s, fmt.Sprintf("pub%d", qos), &wires{}, func(*paho5.Publish) {})
			for i := range count {
				if _, err := pub.Publish(soon(t), &paho5.Publish{Topic: "t", Payload: fmt.Append(nil, i), QoS: qos}); err != nil {
					t.Fatal(err)
				}
			}
			seen := map[string]int{}
			var order []string
			for len(seen) < count {
				select {
				case m := <-got:
					if seen[m]++; seen[m] == 1 {
						order = append(order, m)
					}
				case <-soon(t).Done():
					t.Fatalf("%d of %d came", len(seen), count)
				}
			}
			for i, m := range order {
				if m != fmt.Sprint(i) {
					t.Fatalf("the %dth is %s", i, m)
				}
			}
			twice := 0
			for _, n := range seen {
				if n > 1 {
					twice++
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Logf("%d cuts, %d came again", w.cuts, twice)
			if w.cuts < 5 {
				t.Errorf("only %d cuts", w.cuts)
			}
			if qos == 2 && twice > 0 {
				t.Errorf("%d of QoS 2 came twice", twice)
			}
		})
	}
}
