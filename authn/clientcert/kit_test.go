package clientcert_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/clientcert"
	"github.com/fanfare/fanfare/engine"
)

// party is a certificate with its key, and those above it, its issuer first.
type party struct {
	*x509.Certificate
	key   crypto.Signer
	above []*party
}

var serial = int64(1000)

// issue makes a certificate by the party; a nil one signs itself.
func (by *party) issue(t testing.TB, name string, change func(*x509.Certificate)) *party {
	t.Helper()
	serial++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name, Organization: []string{"Plant"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(c)
	}
	made := &party{key: key}
	parent, signer := c, crypto.Signer(key)
	if by != nil {
		parent, signer = by.Certificate, by.key
		made.above = append([]*party{by}, by.above...)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if made.Certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return made
}

// authority makes a certificate of an authority.
func (by *party) authority(t testing.TB, name string) *party {
	return by.issue(t, name, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.ExtKeyUsage = true, true, nil
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	})
}

// revokes makes a revocation list that holds others.
func (by *party) revokes(t testing.TB, until time.Time, change func(*x509.RevocationList), others ...*party) []byte {
	t.Helper()
	serial++
	l := &x509.RevocationList{Number: big.NewInt(serial), ThisUpdate: until.Add(-24 * time.Hour), NextUpdate: until}
	for _, o := range others {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: o.SerialNumber, RevocationTime: l.ThisUpdate})
	}
	if change != nil {
		change(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, by.Certificate, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (by *party) sha256() string { s := sha256.Sum256(by.Raw); return hex.EncodeToString(s[:]) }
func (by *party) sha1() string   { s := sha1.Sum(by.Raw); return hex.EncodeToString(s[:]) }

// chain is the party's certificate and those above it, without the last one.
func (by *party) chain() []*x509.Certificate {
	all := []*x509.Certificate{by.Certificate}
	for _, a := range by.above {
		if len(a.above) > 0 {
			all = append(all, a.Certificate)
		}
	}
	return all
}

func pemOf(kind string, ders ...[]byte) (text []byte) {
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return text
}

func authorities(all ...*party) []byte {
	var ders [][]byte
	for _, a := range all {
		ders = append(ders, a.Raw)
	}
	return pemOf("CERTIFICATE", ders...)
}

func mustPolicy(t testing.TB, trust clientcert.Trust, o *clientcert.Options) *clientcert.Policy {
	t.Helper()
	p, err := clientcert.NewPolicy(trust, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask has p judge a chain.
func ask(p *clientcert.Policy, chain ...*x509.Certificate) (engine.Identity, error) {
	scheme := clientcert.NewClients(func(engine.HubName) *clientcert.Policy { return p })
	return scheme.Authenticate(context.Background(), engine.Credentials{Hub: "plant", PeerCertificates: chain})
}

// shake has a client show certificates in a handshake, as a server that asks for
// one and requires none, and returns what the server got.
func shake(t *testing.T, server, client *party, chain []*x509.Certificate) []*x509.Certificate {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	host := tls.Server(a, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: server.key}},
		ClientAuth:   tls.RequestClientCert,
	})
	o := &tls.Config{InsecureSkipVerify: true} // the test's own server
	if client != nil {
		shown := tls.Certificate{PrivateKey: client.key}
		for _, c := range chain {
			shown.Certificate = append(shown.Certificate, c.Raw)
		}
		// Unlike Certificates, it is not held back because of its issuer.
		o.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }
	}
	guest := tls.Client(b, o)
	done := make(chan error, 1)
	go func() {
		err := guest.Handshake()
		if err == nil {
			// In TLS 1.3 the server reads the certificate after the client is done.
			_, err = guest.Read(make([]byte, 1))
		}
		done <- err
	}()
	if err := host.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := host.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return host.ConnectionState().PeerCertificates
}
