package identity

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/internal/signing"
	"github.com/fanfare/fanfare/authn/internal/strict"
	"github.com/fanfare/fanfare/engine"
)

// TokenType is the typ of user access tokens, which no other token of the service has.
const TokenType = "user-access+jwt"

// maxToken is how many bytes a token may have; ours have some 600.
const maxToken = 4 << 10

// maxKeys is how many keys there may be at a time.
const maxKeys = 16

// keyring is one state of the keys. It does not change.
type keyring struct {
	signer       signing.Key
	signerHeader string // of its tokens, encoded
	byID         map[string]signing.Key
	byHeader     map[string]signing.Key // a header that we wrote needs no reading
	published    signing.KeySet
}

// Use turns to other keys, at least one and at most 16: the first signs, and all are
// accepted and published. It takes effect at once; the package's page says how to turn
// without ending tokens.
func (u *Users) Use(keys ...Key) error {
	if len(keys) == 0 || len(keys) > maxKeys {
		return fmt.Errorf("identity: %d keys were given; 1 to %d would pass", len(keys), maxKeys)
	}
	for _, k := range keys {
		if k.signing.IsZero() {
			return errors.New("identity: a key is the zero Key")
		}
	}
	u.turn(keys)
	return nil
}

// turn is Use without its bounds. While there are no keys no token is issued.
func (u *Users) turn(keys []Key) {
	next := &keyring{byID: map[string]signing.Key{}, byHeader: map[string]signing.Key{}}
	next.published.Keys = []signing.JWK{} // not null in JSON
	for i, k := range keys {
		header := encode(nil, fmt.Appendf(nil, `{"alg":%q,"kid":%q,"typ":%q}`, k.signing.Algorithm(), k.ID(), TokenType))
		if i == 0 {
			next.signer, next.signerHeader = k.signing, string(header)
		}
		if _, twice := next.byID[k.ID()]; twice {
			continue
		}
		next.byID[k.ID()], next.byHeader[string(header)] = k.signing, k.signing
		next.published.Keys = append(next.published.Keys, k.signing.Public())
	}
	u.keys.Store(next)
}

func encode(dst, raw []byte) []byte { return base64.RawURLEncoding.AppendEncode(dst, raw) }

// mint signs a token. Nothing of it needs an escape in JSON.
func (u *Users) mint(id engine.UserID, scopes []string, now, expires time.Time, generation uint64) (string, error) {
	k, iat := u.keys.Load(), now.Unix()
	payload := fmt.Appendf(make([]byte, 0, 512),
		// scp is what the service puts into tokens for chat; SDKs do not read it.
		`{"iss":"%s","skypeid":"%s","scp":1792,"csi":"%d","iat":%d,"exp":%d,"acsScope":"%s","resourceId":"%s","gen":%d}`,
		u.issuer, strings.TrimPrefix(string(id), "8:"), iat, iat, expires.Unix(), strings.Join(scopes, ","), u.resource, generation)
	text := append(make([]byte, 0, 2*len(payload)), k.signerHeader...)
	text = encode(append(text, '.'), payload)
	signature, err := k.signer.Sign(text)
	if err != nil {
		return "", failed("sign a token", err)
	}
	return string(encode(append(text, '.'), signature)), nil
}

// Proof is what a token that counts says.
type Proof struct {
	ID      engine.UserID
	Scopes  []string
	Issued  time.Time
	Expires time.Time

	claims   map[string][]string
	standing func(context.Context) error // whether it still counts
}

// Verify proves a token: that one of the keys signed it for this purpose, that it has
// not expired, and that its user has not been deleted and its tokens not been revoked
// since. The rules are on the package's page. A token without a key id of ours and of
// another type than [TokenType] is of another kind ([authn.NotMine]).
func (u *Users) Verify(ctx context.Context, text string) (Proof, error) {
	if text == "" {
		return Proof{}, authn.NotMine(refuse("token.missing", "No access token was sent."))
	}
	if len(text) > maxToken {
		return Proof{}, authn.NotMine(refuse("user.length", "The token has %d bytes; a user access token has at most %d.", len(text), maxToken))
	}
	p, n := strict.Split(text)
	if n != 3 {
		return Proof{}, authn.NotMine(malformed("it has %d parts between dots, a signed token has 3", n))
	}
	key, err := u.keys.Load().find(p.Header)
	if err != nil {
		return Proof{}, err
	}
	signature, ok := strict.Decode(nil, p.Signature)
	if !ok {
		return Proof{}, malformed("its signature is not base64url")
	}
	if !key.Verify([]byte(p.Signed), signature) {
		return Proof{}, refuse("user.signature", "The key that the token names did not sign it.")
	}
	c, err := readClaims(p.Payload)
	if err != nil {
		return Proof{}, err
	}
	proof, err := u.check(ctx, c, key.ID(), time.Now())
	if err == nil {
		u.accepted.Add(1)
	}
	return proof, err
}

// find returns the key that the header of a token names.
func (k *keyring) find(header string) (signing.Key, error) {
	if key, ok := k.byHeader[header]; ok {
		return key, nil
	}
	h, err := readMembers(header, "header")
	if err != nil {
		return signing.Key{}, authn.NotMine(err)
	}
	typ, kid, alg := h["typ"], h["kid"], h["alg"]
	key, known := k.byID[kid.text]
	_, critical := h["crit"]
	switch ours := strings.EqualFold(typ.text, TokenType); {
	case !known && !ours:
		return signing.Key{}, authn.NotMine(refuse("user.kid", "The token is of type %s, and no key of user access tokens signed it.", excerpt(typ.text)))
	case !known:
		return signing.Key{}, unknownKey(kid.text)
	case !ours:
		return signing.Key{}, refuse("user.typ", "The token is of type %s; a user access token is of type %s.", excerpt(typ.text), TokenType)
	case alg.text != key.Algorithm():
		return signing.Key{}, refuse("user.alg", "The token is signed with %s, and its key signs with %s.", excerpt(alg.text), key.Algorithm())
	case critical:
		return signing.Key{}, malformed("it asks for extensions (crit), and none is known here")
	}
	return key, nil
}

func unknownKey(id string) error {
	return refuse("user.kid", "The key that the token names, %s, signs user access tokens no more, or never did: ask for a new token.", excerpt(id))
}

// member is the value of a member of a JSON object: a string's content, or the JSON
// of anything else.
type member struct {
	text string
	kind strict.Kind
}

// readMembers reads one part of a token.
func readMembers(part, what string) (map[string]member, *engine.Error) {
	var room [1024]byte // enough for ours
	raw, ok := strict.Decode(room[:0], part)
	sc, valid := strict.NewScanner(raw)
	if !ok || !valid {
		return nil, malformed("its %s is not base64url of UTF-8", what)
	}
	members := make(map[string]member, 10)
	for name, ok := sc.Next(); ok; name, ok = sc.Next() {
		text, kind, ok := sc.Value(1)
		if _, twice := members[name]; twice {
			ok = sc.Fail("a member comes twice")
		}
		if !ok {
			break
		}
		members[name] = member{text, kind}
	}
	if sc.Err != "" {
		return nil, malformed("of its %s, %s", what, sc.Err)
	}
	return members, nil
}

// claims are those that mean something here.
type claims struct {
	issuer, skypeID, scopes string
	issued, expires         int64
	generation              uint64
	all                     map[string]member
}

func readClaims(part string) (c claims, _ error) {
	all, refused := readMembers(part, "payload")
	if refused != nil {
		return c, refused
	}
	c.all = all
	var err error
	str := func(name string) string {
		if m := all[name]; m.kind == strict.String {
			return m.text
		}
		err = refuse("user.claims", "The token has no claim %s that is a string.", name)
		return ""
	}
	number := func(name string) uint64 {
		m := all[name]
		n, bad := strconv.ParseUint(m.text, 10, 62)
		if m.kind != strict.Number || bad != nil {
			err = refuse("user.claims", "The token has no claim %s that is a whole number.", name)
		}
		return n
	}
	c.issuer, c.skypeID, c.scopes = str("iss"), str("skypeid"), str("acsScope")
	c.issued, c.expires = int64(number("iat")), int64(number("exp"))
	c.generation = number("gen")
	return c, err
}

// check returns what a token that a key has proven says if it counts here and now.
func (u *Users) check(ctx context.Context, c claims, keyID string, now time.Time) (Proof, error) {
	p := Proof{ID: engine.UserID("8:" + c.skypeID), Issued: time.Unix(c.issued, 0), Expires: time.Unix(c.expires, 0)}
	switch {
	case c.issuer != u.issuer:
		return Proof{}, refuse("user.issuer", "The token was issued by %s; here it must be %s.", excerpt(c.issuer), excerpt(u.issuer))
	case !now.Before(p.Expires): // the clock that issued it
		return Proof{}, refuse("user.expired", "The token expired at %s; ask for a new one.", p.Expires.UTC().Format(time.RFC3339))
	}
	number, err := u.number(p.ID)
	if err != nil {
		return Proof{}, refuse("user.claims", "The token is for %s, who is no user of this service.", excerpt(c.skypeID))
	}
	p.standing = func(ctx context.Context) error {
		if _, known := u.keys.Load().byID[keyID]; !known {
			return unknownKey(keyID)
		}
		return u.stands(ctx, p.ID, keyOfUser(number), c.generation)
	}
	if err := p.standing(ctx); err != nil {
		return Proof{}, err
	}
	p.Scopes = strings.Split(c.scopes, ",")
	p.claims = make(map[string][]string, len(c.all))
	values := make([]string, 0, len(c.all)) // of one piece, which BenchmarkTokenRatio asks for
	for name, m := range c.all {
		values = append(values, m.text)
		p.claims[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return p, nil
}

// stands reports whether the tokens of a user's generation still count.
func (u *Users) stands(ctx context.Context, id engine.UserID, key string, of uint64) error {
	switch r, _, err := u.find(ctx, key); {
	case errors.Is(err, ErrNotFound):
		return refuse("user.deleted", "The user of the token, %s, has been deleted.", excerpt(string(id)))
	case err != nil:
		return failed("check a token", err)
	case r.generation != of:
		e := refuse("user.revoked", "The token has been revoked; ask for a new one.")
		e.Detail = fmt.Sprintf("It is of %s, generation %d; %d counts.", id, of, r.generation)
		return e
	}
	return nil
}

func refuse(rule, format string, args ...any) *engine.Error {
	return engine.Errorf(engine.CodeUnauthenticated, rule, format, args...)
}

func malformed(format string, args ...any) *engine.Error {
	return refuse("user.malformed", "The access token is not a well-formed JSON Web Token: %s.", fmt.Sprintf(format, args...))
}

// excerpt quotes at most 200 bytes of what a stranger sent.
func excerpt(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%q... (%d bytes)", s[:200], len(s))
	}
	return strconv.Quote(s)
}
