package entra

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/engine"
)

// Bounds of a token.
const (
	// MaxToken is how many bytes a token may have. Entra ID puts at most 200
	// groups into one, which are some 8 KiB.
	MaxToken = 16 << 10
	// Skew is how far the clocks of those who sign and those who check may differ.
	Skew = 5 * time.Minute

	maxKeyID = 256
)

// algorithm is the one that tokens are signed with: Entra ID's only one, and the
// one that every OpenID provider must have (OpenID Connect Discovery, section 3).
const algorithm = "RS256"

// header is what a token's header says. It has proven nothing.
type header struct {
	alg, kid, typ string
	crit          bool
}

// readHeader reads the header of a token.
func readHeader(text string) (h header, _ *engine.Error) {
	if len(text) > MaxToken {
		return h, refuse("entra.length", "The token has %d bytes, at most %d are accepted.", len(text), MaxToken)
	}
	first, rest, _ := strings.Cut(text, ".")
	if n := strings.Count(rest, "."); n != 1 {
		return h, malformed("it has %d parts between dots, a signed token has 3", strings.Count(text, ".")+1)
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(first)
	if err != nil {
		return h, malformed("its header is not base64url")
	}
	r := object(raw)
	h = header{alg: r.str("alg"), kid: r.str("kid"), typ: r.str("typ")}
	_, h.crit = r.members["crit"]
	if r.err != nil {
		return h, malformed("of its header, %s", r.err)
	}
	return h, nil
}

// check refuses a header that no token of ours has.
func (h header) check() *engine.Error {
	switch {
	case h.alg != algorithm:
		return refuse("entra.alg", "The token is signed with %s; only %s is accepted here.", excerpt(h.alg), algorithm)
	case h.typ != "" && !strings.EqualFold(h.typ, "JWT") && !strings.EqualFold(h.typ, "at+jwt"):
		return refuse("entra.typ", "The token is of type %s; only JWT and at+jwt are accepted here.", excerpt(h.typ))
	case h.crit:
		return refuse("entra.crit", "The token asks for extensions (crit), and none is known here.")
	case h.kid == "" || len(h.kid) > maxKeyID:
		return refuse("entra.kid", "The token does not name its key: expected a kid of 1 to %d bytes.", maxKeyID)
	}
	return nil
}

// claims are those that mean something here. They satisfy jwt.Claims.
type claims struct {
	issuer, subject string
	audience        jwt.ClaimStrings
	expires, begins *jwt.NumericDate

	version, tenant  string   // ver, tid
	object           string   // oid
	application      string   // appid, azp or client_id
	kind, delegation string   // idtyp, scp
	groups, roles    []string // as they came
	overage          bool     // there are groups, and the token does not name them

	unread error // why they cannot be read; nil if they can
}

var _ jwt.Claims = (*claims)(nil)

// GetExpirationTime implements jwt.Claims, as the methods below do.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.expires, nil }

// GetIssuedAt says that nobody looks at it: the clocks that made a token are
// judged by its nbf.
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error) { return nil, nil }

// GetNotBefore returns the nbf claim.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) { return c.begins, nil }

// GetIssuer returns the iss claim.
func (c *claims) GetIssuer() (string, error) { return c.issuer, nil }

// GetSubject returns the sub claim.
func (c *claims) GetSubject() (string, error) { return c.subject, nil }

// GetAudience returns the aud claim.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) { return c.audience, nil }

// app reports whether the token stands for an application and not for a user who
// came through one: idtyp says so, and where it is missing, the lack of scp does.
func (c *claims) app() bool {
	return c.kind == "app" || c.kind == "" && c.delegation == ""
}

// whose says, for the log, whom proven claims are about.
func (c *claims) whose() string {
	kind := "a user"
	if c.app() {
		kind = "an application"
	}
	return fmt.Sprintf("The token is of %s: oid %s, application %s, tenant %s, app roles %s, groups %s.",
		kind, excerpt(c.object), excerpt(c.application), excerpt(c.tenant), excerpts(c.roles), excerpts(c.groups))
}

// UnmarshalJSON reads the claims strictly: a name is spelled one way, and comes
// once. A claim that is null counts as none.
func (c *claims) UnmarshalJSON(raw []byte) error {
	r := object(raw)
	c.issuer, c.subject, c.audience = r.str("iss"), r.str("sub"), r.strs("aud")
	c.expires, c.begins = r.date("exp"), r.date("nbf")
	c.version, c.tenant, c.object = r.str("ver"), r.str("tid"), r.str("oid")
	c.kind, c.delegation = r.str("idtyp"), r.str("scp")
	c.groups, c.roles = r.strs("groups"), r.strs("roles")
	for _, name := range []string{"appid", "azp", "client_id"} {
		id := r.str(name)
		if c.application != "" && id != "" && id != c.application {
			r.fail("its members appid, azp and client_id name different applications")
		}
		if id != "" {
			c.application = id
		}
	}
	var elsewhere map[string]json.RawMessage
	if raw := r.members["_claim_names"]; raw != nil && json.Unmarshal(raw, &elsewhere) != nil {
		r.fail("the member _claim_names is not an object")
	}
	_, c.overage = elsewhere["groups"]
	if c.overage = c.overage || string(r.members["hasgroups"]) == "true"; c.overage {
		c.groups = nil
	}
	c.unread = r.err
	return r.err
}

// reader reads the members of a JSON object. A member that is null counts as
// none. It keeps what was wrong first.
type reader struct {
	members map[string]json.RawMessage
	err     error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// object reads a text that is one JSON object and nothing else, in which no
// member comes twice.
func object(raw []byte) *reader {
	r := &reader{members: make(map[string]json.RawMessage, 24)}
	if !utf8.Valid(raw) || !json.Valid(raw) {
		r.fail("it is not JSON")
		return r
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		r.fail("it is not an object")
		return r
	}
	for dec.More() {
		token, err := dec.Token()
		var value json.RawMessage
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil { // after json.Valid there is no reason for one
			r.fail("%w", err)
			return r
		}
		name, _ := token.(string)
		if _, twice := r.members[name]; twice {
			r.fail("the member %s comes twice", excerpt(name))
		}
		if string(value) == "null" {
			value = nil
		}
		r.members[name] = value
	}
	return r
}

func (r *reader) str(name string) (s string) {
	if raw := r.members[name]; raw != nil && json.Unmarshal(raw, &s) != nil {
		r.fail("the member %s is not a string", name)
	}
	return s
}

// strs reads a string or an array of strings.
func (r *reader) strs(name string) (list []string) {
	raw := r.members[name]
	var one string
	switch {
	case raw == nil:
	case json.Unmarshal(raw, &one) == nil:
		return []string{one}
	case json.Unmarshal(raw, &list) != nil:
		r.fail("the member %s is neither a string nor an array of strings", name)
	}
	return list
}

// lastSecond is the end of the year 9999, beyond which dates have no common form.
const lastSecond = 253402300799

// date reads a NumericDate of RFC 7519: seconds since 1970, perhaps with a
// fraction, which is dropped.
func (r *reader) date(name string) *jwt.NumericDate {
	raw := r.members[name]
	if raw == nil {
		return nil
	}
	seconds, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || seconds < 0 || seconds > lastSecond {
		r.fail("the member %s is not a number of seconds since 1970", name)
		return nil
	}
	return jwt.NewNumericDate(time.Unix(int64(seconds), 0))
}

func stamp(d *jwt.NumericDate) string { return d.UTC().Format(time.RFC3339) }

func refuse(rule, format string, args ...any) *engine.Error {
	return engine.Errorf(engine.CodeUnauthenticated, rule, format, args...)
}

func malformed(format string, args ...any) *engine.Error {
	return refuse("entra.malformed", "The access token is not a well-formed JSON Web Token: %s.", fmt.Sprintf(format, args...))
}

// excerpt quotes at most 200 bytes of what a stranger sent.
func excerpt(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%q... (%d bytes)", s[:200], len(s))
	}
	return strconv.Quote(s)
}

// excerpts quotes the first few of a list.
func excerpts(list []string) string {
	const most = 5
	if len(list) == 0 {
		return "none"
	}
	quoted := make([]string, 0, most)
	for _, s := range list[:min(most, len(list))] {
		quoted = append(quoted, excerpt(s))
	}
	text := strings.Join(quoted, ", ")
	if len(list) > most {
		text += fmt.Sprintf(" and %d more", len(list)-most)
	}
	return text
}
