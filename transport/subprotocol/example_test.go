package subprotocol_test

import (
	"errors"
	"fmt"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/subprotocol"
)

func Example() {
	encoder, decoder := subprotocol.JSON()

	in, err := decoder.Decode(subprotocol.TextFrame, []byte(`{"type":"sendToGroup","group":"news","dataType":"text","data":"hello"}`))
	if err != nil {
		panic(err)
	}
	fmt.Printf("publish %q to %s\n", in.Request.Payload.Data, in.Request.Group)

	body, _ := encoder.AppendBody(nil, &engine.Message{Group: in.Request.Group, From: "ann", Payload: in.Request.Payload})
	fmt.Printf("%s\n", body)

	_, err = decoder.Decode(subprotocol.TextFrame, []byte(`{"type":"sendToGroup","group":"news"}`))
	var refused *subprotocol.RefusedError
	if errors.As(err, &refused) {
		fmt.Println("close", refused.Code, "because", refused.Detail)
	}
	// Output:
	// publish "hello" to news
	// {"type":"message","from":"group","group":"news","fromUserId":"ann","dataType":"text","data":"hello"}
	// close 1007 because json: data: missing, and there is no metadata
}

// A connection of the reliable protocol has a part of its own in front of the bytes
// that all of them share.
func ExampleReliableJSON() {
	encoder, _ := subprotocol.ReliableJSON()

	m := &engine.Message{Group: "news", Payload: engine.Payload{Type: engine.Text, Data: []byte("hello")}}
	body, _ := encoder.AppendBody(nil, m)
	for _, seq := range []engine.SequenceID{7, 1042} {
		fmt.Printf("%s%s\n", encoder.AppendOwn(nil, m, engine.Own{Seq: seq}), body)
	}
	// Output:
	// {"sequenceId":7,"type":"message","from":"group","group":"news","dataType":"text","data":"hello"}
	// {"sequenceId":1042,"type":"message","from":"group","group":"news","dataType":"text","data":"hello"}
}

func ExampleFind() {
	for _, offer := range []string{"JSON.webpubsub.azure.v1", "protobuf.reliable.webpubsub.azure.v1", "chat.v2"} {
		if p, ok := subprotocol.Find(offer); ok {
			fmt.Println("speak", p.Name)
		} else {
			fmt.Println("carry raw", offer)
		}
	}
	// Output:
	// speak json.webpubsub.azure.v1
	// speak protobuf.reliable.webpubsub.azure.v1
	// carry raw chat.v2
}
