package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

const jsonProtocol = "json.webpubsub.azure.v1"

// hangingNode is a node whose event handler answers nothing while the test runs. Clients
// of the hubs chat and news need no token. Those of ask are asked about, too.
type hangingNode struct {
	*command
	t *testing.T
}

func newHangingNode(t *testing.T, limits string, environ ...string) *hangingNode {
	t.Helper()
	gate := make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WebHook-Allowed-Origin", "*")
		if r.Method == http.MethodPost {
			io.Copy(io.Discard, r.Body)
			select {
			case <-gate:
			case <-r.Context().Done():
			}
		}
	}))
	t.Cleanup(up.Close)
	hub := "{ anonymousConnectPolicy: allow, eventHandlers: [{ urlTemplate: '" + up.URL + "', userEventPattern: '*'"
	n := startNode(t, environ, "--config", file(t, "fanfare.yaml", "listen: 127.0.0.1:0\ndrain: { timeout: 1s }\n"+
		"hubs:\n  chat: "+hub+" }] }\n  news: "+hub+" }] }\n  ask: "+hub+", systemEvents: [connect] }] }\n"+
		"limits: { messageBytes: 65536, "+limits+" }\n"))
	t.Cleanup(func() { close(gate) })
	return &hangingNode{n, t}
}

// url returns the URL for a client of hub; with a user it has a token.
func (n *hangingNode) url(hub, user string) string {
	n.t.Helper()
	if user == "" {
		return "ws://" + n.address + "/client/hubs/" + hub
	}
	return clientURL(n.t, n.environ(accesskey.DevelopmentKey), "--hub", hub, "--user", user)
}

// enter tries to let a client in.
func (n *hangingNode) enter(hub, user string) func(*testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		c, err := client.Dial(t.Context(), n.url(hub, user), &client.Options{Subprotocol: client.JSON})
		status, said := answered(t, c, err)
		if err == nil {
			said = "let in"
		}
		return status, said
	}
}

// fill lets clients in until one is refused; each raises an event of 60,000 bytes.
func (n *hangingNode) fill(hub string, user func(i int) string) func(*testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		for i := range 100 {
			if status, said := n.enter(hub, user(i))(t); status != http.StatusSwitchingProtocols {
				return status, said
			}
			s := open(n.t, n.url(hub, user(i)), jsonProtocol) // it stays beyond the row
			s.hello()
			before := n.node.engine.Stats()
			s.says(bigEvent)
			eventually(t, "the event is taken or refused", func() bool {
				now := n.node.engine.Stats()
				return now.PendingEventBytes >= before.PendingEventBytes+60_000 || now.RequestsRefused > before.RequestsRefused
			})
		}
		return http.StatusSwitchingProtocols, "100 clients were let in"
	}
}

var bigEvent = `{"type":"event","event":"e","dataType":"text","data":"` + strings.Repeat("x", 60_000) + `"}`

func anonymous(int) string           { return "" }
func ann(int) string                 { return "ann" }
func someUser(i int) string          { return fmt.Sprint("user", i) }
func bounds(limits ...string) string { return strings.Join(limits, ", ") }

// What is tried with events whose handler hangs, and with names of groups.
func attackEvents(t *testing.T) {
	t.Run("left behind", attackEventsLeftBehind)
	t.Run("bounds", attackEventBounds)
	t.Run("refused events", attackRefusedEvents)
	t.Run("groups", attackGroupNames)
}

// Clients that leave megabytes of events behind and come again.
func attackEventsLeftBehind(t *testing.T) {
	const bound = 524288
	n := newHangingNode(t, fmt.Sprintf("pendingEventBytes: 1048576, pendingEventBytesPerUser: %d", bound))
	rounds := func(hub, user string) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			for range 30 {
				c, _, _, err := ws.Dialer{Timeout: patience, Protocols: []string{jsonProtocol}}.Dial(t.Context(), n.url(hub, user))
				if err != nil {
					continue // refused for now
				}
				for range 8 {
					ws.WriteFrame(c, ws.MaskFrame(ws.NewTextFrame([]byte(bigEvent))))
				}
				ws.WriteFrame(c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, ""))))
				c.Close()
				if got := n.node.engine.Stats().PendingEventBytes; got > 2*bound+2*65536 { // of both rows
					t.Errorf("%d bytes are pending", got)
				}
			}
			return n.fill(hub, func(int) string { return user })(t)
		}
	}
	attackAll(t, []attack{
		{"without a token", rounds("chat", ""), 503, "limits.pendingEventBytesPerUser is 524288"},
		{"of a user", rounds("news", "ann"), 503, "limits.pendingEventBytesPerUser is 524288"},
	})
	one := open(t, n.url("chat", "bo"), jsonProtocol)
	one.hello()
	one.says(bigEvent)
	letIn(t, 503, n.fill("chat", func(int) string { return "bo" }))
	const reason = "requests of a client that has left were given up"
	attackAll(t, []attack{{"one that leaves while its user is at the bound", logged(n.command, reason, func(*testing.T) (int, string) {
		one.leaves()
		return 101, ""
	}), 101, reason}})
	if n.node.engine.Stats().EventsDropped == 0 {
		t.Error("no dropped event was counted")
	}
}

// Clients that raise more than there is room for are refused, and others are not before
// their own bound.
func attackEventBounds(t *testing.T) {
	const most = "1073741824"
	address := newHangingNode(t, "pendingEventBytesPerUser: 262144")
	hub := newHangingNode(t, bounds("pendingEventBytesPerHub: 262144", "pendingEventBytesPerUser: "+most))
	node := newHangingNode(t, bounds("totalPendingEventBytes: 262144", "pendingEventBytesPerHub: "+most, "pendingEventBytesPerUser: "+most))
	ask := newHangingNode(t, "pendingEventBytesPerUser: 262144")
	proxied := newHangingNode(t, bounds("pendingEventBytesPerHub: 1048576", "pendingEventBytesPerUser: 262144"), "FANFARE_TRUSTED_PROXIES=127.0.0.1")
	for _, n := range []*hangingNode{address, hub, node} {
		letIn(t, 101, n.enter("chat", ""))
		letIn(t, 101, n.enter("chat", "ann"))
	}
	attackAll(t, []attack{
		{"an address over its bound", address.fill("chat", anonymous), 503, "limits.pendingEventBytesPerUser is 262144"},
		{"its next client", address.enter("chat", ""), 503, "limits.pendingEventBytesPerUser is 262144"},
		{"its next raw client", func(t *testing.T) (int, string) {
			t.Helper()
			c, err := client.Dial(t.Context(), address.url("chat", ""), &client.Options{Subprotocol: client.Raw})
			return answered(t, c, err)
		}, 503, "limits.pendingEventBytesPerUser is 262144"},
		{"a user of the same address", address.enter("chat", "ann"), 101, "let in"},
		{"a user over the bound", address.fill("chat", ann), 503, "limits.pendingEventBytesPerUser is 262144"},
		{"another user", address.enter("chat", "bo"), 101, "let in"},
		{"the address in another hub", address.enter("news", ""), 101, "let in"},
		{"an MQTT 5 client of the user", address.connack(5), 0x88, "limits.pendingEventBytesPerUser is 262144"},
		{"an MQTT 3.1.1 client of the user", address.connack(4), 3, "refused"},
		{"many users over the hub's bound", hub.fill("chat", someUser), 503, "limits.pendingEventBytesPerHub is 262144"},
		{"whoever comes next", hub.enter("chat", ""), 503, "limits.pendingEventBytesPerHub is 262144"},
		{"a client of another hub", hub.enter("news", ""), 101, "let in"},
		{"many users over the node's bound", node.fill("chat", someUser), 503, "limits.totalPendingEventBytes is 262144"},
		{"a client of another hub, over the node's bound", node.enter("news", "bo"), 503, "limits.totalPendingEventBytes is 262144"},
		{"clients of a trusted proxy that does not name them, over the hub's bound", proxied.fill("chat", anonymous), 503, "limits.pendingEventBytesPerHub is 1048576"},
		{"connect events with large headers", ask.connects, 503, "limits.pendingEventBytesPerUser is 262144"},
	})
}

// connack lets a client of the user ann try MQTT, and returns the code and the reason
// of its CONNACK.
func (n *hangingNode) connack(version byte) func(*testing.T) (int, string) {
	return func(t *testing.T) (int, string) {
		t.Helper()
		h := &handled{command: n.command, t: t, key: accesskey.DevelopmentKey}
		s := h.mqttOf("ann")
		s.sends(mqttConnect(version, true, fmt.Sprint("phone", version)))
		ack := s.frame().Payload
		_, n := binary.Uvarint(ack[1:]) // of the remaining length
		return int(ack[1+n+1]), "refused " + string(ack[1+n+2:])
	}
}

// connects has clients wait for the connect handler with 60 KiB of headers each, until
// one is refused.
func (n *hangingNode) connects(t *testing.T) (int, string) {
	t.Helper()
	header := http.Header{}
	for i := range 15 {
		header.Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
	}
	type outcome struct {
		status int
		said   string
	}
	outcomes := make(chan outcome, 100)
	for range 20 {
		go func() { // ends when the node answers, at the latest when it is stopped
			c, err := client.Dial(t.Context(), n.url("ask", ""), &client.Options{Header: header})
			if err == nil {
				c.Close()
				outcomes <- outcome{101, ""}
				return
			}
			if refused, ok := errors.AsType[*client.HandshakeError](err); ok {
				outcomes <- outcome{refused.Status, refused.Body}
				return
			}
			outcomes <- outcome{0, err.Error()}
		}()
	}
	first := <-outcomes
	return first.status, first.said
}

// Events over the bounds are answered with the rule, in the words of each protocol.
func attackRefusedEvents(t *testing.T) {
	n := newHangingNode(t, "pendingEventBytesPerUser: 262144")
	// Let in before the user is at the bound.
	ackOf := open(t, n.url("chat", "ann"), jsonProtocol)
	ackOf.hello()
	reliable := open(t, n.url("chat", "ann"), "json.reliable.webpubsub.azure.v1")
	reliable.hello()
	raw := open(t, n.url("chat", "ann"), "")
	h := &handled{command: n.command, t: t, key: accesskey.DevelopmentKey}
	mqtt := h.mqttOf("ann")
	mqtt.sends(mqttConnect(5, true, "phone"))
	mqtt.packet(0x20)
	letIn(t, 503, n.fill("chat", ann))
	ack := func(s *socket) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			s.says(`{"type":"event","event":"e","ackId":7,"dataType":"text","data":"x"}`)
			return 101, s.next()
		}
	}
	attackAll(t, []attack{
		{"JSON", ack(ackOf), 101, "limits.pendingEventBytesPerUser is 262144"},
		{"reliable JSON", ack(reliable), 101, "limits.pendingEventBytesPerUser is 262144"},
		{"raw", func(t *testing.T) (int, string) {
			t.Helper()
			raw.says("x")
			f := raw.frame()
			code, reason := ws.ParseCloseFrameData(f.Payload)
			return int(code), reason
		}, int(engine.CloseInternalError), "Internal server error"},
		{"MQTT 5, of QoS 1", func(t *testing.T) (int, string) {
			t.Helper()
			mqtt.sends(mqttPublish("$webpubsub/server/events/e", 1))
			return int(mqtt.packet(0x40)[2]), "PUBACK"
		}, 0x97, "PUBACK"},
	})
}

// mqttOf lets a user in with MQTT.
func (h *handled) mqttOf(user string) *socket {
	h.t.Helper()
	at := "://" + h.address + "/clients/mqtt/hubs/chat"
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"aud": "http" + at, "exp": time.Now().Add(time.Hour).Unix(), "sub": user, "role": []string{engine.RoleJoinLeaveGroup},
	}).SignedString([]byte(h.key))
	if err != nil {
		h.t.Fatal(err)
	}
	return open(h.t, "ws"+at+"?access_token="+token, "mqtt")
}

// mqttPublish makes a PUBLISH of version 5 and QoS 1.
func mqttPublish(topic string, id uint16) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(len(topic)))
	p = append(p, topic...)
	p = binary.BigEndian.AppendUint16(p, id)
	p = append(p, 0, 'x')
	return append([]byte{0x32, byte(len(p))}, p...)
}

// mqttSubscribe makes a SUBSCRIBE of version 5.
func mqttSubscribe(filter string, id uint16) []byte {
	p := binary.BigEndian.AppendUint16(nil, id)
	p = append(p, 0)
	p = binary.BigEndian.AppendUint16(p, uint16(len(filter)))
	p = append(append(p, filter...), 0)
	b := []byte{0x82}
	n := len(p)
	for n > 127 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(append(b, byte(n)), p...)
}

// Names of groups, each of the longest: 1,024 characters of four bytes.
func attackGroupNames(t *testing.T) {
	const perConn, total = "limits.groupBytesPerConnection is 8192", "limits.totalGroupBytes is 16384"
	up := newUpstream(t)
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", "listen: 127.0.0.1:0\nhubs:\n  ask: { eventHandlers: [{ urlTemplate: '"+up.URL+"', systemEvents: [connect] }] }\n"+
		"limits: { groupBytesPerConnection: 8192, totalGroupBytes: 16384 }\n"))
	h := &handled{command: n, upstream: up, t: t, key: accesskey.DevelopmentKey}
	name := func(i int) string { return fmt.Sprintf("%04d", i) + strings.Repeat("\U0001F600", 1020) }
	up.answer = func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"groups":[%q,%q,%q]}`, name(1), name(2), name(3))
	}
	var joiner *socket
	join := func(i int) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			joiner.says(fmt.Sprintf(`{"type":"joinGroup","group":"%s","ackId":%d}`, name(i), i))
			return 101, joiner.next()
		}
	}
	enter := func() greeting {
		joiner = open(t, h.url("--role", "webpubsub.joinLeaveGroup", "--user", "ann"), jsonProtocol)
		return joiner.hello()
	}
	conn := enter().ConnectionID
	mqtt := h.mqttOf("bo")
	mqtt.sends(mqttConnect(5, true, "phone"))
	mqtt.packet(0x20)
	subscribe := func(i int) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			mqtt.sends(mqttSubscribe(name(i), uint16(i)))
			return int(mqtt.packet(0x90)[3]), "SUBACK"
		}
	}
	rest := func(line string) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			path := strings.Fields(line)[1]
			return atREST(n, line, serverToken(t, n, accesskey.DevelopmentKey, path))(t)
		}
	}
	token := func(hub string, groups ...string) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			args := []string{"--hub", hub}
			for _, g := range groups {
				args = append(args, "--group", g)
			}
			c, err := client.Dial(t.Context(), clientURL(t, n.environ(accesskey.DevelopmentKey), args...), &client.Options{Subprotocol: client.JSON})
			return answered(t, c, err)
		}
	}
	var many []string // no more than a token can hold
	for i := range 9 {
		many = append(many, fmt.Sprint(i)+strings.Repeat("x", 999))
	}
	letIn(t, 101, join(1))
	letIn(t, 101, join(2))
	attackAll(t, []attack{
		{"joinGroup", join(3), 101, perConn},
		{"REST, by connection", rest("PUT /api/hubs/chat/groups/" + strings.Repeat("g", 100) + "/connections/" + conn), 400, perConn},
		{"REST, by user", rest("PUT /api/hubs/chat/users/ann/groups/" + strings.Repeat("g", 100)), 400, perConn},
		{"a token's groups", token("chat", many...), 403, perConn},
		{"a connect handler's groups", token("ask"), 403, perConn},
		{"MQTT, its first", subscribe(4), 0, "SUBACK"},
		{"joinGroup, over the node's bound", func(t *testing.T) (int, string) {
			t.Helper()
			for i := range 10 { // other clients fill what is left of it
				enter()
				if _, said := join(20 + i)(t); strings.Contains(said, total) {
					return 101, said
				}
			}
			return 101, ""
		}, 101, total},
		{"MQTT, when there is no room", subscribe(5), 0x97, "SUBACK"},
		{"a token's group when there is no room", token("chat", "g"), 503, total},
		{"REST, when there is no room", func(t *testing.T) (int, string) {
			t.Helper()
			return rest("PUT /api/hubs/chat/groups/g/connections/" + enter().ConnectionID)(t)
		}, 503, total},
	})
}
