// Package mqtt is the door for MQTT clients over WebSocket: versions 3.1.1 and 5.0
// (OASIS), as Azure Web PubSub adapts them. Its clients come through the WebSocket
// door, as one of its protocols:
//
//	ws := websocket.NewHandler(e, auth, &websocket.Options{
//		Protocols: []websocket.Protocol{mqtt.Protocol(nil)},
//	})
//
// Clients connect to /clients/mqtt/hubs/{hub}, offer the subprotocol "mqtt", and
// prove who they are by a token of the handshake; the user name and password of
// their CONNECT are the connect handler's business.
//
// # What is what
//
// A topic is a group, a subscription a membership, a client id a connection id, and
// an MQTT session a logical connection: it outlives a network connection by at most
// 30 s. All of a hub's clients share its groups, whatever they speak. A message of
// another protocol, or of a server, is published with QoS 1; one that is addressed to
// no group has the topic $webpubsub/server/messages. A client raises an event by a
// PUBLISH to $webpubsub/server/events/{name}, and gets the handler's answer, a failure
// included, under the same topic and /succeeded or /failed.
//
// # Promises
//
//   - QoS 0, 1 and 2 in both directions, as long as the session lives. A publication
//     reaches a subscriber with the lesser of the QoS it was published with and the
//     QoS that was granted.
//   - Per publisher and subscriber, in order; but a publication that is delivered with
//     QoS 0 does not wait for those of QoS 1 and 2 that the client's receive maximum
//     holds back, and no other packet does (5.0 section 4.9). A SUBACK follows the joins
//     it tells of.
//   - What is not there is refused, never ignored: wildcards, shared subscriptions,
//     retained messages and topic aliases.
//   - What a client can make the door hold is bounded: a packet by
//     [engine.Limits].MessageBytes, and by a count of topics and user properties; the
//     publications it has not released, and the deliveries it has not acknowledged.
//
// # Caveats
//
// A packet that breaks the protocol ends the session with the connection. A client of
// 3.1.1 that may not publish, and wants an acknowledgement, is disconnected, since its
// version cannot say no. Clients that subscribe again to a topic get nothing anew:
// there are no retained messages.
package mqtt
