package entra_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/authn/internal/ratio"
	"github.com/fanfare/fanfare/engine"
)

// usual are the claims beside ours that Entra ID puts into tokens.
var usual = with{
	"aio": strings.Repeat("k2RgYPhZ", 8), "rh": "1.AXQAi3fWhU." + strings.Repeat("x", 40), "uti": "Zq3S0fB1wUyXG0mJxk0AAA", "sid": stranger,
	"azpacr": "1", "xms_ftd": strings.Repeat("Vq9nB2", 8), "xms_idrel": "7 24", "xms_rd": strings.Repeat("0.42Llp", 12), "roles": []string{"Hub.Send", "Hub.Read"},
}

// tokens are those of the benchmarks by name: some 1.5 KB of an application, and
// some 2.8 KB of a user in 20 groups. There are several of each, so that none
// could be recognised.
func tokens(p *provider) map[string][]string {
	groups := []string{crew}
	for n := range 19 {
		groups = append(groups, fmt.Sprintf("dddddddd-0000-4000-8000-%012d", n))
	}
	person := with{"groups": groups, "name": "Ann Example", "preferred_username": "ann@example.com", "acct": 0, "amr": []string{"pwd", "mfa"}}
	made := make(map[string][]string)
	for n := range 16 {
		fresh := with{"uti": fmt.Sprintf("Zq3S0fB1wUyXG0mJxk%04d", n)}
		made["application"] = append(made["application"], p.token("one", usual, fresh))
		made["user"] = append(made["user"], p.token("one", usual, user, person, fresh))
	}
	return made
}

// work returns a request's proof, from the token to what its caller may do, and
// the bare RS256 over the same bytes. Both take the tokens by turns.
func work(tb testing.TB, p *provider, tokens []string) (authorize, bare func(n int)) {
	s := entra.NewServers(newIssuer(tb, p, p.inMemory()), nil, owners(tb, robot, crew))
	requests := make([]engine.ServerRequest, len(tokens))
	signatures := make([][]byte, len(tokens))
	signed := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i].Header = map[string][]string{"Authorization": {"Bearer " + token}}
		last := strings.LastIndexByte(token, '.')
		var err error
		if signatures[i], err = base64.RawURLEncoding.DecodeString(token[last+1:]); err != nil {
			tb.Fatal(err)
		}
		signed[i] = []byte(token[:last])
	}
	authorize = func(n int) {
		principal, err := s.Authorize(ctx, requests[n%len(tokens)])
		if err == nil {
			err = principal.May(engine.ActionHubSend, "chat")
		}
		if err != nil {
			tb.Error(err)
		}
	}
	key := &private("one").PublicKey
	bare = func(n int) {
		sum := sha256.Sum256(signed[n%len(tokens)])
		if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signatures[n%len(tokens)]); err != nil {
			tb.Error(err)
		}
	}
	authorize(0) // reads the keys
	return authorize, bare
}

// BenchmarkAuthorizeRatio reports what proving a server costs in units of the bare
// RS256 over the same bytes. It is to be at most 1.3.
func BenchmarkAuthorizeRatio(b *testing.B) {
	p := newProvider()
	for name, made := range tokens(p) {
		authorize, bare := work(b, p, made)
		b.Run("token="+name, func(b *testing.B) { ratio.Bench(b, authorize, bare) })
	}
}

// BenchmarkAuthorize has the two by themselves.
func BenchmarkAuthorize(b *testing.B) {
	p := newProvider()
	for name, made := range tokens(p) {
		authorize, bare := work(b, p, made)
		for _, bb := range []struct {
			name string
			f    func(n int)
		}{{"bare-rs256", bare}, {"authorize", authorize}} {
			b.Run(fmt.Sprintf("token=%s/case=%s", name, bb.name), func(b *testing.B) {
				b.ReportAllocs()
				for n := 0; b.Loop(); n++ {
					bb.f(n)
				}
			})
		}
	}
}

// TestAuthorizeAllocations pins what a proof allocates: the claims and their text,
// the header's, who the caller is, and what crypto/rsa takes for itself.
func TestAuthorizeAllocations(t *testing.T) {
	p := newProvider()
	for name, made := range tokens(p) {
		authorize, bare := work(t, p, made)
		own := testing.AllocsPerRun(100, func() { authorize(0) }) - testing.AllocsPerRun(100, func() { bare(0) })
		if own > 8 {
			t.Errorf("%s: %v allocations beside those of crypto/rsa; want at most 8", name, own)
		}
	}
}
