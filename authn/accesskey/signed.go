package accesskey

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/engine"
)

// SignedOptions are the knobs of [Signed]. Nil and zero mean the defaults.
type SignedOptions struct {
	// Skew is how far a request's date may be off the clock here, either way.
	// Default 5 min.
	Skew time.Duration
	// Hosts are further hosts that a request may be signed for, beside the one that it
	// was sent to. Default: none.
	Hosts *authn.Hosts
}

// Signed proves application servers by an HMAC-SHA256 over each request: its
// method, target, date, host and the hash of its body, as Azure Communication
// Services has it. A request carries
//
//	Authorization: HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature=<base64>
//	x-ms-date: Sun, 22 Nov 2026 02:23:28 GMT
//	x-ms-content-sha256: <base64 of the body's SHA-256>
//
// and the key is the base64-decoded text of an access key. A key whose text is
// not base64 signs no requests.
//
// The first versions of the service's SDKs name date in place of x-ms-date, and sign the
// Date header; the header that is named counts, whatever the other one says.
//
// The service's SDKs have disagreed, by version, about what they sign, so a
// signature counts for any of these: a host with and without its port; the target
// as it was sent, with its path unescaped, and, over http, without its first slash.
// Nothing else is lenient. Some SDKs repeat a request with the signature of the first
// try, so the same one is taken again, within the time that its date allows.
//
// A Signed is safe for concurrent use.
type Signed struct {
	ring  *Ring
	skew  time.Duration
	hosts *authn.Hosts
}

var _ authn.Authorizer = (*Signed)(nil)

// NewSigned returns the scheme. A change of the ring's keys takes effect at once.
func NewSigned(ring *Ring, o *SignedOptions) *Signed {
	s := &Signed{ring: ring, skew: 5 * time.Minute}
	if o != nil {
		s.hosts = o.Hosts
		if o.Skew > 0 {
			s.skew = o.Skew
		}
	}
	return s
}

// Middleware hands on the requests that an access key has signed, and refuses all
// others; see [authn.Guard].
func (s *Signed) Middleware(next http.Handler) http.Handler { return authn.Guard(s, next, nil) }

// signingKey is an access key as requests are signed with it.
type signingKey struct {
	name   string // "primary" or "secondary"
	secret []byte
}

// The lists of headers that SDKs sign, in this order: of now, and of versions 1.0 in
// JavaScript and Python.
const (
	signedHeaders      = "x-ms-date;host;x-ms-content-sha256"
	signedHeadersFirst = "date;host;x-ms-content-sha256"
)

// Authorize implements authn.Authorizer. A request whose Authorization header is
// not of the scheme HMAC-SHA256 is of another kind. The rules, in the order in
// which they are looked at, are accesskey.disabled, signed.key (no access key is
// base64), signed.header, signed.date, signed.skew, signed.body and
// signed.signature. It reads the request's body before it knows the caller, within
// the door's limits; an error of that is returned as it is.
//
// Who has an access key may do everything.
func (s *Signed) Authorize(_ context.Context, r engine.ServerRequest) (engine.Principal, error) {
	text, err := signedAuthorization(r.Header["Authorization"])
	if err != nil {
		return engine.Principal{}, err
	}
	keys := s.ring.keys.Load()
	if !keys.open() {
		return engine.Principal{}, closed("use a token of Microsoft Entra ID.")
	}
	if len(keys.signing) == 0 {
		return engine.Principal{}, unproven("signed.key", "None of the access keys of this node is base64, so none can sign requests: expected a key such as Azure issues.")
	}
	list, signature, err := parseSigned(text)
	if err != nil {
		return engine.Principal{}, err
	}
	date, err := s.date(r.Header, list, time.Now())
	if err != nil {
		return engine.Principal{}, err
	}
	hash, err := bodyHash(r)
	if err != nil {
		return engine.Principal{}, err
	}
	targets, hosts := s.targets(r), s.candidates(r.Host)
	for _, k := range keys.signing {
		h := hmac.New(sha256.New, k.secret)
		for _, target := range targets {
			for _, host := range hosts {
				h.Reset()
				fmt.Fprintf(h, "%s\n%s\n%s;%s;%s", r.Method, target, date, host, hash)
				if hmac.Equal(h.Sum(nil), signature) {
					return engine.Principal{ID: k.name, Scheme: "AccessKey"}, nil
				}
			}
		}
	}
	e := unproven("signed.signature", "No access key of this node signed the request: expected the HMAC-SHA256, by the base64-decoded key, of method, line feed, path and query as sent, line feed, and date;host;content hash.")
	e.Detail = fmt.Sprintf("Seen: %s %s, date %s, host %s (further ones: %s), content hash %s. %d keys were tried.",
		excerpt(r.Method), excerpt(r.Target), excerpt(date), excerpt(r.Host), s.hosts, hash, len(keys.signing))
	return engine.Principal{}, e
}

// signedAuthorization returns what follows the scheme's word in the header.
func signedAuthorization(values []string) (string, error) {
	const scheme = "HMAC-SHA256"
	if len(values) == 0 {
		return "", authn.NotMine(unproven("signed.missing", "The request has no Authorization header: expected %s and a signature.", scheme))
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(values[0]), " ")
	if !strings.EqualFold(word, scheme) {
		return "", authn.NotMine(unproven("signed.missing", "The Authorization header is not of the scheme %s: expected that and a signature.", scheme))
	}
	if len(values) > 1 {
		return "", unproven("signed.header", "The request has %d Authorization headers: expected one.", len(values))
	}
	return strings.TrimLeft(rest, " "), nil
}

// parseSigned reads what follows the scheme's word: the list of headers, and the
// signature, which may hold what stands between names and values here, so that its name
// is searched and nothing split.
func parseSigned(text string) (list string, signature []byte, err error) {
	malformed := func(format string, args ...any) error {
		return unproven("signed.header", "The Authorization header %s: expected SignedHeaders=%s&Signature= and the base64 of an HMAC-SHA256.",
			fmt.Sprintf(format, args...), signedHeaders)
	}
	rest, ok := strings.CutPrefix(text, "SignedHeaders=")
	if !ok {
		return "", nil, malformed("does not begin with SignedHeaders")
	}
	list, encoded, ok := strings.Cut(rest, "&Signature=")
	switch {
	case !ok:
		return "", nil, malformed("has no Signature")
	case list != signedHeaders && list != signedHeadersFirst:
		return "", nil, malformed("names %s as signed", excerpt(list))
	case len(encoded) != base64.StdEncoding.EncodedLen(sha256.Size):
		return "", nil, malformed("has a signature of %d characters", len(encoded))
	}
	// A decoder skips line breaks, which the length leaves no room for.
	if signature, err = base64.StdEncoding.Strict().DecodeString(encoded); err != nil || len(signature) != sha256.Size {
		return "", nil, malformed("has a signature that is not base64")
	}
	return list, signature, nil
}

// date returns the request's date as it was signed: the header that list names. Date
// stands in for an x-ms-date that is missing.
func (s *Signed) date(header map[string][]string, list string, now time.Time) (string, error) {
	name, values := "x-ms-date", header["X-Ms-Date"]
	switch {
	case list == signedHeadersFirst:
		name, values = "Date", header["Date"]
	case len(values) == 0:
		values = header["Date"]
	}
	if len(values) != 1 {
		return "", unproven("signed.date", "The request has %d %s headers: expected one, such as %s.", len(values), name, now.UTC().Format(http.TimeFormat))
	}
	at, err := time.Parse(http.TimeFormat, values[0])
	if err != nil {
		return "", unproven("signed.date", "The date of the request is %s: expected one such as %s.", excerpt(values[0]), now.UTC().Format(http.TimeFormat))
	}
	if off := now.Sub(at); off.Abs() > s.skew {
		return "", unproven("signed.skew", "The date of the request is %s, and it is %s here: at most %s between them would pass.",
			values[0], now.UTC().Format(http.TimeFormat), s.skew)
	}
	return values[0], nil
}

// bodyHash returns the hash of the body as it was signed.
func bodyHash(r engine.ServerRequest) (string, error) {
	values := r.Header["X-Ms-Content-Sha256"]
	if len(values) != 1 {
		return "", unproven("signed.body", "The request has %d x-ms-content-sha256 headers: expected one, with the base64 of the SHA-256 of the body.", len(values))
	}
	sum, err := r.BodyHash()
	if err != nil {
		return "", err
	}
	hash := base64.StdEncoding.EncodeToString(sum)
	if subtle.ConstantTimeCompare([]byte(hash), []byte(values[0])) == 0 {
		return "", unproven("signed.body", "The body is not the one that x-ms-content-sha256 says: expected %s, got %s.", hash, excerpt(values[0]))
	}
	return hash, nil
}

// targets returns what may have been signed as a request's target.
func (s *Signed) targets(r engine.ServerRequest) []string {
	var all []string
	for _, sent := range s.hosts.Paths(path(r.Target)) {
		all = append(all, spellings(sent, r.Scheme)...)
	}
	return all
}

// spellings returns a target in the forms in which SDKs sign it.
func spellings(sent, scheme string) []string {
	all := append(make([]string, 0, 3), sent)
	// An asynchronous client of Python's signs the path without its escapes. Where
	// that would make one thing of two (a slash in a name and one between names) only
	// the other forms count, or a signature could be used for another request.
	escaped, query, asks := strings.Cut(sent, "?")
	if plain, err := url.PathUnescape(escaped); err == nil && plain != escaped && !ambiguous(escaped, plain) {
		if asks {
			plain += "?" + query
		}
		all = append(all, plain)
	}
	// Python's cuts off as many characters as https:// has, of http:// too.
	if scheme == "http" {
		all = append(all, strings.TrimPrefix(sent, "/"))
	}
	return all
}

// ambiguous reports whether a path's escapes stood for what means something else
// without them, or for what no line may hold.
func ambiguous(escaped, plain string) bool {
	return strings.Count(plain, "/") != strings.Count(escaped, "/") ||
		strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' || r == '?' || r == '#' || r == '%' || r == 0x7f })
}

// candidates returns what may have been signed as the host of a request that was
// sent to host.
func (s *Signed) candidates(host string) []string {
	var all []string
	for _, name := range append([]string{host}, s.hosts.Names()...) {
		all = append(all, name)
		u := url.URL{Host: name}
		if port := u.Port(); port != "" {
			all = append(all, strings.TrimSuffix(name, ":"+port))
		}
	}
	return all
}

func unproven(rule, format string, args ...any) *engine.Error {
	return engine.Errorf(engine.CodeUnauthenticated, rule, format, args...)
}

// excerpt quotes at most 200 bytes of what a stranger sent.
func excerpt(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%q... (%d bytes)", s[:200], len(s))
	}
	return fmt.Sprintf("%q", s)
}
