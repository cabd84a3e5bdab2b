package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

// The twenty behaviours of events that are easily got wrong, over a whole node
// with an event handler and its clients. The 8th and the 18th, which are about
// time, stand in transport/webhook, and the 20th in engine, since the node has no
// listeners.

func TestEvent01FirstMatchingHandlerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t,
			handler{"/first/{event}", nil, "order, room.*"},
			handler{"/second/{event}", nil, "*"},
		)
		b.answer = func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/first/") {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}
		c := b.client(t)
		if err := c.SendEvent(t.Context(), "order", text("tea"), nil); !refusedAs(err, "InternalServerError") {
			t.Errorf("the event: %v; want what the first handler made of it", err)
		}
		if err := c.SendEvent(t.Context(), "other", text("tea"), nil); err != nil {
			t.Error(err)
		}
		for range 4 {
			if r := b.event(t, "order"); r.URL.Path != "/first/order" {
				t.Errorf("%s was asked", r.URL.Path)
			}
		}
		if r := b.event(t, "other"); r.URL.Path != "/second/other" {
			t.Errorf("%s was asked", r.URL.Path)
		}
	})
}

func TestEvent02UserEventNamedConnected(t *testing.T) {
	h := newHandled(t, nil, `[{urlTemplate: 'URL/system/{event}', systemEvents: [connected]}, {urlTemplate: 'URL/user/{event}', userEventPattern: connected}]`)
	c := h.client()
	if r := h.event(t, "connected"); r.URL.Path != "/system/connected" || r.Header.Get("Ce-Type") != "azure.webpubsub.sys.connected" {
		t.Errorf("the system event is %s at %s", r.Header.Get("Ce-Type"), r.URL.Path)
	}
	if err := c.SendEvent(t.Context(), "connected", text("x"), nil); err != nil {
		t.Fatal(err)
	}
	if r := h.event(t, "connected"); r.URL.Path != "/user/connected" || r.Header.Get("Ce-Type") != "azure.webpubsub.user.connected" {
		t.Errorf("the user event is %s at %s", r.Header.Get("Ce-Type"), r.URL.Path)
	}
	h.ends("")
}

func TestEvent03EmptyUserIDClearsTheUser(t *testing.T) {
	h := newHandled(t, onConnect(`{"userId":""}`), allEvents)
	c := h.client("--user", "ann")
	if c.UserID() != "" {
		t.Errorf("the client is %q", c.UserID())
	}
	if r := h.event(t, "connect"); r.Header.Get("Ce-Userid") != "ann" {
		t.Errorf("connect is about %q", r.Header["Ce-Userid"])
	}
	connected := h.event(t, "connected")
	if err := c.SendEvent(t.Context(), "order", text("tea"), nil); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{connected, h.event(t, "order")} {
		if got := r.Header["Ce-Userid"]; got != nil {
			t.Errorf("%s is about %q", r.URL.Path, got)
		}
	}
}

func TestEvent04EmptyRolesRemoveEmptyGroupsKeep(t *testing.T) {
	h := newHandled(t, onConnect(`{"roles":[],"groups":[]}`), allEvents)
	c := h.client("--group", "lobby", "--role", "webpubsub.sendToGroup", "--role", "webpubsub.joinLeaveGroup")
	if err := c.SendToGroup(t.Context(), "lobby", text("x"), nil); !refusedAs(err, "Forbidden") {
		t.Errorf("sendToGroup: %v; want Forbidden", err)
	}
	if err := c.JoinGroup(t.Context(), "other"); !refusedAs(err, "Forbidden") {
		t.Errorf("joinGroup: %v; want Forbidden", err)
	}
	if err := h.node.engine.Hub("chat").SendToGroup(t.Context(), "lobby", text("you are in"), nil); err != nil {
		t.Fatal(err)
	}
	if m := mustReceive[client.Message](t, c); m.Group != "lobby" || string(m.Payload.Data) != "you are in" {
		t.Errorf("received %+v", m)
	}
}

func TestEvent05ConnectReplyIsJSONWhateverItsType(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		if r.Header.Get("Ce-Userid") == "ann" {
			io.WriteString(w, `{"userId":"bo"}`)
		} else {
			io.WriteString(w, "welcome")
		}
	}, allEvents)
	if c := h.client("--user", "ann"); c.UserID() != "bo" {
		t.Errorf("the client is %q, and not whom the handler named", c.UserID())
	}
	if _, err := h.dial("--user", "cy"); !refusedWith(err, 500) {
		t.Errorf("a reply that is not JSON: %v; want 500", err)
	}
}

func TestEvent06ConnectRefusedWithItsOwnStatus(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		status := 0
		fmt.Sscan(r.Header.Get("Ce-Userid"), &status)
		http.Error(w, "the handler's own words", status)
	}, allEvents)
	for _, status := range []int{403, 429} {
		_, err := h.dial("--user", fmt.Sprint(status))
		refused, ok := errors.AsType[*client.HandshakeError](err)
		if !ok || refused.Status != status || strings.Contains(refused.Body, "own words") {
			t.Errorf("the client got %v; want %d alone", err, status)
		}
	}
	h.ends("connect of 403, connect of 429")
}

func TestEvent07RetryRepeatsTheSameRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, handler{"/{event}", []string{"connect", "connected"}, "*"})
		failed := false
		b.answer = func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Ce-Eventname") == "connect" && !failed {
				failed = true
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
		c := b.client(t)
		first, second := b.event(t, "connect"), b.event(t, "connect")
		if !reflect.DeepEqual(first.Header, second.Header) || first.Header.Get("Ce-Id") != "0" || first.Header.Get("X-Ms-Client-Request-Id") == "" {
			t.Errorf("the requests were\n%v\n%v", first.Header, second.Header)
		}
		if one, other := body(t, first), body(t, second); one != other || one == "" {
			t.Errorf("the bodies were\n%s\n%s", one, other)
		}
		connected := b.event(t, "connected")
		if err := c.SendEvent(t.Context(), "order", text("tea"), nil); err != nil {
			t.Fatal(err)
		}
		order := b.event(t, "order")
		if one, two := connected.Header.Get("Ce-Id"), order.Header.Get("Ce-Id"); one != "1" || two != "2" {
			t.Errorf("connect is followed by the ids %s and %s", one, two)
		}
		ids := map[string]bool{}
		for _, r := range []*http.Request{first, connected, order} {
			ids[r.Header.Get("X-Ms-Client-Request-Id")] = true
		}
		if len(ids) != 3 {
			t.Errorf("three events have the request ids %v", ids)
		}
	})
}

func TestEvent09CredentialsStayOutOfTheConnectBody(t *testing.T) {
	h := newHandled(t, nil, allEvents)
	at := h.url("--user", "ann")
	_, token, _ := strings.Cut(at, "access_token=")
	d := ws.Dialer{Timeout: patience, Protocols: []string{"json.webpubsub.azure.v1"}, Header: ws.HandshakeHeaderHTTP{
		"Authorization": {"Bearer " + token}, "Cookie": {"k=v"}, "X-Custom": {"value"},
	}}
	c, _, _, err := d.Dial(t.Context(), at+"&ACCESS_TOKEN="+token+"&Access_Token="+token+"&tag=a&tag=b")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := h.event(t, "connect")
	sent := body(t, r)
	if strings.Contains(sent, token) {
		t.Errorf("the body holds the token: %s", sent)
	}
	var got struct {
		Query, Headers     map[string][]string
		ClientCertificates []any
	}
	if err := json.Unmarshal([]byte(sent), &got); err != nil {
		t.Fatal(err)
	}
	if want := map[string][]string{"tag": {"a", "b"}}; !reflect.DeepEqual(got.Query, want) {
		t.Errorf("the query is %v, want %v", got.Query, want)
	}
	if !reflect.DeepEqual(got.Headers["Cookie"], []string{"k=v"}) || !reflect.DeepEqual(got.Headers["x-custom"], []string{"value"}) {
		t.Errorf("the client's headers are %v", got.Headers)
	}
	for name := range got.Headers {
		if strings.EqualFold(name, "Authorization") {
			t.Errorf("%s is among the client's headers", name)
		}
	}
	for _, name := range []string{"Authorization", "Cookie", "X-Custom"} {
		if v := r.Header[name]; v != nil {
			t.Errorf("the request itself has %s: %q", name, v)
		}
	}
	if got.ClientCertificates == nil || len(got.ClientCertificates) != 0 {
		t.Errorf("clientCertificates of a client without one: %s", sent)
	}
}

func TestEvent10Signature(t *testing.T) {
	keys := []string{"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH", "abcdefghijklmnopqrstuvwxyz0123456789abcdefgh"} // which base64 can be, too
	h := newHandled(t, nil, allEvents, "FANFARE_ACCESS_KEYS_PRIMARY="+keys[0], "FANFARE_ACCESS_KEYS_SECONDARY="+keys[1])
	h.key = keys[0]
	h.client()
	for _, name := range []string{"connect", "connected"} {
		r := h.event(t, name)
		var want []string
		for _, key := range keys {
			mac := hmac.New(sha256.New, []byte(key))
			io.WriteString(mac, r.Header.Get("Ce-Connectionid"))
			want = append(want, "sha256="+hex.EncodeToString(mac.Sum(nil)))
		}
		// Whoever splits it at the comma, and trims nothing, finds the part of the
		// one key that it knows.
		if got := r.Header["Ce-Signature"]; !reflect.DeepEqual(got, []string{strings.Join(want, ",")}) {
			t.Errorf("%s is signed %q, want %q", name, got, want)
		}
	}
}

func TestEvent11ConnectionState(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		set := func(state string) { w.Header().Set("ce-connectionState", state) }
		switch r.Header.Get("Ce-Eventname") {
		case "connect":
			set("first")
		case "connected":
			set("not of a notification")
		case "empty":
			set("")
		case "fail":
			set("lost")
			w.WriteHeader(http.StatusBadRequest)
		}
	}, allEvents)
	c := h.client()
	if got := h.event(t, "connect").Header["Ce-Connectionstate"]; got != nil {
		t.Errorf("connect has the state %q", got)
	}
	if got := h.event(t, "connected").Header["Ce-Connectionstate"]; !reflect.DeepEqual(got, []string{"first"}) {
		t.Errorf("connected has the state %q", got)
	}
	for _, e := range []struct{ name, state string }{
		{"keep", "first"}, {"fail", "first"}, {"empty", "first"}, {"keep", ""}, {"fail", ""}, {"keep", ""},
	} {
		if err := c.SendEvent(t.Context(), e.name, text("x"), nil); (err != nil) != (e.name == "fail") {
			t.Errorf("%s: %v", e.name, err)
		}
		if got := h.event(t, e.name).Header["Ce-Connectionstate"]; !reflect.DeepEqual(got, []string{e.state}) {
			t.Errorf("%s has the state %q, want one header with %q", e.name, got, e.state)
		}
	}
}

func TestEvent12CookiesFollowTheirConnection(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") == "connect" && r.Header.Get("Ce-Userid") == "ann" {
			w.Header().Set("Set-Cookie", "session=ann; Path=/")
		}
	}, `[{urlTemplate: 'URL/system/{event}', systemEvents: [connect]}, {urlTemplate: 'URL/user/{event}', userEventPattern: '*'}]`)
	// Ann's first event is what has the second handler's origin checked, when she
	// has her cookie.
	for _, user := range []string{"ann", "bo"} {
		c := h.client("--user", user)
		h.event(t, "connect")
		if err := c.SendEvent(t.Context(), "order", text("tea"), nil); err != nil {
			t.Fatal(err)
		}
		want := ""
		if user == "ann" {
			want = "session=ann"
		}
		if got := h.event(t, "order").Header.Get("Cookie"); got != want {
			t.Errorf("%s has the cookies %q, want %q", user, got, want)
		}
	}
	for _, path := range []string{"/system/validate", "/user/validate"} {
		if r := <-h.checks; r.URL.Path != path || r.Header["Cookie"] != nil {
			t.Errorf("OPTIONS %s has the cookies %q", r.URL.Path, r.Header["Cookie"])
		}
	}
}

func TestEvent13TypeOfTheReply(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Ce-Eventname") {
		case "none":
			w.Header()["Content-Type"] = nil // so that none is guessed
			io.WriteString(w, "hi")
		case "text":
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			io.WriteString(w, "hi")
		case "silent":
			w.Header().Set("Content-Type", "image/png")
		case "image":
			w.Header().Set("Content-Type", "image/png")
			io.WriteString(w, "hi")
		}
	}, userEvents)
	s := h.socket("json.webpubsub.azure.v1")
	s.hello()
	s.says(`{"type":"event","event":"none","ackId":1,"data":1}`)
	s.hears(`{"type":"message","from":"server","dataType":"binary","data":"aGk="}`)
	s.granted(1)
	s.says(`{"type":"event","event":"text","ackId":2,"data":1}`)
	s.hears(`{"type":"message","from":"server","dataType":"text","data":"hi"}`)
	s.granted(2)
	s.says(`{"type":"event","event":"silent","ackId":3,"data":1}`)
	s.granted(3)
	s.says(`{"type":"event","event":"image","ackId":4,"data":1}`)
	s.refused(4, "InternalServerError")
}

func TestEvent14MetadataOfAnEmptyReply(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") == "tagged" {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Add("X-WebPubSub-Metadata-Key", "first")
			w.Header().Add("x-webpubsub-metadata-key", "a, b")
		}
	}, userEvents)
	s := h.socket("json.webpubsub.azure.v1")
	s.hello()
	s.says(`{"type":"event","event":"tagged","ackId":1,"data":1}`)
	s.hears(`{"type":"message","from":"server","dataType":"text","data":"","metadata":{"key":"b"}}`)
	s.granted(1)
	s.says(`{"type":"event","event":"bare","ackId":2,"data":1}`)
	s.granted(2)
}

func TestEvent15ReplyPrecedesAckAndAckIDsCountOnce(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") == "fail" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "soon")
	}, userEvents)
	s := h.socket("json.webpubsub.azure.v1")
	s.hello()
	order, fail := `{"type":"event","event":"order","ackId":1,"data":1}`, `{"type":"event","event":"fail","ackId":2,"data":1}`
	s.says(order)
	s.hears(`{"type":"message","from":"server","dataType":"text","data":"soon"}`)
	s.granted(1)
	s.says(order)
	s.refused(1, "Duplicate")
	for range 2 {
		s.says(fail)
		s.refused(2, "InternalServerError")
	}
	s.leaves()
	h.ends("order, fail, fail")
}

func TestEvent16FailureEndsRawClientsAlone(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, userEvents)
	raw := h.socket("")
	raw.says("tea")
	raw.closed(engine.CloseInternalError)
	raw.Close()
	s := h.socket("json.webpubsub.azure.v1")
	s.hello()
	s.says(`{"type":"event","event":"order","data":1}`)
	s.says(`{"type":"event","event":"order","ackId":1,"data":1}`)
	s.refused(1, "InternalServerError")
	s.says(`{"type":"ping"}`)
	s.hears(`{"type":"pong"}`)
	s.leaves()
	h.ends("message, order, order")
}

func TestEvent17ReliableRecovery(t *testing.T) {
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") == "order" {
			w.Header().Set("ce-connectionState", "ordered")
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("x-webpubsub-metadata-trace", "t1")
			io.WriteString(w, `{ "cup" : 1.0 }`)
		}
	}, allEvents)
	const reliable = "json.reliable.webpubsub.azure.v1"
	s := h.socket(reliable)
	me := s.hello()
	h.event(t, "connect")
	h.event(t, "connected")
	s.says(`{"type":"event","event":"order","ackId":1,"data":1}`)
	reply := s.next()
	if want := `{"sequenceId":1,"type":"message",`; !strings.HasPrefix(reply, want) || !strings.Contains(reply, `{ "cup" : 1.0 }`) {
		t.Errorf("the reply is %s", reply)
	}
	s.granted(1)
	s.Close() // without a word, and without a sequenceAck

	s = open(t, "ws://"+h.address+"/client/hubs/chat?"+url.Values{
		"awps_connection_id": {me.ConnectionID}, "awps_reconnection_token": {me.ReconnectionToken},
	}.Encode(), reliable)
	if again := s.hello(); again.ConnectionID != me.ConnectionID {
		t.Errorf("%s came back as %s", me.ConnectionID, again.ConnectionID)
	}
	if replayed := s.next(); replayed != reply {
		t.Errorf("replayed was\n%s\ninstead of\n%s", replayed, reply)
	}
	s.says(`{"type":"event","event":"look","ackId":2,"data":1}`)
	s.granted(2)
	h.event(t, "order")
	r := h.event(t, "look")
	if got := r.Header["Ce-Connectionstate"]; !reflect.DeepEqual(got, []string{"ordered"}) || r.Header.Get("Ce-Connectionid") != me.ConnectionID {
		t.Errorf("the state of %s is %q", r.Header.Get("Ce-Connectionid"), got)
	}
	s.leaves()
	h.ends("disconnected")
}

func TestEvent19MQTT(t *testing.T) {
	// What the handler says to the connects of the session, one after the other.
	replies := []string{
		`{"userId":"kim"}`,
		`{"userId":"eve"}`,
		`{"userId":"kim","groups":["g"],"roles":["webpubsub.sendToGroup"]}`,
	}
	h := newHandled(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") != "connect" {
			return
		}
		fail := func(code int) {
			w.WriteHeader(http.StatusUnauthorized)
			// As the JavaScript middleware answers those whom it knows to speak MQTT.
			if r.Header.Get("Ce-Subprotocol") == "mqtt" && r.Header.Get("Ce-Physicalconnectionid") != "" {
				fmt.Fprintf(w, `{"mqtt":{"code":%d,"reason":"no"}}`, code)
			}
		}
		switch r.Header.Get("Ce-Connectionid") { // which the client chose
		case "five":
			fail(135)
		case "four":
			fail(5)
		default:
			io.WriteString(w, replies[0])
			replies = replies[1:]
		}
	}, allEvents)
	for _, test := range []struct {
		id      string
		version byte
		code    byte
	}{{"five", 5, 135}, {"four", 4, 5}} {
		s := h.mqtt()
		s.sends(mqttConnect(test.version, true, test.id))
		if ack := s.packet(0x20); ack[1] != test.code {
			t.Errorf("the handler's 401 came as %d to a client of version %d; want %d", ack[1], test.version, test.code)
		}
		s.Close()
		h.isMQTT("connect")
	}

	s := h.mqtt()
	s.sends(mqttConnect(5, true, "phone"))
	if ack := s.packet(0x20); ack[0] != 0 || ack[1] != 0 {
		t.Fatalf("the CONNACK of a new session is % x", ack)
	}
	h.isMQTT("connect")
	h.isMQTT("connected")
	s.Close()
	// A session is its user's. Whom the handler knows as somebody else is refused it.
	s = h.mqtt()
	s.sends(mqttConnect(5, false, "phone"))
	if ack := s.packet(0x20); ack[1] != 135 {
		t.Errorf("another user's CONNACK is % x", ack)
	}
	s.Close()
	h.isMQTT("connect")
	if r := h.isMQTT("disconnected"); r.Header.Get("Ce-Userid") != "eve" {
		t.Errorf("%q is disconnected", r.Header.Get("Ce-Userid"))
	}
	s = h.mqtt()
	s.sends(mqttConnect(5, false, "phone"))
	if ack := s.packet(0x20); ack[0] != 1 || ack[1] != 0 {
		t.Fatalf("the CONNACK of a resumed session is % x", ack)
	}
	h.isMQTT("connect")
	const topic = "$webpubsub/server/events/order"
	s.sends(append([]byte{0x32, byte(2 + len(topic) + 2 + 1), 0, byte(len(topic))}, topic+"\x00\x01\x00"...))
	s.packet(0x32) // the handler's answer, which a message makes in MQTT
	s.packet(0x40)
	if r := h.isMQTT("order"); r.Header.Get("Ce-Userid") != "kim" || r.Header.Get("Ce-Connectionid") != "phone" {
		t.Errorf("the event is of %q, connection %q", r.Header.Get("Ce-Userid"), r.Header.Get("Ce-Connectionid"))
	}
	hub := h.node.engine.Hub("chat")
	if in, err := hub.GroupExists(t.Context(), "g"); in || err != nil {
		t.Errorf("the resumed session is in a group of its new connect: %v, %v", in, err)
	}
	if may, err := hub.Permitted(t.Context(), "phone", engine.SendToGroup, "g"); may || err != nil {
		t.Errorf("the resumed session has a role of its new connect: %v, %v", may, err)
	}
	s.sends([]byte{0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0}) // DISCONNECT, and no session to be kept
	s.closed(engine.CloseNormal)
	s.Close()
	h.ends("disconnected of kim")
}

// A user's id may hold more than ASCII. An event's name may not: the clients' door
// refuses it, and so does transport/webhook, if another door lets it in.
func TestEventUnicode(t *testing.T) {
	h := newHandled(t, nil, userEvents)
	c := h.client("--user", "Änne 安")
	if err := c.SendEvent(t.Context(), "order", text("tea"), nil); err != nil {
		t.Fatal(err)
	}
	err := c.SendEvent(t.Context(), "grüße", text("x"), nil)
	if closed, ok := errors.AsType[*client.CloseError](err); !ok || closed.Code != engine.CloseInvalidData {
		t.Errorf("an event with a name beyond ASCII: %v; want the close code 1007", err)
	}
	h.ends("order of Änne 安")
}

// A handler that takes its time over connected learns of the end meanwhile.
func TestEventDisconnectedOvertakesConnected(t *testing.T) {
	gone := make(chan struct{})
	h := newHandled(t, func(_ http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Ce-Eventname") {
		case "connected":
			select {
			case <-gone:
			case <-r.Context().Done():
				t.Error("disconnected has waited for connected")
			}
		case "disconnected":
			close(gone)
		}
	}, allEvents)
	c := h.client()
	h.event(t, "connect")
	h.event(t, "connected")
	c.Close()
	if r := h.event(t, "disconnected"); r.Header.Get("Ce-Id") != "2" {
		t.Errorf("disconnected has the id %s", r.Header.Get("Ce-Id"))
	}
}

// A hub has one name, however a client spells it.
func TestEventHubNameWithoutRegardToCase(t *testing.T) {
	h := newHandled(t, nil, allEvents)
	s := open(t, strings.Replace(h.url(), "/hubs/chat", "/hubs/CHAT", 1), "json.webpubsub.azure.v1")
	s.hello()
	if r := h.event(t, "connect"); r.Header.Get("Ce-Hub") != "chat" || !strings.HasPrefix(r.Header.Get("Ce-Source"), "/hubs/chat/client/") {
		t.Errorf("the hub is %s, the source %s", r.Header.Get("Ce-Hub"), r.Header.Get("Ce-Source"))
	}
}

// handled is a node and the event handler of its hub chat.
type handled struct {
	*command
	*upstream
	t   *testing.T
	key string
}

const (
	userEvents = `[{urlTemplate: 'URL/{event}', userEventPattern: '*'}]`
	allEvents  = `[{urlTemplate: 'URL/{event}', userEventPattern: '*', systemEvents: [connect, connected, disconnected]}]`
)

// newHandled starts them. URL in the hub's handlers stands for where the handler
// is.
func newHandled(t *testing.T, answer func(http.ResponseWriter, *http.Request), handlers string, environ ...string) *handled {
	t.Helper()
	u := newUpstream(t)
	u.answer = answer
	handlers = strings.ReplaceAll(handlers, "URL", u.URL)
	return &handled{
		command: startNode(t, append(environ, "FANFARE_HUBS_CHAT_EVENT_HANDLERS="+handlers)), upstream: u, t: t, key: accesskey.DevelopmentKey,
	}
}

// onConnect answers connect with a body.
func onConnect(body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") == "connect" {
			io.WriteString(w, body)
		}
	}
}

// url returns the URL for a client, of whom args tell the token command.
func (h *handled) url(args ...string) string {
	h.t.Helper()
	return clientURL(h.t, h.environ(h.key), append([]string{"--hub", "chat"}, args...)...)
}

func (h *handled) dial(args ...string) (*client.Client, error) {
	h.t.Helper()
	return dial(h.t, h.environ(h.key), append([]string{"--hub", "chat"}, args...)...)
}

// client lets a client in.
func (h *handled) client(args ...string) *client.Client {
	h.t.Helper()
	c, err := h.dial(args...)
	if err != nil {
		h.t.Fatal(err)
	}
	mustReceive[client.Connected](h.t, c)
	return c
}

// socket lets a client in that shows what it gets.
func (h *handled) socket(protocol string) *socket {
	h.t.Helper()
	return open(h.t, h.url(), protocol)
}

// ends lets the node end, so that the handler has all it will ever get. That
// must be want: the names of the events that the test has not taken, with their
// users.
func (h *handled) ends(want string) {
	h.t.Helper()
	h.signals <- syscall.SIGTERM
	if code := h.wait(h.t); code != exitOK {
		h.t.Fatalf("exit code %d: %s", code, h.err)
	}
	var got []string
	for len(h.events) > 0 {
		r := <-h.events
		name := r.Header.Get("Ce-Eventname")
		if user := r.Header.Get("Ce-Userid"); user != "" {
			name += " of " + user
		}
		got = append(got, name)
	}
	if all := strings.Join(got, ", "); all != want {
		h.t.Errorf("the handler got %q; want %q", all, want)
	}
}

// body returns the body of an event.
func body(t *testing.T, r *http.Request) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func refusedAs(err error, name string) bool {
	ack, ok := errors.AsType[*client.AckError](err)
	return ok && ack.Name == name
}

// socket is a WebSocket client that shows the bytes of each message.
type socket struct {
	net.Conn
	t *testing.T
	r io.Reader
}

// open connects by a client's URL; no protocol makes it a raw client.
func open(t *testing.T, url, protocol string) *socket {
	t.Helper()
	d := ws.Dialer{Timeout: patience}
	if protocol != "" {
		d.Protocols = []string{protocol}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, early, _, err := d.Dial(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := &socket{Conn: c, t: t, r: c}
	if early != nil { // the server's first words came with its answer
		s.r = early
	}
	return s
}

// says sends a text message.
func (s *socket) says(message string) {
	s.t.Helper()
	s.write(ws.NewTextFrame([]byte(message)))
}

func (s *socket) write(f ws.Frame) {
	s.t.Helper()
	if err := ws.WriteFrame(s, ws.MaskFrameInPlace(f)); err != nil {
		s.t.Fatal(err)
	}
}

// frame returns the next frame that is not a ping.
func (s *socket) frame() ws.Frame {
	s.t.Helper()
	for {
		f, err := ws.ReadFrame(s.r)
		if err != nil {
			s.t.Fatal(err)
		}
		if f.Header.OpCode != ws.OpPing {
			return f
		}
	}
}

// next returns the next message, which must be text.
func (s *socket) next() string {
	s.t.Helper()
	f := s.frame()
	if f.Header.OpCode != ws.OpText {
		s.t.Fatalf("received the frame %x %q; want text", f.Header.OpCode, f.Payload)
	}
	return string(f.Payload)
}

func (s *socket) hears(want string) {
	s.t.Helper()
	if got := s.next(); got != want {
		s.t.Fatalf("received %s\nwant     %s", got, want)
	}
}

// granted and refused expect the acknowledgement of a request.
func (s *socket) granted(id int) {
	s.t.Helper()
	s.hears(fmt.Sprintf(`{"type":"ack","ackId":%d,"success":true}`, id))
}

func (s *socket) refused(id int, name string) {
	s.t.Helper()
	want := fmt.Sprintf(`{"type":"ack","ackId":%d,"success":false,"error":{"name":"%s"`, id, name)
	if got := s.next(); !strings.HasPrefix(got, want) {
		s.t.Fatalf("received %s\nwant     %s", got, want)
	}
}

// greeting is the first message of a client with a subprotocol.
type greeting struct{ Event, ConnectionID, ReconnectionToken string }

func (s *socket) hello() (g greeting) {
	s.t.Helper()
	if m := s.next(); json.Unmarshal([]byte(m), &g) != nil || g.Event != "connected" {
		s.t.Fatalf("the first message is %s", m)
	}
	return g
}

// closed expects the server's goodbye.
func (s *socket) closed(code engine.CloseCode) {
	s.t.Helper()
	f := s.frame()
	if f.Header.OpCode != ws.OpClose {
		s.t.Fatalf("received the frame %x %q; want a close frame", f.Header.OpCode, f.Payload)
	}
	if got, reason := ws.ParseCloseFrameData(f.Payload); engine.CloseCode(got) != code {
		s.t.Fatalf("closed with %d %q; want %d", got, reason, code)
	}
}

// leaves says goodbye.
func (s *socket) leaves() {
	s.t.Helper()
	s.write(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
	s.closed(engine.CloseNormal)
}

// mqtt lets Ann in with MQTT.
func (h *handled) mqtt() *socket {
	h.t.Helper()
	at := "://" + h.address + "/clients/mqtt/hubs/chat"
	return open(h.t, "ws"+at+"?access_token="+sign(h.t, h.key, "http"+at, time.Now().Add(time.Hour)), "mqtt")
}

// isMQTT returns the next event, which must be named so and say whose protocol it
// is of.
func (h *handled) isMQTT(name string) *http.Request {
	h.t.Helper()
	r := h.event(h.t, name)
	if got := r.Header["Ce-Subprotocol"]; !reflect.DeepEqual(got, []string{"mqtt"}) {
		h.t.Errorf("%s has the subprotocol %q", name, got)
	}
	return r
}

// mqttConnect makes a CONNECT. A session of version 5 is kept for half a minute.
func mqttConnect(version byte, clean bool, id string) []byte {
	flags := byte(0)
	if clean {
		flags = 2
	}
	p := append([]byte("\x00\x04MQTT"), version, flags, 0, 60)
	if version == 5 {
		p = append(p, 5, 0x11, 0, 0, 0, 30)
	}
	p = append(append(p, 0, byte(len(id))), id...)
	return append([]byte{0x10, byte(len(p))}, p...)
}

// sends sends a packet of MQTT.
func (s *socket) sends(packet []byte) {
	s.t.Helper()
	s.write(ws.NewBinaryFrame(packet))
}

// packet returns what follows the header of the next packet, which must begin with
// first.
func (s *socket) packet(first byte) []byte {
	s.t.Helper()
	f := s.frame()
	if f.Header.OpCode != ws.OpBinary || len(f.Payload) < 4 || f.Payload[0] != first {
		s.t.Fatalf("received the frame %x % x; want a packet %x", f.Header.OpCode, f.Payload, first)
	}
	return f.Payload[2:]
}
