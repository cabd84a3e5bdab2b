package config

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fanfare/fanfare/authn/clientcert"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/websocket"
)

// maxTrust bounds the files about client certificates. A revocation list of a
// million certificates has some 40 MB.
const maxTrust = 64 << 20

// Set reports whether certificates let clients into the hub.
func (c ClientCerts) Set() bool { return c.CAFile != "" || len(c.Thumbprints) > 0 }

// Policy reads the files and returns what they and the other settings ask of
// certificates. log gets what goes wrong later. An error names the key at fault.
func (c ClientCerts) Policy(log *slog.Logger) (*clientcert.Policy, error) {
	trust := clientcert.Trust{Thumbprints: c.Thumbprints}
	for _, f := range []struct {
		key, name string
		into      *[]byte
	}{{"caFile", c.CAFile, &trust.Authorities}, {"crlFile", c.CRLFile, &trust.Revoked}} {
		if f.name == "" {
			continue
		}
		text, err := readTrust(f.name)
		if err != nil {
			return nil, &keyError{f.key, fmt.Sprintf("cannot read %s: %s", quote(f.name), err)}
		}
		*f.into = text
	}
	p, err := clientcert.NewPolicy(trust, &clientcert.Options{User: clientcert.Name(c.User), Roles: c.Roles, Logger: log})
	if e, ok := errors.AsType[*engine.Error](err); ok {
		key := map[string]string{"Authorities": "caFile", "Revoked": "crlFile", "Thumbprints": "thumbprints", "User": "user"}[e.Target]
		return nil, &keyError{key, said(err)}
	}
	return p, err
}

// keyError is what is wrong with one key of a section.
type keyError struct{ key, text string }

func (e *keyError) Error() string { return e.key + ": " + e.text }

// readTrust is read for files that may be longer, and that must hold something.
func readTrust(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTrust+1))
	switch {
	case err != nil:
		return nil, cause(err)
	case len(text) == 0:
		return nil, errors.New("it is empty")
	case len(text) > maxTrust:
		return nil, fmt.Errorf("longer than %d bytes", maxTrust)
	}
	return text, nil
}

// clientCerts checks what is said about client certificates.
func (d *decoder) clientCerts(c *Config) {
	if c.ClientCertHeader != "" {
		c.ClientCertHeader = d.oneOf(c.ClientCertHeader, "clientCertHeader", string(websocket.ClientCert), string(websocket.ARRClientCert))
		if len(c.TrustedProxies) == 0 {
			d.bad("clientCertHeader", "set without trustedProxies; expected the addresses of those who write it")
		}
	}
	if c.TLS.ClientCertEnabled && c.TLS.CertFile == "" {
		d.bad("tls.clientCertEnabled", "set without tls.certFile, so nobody is asked; expected TLS here, or clientCertHeader for a proxy that does TLS")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Hubs)) {
		path := join(join("hubs", name), "clientCertificates")
		of := c.Hubs[name].ClientCertificates
		if _, there := d.places[path]; !there && !of.said() {
			continue
		}
		of.User = d.oneOf(of.User, join(path, "user"), userNames()...)
		hub := c.Hubs[name]
		hub.ClientCertificates = of
		c.Hubs[name] = hub
		d.clientCertsOf(of, path)
		if of.Set() && !c.TLS.ClientCertEnabled && c.ClientCertHeader == "" {
			d.warn(d.placeOf(path), path, "no client is asked for a certificate: set tls.clientCertEnabled, or clientCertHeader behind a proxy that does TLS")
		}
	}
}

// said reports whether anything was set.
func (c ClientCerts) said() bool {
	return c.Set() || c.CRLFile != "" || len(c.Roles) > 0 || c.User != defaultHub().ClientCertificates.User
}

func (d *decoder) clientCertsOf(c ClientCerts, path string) {
	if !c.Set() {
		if !slices.ContainsFunc(d.problems, func(p Problem) bool { return strings.HasPrefix(p.Path, path+".") }) { // a misspelt key says enough
			d.bad(path, "trusts nobody; expected caFile, thumbprints or both")
		}
		return
	}
	for key, file := range map[string]string{"caFile": c.CAFile, "crlFile": c.CRLFile} {
		if strings.Contains(file, "\n") || strings.Contains(file, "-----BEGIN") {
			d.bad(join(path, key), "holds what belongs into a file; expected the file's name")
			return
		}
	}
	if c.CRLFile != "" && c.CAFile == "" {
		d.bad(join(path, "crlFile"), "set without caFile; expected the authorities that signed the lists")
		return
	}
	if !slices.Contains(clientcert.Names, clientcert.Name(c.User)) {
		return // which has been told
	}
	p, err := c.Policy(slog.New(slog.DiscardHandler))
	if e, ok := errors.AsType[*keyError](err); ok {
		d.bad(join(path, e.key), "%s", e.text)
	} else if err != nil {
		d.bad(path, "%s", err)
	}
	if err != nil {
		return
	}
	if issuer, stale := p.Stale(time.Now()); stale {
		d.warn(d.placeOf(join(path, "crlFile")), join(path, "crlFile"), "the list of %s is past its next update: its clients are refused", quote(issuer))
	}
	for i, pin := range c.Thumbprints {
		if len(strings.ReplaceAll(pin, ":", "")) == 40 {
			at := fmt.Sprintf("%s[%d]", join(path, "thumbprints"), i)
			d.warn(d.placeOf(at), at, "a SHA-1 thumbprint: whoever makes two certificates with the same one comes in with either; SHA-256 is better")
		}
	}
}

// userNames are the values of user.
func userNames() []string {
	var all []string
	for _, n := range clientcert.Names {
		all = append(all, string(n))
	}
	return all
}
