// Package engine is the heart of Fanfare: hubs, connections, groups, users,
// permissions, and the delivery of messages to many connections at once. It
// imports the standard library only and knows no HTTP, no socket and no JSON.
//
// # Nouns
//
// An [Engine] is a set of hubs. A [Hub] is an isolation scope; its methods are
// the verbs of application servers (SendToGroup, AddToGroup, CloseUser, ...). A
// [Conn] is the record of one client; its methods are what a client may ask,
// under its roles, and what a door reports. A [Subscription] is a connection in
// the same program: a first-class member of groups that receives Go values.
//
// The engine declares four interfaces: [EventHandler] (ask upstream),
// [Backplane] (tell and ask other nodes), [Encoding] (a message as bytes) and
// [Sink] (where bytes go). Everything else is a call from the outside in.
//
// # Promises
//
// Order: what one publisher sends reaches each receiver in that order. A server's
// send that returned precedes any later one. What is published after a join
// returned reaches the joiner; what is published after a leave returned does
// not. A reply precedes its ack. There is no order between publishers.
//
// Delivery: a connection gets each message once, whole, or it is ended. It never
// sees a gap: one that owes more than [Limits] allow is cut, and its
// disconnected event says so. Messages to a connection that is ended are lost. A
// connection with recovery outlives the loss of its wire: what its far end has not
// acknowledged comes again on the next one, under the same numbers, and before
// what has come since.
//
// Events: those of one connection are handed to its handler one at a time, in order,
// and disconnected when the last of them has ended; what a client asked for before it
// left is carried out for a bounded time. Bytes of events that wait or are under way
// are bounded for a connection, a user (a network, for clients without a user), a hub
// and the engine. Where they are short a connection has one event at a time, the
// events of those that have left are given up, and newcomers are refused ([Limits]).
//
// Concurrency: everything exported may be called by many goroutines, unless it
// says otherwise. No publisher waits for a slow reader. Verbs may wait for a
// shard that is behind, and for other nodes. An idle connection owns no
// goroutine, buffer or timer.
//
// # Inside
//
// Connections belong to a few shards, for life. A shard is one goroutine with
// one queue; messages, acks, joins, leaves and ends are entries of it. A turn
// takes all that has queued, encodes each message once per encoding, and offers
// each connection one run of shared bytes. Only a connection's shard uses its
// sink.
//
// Locks, in the order in which they are taken: Conn.mu, Engine.mu, a stripe of a
// table, group.mu, a shard's queue; that of a hub's users' budgets is taken last. None is held across a call of an interface
// (but for interest.mu, which one target's declarations to the backplane share).
// None that groups share is held for work proportional to members.
package engine
