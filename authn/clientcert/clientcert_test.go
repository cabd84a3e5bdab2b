package clientcert_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/clientcert"
	"github.com/fanfare/fanfare/engine"
)

func refusalOf(t *testing.T, err error) *engine.Error {
	t.Helper()
	var e *engine.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no refusal", err)
	}
	return e
}

// What clients show in TLS is judged: by authority, by pin, by time, by use.
func TestOverTLS(t *testing.T) {
	var nobody *party
	root, other := nobody.authority(t, "root"), nobody.authority(t, "other root")
	middle := root.authority(t, "middle")
	server := root.issue(t, "server", nil)
	self := nobody.issue(t, "self", nil)
	leaf := root.issue(t, "drill-1", nil)
	deep := middle.issue(t, "drill-2", nil)
	usage := func(all ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = all }
	}
	between := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	webOnly := root.issue(t, "web", func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	revoked := root.issue(t, "revoked", nil)
	expiredSelf := nobody.issue(t, "expired self", between(-2*time.Hour, -time.Hour))
	serverSelf := nobody.issue(t, "server self", usage(x509.ExtKeyUsageServerAuth))
	revokedPin := root.issue(t, "revoked and pinned", nil)
	year := time.Now().Add(time.Hour)

	policy := mustPolicy(t, clientcert.Trust{
		Authorities: authorities(root, middle),
		Thumbprints: []string{self.sha256(), expiredSelf.sha1(), serverSelf.sha256(), revokedPin.sha256()},
		Revoked:     pemOf("X509 CRL", root.revokes(t, year, nil, revoked, revokedPin), middle.revokes(t, year, nil)),
	}, &clientcert.Options{Roles: []string{"webpubsub.sendToGroup.telemetry"}})
	rootAlone := mustPolicy(t, clientcert.Trust{Authorities: authorities(root)}, nil)
	pinsAlone := mustPolicy(t, clientcert.Trust{Thumbprints: []string{strings.ToUpper(self.sha1()), colons(leaf.sha256())}}, nil)

	for _, tt := range []struct {
		name   string
		policy *clientcert.Policy
		client *party
		chain  []*x509.Certificate // default: the client's
		user   engine.UserID       // or else
		rule   string
		says   string // in message or detail
	}{
		{name: "valid", policy: policy, client: leaf, user: "drill-1"},
		{name: "by an intermediate that is sent", policy: rootAlone, client: deep, user: "drill-2"},
		{name: "by an intermediate that is known", policy: policy, client: deep, chain: []*x509.Certificate{deep.Certificate}, user: "drill-2"},
		{name: "by an intermediate that is missing", policy: rootAlone, client: deep, chain: []*x509.Certificate{deep.Certificate}, rule: "clientcert.authority", says: "1 authority"},
		{name: "expired", policy: policy, client: root.issue(t, "old", between(-2*time.Hour, -time.Hour)), rule: "clientcert.expired", says: "valid until"},
		{name: "not yet valid", policy: policy, client: root.issue(t, "new", between(time.Hour, 2*time.Hour)), rule: "clientcert.notyet", says: "valid from"},
		{name: "of another authority", policy: policy, client: other.issue(t, "drill-1", nil), rule: "clientcert.authority", says: "unknown authority"},
		{name: "by one that is no authority", policy: policy, client: leaf.issue(t, "boss", nil), rule: "clientcert.authority", says: "boss"},
		{name: "self-signed", policy: policy, client: nobody.issue(t, "drill-1", nil), rule: "clientcert.authority", says: "2 authorities"},
		{name: "for servers", policy: policy, client: root.issue(t, "www", usage(x509.ExtKeyUsageServerAuth)), rule: "clientcert.usage", says: "clientAuth"},
		{name: "by an authority for servers", policy: rootAlone, client: webOnly.issue(t, "x", nil), rule: "clientcert.authority", says: "incompatible key usage"},
		{name: "for both", policy: policy, client: root.issue(t, "both", usage(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)), user: "both"},
		{name: "for anything", policy: policy, client: root.issue(t, "any", usage()), user: "any"},
		{name: "revoked", policy: policy, client: revoked, rule: "clientcert.revoked", says: "revoked at"},
		{name: "too many", policy: policy, client: leaf, chain: slices.Repeat([]*x509.Certificate{leaf.Certificate}, clientcert.MaxChain+1), rule: "clientcert.length", says: "11 certificates"},
		{name: "as many as may be", policy: policy, client: leaf, chain: slices.Repeat([]*x509.Certificate{leaf.Certificate}, clientcert.MaxChain), user: "drill-1"},
		{name: "self-signed and pinned", policy: policy, client: self, user: "self"},
		{name: "pinned alone", policy: pinsAlone, client: self, user: "self"},
		{name: "pinned alone, by its authority's leave", policy: pinsAlone, client: leaf, user: "drill-1"},
		{name: "not pinned", policy: pinsAlone, client: deep, rule: "clientcert.pin", says: "2 pinned certificates"},
		{name: "pinned and expired", policy: policy, client: expiredSelf, rule: "clientcert.expired", says: "valid until"},
		{name: "pinned and for servers", policy: policy, client: serverSelf, rule: "clientcert.usage", says: "clientAuth"},
		{name: "pinned and revoked", policy: policy, client: revokedPin, rule: "clientcert.revoked", says: "revoked at"},
		{name: "none", policy: policy, rule: "clientcert.missing"},
		{name: "none of the hub's business", policy: nil, client: leaf, rule: "clientcert.hub"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.client != nil && tt.chain == nil {
				tt.chain = tt.client.chain()
			}
			id, err := ask(tt.policy, shake(t, server, tt.client, tt.chain)...)
			if tt.user != "" {
				if err != nil || id.UserID != tt.user || id.Scheme != "ClientCertificate" || len(id.Claims) != 0 || !id.Expires.Equal(tt.client.NotAfter) {
					t.Errorf("in as %+v, %v; want %s", id, err, tt.user)
				}
				if tt.policy == policy && !reflect.DeepEqual(id.Roles, []string{"webpubsub.sendToGroup.telemetry"}) {
					t.Errorf("roles are %q", id.Roles)
				}
				return
			}
			e := refusalOf(t, err)
			if e.Rule != tt.rule || e.Code != engine.CodeUnauthenticated || !strings.Contains(e.Message+" "+e.Detail, tt.says) {
				t.Errorf("refused with %s, %+v; want %s, %q", e.Code, e, tt.rule, tt.says)
			}
			if mine := !errors.Is(err, authn.ErrNotMine); mine != (tt.client != nil && tt.policy != nil) {
				t.Errorf("of another kind: %t", !mine)
			}
			if tt.client != nil && tt.policy != nil && (!strings.Contains(e.Detail, tt.client.Subject.CommonName) || !strings.Contains(e.Detail, tt.client.sha256())) {
				t.Errorf("the log does not say which certificate: %q", e.Detail)
			}
		})
	}
}

func colons(s string) string {
	var parts []string
	for i := 0; i < len(s); i += 2 {
		parts = append(parts, s[i:i+2])
	}
	return strings.Join(parts, ":")
}

// A token decides, whatever the certificate.
func TestTokenFirst(t *testing.T) {
	var nobody *party
	root := nobody.authority(t, "root")
	p := mustPolicy(t, clientcert.Trust{Authorities: authorities(root)}, nil)
	scheme := clientcert.NewClients(func(engine.HubName) *clientcert.Policy { return p })
	_, err := scheme.Authenticate(context.Background(), engine.Credentials{Token: "x", PeerCertificates: root.issue(t, "a", nil).chain()})
	if !errors.Is(err, authn.ErrNotMine) || refusalOf(t, err).Rule != "clientcert.token" {
		t.Errorf("%v", err)
	}
}

// The user is the one name of its kind.
func TestUser(t *testing.T) {
	var nobody *party
	root := nobody.authority(t, "root")
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	full := root.issue(t, "Drill 1", func(c *x509.Certificate) {
		c.DNSNames, c.EmailAddresses, c.URIs = []string{"Drill-1.Plant.Example"}, []string{"drill-1@plant.example"}, []*url.URL{uri("spiffe://plant.example/drill/1")}
	})
	twice := root.issue(t, "", func(c *x509.Certificate) {
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "drill-1"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "boss"},
		}}
		c.DNSNames, c.EmailAddresses, c.URIs = []string{"a.example", "b.example"}, []string{"a@a.example", "b@a.example"}, []*url.URL{uri("a:1"), uri("a:2")}
	})
	bare := root.issue(t, "", func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"Plant"}} })
	blank := root.issue(t, "  ", nil)
	lines := root.issue(t, "drill\r\nX-Evil: 1", nil)
	long := root.issue(t, strings.Repeat("x", engine.MaxUserID+1), nil)
	for _, tt := range []struct {
		name string
		from clientcert.Name
		cert *party
		user engine.UserID
		says string
	}{
		{"common name", "", full, "Drill 1", ""},
		{"common name", clientcert.CommonName, full, "Drill 1", ""},
		{"DNS name", clientcert.DNSName, full, "drill-1.plant.example", ""},
		{"URI", clientcert.URI, full, "spiffe://plant.example/drill/1", ""},
		{"email", clientcert.Email, full, "drill-1@plant.example", ""},
		{"thumbprint", clientcert.Thumbprint, full, engine.UserID(full.sha1()), ""},
		{"two common names", clientcert.CommonName, twice, "", "2 common names"},
		{"two DNS names", clientcert.DNSName, twice, "", "2 alternative DNS names"},
		{"two URIs", clientcert.URI, twice, "", "2 alternative URIs"},
		{"two email addresses", clientcert.Email, twice, "", "2 alternative emails"},
		{"no common name", clientcert.CommonName, bare, "", "0 common names"},
		{"no DNS name", clientcert.DNSName, bare, "", "0 alternative DNS names"},
		{"a blank one", clientcert.CommonName, blank, "", "no user id"},
		{"one with a line end", clientcert.CommonName, lines, "", "without control characters"},
		{"a long one", clientcert.CommonName, long, "", "no user id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPolicy(t, clientcert.Trust{Authorities: authorities(root)}, &clientcert.Options{User: tt.from})
			id, err := ask(p, tt.cert.Certificate)
			if tt.user != "" {
				if err != nil || id.UserID != tt.user {
					t.Errorf("in as %q, %v; want %q", id.UserID, err, tt.user)
				}
			} else if e := refusalOf(t, err); e.Rule != "clientcert.user" || !strings.Contains(e.Message, tt.says) || len(e.Detail) > 1000 {
				t.Errorf("refused with %+v; want %q", e, tt.says)
			}
		})
	}
}

// Lists fail closed: an issuer without one, and one that was not renewed.
func TestRevocation(t *testing.T) {
	var nobody *party
	root := nobody.authority(t, "root")
	middle := root.authority(t, "middle")
	leaf, deep, gone := root.issue(t, "leaf", nil), middle.issue(t, "deep", nil), middle.issue(t, "gone", nil)
	year := time.Now().Add(time.Hour)
	all := authorities(root, middle)

	rootOnly := mustPolicy(t, clientcert.Trust{Authorities: all, Revoked: root.revokes(t, year, nil)}, nil)
	if _, err := ask(rootOnly, leaf.Certificate); err != nil {
		t.Errorf("with the list of its issuer: %v", err)
	}
	_, err := ask(rootOnly, deep.Certificate)
	if e := refusalOf(t, err); e.Rule != "clientcert.crl.missing" || e.Code != engine.CodeUnavailable || !strings.Contains(e.Detail, "middle") {
		t.Errorf("without the list of its issuer: %+v", e)
	}

	// A chain goes as far up as the authorities do.
	middleOnly := mustPolicy(t, clientcert.Trust{Authorities: all, Revoked: middle.revokes(t, year, nil)}, nil)
	_, err = ask(middleOnly, deep.Certificate)
	if e := refusalOf(t, err); e.Rule != "clientcert.crl.missing" || !strings.Contains(e.Detail, "root") {
		t.Errorf("without the list of its issuer's issuer: %+v", e)
	}

	// Who is below a revoked authority is revoked, whoever ends the chain.
	both := mustPolicy(t, clientcert.Trust{Authorities: all, Revoked: pemOf("X509 CRL", root.revokes(t, year, nil, middle), middle.revokes(t, year, nil))}, nil)
	_, err = ask(both, deep.Certificate)
	if e := refusalOf(t, err); e.Rule != "clientcert.revoked" {
		t.Errorf("below a revoked authority: %+v", e)
	}

	// Of two lists by one key the newer counts, in whatever order.
	older, newer := middle.revokes(t, year.Add(-time.Minute), nil, gone), middle.revokes(t, year, nil)
	for _, lists := range [][][]byte{{older, newer}, {newer, older}} {
		p := mustPolicy(t, clientcert.Trust{Authorities: all, Revoked: pemOf("X509 CRL", append(lists, root.revokes(t, year, nil))...)}, nil)
		if _, err := ask(p, gone.Certificate); err != nil {
			t.Errorf("the older of two lists counts: %v", err)
		}
	}
}

// A list that is not renewed in time lets nobody in, and the log is told once.
func TestStaleList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nobody *party
		root := nobody.authority(t, "root")
		leaf := root.issue(t, "leaf", nil)
		var log bytes.Buffer
		p := mustPolicy(t, clientcert.Trust{
			Authorities: authorities(root), Thumbprints: []string{leaf.sha256()},
			Revoked: root.revokes(t, time.Now().Add(time.Hour), nil),
		}, &clientcert.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		unpinned := root.issue(t, "unpinned", nil)
		time.Sleep(time.Hour)
		for _, c := range []*party{leaf, unpinned} {
			if _, err := ask(p, c.Certificate); err != nil {
				t.Errorf("at its end: %v", err)
			}
		}
		if _, stale := p.Stale(time.Now()); stale || log.Len() > 0 {
			t.Errorf("told too early: %s", log.String())
		}
		time.Sleep(time.Second)
		for _, c := range []*party{leaf, unpinned, leaf} {
			_, err := ask(p, c.Certificate)
			if e := refusalOf(t, err); e.Rule != "clientcert.crl.stale" || e.Code != engine.CodeUnavailable {
				t.Errorf("after its end: %+v", e)
			}
		}
		if issuer, stale := p.Stale(time.Now()); !stale || !strings.Contains(issuer, "root") {
			t.Errorf("stale: %q, %t", issuer, stale)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d errors in the log:\n%s", n, log.String())
		}
	})
}

// What cannot be a policy is refused with the field at fault.
func TestNewPolicy(t *testing.T) {
	var nobody *party
	root, other := nobody.authority(t, "root"), nobody.authority(t, "other")
	impostor := nobody.authority(t, "root") // the same name, another key
	leaf := root.issue(t, "leaf", nil)
	key := pemOf("EC PRIVATE KEY", []byte("hush"))
	year := time.Now().Add(time.Hour)
	critical := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}
	ca := authorities(root)
	for _, tt := range []struct {
		name, target, says string
		trust              clientcert.Trust
		o                  *clientcert.Options
	}{
		{"nobody", "Authorities", "Nobody is trusted", clientcert.Trust{}, nil},
		{"no PEM", "Authorities", "found no block", clientcert.Trust{Authorities: []byte("x")}, nil},
		{"a key among them", "Authorities", "EC PRIVATE KEY", clientcert.Trust{Authorities: append(slices.Clone(ca), key...)}, nil},
		{"no certificate", "Authorities", "cannot be read", clientcert.Trust{Authorities: pemOf("CERTIFICATE", []byte("x"))}, nil},
		{"no authority", "Authorities", "pinned by its thumbprint", clientcert.Trust{Authorities: authorities(root, leaf)}, nil},
		{"too many", "Authorities", "at most 1000", clientcert.Trust{Authorities: bytes.Repeat(ca, clientcert.MaxAuthorities+1)}, nil},
		{"short thumbprint", "Thumbprints", "64 hexadecimal digits", clientcert.Trust{Thumbprints: []string{"abcd"}}, nil},
		{"thumbprint in base64", "Thumbprints", "64 hexadecimal digits", clientcert.Trust{Thumbprints: []string{strings.Repeat("z", 40)}}, nil},
		{"name", "User", "expected cn, san:dns", clientcert.Trust{Authorities: ca}, &clientcert.Options{User: "dn"}},
		{"no list", "Revoked", "cannot be read", clientcert.Trust{Authorities: ca, Revoked: []byte("x")}, nil},
		{"a certificate for a list", "Revoked", "X509 CRL", clientcert.Trust{Authorities: ca, Revoked: ca}, nil},
		{"a list of nobody", "Revoked", "expected the certificate of its issuer", clientcert.Trust{Authorities: ca, Revoked: other.revokes(t, year, nil)}, nil},
		{"a forged list", "Revoked", "signature", clientcert.Trust{Authorities: ca, Revoked: impostor.revokes(t, year, nil)}, nil},
		{"a partial list", "Revoked", "critical extension 2.5.29.28", clientcert.Trust{Authorities: ca,
			Revoked: root.revokes(t, year, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{critical} })}, nil},
		{"an indirect entry", "Revoked", "an entry with the critical extension", clientcert.Trust{Authorities: ca,
			Revoked: root.revokes(t, year, func(l *x509.RevocationList) {
				l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{critical}
			}, leaf)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := clientcert.NewPolicy(tt.trust, tt.o)
			if p != nil || err == nil {
				t.Fatal("it is a policy")
			}
			e := refusalOf(t, err)
			if e.Code != engine.CodeInvalid || e.Target != tt.target || !strings.Contains(e.Message, tt.says) || strings.Contains(fmt.Sprint(e), "hush") {
				t.Errorf("%+v; want %s, %q", e, tt.target, tt.says)
			}
		})
	}
}
