package transporttest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/fanfare/fanfare/proto/azure/webpubsub/v1"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

// inProtobuf goes by the JSON form of protobuf, whose words are nearly those of the
// JSON subprotocol.
func inProtobuf(name string, reliable bool) tongue {
	return tongue{
		name: name, reliable: reliable, nameless: true,
		say: func(words []byte) (subprotocol.Frame, []byte) {
			message, err := upstream(words)
			if err != nil {
				panic(fmt.Sprintf("the story says %s: %v", words, err))
			}
			return subprotocol.BinaryFrame, message
		},
		hear: func(f subprotocol.Frame, message []byte) ([]byte, error) {
			if f != subprotocol.BinaryFrame {
				return nil, errors.New("protobuf travels as bytes")
			}
			return downstream(message)
		},
		malformed: []string{"", "\x32", "\xff\xff", "\x32\x00", "{"},
		reason:    "The client message is not a valid protobuf protocol message.",
	}
}

func upstream(words []byte) ([]byte, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(words, &m); err != nil {
		return nil, err
	}
	var kind, dataType string
	_ = json.Unmarshal(m["type"], &kind)
	_ = json.Unmarshal(m["dataType"], &dataType)
	delete(m, "type")
	delete(m, "dataType")
	delete(m, "target") // an invocation has one kind of target here
	if kind == "invoke" {
		kind = "invokeEvent"
	}
	if data, ok := m["data"]; ok {
		switch dataType {
		case "", "json":
			dataType = "json"
			data, _ = json.Marshal(string(data))
		}
		m["data"], _ = json.Marshal(map[string]json.RawMessage{dataType + "Data": data})
	}
	if state, ok := m["state"]; ok {
		m["state"], _ = json.Marshal(map[string]json.RawMessage{"entries": state})
	}
	wrapped, err := json.Marshal(map[string]any{kind: m})
	if err != nil {
		return nil, err
	}
	var p pb.UpstreamMessage
	if err := protojson.Unmarshal(wrapped, &p); err != nil {
		return nil, err
	}
	return proto.Marshal(&p)
}

func downstream(message []byte) (words []byte, _ error) {
	var p pb.DownstreamMessage
	if err := proto.Unmarshal(message, &p); err != nil {
		return nil, err
	}
	var protobuf string // data that has no JSON form, since nobody knows its type
	if data := p.GetData().GetData(); data.GetProtobufData() != nil {
		b, err := proto.Marshal(data.GetProtobufData())
		if err != nil {
			return nil, err
		}
		protobuf = base64.StdEncoding.EncodeToString(b)
		data.Data = nil
	}
	text, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(&p)
	if err != nil {
		return nil, err
	}
	var wrapped map[string]map[string]any
	if err := json.Unmarshal(text, &wrapped); err != nil {
		return nil, err
	}
	for kind, m := range wrapped { // there is one
		switch kind {
		case "data":
			kind = "message"
		case "system":
			for event, of := range m {
				m = of.(map[string]any)
				m["event"] = event
			}
			if reason, ok := m["reason"]; ok {
				m["message"] = reason
				delete(m, "reason")
			}
		}
		m["type"] = kind
		spell(m)
		if protobuf != "" {
			m["dataType"], m["data"] = "protobuf", protobuf
		}
		return json.Marshal(m)
	}
	return nil, errors.New("the message is none that is known")
}

// spell puts what protobuf spells in a way of its own into the words of the JSON
// subprotocol.
func spell(m map[string]any) {
	for name, v := range m {
		switch v := v.(type) {
		case string:
			switch name {
			case "ackId", "sequenceId", "streamSequenceId", "expectedSequenceId", "updatedAt":
				m[name] = json.Number(v)
			}
		case []any:
			for _, item := range v {
				spell(item.(map[string]any))
			}
		case map[string]any:
			switch {
			case name == "metadata" && len(v) == 0:
				delete(m, name)
			case name == "state":
				m[name] = v["entries"]
			case name == "data":
				delete(m, name)
				for form, data := range v {
					switch m["data"] = data; form {
					case "textData":
						m["dataType"] = "text"
					case "binaryData":
						m["dataType"] = "binary"
					case "jsonData":
						m["dataType"], m["data"] = "json", json.RawMessage(data.(string))
					}
				}
			default:
				spell(v)
			}
		}
	}
}
