// Package token is the client access token: what it must hold, how it is minted
// and how it is read. No other room knows the names of its claims.
//
// A token is a JSON Web Token in compact form, signed with HS256:
//
//	aud              the client endpoint it is for: https://host/client/hubs/chat
//	exp              when it ends; required
//	nbf              when it begins; optional
//	sub              the user; absent or empty for a client without one
//	role             what the client may do: a string or an array of strings
//	webpubsub.group  groups it joins as it connects: a string or an array
//	anything else    handed to the connect handler
//
// The claims are those of "Azure Web PubSub, client protocols" and of what the
// service's own SDKs sign. [Verify] proves a token; [Token] then says what it
// holds. [Mint] makes one. [Issuer] mints and recognises tokens with keys of its
// own, for callers who have no access key.
//
// # What is refused
//
// Verify is strict where two readers could disagree: any algorithm but HS256,
// more or fewer than three parts, a base64 that is not the canonical one, JSON
// that is not exactly one object, a claim that comes twice, extensions marked
// critical. It is lenient where real SDKs differ: typ and iat may be missing,
// times may be fractions. Clocks may differ by [Skew]. A refusal is an
// *engine.Error of engine.CodeUnauthenticated whose Rule is one of
//
//	token.missing token.length token.malformed token.typ token.alg
//	token.signature token.exp token.expired token.nbf token.notyet
//	token.audience token.issuer token.sub token.role
//
// or of engine.CodeInvalid with the rule token.group, for a proven client that
// asks to be put into a group that cannot exist. Nothing of a token is read
// before its signature has been proven, save its header.
package token

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fanfare/fanfare/authn/internal/strict"
	"github.com/fanfare/fanfare/engine"
)

// Bounds of a token.
const (
	// MaxLength is how many bytes a token may have.
	MaxLength = 16 << 10
	// Skew is how far the clocks of those who sign and those who check may differ.
	Skew = 5 * time.Minute
)

// The claims' names.
const (
	claimAudience  = "aud"
	claimExpires   = "exp"
	claimNotBefore = "nbf"
	claimIssuedAt  = "iat"
	claimIssuer    = "iss"
	claimSubject   = "sub"
	claimRole      = "role"
	claimGroup     = "webpubsub.group"
)

// Keys are the keys that may have signed a token whose header names the key kid,
// or names none (""). It is called once a token.
type Keys interface {
	Keys(kid string) []*Key
}

// Token is a token whose signature and times have been proven. Whom it is for
// has not: that is for the caller to ask.
type Token struct {
	key *Key
	exp int64 // seconds since 1970

	aud, roles, groups []string
	iss, sub           string
	subKind            strict.Kind
	// Why the claim cannot be used; empty if it can.
	badRole, badGroup string

	claims map[string][]string
	values []string // of all claims, one after the other
	// room is for the values of most tokens, to save an allocation.
	room [12]string
}

// Key returns which of the keys signed the token.
func (t *Token) Key() *Key { return t.key }

// Audience returns what the token is for. The caller must not change it.
func (t *Token) Audience() []string { return t.aud }

// Issuer returns the iss claim; empty if there is none.
func (t *Token) Issuer() string { return t.iss }

// Identity returns the client that the token speaks of. Scheme is left to the
// caller.
func (t *Token) Identity() (engine.Identity, error) {
	id := engine.Identity{Claims: t.claims, Expires: time.Unix(t.exp, 0)}
	if t.subKind != strict.Null {
		_, err := engine.ParseUserID(t.sub)
		if t.subKind != strict.String || t.sub != "" && err != nil {
			return id, refuse("token.sub", "The token's sub claim is not a user id: expected a string of 1 to %d characters that are not all blank, without control characters.", engine.MaxUserID)
		}
	}
	if t.badRole != "" {
		return id, refuse("token.role", "The token's role claim %s: expected a string or an array of strings.", t.badRole)
	}
	bad := t.badGroup
	for _, group := range t.groups {
		if _, err := engine.ParseGroupName(group); err != nil && bad == "" {
			bad = "holds a name that no group can have"
		}
	}
	if bad != "" {
		return id, &engine.Error{
			Code: engine.CodeInvalid, Rule: "token.group", Target: "group",
			Message: fmt.Sprintf("The token's %s claim %s: expected names of 1 to %d characters that are not all blank.", claimGroup, bad, engine.MaxGroupName),
		}
	}
	// What outlives the connect event gets memory of its own, in one piece, so
	// as not to hold on to the whole token.
	// The user outlives the roles, which connections share, and has its own.
	id.UserID = engine.UserID(strings.Clone(t.sub))
	own := newPiece(t.roles, t.groups)
	if len(t.roles) > 0 {
		id.Roles = make([]string, len(t.roles))
		for i, role := range t.roles {
			id.Roles[i] = own.take(role)
		}
	}
	if len(t.groups) > 0 {
		id.Groups = make([]engine.GroupName, len(t.groups))
		for i, group := range t.groups {
			id.Groups[i] = engine.GroupName(own.take(group))
		}
	}
	return id, nil
}

// piece is the memory of several strings.
type piece string

func newPiece(lists ...[]string) piece {
	var b strings.Builder
	n := 0
	for _, list := range lists {
		for _, s := range list {
			n += len(s)
		}
	}
	b.Grow(n)
	for _, list := range lists {
		for _, s := range list {
			b.WriteString(s)
		}
	}
	return piece(b.String())
}

// take returns the next string, which must be equal to s.
func (p *piece) take(s string) string {
	own := string((*p)[:len(s)])
	*p = (*p)[len(s):]
	return own
}

// Verify reads a token and proves that one of keys signed it and that now is
// within its time, both to the rules of this package's page.
func Verify(text string, now time.Time, keys Keys) (*Token, error) {
	p, err := split(text)
	if err != nil {
		return nil, err
	}
	kid, err := readHeader(p.Header)
	if err != nil {
		return nil, err
	}
	key, err := prove(p, kid, keys)
	if err != nil {
		return nil, err
	}
	return readClaims(p.Payload, key, now)
}

// KeyID returns the key id in the header of a token that has proven nothing yet;
// empty if it has none or is no token.
func KeyID(text string) string {
	p, err := split(text)
	if err != nil {
		return ""
	}
	kid, _ := readHeader(p.Header)
	return kid
}

func split(text string) (p strict.Parts, err error) {
	switch {
	case text == "":
		return p, refuse("token.missing", "No access token was sent.")
	case len(text) > MaxLength:
		return p, refuse("token.length", "The token has %d bytes, at most %d are accepted.", len(text), MaxLength)
	}
	p, n := strict.Split(text)
	if n != 3 {
		return p, malformed("it has %d parts between dots, a signed token has 3", n)
	}
	return p, nil
}

// The header that SDKs write, which is not worth parsing each time:
// {"alg":"HS256","typ":"JWT"}.
const usualHeader = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"

// readHeader checks a token's header and returns the key id it names.
func readHeader(part string) (kid string, err error) {
	if part == usualHeader {
		return "", nil
	}
	raw, ok := strict.Decode(nil, part)
	sc, valid := strict.NewScanner(raw)
	if !ok || !valid {
		return "", malformed("its header is not base64url of UTF-8")
	}
	var alg, typ string
	var hasAlg bool
	seen := make(map[string]bool, 4)
	for name, ok := sc.Next(); ok; name, ok = sc.Next() {
		v, k, ok := sc.Value(1)
		switch {
		case !ok:
		case seen[name]:
			sc.Fail("a member comes twice")
		case name == "alg":
			alg, hasAlg = v, k == strict.String
		case (name == "typ" || name == "kid") && k != strict.String:
			sc.Fail(name + " is not a string")
		case name == "typ":
			typ = v
		case name == "kid":
			kid = v
		case name == "crit":
			sc.Fail("it asks for extensions (crit), and none is known here")
		}
		if sc.Err != "" {
			break
		}
		seen[name] = true
	}
	switch {
	case sc.Err != "":
		return "", malformed("of its header, %s", sc.Err)
	case !hasAlg || alg != "HS256":
		return "", refuse("token.alg", "The token is signed with %s; only HS256, with an access key, is accepted here.", excerpt(alg))
	case typ != "" && !strings.EqualFold(typ, "JWT"):
		return "", refuse("token.typ", "The token is of type %s; only JWT is accepted here.", excerpt(typ))
	}
	return kid, nil
}

// prove returns the key that signed p.
func prove(p strict.Parts, kid string, keys Keys) (*Key, error) {
	var buf [sha256.Size]byte
	if len(p.Signature) != strict.EncodedLen(sha256.Size) {
		return nil, signature("the signature has %d characters, HS256 has %d", len(p.Signature), strict.EncodedLen(sha256.Size))
	}
	sum, ok := strict.Decode(buf[:0], p.Signature)
	if !ok {
		return nil, malformed("its signature is not base64url")
	}
	tried := keys.Keys(kid)
	for _, k := range tried {
		if k.verify(p.Signed, sum) {
			return k, nil
		}
	}
	return nil, signature("%d keys were tried", len(tried))
}

// readClaims reads the payload of a token that key signed.
func readClaims(part string, key *Key, now time.Time) (*Token, error) {
	var stack [512]byte // enough for most
	raw, ok := strict.Decode(stack[:0], part)
	sc, valid := strict.NewScanner(raw)
	if !ok || !valid {
		return nil, malformed("its payload is not base64url of UTF-8")
	}
	t := &Token{key: key, claims: make(map[string][]string, 8)}
	t.values = t.room[:0]
	r := reader{Scanner: sc, t: t}
	for name, ok := r.Next(); ok && r.claim(name); name, ok = r.Next() {
	}
	if r.Err != "" {
		return nil, malformed("of its payload, %s", r.Err)
	}
	if err := r.checkTimes(now); err != nil {
		return nil, err
	}
	return t, nil
}

// reader reads the claims of one token.
type reader struct {
	strict.Scanner
	t *Token

	exp, nbf         string // as written
	expKind, nbfKind strict.Kind
}

// claim reads the value of one claim. A claim that is null says nothing.
func (r *reader) claim(name string) bool {
	k, ok := r.Peek()
	if !ok {
		return false
	}
	from, bad := len(r.t.values), ""
	if k == strict.Array {
		bad, ok = r.array()
	} else {
		ok = r.item(1)
		if k != strict.String && k != strict.Null {
			bad = notStrings
		}
	}
	if !ok {
		return false
	}
	values, before := r.t.values[from:len(r.t.values):len(r.t.values)], len(r.t.claims)
	if r.t.claims[name] = values; len(r.t.claims) == before {
		return r.Fail("a claim comes twice")
	}
	r.known(name, k, values, bad)
	return true
}

const notStrings = "holds something that is not a string"

// item reads one value into the token's. A null becomes the empty string, and
// what is neither is kept as JSON.
func (r *reader) item(depth int) bool {
	v, k, ok := r.Value(depth)
	if k == strict.Null {
		v = ""
	}
	r.t.values = append(r.t.values, v)
	return ok
}

// array reads an array item by item, and says what is bad about it if one is no
// string.
func (r *reader) array() (bad string, ok bool) {
	for first := true; r.Item(first); first = false {
		if k, ok := r.Peek(); !ok || !r.item(2) {
			return "", false
		} else if k != strict.String {
			bad = notStrings
		}
	}
	return bad, r.Err == ""
}

// known takes note of the claims that mean something here.
func (r *reader) known(name string, k strict.Kind, values []string, bad string) {
	t, first := r.t, ""
	if len(values) > 0 {
		first = values[0]
	}
	if k == strict.Null {
		values = nil
	}
	switch name {
	case claimAudience:
		if bad == "" {
			t.aud = values
		}
	case claimIssuer:
		if k == strict.String {
			t.iss = first
		}
	case claimExpires:
		r.exp, r.expKind = first, k
	case claimNotBefore:
		r.nbf, r.nbfKind = first, k
	case claimSubject:
		t.sub, t.subKind = first, k
	case claimRole:
		t.roles, t.badRole = values, bad
	case claimGroup:
		t.groups, t.badGroup = values, bad
	}
}

// checkTimes checks exp and nbf, with skew.
func (r *reader) checkTimes(now time.Time) error {
	exp, ok := numericDate(r.exp, r.expKind)
	if !ok {
		return &engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "token.exp",
			Message: "The token has no usable exp claim: expected seconds since 1970, as a number.",
			Detail:  "It has " + excerpt(r.exp) + ".",
		}
	}
	r.t.exp = exp
	const skew = int64(Skew / time.Second)
	if late := now.Unix() - exp; late > skew {
		return &engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "token.expired",
			Message: fmt.Sprintf("The token expired at %s; it is %s now here.", stamp(exp), stamp(now.Unix())),
			Detail:  fmt.Sprintf("Expired %d seconds ago; %d are tolerated.", late, skew),
		}
	}
	if r.nbfKind == strict.Null {
		return nil
	}
	nbf, ok := numericDate(r.nbf, r.nbfKind)
	if !ok {
		return refuse("token.nbf", "The token's nbf claim cannot be used: expected seconds since 1970, as a number.")
	}
	if early := nbf - now.Unix(); early > skew {
		return &engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "token.notyet",
			Message: fmt.Sprintf("The token is not valid before %s; it is %s now here.", stamp(nbf), stamp(now.Unix())),
			Detail:  fmt.Sprintf("Early by %d seconds; %d are tolerated.", early, skew),
		}
	}
	return nil
}

// lastSecond is the end of the year 9999, beyond which dates have no common form.
const lastSecond = 253402300799

// numericDate reads a NumericDate of RFC 7519: seconds, perhaps with a fraction,
// which is dropped.
func numericDate(s string, k strict.Kind) (int64, bool) {
	if k != strict.Number {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || f < 0 || f > lastSecond {
			return 0, false
		}
		n = int64(f)
	}
	return n, n >= 0 && n <= lastSecond
}

func stamp(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

func refuse(rule, format string, args ...any) *engine.Error {
	return engine.Errorf(engine.CodeUnauthenticated, rule, format, args...)
}

func malformed(format string, args ...any) *engine.Error {
	return &engine.Error{
		Code: engine.CodeUnauthenticated, Rule: "token.malformed",
		Message: "The access token is not a well-formed JSON Web Token: " + fmt.Sprintf(format, args...) + ".",
	}
}

func signature(format string, args ...any) *engine.Error {
	return &engine.Error{
		Code: engine.CodeUnauthenticated, Rule: "token.signature",
		Message: "None of the keys of this node signed the token; is it from a connection string of another one, or signed with a key since rotated?",
		Detail:  fmt.Sprintf(format, args...) + ".",
	}
}

// excerpt quotes at most 200 bytes of what a stranger sent.
func excerpt(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%q... (%d bytes)", s[:200], len(s))
	}
	return fmt.Sprintf("%q", s)
}
