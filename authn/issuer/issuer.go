// Package issuer makes a service its own OpenID issuer: it signs the tokens with
// which the service proves itself to event handlers, and publishes the keys to
// check them by. It is for those who run outside Azure; a handler validates these
// tokens with the same middleware as those of Microsoft Entra ID, only with
// another issuer.
//
//   - [Key] signs. It is derived from a secret, or given.
//   - [Issuer] mints tokens and serves discovery.
//
// # What a handler checks
//
// It finds the keys by the issuer's URL (OpenID Connect Discovery 1.0), and checks
// iss, aud, which is the resource that it asks for in its settings, nbf and exp,
// and sub, azp or appid if the issuer has more than one subject. Tokens have the
// shape of those that Entra calls version 2.0, for an application:
//
//	iss sub aud exp nbf iat jti azp appid idtyp:"app" ver:"2.0"
//
// They are signed by ES256, or by RS256 with an RSA key.
//
// # Rotation
//
// [Issuer.Use] changes the keys. A new key is published at once, and signs only
// when those who have cached the keys have had time to see it; until then the one
// before it goes on. That one stays published until the last token that it signed
// has expired.
package issuer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/internal/signing"
)

// Bounds of an [Issuer].
const (
	maxKeys      = 16 // published at a time, and one more while it signs
	maxResources = 256
	maxResource  = 1024

	// skew is how far the clocks of those who check may be off.
	skew = 5 * time.Minute
)

// Options are the knobs of an [Issuer]. Nil and zero mean the defaults.
type Options struct {
	// Subject is who the tokens are for: sub, azp and appid. Default "fanfare".
	Subject string
	// Lifetime is that of a token. Default 1 h.
	Lifetime time.Duration
	// Lead is how long a new key is published before it signs. Default 10 min,
	// which is twice as long as readers may cache.
	Lead time.Duration
}

// Issuer mints service tokens. It is safe for concurrent use.
type Issuer struct {
	// Fixed at birth.
	url     string
	subject string
	life    time.Duration
	lead    time.Duration

	mu     sync.Mutex // guards the rest
	keys   []*published
	signer *published
	tokens map[string]minted // by resource
	count  int64
}

// published is a key that readers see.
type published struct {
	key    Key
	ripe   time.Time // when it may sign
	wanted int       // its place among those in use; -1 for one that is on its way out
	until  time.Time // when the last token that it signed expires
}

// minted is a token that is still good.
type minted struct {
	text  string
	renew time.Time
}

// New returns an issuer of a URL, such as https://rt.example.com, or with a path such as
// https://example.com/rt, below which the pages then are: what tokens call
// their issuer, and where [Issuer.Handler] is served. Of the keys, at least one,
// the first signs and all are published.
func New(issuerURL string, o *Options, keys ...Key) (*Issuer, error) {
	u, err := url.Parse(issuerURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("issuer: the URL of an issuer is http:// or https://, a host and perhaps a path, such as https://rt.example.com")
	}
	if o == nil {
		o = &Options{}
	}
	i := &Issuer{
		url: u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/"), subject: o.Subject, life: o.Lifetime, lead: o.Lead, tokens: map[string]minted{},
	}
	if i.subject == "" {
		i.subject = "fanfare"
	}
	if i.life <= 0 {
		i.life = time.Hour
	}
	if i.lead <= 0 {
		i.lead = 2 * signing.CacheFor
	}
	return i, i.Use(keys...)
}

// URL returns the issuer's URL, without a slash at its end.
func (i *Issuer) URL() string { return i.url }

// Use turns to other keys, at least one and at most 16: the first one signs, once
// it has been published for long enough, and all are published.
func (i *Issuer) Use(keys ...Key) error {
	if len(keys) == 0 || len(keys) > maxKeys {
		return fmt.Errorf("issuer: %d keys were given; 1 to %d would pass", len(keys), maxKeys)
	}
	for _, k := range keys {
		if k.signing.IsZero() {
			return errors.New("issuer: a key is the zero Key")
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	for _, p := range i.keys {
		p.wanted = -1
	}
	for place, k := range keys {
		at := slices.IndexFunc(i.keys, func(p *published) bool { return p.key.ID() == k.ID() })
		if at < 0 {
			p := &published{key: k, ripe: now}
			if i.signer != nil {
				p.ripe = now.Add(i.lead)
			}
			i.keys = append(i.keys, p)
			at = len(i.keys) - 1
		} else if i.keys[at].wanted >= 0 {
			continue // given twice
		}
		i.keys[at].wanted = place
	}
	i.settle(now)
	return nil
}

// settle picks the key that signs now and drops those that nobody needs.
func (i *Issuer) settle(now time.Time) {
	was := i.signer
	for _, p := range i.keys {
		if p.wanted == 0 && (i.signer == nil || !now.Before(p.ripe)) {
			i.signer = p
		}
	}
	if was != i.signer {
		clear(i.tokens)
	}
	i.keys = slices.DeleteFunc(i.keys, func(p *published) bool {
		return p.wanted < 0 && p != i.signer && now.After(p.until.Add(skew))
	})
	// In use first, and of those on their way out the newest: the order in which
	// they are dropped where there are too many.
	slices.SortStableFunc(i.keys, func(a, b *published) int {
		switch {
		case a.wanted >= 0 && b.wanted >= 0:
			return a.wanted - b.wanted
		case a.wanted >= 0:
			return -1
		case b.wanted >= 0:
			return 1
		}
		return b.until.Compare(a.until)
	})
	for n := len(i.keys) - 1; n >= maxKeys; n-- {
		if p := i.keys[n]; p.wanted < 0 && p != i.signer {
			i.keys = slices.Delete(i.keys, n, n+1)
		}
	}
}

// Token returns a token for a resource, which becomes its audience. It fills
// webhook.TokenSource, and does no I/O. A token has at least 5 minutes left, or
// half of its life.
func (i *Issuer) Token(_ context.Context, resource string) (string, error) {
	resource = strings.TrimSuffix(resource, "/.default")
	if resource == "" || len(resource) > maxResource || strings.ContainsFunc(resource, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", fmt.Errorf("issuer: a resource is 1 to %d bytes of printable ASCII without blanks, such as api://my-handler", maxResource)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	i.settle(now)
	if t, ok := i.tokens[resource]; ok && now.Before(t.renew) {
		return t.text, nil
	}
	p, expires := i.signer, now.Add(i.life)
	t := jwt.NewWithClaims(p.key.method(), jwt.MapClaims{
		"iss": i.url, "aud": resource, "sub": i.subject, "azp": i.subject, "appid": i.subject,
		"iat": now.Unix(), "nbf": now.Add(-skew).Unix(), "exp": expires.Unix(),
		"jti": rand.Text(), "idtyp": "app", "ver": "2.0",
	})
	t.Header["kid"] = p.key.ID()
	text, err := t.SignedString(p.key.signing.Private())
	if err != nil {
		return "", fmt.Errorf("issuer: sign a token: %w", err)
	}
	i.count++
	p.until = expires
	if len(i.tokens) >= maxResources {
		clear(i.tokens)
	}
	i.tokens[resource] = minted{text, expires.Add(-min(5*time.Minute, i.life/2))}
	return text, nil
}

// Stats are the counters of an [Issuer].
type Stats struct {
	Keys   int64 // published now
	Minted int64 // tokens since it was made
}

// Stats returns a snapshot of the counters.
func (i *Issuer) Stats() Stats {
	i.mu.Lock()
	defer i.mu.Unlock()
	return Stats{Keys: int64(len(i.keys)), Minted: i.count}
}

// claimNames are those of every token.
var claimNames = []string{"iss", "aud", "sub", "azp", "appid", "iat", "nbf", "exp", "jti", "idtyp", "ver"}

// Handler serves the issuer's configuration and its keys, and hands all other
// requests to fallback, which may be nil for not found.
func (i *Issuer) Handler(fallback http.Handler) http.Handler {
	return signing.Discovery(i.url, claimNames, i.jwks, fallback)
}

// jwks is what readers see of the keys.
func (i *Issuer) jwks() signing.KeySet {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.settle(time.Now())
	var s signing.KeySet
	for _, p := range i.keys {
		s.Keys = append(s.Keys, p.key.signing.Public())
	}
	return s
}
