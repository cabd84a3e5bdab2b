package webhook

// Inside the package, for what has no door of its own: the parsers of what
// strangers send, one by one.

import (
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/fanfare/fanfare/engine"
)

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{
		"https://h.example/{hub}/{event}?code=x", "http://{hub}.example", "tunnel:///x", "{@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/a)}",
		"https://h.example/?c={@microsoft.keyvault(secreturi=https://v.vault.azure.net/secrets/a/1)}#x", "http://h/{userId}", "http://[::1]:80/%2F", "http://h/?a b\"<>", "{", ")}",
	} {
		f.Add(s, "chat", "message", "secret&x=1")
	}
	f.Fuzz(func(t *testing.T, s, hub, event, secret string) {
		tpl, err := parseTemplate(s)
		if err != nil {
			if e, ok := err.(*engine.Error); !ok || e.Message == "" || e.Rule == "" {
				t.Fatalf("got error %#v", err)
			}
			return
		}
		vals := map[string]string{}
		for _, uri := range tpl.refs {
			vals[uri] = secret
		}
		u, err := tpl.render(vals, hub, event)
		if err != nil {
			if len(tpl.refs) == 0 {
				t.Fatalf("%q parsed, but %q, %q made no URL: %v", s, hub, event, err)
			}
			return
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
			t.Fatalf("%q made %v", s, u)
		}
		if target := u.RequestURI(); strings.ContainsAny(target, " \r\n\t{}\"<>") || !isPrintable(target) {
			t.Fatalf("%q made the request target %q", s, target)
		}
		// The host must not depend on the parameters.
		other, err := tpl.render(vals, "x", "y")
		if err != nil || other.Host != u.Host || other.Scheme != u.Scheme {
			t.Fatalf("%q: host %q for %q and %q, %v, %v for others", s, u.Host, hub, event, other, err)
		}
		if strings.Contains(tpl.shown, "?") {
			t.Fatalf("%q is shown with its query: %q", s, tpl.shown)
		}
	})
}

func FuzzConnectReply(f *testing.F) {
	for _, s := range []string{
		"", "null", "{}", `{"userId":"a","roles":["r"],"groups":["g"],"subprotocol":"p"}`, `{"USERID":""}`, `{"groups":[null]}`, `{"roles":[]}`, "[]", "\ufeff{}", `{"userId":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := decodeConnect(body)
		if err != nil {
			if e, ok := err.(*engine.Error); !ok || e.Rule != "event.reply" || e.Status != 0 || r != nil {
				t.Fatalf("got %v, %#v", r, err)
			}
			return
		}
		if r == nil {
			return
		}
		if r.UserID != nil && *r.UserID != "" {
			if _, err := engine.ParseUserID(string(*r.UserID)); err != nil {
				t.Fatal(err)
			}
		}
		for _, g := range r.Groups {
			if _, err := engine.ParseGroupName(string(g)); err != nil {
				t.Fatal(err)
			}
		}
		if !isToken(r.Subprotocol) {
			t.Fatalf("subprotocol %q", r.Subprotocol)
		}
	})
}

// What decodes encodes back to the same meaning, fits into headers, and keeps
// to the bounds after any change.
func FuzzState(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("made by something else"))
	f.Add([]byte((&state{has: true}).encode()))
	f.Add([]byte((&state{has: true, text: "eyJhIjoxfQ==", cookies: []cookie{
		{name: "a", value: "1", domain: "example.com", path: "/"}, {name: "b", domain: "127.0.0.1", path: "/x", hostOnly: true, secure: true, quoted: true, expires: 1 << 41},
	}}).encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		again, err := decodeState(s.encode())
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("got %+v, %v after %+v", again, err, s)
		}
		text := "new"
		ch := change{state: &text, at: time.Unix(0, 0), cookies: []cookieChange{{cookie: cookie{name: "n", value: strings.Repeat("v", 4000), domain: "d", path: "/"}}}}
		after, err := decodeState(ch.apply(b))
		if err != nil || !after.has || after.text != text || len(after.cookies) == 0 || len(after.cookies) > maxCookies {
			t.Fatalf("after a change: %+v, %v", after, err)
		}
		total := 0
		for i := range after.cookies {
			total += after.cookies[i].size()
		}
		if total > maxAllCookie {
			t.Fatalf("%d bytes of cookies", total)
		}
	})
}

func TestStateKeepsEmptyApartFromNone(t *testing.T) {
	if h := (&state{}).encode(); h != nil {
		t.Errorf("nothing is encoded as %x", h)
	}
	s, err := decodeState((&state{has: true}).encode())
	if err != nil || !s.has || s.text != "" {
		t.Errorf("got %+v, %v", s, err)
	}
	s = stateOf((&state{cookies: []cookie{{name: "a", domain: "d", path: "/"}}}).encode())
	if s.has || len(s.cookies) != 1 {
		t.Errorf("got %+v", s)
	}
}

// sameAsCookieJar replays Set-Cookie lines of replies from one URL and compares
// what goes to another with what net/http/cookiejar would send.
func sameAsCookieJar(t *testing.T, from, to string, lines ...string) {
	t.Helper()
	f, err := url.Parse(from)
	if err != nil || f.Scheme != "http" && f.Scheme != "https" || f.Hostname() == "" {
		return
	}
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return
	}
	jar, err := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{"Set-Cookie": lines}
	for _, c := range (&http.Response{Header: h}).Cookies() {
		if len(c.Name)+len(c.Value)+len(c.Path)+len(c.Domain)+len(f.Path)+len(f.Host) > maxCookie {
			return // ours is bounded
		}
		if !c.Expires.IsZero() && time.Until(c.Expires).Abs() < time.Minute {
			return // the clocks are read at different times
		}
	}
	jar.SetCookies(f, (&http.Response{Header: h}).Cookies())
	var want []string
	for _, c := range jar.Cookies(u) {
		r := http.Request{Header: http.Header{}}
		r.AddCookie(c)
		want = append(want, r.Header.Get("Cookie"))
	}
	now := time.Now()
	cookies := applyCookies(nil, readCookies(h, f, now), now)
	var got []string
	if s := cookieHeader(cookies, u, now); s != "" {
		got = strings.Split(s, "; ")
	}
	// cookiejar orders paths by their letters, RFC 6265 by their length: the order is tested elsewhere.
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%q from %s to %s: got %q, cookiejar sends %q", lines, from, to, got, want)
	}
}

func TestCookiesAgreeWithCookieJar(t *testing.T) {
	urls := []string{
		"http://h.example/", "https://h.example/a/b", "http://H.EXAMPLE./a", "http://sub.h.example/a/bc", "http://localhost:8080/x", "http://app.localhost/", "http://127.0.0.1/a", "http://[::1]:80/a/b/",
		"https://example.co.uk/", "https://co.uk/", "http://other.example/",
	}
	lines := []string{
		"a=1", `a="1 2"`, "a=1; Path=/a", "a=1; Path=/a/", "a=1; Path=a", "a=1; Domain=h.example", "a=1; Domain=.H.Example", "a=1; Domain=example", "a=1; Domain=co.uk", "a=1; Domain=h.example.",
		"a=1; Domain=..h.example", "a=1; Domain=127.0.0.1", "a=1; Domain=.127.0.0.1", "a=1; Domain=localhost", "a=1; Secure", "a=1; Secure; Domain=h.example; Path=/", "a=1; Max-Age=10", "a=1; Max-Age=0", "a=1; Max-Age=-1",
		"a=1; Expires=Fri, 01 Jan 2100 00:00:00 GMT", "a=1; Expires=Mon, 01 Jan 2001 00:00:00 GMT", "a=1; Expires=Mon, 01 Jan 2001 00:00:00 GMT; Max-Age=10", "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "a=1; HttpOnly; SameSite=Strict", "=1", "a", "a=\x01", "ü=1",
	}
	for _, from := range urls {
		for _, to := range urls {
			for _, line := range lines {
				sameAsCookieJar(t, from, to, line)
				sameAsCookieJar(t, from, to, "a=0; Path=/", "b=0", line, "a=; Max-Age=0")
			}
		}
	}
}

func FuzzCookies(f *testing.F) {
	f.Add("http://sub.h.example/a/b", "https://h.example/a", "a=1; Domain=h.example; Path=/a", "b=2; Max-Age=1000")
	f.Fuzz(func(t *testing.T, from, to, first, second string) {
		for _, s := range []string{from, to} {
			// The jar turns names into Punycode, and takes a port that is none; our URLs hold neither.
			if !isPrintable(s) || strings.ContainsAny(s, "%\\") {
				return
			}
		}
		sameAsCookieJar(t, from, to, first, second)
	})
}

// Longer paths first, and of equally long ones the older cookie, which keeps
// its place when it is set again.
func TestCookieOrder(t *testing.T) {
	u, _ := url.Parse("http://h.example/a/b")
	now := time.Now()
	var cookies []cookie
	for _, line := range []string{"root=1; Path=/", "first=1; Path=/a", "second=1; Path=/a", "deep=1; Path=/a/b", "first=2; Path=/a"} {
		cookies = applyCookies(cookies, readCookies(http.Header{"Set-Cookie": {line}}, u, now), now)
	}
	if got, want := cookieHeader(cookies, u, now), "deep=1; first=2; second=1; root=1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestForbidden(t *testing.T) {
	for addr, want := range map[string]bool{
		"169.254.0.1": true, "169.254.169.254": true, "::ffff:169.254.169.254": true, "::169.254.169.254": true, "64:ff9b::169.254.169.254": true, "64:ff9b:1::a9fe:a9fe": true, "64:ff9b:1::127.0.0.1": false, "::ffff:0:169.254.169.254": true, "2002:a9fe:a9fe::1": true,
		"168.63.129.16": true, "::ffff:168.63.129.16": true, "168.63.129.17": false, "fe80::1": true, "fe80::1%eth0": true, "febf::1": true, "fec0::1": false,
		"fd00:ec2::254": true, "fd00:ec3::254": false, "fd20:ce::254": true, "100.100.100.200": true,
		"127.0.0.1": false, "::1": false, "10.0.0.1": false, "192.168.1.1": false, "8.8.8.8": false, "2001:db8::1": false, "169.253.255.255": false, "169.255.0.0": false, "0.0.0.0": false, "::": false,
	} {
		if got := forbidden(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
}
