package token

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
)

// IssuerName is the iss claim of tokens that an [Issuer] mints, as in those that
// the service's generate-token operation returns.
const IssuerName = "https://webpubsub.azure.com"

// IssuerKey is a key of an [Issuer], with the id that its tokens bear.
type IssuerKey struct {
	id  string
	key *Key
}

// NewIssuerKey makes a key from a secret of at least 16 random bytes, such as a
// stored one or one derived from another secret. The same secret always makes
// the same key with the same id, so that nodes that share it accept each other's
// tokens. The secret cannot be found from the id.
func NewIssuerKey(secret []byte) (IssuerKey, error) {
	signing, err := derive(secret, "fanfare: sign generated client tokens", 32)
	if err != nil {
		return IssuerKey{}, err
	}
	id, err := derive(secret, "fanfare: id of the key of generated client tokens", 16)
	if err != nil {
		return IssuerKey{}, err
	}
	// The form of a version 8 UUID: 122 bits of the maker's choice (RFC 9562).
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	return IssuerKey{
		id:  fmt.Sprintf("s-%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]),
		key: NewKey(signing),
	}, nil
}

func derive(secret []byte, info string, n int) ([]byte, error) {
	if len(secret) < 16 {
		return nil, fmt.Errorf("token: an issuer's secret has %d bytes, at least 16 are needed", len(secret))
	}
	return hkdf.Key(sha256.New, secret, nil, info, n)
}

// ID returns the key's id.
func (k IssuerKey) ID() string { return k.id }

// Issuer mints client access tokens with keys that serve nothing else: no access
// key signs them, and they open no door to application servers. It works where
// access keys are switched off.
//
// It is also the authn.Authenticator of the tokens it minted, and knows them by
// their key id. It is safe for concurrent use.
type Issuer struct {
	keys  func() []IssuerKey
	hosts *authn.Hosts
}

var _ authn.Authenticator = (*Issuer)(nil)

// NewIssuer returns an issuer. keys returns its present keys, of which the first
// signs and all are accepted; it is called concurrently for each token, and the
// issuer does not change the slice. hosts are further hosts that tokens may be
// for; it may be nil.
func NewIssuer(keys func() []IssuerKey, hosts *authn.Hosts) *Issuer {
	return &Issuer{keys, hosts}
}

// IssueClientToken mints a token for id, of which it takes the user, roles,
// groups and claims. audience is the client endpoint that it is for. A lifetime
// of 0 means [DefaultLifetime].
func (i *Issuer) IssueClientToken(_ context.Context, id engine.Identity, audience string, lifetime time.Duration) (string, error) {
	keys := i.keys()
	if len(keys) == 0 {
		return "", engine.Errorf(engine.CodeUnavailable, "issuer.key", "This node has no key to sign client tokens with.")
	}
	return Mint(keys[0].key, Claims{
		Audience: audience, User: id.UserID, Roles: id.Roles, Groups: id.Groups, Lifetime: lifetime,
		Issuer: IssuerName, KeyID: keys[0].id, Custom: id.Claims,
	})
}

// Authenticate implements authn.Authenticator.
func (i *Issuer) Authenticate(_ context.Context, c engine.Credentials) (engine.Identity, error) {
	keys := issuerKeys(i.keys())
	if kid := KeyID(c.Token); kid == "" || len(keys.Keys(kid)) == 0 {
		return engine.Identity{}, authn.NotMine(refuse("issuer.kid", "The token does not bear the id of a key that this node issues tokens with."))
	}
	t, err := Verify(c.Token, time.Now(), keys)
	if err != nil {
		return engine.Identity{}, err
	}
	if t.Issuer() != IssuerName {
		return engine.Identity{}, refuse("token.issuer", "The token was issued by %s, and its key issues as %s only.", excerpt(t.Issuer()), IssuerName)
	}
	if err := t.CheckAudience(c, i.hosts); err != nil {
		return engine.Identity{}, err
	}
	id, err := t.Identity()
	if err != nil {
		return engine.Identity{}, err
	}
	id.Scheme = "AccessToken"
	return id, nil
}

type issuerKeys []IssuerKey

// Keys implements [Keys].
func (s issuerKeys) Keys(kid string) []*Key {
	for _, k := range s {
		if k.id == kid {
			return []*Key{k.key}
		}
	}
	return nil
}
