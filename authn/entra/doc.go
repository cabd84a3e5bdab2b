// Package entra proves application servers by tokens of Microsoft Entra ID, or
// of another OpenID provider, and says what each may do. It proves users too, for
// tokens of theirs to be exchanged.
//
// An [Issuer] is the tenant whose tokens count. It finds the tenant's signing
// keys by OpenID discovery and keeps them fresh. [Roles] are who has which role
// in which hub; Azure keeps them in its resource manager, and a node of one's own
// in its settings. [Servers] is the authn.Authorizer made of both. [Users] are
// proven by the same rules, and two of their own; a client door is opened by
// neither.
//
// # Which tokens count
//
// A token is an access token in the form of RFC 7519. Of Entra ID both versions
// are accepted, since the called application's manifest chooses, not the caller:
//
//	       iss                                  caller
//	v1.0   https://sts.windows.net/{tid}/       appid
//	v2.0   {authority}/{tid}/v2.0               azp
//
// These rules must hold, and a refusal names the first that does not:
//
//	entra.length     it has at most MaxToken bytes
//	entra.malformed  it is well formed, and has at most 256 claims, none of them twice
//	entra.alg        it is signed with RS256, and with nothing else
//	entra.typ        it is of type JWT or at+jwt, or says nothing of that
//	entra.crit       it asks for no extensions
//	entra.kid        it names a key, and the issuer has it
//	entra.signature  that key signed it
//	entra.exp        it says when it ends
//	entra.expired    that has not passed for more than Skew
//	entra.notyet     its nbf, if it has one, does not lie further ahead than that
//	entra.audience   it is for one of the audiences, letter by letter
//	entra.issuer     it is from the tenant
//	entra.tenant     its tid says so too
//	entra.version    its ver, if it has one, is that of its issuer
//	entra.caller     it names the calling application: an ID token does not
//
// and, of users:
//
//	entra.user       it is of a user (scp, or idtyp user), not of an application by itself
//	entra.object     it names the user and the tenant: oid and tid
//
// These are of engine.CodeUnauthenticated. What cannot be judged because the
// issuer cannot be asked is of engine.CodeUnavailable: entra.keys, or entra.stale
// where there are keys that are too old. A caller who is known and may not do
// what it asked for is refused with engine.CodeForbidden: entra.role, or
// entra.groups where the token leaves out groups that may have helped.
//
// Tokens signed with HS256 are another scheme's: access keys sign with that, and
// Entra ID never does. A key of the issuer cannot pass for an HMAC's secret, since
// nothing here ever verifies with one.
//
// # Who the caller is
//
// A role is assigned to an object id (oid), an application id (appid or azp), a
// group (groups) or an app role (roles). An application id stands for the
// application itself: a user who came through it (a token with scp, or idtyp
// user) is matched by object id, groups and app roles alone. Ids that are GUIDs
// compare without regard to case, all else letter by letter. In a tenant of Entra
// ID ids are GUIDs, and app roles are not: neither passes for the other, nor does
// the name of a group, which its members may have chosen. The subject (sub) stands
// for nobody: elsewhere people choose theirs.
//
// Roles are made of the data actions of Web PubSub, below
// Microsoft.SignalRService/WebPubSub/, and of those on the users that the service
// keeps. Azure has none for these; here they stand below
// Microsoft.Communication/CommunicationServices/, as identity/read,
// identity/write and identity/token/action. Users are of no hub: only a role that
// counts in every hub gives them.
//
// Other providers mark the tokens of users in ways of their own, or not at all.
// There an application id may stand for whoever came through the application, so
// roles belong to applications that nobody signs in to, or to groups and app roles.
//
// A token of somebody in too many groups names none of them, only where to ask
// (_claim_names). They are not asked for; assign the role to an app role or to the
// object instead.
//
// # Keys
//
// Keys are read when first needed, again every hour while tokens come, and when a
// token names one that is not there: at most once in ten seconds, whoever asks, so
// that nobody can turn made-up ids into a flood. Whoever needs them waits for at
// most ten seconds; who has a known key never waits. While the issuer is out of
// reach, the last keys stay in use for a day, or as long as the options say. Calls
// go to the authority and to the host of its jwks_uri, over TLS except on loopback;
// redirects are not followed, and what is read is bounded.
package entra
