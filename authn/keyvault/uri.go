package keyvault

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/fanfare/fanfare/engine"
)

// domains are those of Azure's own vaults, in its public and sovereign clouds
// (Azure Key Vault, "DNS suffixes for object identifiers").
var domains = []string{"vault.azure.net", "vault.azure.cn", "vault.usgovcloudapi.net"}

// URI names a secret, of one version or of the one that is current.
type URI struct {
	host          string // in lower case, with a port if it is not 443
	name, version string
	domain        string // of Azure's, where the vault is one
}

// ParseURI reads https://VAULT/secrets/NAME[/VERSION], with or without a slash at
// its end. The error is an *[engine.Error].
func ParseURI(s string) (URI, error) {
	refuse := func(format string, args ...any) (URI, error) {
		return URI{}, &engine.Error{Code: engine.CodeInvalid, Rule: "keyvault.uri",
			Message: "What should be the URI of a secret is not: " + fmt.Sprintf(format, args...) + "; expected https://VAULT/secrets/NAME, optionally followed by /VERSION."}
	}
	u, err := url.Parse(s)
	if err != nil || len(s) > 512 {
		return refuse("it is no URL")
	}
	if u.Scheme != "https" {
		return refuse("it does not begin with https://")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return refuse("it holds more than a host and a path")
	}
	host, err := parseHost(u.Host)
	if err != nil {
		return refuse("%s", err)
	}
	// Names and versions are letters, digits and hyphens, so nothing is escaped.
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(u.EscapedPath(), "/"), "/"), "/")
	if len(parts) < 2 || len(parts) > 3 || !strings.EqualFold(parts[0], "secrets") {
		return refuse("its path is not that of a secret")
	}
	for _, part := range parts[1:] {
		if !isName(part) {
			return refuse("a name or version in it is not 1 to 127 letters, digits and hyphens")
		}
	}
	r := URI{host: host, name: parts[1]}
	if len(parts) == 3 {
		r.version = parts[2]
	}
	for _, domain := range domains {
		if vault, ok := strings.CutSuffix(host, "."+domain); ok && isName(vault) {
			r.domain = domain
		}
	}
	return r, nil
}

func isName(s string) bool {
	return s != "" && len(s) <= 127 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && (r < '0' || '9' < r) && (r|0x20 < 'a' || 'z' < r|0x20)
	})
}

// parseHost returns a host in the form in which hosts are compared.
func parseHost(s string) (string, error) {
	if strings.Contains(s, "/") {
		return "", fmt.Errorf("%.64q is not a host", s)
	}
	name, port, err := net.SplitHostPort(s)
	if err != nil {
		name, port = strings.Trim(s, "[]"), ""
	}
	name = strings.ToLower(name)
	if _, err := netip.ParseAddr(name); err != nil && (name == "" || len(name) > 253 || strings.ContainsFunc(name, func(r rune) bool {
		return r != '.' && r != '_' && !isName(string(r))
	})) {
		return "", fmt.Errorf("%.64q is not a host", s)
	}
	if port == "" || port == "443" {
		if strings.Contains(name, ":") {
			return "[" + name + "]", nil
		}
		return name, nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%.16q is not a port", port)
	}
	return net.JoinHostPort(name, port), nil
}

// Azure reports whether the vault is one of Azure's own.
func (u URI) Azure() bool { return u.domain != "" }

// Versioned reports whether the URI names a version, whose value never changes.
func (u URI) Versioned() bool { return u.version != "" }

// String returns the URI in one form. It holds nothing secret.
func (u URI) String() string {
	s := "https://" + u.host + "/secrets/" + u.name
	if u.version != "" {
		s += "/" + u.version
	}
	return s
}

// Hosts are the vaults that may be asked: all of Azure's own, and further ones.
// They do not change.
type Hosts struct{ further map[string]bool }

// NewHosts returns the hosts with further ones, each a host name or an address,
// with a port if it is not 443. The error is an *[engine.Error].
func NewHosts(further ...string) (*Hosts, error) {
	h := &Hosts{map[string]bool{}}
	for _, s := range further {
		host, err := parseHost(s)
		if err != nil {
			return nil, &engine.Error{Code: engine.CodeInvalid, Rule: "keyvault.host",
				Message: fmt.Sprintf("Not the host of a vault: %s; expected a host name, with a port if it is not 443, such as vault.example.com.", err)}
		}
		h.further[host] = true
	}
	return h, nil
}

// Check returns nil if the vault of u may be asked, and else an *[engine.Error].
func (h *Hosts) Check(u URI) error {
	if u.Azure() || h != nil && h.further[u.host] {
		return nil
	}
	return &engine.Error{Code: engine.CodeForbidden, Rule: "keyvault.host",
		Message: fmt.Sprintf("The vault %s may not be asked: it is none of Azure's (*.%s) and not among the allowed hosts.", u.host, strings.Join(domains, ", *."))}
}
