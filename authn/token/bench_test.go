package token_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

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
			tb.Fatal(err)
		}
		if err := t.CheckAudience(c, nil); err != nil {
			tb.Fatal(err)
		}
		if _, err := t.Identity(); err != nil {
			tb.Fatal(err)
		}
	}
	bare = func() {
		h := hmac.New(sha256.New, []byte(secret))
		h.Write(signed)
		h.Sum(nil)
	}
	return identity, bare, text
}

// TestVerifyCost holds the promise that proving a client costs at most three
// times the bare HMAC. Both are measured by turns, and the fastest turn of each
// counts. A busy machine slows the two unequally for a while, so the test goes on
// for some seconds before it gives up; code that is too slow never gets there.
func TestVerifyCost(t *testing.T) {
	if raceEnabled || testing.Short() {
		t.Skip("a measurement")
	}
	identity, bare, _ := work(t)
	fastest := func(best time.Duration, f func()) time.Duration {
		start := time.Now()
		for range 100 {
			f()
		}
		if d := time.Since(start); best == 0 || d < best {
			return d
		}
		return best
	}
	var ratio float64
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		var i, b time.Duration
		for range 200 {
			i, b = fastest(i, identity), fastest(b, bare)
		}
		ratio = float64(i) / float64(b)
		t.Logf("identity %v, bare HMAC %v: %.2f times", i/100, b/100, ratio)
		if ratio <= 3 {
			return
		}
	}
	t.Errorf("proving a client costs %.2f times the bare HMAC, at most 3 is promised", ratio)
}

// BenchmarkVerify has the same two, in parallel too, and golang-jwt, which reads
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
