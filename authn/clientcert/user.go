package clientcert

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// commonName is the object identifier of a CN (X.520).
var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// named returns the user that c names. Which of several names was meant would be
// a guess, and whoever orders certificates could choose it.
func (p *Policy) named(c *x509.Certificate) (engine.UserID, *engine.Error) {
	var names []string
	switch p.user {
	case CommonName:
		for _, a := range c.Subject.Names {
			if text, ok := a.Value.(string); ok && a.Type.Equal(commonName) {
				names = append(names, text)
			}
		}
	case DNSName:
		for _, name := range c.DNSNames {
			names = append(names, strings.ToLower(name))
		}
	case URI:
		for _, u := range c.URIs {
			names = append(names, u.String())
		}
	case Email:
		names = c.EmailAddresses
	case Thumbprint:
		names = []string{thumbprint(c)}
	}
	if len(names) != 1 {
		return "", refuse("clientcert.user", "The client certificate has %s, which the hub takes the user from: expected 1.", count(len(names), words[p.user]))
	}
	user, err := engine.ParseUserID(names[0])
	if err != nil {
		return "", refuse("clientcert.user", "The client certificate's %s is no user id: expected 1 to %d characters that are not all blank, without control characters.", words[p.user], engine.MaxUserID)
	}
	return user, nil
}

// words are the names as people say them.
var words = map[Name]string{
	CommonName: "common name", DNSName: "alternative DNS name", URI: "alternative URI",
	Email: "alternative email", Thumbprint: "thumbprint",
}
