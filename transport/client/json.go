package client

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/fanfare/fanfare/engine"
)

// serverFrame is any frame of the server, as Azure's "JSON WebSocket
// subprotocol" reference lists them. Members that a type lacks stay zero.
type serverFrame struct {
	Type    string `json:"type"`
	Event   string `json:"event"`
	Message string `json:"message"`

	ConnectionID string `json:"connectionId"`
	UserID       string `json:"userId"`

	From       string            `json:"from"`
	Group      string            `json:"group"`
	FromUserID string            `json:"fromUserId"`
	DataType   string            `json:"dataType"`
	Data       json.RawMessage   `json:"data"`
	Metadata   map[string]string `json:"metadata"`

	AckID   *uint64 `json:"ackId"`
	Success bool    `json:"success"`
	Error   *struct {
		Name    string `json:"name"`
		Message string `json:"message"`
	} `json:"error"`
}

// decodeFrame parses one text message of the server. A type that this client
// does not know is no error, so that a newer server can be talked to.
func decodeFrame(p []byte) (*serverFrame, error) {
	var f serverFrame
	if err := json.Unmarshal(p, &f); err != nil {
		return nil, fmt.Errorf("client: read the server's frame: %w", err)
	}
	if f.Type == "ack" && f.AckID == nil {
		return nil, fmt.Errorf("client: read the server's frame: an ack without ackId")
	}
	return &f, nil
}

// payload returns the content of a message frame.
func (f *serverFrame) payload() (engine.Payload, error) {
	switch f.DataType {
	case "json":
		return engine.Payload{Type: engine.JSON, Data: f.Data}, nil
	case "text", "binary", "protobuf":
		var s string
		if err := json.Unmarshal(f.Data, &s); err != nil {
			return engine.Payload{}, fmt.Errorf("client: read the data of a %s message: %w", f.DataType, err)
		}
		if f.DataType == "text" {
			return engine.Payload{Type: engine.Text, Data: []byte(s)}, nil
		}
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return engine.Payload{}, fmt.Errorf("client: read the data of a %s message: %w", f.DataType, err)
		}
		if f.DataType == "binary" {
			return engine.Payload{Type: engine.Binary, Data: b}, nil
		}
		return engine.Payload{Type: engine.Protobuf, Data: b}, nil
	}
	return engine.Payload{}, fmt.Errorf("client: read a message: dataType %.32q is not json, text, binary or protobuf", f.DataType)
}

// request is a frame to the server that may ask for an acknowledgement.
type request struct {
	kind     string // joinGroup, leaveGroup, sendToGroup, event
	name     string // the group, or the event's name
	payload  *engine.Payload
	noEcho   bool
	metadata map[string]string
	ttl      time.Duration
}

// maxTTL is the longest ttlSeconds that the protocol knows.
const maxTTL = 300 * time.Second

// encode returns r as JSON. JSON data is copied as it is spelled, which
// encoding/json would not do. The checks refuse what the server would answer
// by ending the connection.
func (r *request) encode(ackID uint64, acked bool) ([]byte, error) {
	field := "group"
	if r.kind == "event" {
		field = "event"
	}
	b := append([]byte(`{"type":"`), r.kind...)
	b = append(b, `","`...)
	b = append(b, field...)
	b = append(b, `":`...)
	b, err := appendString(b, field, r.name)
	if err != nil {
		return nil, err
	}
	if acked {
		b = append(b, `,"ackId":`...)
		b = strconv.AppendUint(b, ackID, 10)
	}
	if r.noEcho {
		b = append(b, `,"noEcho":true`...)
	}
	if r.ttl < 0 || r.ttl > maxTTL {
		return nil, fmt.Errorf("client: %s: TTL %v is not between 0 and %v", r.kind, r.ttl, maxTTL)
	}
	if r.ttl > 0 {
		b = append(b, `,"ttlSeconds":`...)
		b = strconv.AppendInt(b, int64((r.ttl+time.Second-1)/time.Second), 10)
	}
	if r.payload != nil {
		if b, err = appendPayload(b, *r.payload); err != nil {
			return nil, fmt.Errorf("client: %s: %w", r.kind, err)
		}
	}
	if len(r.metadata) > 0 {
		m, err := json.Marshal(r.metadata)
		if err != nil {
			return nil, fmt.Errorf("client: %s: metadata: %w", r.kind, err)
		}
		b = append(append(b, `,"metadata":`...), m...)
	}
	return append(b, '}'), nil
}

func appendPayload(b []byte, p engine.Payload) ([]byte, error) {
	b = append(b, `,"dataType":"`...)
	b = append(b, p.Type.String()...)
	b = append(b, `","data":`...)
	switch p.Type {
	case engine.JSON:
		if !json.Valid(p.Data) {
			return nil, fmt.Errorf("the data is not one JSON text")
		}
		return append(b, p.Data...), nil
	case engine.Text:
		return appendString(b, "data", string(p.Data))
	case engine.Binary, engine.Protobuf:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, p.Data)
		return append(b, '"'), nil
	}
	return nil, fmt.Errorf("data type %d is unknown", p.Type)
}

func appendString(b []byte, what, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("client: the %s is not valid UTF-8", what)
	}
	q, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return append(b, q...), nil
}
