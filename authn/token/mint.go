package token

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/engine"
)

// DefaultLifetime is how long a token lives that does not say otherwise, here
// and in the service's SDKs.
const DefaultLifetime = time.Hour

// Claims are what a token to be minted says.
type Claims struct {
	// Audience is the client endpoint that the token is for; see [Audience].
	Audience string
	// User is the user; empty for a client without one.
	User engine.UserID
	// Roles are role strings, such as "webpubsub.sendToGroup.news".
	Roles []string
	// Groups are joined as the client connects.
	Groups []engine.GroupName
	// Lifetime is how long the token is valid from now on, in whole seconds.
	// 0 means [DefaultLifetime].
	Lifetime time.Duration
	// Issuer and KeyID say who signed it; empty for a token that an access key
	// signs.
	Issuer, KeyID string
	// Custom are claims for the connect handler. The names above are taken.
	Custom map[string][]string
}

// Audience returns what a token for a hub of the service at endpoint (a URL, in
// http or https, perhaps with a path) must be for.
func Audience(endpoint string, hub engine.HubName) string {
	return strings.TrimSuffix(endpoint, "/") + "/client/hubs/" + url.PathEscape(string(hub))
}

// Mint signs a token with k. An error is an *engine.Error of engine.CodeInvalid:
// the claims ask for a token that [Verify] would refuse.
func Mint(k *Key, c Claims) (string, error) {
	if c.Audience == "" {
		return "", engine.Errorf(engine.CodeInvalid, "mint.audience", "A token must be for some client endpoint.")
	}
	if c.Lifetime == 0 {
		c.Lifetime = DefaultLifetime
	}
	now := time.Now()
	exp := now.Unix() + int64(c.Lifetime/time.Second)
	if c.Lifetime < time.Second || exp > lastSecond {
		return "", engine.Errorf(engine.CodeInvalid, "mint.lifetime", "A token cannot live for %s: at least one second, at most up to the year 9999.", c.Lifetime)
	}
	m := jwt.MapClaims{claimAudience: c.Audience, claimExpires: exp, claimIssuedAt: now.Unix(), claimNotBefore: now.Unix()}
	if c.User != "" {
		m[claimSubject] = string(c.User)
	}
	if len(c.Roles) > 0 {
		m[claimRole] = c.Roles
	}
	if len(c.Groups) > 0 {
		m[claimGroup] = c.Groups
	}
	if c.Issuer != "" {
		m[claimIssuer] = c.Issuer
	}
	for name, values := range c.Custom {
		if reserved(name) {
			return "", engine.Errorf(engine.CodeInvalid, "mint.claim", "The claim %s has a meaning of its own and cannot be a custom one.", excerpt(name))
		}
		if len(values) == 1 {
			m[name] = values[0]
		} else {
			m[name] = values
		}
	}
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, m)
	if c.KeyID != "" {
		t.Header["kid"] = c.KeyID
	}
	text, err := t.SignedString(k.secret)
	if err != nil {
		return "", fmt.Errorf("token: sign: %w", err)
	}
	if len(text) > MaxLength {
		return "", engine.Errorf(engine.CodeInvalid, "mint.length", "The token would have %d bytes, at most %d are accepted.", len(text), MaxLength)
	}
	return text, nil
}

func reserved(name string) bool {
	switch name {
	case claimAudience, claimExpires, claimNotBefore, claimIssuedAt, claimIssuer, claimSubject, claimRole, claimGroup:
		return true
	}
	return false
}
