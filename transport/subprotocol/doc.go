// Package subprotocol holds the codecs that all client doors share: what a
// client's message means, and how a message of the engine looks to a client. It
// knows nothing of WebSocket, QUIC or gRPC framing.
//
// Its nouns: an [Encoder] is the outgoing half of a subprotocol and a [Decoder]
// the incoming half; an [Inbound] is one client message, understood; a
// [*RefusedError] is one that was not, with the close code that its sender gets.
//
// # Promises
//
//   - Encoders and decoders are stateless values, safe for concurrent use. Equal
//     encoders produce equal bytes for equal messages, so their connections can
//     share them.
//   - Decode keeps nothing of what it was given, and what it returns is bounded
//     by the size of the message: names, metadata and nesting have bounds of
//     their own.
//   - Parsing happens here and nowhere further in: the names in an
//     [engine.Request] from here are valid, text is UTF-8 and JSON is one
//     strict JSON text, relayed exactly as its author spelled it.
//   - What an encoder writes is valid UTF-8 in a [TextFrame], whatever a message
//     holds.
//
// # How a door uses an Encoder
//
// A message's bytes are the door's frame header, then AppendOwn's bytes if the
// encoder's Own is true, then AppendBody's. The header's length field covers the
// own part and the body; the frame kind comes from Frame. Everything that differs
// between two connections of one protocol stands in the own part, so that the
// body, which is nearly everything, is encoded once for all of them.
//
// # Caveats
//
//   - JSON types, targets and data types compare without regard to case, names of
//     properties do not. Of a repeated property the last one counts; a repeated
//     metadata key is refused.
//   - A message that begins a stream is refused if it has anything that its answer
//     or its parts could not honour: an ackId, data, metadata, a time to live. A
//     stream to an event handler, for which Azure's protocol keeps a place, is
//     refused as well.
//   - What Azure leaves unbounded is bounded here: a stream's and an invocation's
//     name to 256 bytes, a stream's idle time to a day, a publisher's last words to
//     4,096 bytes, a state to 16 KiB (the engine's own bound is far lower, and is
//     answered instead of ending the connection).
//   - An encoder sends what the engine says. It does not check that a stream's parts
//     are in order, nor that what is numbered has a number.
package subprotocol
