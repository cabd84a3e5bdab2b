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
// Of Azure's subprotocols this build has json.webpubsub.azure.v1 and the raw
// clients; [Known] tells the others from unknown ones. Invocations, streams and
// group state are refused as malformed, as a service that lacks them does.
package subprotocol
