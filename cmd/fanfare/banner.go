package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// endpoint returns what clients and tokens call the service that listens on addr.
func endpoint(c *config.Config, addr net.Addr) string {
	if c.PublicEndpoint != "" {
		return c.PublicEndpoint
	}
	scheme := "http"
	if c.TLS.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + reachable(c.Listen, addr)
}

// reachable returns a host and port to dial for what listens on addr. A host
// name stays what the settings call it.
func reachable(listen string, addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return listen
	}
	if said, _, err := net.SplitHostPort(listen); err == nil && said != "" {
		host = said
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// banner tells a person what runs and how to reach it. A key that was set is not
// shown; the development key is public.
func banner(w io.Writer, self string, c *config.Config, addr net.Addr, metrics string) {
	at := endpoint(c, addr)
	module, commit := version()
	if commit != "" {
		module += " (" + commit + ")"
	}
	key := "<accessKeys.primary>"
	if c.AccessKeys.Primary == "" || c.AccessKeys.Primary == config.DevelopmentKey {
		key = config.DevelopmentKey.Reveal()
	}
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-18s  %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "\nFanfare %s\n\n", module)
	line("Listening on", "%s", addr)
	if c.DisableLocalAuth {
		line("Access keys", "switched off (disableLocalAuth)")
	} else {
		line("Connection string", "Endpoint=%s;AccessKey=%s;Version=1.0;", at, key)
	}
	if c.Entra.Enabled() {
		line("Microsoft Entra ID", "%s", strings.TrimRight(strings.TrimRight(c.Entra.Authority, "/")+"/"+c.Entra.TenantID, "/"))
	}
	line("Client URL", "ws%s/client/hubs/{hub}?access_token={token}", strings.TrimPrefix(at, "http"))
	kept := "in memory, and end with this node (store.dir keeps them)"
	if c.Store.Dir != "" {
		kept = "in " + filepath.Join(c.Store.Dir, storeFile)
	}
	if c.DisableLocalAuth {
		line("Users", "%s%s", at, usersPath)
	} else {
		line("Users", "endpoint=%s;accesskey=%s", at, key) // as the SDKs of Communication Services want it
	}
	line("", "kept %s", kept)
	line("Health", "%s/healthz, %s/readyz", at, at)
	if c.Identity.Type == config.IdentityLocal {
		lasting := ""
		if c.AccessKeys.Primary == "" || c.AccessKeys.Primary == config.DevelopmentKey {
			lasting = " (with a key that ends with this node; accessKeys.primary makes one that lasts)"
		}
		line("Token issuer", "%s%s", at, lasting)
	}
	if metrics != "" {
		line("Metrics", "http://%s/metrics", metrics)
	}
	if risks := risks(c); len(risks) > 0 {
		b.WriteString("\nNot secure:\n")
		for _, r := range risks {
			for i, text := range wrap(r, 76) {
				fmt.Fprintf(&b, "  %s%s\n", [2]string{"- ", "  "}[min(i, 1)], text)
			}
		}
	}
	if c.Development() && !c.DisableLocalAuth {
		address := ""
		if at != "http://127.0.0.1:8080" {
			address = fmt.Sprintf(" --connection-string '%s'", accesskeyString(at))
		}
		fmt.Fprintf(&b, "\nSee a message cross, in two other terminals:\n  %[1]s sub --hub chat --group lobby%[2]s\n  %[1]s pub --hub chat --group lobby 'hello'%[2]s\n", self, address)
	}
	b.WriteString("\n")
	io.WriteString(w, b.String()) //nolint:errcheck // a node without a terminal serves as well
}

// accesskeyString returns the development key's connection string for an endpoint.
func accesskeyString(endpoint string) string {
	return "Endpoint=" + endpoint + ";AccessKey=" + accesskey.DevelopmentKey + ";Version=1.0;"
}

// risks says what is insecure about the settings.
func risks(c *config.Config) []string {
	var r []string
	if c.Development() {
		r = append(r, "The access key is the development key, which everyone knows: whoever reaches this address may do anything. Set accessKeys.primary or FANFARE_ACCESS_KEYS_PRIMARY.")
	}
	if c.TLS.CertFile == "" && !strings.HasPrefix(c.PublicEndpoint, "https:") {
		r = append(r, "Without TLS, tokens and messages cross the network in clear text. Set tls.certFile and tls.keyFile, or publicEndpoint if a proxy in front does TLS.")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Hubs)) {
		if c.Hubs[name].AnonymousConnectPolicy == "allow" {
			r = append(r, fmt.Sprintf("Hub %s admits clients without a token (anonymousConnectPolicy: allow); what they may do is up to its connect handler.", name))
		}
	}
	return r
}

// newKey makes a key to copy.
func newKey() string { return accesskey.Generate().Reveal() }
