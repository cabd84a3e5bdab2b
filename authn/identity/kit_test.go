package identity_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/engine"
)

const resource = "1c1a3c5e-0000-4000-8000-0123456789ab"

var chat = []string{identity.ScopeChat}

func derive(tb testing.TB, n int) identity.Key {
	tb.Helper()
	k, err := identity.DeriveKey(fmt.Appendf(nil, "a secret of more than sixteen bytes, number %d", n))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

var rsaPrivate = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func byRSA(tb testing.TB) identity.Key {
	tb.Helper()
	k, err := identity.NewKey(rsaPrivate())
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func newUsers(tb testing.TB, s identity.Store, keys ...identity.Key) *identity.Users {
	tb.Helper()
	if len(keys) == 0 {
		keys = []identity.Key{derive(tb, 1)}
	}
	u, err := identity.New(tb.Context(), s, &identity.Options{Resource: resource}, keys...)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

func create(tb testing.TB, u *identity.Users) engine.UserID {
	tb.Helper()
	id, err := u.Create(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func issue(tb testing.TB, u *identity.Users, id engine.UserID, scopes ...string) string {
	tb.Helper()
	if len(scopes) == 0 {
		scopes = chat
	}
	token, _, err := u.Issue(tb.Context(), id, scopes, time.Hour)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// counts checks that a token counts, or by which rule it does not.
func counts(tb testing.TB, u *identity.Users, text, rule string) {
	tb.Helper()
	_, err := u.Verify(tb.Context(), text)
	if rule == "" && err != nil || rule != "" && ruleOf(err) != rule {
		tb.Errorf("%v; want rule %q", err, rule)
	}
}

func ruleOf(err error) string {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Rule
	}
	return fmt.Sprint(err)
}

// forge signs any claims with any header by an RSA key.
func forge(header, claims map[string]any) string {
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims(claims))
	for name, value := range header {
		t.Header[name] = value
	}
	text, err := t.SignedString(rsaPrivate())
	if err != nil {
		panic(err)
	}
	return text
}

// part reads one part of a token as other readers do.
func part(tb testing.TB, text string, n int) map[string]any {
	tb.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[n])
	if err != nil {
		tb.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		tb.Fatal(err)
	}
	return m
}
