package websocket

import (
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// CertificateHeader is a header in which a proxy that ends TLS hands on the
// certificate that a client showed to it.
//
// There are two, and an operator names the one that the proxy writes, and removes
// from what clients send: a proxy that writes one of them may let a stranger's
// other one pass. Forms that hold PEM are many and agree on little, and
// X-Forwarded-Client-Cert is a language of its own; neither is read.
type CertificateHeader string

const (
	// ClientCert is the standard's (RFC 9440): DER in base64 between colons, the
	// rest of the chain in Client-Cert-Chain.
	ClientCert CertificateHeader = "Client-Cert"
	// ARRClientCert is that of Azure App Service: DER in base64, and no chain.
	ARRClientCert CertificateHeader = "X-ARR-ClientCert"

	clientCertChain = "Client-Cert-Chain"
)

// certificateHeaders are the headers that may hold certificates, as net/http spells
// them.
var certificateHeaders = [...]string{
	string(ClientCert), clientCertChain, http.CanonicalHeaderKey(string(ARRClientCert)),
}

// Bounds of what a proxy hands on.
const (
	maxForwarded      = 32 << 10 // bytes of a header, all its lines together
	maxForwardedChain = 9        // certificates behind the first one
)

// takeCertificates notes the certificates that the client showed: in TLS, or to
// a trusted proxy, whose own certificate is never taken for a client's. It removes
// the headers that may hold some, whoever sent them, so that nobody after this
// door takes a stranger's claim for a certificate.
func (k *knock) takeCertificates() error {
	header := k.r.Header
	var held http.Header
	for _, name := range certificateHeaders {
		if values, ok := header[name]; ok {
			if held == nil {
				held = make(http.Header, len(certificateHeaders))
			}
			held[name] = values
			delete(header, name)
		}
	}
	k.certs = nil
	if remote, err := netip.ParseAddrPort(k.r.RemoteAddr); err != nil || !k.h.trusts(remote.Addr()) {
		if k.r.TLS != nil {
			k.certs = k.r.TLS.PeerCertificates
		}
		return nil
	}
	certs, err := forwardedCertificates(held, k.h.o.CertificateHeader)
	if err != nil {
		return err
	}
	k.certs = certs
	return nil
}

// forwardedCertificates reads the chain that a proxy hands on in the header which
// it is trusted to write, or returns none.
func forwardedCertificates(h http.Header, by CertificateHeader) ([]*x509.Certificate, error) {
	values := h.Values(string(by))
	if by == "" || len(values) == 0 {
		return nil, nil
	}
	if n := sum(values) + sum(h.Values(clientCertChain)); n > maxForwarded {
		return nil, engine.Errorf(engine.CodeTooLarge, "clientcert.forwarded.length",
			"The proxy handed on client certificates of %d bytes: expected at most %d.", n, maxForwarded)
	}
	if len(values) > 1 {
		return nil, forwardedError("%s comes %d times, expected once", by, len(values))
	}
	var texts []string
	switch by {
	case ClientCert:
		text, rest, ok := cutBytes(values[0])
		if !ok || rest != "" {
			return nil, forwardedError("%s is %s, expected base64 between colons", by, excerpt(values[0]))
		}
		texts = append(texts, text)
		chain, ok := cutList(strings.Join(h.Values(clientCertChain), ","))
		if !ok {
			return nil, forwardedError("%s is not a list of base64 between colons", clientCertChain)
		}
		if len(chain) > maxForwardedChain {
			return nil, forwardedError("%s holds %d certificates, expected at most %d", clientCertChain, len(chain), maxForwardedChain)
		}
		texts = append(texts, chain...)
	case ARRClientCert:
		texts = append(texts, strings.TrimSpace(values[0]))
	default:
		return nil, nil
	}
	var certs []*x509.Certificate
	for _, text := range texts {
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || strings.ContainsAny(text, "\r\n") { // which a decoder skips
			return nil, forwardedError("%s holds no base64", by)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, forwardedError("%s holds no certificate (%s), expected one in DER", by, err)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

func forwardedError(format string, args ...any) error {
	return engine.Errorf(engine.CodeInvalid, "clientcert.forwarded", "The proxy handed on no client certificate: "+format+".", args...)
}

func sum(values []string) (n int) {
	for _, v := range values {
		n += len(v)
	}
	return n
}

// cutList takes a list of byte sequences apart (RFC 9651 section 4.2.1). None of
// them has parameters here.
func cutList(s string) (texts []string, ok bool) {
	s = strings.Trim(s, " \t")
	for s != "" {
		text, rest, ok := cutBytes(s)
		if !ok {
			return nil, false
		}
		texts = append(texts, text)
		if rest == "" {
			break
		}
		if s, ok = strings.CutPrefix(rest, ","); !ok {
			return nil, false
		}
		if s = strings.TrimLeft(s, " \t"); s == "" {
			return nil, false // a comma at the end
		}
	}
	return texts, true
}

// cutBytes returns the text of a byte sequence (RFC 9651 section 4.2.7) at the
// beginning of s, and what follows, without the blanks between.
func cutBytes(s string) (text, rest string, ok bool) {
	s, ok = strings.CutPrefix(strings.TrimLeft(s, " "), ":")
	if !ok {
		return "", "", false
	}
	text, rest, ok = strings.Cut(s, ":")
	return text, strings.TrimLeft(rest, " \t"), ok
}
