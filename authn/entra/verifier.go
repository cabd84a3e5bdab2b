package entra

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fanfare/fanfare/authn/internal/strict"
	"github.com/fanfare/fanfare/engine"
)

// What tokens are for, outside sovereign clouds. Entra ID puts the name of the
// called application into tokens of version 1.0 as it was asked for, and that of
// Communication Services ends in a slash; see [EitherSlash].
const (
	Audience              = "https://webpubsub.azure.com"
	AudienceCommunication = "https://communication.azure.com"
	// AudienceClients and AudienceTeams are what users ask for who exchange their tokens.
	AudienceClients = "https://communication.azure.com/clients"
	AudienceTeams   = "https://auth.msft.communication.azure.com"
)

// EitherSlash returns each audience in two forms, without a slash at its end and
// with one. Audiences are compared letter by letter, and who asks for a token of
// Communication Services gets the one or the other by how the name was spelled.
func EitherSlash(audiences ...string) []string {
	both := make([]string, 0, 2*len(audiences))
	for _, a := range audiences {
		a = strings.TrimRight(a, "/")
		both = append(both, a, a+"/")
	}
	return both
}

// verifier holds the rules that all tokens of an issuer must keep, whoever shows
// them for whatever. It is safe for concurrent use.
type verifier struct {
	issuer    *Issuer
	audiences []string
	rooms     sync.Pool // of *scratch
}

func newVerifier(issuer *Issuer, audiences []string) *verifier {
	return &verifier{
		issuer: issuer, audiences: slices.Clone(audiences),
		rooms: sync.Pool{New: func() any { return new(scratch) }},
	}
}

// verify returns the claims of a token whose header has been checked, once they
// are proven and count here and now. It may wait for the issuer's keys, within ctx.
func (v *verifier) verify(ctx context.Context, h header, parts strict.Parts) (*claims, error) {
	keys, err := v.issuer.find(ctx, h.kid)
	if err != nil {
		return nil, err
	}
	c, refused := v.prove(parts, keys.keys[h.kid])
	if refused != nil {
		return nil, refused
	}
	if refused := v.check(c, keys, time.Now()); refused != nil {
		refused.Detail += c.whose()
		return nil, refused
	}
	return c, nil
}

// prove returns the claims of a token that the key signed.
func (v *verifier) prove(p strict.Parts, key *rsa.PublicKey) (*claims, *engine.Error) {
	room := v.rooms.Get().(*scratch)
	defer v.rooms.Put(room)
	c, refused := readClaims(p.Payload, room)
	if refused != nil {
		return nil, refused
	}
	text := append(room[:0], p.Signed...)
	signature, ok := strict.Decode(text[len(text):], p.Signature)
	if !ok {
		return nil, malformed("its parts cannot be read")
	}
	sum := sha256.Sum256(text)
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature); err != nil {
		e := refuse("entra.signature", "The key that the token names did not sign it.")
		e.Err = err
		return nil, e
	}
	return c, nil
}

// check returns nil if a proven token counts here and now.
func (v *verifier) check(c *claims, keys *keySet, now time.Time) *engine.Error {
	switch {
	case c.expires.IsZero():
		return refuse("entra.exp", "The token has no exp claim: expected seconds since 1970, as a number.")
	case !now.Before(c.expires.Add(Skew)):
		e := refuse("entra.expired", "The token expired at %s.", stamp(c.expires))
		e.Detail = fmt.Sprintf("Clocks may differ by %s. ", Skew)
		return e
	case now.Before(c.begins.Add(-Skew)):
		e := refuse("entra.notyet", "The token is not valid before %s.", stamp(c.begins))
		e.Detail = fmt.Sprintf("Clocks may differ by %s. ", Skew)
		return e
	case !slices.ContainsFunc(c.audience, v.meant):
		return refuse("entra.audience", "The token is for %s; here it must be for %s.", excerpts(c.audience), strings.Join(v.audiences, " or "))
	}
	if e := v.issuer.check(c, keys); e != nil {
		return e
	}
	if c.application == "" {
		return refuse("entra.caller",
			"The token does not name the application that it was issued to (appid or azp): expected an access token; this may be an ID token.")
	}
	return nil
}

// meant reports whether a token for that audience is meant for us. One for nobody
// never is.
func (v *verifier) meant(audience string) bool {
	return audience != "" && slices.Contains(v.audiences, audience)
}
