// Package rest is the server door, for application servers, in two handlers.
//
// [Handler] is the data plane of Azure Web PubSub, which sends messages, manages
// groups, closes connections and mints client tokens. It answers everything below
// /api/ and hands all else to its fallback, so that embedding is one line:
//
//	http.Handle("/", rest.NewHandler(eng, authorizer, &rest.Options{Fallback: mux}))
//
// The table in operations.go is the whole data plane: each of the 25 operations
// of api-version 2024-12-01 with its method, path, permission, success status
// and query parameters.
//
// [IdentityHandler] is the identity API of Azure Communication Services: users that
// the service keeps, and their access tokens. The table in identity_operations.go is
// all of it. What is said below about errors and versions is the data plane's; the
// identity API's own is at the end.
//
// # Promises
//
// A reply means that the engine's verb has returned: what a server sends after
// it got the reply to an earlier send comes later at every receiver. Sends are
// not idempotent; the official SDKs retry them on 429 and 503.
//
// Requests are judged in one order, so that an error always names the first
// thing wrong: path and method, api-version, path parameters and
// messageTtlSeconds, credentials and permission, the other query parameters
// (filter among them), length, content encoding, content type, body, metadata. A request that was
// refused has changed nothing, and a stranger's body is not read unless the
// authorizer asks for its hash.
//
// Errors have the service's flat shape; "inner" holds the name of the rule that
// refused. The message of a 403 is the service's own sentence, and "details" says
// what the caller lacks. The reply to HEAD has no body, and carries the code in the header
// x-ms-error-code alone.
//
// # Names in paths
//
// Each segment of a path is percent-decoded once: groups/home%2Ftemp is the group
// home/temp, and groups/home%252Ftemp the group home%2Ftemp. "..", "." and empty
// segments are names like any other: the handler must not stand behind an
// http.ServeMux or anything else that cleans paths.
//
// # Pages of other origins
//
// Pages whose origin AllowOrigin lets through may call both handlers from a browser:
// preflights are answered before credentials are looked at, and refusals can be read as
// replies can. Cookies and client certificates are not allowed (no
// Access-Control-Allow-Credentials). Of others a preflight is refused with 403; what
// they send without one is judged by its credentials alone, and its reply cannot be read.
//
// # Caveats
//
// Bodies are taken as they are: a request whose Content-Encoding is gzip, or anything
// but identity, is answered with 415 and the header Accept-Encoding: identity. That
// holds for the identity API, too.
//
// A body over the limit is refused with 400 and a chunked one is accepted up to
// the limit. Text that is not valid in its charset is refused, never mended,
// where the charset is UTF-8. How long a body may take is the server's
// ReadTimeout.
//
// The protocol is that of the "Azure Web PubSub data plane REST API reference"
// and its OpenAPI description.
//
// # The identity API
//
// The order of judgement is: path and method, api-version, path parameters,
// credentials and permission, the limit of requests, body. The body of a request for
// a user is looked into earlier, since it says whether a token is asked for as well,
// which takes a second permission and has a limit of its own. api-version is required.
// An operation exists from the version on that brought it, and so do scopes and
// members of bodies; a member that a version does not know is ignored.
//
// A body is read strictly: it is one JSON object, no member comes twice, and
// nothing is converted. Ids of Entra ID are UUIDs, compared without regard to case.
//
// Who exchanges a token for the Teams extension, or at /access/entra/, is no server: its
// own token, proven by [EntraUsers], is the credential, and must have been issued through
// a client application that the user's assignment names. The two exchanges differ in the
// scopes of Entra ID that they know.
//
// Errors have the shape {"error":{"code","message","target","innererror"}}.
// innererror holds the name of the rule that refused, and what it saw and what
// would pass, which is the message of all errors but 401.
//
// Limits are this process's own: nodes that serve one endpoint count each for itself.
package rest
