package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"

	"github.com/golang-jwt/jwt/v5"
)

// Key is a key that signs service tokens. It shows its secret to nobody. The zero
// Key is no key.
type Key struct {
	private crypto.PrivateKey
	method  jwt.SigningMethod
	public  jwk
}

// jwk is the public half as a JWKS has it (RFC 7517, RFC 7518 section 6). There
// is no member that a symmetric key, or a private half, could stand in.
type jwk struct {
	KeyType   string `json:"kty"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	ID        string `json:"kid"`
	Curve     string `json:"crv,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
}

// NewKey returns a key of an *ecdsa.PrivateKey over P-256, which signs by ES256,
// or of an *rsa.PrivateKey of at least 2048 bits, which signs by RS256. Its id is
// the thumbprint of RFC 7638, so that the same key has the same id everywhere.
func NewKey(private crypto.PrivateKey) (Key, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	k := Key{private: private}
	var hashed any
	switch p := private.(type) {
	case *ecdsa.PrivateKey:
		if p.Curve != elliptic.P256() {
			return Key{}, errors.New("issuer: the elliptic curve of the key is not P-256")
		}
		point, err := p.PublicKey.Bytes()
		if err != nil {
			return Key{}, fmt.Errorf("issuer: %w", err)
		}
		k.method = jwt.SigningMethodES256
		k.public = jwk{KeyType: "EC", Curve: "P-256", X: b64(point[1:33]), Y: b64(point[33:])}
		// In the order of the names, which the thumbprint asks for.
		hashed = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
			Y   string `json:"y"`
		}{k.public.Curve, k.public.KeyType, k.public.X, k.public.Y}
	case *rsa.PrivateKey:
		if err := p.Validate(); err != nil {
			return Key{}, fmt.Errorf("issuer: %w", err)
		}
		if bits := p.N.BitLen(); bits < 2048 {
			return Key{}, fmt.Errorf("issuer: the RSA key has %d bits; at least 2048 would pass", bits)
		}
		k.method = jwt.SigningMethodRS256
		k.public = jwk{KeyType: "RSA", N: b64(p.N.Bytes()), E: b64(big.NewInt(int64(p.E)).Bytes())}
		hashed = struct {
			E   string `json:"e"`
			Kty string `json:"kty"`
			N   string `json:"n"`
		}{k.public.E, k.public.KeyType, k.public.N}
	default:
		return Key{}, fmt.Errorf("issuer: a %T signs no tokens; an *ecdsa.PrivateKey or an *rsa.PrivateKey does", private)
	}
	text, err := json.Marshal(hashed)
	if err != nil {
		return Key{}, fmt.Errorf("issuer: %w", err)
	}
	sum := sha256.Sum256(text)
	k.public.Use, k.public.Algorithm, k.public.ID = "sig", k.method.Alg(), b64(sum[:])
	return k, nil
}

// DeriveKey makes an ES256 key from a secret of at least 16 random bytes, such as
// an access key. The same secret always makes the same key, on every node and
// after every restart, and the secret cannot be found from the key.
//
// The private number is drawn from HKDF until it lies in the range of the curve,
// which all but one draw in four billion does. Go's own generator promises no
// number that could be had again.
func DeriveKey(secret []byte) (Key, error) {
	if len(secret) < 16 {
		return Key{}, fmt.Errorf("issuer: the secret has %d bytes, at least 16 are needed", len(secret))
	}
	for draw := range 8 {
		number, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("fanfare: ES256 key of service tokens, draw %d", draw), 32)
		if err != nil {
			return Key{}, fmt.Errorf("issuer: %w", err)
		}
		if private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), number); err == nil {
			return NewKey(private)
		}
	}
	return Key{}, errors.New("issuer: eight draws gave no key") // once in 2^256 secrets
}

// ID returns the key's id.
func (k Key) ID() string { return k.public.ID }

// String shows the key's id alone.
func (k Key) String() string { return "key " + k.public.ID }

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// LogValue is String, for slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
