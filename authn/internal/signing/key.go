// Package signing is the asymmetric keys that sign tokens of the service's own, and
// the pages on which readers of such tokens find the public halves.
package signing

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
)

// Key signs tokens. It shows its secret to nobody but [Key.Private]'s callers. The
// zero Key is no key.
type Key struct {
	private crypto.Signer
	public  JWK
}

// JWK is the public half as a JWKS has it (RFC 7517, RFC 7518 section 6). There
// is no member that a symmetric key, or a private half, could stand in.
type JWK struct {
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

// The algorithms.
const (
	ES256 = "ES256"
	RS256 = "RS256"
)

// minBits is the least that an RSA key has.
const minBits = 2048

// New returns a key of an *ecdsa.PrivateKey over P-256, which signs by ES256, or of
// an *rsa.PrivateKey of at least 2048 bits, which signs by RS256. Its id is the
// thumbprint of RFC 7638, so that the same key has the same id everywhere.
func New(private crypto.PrivateKey) (Key, error) {
	b64 := base64.RawURLEncoding.EncodeToString
	var k Key
	var hashed any
	switch p := private.(type) {
	case *ecdsa.PrivateKey:
		if p.Curve != elliptic.P256() {
			return Key{}, errors.New("the elliptic curve of the key is not P-256")
		}
		point, err := p.PublicKey.Bytes()
		if err != nil {
			return Key{}, err
		}
		k = Key{p, JWK{KeyType: "EC", Algorithm: ES256, Curve: "P-256", X: b64(point[1:33]), Y: b64(point[33:])}}
		// In the order of the names, which the thumbprint asks for.
		hashed = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
			Y   string `json:"y"`
		}{k.public.Curve, k.public.KeyType, k.public.X, k.public.Y}
	case *rsa.PrivateKey:
		if err := p.Validate(); err != nil {
			return Key{}, err
		}
		if bits := p.N.BitLen(); bits < minBits {
			return Key{}, fmt.Errorf("the RSA key has %d bits; at least %d would pass", bits, minBits)
		}
		k = Key{p, JWK{KeyType: "RSA", Algorithm: RS256, N: b64(p.N.Bytes()), E: b64(big.NewInt(int64(p.E)).Bytes())}}
		hashed = struct {
			E   string `json:"e"`
			Kty string `json:"kty"`
			N   string `json:"n"`
		}{k.public.E, k.public.KeyType, k.public.N}
	default:
		return Key{}, fmt.Errorf("a %T signs no tokens; an *ecdsa.PrivateKey or an *rsa.PrivateKey does", private)
	}
	text, err := json.Marshal(hashed)
	if err != nil {
		return Key{}, err
	}
	sum := sha256.Sum256(text)
	k.public.Use, k.public.ID = "sig", b64(sum[:])
	return k, nil
}

// Generate makes a key at random for an algorithm: over P-256, or of 2048 bits.
func Generate(algorithm string) (Key, error) {
	switch algorithm {
	case ES256:
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return Key{}, err
		}
		return New(private)
	case RS256:
		private, err := rsa.GenerateKey(rand.Reader, minBits)
		if err != nil {
			return Key{}, err
		}
		return New(private)
	}
	return Key{}, fmt.Errorf("keys cannot sign by %.64q; %s and %s would pass", algorithm, ES256, RS256)
}

// Derive makes an ES256 key for a purpose from a secret of at least 16 random
// bytes, such as an access key. The same secret always makes the same key for the
// same purpose, on every node and after every restart; the secret cannot be found
// from the key, nor one purpose's key from another's.
//
// The private number is drawn from HKDF until it lies in the range of the curve,
// which all but one draw in four billion does. Go's own generator promises no
// number that could be had again.
func Derive(secret []byte, purpose string) (Key, error) {
	if len(secret) < 16 {
		return Key{}, fmt.Errorf("the secret has %d bytes, at least 16 are needed", len(secret))
	}
	for draw := range 8 {
		number, err := hkdf.Key(sha256.New, secret, nil, fmt.Sprintf("fanfare: ES256 key of %s, draw %d", purpose, draw), 32)
		if err != nil {
			return Key{}, err
		}
		if private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), number); err == nil {
			return New(private)
		}
	}
	return Key{}, errors.New("eight draws gave no key") // once in 2^256 secrets
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.private == nil }

// Private returns the private half.
func (k Key) Private() crypto.Signer { return k.private }

// Public returns the public half.
func (k Key) Public() JWK { return k.public }

// Algorithm returns ES256 or RS256.
func (k Key) Algorithm() string { return k.public.Algorithm }

// ID returns the key's id.
func (k Key) ID() string { return k.public.ID }

// Sign returns the signature of a text, in the form that tokens have (RFC 7518,
// sections 3.3 and 3.4).
func (k Key) Sign(text []byte) ([]byte, error) {
	sum := sha256.Sum256(text)
	switch p := k.private.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, p, sum[:])
		if err != nil {
			return nil, err
		}
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return out, nil
	case *rsa.PrivateKey:
		return rsa.SignPKCS1v15(nil, p, crypto.SHA256, sum[:])
	}
	return nil, errors.New("the zero key signs nothing")
}

// Verify reports whether k made the signature of a text.
func (k Key) Verify(text, signature []byte) bool {
	sum := sha256.Sum256(text)
	switch p := k.private.(type) {
	case *ecdsa.PrivateKey:
		return len(signature) == 64 &&
			ecdsa.Verify(&p.PublicKey, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	case *rsa.PrivateKey:
		return rsa.VerifyPKCS1v15(&p.PublicKey, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}

// String shows the key's id alone.
func (k Key) String() string { return "key " + k.public.ID }

// GoString is String, for %#v.
func (k Key) GoString() string { return k.String() }

// LogValue is String, for slog.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
