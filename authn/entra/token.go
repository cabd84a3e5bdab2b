package entra

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fanfare/fanfare/authn/internal/strict"
	"github.com/fanfare/fanfare/engine"
)

// Bounds of a token.
const (
	// MaxToken is how many bytes a token may have. Entra ID puts at most 200
	// groups into one, which are some 8 KiB.
	MaxToken = 16 << 10
	// Skew is how far the clocks of those who sign and those who check may differ.
	Skew = 5 * time.Minute

	maxKeyID   = 256
	maxMembers = 256 // of the header or the claims; Entra ID puts some 30 into a token
)

// algorithm is the one that tokens are signed with: Entra ID's only one, and the
// one that every OpenID provider must have (OpenID Connect Discovery, section 3).
const algorithm = "RS256"

// header is what a token's header says. It has proven nothing.
type header struct {
	alg, kid, typ string
	crit          bool
}

// readHeader reads the header of a token, and returns the token's parts too.
func readHeader(text string) (h header, p strict.Parts, _ *engine.Error) {
	if len(text) > MaxToken {
		return h, p, refuse("entra.length", "The token has %d bytes, at most %d are accepted.", len(text), MaxToken)
	}
	p, n := strict.Split(text)
	if n != 3 {
		return h, p, malformed("it has %d parts between dots, a signed token has 3", n)
	}
	var room [256]byte // enough for most
	raw, ok := strict.Decode(room[:0], p.Header)
	if !ok {
		return h, p, malformed("its header is not base64url")
	}
	if err := h.read(raw); err != nil {
		return h, p, malformed("of its header, %s", err)
	}
	return h, p, nil
}

func (h *header) read(raw []byte) error {
	var room [8]string
	r := reader{names: room[:0]}
	r.open(raw)
	for r.next() {
		switch r.name {
		case "alg":
			h.alg = r.str()
		case "kid":
			h.kid = r.str()
		case "typ":
			h.typ = r.str()
		case "crit":
			h.crit = true
			r.skip()
		default:
			r.skip()
		}
	}
	return r.end()
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

// claims are those that mean something here.
type claims struct {
	issuer, subject string
	audience        []string
	expires, begins time.Time // zero if the token does not say

	version, tenant  string   // ver, tid
	object           string   // oid
	application      string   // appid, azp or client_id
	kind, delegation string   // idtyp, scp
	groups, roles    []string // as they came
	overage          bool     // there are groups, and the token does not name them

	room [32]string // for the lists of most tokens, to save allocations
}

// app reports whether the token stands for an application and not for a user who
// came through one: idtyp says so, and where it is missing, the lack of scp does.
func (c *claims) app() bool {
	return c.kind == "app" || c.kind == "" && c.delegation == ""
}

// user reports whether the token stands for a user. One of a kind that nobody
// knows here stands for neither.
func (c *claims) user() bool {
	return c.kind == "user" || c.kind == "" && c.delegation != ""
}

// whose says, for the log, whom proven claims are about.
func (c *claims) whose() string {
	kind := "the kind " + excerpt(c.kind)
	switch {
	case c.app():
		kind = "an application"
	case c.user():
		kind = "a user"
	}
	return fmt.Sprintf("The token is of %s: oid %s, application %s, tenant %s, app roles %s, groups %s.",
		kind, excerpt(c.object), excerpt(c.application), excerpt(c.tenant), excerpts(c.roles), excerpts(c.groups))
}

// scratch is room for a token's bytes while it is read. It is reused, since
// memory of its own for every token shows in BenchmarkAuthorizeRatio.
type scratch [MaxToken]byte

// readClaims reads the payload of a token strictly: a name is spelled one way,
// and comes once. A claim that is null counts as none.
func readClaims(part string, room *scratch) (*claims, *engine.Error) {
	raw, ok := strict.Decode(room[:0], part)
	if !ok {
		return nil, malformed("its parts cannot be read")
	}
	c := new(claims)
	if err := c.read(raw); err != nil {
		return nil, malformed("of its claims, %s", err)
	}
	return c, nil
}

func (c *claims) read(raw []byte) error {
	if string(bytes.Trim(raw, " \t\r\n")) == "null" {
		return nil // claims that are null count as none, too
	}
	var room [32]string
	r := reader{names: room[:0], values: c.room[:0]}
	r.open(raw)
	for r.next() {
		switch r.name {
		case "iss":
			c.issuer = r.str()
		case "sub":
			c.subject = r.str()
		case "aud":
			c.audience = r.strs()
		case "exp":
			c.expires = r.date()
		case "nbf":
			c.begins = r.date()
		case "ver":
			c.version = r.str()
		case "tid":
			c.tenant = r.str()
		case "oid":
			c.object = r.str()
		case "appid", "azp", "client_id":
			id := r.str()
			if c.application != "" && id != "" && id != c.application {
				r.fail("its members appid, azp and client_id name different applications")
			}
			if id != "" {
				c.application = id
			}
		case "idtyp":
			c.kind = r.str()
		case "scp":
			c.delegation = r.str()
		case "groups":
			c.groups = r.strs()
		case "roles":
			c.roles = r.strs()
		case "_claim_names":
			c.overage = r.has("groups") || c.overage
		case "hasgroups":
			c.overage = r.yes() || c.overage
		default:
			r.skip()
		}
	}
	if c.overage {
		c.groups = nil
	}
	return r.end()
}

// reader reads the members of a JSON object in one pass: next comes to a member,
// and one of the methods below it reads its value. A member that is null counts
// as none. It stops at what is wrong first.
type reader struct {
	sc     strict.Scanner
	name   string   // of the present member
	names  []string // of those so far; few enough to look through one by one
	values []string // of all lists, one after the other
	err    error    // what is wrong with a text that is JSON so far
}

func (r *reader) open(text []byte) {
	sc, ok := strict.NewScanner(text)
	if !ok {
		sc.Fail("it is not UTF-8")
	}
	if k, some := sc.Peek(); some && k != strict.Object {
		r.fail("it is not an object")
	}
	r.sc = sc
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = errors.New(what)
	}
}

// next reports false at the end, and where something is wrong.
func (r *reader) next() (ok bool) {
	if r.err != nil {
		return false
	}
	r.name, ok = r.sc.Next()
	switch {
	case !ok:
		return false
	case slices.Contains(r.names, r.name):
		r.fail("the member " + excerpt(r.name) + " comes twice")
		return false
	case len(r.names) == maxMembers:
		r.fail(fmt.Sprintf("it has more than %d members", maxMembers))
		return false
	}
	r.names = append(r.names, r.name)
	return true
}

// end returns what was wrong with the object, whose end has been reached.
func (r *reader) end() error {
	if r.sc.Err != "" {
		r.fail("it is not JSON: " + r.sc.Err)
	}
	return r.err
}

// value reads any value. One that is no JSON comes out as a null, for end to
// refuse.
func (r *reader) value() (string, strict.Kind) {
	v, k, ok := r.sc.Value(1)
	if !ok || k == strict.Null {
		return "", strict.Null
	}
	return v, k
}

func (r *reader) skip() { r.value() }

func (r *reader) str() string {
	v, k := r.value()
	if k != strict.String && k != strict.Null {
		r.fail("the member " + r.name + " is not a string")
	}
	return v
}

// yes reads a value and reports whether it is true.
func (r *reader) yes() bool {
	v, k := r.value()
	return k == strict.Bool && v == "true"
}

// strs reads a string or an array of strings. A null among them is an empty one.
func (r *reader) strs() []string {
	if k, _ := r.sc.Peek(); k != strict.Array {
		switch v, k := r.value(); k {
		case strict.Null:
		case strict.String:
			r.values = append(r.values, v)
			return r.values[len(r.values)-1:]
		default:
			r.failStrs()
		}
		return nil
	}
	from := len(r.values)
	for first := true; r.sc.Item(first); first = false {
		v, k, ok := r.sc.Value(2)
		switch {
		case !ok:
			return nil
		case k == strict.Null:
			v = ""
		case k != strict.String:
			r.failStrs()
			return nil
		}
		r.values = append(r.values, v)
	}
	return r.values[from:len(r.values):len(r.values)]
}

func (r *reader) failStrs() {
	r.fail("the member " + r.name + " is neither a string nor an array of strings")
}

// has reads an object and reports whether it has a member of that name.
func (r *reader) has(name string) (found bool) {
	v, k := r.value()
	switch k {
	case strict.Null:
		return false
	case strict.Object:
	default:
		r.fail("the member " + r.name + " is not an object")
		return false
	}
	sc, _ := strict.NewScanner([]byte(v)) // which value has found to be good
	for member, ok := sc.Next(); ok; member, ok = sc.Next() {
		found = found || member == name
		sc.Value(2)
	}
	return found
}

// lastSecond is the end of the year 9999, beyond which dates have no common form.
const lastSecond = 253402300799

// date reads a NumericDate of RFC 7519: seconds since 1970, perhaps with a
// fraction, which is dropped. It is zero if there is none.
func (r *reader) date() time.Time {
	v, k := r.value()
	if k == strict.Null {
		return time.Time{}
	}
	seconds, err := strconv.ParseFloat(v, 64)
	if k != strict.Number || err != nil || seconds < 0 || seconds > lastSecond {
		r.fail("the member " + r.name + " is not a number of seconds since 1970")
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func refuse(rule, format string, args ...any) *engine.Error {
	return engine.Errorf(engine.CodeUnauthenticated, rule, format, args...)
}

func malformed(format string, args ...any) *engine.Error {
	return refuse("entra.malformed", "The access token is not a well-formed JSON Web Token: %s.", fmt.Sprintf(format, args...))
}

// excerpt quotes at most 200 bytes of what a stranger sent.
func excerpt(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%s... (%d bytes)", strconv.Quote(s[:200]), len(s))
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
