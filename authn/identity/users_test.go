package identity_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/issuer"
	"github.com/fanfare/fanfare/engine"
)

// A user's life: created, given tokens, which are revoked, and deleted.
func TestUsers(t *testing.T) {
	u := newUsers(t, identity.NewMemoryStore())
	ann, bo := create(t, u), create(t, u)
	if ann == bo || !strings.HasPrefix(string(ann), "8:acs:"+resource+"_") || strings.Count(string(ann), "_") != 1 || strings.Count(string(ann), ":") != 2 {
		t.Errorf("ids %s and %s", ann, bo)
	}
	first, second, bos := issue(t, u, ann), issue(t, u, ann), issue(t, u, bo)
	counts(t, u, first, "")
	counts(t, u, second, "")

	if err := u.Revoke(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	// All of it in one second, so that no clock could tell which came first.
	counts(t, u, first, "user.revoked")
	counts(t, u, second, "user.revoked")
	counts(t, u, bos, "")
	third := issue(t, u, ann)
	counts(t, u, third, "")
	if err := u.Revoke(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	counts(t, u, third, "user.revoked")

	fourth := issue(t, u, ann)
	if err := u.Delete(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	counts(t, u, fourth, "user.deleted")
	counts(t, u, first, "user.deleted")
	counts(t, u, bos, "")
	_, _, err := u.Issue(t.Context(), ann, chat, 0)
	for _, err := range []error{err, u.Revoke(t.Context(), ann), u.Delete(t.Context(), ann)} {
		if ruleOf(err) != "user.unknown" || engine.CodeOf(err) != engine.CodeNotFound {
			t.Error(err)
		}
	}
	if got, want := u.Stats(), (identity.Stats{Created: 2, Deleted: 1, Issued: 5, Accepted: 5, Revoked: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Two nodes on one store: what one acknowledges, the other knows.
func TestUsersShared(t *testing.T) {
	s := identity.NewMemoryStore()
	var nodes []*identity.Users
	for range 2 {
		u, err := identity.New(t.Context(), s, nil, derive(t, 1))
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, u)
	}
	one, two := nodes[0], nodes[1]
	if one.Resource() != two.Resource() || len(one.Resource()) != 36 {
		t.Errorf("resources %s and %s", one.Resource(), two.Resource())
	}
	ann := create(t, one)
	text := issue(t, two, ann)
	counts(t, one, text, "")
	if err := two.Revoke(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	counts(t, one, text, "user.revoked")
}

func TestIssueRefusals(t *testing.T) {
	u := newUsers(t, identity.NewMemoryStore())
	ann := create(t, u)
	for _, id := range []engine.UserID{
		"", "ann", "8:acs:", "8:acs:a_b", ann + "_x", ann[:len(ann)-1], engine.UserID(strings.ToUpper(string(ann))),
		"8:orgid:" + ann[6:], engine.UserID(strings.Replace(string(ann), "_", "-", 1)), engine.UserID(strings.Repeat("x", 1<<16)),
	} {
		_, _, err := u.Issue(t.Context(), id, chat, 0)
		if ruleOf(err) != "user.id" || engine.CodeOf(err) != engine.CodeInvalid || len(err.Error()) > 600 {
			t.Errorf("%.50s: %v", id, err)
		}
	}
	other := engine.UserID(strings.Replace(string(ann), resource, "00000000-0000-4000-8000-000000000000", 1))
	if _, _, err := u.Issue(t.Context(), other, chat, 0); ruleOf(err) != "user.unknown" {
		t.Errorf("another resource: %v", err)
	}
	for _, scopes := range [][]string{nil, {}, {"chat", "Chat"}, {""}, {"chat,voip"}} {
		if _, _, err := u.Issue(t.Context(), ann, scopes, 0); ruleOf(err) != "user.scopes" {
			t.Errorf("%q: %v", scopes, err)
		}
	}
	for _, d := range []time.Duration{59 * time.Minute, 1441 * time.Minute, -1, time.Second, 60*time.Minute + time.Second} {
		if _, _, err := u.Issue(t.Context(), ann, chat, d); ruleOf(err) != "user.lifetime" {
			t.Errorf("%s: %v", d, err)
		}
	}
}

// A token holds what the service's SDKs read, in ways that all of them can.
func TestTokenForSDKs(t *testing.T) {
	for name, key := range map[string]identity.Key{"ES256": derive(t, 1), "RS256": byRSA(t)} {
		u := newUsers(t, identity.NewMemoryStore(), key)
		server := httptest.NewServer(u.Handler())
		defer server.Close()
		keys, err := keyfunc.NewDefaultCtx(t.Context(), []string{server.URL})
		if err != nil {
			t.Fatal(err)
		}
		for _, lifetime := range []time.Duration{0, time.Hour, 90 * time.Minute, 24 * time.Hour} {
			ann := create(t, u)
			before := time.Now().Truncate(time.Second)
			token, expires, err := u.Issue(t.Context(), ann, []string{"chat", "voip", "chat"}, lifetime)
			if err != nil {
				t.Fatal(err)
			}
			want := lifetime
			if want == 0 {
				want = 1440 * time.Minute
			}
			c := jwt.MapClaims{}
			read, err := jwt.ParseWithClaims(token, c, keys.Keyfunc, jwt.WithValidMethods([]string{name}), jwt.WithIssuedAt(), jwt.WithExpirationRequired())
			if err != nil {
				t.Fatal(err)
			}
			iat, exp := int64(c["iat"].(float64)), int64(c["exp"].(float64))
			if exp-iat != int64(want/time.Second) || exp != expires.Unix() || iat < before.Unix() {
				t.Errorf("lives %d s, %s", exp-iat, expires)
			}
			if c["skypeid"] != strings.TrimPrefix(string(ann), "8:") || c["acsScope"] != "chat,voip" || c["resourceId"] != resource ||
				c["scp"] != 1792.0 || c["csi"] != strconv.FormatInt(iat, 10) {
				t.Errorf("claims %v", c)
			}
			if read.Header["typ"] != identity.TokenType || read.Header["kid"] != key.ID() || read.Header["alg"] != name {
				t.Errorf("header %v", read.Header)
			}
			// Python reads the payload with the alphabet of base64.
			payload := strings.Split(token, ".")[1]
			if raw, err := base64.StdEncoding.DecodeString(payload + strings.Repeat("=", -len(payload)&3)); err != nil || !json.Valid(raw) {
				t.Errorf("%s: %v", payload, err)
			}
		}
	}
}

// Only what was signed here, for this purpose, counts.
func TestVerifyRefusals(t *testing.T) {
	key := byRSA(t)
	u := newUsers(t, identity.NewMemoryStore(), key)
	ann := create(t, u)
	good := issue(t, u, ann)
	claims := part(t, good, 1)
	header := map[string]any{"kid": key.ID(), "typ": identity.TokenType}
	counts(t, u, forge(header, claims), "") // in another order than ours
	with := func(m map[string]any, name string, value any) map[string]any {
		m = maps.Clone(m)
		if m[name] = value; value == nil {
			delete(m, name)
		}
		return m
	}
	// The service's own issuer, which has another purpose, may even share the key.
	serviceKey, err := issuer.NewKey(rsaPrivate())
	if err != nil {
		t.Fatal(err)
	}
	service, err := issuer.New("https://rt.example.com", nil, serviceKey)
	if err != nil {
		t.Fatal(err)
	}
	serviceToken, err := service.Token(t.Context(), "api://x")
	if err != nil {
		t.Fatal(err)
	}
	other := newUsers(t, identity.NewMemoryStore(), derive(t, 7))
	strangers := issue(t, other, create(t, other))
	cut := strings.LastIndexByte(good, '.')
	hs, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims)).SignedString([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text, rule string
		mine             bool
	}{
		{"nothing", "", "token.missing", false},
		{"two parts", "a.b", "user.malformed", false},
		{"no header", "!.e30.AA", "user.malformed", false},
		{"long", strings.Repeat("x", 5000), "user.length", false},
		{"a client token", hs, "user.kid", false},
		{"another key", strangers, "user.kid", true},
		{"no signature", good[:cut+1], "user.signature", true},
		{"a signature that is none", good[:cut+1] + "!", "user.malformed", true},
		{"another payload", strings.Replace(good, ".", ".e", 1), "user.signature", true},
		{"a service token by the same key", serviceToken, "user.typ", true},
		{"no type", forge(with(header, "typ", nil), claims), "user.typ", true},
		{"critical", forge(with(header, "crit", []string{"x"}), claims), "user.malformed", true},
		{"another algorithm", reheader(t, good, `{"alg":"ES256","kid":"`+key.ID()+`","typ":"`+identity.TokenType+`"}`), "user.alg", true},
		{"no algorithm", reheader(t, good, `{"alg":"none","kid":"`+key.ID()+`","typ":"`+identity.TokenType+`"}`), "user.alg", true},
		{"another issuer", forge(header, with(claims, "iss", "urn:x")), "user.issuer", true},
		{"no issuer", forge(header, with(claims, "iss", nil)), "user.claims", true},
		{"expired", forge(header, with(claims, "exp", time.Now().Unix())), "user.expired", true},
		{"no end", forge(header, with(claims, "exp", nil)), "user.claims", true},
		{"an end in words", forge(header, with(claims, "exp", "9999999999")), "user.claims", true},
		{"no generation", forge(header, with(claims, "gen", nil)), "user.claims", true},
		{"a later generation", forge(header, with(claims, "gen", 2)), "user.revoked", true},
		{"nobody", forge(header, with(claims, "skypeid", "acs:x")), "user.claims", true},
		{"an unknown user", forge(header, with(claims, "skypeid", "acs:"+resource+"_00000005-14a2-493b-8a72-5a3a0d000081")), "user.deleted", true},
	} {
		_, err := u.Verify(t.Context(), c.text)
		if ruleOf(err) != c.rule || engine.CodeOf(err) != engine.CodeUnauthenticated || errors.Is(err, authn.ErrNotMine) == c.mine {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// reheader gives a token another header.
func reheader(t *testing.T, text, header string) string {
	t.Helper()
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + text[strings.IndexByte(text, '.'):]
}

// A token ends with the second that it says.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUsers(t, identity.NewMemoryStore())
		text := issue(t, u, create(t, u))
		time.Sleep(time.Hour - time.Second)
		counts(t, u, text, "")
		time.Sleep(time.Second)
		counts(t, u, text, "user.expired")
	})
}

// Keys turn without ending tokens, or end them at once.
func TestRotation(t *testing.T) {
	one, two := derive(t, 1), derive(t, 2)
	u := newUsers(t, identity.NewMemoryStore(), one)
	ann := create(t, u)
	use := func(keys ...identity.Key) {
		t.Helper()
		if err := u.Use(keys...); err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		u.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		var set struct{ Keys []map[string]string }
		if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil {
			t.Fatal(err)
		}
		for i, k := range set.Keys {
			if k["kid"] != keys[i].ID() || k["d"] != "" || k["k"] != "" {
				t.Errorf("published: %v", k)
			}
		}
		if len(set.Keys) != len(keys) {
			t.Errorf("%d keys are published, %d in use", len(set.Keys), len(keys))
		}
	}
	old := issue(t, u, ann)
	use(one, two)
	counts(t, u, old, "")
	if kid := part(t, issue(t, u, ann), 0)["kid"]; kid != one.ID() {
		t.Errorf("signed by %s", kid)
	}
	use(two, one)
	fresh := issue(t, u, ann)
	if kid := part(t, fresh, 0)["kid"]; kid != two.ID() {
		t.Errorf("signed by %s", kid)
	}
	counts(t, u, old, "")
	use(two)
	counts(t, u, old, "user.kid")
	counts(t, u, fresh, "")

	w := httptest.NewRecorder()
	if u.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/", nil)); w.Code != 405 {
		t.Error(w.Code)
	}
	for _, keys := range [][]identity.Key{nil, {{}}, slices.Repeat([]identity.Key{one}, 17)} {
		if err := u.Use(keys...); err == nil {
			t.Errorf("%d keys pass", len(keys))
		}
	}
	counts(t, u, fresh, "") // nothing has changed
}

// The same secret makes different keys for different purposes.
func TestDeriveKey(t *testing.T) {
	secret := []byte("0123456789abcdef")
	mine, err := identity.DeriveKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := identity.DeriveKey(secret)
	others, err := issuer.DeriveKey(secret)
	if err != nil || mine.ID() != again.ID() || mine.ID() == others.ID() {
		t.Errorf("%s, %s, %s, %v", mine, again, others, err)
	}
	if _, err := identity.DeriveKey(secret[1:]); err == nil {
		t.Error("a short secret passes")
	}
}

func TestNewRefusals(t *testing.T) {
	key := derive(t, 1)
	for _, o := range []identity.Options{
		{Resource: "x"}, {Resource: resource + "0"}, {Issuer: "a b"}, {Issuer: "ä"}, {Issuer: `a"`}, {Issuer: "a?b"}, {Issuer: strings.Repeat("x", 513)},
	} {
		if _, err := identity.New(t.Context(), identity.NewMemoryStore(), &o, key); err == nil {
			t.Errorf("%+v passes", o)
		}
	}
	if _, err := identity.New(t.Context(), identity.NewMemoryStore(), nil); err == nil {
		t.Error("no key passes")
	}
	closed := identity.NewMemoryStore()
	closed.Close()
	if _, err := identity.New(t.Context(), closed, nil, key); !errors.Is(err, identity.ErrClosed) {
		t.Error(err)
	}
	u := newUsers(t, closed)
	_, err := u.Create(t.Context())
	if ruleOf(err) != "user.store" || engine.CodeOf(err) != engine.CodeUnavailable || !errors.Is(err, identity.ErrClosed) {
		t.Error(err)
	}
}

// While tokens are issued and users revoked by many at once, a token that was issued
// before a revocation began never counts after it, and one issued after it does.
func TestConcurrentRevocation(t *testing.T) {
	u := newUsers(t, identity.NewMemoryStore())
	ann := create(t, u)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 25 {
				before, _, err := u.Issue(t.Context(), ann, chat, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if err := u.Revoke(t.Context(), ann); err != nil {
					t.Error(err)
					return
				}
				counts(t, u, before, "user.revoked")
			}
		})
	}
	wg.Wait()
	counts(t, u, issue(t, u, ann), "")
	if got := u.Stats().Revoked; got != 100 {
		t.Errorf("%d revocations of 100", got)
	}
}

// Who holds connections hears whose tokens have ended, and of nobody else.
func TestEnded(t *testing.T) {
	s := identity.NewMemoryStore()
	u, other := newUsers(t, s), newUsers(t, s)
	ann, bo := create(t, u), create(t, u)
	ended, err := u.Ended(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	create(t, u)
	named(t, u, "cy")
	if err := other.Revoke(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != ann {
		t.Errorf("%s, want %s", got, ann)
	}
	if err := other.Delete(t.Context(), bo); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got != bo {
		t.Errorf("%s, want %s", got, bo)
	}
	s.Close()
	if id, ok := <-ended; ok {
		t.Errorf("%s after the end", id)
	}
	if _, err := u.Ended(t.Context()); ruleOf(err) != "user.store" {
		t.Error(err)
	}
}
