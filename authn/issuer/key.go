package issuer

import (
	"crypto"
	"fmt"
	"log/slog"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/internal/signing"
)

// Key is a key that signs service tokens. It shows its secret to nobody. The zero
// Key is no key.
type Key struct{ signing signing.Key }

// GenerateKey makes a key at random that signs by ES256.
func GenerateKey() (Key, error) { return keyOf(signing.Generate(signing.ES256)) }

// NewKey returns a key of an *ecdsa.PrivateKey over P-256, which signs by ES256,
// or of an *rsa.PrivateKey of at least 2048 bits, which signs by RS256. Its id is
// the thumbprint of RFC 7638, so that the same key has the same id everywhere.
func NewKey(private crypto.PrivateKey) (Key, error) { return keyOf(signing.New(private)) }

// DeriveKey makes an ES256 key from a secret of at least 16 random bytes, such as
// an access key. The same secret always makes the same key, on every node and
// after every restart, and the secret cannot be found from the key.
func DeriveKey(secret []byte) (Key, error) {
	return keyOf(signing.Derive(secret, "service tokens"))
}

func keyOf(k signing.Key, err error) (Key, error) {
	if err != nil {
		return Key{}, fmt.Errorf("issuer: %w", err)
	}
	return Key{k}, nil
}

// method returns how the key signs.
func (k Key) method() jwt.SigningMethod {
	if k.signing.Algorithm() == signing.RS256 {
		return jwt.SigningMethodRS256
	}
	return jwt.SigningMethodES256
}

// ID returns the key's id.
func (k Key) ID() string { return k.signing.ID() }

// String shows the key's id alone.
func (k Key) String() string { return k.signing.String() }

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// LogValue is String, for slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
