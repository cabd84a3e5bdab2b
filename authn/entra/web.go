package entra

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// Bounds of what an issuer may answer.
const (
	maxDocument = 256 << 10
	maxHeader   = 64 << 10
	maxKeys     = 100
	leastBits   = 2048 // of an RSA key (RFC 7518, section 3.3)
	mostBits    = 8192
)

// web is how an issuer's documents are got.
type web struct {
	plain  bool // over http too, to loopback
	base   *http.Transport
	client *http.Client
}

func newWeb(plain bool, o *IssuerOptions) *web {
	d := &net.Dialer{Timeout: patience, Control: guard}
	w := &web{plain: plain}
	w.base = &http.Transport{
		DialContext: d.DialContext, TLSClientConfig: o.TLS.Clone(), TLSHandshakeTimeout: patience, ForceAttemptHTTP2: true,
		IdleConnTimeout: pause, MaxResponseHeaderBytes: maxHeader,
		DisableCompression: true, // so that the limit on bodies counts what came over the wire
	}
	var rt http.RoundTripper = w.base
	if o.Wrap != nil {
		rt = o.Wrap(w.base)
	}
	w.client = &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return w
}

// guard refuses link-local addresses, where clouds keep a machine's metadata,
// whatever name leads there.
func guard(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ap.Addr().Unmap().IsLinkLocalUnicast() {
		return fmt.Errorf("%s is a link-local address", ap.Addr())
	}
	return nil
}

// callable reports whether a document may be got from u: over TLS or, where plain
// allows it, from a loopback address.
func callable(u *url.URL, plain bool) bool {
	if u.Hostname() == "" || u.User != nil {
		return false
	}
	if u.Scheme == "http" && plain {
		a, err := netip.ParseAddr(u.Hostname())
		return err == nil && a.Unmap().IsLoopback() || strings.EqualFold(u.Hostname(), "localhost")
	}
	return u.Scheme == "https"
}

// read reads the issuer's description of itself (OpenID Connect Discovery,
// section 4) and then its keys.
func (i *Issuer) read(ctx context.Context) (*keySet, error) {
	defer i.web.base.CloseIdleConnections() // the next reading is far away
	at := i.authority
	if i.tenant != "" {
		at = i.v2
	}
	var about struct {
		Issuer  string `json:"issuer"`
		KeysURL string `json:"jwks_uri"`
	}
	if err := i.web.get(ctx, at+"/.well-known/openid-configuration", &about); err != nil {
		return nil, err
	}
	// Whoever answers in the issuer's place must not get to say who it is. Of
	// providers without tenants some end their name with a slash.
	if i.tenant != "" && about.Issuer != i.v2 && about.Issuer != i.v1 || i.tenant == "" && strings.TrimRight(about.Issuer, "/") != i.authority {
		return nil, fmt.Errorf("the discovery document is that of the issuer %s, and not of %s", excerpt(about.Issuer), i)
	}
	u, err := url.Parse(about.KeysURL)
	if err != nil || !callable(u, i.web.plain) {
		return nil, fmt.Errorf("the discovery document names the jwks_uri %s: expected an https:// URL", excerpt(about.KeysURL))
	}
	var jwks struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := i.web.get(ctx, about.KeysURL, &jwks); err != nil {
		return nil, err
	}
	set, err := i.collect(ctx, jwks.Keys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u.Host, err)
	}
	set.issuer = about.Issuer
	return set, nil
}

// get reads one JSON document.
func (w *web) get(ctx context.Context, from string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	reply, err := w.client.Do(r)
	if err != nil {
		return err // which names the URL
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: answered %d; expected 200", from, reply.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxDocument+1))
	switch {
	case err != nil:
		return fmt.Errorf("GET %s: %w", from, err)
	case len(body) > maxDocument:
		return fmt.Errorf("GET %s: answered more than %d bytes", from, maxDocument)
	case json.Unmarshal(body, into) != nil:
		return fmt.Errorf("GET %s: the answer is not the JSON of such a document", from)
	}
	return nil
}

// collect makes a key set of those keys that can sign our tokens.
func (i *Issuer) collect(ctx context.Context, keys []json.RawMessage) (*keySet, error) {
	if len(keys) > maxKeys {
		return nil, fmt.Errorf("the issuer has %d keys; at most %d are accepted", len(keys), maxKeys)
	}
	var ids []string
	store := jwkset.NewMemoryStorage()
	for _, raw := range keys {
		key, ok := i.signingKey(raw)
		if !ok {
			continue
		}
		// Of two keys with one id the first counts.
		if id := key.Marshal().KID; !slices.Contains(ids, id) {
			if err := store.KeyWrite(ctx, key); err != nil {
				return nil, err
			}
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("none of the issuer's keys is an RSA key that signs with " + algorithm)
	}
	find, err := keyfunc.New(keyfunc.Options{Storage: store})
	if err != nil {
		return nil, err
	}
	// Its storage has a lock, so keyfunc is asked once a reading and not once a token.
	set := &keySet{ids: ids, keys: make(map[string]*rsa.PublicKey, len(ids))}
	for _, id := range ids {
		key, err := find.Keyfunc(&jwt.Token{Header: map[string]any{"alg": algorithm, "kid": id}})
		if err != nil {
			return nil, err
		}
		set.keys[id], _ = key.(*rsa.PublicKey) // as signingKey has seen to
	}
	return set, nil
}

// signingKey reads one key. One that is of no use here is nothing bad: providers
// have keys for other algorithms, and for encryption.
func (i *Issuer) signingKey(raw json.RawMessage) (key jwkset.JWK, ok bool) {
	var about struct {
		Type   string `json:"kty"`
		Use    string `json:"use"`
		Alg    string `json:"alg"`
		ID     string `json:"kid"`
		Issuer string `json:"issuer"` // Entra ID's own: whose tokens it may sign
	}
	if json.Unmarshal(raw, &about) != nil || about.Type != "RSA" || about.ID == "" || len(about.ID) > maxKeyID ||
		about.Use != "" && about.Use != "sig" || about.Alg != "" && about.Alg != algorithm {
		return key, false
	}
	if i.tenant != "" && about.Issuer != "" {
		if of := strings.ReplaceAll(about.Issuer, "{tenantid}", i.tenant); of != i.v1 && of != i.v2 {
			return key, false
		}
	}
	// The certificates beside the numbers say nothing that TLS has not said.
	key, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipAll: true})
	if err != nil {
		return key, false
	}
	public, ok := key.Key().(*rsa.PublicKey)
	return key, ok && public.N.BitLen() >= leastBits && public.N.BitLen() <= mostBits
}
