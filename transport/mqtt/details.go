package mqtt

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

// Details are what a hub's events say about an MQTT client, in
// [engine.EventContext].Details. They are immutable.
type Details struct {
	// PhysicalConnectionID names the network connection, the last one if it is gone.
	PhysicalConnectionID string
	// SessionID names the session; empty in a connect event.
	SessionID string
	// Connect is what the client's CONNECT says. Nil but in a connect event.
	Connect *Connect
	// InitiatedByClient says that the client ended the last network connection by a
	// DISCONNECT.
	InitiatedByClient bool
	// Disconnect is the last DISCONNECT; nil if there was none.
	Disconnect *Disconnect
}

// Connect is what a CONNECT says to the connect handler.
type Connect struct {
	// ProtocolVersion is 4 for MQTT 3.1.1 and 5 for 5.0.
	ProtocolVersion int  `json:"protocolVersion"`
	CleanStart      bool `json:"cleanStart"`
	// Username and Password are nil where the packet has none.
	Username       *string    `json:"username"`
	Password       []byte     `json:"password"` // base64 in JSON
	UserProperties []Property `json:"userProperties"`
}

// Disconnect is what a DISCONNECT says.
type Disconnect struct {
	Code           int        `json:"code"`
	UserProperties []Property `json:"userProperties"`
}

// Answer is what a connect handler says to an MQTT client: in
// [engine.ConnectReply].Details, or in [engine.Error].Reply.
type Answer struct {
	// Code is the CONNACK's return code (3.1.1) or reason code (5.0) of a refusal.
	Code int `json:"code"`
	// Reason and UserProperties reach clients of 5.0 alone.
	Reason         string     `json:"reason"`
	UserProperties []Property `json:"userProperties"`
}

var (
	_ webhook.Words    = (*Details)(nil)
	_ webhook.Exchange = (*publication)(nil)
)

// EventSource implements [webhook.Words].
func (d *Details) EventSource() string { return d.PhysicalConnectionID }

// EventHeaders implements [webhook.Words].
func (d *Details) EventHeaders(string) [][2]string {
	h := [][2]string{{"ce-physicalConnectionId", d.PhysicalConnectionID}}
	if d.SessionID != "" {
		h = append(h, [2]string{"ce-sessionId", d.SessionID})
	}
	return h
}

// EventMember implements [webhook.Words].
func (d *Details) EventMember(event string) (string, any) {
	switch {
	case event == engine.SystemConnect && d.Connect != nil:
		return name, d.Connect
	case event == engine.SystemDisconnected:
		return name, struct {
			InitiatedByClient bool        `json:"initiatedByClient"`
			DisconnectPacket  *Disconnect `json:"disconnectPacket"`
		}{d.InitiatedByClient, d.Disconnect}
	}
	return "", nil
}

// ReadReply implements [webhook.Words]. The result is an *[Answer], or nil.
func (d *Details) ReadReply(_ int, member json.RawMessage) (any, error) {
	if len(member) == 0 || string(member) == "null" {
		return nil, nil
	}
	a := &Answer{}
	if err := json.Unmarshal(member, a); err != nil {
		return nil, fmt.Errorf("the member mqtt: %w", err)
	}
	return a, nil
}

// session returns d for the rest of a session's events.
func (d *Details) session(id string) *Details {
	return &Details{PhysicalConnectionID: d.PhysicalConnectionID, SessionID: id}
}

// parted returns d after a DISCONNECT.
func (d *Details) parted(byClient bool, code byte, user []Property) *Details {
	return &Details{
		PhysicalConnectionID: d.PhysicalConnectionID, SessionID: d.SessionID,
		InitiatedByClient: byClient, Disconnect: &Disconnect{Code: int(code), UserProperties: user},
	}
}

// headerPrefix marks the headers that are user properties.
const headerPrefix = "mqtt-"

// ContentType implements [webhook.Exchange].
func (p *publication) ContentType() string { return p.contentType }

// EventHeaders implements [webhook.Exchange].
func (p *publication) EventHeaders() [][2]string {
	h := make([][2]string, len(p.user))
	for i, u := range p.user {
		h[i] = [2]string{headerPrefix + u.Name, u.Value}
	}
	return h
}

// reply is a handler's answer to an event as it came.
type reply struct {
	status      int
	contentType string
	body        []byte
	user        []Property
}

// ReadReply implements [webhook.Exchange].
func (p *publication) ReadReply(status int, header http.Header, body []byte) any {
	r := &reply{status: status, contentType: header.Get("Content-Type"), body: body}
	for _, name := range sortedNames(header) {
		short := strings.ToLower(name)
		if !strings.HasPrefix(short, headerPrefix) || len(short) == len(headerPrefix) {
			continue
		}
		for _, v := range header[name] {
			r.user = append(r.user, Property{short[len(headerPrefix):], v})
		}
	}
	return r
}
