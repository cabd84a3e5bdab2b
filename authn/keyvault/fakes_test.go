package keyvault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/keyvault"
)

// vault is Azure Key Vault as readers of secrets meet it, under any host name.
type vault struct {
	mu        sync.Mutex
	values    map[string]string // by path: with a slash at its end for the current version
	challenge string            // default: that of Azure's public cloud
	fail      func(w http.ResponseWriter, r *http.Request) bool
	bare      int      // requests without a token
	shown     []string // paths of those with one
}

const azureChallenge = `Bearer authorization="https://login.microsoftonline.com/72f988bf", resource="https://vault.azure.net"`

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	auth := r.Header.Get("Authorization")
	if auth == "" {
		v.bare++
	} else {
		v.shown = append(v.shown, r.URL.Path)
	}
	refuse := func(status int, code, inner, message string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"code":%q,"message":%q,"innererror":{"code":%q}}}`, code, message, inner)
	}
	switch {
	case r.URL.Query().Get("api-version") == "":
		refuse(400, "BadParameter", "", "api-version must be specified")
	case auth == "" || auth == "Bearer expired":
		challenge := v.challenge
		if challenge == "" {
			challenge = azureChallenge
		}
		w.Header().Set("WWW-Authenticate", challenge)
		refuse(401, "Unauthorized", "", "AKV10000: Request is missing a Bearer or PoP token.")
	case v.fail != nil && v.fail(w, r):
	case v.values[r.URL.Path] == "":
		refuse(404, "SecretNotFound", "", "A secret with (name/id) x was not found\nin this key vault.")
	default:
		fmt.Fprintf(w, `{"value":%q,"id":"https://%s%s","contentType":"text/plain","attributes":{"enabled":true,"created":1,"updated":1,"recoveryLevel":"Recoverable","recoverableDays":90},"tags":{}}`,
			v.values[r.URL.Path], r.Host, strings.TrimSuffix(r.URL.Path, "/"))
	}
}

// now changes the vault while it runs.
func (v *vault) now(change func(*vault)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(v)
}

// Bare returns how many requests came without a token.
func (v *vault) Bare() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.bare
}

// Shown returns the paths asked for with a token.
func (v *vault) Shown() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.shown)
}

// serve puts the vault behind TLS, with a certificate for Azure's vaults that roots
// vouch for. All that transport carries goes to it.
func (v *vault) serve(t *testing.T) (roots *x509.CertPool, transport func(*tls.Config) *http.Client) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"*.vault.azure.net"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(v)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	roots = x509.NewCertPool()
	roots.AddCert(certificate)
	return roots, func(c *tls.Config) *http.Client {
		tr := &http.Transport{TLSClientConfig: c, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		}}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
}

// direct carries requests to a handler without a network, so that time can be a
// test's own.
type direct struct{ h http.Handler }

func (d direct) Do(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("a request over %s", r.URL.Scheme)
	}
	r.RequestURI, r.Host = r.URL.RequestURI(), r.URL.Host
	w := httptest.NewRecorder()
	d.h.ServeHTTP(w, r)
	resp := w.Result()
	resp.Request = r
	return resp, r.Context().Err()
}

// tokens hands out tokens and notes for what.
type tokens struct {
	mu    sync.Mutex
	text  string // default "good"
	err   error
	asked []string
}

func (t *tokens) Token(_ context.Context, resource string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = append(t.asked, resource)
	if t.text == "" {
		return "good", t.err
	}
	return t.text, t.err
}

func (t *tokens) Asked() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.asked)
}

// secretsOf returns the secrets of a vault.
func secretsOf(t testing.TB, v http.Handler, source keyvault.TokenSource, o *keyvault.Options) *keyvault.Secrets {
	t.Helper()
	if o == nil {
		o = &keyvault.Options{}
	}
	if o.Transport == nil {
		o.Transport = direct{v}
	}
	s := keyvault.New(source, o)
	t.Cleanup(func() { s.Close() })
	return s
}

func want(t *testing.T, s *keyvault.Secrets, uri, value string) {
	t.Helper()
	if got, err := s.Secret(t.Context(), uri); err != nil || got != value {
		t.Errorf("%s is %q, %v; want %q", uri, got, err, value)
	}
}
