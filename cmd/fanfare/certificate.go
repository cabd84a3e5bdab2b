package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// checkEvery is how often the files of a certificate are looked at, at most:
// handshakes do it, so a node that nobody calls does nothing.
const checkEvery = time.Second

// certificate is a TLS certificate that follows its files. Looking at their
// times, rather than being told of changes, works on every file system and with
// the symbolic links that Kubernetes swaps.
type certificate struct {
	// Fixed at birth.
	log *slog.Logger
	now func() time.Time

	mu                sync.Mutex // guards the rest
	certFile, keyFile string
	current           *tls.Certificate
	stamp             string    // of the files that were read last
	checked           time.Time // when they were last looked at
}

// newCertificate reads the files for the first time.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{log: log, now: time.Now}
	return c, c.use(certFile, keyFile)
}

// use turns to the given files, unless they cannot be read.
func (c *certificate) use(certFile, keyFile string) error {
	stamp := stampOf(certFile, keyFile)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.certFile, c.keyFile, c.current, c.stamp = certFile, keyFile, &pair, stamp
	return nil
}

// aeadSuites are the cipher suites of TLS 1.2: those with forward secrecy and authenticated
// encryption (RFC 9325 section 4.2). TLS 1.3 has no others.
var aeadSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// tlsConfig returns the settings of the doors' TLS. Whether clients are asked for
// a certificate is looked up at each handshake. None is required and none judged
// here: that is the business of the doors, which know the hub.
func (n *node) tlsConfig(cert *certificate) *tls.Config {
	plain := &tls.Config{
		GetCertificate: cert.get, MinVersion: tls.VersionTLS12, CipherSuites: aeadSuites, NextProtos: []string{"h2", "http/1.1"},
	}
	asking := plain.Clone()
	asking.ClientAuth = tls.RequestClientCert
	plain.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if n.settings.Load().config.TLS.ClientCertEnabled {
			return asking, nil
		}
		return nil, nil // plain itself
	}
	return plain
}

// get returns the certificate as its files have it. While they do not hold one,
// which is how it looks between the writing of the one file and of the other,
// it is the one they held before.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Sub(c.checked) < checkEvery {
		return c.current, nil
	}
	c.checked = now
	stamp := stampOf(c.certFile, c.keyFile)
	if stamp == c.stamp {
		return c.current, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		c.log.Warn("the TLS certificate has changed and cannot be used; the one before it stays", "file", c.certFile, "error", err)
	} else {
		c.current = &pair
		c.log.Info("the TLS certificate was read again", "file", c.certFile, "expires", pair.Leaf.NotAfter)
	}
	c.stamp = stamp // a broken pair is told of once
	return c.current, nil
}

// stampOf changes when one of the files does.
func stampOf(files ...string) string {
	stamp := ""
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			stamp += fmt.Sprintf("%d %d;", info.ModTime().UnixNano(), info.Size())
		} else {
			stamp += "gone;"
		}
	}
	return stamp
}
