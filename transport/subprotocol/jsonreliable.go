package subprotocol

import (
	"strconv"

	"github.com/fanfare/fanfare/engine"
)

// ReliableJSON returns the codec of json.reliable.webpubsub.azure.v1: that of
// [JSON], with sequence ids on what is numbered and the reconnection token in the
// first message.
func ReliableJSON() (Encoder, Decoder) { return reliableJSONEncoder{}, jsonDecoder{} }

// reliableJSONEncoder puts into a connection's own part the opening brace, with the
// sequence id on what has one. All connections share the rest, the closing brace
// included, where the reconnection token can stand: its message has one receiver.
type reliableJSONEncoder struct{}

var _ Encoder = reliableJSONEncoder{}

func (reliableJSONEncoder) Name() string { return NameReliableJSON }

func (reliableJSONEncoder) Frame(*engine.Message) Frame { return TextFrame }

func (reliableJSONEncoder) AppendBody(dst []byte, m *engine.Message) ([]byte, bool) {
	dst, ok := appendMembers(dst, m)
	if !ok {
		return dst, false
	}
	if m.Kind == engine.KindConnected && m.ReconnectionToken != "" {
		dst = appendString(append(dst, `,"reconnectionToken":`...), m.ReconnectionToken)
	}
	return append(dst, '}'), true
}

func (reliableJSONEncoder) AppendOwn(dst []byte, _ *engine.Message, own engine.Own) []byte {
	if own.Seq == 0 {
		return append(dst, '{')
	}
	dst = append(dst, `{"sequenceId":`...)
	dst = strconv.AppendUint(dst, uint64(own.Seq), 10)
	return append(dst, ',')
}

func (reliableJSONEncoder) Own() bool { return true }
