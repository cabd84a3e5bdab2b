package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// What is allowed about client certificates, and worth saying.
func TestClientCertWarnings(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "devices"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: time.Now().Add(-time.Hour)}
	crl, err := x509.CreateRevocationList(rand.Reader, list, authority, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, lists := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.crl")
	os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	os.WriteFile(lists, crl, 0o600)
	path := filepath.Join(dir, "f.yaml")
	os.WriteFile(path, []byte("hubs:\n  plant: { clientCertificates: { caFile: "+ca+", crlFile: "+lists+", thumbprints: ['"+strings.Repeat("aB", 20)+"'], user: San:Uri } }\n"), 0o600)
	c, warnings, err := config.Load(config.Sources{File: path})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range warnings {
		got = append(got, w.Path+": "+w.Text)
	}
	if want := []string{
		"hubs.plant.clientCertificates: no client is asked for a certificate: set tls.clientCertEnabled, or clientCertHeader behind a proxy that does TLS",
		`hubs.plant.clientCertificates.crlFile: the list of "CN=devices" is past its next update: its clients are refused`,
		"hubs.plant.clientCertificates.thumbprints[0]: a SHA-1 thumbprint: whoever makes two certificates with the same one comes in with either; SHA-256 is better",
	}; !reflect.DeepEqual(got, want) {
		t.Errorf("warned of\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if user := c.Hub("plant").ClientCertificates.User; user != "san:uri" {
		t.Errorf("the user is %q", user)
	}
	os.WriteFile(ca, nil, 0o600)
	if _, _, err := config.Load(config.Sources{File: path}); err == nil || !strings.Contains(err.Error(), "clientCertificates.caFile: cannot read") || !strings.Contains(err.Error(), "it is empty") {
		t.Errorf("an empty file of authorities: %v", err)
	}
}
