package clientcert

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// list is one revocation list, whose signature holds.
type list struct {
	name       string // of its issuer, for people
	issuer     []byte // its raw name
	key        []byte // its raw public key
	revoked    map[string]time.Time
	thisUpdate time.Time
	nextUpdate time.Time
	told       sync.Once // that it is stale
}

// lists are the revocation lists by the raw names of their issuers. An authority
// with two keys may have a list for each.
type lists map[string][]*list

// readLists reads revocation lists of the authorities.
func readLists(text []byte, authorities []*x509.Certificate) (lists, error) {
	if len(text) == 0 {
		return nil, nil
	}
	ders := [][]byte{text}
	if block, _ := pem.Decode(text); block != nil {
		var err error
		if ders, err = blocks(text, "X509 CRL"); err != nil {
			return nil, invalid("Revoked", "Not revocation lists in PEM: %s.", err)
		}
	}
	all := make(lists)
	for i, der := range ders {
		l, err := readList(der, authorities)
		if err != nil {
			return nil, invalid("Revoked", "Revocation list %d %s.", i+1, err)
		}
		all.add(l)
	}
	return all, nil
}

func readList(der []byte, authorities []*x509.Certificate) (*list, error) {
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	// A list with a critical extension that is not understood must not be used
	// (RFC 5280 section 5.2): it may hold changes alone, or some certificates only.
	for _, e := range crl.Extensions {
		if e.Critical {
			return nil, fmt.Errorf("has the critical extension %s: expected a complete list without one", e.Id)
		}
	}
	if crl.NextUpdate.IsZero() {
		return nil, fmt.Errorf("has no next update: expected one")
	}
	signer, err := signerOf(crl, authorities)
	if err != nil {
		return nil, err
	}
	l := &list{
		name: crl.Issuer.String(), issuer: crl.RawIssuer, key: signer.RawSubjectPublicKeyInfo,
		revoked: make(map[string]time.Time, len(crl.RevokedCertificateEntries)), thisUpdate: crl.ThisUpdate, nextUpdate: crl.NextUpdate,
	}
	for _, e := range crl.RevokedCertificateEntries {
		for _, x := range e.Extensions {
			if x.Critical {
				return nil, fmt.Errorf("has an entry with the critical extension %s: expected none", x.Id)
			}
		}
		l.revoked[string(e.SerialNumber.Bytes())] = e.RevocationTime
	}
	return l, nil
}

// signerOf returns the authority that signed crl.
func signerOf(crl *x509.RevocationList, authorities []*x509.Certificate) (*x509.Certificate, error) {
	bad := fmt.Errorf("is not by one of the authorities but by %s: expected the certificate of its issuer among them", excerpt(crl.Issuer.String()))
	for _, c := range authorities {
		if !bytes.Equal(c.RawSubject, crl.RawIssuer) {
			continue
		}
		err := crl.CheckSignatureFrom(c)
		if err == nil {
			return c, nil
		}
		bad = fmt.Errorf("does not bear the signature of its issuer %s: %w", excerpt(crl.Issuer.String()), err)
	}
	return nil, bad
}

// add takes l in. Of two lists by one key the newer counts.
func (s lists) add(l *list) {
	of := s[string(l.issuer)]
	for i, have := range of {
		if bytes.Equal(have.key, l.key) {
			if l.thisUpdate.After(have.thisUpdate) {
				of[i] = l
			}
			return
		}
	}
	s[string(l.issuer)] = append(of, l)
}

// judge looks for the certificates of a verified chain. Each must have a list of
// its issuer, but for the one that ends the chain.
func (s lists) judge(chain []*x509.Certificate, now time.Time, log *slog.Logger) *engine.Error {
	if s == nil {
		return nil
	}
	for i, c := range chain {
		of := s[string(c.RawIssuer)]
		if len(of) == 0 && i+1 < len(chain) {
			return &engine.Error{
				Code: engine.CodeUnavailable, Rule: "clientcert.crl.missing",
				Message: "Whether the client certificate has been revoked is not known to this node. Try again later.",
				Detail:  "There is no revocation list of " + excerpt(c.Issuer.String()) + ": expected one of each issuer.",
			}
		}
		if err := find(of, c, now, log); err != nil {
			return err
		}
	}
	return nil
}

// judgePinned looks for a pinned certificate, whose issuer need not be known.
func (s lists) judgePinned(c *x509.Certificate, now time.Time, log *slog.Logger) *engine.Error {
	return find(s[string(c.RawIssuer)], c, now, log)
}

// find looks for c in the lists of its issuer.
func find(of []*list, c *x509.Certificate, now time.Time, log *slog.Logger) *engine.Error {
	for _, l := range of {
		if at, ok := l.revoked[string(c.SerialNumber.Bytes())]; ok {
			e := refuse("clientcert.revoked", "The client certificate, or one of its issuers, has been revoked: expected one that has not.")
			e.Detail = fmt.Sprintf("Serial number %.40s of %s, revoked at %s.", c.SerialNumber.Text(16), excerpt(c.Issuer.String()), instant(at))
			return e
		}
	}
	for _, l := range of {
		if now.After(l.nextUpdate) {
			issuer := excerpt(c.Issuer.String())
			l.told.Do(func() {
				log.Error("a revocation list is past its next update; its issuer's certificates are refused until there is a newer one",
					"issuer", issuer, "nextUpdate", l.nextUpdate)
			})
			return &engine.Error{
				Code: engine.CodeUnavailable, Rule: "clientcert.crl.stale",
				Message: "Whether the client certificate has been revoked is not known to this node. Try again later.",
				Detail:  "The revocation list of " + issuer + " was to be renewed by " + instant(l.nextUpdate) + ".",
			}
		}
	}
	return nil
}

// Stale reports whether a revocation list is past its next update, and whose.
func (p *Policy) Stale(now time.Time) (issuer string, stale bool) {
	for _, of := range p.lists {
		for _, l := range of {
			if now.After(l.nextUpdate) {
				return l.name, true
			}
		}
	}
	return "", false
}
