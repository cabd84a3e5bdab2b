package identity

import (
	"crypto"
	"fmt"
	"log/slog"

	"github.com/fanfare/fanfare/authn/internal/signing"
)

// Key is a key that signs user access tokens, and nothing else. It shows its secret
// to nobody. The zero Key is no key.
type Key struct{ signing signing.Key }

// The algorithms that keys sign by.
const (
	ES256 = signing.ES256
	RS256 = signing.RS256
)

// GenerateKey makes a key at random that signs by ES256, or by RS256 with 2048 bits.
func GenerateKey(algorithm string) (Key, error) { return keyOf(signing.Generate(algorithm)) }

// NewKey returns a key of an *ecdsa.PrivateKey over P-256, which signs by ES256, or of
// an *rsa.PrivateKey of at least 2048 bits, which signs by RS256. Its id is the
// thumbprint of RFC 7638.
func NewKey(private crypto.PrivateKey) (Key, error) { return keyOf(signing.New(private)) }

// DeriveKey makes an ES256 key from a secret of at least 16 random bytes, such as an
// access key, for nodes that store none. The same secret always makes the same key,
// and another one than issuer.DeriveKey makes of it; it cannot be found from the key.
func DeriveKey(secret []byte) (Key, error) {
	return keyOf(signing.Derive(secret, "user access tokens"))
}

func keyOf(k signing.Key, err error) (Key, error) {
	if err != nil {
		return Key{}, fmt.Errorf("identity: %w", err)
	}
	return Key{k}, nil
}

// ID returns the key's id.
func (k Key) ID() string { return k.signing.ID() }

// String shows the key's id alone.
func (k Key) String() string { return k.signing.String() }

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// LogValue is String, for slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
