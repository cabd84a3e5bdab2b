// Package authn puts ways of proving oneself together: schemes are asked in
// order, and the first that recognises what was shown decides.
//
// Clients are proven by an [Authenticator], application servers by an
// [Authorizer]. Rooms below this one bring schemes: authn/accesskey takes
// tokens signed with the service's access keys, authn/token takes those that the
// node itself issued, authn/entra takes servers' tokens of Microsoft Entra ID.
// [Anonymous] admits clients that show nothing, where a hub allows that.
// [Clients] and [Servers] compose them. Each is of use alone, too.
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
// # Writing your own: clients
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
// handler, when the proof ends and, if it can be revoked, whether it still counts. Then it takes its place in the chain, behind
// those that look closer and before those that claim everything of their kind:
//
//	clients := authn.Clients(devices, accesskey.NewClients(ring, hosts), authn.Anonymous{})
//	door := websocket.NewHandler(e, clients, nil)
//
// The package's example is a whole one that runs.
//
// # Writing your own: servers
//
// An authorizer answers two questions at two times. Authorize says who is
// calling, from the request alone. The principal that it returns says what that
// caller may do: its Allow is asked once the request's operation and hub are known,
// and a nil Allow means everything.
//
//	func (j Jobs) Authorize(ctx context.Context, r engine.ServerRequest) (engine.Principal, error) {
//		...
//		return engine.Principal{ID: name, Scheme: "Job", Allow: func(a engine.Action, hub engine.HubName) error {
//			if a == engine.ActionGroupSend && hub == job.hub {
//				return nil
//			}
//			return engine.Errorf(engine.CodeForbidden, "job.action", "The job %s may only send to groups of hub %s.", name, job.hub)
//		}}, nil
//	}
//
// An action is one of Azure's data actions; the constants of package engine name
// those that guard something. ID names the caller in logs, so it is no secret.
// [Bearer] takes a token out of the request, and says "not mine" where there is
// none. What is signed over the request itself can be checked: Target is as it was
// sent, and BodyHash reads the body within the door's limits. [Servers] composes:
//
//	servers := authn.Servers(jobs, entra.NewServers(issuer, nil, roles), accesskey.NewServers(ring, hosts))
//	api := rest.NewHandler(e, servers, nil)
//
// The example of [Servers] runs.
//
// # Guarding a service of your own
//
// [Guard] puts a handler behind any authorizer, and refuses as Azure Communication
// Services does. accesskey.Signed and entra.Servers have it as a method, Middleware;
// with Servers a handler takes both:
//
//	http.Handle("/texts", authn.Guard(authn.Servers(accesskey.NewSigned(ring, nil), servers), texts, nil))
//
// In the handler [Caller] says who is calling. examples/guard is a whole service.
//
// # What both owe
//
//   - A refusal is an *engine.Error. Its Code decides what the caller is answered:
//     engine.CodeUnauthenticated is 401, engine.CodeForbidden 403, and
//     engine.CodeUnavailable, where nobody can judge at present, 503.
//   - Its Rule names the rule, in dotted lower case that stays the same: metrics
//     count by it. Its Message is one sentence for the caller about what would have
//     passed; its Detail, for the log, is what was seen. Neither holds a secret.
//   - Secrets are compared in constant time, and an unknown name is refused like a
//     wrong secret.
//   - What is read is bounded in size and in time. ctx ends with the caller.
//   - What does not change is looked up before, not for each call; what does is
//     safe to change while calls are under way.
package authn
