package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"sync"
)

// Key signs and checks tokens with HMAC-SHA256, called HS256 in RFC 7518. It is
// safe for concurrent use and shows its secret to nobody.
type Key struct {
	secret []byte
	pool   sync.Pool // of *mac: keying an HMAC costs as much as signing a token
}

// mac is one HMAC at work.
type mac struct {
	hash hash.Hash
	text []byte
	sum  [sha256.Size]byte
}

// NewKey returns a key. The secret is used as it is.
func NewKey(secret []byte) *Key {
	k := &Key{secret: append([]byte(nil), secret...)}
	k.pool.New = func() any { return &mac{hash: hmac.New(sha256.New, k.secret)} }
	return k
}

// String hides the secret from those who print a key.
func (k *Key) String() string { return "token.Key(hidden)" }

// GoString does so too.
func (k *Key) GoString() string { return k.String() }

// verify reports, in time that depends on lengths alone, whether sum is the
// signature of signed.
func (k *Key) verify(signed string, sum []byte) bool {
	m := k.pool.Get().(*mac)
	m.text = append(m.text[:0], signed...)
	m.hash.Reset()
	m.hash.Write(m.text)
	ok := subtle.ConstantTimeCompare(m.hash.Sum(m.sum[:0]), sum) == 1
	k.pool.Put(m)
	return ok
}
