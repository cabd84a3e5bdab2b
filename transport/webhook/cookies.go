package webhook

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// Bounds of the cookies of one connection. RFC 6265 section 6.1 asks for at
// least 50 cookies a domain, of at least 4096 bytes each; the sum is ours,
// since every connection pays for it and common servers take no more headers.
const (
	maxCookies   = 50
	maxCookie    = 4096
	maxAllCookie = 16 << 10
)

// cookie is one stored cookie. The rules are those of RFC 6265 with a public
// suffix list, in the reading of net/http/cookiejar. That package cannot be
// used itself: its jars do not give their content away, so that it could not be
// stored with the connection.
type cookie struct {
	name, value  string
	domain, path string
	hostOnly     bool
	secure       bool
	quoted       bool
	expires      int64 // Unix milliseconds; 0 for none
}

func (c *cookie) size() int { return len(c.name) + len(c.value) + len(c.domain) + len(c.path) }

func (c *cookie) expired(now time.Time) bool { return c.expires != 0 && c.expires <= now.UnixMilli() }

func (c *cookie) same(d *cookie) bool {
	return c.name == d.name && c.domain == d.domain && c.path == d.path
}

// cookieChange is one Set-Cookie.
type cookieChange struct {
	cookie
	remove bool
}

// readCookies judges the Set-Cookie headers of a reply from u.
func readCookies(h http.Header, u *url.URL, now time.Time) []cookieChange {
	if len(h["Set-Cookie"]) == 0 {
		return nil
	}
	host := cookieHost(u)
	var out []cookieChange
	for _, sc := range (&http.Response{Header: h}).Cookies() {
		c := cookieChange{cookie: cookie{name: sc.Name, value: sc.Value, path: sc.Path, secure: sc.Secure, quoted: sc.Quoted}}
		if c.path == "" || c.path[0] != '/' {
			c.path = directory(u.Path)
		}
		var ok bool
		if c.domain, c.hostOnly, ok = cookieDomain(host, sc.Domain); !ok {
			continue
		}
		switch {
		case sc.MaxAge < 0:
			c.remove = true
		case sc.MaxAge > 0: // over Expires
			c.expires = now.Add(time.Duration(min(sc.MaxAge, maxAge)) * time.Second).UnixMilli()
		case !sc.Expires.IsZero():
			c.expires = sc.Expires.UnixMilli()
			c.remove = !sc.Expires.After(now)
		}
		if c.size() > maxCookie {
			continue
		}
		out = append(out, c)
	}
	return out
}

// maxAge keeps the sum of a time and a Max-Age within range: a century, in seconds.
const maxAge = 100 * 365 * 24 * 3600

// applyCookies returns cookies after the changes, within the bounds: beyond
// them the oldest go first. cookies are in the order of their creation.
func applyCookies(cookies []cookie, changes []cookieChange, now time.Time) []cookie {
	for i := range changes {
		c := &changes[i]
		at := slices.IndexFunc(cookies, func(old cookie) bool { return old.same(&c.cookie) })
		switch {
		case c.remove && at >= 0:
			cookies = slices.Delete(cookies, at, at+1)
		case c.remove:
		case at >= 0:
			cookies[at] = c.cookie // keeps its age, RFC 6265 section 5.3 number 11
		default:
			cookies = append(cookies, c.cookie)
		}
	}
	cookies = slices.DeleteFunc(cookies, func(c cookie) bool { return c.expired(now) })
	total := 0
	for i := len(cookies) - 1; i >= 0; i-- {
		total += cookies[i].size()
		if len(cookies)-i > maxCookies || total > maxAllCookie {
			return slices.Clone(cookies[i+1:])
		}
	}
	return cookies
}

// cookieHeader returns the Cookie header for a request to u; empty for none.
func cookieHeader(cookies []cookie, u *url.URL, now time.Time) string {
	if len(cookies) == 0 {
		return ""
	}
	host, path := cookieHost(u), u.Path
	if path == "" {
		path = "/"
	}
	var out []*cookie
	for i := range cookies {
		c := &cookies[i]
		if !c.expired(now) && c.forHost(host) && c.forPath(path) && c.forScheme(u.Scheme) {
			out = append(out, c)
		}
	}
	// Longer paths first, then older cookies: RFC 6265 section 5.4 number 2.
	slices.SortStableFunc(out, func(a, b *cookie) int { return len(b.path) - len(a.path) })
	r := http.Request{Header: http.Header{}}
	for _, c := range out {
		r.AddCookie(&http.Cookie{Name: c.name, Value: c.value, Quoted: c.quoted})
	}
	return r.Header.Get("Cookie")
}

func (c *cookie) forHost(host string) bool {
	return c.domain == host || !c.hostOnly && below(host, c.domain)
}

func (c *cookie) forPath(path string) bool {
	rest, ok := strings.CutPrefix(path, c.path)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(c.path, "/"))
}

// forScheme lets a Secure cookie out over https, and to this machine.
func (c *cookie) forScheme(scheme string) bool {
	if !c.secure || scheme == "https" || c.domain == "localhost" || below(c.domain, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(c.domain)
	return err == nil && a.IsLoopback()
}

// cookieDomain judges a Domain attribute of a reply from host.
func cookieDomain(host, attribute string) (domain string, hostOnly, ok bool) {
	if attribute == "" {
		return host, true, true
	}
	if _, err := netip.ParseAddr(host); err == nil || strings.Contains(host, ":") {
		return host, true, attribute == host // an address has no subdomains
	}
	domain = strings.ToLower(strings.TrimPrefix(attribute, "."))
	if domain == "" || domain[0] == '.' || domain[len(domain)-1] == '.' || !isPrintable(domain) {
		return "", false, false
	}
	if suffix := publicsuffix.List.PublicSuffix(domain); suffix != "" && !below(domain, suffix) {
		return host, true, host == domain // a public suffix may set cookies for itself alone
	}
	return domain, false, host == domain || below(host, domain)
}

// below reports whether host is a subdomain of domain.
func below(host, domain string) bool {
	sub, ok := strings.CutSuffix(host, domain)
	return ok && strings.HasSuffix(sub, ".") && len(sub) > 1
}

// cookieHost is the host of u as cookies compare it.
func cookieHost(u *url.URL) string {
	return strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
}

// directory is the default path of a cookie, RFC 6265 section 5.1.4.
func directory(path string) string {
	last := strings.LastIndexByte(path, '/')
	if last <= 0 || path[0] != '/' {
		return "/"
	}
	return path[:last]
}
