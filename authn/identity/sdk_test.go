package identity_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/engine"
)

// Of all that happens within one second, revoking ends the tokens issued before it and
// none of those issued after it; nobody issues a token to a user who has been deleted.
func TestIdentity18RevokedWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // in which no time passes
		u := newUsers(t, identity.NewMemoryStore())
		ann := create(t, u)
		start := time.Now()
		var revoked []string
		for range 5 {
			before := issue(t, u, ann)
			counts(t, u, before, "")
			if err := u.Revoke(t.Context(), ann); err != nil {
				t.Fatal(err)
			}
			after := issue(t, u, ann)
			counts(t, u, after, "")
			revoked = append(revoked, before)
			for _, text := range revoked {
				counts(t, u, text, "user.revoked")
			}
			if one, two := part(t, before, 1), part(t, after, 1); one["iat"] != two["iat"] {
				t.Errorf("issued at %v and %v", one["iat"], two["iat"])
			}
			revoked = append(revoked, after)
		}
		if !time.Now().Equal(start) {
			t.Errorf("%s have passed", time.Since(start))
		}
		if err := u.Delete(t.Context(), ann); err != nil {
			t.Fatal(err)
		}
		_, _, issued := u.Issue(t.Context(), ann, chat, 0)
		_, _, until := u.IssueUntil(t.Context(), ann, chat, time.Now().Add(time.Hour))
		for _, err := range []error{issued, until, u.Revoke(t.Context(), ann), u.Delete(t.Context(), ann)} {
			if engine.CodeOf(err) != engine.CodeNotFound || ruleOf(err) != "user.unknown" {
				t.Error(err)
			}
		}
		for _, text := range revoked {
			counts(t, u, text, "user.deleted")
		}
	})
}

// Python's SDK decodes a payload with the alphabet of base64 and as ASCII, with "=="
// behind it whatever its length; it and the others read what they look for.
func TestIdentity19PayloadsForPython(t *testing.T) {
	everything := []string{identity.ScopeVoIPJoin, identity.ScopeVoIP, identity.ScopeChatJoinLimited, identity.ScopeChatJoin, identity.ScopeChat}
	for _, issuer := range []string{"", "https://rt.example.com/identities", "a", "ab", "abc", "http://[::1]:8080/identities", strings.Repeat("}|{", 170)} {
		for name, key := range map[string]identity.Key{"ES256": derive(t, 1), "RS256": byRSA(t)} {
			u, err := identity.New(t.Context(), identity.NewMemoryStore(), &identity.Options{Issuer: issuer}, key)
			if err != nil {
				t.Fatal(err)
			}
			ann := named(t, u, "ann")
			for n := range everything {
				text, expires, err := u.Issue(t.Context(), ann, everything[n:], time.Duration(60+n)*time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				counts(t, u, text, "")
				claims := pythonDecode(t, text)
				exp, ok := claims["exp"].(float64)
				if !ok || exp != math.Trunc(exp) || int64(exp) != expires.Unix() {
					t.Errorf("%s: exp %v", name, claims["exp"])
				}
				if id := "8:" + fmt.Sprint(claims["skypeid"]); id != string(ann) || strings.Count(id, "_") != 1 || strings.Count(id, ":") != 2 {
					t.Errorf("%s: skypeid %v of %s", name, claims["skypeid"], ann)
				}
				if got, want := claims["acsScope"], strings.Join(everything[n:], ","); got != want {
					t.Errorf("%s: acsScope %v; want %s", name, got, want)
				}
			}
		}
	}
	// What would encode to "-" or "_" cannot come in: an issuer is all that is not ours.
	for _, issuer := range []string{"urn:>", "urn:?", "urn:~", "urn:ä", "urn:\x7f", `urn:"`, `urn:\`} {
		if _, err := identity.New(t.Context(), identity.NewMemoryStore(), &identity.Options{Issuer: issuer}, derive(t, 1)); err == nil {
			t.Errorf("the issuer %q passes", issuer)
		}
	}
}

// pythonDecode reads a payload as base64.b64decode and ascii do.
func pythonDecode(t *testing.T, text string) map[string]any {
	t.Helper()
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	// b64decode overlooks what is behind the padding that it needs.
	payload := parts[1] + strings.Repeat("=", -len(parts[1])&3)
	raw, err := base64.StdEncoding.DecodeString(payload)
	if err != nil {
		t.Fatalf("%s: %v", payload, err)
	}
	for _, c := range raw {
		if c >= 0x80 {
			t.Errorf("%q is not ASCII", raw)
		}
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// A token ends when it was to, in whole seconds.
func TestIssueUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsers(t, identity.NewMemoryStore())
		ann := create(t, u)
		time.Sleep(300 * time.Millisecond)
		for _, ahead := range []time.Duration{time.Minute, 61*time.Second + 999*time.Millisecond, 24 * time.Hour} {
			want := time.Now().Add(ahead)
			text, expires, err := u.IssueUntil(t.Context(), ann, chat, want)
			if err != nil || !expires.Equal(want.Truncate(time.Second)) {
				t.Fatalf("%s: %s, %v", ahead, expires, err)
			}
			if exp := part(t, text, 1)["exp"]; exp != float64(expires.Unix()) {
				t.Errorf("exp %v; want %d", exp, expires.Unix())
			}
			time.Sleep(time.Until(expires) - time.Nanosecond)
			counts(t, u, text, "")
			time.Sleep(time.Nanosecond)
			counts(t, u, text, "user.expired")
		}
		for _, ahead := range []time.Duration{0, -time.Hour, time.Minute - 1, 24*time.Hour + 1, 1 << 62} {
			_, _, err := u.IssueUntil(t.Context(), ann, chat, time.Now().Add(ahead))
			if ruleOf(err) != "user.lifetime" || engine.CodeOf(err) != engine.CodeInvalid {
				t.Errorf("%s: %v", ahead, err)
			}
		}
		if _, _, err := u.IssueUntil(t.Context(), ann, chat, time.Time{}); ruleOf(err) != "user.lifetime" {
			t.Errorf("no time: %v", err)
		}
		end := time.Now().Add(time.Hour)
		if _, _, err := u.IssueUntil(t.Context(), "ann", chat, end); ruleOf(err) != "user.id" {
			t.Error(err)
		}
		if _, _, err := u.IssueUntil(t.Context(), ann, nil, end); ruleOf(err) != "user.scopes" {
			t.Error(err)
		}
	})
}

// restUsers are what the identity endpoints ask for.
type restUsers interface {
	Create(ctx context.Context) (engine.UserID, error)
	Named(ctx context.Context, name string) (engine.UserID, error)
	Issue(ctx context.Context, id engine.UserID, scopes []string, lifetime time.Duration) (token string, expires time.Time, err error)
	IssueUntil(ctx context.Context, id engine.UserID, scopes []string, expires time.Time) (token string, _ time.Time, err error)
	Revoke(ctx context.Context, id engine.UserID) error
	Delete(ctx context.Context, id engine.UserID) error
	Assignment(ctx context.Context, tenant, object string) (principalType string, clientIDs []string, err error)
	Assign(ctx context.Context, tenant, object, principalType string, clientIDs []string) (created bool, err error)
	Unassign(ctx context.Context, tenant, object string) error
}

var _ restUsers = (*identity.Users)(nil)
