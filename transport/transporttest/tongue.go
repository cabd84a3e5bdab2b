package transporttest

import (
	"errors"

	"github.com/fanfare/fanfare/transport/subprotocol"
)

// tongue is a subprotocol that stories are told in. They are written in the words
// of the JSON subprotocol; say and hear translate.
type tongue struct {
	name     string
	reliable bool
	// nameless says that messages do not name the user who sent them.
	nameless bool
	say      func(words []byte) (subprotocol.Frame, []byte)
	hear     func(f subprotocol.Frame, message []byte) (words []byte, _ error)
	// malformed messages are refused with reason.
	malformed []string
	reason    string
}

var tongues = []tongue{
	inJSON(subprotocol.NameJSON, false),
	inJSON(subprotocol.NameReliableJSON, true),
	inProtobuf(subprotocol.NameProtobuf, false),
	inProtobuf(subprotocol.NameReliableProtobuf, true),
}

func inJSON(name string, reliable bool) tongue {
	return tongue{
		name: name, reliable: reliable,
		say: func(words []byte) (subprotocol.Frame, []byte) { return subprotocol.TextFrame, words },
		hear: func(f subprotocol.Frame, message []byte) ([]byte, error) {
			if f != subprotocol.TextFrame {
				return nil, errors.New("JSON travels as text")
			}
			return message, nil
		},
		malformed: []string{`{`, `{"type":"ping"`, `{"type":"fly"}`, `{"type":"joinGroup","group":"g","ackId":"1"}`},
		reason:    "The client message is not a valid JSON protocol message.",
	}
}
