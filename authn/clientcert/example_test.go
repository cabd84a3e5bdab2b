package clientcert_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/clientcert"
	"github.com/fanfare/fanfare/engine"
)

// A hub whose devices come in by their certificates, which are pinned: it takes no
// authority to try that. A device that is not known is refused.
func Example() {
	drill, stranger := selfSigned("drill-1"), selfSigned("drill-1")
	pin := sha256.Sum256(drill.Raw)
	devices, err := clientcert.NewPolicy(
		clientcert.Trust{Thumbprints: []string{hex.EncodeToString(pin[:])}},
		&clientcert.Options{User: clientcert.CommonName, Roles: []string{"webpubsub.sendToGroup.telemetry"}},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	policies := func(hub engine.HubName) *clientcert.Policy {
		if hub == "plant" {
			return devices
		}
		return nil // certificates are the connect handler's business
	}
	clients := authn.Clients(clientcert.NewClients(policies), authn.Anonymous{})

	for _, certificate := range []*x509.Certificate{drill, stranger} {
		id, err := clients.Authenticate(context.Background(), engine.Credentials{
			Hub: "plant", PeerCertificates: []*x509.Certificate{certificate},
		})
		var refused *engine.Error
		if errors.As(err, &refused) {
			fmt.Println("refused:", refused.Rule)
			continue
		}
		fmt.Println(id.UserID, id.Roles)
	}
	// Output:
	// drill-1 [webpubsub.sendToGroup.telemetry]
	// refused: clientcert.pin
}

// selfSigned makes a certificate that no authority knows of.
func selfSigned(name string) *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c
}
