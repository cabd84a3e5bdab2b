package client

import (
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/engine"
)

// protocol is a subprotocol as a client speaks it.
type protocol struct {
	codec
	// reliable says that messages have sequence ids and that a connection
	// outlives its wire.
	reliable bool
}

// protocols are those whose frames the client makes itself.
var protocols = map[string]protocol{
	JSON:             {codec: jsonCodec{}},
	ReliableJSON:     {codec: jsonCodec{}, reliable: true},
	Protobuf:         {codec: protobufCodec{}},
	ReliableProtobuf: {codec: protobufCodec{}, reliable: true},
}

// codec turns frames of the server into words and requests into frames. It has
// no state.
type codec interface {
	// op is the kind of WebSocket message that carries a frame.
	op() ws.OpCode
	// encode returns r as a frame. Its checks refuse what the server would answer
	// by ending the connection.
	encode(r *request) ([]byte, error)
	// decode parses one message of the server and keeps nothing of p. What this
	// client does not know is a word of wordUnknown and no error, so that a newer
	// server can be talked to.
	decode(p []byte) (*frame, error)
}

// verb is what a client asks for, in the words of the JSON subprotocol.
type verb string

// The verbs.
const (
	verbJoin         verb = "joinGroup"
	verbLeave        verb = "leaveGroup"
	verbSend         verb = "sendToGroup"
	verbEvent        verb = "event"
	verbInvoke       verb = "invoke"
	verbCancel       verb = "cancelInvocation"
	verbStreamStart  verb = "stream start" // a sendToGroup on the wire
	verbStreamData   verb = "streamData"
	verbStreamEnd    verb = "streamEnd"
	verbSetState     verb = "setGroupState"
	verbWatchState   verb = "subscribeGroupState"
	verbUnwatchState verb = "unsubscribeGroupState"
	verbSequenceAck  verb = "sequenceAck"
	verbPing         verb = "ping"
)

// request is a frame to the server. Members that a verb lacks stay zero.
type request struct {
	verb  verb
	name  string // the group, or the event's name
	id    string // of the stream or the invocation
	ackID uint64 // 0 asks for no acknowledgement

	payload  *engine.Payload
	noEcho   bool
	metadata map[string]string
	ttl      time.Duration

	seq   uint64              // of a stream's part, or what is acknowledged
	idle  time.Duration       // of a stream
	fail  *engine.StreamError // why a stream ends
	state map[string]string   // nil clears
}

// word is what a server says.
type word uint8

// The words.
const (
	wordUnknown word = iota
	wordConnected
	wordDisconnected
	wordMessage
	wordAck
	wordPong
	wordInvokeResponse
	wordStreamAck
	wordStreamNack
	wordStreamClosed
	wordState
)

// frame is what the server said. Members that a word lacks stay zero.
type frame struct {
	word word
	// seq is the delivery's sequence id; 0 for what has none.
	seq uint64

	hello Connected // of wordConnected, with the token to recover with
	token string

	text  string         // of wordDisconnected
	event Event          // of wordMessage and wordState
	ackID uint64         // of wordAck
	id    string         // of the stream or the invocation
	next  uint64         // the part that a stream's publisher is asked for
	data  engine.Payload // of wordInvokeResponse
	fail  *failure       // what went wrong, where something did
}

// failure is a server's error, in its own words.
type failure struct{ name, message string }

// maxTTL is the longest ttlSeconds that the protocol knows.
const maxTTL = 300 * time.Second
