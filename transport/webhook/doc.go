// Package webhook is the door outward: it carries events to an application
// server as CloudEvents over HTTP, in binary content mode, as Azure Web PubSub
// does, and brings the server's answers back.
//
// A [Client] is one event handler endpoint, given as a URL template, and fills
// the seam [engine.EventHandler]. Which events reach it is not its business:
// an [engine.HandlerRule] says so.
//
// # Promises
//
//   - An event is one POST. It is repeated, byte for byte and with the same
//     ce-id and x-ms-client-request-id, when the server answers 408 or 5xx or
//     the exchange breaks: after 1, 3 and 5 seconds. A server must therefore
//     treat ce-id as the key of an idempotent operation. A timeout is final.
//   - There is no further attempt once the event's connection has ended. The attempt
//     under way is waited for, within its time, before disconnected is sent, which is
//     then the last event of the connection. A connection that may yet be recovered has
//     not ended. connected alone may still be under way while disconnected is sent.
//   - Nothing is posted to a URL that has not granted this service's origin in
//     a CloudEvents validation request ("abuse protection").
//   - In the body of a connect event, a client's headers that are registered with
//     IANA have the spelling of the registry (Sec-WebSocket-Key, User-Agent); all
//     others are in lower case, whatever the client wrote. A handler in a language
//     whose maps tell case apart can look a name up without knowing the transport.
//   - What a server attaches to a connection (its state and its cookies) lives
//     in the connection's [engine.HandlerState], so that it follows the
//     connection to another node. Answers of one connection may race; each
//     changes only what it speaks about.
//   - Redirects are not followed, proxies are not used, and link-local and
//     cloud metadata addresses are not connected to, whatever name leads there.
//   - Errors are *[engine.Error], and none shows the query of a URL or a secret.
//     Their rules are event.template, event.secret, event.token, event.header,
//     event.metadata, event.validation, event.address, event.unreachable,
//     event.timeout, event.cancelled, event.closed, event.status and event.reply.
//     An event that fails has [engine.CodeInternal], and the server's Status if
//     it had one to give; other codes are for a closed client and for a caller
//     that has gone away (CodeClosed), for metadata that breaks the rules
//     (CodeInvalid), and for what [New] refuses.
//
// # Caveats
//
//   - A handler that answers slowly holds the event's caller for up to
//     [Options.Timeout]; Connect then holds the client.
//   - tunnel:// handlers are refused.
//   - The state of a connection is shared by all handlers of its hub. A state
//     that something other than this package made counts as none, and is
//     replaced as soon as a server sets a state or a cookie.
package webhook
