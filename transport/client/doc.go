// Package client dials the client endpoint of a Fanfare node, or of an Azure
// Web PubSub resource, over WebSocket.
//
// A [Client] is one logical connection. It speaks Azure's JSON and protobuf
// subprotocols, of which reliable JSON is the default, or bare frames ([Raw]). What the server
// sends arrives through [Client.Receive] as an [Event]: [Connected], [Message],
// [GroupState], [Disconnected], [Recovered], and with Options.Reconnect also [Lost]
// and [RejoinFailed]. What the program asks for, such as [Client.JoinGroup], waits
// for the server's acknowledgement and reports a refusal as an [*AckError]. A
// [Stream] publishes one message in parts, and [Client.Invoke] asks an event handler
// and returns its answer.
//
// Promises. Events arrive in the order the server sent them. A request that
// returned nil was acknowledged, unless it was asked to be fire-and-forget. All
// that a server can send is bounded: the size of a message by
// Options.ReadLimit, what waits for Receive by Options.Buffer, an error page by
// a few KiB. So is what the client keeps: a thousand requests that wait for their
// answers, and for each stream a MiB of parts and the one that exceeds it. After
// [Client.Close] has returned, no goroutine is left.
//
// With a reliable subprotocol a connection outlives its wire. When the wire is
// lost, the client makes another and recovers the connection: at once, then every
// second for half a minute. Messages and group states come exactly once and in
// order, those that were sent meanwhile included; the event Recovered stands where
// the wire was lost. Requests that wait for their ack are sent again under the same
// number, which the server carries out once: what it answers as a duplicate has
// succeeded. Requests that are made meanwhile wait, streams go on where they were.
// Only invocations fail, since no server tells whether it has carried them out. If
// the server has given the connection up, or half a minute was not enough (one
// attempt is, after a server has said Disconnected), there is one [*RecoveryError]: from Receive and from all who wait, or, with
// Options.Reconnect, in the event Lost, and a new connection is made.
//
// Caveats. A full buffer stops the reading, acknowledgements included, so a
// program that has joined groups must keep calling Receive: a server keeps a
// thousand messages for a client that acknowledges none, and then ends its
// connection. A message counts as received once it waits for Receive, so a program
// that crashes may have acknowledged what it never saw. [JSON], [Protobuf] and [Raw] have no
// recovery: with Options.Reconnect, what was published while the connection was
// lost is not delivered later, and Lost says that there may be a gap.
//
// The protocols are described in the Azure Web PubSub references of the "JSON",
// "Reliable JSON", "Protobuf" and "Reliable Protobuf WebSocket subprotocol", the
// framing in RFC 6455.
package client
