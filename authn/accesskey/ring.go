package accesskey

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// Ring holds the primary and the secondary access key, either of which may be
// missing. It is safe for concurrent use, and a change takes effect at once: what
// a replaced key signed opens nothing any more. Connections already open stay.
type Ring struct {
	mu   sync.Mutex // held while changing; readers take a snapshot without it
	keys atomic.Pointer[pair]
}

// pair is one state of a ring. It does not change.
type pair struct {
	primary, secondary Key
	closed             bool
	verify             []*token.Key // the primary's first
	issuer             []token.IssuerKey
	signing            []signingKey // those whose text is base64
}

var _ token.Keys = (*Ring)(nil)

// NewRing returns a ring of one or two keys; the zero Key stands for none.
func NewRing(primary, secondary Key) *Ring {
	r := new(Ring)
	r.Set(primary, secondary)
	return r
}

// Set replaces both keys.
func (r *Ring) Set(primary, secondary Key) {
	r.change(func(p *pair) { p.primary, p.secondary = primary, secondary })
}

// RegeneratePrimary replaces the primary key by a fresh one and returns it.
func (r *Ring) RegeneratePrimary() Key {
	k := Generate()
	r.change(func(p *pair) { p.primary = k })
	return k
}

// RegenerateSecondary replaces the secondary key by a fresh one and returns it.
func (r *Ring) RegenerateSecondary() Key {
	k := Generate()
	r.change(func(p *pair) { p.secondary = k })
	return k
}

// SetLocalAuth opens or closes the ring. A closed ring proves nobody, whoever
// has the keys, and signs nothing: what Azure calls disableLocalAuth. It keeps
// its keys, and its issuer keys stay in use, since those are not handed out.
func (r *Ring) SetLocalAuth(enabled bool) {
	r.change(func(p *pair) { p.closed = !enabled })
}

// LocalAuth reports whether the ring proves anybody: it is open and has a key.
func (r *Ring) LocalAuth() bool { return r.keys.Load().open() }

func (p *pair) open() bool { return !p.closed && len(p.verify) > 0 }

// Primary returns the primary key; the zero Key if there is none.
func (r *Ring) Primary() Key { return r.keys.Load().primary }

// Secondary returns the secondary key; the zero Key if there is none.
func (r *Ring) Secondary() Key { return r.keys.Load().secondary }

func (r *Ring) change(f func(*pair)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var next pair
	if old := r.keys.Load(); old != nil {
		next = *old
	}
	f(&next)
	next.verify, next.issuer, next.signing = nil, nil, nil
	for i, k := range []Key{next.primary, next.secondary} {
		if k.IsZero() {
			continue
		}
		next.verify = append(next.verify, token.NewKey([]byte(k.text)))
		next.issuer = append(next.issuer, issuerKey(k))
		if secret, err := base64.StdEncoding.DecodeString(k.text); err == nil && len(secret) > 0 {
			next.signing = append(next.signing, signingKey{[...]string{"primary", "secondary"}[i], secret})
		}
	}
	r.keys.Store(&next)
}

// issuerKey derives the key that signs generated client tokens from an access key.
func issuerKey(k Key) token.IssuerKey {
	secret, err := hkdf.Key(sha256.New, []byte(k.text), nil, "fanfare: secret of generated client tokens", 32)
	if err != nil {
		panic(fmt.Sprintf("accesskey: derive: %v", err)) // a length that the compiler could check
	}
	issuer, err := token.NewIssuerKey(secret)
	if err != nil {
		panic(fmt.Sprintf("accesskey: derive: %v", err)) // likewise
	}
	return issuer
}

// Keys implements token.Keys: the keys that verify tokens, none while the ring is
// closed. Tokens of access keys bear no key id, and if one does it says nothing.
func (r *Ring) Keys(string) []*token.Key {
	if p := r.keys.Load(); !p.closed {
		return p.verify
	}
	return nil
}

// name says which key k is, for logs.
func (r *Ring) name(k *token.Key) string {
	p := r.keys.Load()
	switch i := slices.Index(p.verify, k); {
	case i < 0:
		return "a key since replaced"
	case i == 1 || p.primary.IsZero():
		return "secondary"
	}
	return "primary"
}

// IssuerKeys returns keys derived from the access keys, for a token.Issuer of a
// node that stores none: each node with the same access keys accepts the others'
// tokens, and none survives the regeneration of the access key it stems from.
// The caller must not change the slice.
func (r *Ring) IssuerKeys() []token.IssuerKey { return r.keys.Load().issuer }

// Signature returns what an event handler finds in the ce-signature header, to
// know that an event comes from this service: a hexadecimal HMAC-SHA256 of the
// connection's id by each key, the primary's first. It is empty while the ring is
// closed (Azure Web PubSub, CloudEvents extension, "ce-signature").
func (r *Ring) Signature(connectionID string) string {
	p := r.keys.Load()
	if p.closed {
		return ""
	}
	var out []byte
	for _, k := range []Key{p.primary, p.secondary} {
		if k.IsZero() {
			continue
		}
		if len(out) > 0 {
			out = append(out, ',') // without a blank: validators split and do not trim
		}
		h := hmac.New(sha256.New, []byte(k.text))
		h.Write([]byte(connectionID))
		out = append(out, "sha256="...)
		out = hex.AppendEncode(out, h.Sum(nil))
	}
	return string(out)
}

// closed is the refusal of whoever comes with an access key's signature while
// there are no access keys.
func closed(pass string) *engine.Error {
	return &engine.Error{
		Code: engine.CodeUnauthenticated, Rule: "accesskey.disabled",
		Message: "This node accepts no access keys: " + pass,
		Detail:  "disableLocalAuth is set, or no access key is configured.",
	}
}
