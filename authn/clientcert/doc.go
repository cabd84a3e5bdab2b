// Package clientcert proves clients by the certificate that they showed in TLS,
// or to a proxy that is trusted: no token and no event handler is needed.
//
// A [Policy] is what one hub asks of certificates: whom it trusts (authorities,
// or single certificates by thumbprint), which have been revoked, which of a
// certificate's names becomes the user id, and what such users may do. [Clients]
// is the scheme; it asks a function for the policy of a hub each time, so
// policies can be exchanged while connections stay. A hub without a policy leaves
// certificates to its connect handler, as Azure Web PubSub does.
//
// # Its place in the chain
//
// A token decides before a certificate does: whoever shows one is judged by it
// alone, here and wherever this scheme stands. Anonymous clients come last:
//
//	authn.Clients(tokens, clientcert.NewClients(policies), authn.Anonymous{Allow: open})
//
// So in a hub with a policy a certificate that does not hold is refused, also
// where the hub admits clients that show nothing.
//
// # What passes
//
// A certificate passes if its time has begun and not ended, if it may be used by
// TLS clients (an extended key usage, if there is one, includes clientAuth), and
// if it is trusted: either its SHA-256 or SHA-1 is pinned, whoever signed it, or
// crypto/x509 builds a chain from it to one of the authorities, by way of the
// certificates that the client sent or that stand among the authorities.
//
// With revocation lists, a certificate that one of them holds is refused, a
// pinned one too. A list is bound to an authority by name and signature. Lists
// fail closed: each issuer in a chain must have one, and while a list is past its
// next update, its issuer's certificates are refused, with one error in the log.
//
// The user is the one name of the kind that the policy takes; a certificate that
// has none, or several, says not clearly enough who this is, and is refused.
//
// # Refusals
//
// They are *engine.Error of engine.CodeUnauthenticated, but for the last two, which
// are the server's own fault and of engine.CodeUnavailable. Detail holds subject,
// issuer, serial number and thumbprints, for the log. The rules are
//
//	clientcert.length       too many certificates were sent
//	clientcert.notyet       its time has not begun
//	clientcert.expired      its time has ended
//	clientcert.usage        it is for other uses than those of TLS clients
//	clientcert.pin          it is not pinned, and there are no authorities
//	clientcert.authority    no chain leads to an authority, or the chain does not hold
//	clientcert.revoked      a revocation list holds it, or one of its issuers
//	clientcert.user         it names no user, or several
//	clientcert.crl.missing  an issuer has no revocation list
//	clientcert.crl.stale    an issuer's list is past its next update
//
// # Caveats
//
// A connection outlives its certificate's end and revocation, as it outlives a
// token's. A recovery asks for the same certificate again and does not judge it
// anew.
//
// Every authority of a hub may give out every name there. Name constraints, which
// keep one to its own, bind alternative names but not common names.
//
// A thumbprint by SHA-1, which is what Azure calls the thumbprint, is safe for
// certificates that were made by those one trusts. Whoever can make two
// certificates with the same SHA-1 and have one of them pinned comes in with the
// other, under any name that it holds. Pin by SHA-256.
package clientcert
