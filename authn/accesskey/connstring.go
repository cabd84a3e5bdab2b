package accesskey

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/fanfare/fanfare/authn/internal/audience"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// ConnectionString is what an application server needs to reach a service.
type ConnectionString struct {
	// Endpoint is the service's URL: http or https, a lower-case host, a port
	// unless it is the default, perhaps a path, no slash at the end.
	Endpoint string
	// Key is the access key.
	Key Key
}

// ParseConnectionString reads Endpoint=https://host;AccessKey=key;Version=1.0;
// as the service's SDKs do. Names may be in any case and order; blanks around
// names and values do not count; Port replaces the endpoint's port; Version and
// names that are not known are ignored. Where SDKs differ, what some refuse is
// refused: a part without =, a name twice, an endpoint without a scheme.
//
// Errors are of engine.CodeInvalid and never quote the key.
func ParseConnectionString(text string) (ConnectionString, error) {
	var c ConnectionString
	values := map[string]string{}
	for i, part := range strings.Split(text, ";") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if !ok {
			return c, invalid("part", "part %d has no =; expected Endpoint=...;AccessKey=...;", i+1)
		}
		if _, twice := values[name]; twice {
			return c, invalid("twice", "part %d repeats a name that came before", i+1)
		}
		values[name] = strings.TrimSpace(value)
	}
	if _, ok := values["authtype"]; ok {
		return c, invalid("authtype", "AuthType is of SignalR; expected Endpoint=...;AccessKey=...;")
	}
	endpoint, ok := values["endpoint"]
	if !ok || endpoint == "" {
		return c, invalid("endpoint", "the Endpoint is missing; expected one like https://host")
	}
	key, ok := values["accesskey"]
	if !ok || key == "" {
		return c, invalid("accesskey", "the AccessKey is missing")
	}
	var err error
	if c.Endpoint, err = parseEndpoint(endpoint, values["port"]); err != nil {
		return c, err
	}
	c.Key, err = ParseKey(key)
	return c, err
}

func parseEndpoint(text, port string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return "", invalid("endpoint", "the Endpoint is not a URL like https://host or http://host:8080")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return "", invalid("endpoint", "the Endpoint has the scheme %q; expected http or https", u.Scheme)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", invalid("endpoint", "the Endpoint has a user, query or fragment; expected only a host, and perhaps a path")
	}
	if port == "" {
		port = u.Port()
	}
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return "", invalid("port", "the port %q is not a number from 1 to 65535", port)
		}
		if u.Scheme == "http" && n != 80 || u.Scheme == "https" && n != 443 {
			host += ":" + strconv.FormatUint(n, 10)
		}
	}
	return u.Scheme + "://" + host + strings.TrimRight(u.EscapedPath(), "/"), nil
}

func invalid(rule, format string, args ...any) error {
	return engine.Errorf(engine.CodeInvalid, "connectionstring."+rule, "The connection string is not valid: "+format+".", args...)
}

// Reveal prints the connection string with its key.
func (c ConnectionString) Reveal() string {
	return "Endpoint=" + c.Endpoint + ";AccessKey=" + c.Key.Reveal() + ";Version=1.0;"
}

// String prints the connection string without its key.
func (c ConnectionString) String() string {
	return "Endpoint=" + c.Endpoint + ";AccessKey=" + c.Key.String() + ";Version=1.0;"
}

// Host returns the endpoint's host, with its port if it has one.
func (c ConnectionString) Host() string {
	host, _, _ := audience.Split(c.Endpoint)
	return host
}

// Addr returns the endpoint's host and port to dial.
func (c ConnectionString) Addr() string {
	if _, _, err := net.SplitHostPort(c.Host()); err == nil {
		return c.Host()
	}
	port := "443"
	if strings.HasPrefix(c.Endpoint, "http:") {
		port = "80"
	}
	return net.JoinHostPort(strings.Trim(c.Host(), "[]"), port)
}

// ClientToken mints a token for clients of a hub. The audience of claims is
// ignored; it is the hub's client endpoint.
func (c ConnectionString) ClientToken(hub engine.HubName, claims token.Claims) (string, error) {
	claims.Audience = token.Audience(c.Endpoint, hub)
	return token.Mint(token.NewKey([]byte(c.Key.text)), claims)
}

// ClientURL mints a token for clients of a hub and returns the address to
// connect to with it.
func (c ConnectionString) ClientURL(hub engine.HubName, claims token.Claims) (string, error) {
	text, err := c.ClientToken(hub, claims)
	if err != nil {
		return "", err
	}
	// http becomes ws, https becomes wss.
	return "ws" + strings.TrimPrefix(token.Audience(c.Endpoint, hub), "http") + "?access_token=" + text, nil
}

// ServerToken mints the token of a request to the service, for its Authorization
// header. url is the whole URL of the request.
func (c ConnectionString) ServerToken(url string) (string, error) {
	return token.Mint(token.NewKey([]byte(c.Key.text)), token.Claims{Audience: url})
}
