package token_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/internal/ratio"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// work returns a client's proof as the client door asks for it, from the token's
// text to the identity, and the bare HMAC over the same bytes.
func work(tb testing.TB) (identity, bare func(), text string) {
	text = mint(tb, token.Claims{
		Audience: endpoint, User: "user-1", Groups: []engine.GroupName{"lobby"},
		Roles: []string{"webpubsub.sendToGroup", "webpubsub.joinLeaveGroup"},
	})
	signed := []byte(text[:strings.LastIndexByte(text, '.')])
	c := engine.Credentials{Hub: "chat", Audience: endpoint, Token: text}
	var accepted token.Keys = keys{key}
	identity = func() {
		t, err := token.Verify(text, time.Now(), accepted)
		if err != nil {
			tb.Error(err)
			return
		}
		if err := t.CheckAudience(c, nil); err != nil {
			tb.Error(err)
		}
		if _, err := t.Identity(); err != nil {
			tb.Error(err)
		}
	}
	bare = func() {
		h := hmac.New(sha256.New, []byte(secret))
		h.Write(signed)
		h.Sum(nil)
	}
	return identity, bare, text
}

// BenchmarkVerifyRatio reports what proving a client costs in units of the bare
// HMAC over the same bytes. It is to be at most 3.
func BenchmarkVerifyRatio(b *testing.B) {
	identity, bare, _ := work(b)
	ratio.Bench(b, func(int) { identity() }, func(int) { bare() })
}

// BenchmarkVerify has the two by themselves, in parallel too, and golang-jwt, which reads
// no identity yet, for comparison.
func BenchmarkVerify(b *testing.B) {
	identity, bare, text := work(b)
	for _, bb := range []struct {
		name string
		f    func()
	}{
		{"case=bare-hmac", bare},
		{"case=identity", identity},
		{"case=golang-jwt", func() {
			if _, err := jwt.Parse(text, func(*jwt.Token) (any, error) { return []byte(secret), nil }); err != nil {
				b.Fatal(err)
			}
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bb.f()
			}
		})
		b.Run(bb.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					bb.f()
				}
			})
		})
	}
}
