// Package identity is users that the service keeps, and their access tokens, as Azure
// Communication Services has them.
//
//   - [Users] creates and deletes users, issues tokens to them, revokes and proves
//     those tokens, and publishes the keys to prove them by.
//   - [Key] signs tokens. It is derived from a secret, or given.
//   - [Keys] keeps keys in the store and has them give way to each other in time.
//   - [Clients] proves clients by such tokens: a scheme for authn's chains.
//   - [Store] is where users are kept: [MemoryStore], or package filestore.
//
// # What is kept
//
// A user is one short record: the number of times that its tokens have been revoked.
// A token bears that number as it was when the token was issued, and counts while the
// two are equal. So a token costs no record, revoking is exact whatever the clocks
// say, and a token issued while another call revokes falls on one side of it.
//
// Deleting a user removes the record, and a token whose user has no record does not
// count. No tombstone is needed, because an id is never given out twice: it holds a
// UUID of version 7, which is also why users that were created together lie
// together in an ordered store.
//
// A user may be made for a name ([Users.Named]). The name's record leads to the user,
// and the user's bears a hash of the name. An assignment ([Users.Assign]) is a record of
// its own, which no user has to do with.
//
// What a call has acknowledged is in force at once wherever the store is the same. A
// process may be killed at any point. What it had not acknowledged is done or not; and
// there may be left a user whose id nobody has been told, or the record of a name that
// leads to nobody, until that name is asked for again.
//
// # Tokens
//
// They are JSON Web Tokens of the type [TokenType], signed by ES256 or, with an RSA
// key, by RS256:
//
//	iss skypeid scp csi iat exp acsScope resourceId gen
//
// The service's own SDKs read exp and acsScope, the latter separated by commas. One
// of them reads base64url with the alphabet of base64; payloads hold nothing whose
// encoding differs in the two. All but iss and gen, the number above, is what the
// service puts into its own; it promises none of it to anybody.
//
// A refusal is an *engine.Error of engine.CodeUnauthenticated with one of the rules
//
//	user.length user.malformed user.alg user.typ user.kid user.signature
//	user.issuer user.claims user.expired user.deleted user.revoked
//
// or of engine.CodeForbidden with user.hub, or of engine.CodeUnavailable with
// user.store where the store cannot be asked.
//
// # Keys
//
// [Users.Use] changes them. The first key signs, all are accepted and published, and
// what a key that is left out has signed counts no more. To turn to another key
// without ending tokens, add it behind the present one, put it first when readers
// have had 5 minutes to see it, and leave the old one out after a day, when its last
// token has expired: [Keys] does that. To end all tokens, leave it out at once, which is
// what the regeneration of the access key does that it is derived from or bound to.
//
// The store has 16 places for the keys of [Keys], one record each. The next key goes
// into the place behind the newest, if that is still free: so several nodes agree, and
// whatever point a process is killed at, a key is there entirely or not at all. Private
// halves are in the store as they are; who can read it can sign.
package identity
