package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/internal/ratio"
)

// BenchmarkTokenRatio reports what issuing and checking a token cost in units of the
// bare ES256 signature and its proof, over as many bytes. Each is to be at most 1.3.
func BenchmarkTokenRatio(b *testing.B) {
	u := newUsers(b, identity.NewMemoryStore())
	ann := create(b, u)
	text := issue(b, u, ann)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	sign := func(int) []byte {
		sum := sha256.Sum256([]byte(text))
		signature, err := ecdsa.SignASN1(rand.Reader, private, sum[:])
		if err != nil {
			b.Error(err)
		}
		return signature
	}
	signature := sign(0)
	b.Run("issue", func(b *testing.B) {
		ratio.Bench(b, func(int) { issue(b, u, ann) }, func(n int) { sign(n) })
	})
	b.Run("check", func(b *testing.B) {
		ratio.Bench(b, func(int) { counts(b, u, text, "") }, func(int) {
			sum := sha256.Sum256([]byte(text))
			if !ecdsa.VerifyASN1(&private.PublicKey, sum[:], signature) {
				b.Error("not proven")
			}
		})
	})
}
