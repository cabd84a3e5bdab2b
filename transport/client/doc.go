// Package client dials the client endpoint of a Fanfare node, or of an Azure
// Web PubSub resource, over WebSocket.
//
// A [Client] is one logical connection. It speaks the JSON subprotocol
// json.webpubsub.azure.v1, or bare frames ([Raw]). What the server sends
// arrives through [Client.Receive] as an [Event]: [Connected], [Message],
// [Disconnected], and with Options.Reconnect also [Lost] and [RejoinFailed].
// What the program asks for, such as [Client.JoinGroup], waits for the
// server's acknowledgement and reports a refusal as an [*AckError].
//
// Promises. Events arrive in the order the server sent them. A request that
// returned nil was acknowledged, unless it was asked to be fire-and-forget. All
// that a server can send is bounded: the size of a message by
// Options.ReadLimit, what waits for Receive by Options.Buffer, an error page by
// a few KiB. After [Client.Close] has returned, no goroutine is left.
//
// Caveats. A full buffer stops the reading, acknowledgements included, so a
// program that has joined groups must keep calling Receive. The protocol has no
// recovery: with Options.Reconnect, what was published while the connection was
// lost is not delivered later, and Lost says that there may be a gap.
//
// The protocol is described in the Azure Web PubSub reference "JSON WebSocket
// subprotocol", the framing in RFC 6455.
package client
