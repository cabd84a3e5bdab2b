package config

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// CORS is about pages of other origins that call REST or the identity API.
type CORS struct {
	AllowedOrigins []string `key:"allowedOrigins" doc:"origins whose pages may call REST and the identity API from a browser, such as https://app.example.com, or * for all; public keys are open to all; default: none"`
}

// Allows reports whether pages of an origin may call.
func (c CORS) Allows(origin string) bool {
	return slices.ContainsFunc(c.AllowedOrigins, func(o string) bool { return o == "*" || o == origin })
}

// cors checks the origins and puts them into the form that browsers send.
func (d *decoder) cors(c *CORS) {
	for i, o := range c.AllowedOrigins {
		c.AllowedOrigins[i] = d.corsOrigin(o, fmt.Sprintf("cors.allowedOrigins[%d]", i))
	}
}

func (d *decoder) corsOrigin(s, path string) string {
	if s == "*" {
		return s
	}
	lower := strings.TrimSuffix(strings.ToLower(s), "/")
	u, err := url.Parse(lower)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || !isHost(u.Hostname()) || !isPort(u.Port()) || lower != u.Scheme+"://"+u.Host {
		d.bad(path, "found %s; expected * or an origin: http:// or https://, a host, and perhaps a port, such as https://app.example.com", quote(s))
		return s
	}
	host := u.Host
	if u.Port() == map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		host = strings.TrimSuffix(host, ":"+u.Port())
	}
	return u.Scheme + "://" + host
}

// isPort reports whether s is the number of a port, or none.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}
