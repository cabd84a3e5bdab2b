package main

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
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/transport/client"
)

// person is whoever has a certificate.
type person struct {
	*x509.Certificate
	key  crypto.Signer
	from *person // who signed it; nil for itself
}

var nextSerial = int64(1000)

// issue makes a certificate for a client; a nil issuer signs it by itself.
func (by *person) issue(t *testing.T, name string, change func(*x509.Certificate)) *person {
	t.Helper()
	nextSerial++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(nextSerial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(c)
	}
	parent, signer := c, crypto.Signer(key)
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &person{made, key, by}
}

func (by *person) authority(t *testing.T, name string) *person {
	return by.issue(t, name, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.ExtKeyUsage, c.KeyUsage = true, true, nil, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	})
}

// revokes returns a list of those revoked, until some time from now.
func (by *person) revokes(t *testing.T, until time.Duration, others ...*person) string {
	t.Helper()
	nextSerial++
	l := &x509.RevocationList{Number: big.NewInt(nextSerial), NextUpdate: time.Now().Add(until)}
	l.ThisUpdate = l.NextUpdate.Add(-time.Hour)
	for _, o := range others {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: o.SerialNumber, RevocationTime: l.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, by.Certificate, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func (by *person) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: by.Raw}))
}

func (by *person) pin() string { s := sha256.Sum256(by.Raw); return hex.EncodeToString(s[:]) }

func (by *person) thumbprint() string { s := sha1.Sum(by.Raw); return hex.EncodeToString(s[:]) }

// shows is a client's TLS that shows the person's certificate, with those between
// it and the last above it; nil shows none. Unlike with Certificates, it is shown whatever
// authorities the server names.
func (by *person) shows() *tls.Config {
	o := &tls.Config{InsecureSkipVerify: true} // the test's own server
	if by == nil {
		return o
	}
	c := &tls.Certificate{Certificate: [][]byte{by.Raw}, PrivateKey: by.key}
	for above := by.from; above != nil && above.from != nil; above = above.from {
		c.Certificate = append(c.Certificate, above.Raw)
	}
	o.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
	return o
}

// enter dials as the person, with a token or without.
func (by *person) enter(t *testing.T, address, hub, token string, o client.Options) (*client.Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	o.TLS = by.shows()
	target := "wss://" + address + "/client/hubs/" + hub
	if token != "" {
		target += "?access_token=" + token
	}
	c, err := client.Dial(ctx, target, &o)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// in expects the person to come in, and as whom.
func (by *person) in(t *testing.T, address, hub, token, user string) *client.Client {
	t.Helper()
	c, err := by.enter(t, address, hub, token, client.Options{})
	if err != nil {
		t.Errorf("%s: %v; want to be let in", user, err)
		return nil
	}
	if hello := mustReceive[client.Connected](t, c); hello.UserID != user {
		t.Errorf("in as %q; want %q", hello.UserID, user)
	}
	return c
}

// out expects a refusal by its status and a part of its text.
func (by *person) out(t *testing.T, address, hub, token string, status int, says string) {
	t.Helper()
	_, err := by.enter(t, address, hub, token, client.Options{})
	if refused, ok := errors.AsType[*client.HandshakeError](err); !ok || refused.Status != status || !strings.Contains(refused.Body, says) {
		t.Errorf("%v; want %d, %q", err, status, says)
	}
}

// tlsNode returns the settings of a node with TLS, as far as they go.
func tlsNode(t *testing.T, more string) string {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, 1)
	return fmt.Sprintf("listen: 127.0.0.1:0\nmetrics: { listen: 127.0.0.1:0 }\ntls: { certFile: %s, keyFile: %s%s }\n", certFile, keyFile, more)
}

// guard is a connect handler as in Azure's sample: it lets in those whose
// thumbprints it knows and refuses all others.
type guard struct {
	*httptest.Server
	mu    sync.Mutex
	knows map[string]string // users by thumbprint
	saw   []connectBody
	heard []http.Header
}

// connectBody is what a connect event holds.
type connectBody struct {
	Claims, Query, Headers map[string][]string
	Subprotocols           []string
	ClientCertificates     []struct{ Thumbprint, Content string }
}

func newGuard(t *testing.T) *guard {
	g := &guard{knows: map[string]string{}}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w.Header().Set("WebHook-Allowed-Origin", "*")
			return
		}
		text, _ := io.ReadAll(r.Body)
		var body connectBody
		if err := json.Unmarshal(text, &body); err != nil || body.ClientCertificates == nil {
			t.Errorf("the connect event is %s", text)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.saw, g.heard = append(g.saw, body), append(g.heard, r.Header)
		if len(body.ClientCertificates) == 0 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		user, ok := g.knows[body.ClientCertificates[0].Thumbprint]
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"userId":%q,"groups":["lobby"]}`, user)
	}))
	t.Cleanup(g.Close)
	return g
}

// last returns the newest connect event and how many there were.
func (g *guard) last() (connectBody, http.Header, int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.saw)
	if n == 0 {
		return connectBody{}, nil, 0
	}
	return g.saw[n-1], g.heard[n-1], n
}

// As in Azure, a node asks for certificates, requires none and judges none: a
// connect handler does, by what the event shows.
func TestConnectHandlerJudgesCertificates(t *testing.T) {
	g := newGuard(t)
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", tlsNode(t, ", clientCertEnabled: true")+`hubs:
  chat: { anonymousConnectPolicy: allow, eventHandlers: [ { urlTemplate: "`+g.URL+`", systemEvents: [connect] } ] }
  closed: { eventHandlers: [ { urlTemplate: "`+g.URL+`", systemEvents: [connect] } ] }
`))
	var nobody *person
	known, other := nobody.issue(t, "known", nil), nobody.issue(t, "other", nil)
	g.knows[known.thumbprint()] = "drill-1"

	known.in(t, n.address, "chat", "", "drill-1")
	body, header, count := g.last()
	if count != 1 || len(body.ClientCertificates) != 1 || len(body.Claims) != 0 || body.Claims == nil || len(header.Values("Ce-Userid")) > 0 {
		t.Fatalf("the event is %+v, with %v", body, header)
	}
	shown := body.ClientCertificates[0]
	if block, rest := pem.Decode([]byte(shown.Content)); block == nil || string(block.Bytes) != string(known.Raw) || len(rest) > 0 || !strings.Contains(shown.Content, "-----\r\n") {
		t.Errorf("the content is %q", shown.Content)
	}
	if shown.Thumbprint != known.thumbprint() {
		t.Errorf("the thumbprint is %q", shown.Thumbprint)
	}
	other.out(t, n.address, "chat", "", 403, "")
	nobody.out(t, n.address, "chat", "", 401, "")
	if body, _, count := g.last(); count != 3 || body.ClientCertificates == nil || len(body.ClientCertificates) != 0 {
		t.Errorf("without a certificate the event is number %d, %+v", count, body)
	}

	// Whom the node itself refuses no handler hears of.
	known.out(t, n.address, "chat", "bad", 401, "token.malformed")
	known.out(t, n.address, "closed", "", 401, "admits no anonymous clients")
	if _, _, count := g.last(); count != 3 {
		t.Errorf("the handler was asked %d times; want 3", count)
	}
}

// A node judges certificates itself where its settings say whom it trusts, and
// follows the settings and their files while clients stay.
func TestClientCertificates(t *testing.T) {
	var nobody *person
	root, second, foreign := nobody.authority(t, "root"), nobody.authority(t, "second"), nobody.authority(t, "foreign")
	middle := root.authority(t, "middle")
	pinned, expired := nobody.issue(t, "pinned", nil), root.issue(t, "expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	valid, revoked := root.issue(t, "valid", nil), root.issue(t, "revoked", nil)

	caFile, crlFile := file(t, "ca.pem", root.pem()+middle.pem()), file(t, "ca.crl", root.revokes(t, time.Hour, revoked)+middle.revokes(t, time.Hour))
	base := tlsNode(t, ", clientCertEnabled: true")
	settings := func(pins string, more string) string {
		return base + more + `hubs:
  plant: { clientCertificates: { caFile: ` + caFile + `, crlFile: ` + crlFile + `, thumbprints: [` + pins + `], roles: [webpubsub.sendToGroup.telemetry] } }
  half: { anonymousConnectPolicy: allow, clientCertificates: { caFile: ` + caFile + `, user: thumbprint } }
  "*": { clientCertificates: { thumbprints: [` + pinned.pin() + `] } }
`
	}
	path := file(t, "fanfare.yaml", settings(pinned.pin(), ""))
	n := startNode(t, nil, "--config", path)

	// Who comes in, and as whom.
	stays := valid.in(t, n.address, "plant", "", "valid")
	if stays == nil {
		t.FailNow()
	}
	middle.issue(t, "deep", nil).in(t, n.address, "plant", "", "deep")
	pinned.in(t, n.address, "plant", "", "pinned")
	pinned.in(t, n.address, "any", "", "pinned")
	valid.in(t, n.address, "half", "", valid.thumbprint())
	nobody.in(t, n.address, "half", "", "") // anonymous clients are welcome there
	if err := stays.SendToGroup(t.Context(), "telemetry", text("x"), nil); err != nil {
		t.Errorf("with the role of the settings: %v", err)
	}
	if err := stays.SendToGroup(t.Context(), "lobby", text("x"), nil); err == nil {
		t.Error("a client may do more than its role says")
	}

	// Who does not.
	for rule, who := range map[string]*person{
		"clientcert.expired":   expired,
		"clientcert.notyet":    root.issue(t, "early", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }),
		"clientcert.usage":     root.issue(t, "server", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"clientcert.authority": foreign.issue(t, "valid", nil),
		"clientcert.revoked":   revoked,
		"token.missing":        nobody,
	} {
		who.out(t, n.address, "plant", "", 401, rule)
	}
	valid.out(t, n.address, "any", "", 401, "clientcert.pin")
	foreign.issue(t, "bad", nil).out(t, n.address, "half", "", 401, "clientcert.authority")
	nobody.out(t, n.address, "plant", "", 401, "or show a client certificate that the hub trusts")
	page := samples(t, metricsAt.FindStringSubmatch(n.out.String())[1])
	for rule, want := range map[string]float64{
		"clientcert.expired": 1, "clientcert.notyet": 1, "clientcert.usage": 1, "clientcert.authority": 2, "clientcert.revoked": 1, "clientcert.pin": 1, "token.missing": 2,
	} {
		if got := page[`fanfare_auth_refusals_total{door="client",rule="`+rule+`"}`]; got != want {
			t.Errorf("%s is counted %v times; want %v", rule, got, want)
		}
	}
	if said := n.err.wait(t, "clientcert.expired"); !strings.Contains(said, expired.pin()) {
		t.Errorf("the log does not say which certificate:\n%s", said)
	}

	// Clients of other protocols over the same door are judged alike.
	for who, status := range map[*person]int{valid: 101, expired: 401} {
		d := ws.Dialer{Timeout: patience, TLSConfig: who.shows(), Protocols: []string{"mqtt"}}
		c, _, _, err := d.Dial(t.Context(), "wss://"+n.address+"/clients/mqtt/hubs/plant")
		if err == nil {
			c.Close()
		}
		if refused := ws.StatusError(0); err == nil != (status == 101) || errors.As(err, &refused) && int(refused) != status {
			t.Errorf("over MQTT: %v; want %d", err, status)
		}
	}

	// A token decides before a certificate does.
	token := sign(t, accesskey.DevelopmentKey, "https://"+n.address+"/client/hubs/plant", time.Now().Add(time.Hour))
	expired.in(t, n.address, "plant", token, "ann")
	valid.out(t, n.address, "plant", token[:len(token)-4]+"AAAA", 401, "token.signature")

	// Lists and authorities are read again when they change; broken ones are not used.
	rewrite(t, crlFile, root.revokes(t, time.Hour, valid)+middle.revokes(t, time.Hour))
	eventually(t, "the new list counts", func() bool {
		_, err := valid.enter(t, n.address, "plant", "", client.Options{})
		return refusedWith(err, 401)
	})
	revoked.in(t, n.address, "plant", "", "revoked")
	rewrite(t, crlFile, "nonsense")
	eventually(t, "the broken list is told of", func() bool {
		valid.out(t, n.address, "plant", "", 401, "clientcert.revoked")
		return strings.Contains(n.err.String(), "what they held before stays in force")
	})
	rewrite(t, caFile, root.pem()+second.pem()+middle.pem())
	rewrite(t, crlFile, root.revokes(t, time.Hour)+middle.revokes(t, -time.Minute)+second.revokes(t, time.Hour))
	eventually(t, "the new authority is known", func() bool {
		_, err := second.issue(t, "new", nil).enter(t, n.address, "plant", "", client.Options{})
		return err == nil
	})
	valid.in(t, n.address, "plant", "", "valid")
	middle.issue(t, "deep", nil).out(t, n.address, "plant", "", 503, "clientcert.crl.stale")
	n.err.wait(t, "is past its next update")
	if err := stays.Ping(t.Context()); err != nil {
		t.Errorf("a connection did not outlive what its certificate was judged by: %v", err)
	}

	// The settings are followed, too: other pins, and nobody is asked any more.
	hangups := 0
	reload := func(settings string) {
		t.Helper()
		rewrite(t, path, settings)
		n.signals <- syscall.SIGHUP
		hangups++
		eventually(t, "the settings are read again", func() bool { return strings.Count(n.err.String(), "the settings were read again") == hangups })
	}
	fresh := nobody.issue(t, "fresh", nil)
	reload(settings(fresh.pin(), ""))
	fresh.in(t, n.address, "plant", "", "fresh")
	pinned.out(t, n.address, "plant", "", 401, "clientcert.authority")
	base = strings.Replace(base, ", clientCertEnabled: true", "", 1)
	reload(settings(fresh.pin(), ""))
	n.err.wait(t, "no client is asked for a certificate")
	fresh.out(t, n.address, "plant", "", 401, "token.missing")
	if err := stays.Ping(t.Context()); err != nil {
		t.Errorf("a connection did not outlive the settings: %v", err)
	}
}

// frontend is a proxy that ends TLS and hands on the certificates of its clients,
// as RFC 9440 has it.
func frontend(t *testing.T, to string) *httptest.Server {
	back := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Client-Cert")
		r.Header.Del("Client-Cert-Chain")
		for i, c := range r.TLS.PeerCertificates {
			name := "Client-Cert-Chain"
			if i == 0 {
				name = "Client-Cert"
			}
			r.Header.Add(name, ":"+base64.StdEncoding.EncodeToString(c.Raw)+":")
		}
		back.ServeHTTP(w, r)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// Behind a proxy that ends TLS the certificate it hands on is the client's: for
// the node's own judgement, for the handler's, and when a connection is
// recovered. Of anyone else the header is not looked at.
func TestForwardedCertificates(t *testing.T) {
	var nobody *person
	root := nobody.authority(t, "root")
	middle := root.authority(t, "middle")
	ann, bo := middle.issue(t, "ann", nil), middle.issue(t, "bo", nil)
	g := newGuard(t)
	g.knows[ann.thumbprint()] = "the handler's ann"
	settings := func(proxies string) string {
		return `listen: 127.0.0.1:0
trustedProxies: [` + proxies + `]
clientCertHeader: client-cert
hubs:
  plant: { clientCertificates: { caFile: ` + file(t, "ca.pem", root.pem()) + ` } }
  chat: { anonymousConnectPolicy: allow, eventHandlers: [ { urlTemplate: "` + g.URL + `", systemEvents: [connect] } ] }
`
	}
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", settings("127.0.0.1")))
	front := frontend(t, n.address).Listener.Addr().String()

	ann.in(t, front, "plant", "", "ann")
	nobody.issue(t, "ann", nil).out(t, front, "plant", "", 401, "clientcert.authority")
	nobody.out(t, front, "plant", "", 401, "token.missing")
	ann.in(t, front, "chat", "", "the handler's ann")
	if body, _, _ := g.last(); len(body.Headers["Client-Cert"])+len(body.Headers["Client-Cert-Chain"]) > 0 {
		t.Errorf("the handler sees the proxy's headers: %v", body.Headers)
	}
	bo.out(t, front, "chat", "", 403, "")

	// A client that claims another's certificate, through the proxy and past it.
	claim := client.Options{Header: http.Header{"Client-Cert": {":" + base64.StdEncoding.EncodeToString(ann.Raw) + ":"}}}
	if _, err := nobody.enter(t, front, "plant", "", claim); !refusedWith(err, 401) {
		t.Errorf("a claim through the proxy: %v; want 401", err)
	}
	wary := startNode(t, nil, "--config", file(t, "fanfare.yaml", settings("192.0.2.1")))
	for hub, status := range map[string]int{"plant": 401, "chat": 401} { // the handler refuses who shows none
		_, err := client.Dial(t.Context(), "ws://"+wary.address+"/client/hubs/"+hub, &claim)
		if !refusedWith(err, status) {
			t.Errorf("a claim past the proxy, into %s: %v; want %d", hub, err, status)
		}
	}
	if body, _, _ := g.last(); len(body.ClientCertificates)+len(body.Headers["Client-Cert"]) > 0 {
		t.Errorf("the handler sees a stranger's claim: %+v", body)
	}

	// A wire breaks: who shows the same certificate has the connection back, and
	// who has lost it meanwhile has not.
	for name, test := range map[string]struct {
		later *person
		back  bool
	}{"the same certificate": {ann, true}, "another certificate": {bo, false}, "no certificate": {nil, false}} {
		var wires []net.Conn // one after the other
		current := ann.shows()
		showing := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(i *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if current.GetClientCertificate == nil {
				return new(tls.Certificate), nil
			}
			return current.GetClientCertificate(i)
		}}
		c, err := client.Dial(t.Context(), "wss://"+front+"/client/hubs/plant", &client.Options{TLS: showing,
			NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				var d net.Dialer
				wire, err := d.DialContext(ctx, network, addr)
				wires = append(wires, wire)
				return wire, err
			}})
		if err != nil {
			t.Fatal(err)
		}
		mustReceive[client.Connected](t, c)
		current = test.later.shows()
		wires[0].Close()
		e, err := receive(t, c)
		if _, back := e.(client.Recovered); back != test.back || (err == nil) != test.back {
			t.Errorf("%s: %#v, %v; want to be back: %t", name, e, err, test.back)
		}
		c.Close()
	}
}
