package webhook_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
)

type secrets map[string]string

func (s secrets) Secret(_ context.Context, uri string) (string, error) {
	if v, ok := s[uri]; ok {
		return v, nil
	}
	return "", errors.New("403 SecretDisabled")
}

type tokens func(resource string) (string, error)

func (f tokens) Token(_ context.Context, resource string) (string, error) { return f(resource) }

// caught makes Options.Wrap answer everything itself and remember the requests.
type caught struct {
	mu   sync.Mutex
	all  []*http.Request
	fail error // of POSTs
}

func (c *caught) wrap(http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.all = append(c.all, r)
		if c.fail != nil && r.Method == http.MethodPost {
			return nil, c.fail
		}
		return &http.Response{StatusCode: 200, Header: http.Header{"Webhook-Allowed-Origin": {"*"}}, Body: http.NoBody}, nil
	})
}

const (
	vault    = "https://v.vault.azure.net/secrets/"
	codeRef  = "{@Microsoft.KeyVault(SecretUri=" + vault + "code)}"
	otherRef = "{@microsoft.keyvault(secreturi=" + vault + "other/1)}"
)

// A template and what becomes of it, for the event and for its validation.
func TestURLTemplates(t *testing.T) {
	source := secrets{
		vault + "code": "c0de", vault + "other/1": "k=1&l=2", vault + "url": "https://hidden.example/{hub}", vault + "scheme": "https",
		vault + "messy": "a b\"ü#frag",
	}
	ref := func(name string) string { return "{@Microsoft.KeyVault(SecretUri=" + vault + name + ")}" }
	tests := []struct{ name, template, hub, event, post, validate string }{
		{"plain", "https://h.example/events", "chat", "message", "https://h.example/events", "https://h.example/events"},
		{"host alone", "http://h.example:8080", "chat", "message", "http://h.example:8080", "http://h.example:8080"},
		{"parameters", "https://h.example/{hub}/{event}?h={HUB}&e={Event}", "chat", "a.b", "https://h.example/chat/a.b?h=chat&e=a.b", "https://h.example/chat/validate?h=chat&e=validate"},
		{"percent-encoded", "https://h.example/{hub}/{event}", "a[`].b", "x_y-z", "https://h.example/a%5B%60%5D.b/x_y-z", "https://h.example/a%5B%60%5D.b/validate"},
		{"escapes stay", "https://h.example/a%2Fb/{event}?x=%20", "chat", "m", "https://h.example/a%2Fb/m?x=%20", "https://h.example/a%2Fb/validate?x=%20"},
		{"query alone", "https://h.example?e={event}", "chat", "m", "https://h.example?e=m", "https://h.example?e=validate"},
		{"fragments are dropped", "https://h.example/x#{event}", "chat", "m", "https://h.example/x", "https://h.example/x"},
		{"secrets", "https://h.example/{event}?code=" + codeRef + "&" + otherRef, "chat", "m", "https://h.example/m?code=c0de&k=1&l=2", "https://h.example/validate?code=c0de&k=1&l=2"},
		{"a secret twice", "https://h.example/?a=" + codeRef + "&b=" + codeRef, "chat", "m", "https://h.example/?a=c0de&b=c0de", "https://h.example/?a=c0de&b=c0de"},
		{"a secret that is a URL", ref("url") + "/{event}", "chat", "m", "https://hidden.example/%7Bhub%7D/m", "https://hidden.example/%7Bhub%7D/validate"},
		{"a secret scheme", ref("scheme") + "://h.example/{event}", "chat", "m", "https://h.example/m", "https://h.example/validate"},
		{"a secret that needs escapes", "https://h.example/?c=" + ref("messy"), "chat", "m", "https://h.example/?c=a%20b%22%C3%BC", "https://h.example/?c=a%20b%22%C3%BC"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var seen caught
			c := newClient(t, test.template, &webhook.Options{Secrets: source, Wrap: seen.wrap})
			e := text("x")
			e.Hub, e.Name = engine.HubName(test.hub), engine.EventName(test.event)
			if _, err := c.UserEvent(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			if got := seen.all[0].URL.String(); got != test.validate {
				t.Errorf("validated %s, want %s", got, test.validate)
			}
			if got := seen.all[1].URL.String(); got != test.post {
				t.Errorf("posted to %s, want %s", got, test.post)
			}
		})
	}
}

// Templates that are refused when the client is made, without showing a query.
func TestBadTemplates(t *testing.T) {
	for name, test := range map[string]struct {
		template string
		code     engine.Code
		rule     string
	}{
		"empty":                     {"", engine.CodeInvalid, "event.template"},
		"relative":                  {"/events?code=s3cret", engine.CodeInvalid, "event.template"},
		"no host":                   {"https:///x?code=s3cret", engine.CodeInvalid, "event.template"},
		"opaque":                    {"https:x?code=s3cret", engine.CodeInvalid, "event.template"},
		"another scheme":            {"ftp://h.example/?code=s3cret", engine.CodeInvalid, "event.template"},
		"tunnel":                    {"tunnel:///path?code=s3cret", engine.CodeUnsupported, "event.template"},
		"hub in the host":           {"http://{hub}.example/?code=s3cret", engine.CodeInvalid, "event.template"},
		"event in the port":         {"http://h.example:{event}/?code=s3cret", engine.CodeInvalid, "event.template"},
		"hub ends the host":         {"http://h.example{hub}", engine.CodeInvalid, "event.template"},
		"parameter for a scheme":    {"{hub}://h.example/", engine.CodeInvalid, "event.template"},
		"unknown parameter":         {"http://h.example/{userId}", engine.CodeInvalid, "event.template"},
		"brace in a code":           {"http://h.example/?code=s3cret{x", engine.CodeInvalid, "event.template"},
		"closing brace":             {"http://h.example/?code=s3cret}", engine.CodeInvalid, "event.template"},
		"user and password":         {"http://user:s3cret@h.example/", engine.CodeInvalid, "event.template"},
		"control character":         {"http://h.example/?code=s3cret\n", engine.CodeInvalid, "event.template"},
		"bad port":                  {"http://h.example:x/?code=s3cret", engine.CodeInvalid, "event.template"},
		"bad escape":                {"http://h.example/%zz?code=s3cret", engine.CodeInvalid, "event.template"},
		"too long":                  {"http://h.example/?code=" + strings.Repeat("s3cret", 2000), engine.CodeInvalid, "event.template"},
		"reference without an end":  {"http://h.example/?c={@Microsoft.KeyVault(SecretUri=" + vault + "code", engine.CodeInvalid, "event.template"},
		"App Service's second form": {"http://h.example/?c={@Microsoft.KeyVault(VaultName=v;SecretName=s)}", engine.CodeInvalid, "event.template"},
		"reference over http":       {"http://h.example/?c={@Microsoft.KeyVault(SecretUri=http://v.vault.azure.net/secrets/x)}", engine.CodeInvalid, "event.template"},
		"reference to a key":        {"http://h.example/?c={@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/keys/x)}", engine.CodeInvalid, "event.template"},
		"reference, no source":      {"http://h.example/?c=" + codeRef, engine.CodeUnsupported, "event.template"},
		"link-local":                {"http://169.254.169.254/?code=s3cret", engine.CodeInternal, "event.address"},
		"link-local, mapped":        {"http://[::ffff:169.254.169.254]/?code=s3cret", engine.CodeInternal, "event.address"},
		"Azure's platform":          {"http://168.63.129.16/?code=s3cret", engine.CodeInternal, "event.address"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := webhook.New(test.template, nil)
			e := refusal(t, err, test.rule)
			if c != nil || e.Code != test.code {
				t.Errorf("got code %v, want %v", e.Code, test.code)
			}
			if e.Message == "" || strings.Contains(e.Error()+e.Detail, "s3cret") {
				t.Errorf("got message %q, detail %q", e.Error(), e.Detail)
			}
		})
	}
}

func TestBadOptions(t *testing.T) {
	for name, test := range map[string]struct {
		o    webhook.Options
		rule string
	}{
		"resource without tokens": {webhook.Options{Resource: "api://x"}, "event.token"},
		"origin is a URL":         {webhook.Options{Origin: "https://rt.example.com"}, "event.origin"},
		"origin has a line end":   {webhook.Options{Origin: "rt\r\nX: y"}, "event.origin"},
		"origin without brackets": {webhook.Options{Origin: "::1"}, "event.origin"},
		"origin is a port":        {webhook.Options{Origin: ":8080"}, "event.origin"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := webhook.New("http://h.example/", &test.o)
			refusal(t, err, test.rule)
		})
	}
}

func TestOrigin(t *testing.T) {
	for given, want := range map[string]string{
		"": "localhost", "rt.example.com": "rt.example.com", "rt.example.com:8080": "rt.example.com", "127.0.0.1:8080": "127.0.0.1", "[::1]:8080": "[::1]", "[::1]": "[::1]",
	} {
		var seen caught
		c := newClient(t, "http://h.example/", &webhook.Options{Origin: given, Wrap: seen.wrap})
		if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
			t.Fatal(err)
		}
		for _, r := range seen.all {
			if got := r.Header["WebHook-Request-Origin"]; len(got) != 1 || got[0] != want {
				t.Errorf("%q: %s sent %q, want %q", given, r.Method, got, want)
			}
		}
	}
}

// A secret that cannot be read, or makes no URL, fails the event; nothing is sent.
func TestSecretsThatFail(t *testing.T) {
	late := "{@Microsoft.KeyVault(SecretUri=" + vault + "code)}"
	for name, test := range map[string]struct{ template, secret, rule string }{
		"unreadable":            {"http://h.example/?c=" + codeRef, "", "event.secret"},
		"control character":     {"http://h.example/?c=" + codeRef, "s3cret\n", "event.template"},
		"not a URL":             {late, "s3cret", "event.template"},
		"tunnel":                {late, "tunnel:///s3cret", "event.template"},
		"parameter in its host": {late + "{hub}.example/", "http://s3cret.", "event.template"},
		"metadata address":      {late, "http://169.254.169.254/s3cret", "event.address"},
		"user and password":     {late, "http://user:s3cret@h.example", "event.template"},
	} {
		t.Run(name, func(t *testing.T) {
			source := secrets{}
			if test.secret != "" {
				source[vault+"code"] = test.secret
			}
			var seen caught
			c := newClient(t, test.template, &webhook.Options{Secrets: source, Wrap: seen.wrap})
			_, err := c.UserEvent(t.Context(), text("x"))
			e := refusal(t, err, test.rule)
			if e.Code != engine.CodeInternal || strings.Contains(e.Error()+e.Detail, "s3cret") {
				t.Errorf("got %v: %v, %s", e.Code, e, e.Detail)
			}
			if len(seen.all) != 0 {
				t.Errorf("%d requests were sent", len(seen.all))
			}
		})
	}
}

// No error shows a query or a secret, not even one that the transport repeats.
func TestErrorsShowNoSecret(t *testing.T) {
	seen := caught{fail: fmt.Errorf("middleman: %w", &url.Error{Op: "Post", URL: "http://h.example/m?k=t0p&code=s3cret", Err: errors.New("lookup s3cret with t0ken: no such host")})}
	synctest.Test(t, func(t *testing.T) { // for the pauses between attempts
		c := newClient(t, "http://127.0.0.1:1/{event}?k=t0p&code="+codeRef, &webhook.Options{Secrets: secrets{vault + "code": "s3cret"}, Wrap: seen.wrap,
			Tokens: tokens(func(string) (string, error) { return "t0ken", nil })})
		_, err := c.UserEvent(t.Context(), text("x"))
		e := refusal(t, err, "event.unreachable")
		if !strings.Contains(e.Error(), "no such host") {
			t.Errorf("the cause is lost: %v", e)
		}
		for _, s := range []string{e.Error(), e.Detail, c.String()} {
			if strings.Contains(s, "s3cret") || strings.Contains(s, "t0p") || strings.Contains(s, "t0ken") {
				t.Errorf("shown: %s", s)
			}
		}
		if got := c.String(); got != "http://127.0.0.1:1/{event}" {
			t.Errorf("got %s", got)
		}
	})
}

// names answers DNS questions for the rest of the test: with the address of
// that name, or that there is none.
func names(t *testing.T, addresses map[string]string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.Additionals = true, nil
			a, err := netip.ParseAddr(addresses[q.Name.String()])
			switch {
			case err == nil && a.Is4() && q.Type == dnsmessage.TypeA:
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}, Body: &dnsmessage.AResource{A: a.As4()}}}
			case err == nil && a.Is6() && q.Type == dnsmessage.TypeAAAA:
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class}, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}}}
			}
			if b, err := m.Pack(); err == nil {
				pc.WriteTo(b, from)
			}
		}
	})
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = old
		pc.Close()
		wg.Wait()
	})
}

// A handler by a name that leads to a forbidden address is refused when it is
// dialed, and not tried again; by a name that leads elsewhere it is reached.
func TestGuard(t *testing.T) {
	names(t, map[string]string{
		"imds.example.": "169.254.169.254", "imds6.example.": "fd00:ec2::254", "mapped.example.": "::ffff:169.254.169.254",
		"nat64.example.": "64:ff9b::a9fe:a9fe", "wire.example.": "168.63.129.16", "oracle.example.": "192.0.0.192", "oracle4.example.": "::ffff:192.0.0.192", "scaleway.example.": "fd00:42::42", "good.example.": "127.0.0.1", "lan.example.": "192.0.2.1",
	})
	for _, host := range []string{"imds", "imds6", "mapped", "nat64", "wire", "oracle", "oracle4", "scaleway"} {
		t.Run(host, func(t *testing.T) {
			c := newClient(t, "http://"+host+".example/", nil)
			_, err := c.UserEvent(t.Context(), text("x"))
			e := refusal(t, err, "event.validation")
			refusal(t, e.Err, "event.address")
			if got := c.Stats(); got.Attempts != 1 {
				t.Errorf("got %d attempts", got.Attempts)
			}
		})
	}
	u := &upstream{}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(serve(t, u), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	source := tokens(func(string) (string, error) { return "t0ken", nil })
	t.Run("an ordinary address", func(t *testing.T) {
		c := newClient(t, "http://good.example:"+port+"/", &webhook.Options{Tokens: source})
		if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
			t.Error(err)
		}
	})
	t.Run("a bearer token beyond this machine", func(t *testing.T) {
		c := newClient(t, "http://lan.example/", &webhook.Options{Tokens: source})
		_, err := c.UserEvent(t.Context(), text("x"))
		e := refusal(t, err, "event.validation")
		refusal(t, e.Err, "event.address")
	})
}

// Proxies of the environment are not used: the guard would not see the address.
func TestNoProxy(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("ALL_PROXY", "http://127.0.0.1:1")
	c := newClient(t, "http://h.example/", &webhook.Options{Wrap: func(base http.RoundTripper) http.RoundTripper {
		if base.(*http.Transport).Proxy != nil {
			t.Error("the transport uses proxies")
		}
		return (&caught{}).wrap(base)
	}})
	if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
		t.Error(err)
	}
}

// A bearer token goes with every event, but not with validations, and over
// plain http to this machine alone.
func TestBearerToken(t *testing.T) {
	asked := ""
	source := tokens(func(resource string) (string, error) { asked = resource; return "t0ken", nil })
	u := &upstream{}
	o := &webhook.Options{Tokens: source, Resource: "api://app"}
	c := newClient(t, serve(t, u), o)
	if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
		t.Fatal(err)
	}
	if got := u.last(t).header.Get("Authorization"); got != "Bearer t0ken" || asked != "api://app" {
		t.Errorf("got Authorization %q for resource %q", got, asked)
	}
	for _, r := range u.Checks() {
		if got := r.header.Get("Authorization"); got != "" {
			t.Errorf("the validation carried %q", got)
		}
	}

	_, err := webhook.New("http://192.0.2.1/", o)
	refusal(t, err, "event.address")
	if c, err := webhook.New("https://192.0.2.1/", o); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}

	// An address that only a secret tells: the guard sees it.
	c = newClient(t, "{@Microsoft.KeyVault(SecretUri="+vault+"url)}", &webhook.Options{Tokens: source, Secrets: secrets{vault + "url": "http://192.0.2.1/"}})
	_, err = c.UserEvent(t.Context(), text("x"))
	e := refusal(t, err, "event.validation")
	refusal(t, e.Err, "event.address")
}

func TestTokenThatFails(t *testing.T) {
	for name, source := range map[string]tokens{
		"error":      func(string) (string, error) { return "", errors.New("identity not found") },
		"empty":      func(string) (string, error) { return "", nil },
		"unsendable": func(string) (string, error) { return "a\r\nX-Evil: 1", nil },
	} {
		t.Run(name, func(t *testing.T) {
			u := &upstream{}
			c := newClient(t, serve(t, u), &webhook.Options{Tokens: source})
			_, err := c.Connect(t.Context(), &engine.ConnectEvent{EventContext: about(0)})
			if e := refusal(t, err, "event.token"); e.Status != 0 {
				t.Errorf("got %+v", e)
			}
			if n := len(u.Posts()); n != 0 {
				t.Errorf("%d events were sent without a token", n)
			}
		})
	}
}

// HTTP/2 is used where TLS offers it, and 1.1 where it does not.
func TestHTTP2IsPreferred(t *testing.T) {
	for _, proto := range []string{"HTTP/2.0", "HTTP/1.1"} {
		t.Run(proto, func(t *testing.T) {
			u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("ce-connectionState", "s")
				w.Header().Set("x-webpubsub-metadata-k", "v")
			}}
			s := httptest.NewUnstartedServer(u)
			s.EnableHTTP2 = proto == "HTTP/2.0"
			s.StartTLS()
			t.Cleanup(s.Close)
			roots := x509.NewCertPool()
			roots.AddCert(s.Certificate())
			c := newClient(t, s.URL, &webhook.Options{TLS: &tls.Config{RootCAs: roots}})
			e := text("x")
			e.UserID = "Änne"
			reply, err := c.UserEvent(t.Context(), e)
			if err != nil {
				t.Fatal(err)
			}
			r := u.last(t)
			if r.proto != proto || r.header.Get("ce-userId") != "Änne" || r.body != "x" {
				t.Errorf("got %+v", r)
			}
			if reply.Metadata["k"] != "v" || reply.UpdateState == nil {
				t.Errorf("got %+v", reply)
			}
		})
	}
}

// Many events at once, over either protocol, with few calls allowed.
func TestManyEventsAtOnce(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http2=%v", http2), func(t *testing.T) {
			u := &upstream{reply: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/plain")
				fmt.Fprint(w, r.Header.Get("ce-id"))
			}}
			s := httptest.NewUnstartedServer(u)
			s.EnableHTTP2 = http2
			s.StartTLS()
			t.Cleanup(s.Close)
			roots := x509.NewCertPool()
			roots.AddCert(s.Certificate())
			c := newClient(t, s.URL, &webhook.Options{TLS: &tls.Config{RootCAs: roots}, MaxCalls: 4})
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					for j := range 4 {
						e := text("x")
						e.ID = uint64(i*4 + j)
						reply, err := c.UserEvent(t.Context(), e)
						if err != nil || string(reply.Payload.Data) != fmt.Sprint(e.ID) {
							t.Errorf("event %d: got %+v, %v", e.ID, reply, err)
						}
					}
				})
			}
			wg.Wait()
			if got, want := c.Stats(), (webhook.Stats{Events: 200, Attempts: 201, Validations: 1}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

type traceKey struct{}

// What an embedder puts around the transport sees the event's context, on
// events and on validations.
func TestWrapSeesTheContext(t *testing.T) {
	u := &upstream{}
	c := newClient(t, serve(t, u), &webhook.Options{Wrap: func(base http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			id, _ := r.Context().Value(traceKey{}).(string)
			r.Header.Set("traceparent", id)
			return base.RoundTrip(r)
		})
	}})
	if _, err := c.UserEvent(context.WithValue(t.Context(), traceKey{}, "trace-1"), text("x")); err != nil {
		t.Fatal(err)
	}
	for _, r := range append(u.Posts(), u.Checks()...) {
		if got := r.header.Get("traceparent"); got != "trace-1" {
			t.Errorf("%s carried %q", r.method, got)
		}
	}
}

// Connections are used again, also after refusals.
func TestConnectionsAreReused(t *testing.T) {
	var mu sync.Mutex
	opened := 0
	status := http.StatusOK
	s := httptest.NewUnstartedServer(&upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, strings.Repeat("x", 10_000))
	}})
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			mu.Lock()
			opened++
			mu.Unlock()
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c := newClient(t, s.URL, nil)
	for _, status = range []int{403, 200, 401, 404, 200} {
		if _, err := c.UserEvent(t.Context(), text("x")); (err == nil) != (status == 200) {
			t.Errorf("%d: got %v", status, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if opened != 1 {
		t.Errorf("%d connections were opened for one event at a time", opened)
	}
}
