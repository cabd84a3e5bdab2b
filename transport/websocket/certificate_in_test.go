package websocket

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
)

// FuzzForwardedCertificate is what may stand in a proxy's headers. What is read is
// what was written, in bounds; all else is refused by its rule.
func FuzzForwardedCertificate(f *testing.F) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	s.Close()
	text := base64.StdEncoding.EncodeToString(s.TLS.Certificates[0].Certificate[0])
	f.Add(true, ":"+text+":", "")
	f.Add(true, " :"+text+": ", ":"+text+":, :"+text+":")
	f.Add(true, ":"+text+":", ":"+text+":,")
	f.Add(true, ":"+text+":;a=1", "")
	f.Add(true, "::", ", ::")
	f.Add(false, text, "")
	f.Add(false, " "+text+"\t", "x")
	f.Add(false, text[:100], "")
	f.Fuzz(func(t *testing.T, isStandard bool, value, chain string) {
		by := ARRClientCert
		if isStandard {
			by = ClientCert
		}
		certs, err := forwardedCertificates(http.Header{
			http.CanonicalHeaderKey(string(by)): {value}, clientCertChain: {chain},
		}, by)
		if err != nil {
			var e *engine.Error
			if !errors.As(err, &e) || !strings.HasPrefix(e.Rule, "clientcert.forwarded") || len(certs) > 0 || len(e.Message) > 1000 {
				t.Errorf("%d certificates and %v", len(certs), err)
			}
			return
		}
		if len(certs) == 0 || len(certs) > 1+maxForwardedChain || len(value)+len(chain) > maxForwarded || by == ARRClientCert && len(certs) > 1 {
			t.Errorf("%d certificates of %d bytes", len(certs), len(value)+len(chain))
		}
		for i, c := range certs {
			in := chain
			if i == 0 {
				in = value
			}
			if text := base64.StdEncoding.EncodeToString(c.Raw); !strings.Contains(in, text) {
				t.Errorf("certificate %d is not what was written", i)
			}
		}
	})
}
