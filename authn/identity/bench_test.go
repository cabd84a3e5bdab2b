package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/filestore"
	"github.com/fanfare/fanfare/authn/internal/ratio"
)

// bare is the cryptography in a token.
type bare struct {
	sign   func(sum []byte) ([]byte, error)
	proven func(sum, signature []byte) bool
}

func bareES256(b *testing.B) bare {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return bare{
		func(sum []byte) ([]byte, error) { return ecdsa.SignASN1(rand.Reader, private, sum) },
		func(sum, signature []byte) bool { return ecdsa.VerifyASN1(&private.PublicKey, sum, signature) },
	}
}

func bareRS256() bare {
	private := rsaPrivate()
	return bare{
		func(sum []byte) ([]byte, error) { return rsa.SignPKCS1v15(nil, private, crypto.SHA256, sum) },
		func(sum, signature []byte) bool {
			return rsa.VerifyPKCS1v15(&private.PublicKey, crypto.SHA256, sum, signature) == nil
		},
	}
}

// BenchmarkTokenRatio reports what issuing and checking a token cost in units of the
// bare signature and its proof, over as many bytes. Each is to be at most 1.3. The
// file has ten thousand users.
func BenchmarkTokenRatio(b *testing.B) {
	file, err := filestore.Open(filepath.Join(b.TempDir(), "users.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	crowd(b, newUsers(b, file), 10_000)
	for _, s := range []struct {
		name  string
		store identity.Store
	}{{"memory", identity.NewMemoryStore()}, {"file", file}} {
		for _, a := range []struct {
			name string
			key  identity.Key
			bare bare
		}{{"ES256", derive(b, 1), bareES256(b)}, {"RS256", byRSA(b), bareRS256()}} {
			u := newUsers(b, s.store, a.key)
			ann := create(b, u)
			text := issue(b, u, ann)
			sign := func(int) []byte {
				sum := sha256.Sum256([]byte(text))
				signature, err := a.bare.sign(sum[:])
				if err != nil {
					b.Error(err)
				}
				return signature
			}
			signature := sign(0)
			of := "/alg=" + a.name + "/store=" + s.name
			b.Run("issue"+of, func(b *testing.B) {
				ratio.Bench(b, func(int) { issue(b, u, ann) }, func(n int) { sign(n) })
			})
			b.Run("check"+of, func(b *testing.B) {
				ratio.Bench(b, func(int) { counts(b, u, text, "") }, func(int) {
					if sum := sha256.Sum256([]byte(text)); !a.bare.proven(sum[:], signature) {
						b.Error("not proven")
					}
				})
			})
		}
	}
}

// crowd makes users, many at a time so that they share commits.
func crowd(b *testing.B, u *identity.Users, n int) {
	b.Helper()
	const makers = 100
	var wg sync.WaitGroup
	for range makers {
		wg.Go(func() {
			for range n / makers {
				if _, err := u.Create(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
