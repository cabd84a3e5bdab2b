package sdktest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/engine"
)

// startPast returns the URL of what hands out user access tokens of a node as it would
// have issued them for an hour, nearly an hour ago: a program in another language asks
// with ?user=ID&left=DURATION. They are those of a node that keeps nothing, since the
// keys of others are their own.
func startPast(t *testing.T, n *node) string {
	t.Helper()
	key, err := identity.DeriveKey([]byte(n.Key))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, err := issuedInThePast(r.Context(), n, key, engine.UserID(r.FormValue("user")), r.FormValue("left"))
		if err != nil {
			t.Error(err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte(token))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func issuedInThePast(ctx context.Context, n *node, key identity.Key, id engine.UserID, text string) (string, error) {
	left, err := time.ParseDuration(text)
	if err != nil {
		return "", err
	}
	resource, _, _ := strings.Cut(strings.TrimPrefix(string(id), "8:acs:"), "_")
	users, err := identity.New(ctx, &newcomers{}, &identity.Options{
		Resource: resource,
		Issuer:   n.Endpoint + "/identities",
		Now:      func() time.Time { return time.Now().Add(left - identity.MinLifetime) },
	}, key)
	if err != nil {
		return "", err
	}
	if _, err := users.Create(ctx); err != nil {
		return "", err
	}
	token, _, err := users.Issue(ctx, id, []string{identity.ScopeChat}, identity.MinLifetime)
	return token, err
}

// newcomers is a store in which everybody is as the one who was created last.
type newcomers struct {
	identity.Store
	record []byte
}

func (s *newcomers) Put(_ context.Context, _ string, value []byte, _ uint64) (uint64, error) {
	s.record = value
	return 1, nil
}

func (s *newcomers) Get(context.Context, string) ([]byte, uint64, error) { return s.record, 1, nil }
