package entra_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"testing"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/engine"
)

// BenchmarkAuthorize is what a request costs whose token holds, beside the bare
// verification of one signature.
func BenchmarkAuthorize(b *testing.B) {
	p := newProvider()
	s := entra.NewServers(newIssuer(b, p, p.inMemory()), nil, owners(b, robot))
	token := p.token("one")
	b.Run("authorize", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			principal, err := show(s, token)
			if err == nil {
				err = principal.May(engine.ActionHubSend, "chat")
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("signature", func(b *testing.B) {
		sum := sha256.Sum256([]byte(token))
		signature, err := rsa.SignPKCS1v15(nil, private("one"), crypto.SHA256, sum[:])
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := rsa.VerifyPKCS1v15(&private("one").PublicKey, crypto.SHA256, sum[:], signature); err != nil {
				b.Fatal(err)
			}
		}
	})
}
