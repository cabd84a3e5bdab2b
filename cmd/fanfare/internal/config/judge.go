package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/webhook"
	"github.com/fanfare/fanfare/transport/websocket"
)

// judge checks what one value alone cannot show, and each value's own rules. It
// may change values to the one form that the rest of the node knows.
func (d *decoder) judge(c *Config) {
	listen := d.address(c.Listen, "listen")
	if c.PublicEndpoint != "" {
		c.PublicEndpoint = d.endpoint(c.PublicEndpoint, "publicEndpoint")
	}
	for i, h := range c.AudienceHosts {
		d.host(h, fmt.Sprintf("audienceHosts[%d]", i))
	}
	d.origins(c.AllowedOrigins, "allowedOrigins")
	d.openOrigins(c)
	d.origins(c.CORS.AllowedOrigins, "cors.allowedOrigins")
	d.certificate(c)
	d.clientCerts(c)
	d.keys(c, listen)
	d.entra(&c.Entra)
	d.identity(c)
	d.users(c)
	for name, h := range c.Hubs {
		d.hub(&h, join("hubs", name), c)
		c.Hubs[name] = h
	}
	d.limits(&c.Limits)
	if t := c.Drain.Timeout; t < time.Millisecond || t > time.Hour {
		d.bad("drain.timeout", "found %s; expected 1ms to 1h", span(t))
	}
	if c.Metrics.Listen != "" {
		d.address(c.Metrics.Listen, "metrics.listen")
		if c.Metrics.Listen == c.Listen && !strings.HasSuffix(c.Listen, ":0") {
			d.bad("metrics.listen", "found the address of listen; expected another one")
		}
	}
	c.Log.Format = d.oneOf(c.Log.Format, "log.format", "text", "json")
	if !c.DisableLocalAuth {
		return
	}
	if !c.Entra.Enabled() {
		d.warn(d.placeOf("disableLocalAuth"), "disableLocalAuth",
			"REST has no way in and clients have no tokens while access keys are off and entra.tenantId is not set")
	} else if c.AccessKeys.Primary == "" {
		d.warn(d.placeOf("disableLocalAuth"), "disableLocalAuth",
			"client tokens that this node generates end with its process, and open no other node: what signs them is derived from accessKeys, and none is set")
	}
}

// entra checks whose tokens are accepted, and what they allow.
func (d *decoder) entra(e *Entra) {
	if issuer, err := entra.NewIssuer(e.Authority, e.TenantID, nil); err != nil {
		d.bad(join("entra", target(err)), "%s", said(err))
	} else {
		issuer.Close()
	}
	for i, audience := range e.Audiences {
		if audience == "" || strings.TrimSpace(audience) != audience {
			d.bad(fmt.Sprintf("entra.audiences[%d]", i), "found %s; expected what tokens are for, such as %s", quote(audience), entra.Audience)
		}
	}
	if e.KeepKeys < time.Minute || e.KeepKeys > 720*time.Hour {
		d.bad("entra.keepKeys", "found %s; expected 1m to 720h", span(e.KeepKeys))
	}
	roles := entra.NewRoles()
	for i, r := range e.RoleDefinitions {
		if err := roles.Define(r.Name, r.DataActions...); err != nil {
			d.bad(fmt.Sprintf("entra.roleDefinitions[%d]", i), "%s", said(err))
		}
	}
	for i, a := range e.RoleAssignments {
		if err := roles.Assign(a.PrincipalID, a.Role, a.Hub); err != nil {
			d.bad(join(fmt.Sprintf("entra.roleAssignments[%d]", i), target(err)), "%s", said(err))
		}
	}
	if e.Enabled() {
		if len(e.RoleAssignments) == 0 {
			d.warn(d.placeOf("entra"), "entra.roleAssignments", "nobody has a role, so tokens of Microsoft Entra ID open nothing")
		}
		return
	}
	for _, key := range []string{"audiences", "keepKeys", "roleAssignments", "roleDefinitions"} {
		if at, ok := d.places[join("entra", key)]; ok {
			d.warn(at, join("entra", key), "not used while entra.tenantId is not set")
		}
	}
}

// target returns the parameter that an error of another room is about.
func target(err error) string {
	if e, ok := errors.AsType[*engine.Error](err); ok {
		return e.Target
	}
	return ""
}

// bad is a problem at the place where path was set. It says nothing if that
// value, or what it stands in, could not even be read: that has been told.
func (d *decoder) bad(path, format string, args ...any) {
	if !d.told(path) {
		d.problem(d.placeOf(path), path, format, args...)
	}
}

// told reports whether path, or what it stands in, could not be read.
func (d *decoder) told(path string) bool {
	return slices.ContainsFunc(d.problems, func(p Problem) bool {
		rest, ok := strings.CutPrefix(path, p.Path)
		return ok && p.unread && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func (d *decoder) oneOf(got, path string, known ...string) string {
	for _, k := range known {
		if strings.EqualFold(got, k) {
			return k
		}
	}
	d.bad(path, "found %s; expected %s", quote(got), strings.Join(known, " or "))
	return got
}

// invalid stands for the host of an address that is none.
const invalid = "\x00"

// address checks a listening address and returns its host.
func (d *decoder) address(s, path string) (host string) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		d.bad(path, "found %s; expected HOST:PORT, such as 127.0.0.1:8080 or :8080", quote(s))
		return invalid
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		d.bad(path, "found the port %s; expected a number from 0 to 65535", quote(port))
	} else if strconv.FormatUint(n, 10) != port {
		d.bad(path, "found the port %s; expected %d", quote(port), n)
	}
	if host != "" && !isHost(host) {
		d.bad(path, "found the host %s; expected an IP address or a host name", quote(host))
	}
	return host
}

// isHost reports whether s may be the name or the address of a host.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label {
			return false
		}
		for _, c := range label {
			if c != '-' && c != '_' && (c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c)) {
				return false
			}
		}
	}
	return true
}

func (d *decoder) host(s, path string) {
	name := s
	if strings.Contains(s, "/") {
		name = ""
	} else if h, port, err := net.SplitHostPort(s); err == nil {
		name = h
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			d.bad(path, "found the port %s; expected a number from 1 to 65535", quote(port))
			return
		}
	}
	if !isHost(strings.Trim(name, "[]")) {
		d.bad(path, "found %s; expected a host name, with a port if it is not the scheme's own, such as rt.example.com", quote(s))
	}
}

// origins checks a list of allowed origins.
func (d *decoder) origins(list []string, path string) {
	for i, s := range list {
		if _, err := websocket.ParseOriginPattern(s); err != nil {
			d.bad(fmt.Sprintf("%s[%d]", path, i), "%s", err)
		}
	}
}

// openOrigins warns of "*" where nothing but the origin tells the user's own pages
// from others.
func (d *decoder) openOrigins(c *Config) {
	warn := func(list []string, path, why string) {
		if slices.Contains(list, "*") {
			d.warn(d.placeOf(path), path, "* lets every page that a user opens connect %s", why)
		}
	}
	if c.Development() {
		warn(c.AllowedOrigins, "allowedOrigins", "with the development key, which everyone knows")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Hubs)) {
		hub, path := c.Hubs[name], join(join("hubs", name), "allowedOrigins")
		if c.Development() {
			warn(hub.AllowedOrigins, path, "with the development key, which everyone knows")
			continue
		}
		list := hub.AllowedOrigins
		if len(list) == 0 {
			list, path = c.AllowedOrigins, "allowedOrigins"
		}
		if hub.ClientCertificates.Set() {
			warn(list, path, "with the user's certificate to hub "+name)
		}
	}
}

// endpoint checks a public endpoint and returns it in one form, without a slash
// at its end.
func (d *decoder) endpoint(s, path string) string {
	u, err := url.Parse(s)
	if err != nil {
		u = &url.URL{}
	}
	port, portErr := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		// Not quoted: a URL may hold a password.
		d.bad(path, "not an endpoint; expected http:// or https:// and a host, such as https://rt.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		d.bad(path, "holds more than an endpoint; expected a scheme, a host and perhaps a port and a path, such as https://rt.example.com")
	case !isPublicPath(u.EscapedPath()):
		d.bad(path, "has a path that cannot stand before the node's own; expected at most %d letters, digits, -, ., _ and ~ between slashes, and first none of %s, as in https://example.com/rt", maxPublicPath, strings.Join(ownPaths, ", "))
	case !isHost(u.Hostname()):
		d.bad(path, "found the host %s; expected an IP address or a host name", quote(u.Hostname()))
	case u.Port() != "" && (portErr != nil || port == 0):
		d.bad(path, "found the port %s; expected a number from 1 to 65535", quote(u.Port()))
	}
	return u.Scheme + "://" + strings.TrimSuffix(u.Host, ":") + strings.TrimSuffix(u.Path, "/")
}

const maxPublicPath = 256

// ownPaths begin the paths of the node itself. Behind one of them it could not be told
// whether a proxy has removed the public path.
var ownPaths = []string{"api", "client", "clients", "identities", "teamsUser", "access", "healthz", "readyz", "console", ".well-known"}

// isPublicPath reports whether path, perhaps with a slash at its end, may stand before the
// node's own paths.
func isPublicPath(path string) bool {
	path = strings.TrimSuffix(path, "/")
	if path == "" {
		return true
	}
	for i, part := range strings.Split(path[1:], "/") {
		if part == "" || strings.Trim(part, ".") == "" || i == 0 && slices.Contains(ownPaths, part) {
			return false
		}
		for _, c := range part {
			if c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-._~", c) {
				return false
			}
		}
	}
	return len(path) <= maxPublicPath
}

func (d *decoder) certificate(c *Config) {
	switch t := c.TLS; {
	case t.CertFile == "" && t.KeyFile == "":
	case t.KeyFile == "":
		d.bad("tls.certFile", "set without tls.keyFile; expected both or none")
	case t.CertFile == "":
		d.bad("tls.keyFile", "set without tls.certFile; expected both or none")
	default:
		ok := true
		for path, file := range map[string]string{"tls.certFile": t.CertFile, "tls.keyFile": t.KeyFile} {
			if strings.Contains(file, "\n") || strings.Contains(file, "-----BEGIN") {
				d.bad(path, "holds what belongs into a file; expected the file's name")
				ok = false
			} else if _, err := read(file); err != nil {
				d.bad(path, "cannot read %s: %s", quote(file), err)
				ok = false
			}
		}
		if ok {
			if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
				d.bad("tls.certFile", "not a certificate that goes with tls.keyFile: %s", err)
			}
		}
	}
}

// keys checks the access keys, and that only loopback is served without one.
func (d *decoder) keys(c *Config, listen string) {
	d.key(c.AccessKeys.Primary, "accessKeys.primary")
	d.key(c.AccessKeys.Secondary, "accessKeys.secondary")
	if c.AccessKeys.Primary == "" && c.AccessKeys.Secondary != "" {
		d.bad("accessKeys.secondary", "set without accessKeys.primary; expected both or only the primary one")
	}
	if !c.Development() || isLoopback(listen) || listen == invalid || d.told("accessKeys.primary") {
		return
	}
	path, text := "accessKeys.primary", "none is set"
	switch DevelopmentKey {
	case c.AccessKeys.Primary:
		text = "this is the development key, which everyone knows"
	case c.AccessKeys.Secondary:
		path, text = "accessKeys.secondary", "this is the development key, which everyone knows"
	}
	at := d.placeOf(path)
	d.problems = append(d.problems, Problem{Where: at.String(), Path: path, order: at, NeedsKey: true,
		Text: fmt.Sprintf("%s; expected a key of your own, since %s is not a loopback address", text, c.Listen)})
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func (d *decoder) key(k Secret, path string) {
	if k == "" {
		return
	}
	parsed, err := accesskey.ParseKey(k.Reveal())
	if err != nil {
		d.bad(path, "%s", said(err))
	} else if parsed.Weak() {
		d.bad(path, "has %d bytes; expected at least 32", len(k))
	}
}

// said returns what an error of another room says to people: its message, and
// the detail where there is one. Neither holds a secret.
func said(err error) string {
	e, ok := errors.AsType[*engine.Error](err)
	if !ok {
		return err.Error()
	}
	if e.Detail == "" {
		return strings.TrimSuffix(e.Message, ".")
	}
	return strings.TrimSuffix(e.Message, ".") + ": " + e.Detail
}

var systemEvents = []string{"connect", "connected", "disconnected"}

func (d *decoder) hub(h *Hub, path string, c *Config) {
	h.AnonymousConnectPolicy = d.oneOf(h.AnonymousConnectPolicy, join(path, "anonymousConnectPolicy"), "deny", "allow")
	d.origins(h.AllowedOrigins, join(path, "allowedOrigins"))
	if h.KeepAlive < 1 || h.KeepAlive > 120 {
		d.bad(join(path, "webSocketKeepAliveIntervalInSeconds"), "found %d; expected 1 to 120", h.KeepAlive)
	}
	for i := range h.EventHandlers {
		d.handler(&h.EventHandlers[i], fmt.Sprintf("%s[%d]", join(path, "eventHandlers"), i), c)
	}
}

func (d *decoder) handler(h *EventHandler, path string, c *Config) {
	d.auth(&h.Auth, join(path, "auth"), c)
	d.template(h, join(path, "urlTemplate"), c)
	d.pattern(h.UserEventPattern, join(path, "userEventPattern"))
	for i, e := range h.SystemEvents {
		lower := strings.ToLower(e)
		if !slices.Contains(systemEvents, lower) {
			d.bad(fmt.Sprintf("%s[%d]", join(path, "systemEvents"), i), "found %s; expected %s", quote(e), strings.Join(systemEvents, ", "))
		}
		h.SystemEvents[i] = lower
	}
	misspelt := slices.ContainsFunc(d.problems, func(p Problem) bool {
		return strings.HasPrefix(p.Path, path+".") && !strings.HasPrefix(p.Path, path+".urlTemplate") && !strings.HasPrefix(p.Path, path+".auth")
	})
	if h.UserEventPattern == "" && len(h.SystemEvents) == 0 && !misspelt {
		d.bad(path, "matches no event; expected userEventPattern, systemEvents or both")
	}
}

// template checks a URL template. Nothing of it is quoted: its query may hold
// the code that opens the handler.
func (d *decoder) template(h *EventHandler, path string, c *Config) {
	s := h.URLTemplate.Reveal()
	if s == "" {
		d.bad(path, "missing; expected a URL such as https://app.example.com/{hub}/{event}")
		return
	}
	if strings.HasPrefix(strings.ToLower(s), "tunnel:") {
		d.bad(path, "tunnels are not in this build of Fanfare; expected http:// or https://")
		return
	}
	o := &webhook.Options{Secrets: unasked{}}
	if h.Auth.Type == AuthManagedIdentity {
		o.Tokens = unasked{}
	}
	client, err := webhook.New(s, o)
	if err != nil {
		d.bad(path, "%s", said(err))
		return
	}
	client.Close()
	d.secrets(h.Secrets(), path, c)
}

// pattern checks the wildcards of a list of user events.
func (d *decoder) pattern(list, path string) {
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if name == "*" || !strings.ContainsAny(name, `*?\`) {
			continue
		}
		if _, err := engine.ParsePattern(strings.ToLower(name)); err != nil {
			d.bad(path, "%s", said(err))
		}
	}
}

func (d *decoder) limits(l *Limits) {
	for _, bound := range []struct {
		key         string
		got         int
		least, most int
	}{
		{"messageBytes", l.MessageBytes, 1, 1 << 30},
		{"connections", l.Connections, 0, 1 << 30},
		{"unauthenticatedConnections", l.UnauthenticatedConnections, 1, 1 << 30},
		{"outboundMessages", l.OutboundMessages, 1, 1 << 30},
		{"outboundBytes", l.OutboundBytes, 1, math.MaxInt},
		{"totalOutboundBytes", l.TotalOutboundBytes, 0, math.MaxInt},
		{"groupsPerConnection", l.GroupsPerConnection, 1, 1 << 30},
		{"totalUnfinishedBytes", l.TotalUnfinishedBytes, 0, math.MaxInt},
		{"controlRate", l.ControlRate, 1, 1_000_000},
		{"groupBytesPerConnection", l.GroupBytesPerConnection, 1, 1 << 30},
		{"totalGroupBytes", l.TotalGroupBytes, 0, math.MaxInt},
		{"pendingEvents", l.PendingEvents, 1, 1 << 30},
		{"pendingEventBytes", l.PendingEventBytes, 0, math.MaxInt},
		{"pendingEventBytesPerUser", l.PendingEventBytesPerUser, 0, math.MaxInt},
		{"pendingEventBytesPerHub", l.PendingEventBytesPerHub, 0, math.MaxInt},
		{"totalPendingEventBytes", l.TotalPendingEventBytes, 0, math.MaxInt},
	} {
		switch {
		case bound.got >= bound.least && bound.got <= bound.most:
		case bound.most == math.MaxInt:
			d.bad("limits."+bound.key, "found %d; expected %d or more", bound.got, bound.least)
		default:
			d.bad("limits."+bound.key, "found %d; expected %d to %d", bound.got, bound.least, bound.most)
		}
	}
	if l.HandshakeTimeout < 100*time.Millisecond || l.HandshakeTimeout > 10*time.Minute {
		d.bad("limits.handshakeTimeout", "found %s; expected 100ms to 10m", span(l.HandshakeTimeout))
	}
	if l.MessageTimeout < 100*time.Millisecond || l.MessageTimeout > 24*time.Hour {
		d.bad("limits.messageTimeout", "found %s; expected 100ms to 24h", span(l.MessageTimeout))
	}
	if l.TotalUnfinishedBytes != 0 && l.TotalUnfinishedBytes < 2*l.MessageBytes {
		d.bad("limits.totalUnfinishedBytes", "found %d, less than twice limits.messageBytes (%d), which one client can take; expected at least that, or 0", l.TotalUnfinishedBytes, l.MessageBytes)
	}
	if l.OutboundBytes < l.MessageBytes {
		d.bad("limits.outboundBytes", "found %d, less than one message of limits.messageBytes (%d); expected at least that", l.OutboundBytes, l.MessageBytes)
	}
	if l.TotalOutboundBytes != 0 && l.TotalOutboundBytes < l.OutboundBytes {
		d.bad("limits.totalOutboundBytes", "found %d, less than limits.outboundBytes (%d); expected at least that, or 0", l.TotalOutboundBytes, l.OutboundBytes)
	}
}
