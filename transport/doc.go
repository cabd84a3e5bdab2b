// Package transport is what the doors for clients have in common: who may come
// in, and what becomes of the messages of those who did.
//
// Its nouns: an [Authenticator] says who is knocking; a [Wire] is one physical
// connection; a [Session] is a wire joined to an [engine.Conn], in one
// subprotocol. A door (package websocket, say) accepts wires, runs its own
// handshake and framing, and passes whole messages to the session. A client of a
// reliable subprotocol may have its connection back on another wire, which then
// has another session.
//
// # Promises
//
//   - A session is passive. Idle, it owns no goroutine, buffer, timer or context.
//   - Nothing here waits: a message is decoded and handed to the engine with a
//     completion, and what the engine has to say comes back through the wire's
//     [engine.Sink]. When the engine has enough of a connection's requests, the
//     session says so and the door stops reading until [Wire].Resume.
//   - A reply precedes the acknowledgement of the request that caused it: both
//     go through the connection's one queue in the engine.
//   - A client that breaks its protocol is closed with the code and reason of
//     that protocol, and nothing else it sent is looked at. It cannot recover.
//   - An invocation is answered once, on the wire that it came on: whoever loses
//     that wire has lost the answer, too.
//   - Of a wire that another one has replaced nothing more is taken.
package transport
