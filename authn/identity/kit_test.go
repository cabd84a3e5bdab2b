package identity_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

var errBroken = errors.New("the disk is gone")

// frailStore is a store that knows which keys it has, and fails when it is told to.
type frailStore struct {
	*identity.MemoryStore

	mu     sync.Mutex // guards the rest
	has    map[string]bool
	fails  bool // all calls
	left   int  // how many changes succeed before the rest fails; -1 for all
	silent bool // the first that fails happens all the same
}

func newFrailStore() *frailStore {
	return &frailStore{MemoryStore: identity.NewMemoryStore(), has: map[string]bool{}, left: -1}
}

// breakAfter lets some more changes succeed before all fail, like a process that is killed
// does. The first that fails may happen all the same.
func (s *frailStore) breakAfter(changes int, silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.silent = changes, silent
}

// fail makes all calls fail, or none.
func (s *frailStore) fail(fails bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails, s.left = fails, -1
}

// keys returns the keys that there are with a prefix.
func (s *frailStore) keys(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for key := range s.has {
		if strings.HasPrefix(key, prefix) {
			list = append(list, key)
		}
	}
	slices.Sort(list)
	return list
}

// change makes a change, unless it is to fail.
func (s *frailStore) change(key string, exists bool, do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails {
		return errBroken
	}
	happens := s.left != 0 || s.silent
	broken := s.left == 0
	if s.silent = s.silent && !broken; s.left > 0 {
		s.left--
	}
	if !happens {
		return errBroken
	}
	err := do()
	switch {
	case err != nil:
	case exists:
		s.has[key] = true
	default:
		delete(s.has, key)
	}
	if broken {
		return errBroken
	}
	return err
}

func (s *frailStore) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails {
		return nil, 0, errBroken
	}
	return s.MemoryStore.Get(ctx, key)
}

func (s *frailStore) Put(ctx context.Context, key string, value []byte, revision uint64) (next uint64, err error) {
	err = s.change(key, true, func() (err error) {
		next, err = s.MemoryStore.Put(ctx, key, value, revision)
		return err
	})
	return next, err
}

func (s *frailStore) Delete(ctx context.Context, key string, revision uint64) error {
	return s.change(key, false, func() error { return s.MemoryStore.Delete(ctx, key, revision) })
}
