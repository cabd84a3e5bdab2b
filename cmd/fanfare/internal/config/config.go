// Package config is what a person can set about a node, and the one place that
// judges it.
//
// [Load] reads four layers, each over the one before: the defaults, the YAML
// file, the environment and the command line. It never stops at the first
// mistake: the error it returns is a [Problems], with a line for each thing that
// is wrong and the place to mend it. No line of it ever holds a [Secret].
//
// In the environment a key is FANFARE_ followed by its path in upper snake case:
// limits.messageBytes is FANFARE_LIMITS_MESSAGE_BYTES. A list is written with
// commas, or as a YAML (or JSON) list; a map, and a list of maps, as YAML or
// JSON text that replaces the whole of it. A key of one hub has the hub's name
// in its middle (FANFARE_HUBS_CHAT_ANONYMOUS_CONNECT_POLICY), and no name for
// the hub "*" (FANFARE_HUBS_ANONYMOUS_CONNECT_POLICY). An empty variable counts
// as one that is not set.
package config

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/entra"
)

// DevelopmentKey is the public access key of a node that was given none. It is
// the one of Microsoft's emulator, so that connection strings move over
// unchanged, and for that reason protects nothing.
const DevelopmentKey Secret = accesskey.DevelopmentKey

// Config is everything that can be set. The keys are those of the file; the doc
// tags are what `fanfare help config` prints. A Config is not changed once it
// has been loaded.
type Config struct {
	Listen           string         `key:"listen" doc:"address of HTTP: WebSocket clients, REST and health; port 0 lets the system choose"`
	PublicEndpoint   string         `key:"publicEndpoint" doc:"what clients and tokens call this service, as in https://rt.example.com, or https://example.com/rt behind a proxy that keeps the path or removes it; default: the listen address"`
	AudienceHosts    []string       `key:"audienceHosts" doc:"further host names that tokens may be addressed to, and requests signed for, for reverse proxies"`
	TrustedProxies   []netip.Prefix `key:"trustedProxies" doc:"addresses or networks whose X-Forwarded-For, -Host and -Proto headers are believed"`
	ClientCertHeader string         `key:"clientCertHeader" doc:"header in which trustedProxies, who must remove it from what clients send, hand on client certificates: Client-Cert (RFC 9440) or X-ARR-ClientCert; default: none"`
	AllowedOrigins   []string       `key:"allowedOrigins" doc:"origins whose pages may connect, such as https://app.example.com, https://*.example.com, or * for all; default: on a node with the development key those of this machine, for clients that nothing but a certificate proves that of publicEndpoint, or of the address they used; otherwise all"`
	CORS             CORS           `key:"cors"`
	Compression      Compression    `key:"compression"`
	TLS              TLS            `key:"tls"`
	AccessKeys       AccessKeys     `key:"accessKeys"`
	DisableLocalAuth bool           `key:"disableLocalAuth" doc:"true: access keys, and the tokens signed with them, open nothing"`
	Entra            Entra          `key:"entra"`
	Identity         Identity       `key:"identity"`
	KeyVault         KeyVault       `key:"keyVault"`
	Users            Users          `key:"users"`
	Store            Store          `key:"store"`
	Hubs             map[string]Hub `key:"hubs" doc:"settings of each hub by its name; \"*\" holds those of hubs that are not named"`
	Limits           Limits         `key:"limits"`
	Drain            Drain          `key:"drain"`
	Metrics          Metrics        `key:"metrics"`
	Log              Log            `key:"log"`
}

// CORS is about pages of other origins that call REST and the identity API.
type CORS struct {
	AllowedOrigins []string `key:"allowedOrigins" doc:"origins whose pages may call REST and the identity API from a browser, such as https://app.example.com, https://*.example.com, or * for all; public keys are open to all; default: none"`
}

// Compression is about permessage-deflate (RFC 7692).
type Compression struct {
	Enabled bool `key:"enabled" doc:"permessage-deflate for WebSocket clients that offer it"`
}

// TLS makes the HTTP listener speak TLS once both files are set.
type TLS struct {
	CertFile string `key:"certFile" doc:"certificate chain in PEM; read again when it changes"`
	KeyFile  string `key:"keyFile" doc:"private key of the certificate in PEM; read again when it changes"`

	ClientCertEnabled bool `key:"clientCertEnabled" doc:"true: clients are asked for a certificate, and may do without; connect handlers see it, and clientCertificates of a hub judge it"`
}

// AccessKeys sign client access tokens, REST requests and events.
type AccessKeys struct {
	Primary   Secret `key:"primary" doc:"access key, at least 32 bytes; default on loopback: the public development key"`
	Secondary Secret `key:"secondary" doc:"a second key that is accepted too, so that one can be rotated while the other works"`
}

// Entra lets application servers in by tokens of Microsoft Entra ID, or of another
// OpenID provider.
type Entra struct {
	TenantID        string           `key:"tenantId" doc:"the tenant whose tokens are accepted, a GUID; empty: none, or those of an authority that knows no tenants"`
	Authority       string           `key:"authority" doc:"where the tenant is; without tenantId the issuer identifier of any OpenID provider"`
	Audiences       []string         `key:"audiences" doc:"what tokens must be for, one of these letter by letter; default: https://webpubsub.azure.com"`
	KeepKeys        time.Duration    `key:"keepKeys" doc:"how long the issuer's keys stay in use while it is out of reach, 1m to 720h"`
	RoleAssignments []RoleAssignment `key:"roleAssignments" doc:"who may do what in which hub"`
	RoleDefinitions []RoleDefinition `key:"roleDefinitions" doc:"roles beside Azure's own"`
}

// RoleAssignment gives a role to a principal.
type RoleAssignment struct {
	PrincipalID string `key:"principalId" doc:"an object id, an application id, a group id or an app role"`
	Role        string `key:"role" doc:"Web PubSub Service Owner, Web PubSub Service Reader, Communication and Email Service Owner (of users), or one of roleDefinitions"`
	Hub         string `key:"hub" doc:"the hub in which it counts; \"*\" means every one, and is needed for users, who are of none"`
}

// RoleDefinition is a role of one's own.
type RoleDefinition struct {
	Name        string   `key:"name" doc:"what roleAssignments call it"`
	DataActions []string `key:"dataActions" doc:"data actions of Microsoft.SignalRService/WebPubSub/, such as hub/send/action, or on users of Microsoft.Communication/CommunicationServices/, such as identity/write; * stands for anything"`
}

// Enabled reports whether there is an issuer whose tokens are accepted.
func (e *Entra) Enabled() bool { return e.TenantID != "" || e.Authority != entra.Authority }

// Roles returns the roles that the settings name, which have been judged.
func (e *Entra) Roles() (*entra.Roles, error) {
	roles := entra.NewRoles()
	for _, d := range e.RoleDefinitions {
		if err := roles.Define(d.Name, d.DataActions...); err != nil {
			return nil, err
		}
	}
	for _, a := range e.RoleAssignments {
		if err := roles.Assign(a.PrincipalID, a.Role, a.Hub); err != nil {
			return nil, err
		}
	}
	return roles, nil
}

// Identity is what the node proves itself with to event handlers and vaults. It
// has one, never two.
type Identity struct {
	Type            string `key:"type" doc:"None, SystemAssigned, UserAssigned, WorkloadIdentity, or Local: the node signs its tokens itself and publishes its keys under /.well-known"`
	ClientID        string `key:"clientId" doc:"UserAssigned: the identity, by this, objectId or resourceId; WorkloadIdentity: instead of AZURE_CLIENT_ID"`
	ObjectID        string `key:"objectId" doc:"UserAssigned: the identity, by its object id"`
	ResourceID      string `key:"resourceId" doc:"UserAssigned: the identity, by its resource id"`
	DefaultResource string `key:"defaultResource" doc:"what the token of an event handler is for whose auth names no resource"`
}

// The types of an [Identity] that are not Azure's.
const (
	IdentityNone  = "None"
	IdentityLocal = "Local"
)

// KeyVault is about the secrets that URL templates refer to.
type KeyVault struct {
	AllowedHosts []string `key:"allowedHosts" doc:"vaults outside Azure's own domains that may be asked, each a host name, with a port if it is not 443"`
}

// Hub is the settings of one hub.
type Hub struct {
	AnonymousConnectPolicy string         `key:"anonymousConnectPolicy" doc:"deny or allow: whether clients may come in without a token"`
	AllowedOrigins         []string       `key:"allowedOrigins" doc:"origins whose pages may connect to this hub; default: what allowedOrigins of the node says"`
	ClientCertificates     ClientCerts    `key:"clientCertificates"`
	KeepAlive              int            `key:"webSocketKeepAliveIntervalInSeconds" doc:"seconds between pings, 1 to 120; a client silent for two of them is ended"`
	EventHandlers          []EventHandler `key:"eventHandlers" doc:"upstreams, in order: the first one that matches gets the event"`
}

// ClientCerts let clients in by their certificates, without a token.
type ClientCerts struct {
	CAFile      string   `key:"caFile" doc:"authorities in PEM whose certificates let clients in; read again when it changes"`
	Thumbprints []string `key:"thumbprints" doc:"SHA-256, or SHA-1, of single certificates that let clients in, whoever signed them"`
	CRLFile     string   `key:"crlFile" doc:"revocation lists of the authorities in caFile, PEM or one in DER; read again when it changes"`
	User        string   `key:"user" doc:"which name becomes the user id: cn, san:dns, san:uri, san:email or thumbprint"`
	Roles       []string `key:"roles" doc:"what clients may do that came in so, such as webpubsub.sendToGroup.telemetry"`
}

// EventHandler is one upstream of a hub.
type EventHandler struct {
	URLTemplate      Secret   `key:"urlTemplate" doc:"where events are posted; {hub} and {event} may stand in path and query, {@Microsoft.KeyVault(SecretUri=https://...)} anywhere"`
	UserEventPattern string   `key:"userEventPattern" doc:"which user events it gets: *, one name, or a list a,b,c; wildcards allowed"`
	SystemEvents     []string `key:"systemEvents" doc:"which of connect, connected and disconnected it gets"`
	Auth             Auth     `key:"auth"`
}

// Auth is how the node proves itself to an upstream.
type Auth struct {
	Type            string          `key:"type" doc:"None: the signature header, and what the template's query says, are all there is; ManagedIdentity: a token of the node's identity"`
	ManagedIdentity ManagedIdentity `key:"managedIdentity"`
}

// AuthManagedIdentity is the type of an [Auth] by a token of the node's identity.
const AuthManagedIdentity = "ManagedIdentity"

// ManagedIdentity is about the token that a handler gets.
type ManagedIdentity struct {
	Resource string `key:"resource" doc:"what the token is for, an App ID URI or a GUID; default: identity.defaultResource"`
}

// Limits bound what strangers can make the node hold.
type Limits struct {
	MessageBytes               int           `key:"messageBytes" doc:"largest message, of a client or in REST"`
	Connections                int           `key:"connections" doc:"most connections; 0: what the process's file limit allows, less a reserve"`
	UnauthenticatedConnections int           `key:"unauthenticatedConnections" doc:"most connections that have not authenticated; when there are more, the oldest one of the address prefix with the most of them is closed"`
	HandshakeTimeout           time.Duration `key:"handshakeTimeout" doc:"time a client has for TLS and its request's headers, for the body of a request that is not authorized yet, and for its next request after a refusal"`
	OutboundMessages           int           `key:"outboundMessages" doc:"messages that may wait for one connection"`
	OutboundBytes              int           `key:"outboundBytes" doc:"bytes that may wait for one connection"`
	TotalOutboundBytes         int           `key:"totalOutboundBytes" doc:"bytes that may wait for all connections together; 0: a quarter of memory; over it the largest laggard is ended first"`
	GroupsPerConnection        int           `key:"groupsPerConnection" doc:"groups that one connection may be in"`
	MessageTimeout             time.Duration `key:"messageTimeout" doc:"time from a client message's first byte to its last, pings between its fragments or not; the largest message at the slowest uplink must pass"`
	TotalUnfinishedBytes       int           `key:"totalUnfinishedBytes" doc:"bytes of all messages that have not arrived completely; 0: an eighth of memory; over it the connection with the largest is ended first"`
	ControlRate                int           `key:"controlRate" doc:"what a client may send in a second, and twice at once, that carries no data: pings, empty fragments, acknowledgements of nothing new; above it the client is read more slowly, then closed"`
	GroupBytesPerConnection    int           `key:"groupBytesPerConnection" doc:"bytes of the names of the groups that one connection may be in"`
	TotalGroupBytes            int           `key:"totalGroupBytes" doc:"bytes that all groups and memberships may hold, by an estimate; 0: an eighth of memory"`
	PendingEvents              int           `key:"pendingEvents" doc:"requests that may wait in one connection's lane, and calls under way at one handler"`
	PendingEventBytes          int           `key:"pendingEventBytes" doc:"bytes of one connection's requests that may wait for event handlers; from half of it on the connection is not read; 0: eight messages of limits.messageBytes, at least 8 MiB"`
	PendingEventBytesPerUser   int           `key:"pendingEventBytesPerUser" doc:"bytes of events that may wait for handlers, or be under way, for one user of a hub, or for the clients without a user of an IPv4 /24 or IPv6 /56; at half of it their connections have one event at a time, and the events of those that have left are dropped; at the bound new connections of theirs are refused; 0: four times limits.pendingEventBytes, at most half of limits.pendingEventBytesPerHub"`
	PendingEventBytesPerHub    int           `key:"pendingEventBytesPerHub" doc:"the same for one hub; 0: half of limits.totalPendingEventBytes"`
	TotalPendingEventBytes     int           `key:"totalPendingEventBytes" doc:"the same for the node; 0: an eighth of memory"`
}

// Drain is about an orderly end.
type Drain struct {
	Timeout time.Duration `key:"timeout" doc:"time the node takes at most to end in order after SIGTERM or SIGINT"`
}

// Metrics is about the Prometheus page.
type Metrics struct {
	Listen string `key:"listen" doc:"address of the Prometheus page /metrics, such as 127.0.0.1:9100; default: none"`
}

// Log is about the node's own log, on standard error.
type Log struct {
	Level  slog.Level `key:"level" doc:"debug, info, warn or error"`
	Format string     `key:"format" doc:"text or json"`
}

// Default returns the settings of a node that was told nothing.
func Default() *Config {
	return &Config{
		Listen: "127.0.0.1:8080",
		Limits: Limits{
			MessageBytes:               1 << 20,
			UnauthenticatedConnections: 1000,
			HandshakeTimeout:           10 * time.Second,
			OutboundMessages:           1000,
			OutboundBytes:              16 << 20,
			GroupsPerConnection:        10_000,
			MessageTimeout:             time.Minute,
			ControlRate:                100,
			GroupBytesPerConnection:    1 << 20,
			PendingEvents:              1024,
		},
		Entra:    Entra{Authority: entra.Authority, KeepKeys: 24 * time.Hour},
		Identity: Identity{Type: IdentityNone},
		Users:    defaultUsers(),
		Drain:    Drain{Timeout: 30 * time.Second},
		Log:      Log{Level: slog.LevelInfo, Format: "text"},
	}
}

// defaultHub is a hub of which nothing was said.
func defaultHub() Hub {
	return Hub{AnonymousConnectPolicy: "deny", ClientCertificates: ClientCerts{User: "cn"}, KeepAlive: 20, EventHandlers: nil}
}

// Hub returns the settings of the named hub, which must be in lower case: its
// own, those of "*", or the defaults.
func (c *Config) Hub(name string) Hub {
	if h, ok := c.Hubs[name]; ok {
		return h
	}
	if h, ok := c.Hubs["*"]; ok {
		return h
	}
	return defaultHub()
}

// Resource returns what the token for an event handler is for; empty if it gets none.
func (c *Config) Resource(h EventHandler) string {
	switch {
	case h.Auth.Type != AuthManagedIdentity:
		return ""
	case h.Auth.ManagedIdentity.Resource != "":
		return h.Auth.ManagedIdentity.Resource
	}
	return c.Identity.DefaultResource
}

// Keys returns the access keys that the node has, the primary one first: those that
// were set, or the development key. While local authentication is off they open
// nothing, the development key never stands in for others, and generated client
// tokens stem from those that were set.
func (c *Config) Keys() []Secret {
	switch {
	case c.AccessKeys.Primary == "" && c.DisableLocalAuth:
		return nil
	case c.AccessKeys.Primary == "":
		return []Secret{DevelopmentKey}
	case c.AccessKeys.Secondary == "":
		return []Secret{c.AccessKeys.Primary}
	}
	return []Secret{c.AccessKeys.Primary, c.AccessKeys.Secondary}
}

// Development reports whether the public development key opens this node.
func (c *Config) Development() bool {
	for _, k := range c.Keys() {
		if k == DevelopmentKey {
			return true
		}
	}
	return false
}
