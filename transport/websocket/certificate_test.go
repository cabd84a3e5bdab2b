package websocket_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/transporttest"
	"github.com/fanfare/fanfare/transport/websocket"
)

// standard is a certificate as RFC 9440 spells it, and arr as App Service does.
func standard(c tls.Certificate) string { return ":" + arr(c) + ":" }
func arr(c tls.Certificate) string      { return base64.StdEncoding.EncodeToString(c.Certificate[0]) }

// certificateHeaders are what nobody behind the door may see.
var certificateHeaders = []string{"Client-Cert", "Client-Cert-Chain", "X-Arr-Clientcert"}

// TestForwardedCertificate is whose word counts about a client's certificate, and
// that only the door hears it.
func TestForwardedCertificate(t *testing.T) {
	const proxy, stranger = "10.0.0.1:1234", "192.0.2.7:1234"
	leaf, above, top, own := clientCertificate(t), clientCertificate(t), clientCertificate(t), clientCertificate(t)
	for _, tt := range []struct {
		name   string
		by     websocket.CertificateHeader
		from   string
		tls    *tls.Certificate // what the peer itself showed
		header http.Header
		want   []tls.Certificate
		status int // of a refusal
		says   string
	}{
		{name: "the standard's, from a proxy", by: websocket.ClientCert, from: proxy,
			header: http.Header{"Client-Cert": {standard(leaf)}}, want: []tls.Certificate{leaf}},
		{name: "with a chain", by: websocket.ClientCert, from: proxy,
			header: http.Header{"Client-Cert": {standard(leaf)}, "Client-Cert-Chain": {standard(above) + " , " + standard(top)}}, want: []tls.Certificate{leaf, above, top}},
		{name: "with a chain in two lines", by: websocket.ClientCert, from: proxy,
			header: http.Header{"Client-Cert": {standard(leaf)}, "Client-Cert-Chain": {standard(above), standard(top)}}, want: []tls.Certificate{leaf, above, top}},
		{name: "App Service's, from a proxy", by: websocket.ARRClientCert, from: proxy,
			header: http.Header{"X-Arr-Clientcert": {arr(leaf)}}, want: []tls.Certificate{leaf}},
		{name: "from a proxy of IPv4 in IPv6", by: websocket.ClientCert, from: "[::ffff:10.0.0.1]:1234",
			header: http.Header{"Client-Cert": {standard(leaf)}}, want: []tls.Certificate{leaf}},
		{name: "none, from a proxy", by: websocket.ClientCert, from: proxy},
		{name: "a chain alone", by: websocket.ClientCert, from: proxy, header: http.Header{"Client-Cert-Chain": {standard(above)}}},

		{name: "from a stranger", by: websocket.ClientCert, from: stranger, header: http.Header{"Client-Cert": {standard(leaf)}}},
		{name: "from a stranger who has one", by: websocket.ClientCert, from: stranger, tls: &own,
			header: http.Header{"Client-Cert": {standard(leaf)}}, want: []tls.Certificate{own}},
		{name: "nonsense from a stranger", by: websocket.ClientCert, from: stranger, header: http.Header{"Client-Cert": {"x"}}},
		{name: "the header that the proxy does not write", by: websocket.ARRClientCert, from: proxy, header: http.Header{"Client-Cert": {standard(leaf)}}},
		{name: "and the other way round", by: websocket.ClientCert, from: proxy, header: http.Header{"X-Arr-Clientcert": {arr(leaf)}}},
		{name: "a header that is not believed", from: proxy, header: http.Header{"Client-Cert": {standard(leaf)}, "X-Arr-Clientcert": {arr(leaf)}}},
		{name: "the proxy's own", by: websocket.ClientCert, from: proxy, tls: &own},
		{name: "the proxy's own beside the client's", by: websocket.ClientCert, from: proxy, tls: &own,
			header: http.Header{"Client-Cert": {standard(leaf)}}, want: []tls.Certificate{leaf}},
		{name: "in TLS", from: stranger, tls: &own, want: []tls.Certificate{own}},

		{name: "two", by: websocket.ClientCert, from: proxy, header: http.Header{"Client-Cert": {standard(leaf), standard(above)}}, status: 400, says: "2 times"},
		{name: "two of App Service's", by: websocket.ARRClientCert, from: proxy, header: http.Header{"X-Arr-Clientcert": {arr(leaf), arr(above)}}, status: 400, says: "2 times"},
		{name: "not between colons", by: websocket.ClientCert, from: proxy, header: http.Header{"Client-Cert": {arr(leaf)}}, status: 400, says: "between colons"},
		{name: "two in one line", by: websocket.ClientCert, from: proxy, header: http.Header{"Client-Cert": {standard(leaf) + "," + standard(above)}}, status: 400, says: "between colons"},
		{name: "no base64", by: websocket.ClientCert, from: proxy, header: http.Header{"Client-Cert": {":$:"}}, status: 400, says: "no base64"},
		{name: "no certificate", by: websocket.ARRClientCert, from: proxy, header: http.Header{"X-Arr-Clientcert": {"AAAA"}}, status: 400, says: "no certificate"},
		{name: "an empty one", by: websocket.ClientCert, from: proxy, header: http.Header{"Client-Cert": {"::"}}, status: 400, says: "no certificate"},
		{name: "a comma at the chain's end", by: websocket.ClientCert, from: proxy,
			header: http.Header{"Client-Cert": {standard(leaf)}, "Client-Cert-Chain": {standard(above) + ","}}, status: 400, says: "not a list"},
		{name: "a long chain", by: websocket.ClientCert, from: proxy,
			header: http.Header{"Client-Cert": {standard(leaf)}, "Client-Cert-Chain": slices.Repeat([]string{standard(above)}, 10)}, status: 400, says: "at most 9"},
		{name: "too large", by: websocket.ClientCert, from: proxy,
			header: http.Header{"Client-Cert": {standard(leaf)}, "Client-Cert-Chain": {strings.Repeat("x", 33<<10)}}, status: 431, says: "at most 32768"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGate(t, websocket.Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, CertificateHeader: tt.by})
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/client/hubs/chat?access_token=good", nil)
			r.RemoteAddr = tt.from
			for name, value := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "X-Other": "y",
			} {
				r.Header.Set(name, value)
			}
			for name, values := range tt.header {
				r.Header[name] = values
			}
			if tt.tls != nil {
				c, err := x509.ParseCertificate(tt.tls.Certificate[0])
				if err != nil {
					t.Fatal(err)
				}
				r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
			}
			w := httptest.NewRecorder() // which cannot be upgraded: the door is as far as it goes
			g.handler.ServeHTTP(w, r)
			g.mu.Lock()
			defer g.mu.Unlock()
			if tt.status != 0 {
				if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) || len(g.shown) > 0 {
					t.Errorf("answered %d %q; want %d, %q", w.Code, w.Body, tt.status, tt.says)
				}
				return
			}
			if len(g.shown) != 1 || len(g.asked) != 1 {
				t.Fatalf("shown %d, asked %d: %d %s", len(g.shown), len(g.asked), w.Code, w.Body)
			}
			for who, got := range map[string]struct {
				certs  []*x509.Certificate
				header map[string][]string
			}{
				"the authenticator":   {g.shown[0].PeerCertificates, g.shown[0].Header},
				"the connect handler": {g.asked[0].PeerCertificates, g.asked[0].Header},
			} {
				if !slices.EqualFunc(got.certs, tt.want, func(c *x509.Certificate, w tls.Certificate) bool { return string(c.Raw) == string(w.Certificate[0]) }) {
					t.Errorf("%s sees %d certificates, or others; want %d", who, len(got.certs), len(tt.want))
				}
				for name := range got.header {
					if slices.Contains(certificateHeaders, name) {
						t.Errorf("%s sees the header %s", who, name)
					}
				}
				if got.header["X-Other"] == nil {
					t.Errorf("%s does not see the other headers", who)
				}
			}
		})
	}
}

// TestRecoveryForwardsTheCertificateAgain is a client behind a proxy: what the
// proxy says of its certificate counts as the certificate itself does.
func TestRecoveryForwardsTheCertificateAgain(t *testing.T) {
	e := echoEngine(t, engine.Options{})
	guests := &transporttest.Guests{}
	behind := serve(t, e, guests, network{}, websocket.Options{
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, CertificateHeader: websocket.ClientCert,
	})
	// The same engine by a door that trusts nobody: here the peer is a stranger.
	open := serve(t, e, guests, network{}, websocket.Options{CertificateHeader: websocket.ClientCert})
	dial := func(s *server, target string, certs ...tls.Certificate) *conn {
		t.Helper()
		header := http.Header{}
		for _, c := range certs {
			header.Add("Client-Cert", standard(c))
		}
		c, res := s.dial(t, target, reliableJSON, header)
		if c == nil {
			t.Fatal(res)
		}
		return c
	}
	mine, another := clientCertificate(t), clientCertificate(t)
	c := dial(behind, "/client/hubs/chat?access_token="+guests.Invite(engine.Identity{}), mine)
	me := c.hello()
	c.Drop()
	dial(behind, me.recovery()).notRecovered()
	dial(behind, me.recovery(), another).notRecovered()
	dial(open, me.recovery(), mine).notRecovered()
	if again := dial(behind, me.recovery(), mine).hello(); again != me {
		t.Errorf("%+v came back as %+v", me, again)
	}
}
