package token_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

func newHosts(t *testing.T, hosts ...string) *authn.Hosts {
	t.Helper()
	h, err := authn.NewHosts(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func issuerKey(t *testing.T, secret string) token.IssuerKey {
	t.Helper()
	k, err := token.NewIssuerKey([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// An issuer's tokens are known by their key id, and its keys can be exchanged.
func TestIssuer(t *testing.T) {
	ctx := context.Background()
	first, second := issuerKey(t, "the first of the secrets"), issuerKey(t, "the second of the secrets")
	now := []token.IssuerKey{first}
	issuer := token.NewIssuer(func() []token.IssuerKey { return now }, nil)
	text, err := issuer.IssueClientToken(ctx, engine.Identity{
		UserID: "ann", Roles: []string{"webpubsub.sendToGroup"}, Groups: []engine.GroupName{"g"},
	}, endpoint, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}

	// The form is that of the service's own.
	var c jwt.MapClaims
	parsed, _, err := jwt.NewParser().ParseUnverified(text, &c)
	if err != nil {
		t.Fatal(err)
	}
	kid, _ := parsed.Header["kid"].(string)
	if !regexp.MustCompile(`^s-[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(kid) || kid != first.ID() {
		t.Errorf("kid %q", kid)
	}
	if c["iss"] != "https://webpubsub.azure.com" || c["exp"].(float64)-c["iat"].(float64) != 300 || c["nbf"] != c["iat"] || parsed.Header["typ"] != "JWT" {
		t.Errorf("claims %v", c)
	}

	knock := func(text string) (engine.Identity, error) {
		return issuer.Authenticate(ctx, engine.Credentials{Hub: "chat", Audience: endpoint, Token: text})
	}
	id, err := knock(text)
	if err != nil || id.UserID != "ann" || id.Scheme != "AccessToken" || len(id.Groups) != 1 || len(id.Roles) != 1 {
		t.Errorf("%+v, %v", id, err)
	}
	// A rotation: the new key signs, the old one is still accepted, then no more.
	now = []token.IssuerKey{second, first}
	if _, err := knock(text); err != nil {
		t.Errorf("the old key, while accepted: %v", err)
	}
	now = []token.IssuerKey{second}
	if _, err := knock(text); !errors.Is(err, authn.ErrNotMine) {
		t.Errorf("the old key, once gone: %v", err)
	}
	now = []token.IssuerKey{first}

	for _, tt := range []struct {
		name, text, rule string
		mine             bool
	}{
		{"no token", "", "issuer.kid", false},
		{"no key id", mint(t, token.Claims{Audience: endpoint}), "issuer.kid", false},
		{"a key id of somebody else", mint(t, token.Claims{Audience: endpoint, KeyID: "s-1"}), "issuer.kid", false},
		{"nonsense", "a.b.c", "issuer.kid", false},
		{"our key id on a token of an access key", mint(t, token.Claims{Audience: endpoint, Issuer: token.IssuerName, KeyID: first.ID()}), "token.signature", true},
		{"changed", text[:len(text)-4] + "AAAA", "token.signature", true},
	} {
		_, err := knock(tt.text)
		if err == nil || ruleOf(err) != tt.rule || errors.Is(err, authn.ErrNotMine) == tt.mine {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if _, err := issuer.Authenticate(ctx, engine.Credentials{Hub: "admin", Audience: "http://localhost:8080/client/hubs/admin", Token: text}); ruleOf(err) != "token.audience" {
		t.Errorf("another hub: %v", err)
	}

	now = nil
	if _, err := issuer.IssueClientToken(ctx, engine.Identity{}, endpoint, time.Minute); engine.CodeOf(err) != engine.CodeUnavailable {
		t.Errorf("without a key: %v", err)
	}
	if _, err := token.NewIssuerKey([]byte("short")); err == nil || strings.Contains(err.Error(), "\"short\"") {
		t.Errorf("a short secret: %v", err)
	}
	if issuerKey(t, "the first of the secrets").ID() != first.ID() {
		t.Error("one secret, two ids")
	}
}
