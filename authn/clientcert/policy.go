package clientcert

import (
	"crypto/sha1" // what Azure calls a thumbprint is defined with it
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// Bounds.
const (
	// MaxChain is how many certificates a client may send.
	MaxChain = 10
	// MaxAuthorities is how many certificates [Trust] may hold as authorities.
	MaxAuthorities = 1000
)

// Name is which name of a certificate becomes the user id.
type Name string

// The names.
const (
	CommonName Name = "cn"         // of the subject
	DNSName    Name = "san:dns"    // in lower case
	URI        Name = "san:uri"    // as of SPIFFE
	Email      Name = "san:email"  // an RFC 822 name
	Thumbprint Name = "thumbprint" // the one in connect events: SHA-1 in lower-case hexadecimal
)

// Names are all there are.
var Names = []Name{CommonName, DNSName, URI, Email, Thumbprint}

// Trust is whose certificates are believed. Authorities and Thumbprints add up: a
// certificate passes by either.
type Trust struct {
	// Authorities are certificates in PEM and nothing else. One that another of
	// them has signed is an intermediate; the others end chains.
	Authorities []byte
	// Thumbprints pin single certificates, by SHA-256 or SHA-1 over their DER, in
	// hexadecimal. Letter case and colons make no difference.
	Thumbprints []string
	// Revoked are revocation lists of the Authorities: one in DER, or any number
	// in PEM.
	Revoked []byte
}

// Options are the rest of a [Policy]. Nil means the defaults.
type Options struct {
	// User says which name is the user id. Default: [CommonName].
	User Name
	// Roles are those of all users, in the words of client tokens.
	Roles []string
	// Logger gets an error when a revocation list has become stale, once for
	// each. Default: discard.
	Logger *slog.Logger
}

// Policy is what a hub asks of certificates. It does not change, and is safe for
// concurrent use.
type Policy struct {
	roots, between *x509.CertPool
	authorities    int
	pins           map[string]bool // raw digests, of either kind
	lists          lists
	user           Name
	roles          []string
	log            *slog.Logger
}

// NewPolicy reads what t holds. An error is an *engine.Error of
// engine.CodeInvalid whose Target is the field of Trust or Options at fault.
func NewPolicy(t Trust, o *Options) (*Policy, error) {
	if o == nil {
		o = &Options{}
	}
	p := &Policy{user: o.User, roles: slices.Clone(o.Roles), log: o.Logger, pins: make(map[string]bool)}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.user == "" {
		p.user = CommonName
	}
	if !slices.Contains(Names, p.user) {
		return nil, invalid("User", "%.64q is no name of a certificate: expected %s.", p.user, join(Names))
	}
	for _, text := range t.Thumbprints {
		pin, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
		if err != nil || len(pin) != sha256.Size && len(pin) != sha1.Size {
			return nil, invalid("Thumbprints", "%.100q is no thumbprint: expected 64 hexadecimal digits (SHA-256) or 40 (SHA-1).", text)
		}
		p.pins[string(pin)] = true
	}
	authorities, err := p.trust(t.Authorities)
	if err != nil {
		return nil, err
	}
	if p.authorities == 0 && len(p.pins) == 0 {
		return nil, invalid("Authorities", "Nobody is trusted: expected authorities, thumbprints or both.")
	}
	if p.lists, err = readLists(t.Revoked, authorities); err != nil {
		return nil, err
	}
	return p, nil
}

func invalid(target, format string, args ...any) *engine.Error {
	e := engine.Errorf(engine.CodeInvalid, "clientcert.policy", format, args...)
	e.Target = target
	return e
}

func join(names []Name) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = string(n)
	}
	return strings.Join(texts, ", ")
}

// trust fills the pools.
func (p *Policy) trust(text []byte) ([]*x509.Certificate, error) {
	p.roots, p.between = x509.NewCertPool(), x509.NewCertPool()
	if len(text) == 0 {
		return nil, nil
	}
	ders, err := blocks(text, "CERTIFICATE")
	if err != nil {
		return nil, invalid("Authorities", "Not certificates in PEM: %s.", err)
	}
	if len(ders) > MaxAuthorities {
		return nil, invalid("Authorities", "There are %d authorities: expected at most %d.", len(ders), MaxAuthorities)
	}
	var all []*x509.Certificate
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, invalid("Authorities", "Certificate %d cannot be read: %s.", i+1, err)
		}
		if !c.IsCA {
			return nil, invalid("Authorities", "Certificate %d (%s) is no authority's: expected basic constraints that say CA. "+
				"A single client's certificate is pinned by its thumbprint.", i+1, excerpt(c.Subject.String()))
		}
		all = append(all, c)
	}
	for _, c := range all {
		if slices.ContainsFunc(all, func(by *x509.Certificate) bool { return !by.Equal(c) && issued(by, c) }) {
			p.between.AddCert(c)
		} else {
			p.roots.AddCert(c)
		}
	}
	p.authorities = len(all)
	return all, nil
}

// issued reports whether by has signed c. Of two that have signed each other
// neither would end a chain, so one that has signed itself never counts.
func issued(by, c *x509.Certificate) bool {
	self := string(c.RawSubject) == string(c.RawIssuer)
	return !self && string(by.RawSubject) == string(c.RawIssuer) && c.CheckSignatureFrom(by) == nil
}

// blocks returns the contents of PEM that holds blocks of one kind alone.
func blocks(text []byte, kind string) ([][]byte, error) {
	var out [][]byte
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != kind {
			return nil, fmt.Errorf("found a block %.40q, expected %q alone", block.Type, kind)
		}
		out = append(out, block.Bytes)
		text = rest
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("found no block %q", kind)
	}
	return out, nil
}

// judge returns the user whose certificate leads the chain.
func (p *Policy) judge(chain []*x509.Certificate, now time.Time) (engine.UserID, error) {
	leaf := chain[0]
	if err := p.trusted(chain, now); err != nil {
		err.Detail = strings.TrimSpace(err.Detail + " " + describe(leaf))
		return "", err
	}
	user, err := p.named(leaf)
	if err != nil {
		err.Detail = describe(leaf)
		return "", err
	}
	return user, nil
}

func (p *Policy) trusted(chain []*x509.Certificate, now time.Time) *engine.Error {
	leaf := chain[0]
	switch {
	case len(chain) > MaxChain:
		return refuse("clientcert.length", "The client sent %d certificates: expected at most %d.", len(chain), MaxChain)
	case now.Before(leaf.NotBefore):
		return refuse("clientcert.notyet", "The client certificate is valid from %s on, and it is %s.", instant(leaf.NotBefore), instant(now))
	case now.After(leaf.NotAfter):
		return refuse("clientcert.expired", "The client certificate was valid until %s, and it is %s.", instant(leaf.NotAfter), instant(now))
	case !forClients(leaf):
		return refuse("clientcert.usage", "The client certificate is not for TLS clients: expected an extended key usage that includes clientAuth, or none.")
	case p.pinned(leaf):
		return p.lists.judgePinned(leaf, now, p.log)
	case p.authorities == 0:
		return refuse("clientcert.pin", "The client certificate is not among those that the hub knows: expected one of %s.", count(len(p.pins), "pinned certificate"))
	}
	o := x509.VerifyOptions{
		Roots: p.roots, Intermediates: p.between.Clone(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	found, err := leaf.Verify(o)
	if err != nil {
		return &engine.Error{
			Code: engine.CodeUnauthenticated, Rule: "clientcert.authority",
			Message: "The client certificate does not lead to an authority that the hub trusts: expected one that is signed by " +
				"one of " + count(p.authorities, "authority") + ", with the intermediate certificates between.",
			Detail: err.Error() + ".",
		}
	}
	var first *engine.Error
	for _, c := range found {
		bad := p.lists.judge(c, now, p.log)
		if bad == nil {
			return nil
		}
		if first == nil {
			first = bad
		}
	}
	return first
}

// forClients reports whether c may be used by TLS clients. Without an extended
// key usage it may be used for anything (RFC 5280 section 4.2.1.12).
func forClients(c *x509.Certificate) bool {
	return len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 ||
		slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func (p *Policy) pinned(c *x509.Certificate) bool {
	if len(p.pins) == 0 {
		return false
	}
	long, short := sha256.Sum256(c.Raw), sha1.Sum(c.Raw)
	return p.pins[string(long[:])] || p.pins[string(short[:])]
}

func refuse(rule, format string, args ...any) *engine.Error {
	return engine.Errorf(engine.CodeUnauthenticated, rule, format, args...)
}

// describe says which certificate was seen. A certificate holds no secret.
func describe(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return fmt.Sprintf("Saw subject %s, issuer %s, serial %.40s, SHA-1 %s, SHA-256 %s.",
		excerpt(c.Subject.String()), excerpt(c.Issuer.String()), c.SerialNumber.Text(16), thumbprint(c), hex.EncodeToString(sum[:]))
}

// thumbprint is the one of connect events.
func thumbprint(c *x509.Certificate) string {
	sum := sha1.Sum(c.Raw)
	return hex.EncodeToString(sum[:])
}

// excerpt quotes at most 128 bytes of a name that a stranger chose.
func excerpt(s string) string {
	if len(s) > 128 {
		return fmt.Sprintf("%q...", s[:128])
	}
	return fmt.Sprintf("%q", s)
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
