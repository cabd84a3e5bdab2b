// Package authn puts ways of proving oneself together: schemes are asked in
// order, and the first that recognises what was shown decides.
//
// Clients are proven by an [Authenticator], application servers by an
// [Authorizer]. Rooms below this one bring schemes: authn/accesskey takes
// tokens signed with the service's access keys, authn/token takes those that the
// node itself issued. [Anonymous] admits clients that show nothing, where a hub
// allows that. [Clients] and [Servers] compose them.
//
// # Mine, refused, not mine
//
// A scheme has three answers.
//
//   - What was shown is of my kind, and it holds: an identity.
//   - It is of my kind, and it does not hold: an *engine.Error that names the
//     rule. The chain ends here. A scheme that comes later never gets to see
//     what an earlier one refused.
//   - It is not of my kind: an error made with [NotMine]. The chain asks the
//     next scheme.
//
// What makes something "of my kind" must be plain to see in it: a header's first
// word, a key id that this scheme handed out, a certificate. A scheme must not
// try whether something happens to hold and say "not mine" if it does not; that
// would make every refusal a riddle and let two schemes' rules add up to a gap.
//
// Any other error, of an unreachable key server say, ends the chain too: who
// cannot be judged does not get in.
//
// # Writing your own
//
// An authenticator is one method. It is called concurrently, once for each
// client that knocks, before any event handler hears of it:
//
//	func (d Devices) Authenticate(ctx context.Context, c engine.Credentials) (engine.Identity, error) {
//		serial := http.Header(c.Header).Get("X-Device-Serial")
//		if serial == "" {
//			return engine.Identity{}, authn.NotMine(&engine.Error{
//				Code: engine.CodeUnauthenticated, Rule: "device.missing",
//				Message: "No X-Device-Serial header was sent.",
//			})
//		}
//		...
//	}
//
// It fills in what it knows: the user, roles in the words of client tokens
// ("webpubsub.sendToGroup.news"), groups to join at once, claims for the connect
// handler, when the proof ends. It compares secrets in constant time, bounds
// what it reads, and refuses in one sentence that tells the caller what would
// have passed and no secret. Then it takes its place in the chain:
//
//	clients := authn.Clients(devices, accesskey.NewClients(ring, hosts), authn.Anonymous{})
//
// The package's example is a whole one that runs.
package authn
