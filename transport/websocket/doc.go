// Package websocket is the door for clients that speak WebSocket (RFC 6455): raw
// ones, and those that offer one of Azure Web PubSub's subprotocols.
//
// Its noun is the [Handler], an [http.Handler] that serves /client/hubs/{hub}, and
// the older /client/?hub={hub}. It reads the path itself, as it was escaped, and
// so stands ahead of any [http.ServeMux]; what is not its own it passes to
// Options.Fallback.
//
// # The way in
//
// A client is checked in the service's order: is it a WebSocket upgrade (400), is
// the hub's name valid (400), does it show at most one token (401), may pages of its
// origin connect (403), does it want to recover a connection (101, then
// closed 1008 if it cannot), do its credentials hold (401, 400), are the parameters
// of raw mode valid (400), and does the event handler want it (the handler's own
// status, 500 if it failed, or chose a subprotocol that was not offered). The body
// of a refusal is one line that names the rule and what would pass; the log gets
// one line, which holds more. Neither holds a secret.
//
// # The way back
//
// A client of a reliable subprotocol that has lost its wire names its connection
// (awps_connection_id) and shows the token that the connection began with
// (awps_reconnection_token); nothing else is asked of it but the client certificate
// that it came with, if it did. It goes on in the subprotocol that it began with,
// which it must offer. A client that cannot have its connection back is told so
// in a close frame, so that it begins a new one: after an HTTP status, which it
// gets where the node has no room or no answer, it would try again. An attempt that is
// refused does nothing to the connection, or to the wire that it has.
//
// # HTTP/2
//
// A request over HTTP/2 cannot be upgraded. A client that does TLS should offer the
// ALPN protocol http/1.1 alone; a GET over HTTP/2 is answered with a line that says
// so. A WebSocket over a stream of HTTP/2 (RFC 8441) is served where net/http takes an
// extended CONNECT: that is decided when the process starts, by GODEBUG=http2xconnect=1
// in its environment. Browsers then use the HTTP/2 connection that they have, if they
// have one. All limits and times are the same. The handler of such a request returns
// when the connection is closed, so each costs a goroutine more, and http.Server's
// HTTP2.WriteByteTimeout should be set: a stream cannot end while its HTTP/2 connection
// takes no bytes.
//
// # Other protocols
//
// Protocols that are none of Azure's, and begin with a message of their own, are
// spoken over the same wires ([Protocol]): the door does the handshake, proves who
// the client is, and frames.
//
// # Certificates
//
// A client's certificate is the one that it showed in TLS. Behind a proxy that ends
// TLS it is the one that Options.CertificateHeader holds, if one of
// Options.TrustedProxies sent the request; what such a proxy shows in TLS itself is
// its own. The headers that proxies use for it are removed from every request, so
// neither an authenticator nor a connect handler can mistake a stranger's claim.
// Nothing is verified here: that is the authenticator's business, or the handler's.
//
// # Promises
//
//   - The handler returns once the connection is open, except over HTTP/2. Its life
//     hangs on the engine, never on the request.
//   - An idle connection over plain TCP on Linux owns no goroutine, no buffer and
//     no net.Conn. Elsewhere, and over TLS, it owns one reading goroutine, and over
//     HTTP/2 that of its request, too.
//   - What a stranger sends is bounded: a message by Limits.MessageBytes over all
//     its fragments and after decompression, and what it announces costs nothing
//     until it arrives. Frames are held to RFC 6455 strictly.
//   - A message that is not complete within Limits.MessageTimeout of its first byte
//     ends its connection with 1008, whatever else arrives meanwhile, and so does
//     the largest one when all together are over Limits.TotalUnfinishedBytes.
//   - A client has a share of each turn: 64 frames, and the rest of what was read
//     waits until the others had theirs. Frames that carry no data (pings, pongs,
//     empty fragments and messages, pings of the subprotocol, acknowledgements of
//     nothing new) are counted: above Limits.ControlRate the client is read more
//     slowly, and if it goes on it is closed with 1008.
//   - Nothing a client does, or leaves undone, holds another one up.
//
// # Caveats
//
// Pages of every origin may connect unless Options.AllowedOrigins says otherwise.
// A browser sends a page's handshake to any server, with the cookies and the client
// certificate of its user. A token protects a client from that, because another
// origin's page does not have it; nothing else does. An embedder whose
// [transport.Authenticator] accepts cookies, certificates, addresses, or a key that
// everyone knows, must set AllowedOrigins.
//
// A raw client is told nothing but that the handshake succeeded, which can be a
// moment before it is in its first groups. Clients with a subprotocol get their
// first message once they are.
package websocket
