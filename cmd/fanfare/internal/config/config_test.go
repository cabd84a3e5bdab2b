package config_test

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// lines returns what Load said of a file of the given text, without its
// directory.
func lines(t *testing.T, text string, environ ...string) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fanfare.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := config.Load(config.Sources{File: file, Environ: environ})
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[config.Problems](err); !ok {
		t.Fatalf("the error is a %T; want config.Problems", err)
	}
	return strings.Split(strings.ReplaceAll(err.Error(), filepath.Dir(file)+"/", ""), "\n")
}

// All mistakes of a file come at once, in its order, each with its place.
func TestAllMistakesAtOnce(t *testing.T) {
	_, warnings, err := config.Load(config.Sources{File: "testdata/mistakes.yaml"})
	if err == nil {
		t.Fatal("a file full of mistakes was accepted")
	}
	got := err.Error() + "\n"
	for _, w := range warnings {
		got += "warning: " + w.String() + "\n"
	}
	for _, secret := range []string{"topsecret", "another-secret", "user:pw"} {
		if strings.Contains(got, secret) {
			t.Errorf("the secret %q is in the output", secret)
		}
	}
	golden := "testdata/mistakes.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestOneMistake(t *testing.T) {
	const key = "0123456789012345678901234567890123456789"
	const notBefore = "fanfare.yaml:1:17: publicEndpoint: has a path that cannot stand before the node's own; expected at most 256 letters, digits, -, ., _ and ~ between slashes, and first none of api, client, clients, identities, teamsUser, access, healthz, readyz, console, .well-known, as in https://example.com/rt"
	const pin = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, test := range []struct {
		name, text string
		want       string
	}{
		{"empty file", "", ""},
		{"only a comment", "# nothing\n", ""},
		{"null leaves the default", "listen:\nhubs:\n  chat:\n", ""},
		{"not a map", "- listen\n", "fanfare.yaml:1:1: found a list; expected a map with the keys listen, publicEndpoint, audienceHosts, trustedProxies, clientCertHeader, allowedOrigins, cors, compression, tls, accessKeys, disableLocalAuth, entra, identity, keyVault, users, store, hubs, limits, drain, metrics, log"},
		{"broken YAML", "listen: [a\n", "fanfare.yaml:1:9: not valid YAML: sequence end token ']' not found"},
		{"broken YAML beside a secret", "accessKeys:\n  primary: \"" + key + "\n", "fanfare.yaml:2:12: not valid YAML: could not find end character of double-quoted text"},
		{"two documents", "listen: 127.0.0.1:1\n---\nlisten: 127.0.0.1:2\n", "fanfare.yaml: holds more than one YAML document; expected one"},
		{"unknown alias", "listen: *a\n", "fanfare.yaml:1:9: an alias that has no anchor before it; a text that begins with * needs quotes"},
		{"secret glued to its key", "accessKeys: {primary:" + key + "}\n", ""},
		{"secret glued to its key in quotes", "accessKeys: {'primary:" + key + "': 1}\n", "fanfare.yaml:1:14: accessKeys.primary...: unknown key; known ones are primary, secondary (a blank is missing after the colon?)"},
		{"secret glued to its key on a line", "accessKeys:\n  primary:" + key + "\n", "fanfare.yaml:2:3: accessKeys: found a value; expected a map with the keys primary, secondary"},
		{"key elsewhere", "certFile: a.pem\n", "fanfare.yaml:1:1: certFile: unknown key here; it belongs in tls"},
		{"swapped letters", "lisetn: a\n", "fanfare.yaml:1:1: lisetn: unknown key; the nearest known one is listen"},
		{"other case", "Listen: a\n", "fanfare.yaml:1:1: Listen: unknown key; the nearest known one is listen"},
		{"nothing like it", "zzz: a\n", "fanfare.yaml:1:1: zzz: unknown key; known ones are listen, publicEndpoint, audienceHosts, trustedProxies, clientCertHeader, allowedOrigins, cors, compression, tls, accessKeys, disableLocalAuth, entra, identity, keyVault, users, store, hubs, limits, drain, metrics, log"},
		{"no port", "listen: localhost\n", `fanfare.yaml:1:9: listen: found "localhost"; expected HOST:PORT, such as 127.0.0.1:8080 or :8080`},
		{"named port", "listen: localhost:http\n", `fanfare.yaml:1:9: listen: found the port "http"; expected a number from 0 to 65535`},
		{"strangers without a key", "listen: 0.0.0.0:8080\n", "defaults: accessKeys.primary: none is set; expected a key of your own, since 0.0.0.0:8080 is not a loopback address"},
		{"all interfaces without a key", "listen: :8080\n", "defaults: accessKeys.primary: none is set; expected a key of your own, since :8080 is not a loopback address"},
		{"a name without a key", "listen: rt.example.com:8080\n", "defaults: accessKeys.primary: none is set; expected a key of your own, since rt.example.com:8080 is not a loopback address"},
		{"strangers with the development key", "listen: 10.0.0.1:8080\naccessKeys:\n  primary: " + config.DevelopmentKey.Reveal() + "\n", "fanfare.yaml:3:12: accessKeys.primary: this is the development key, which everyone knows; expected a key of your own, since 10.0.0.1:8080 is not a loopback address"},
		{"strangers with the development key second", "listen: 10.0.0.1:8080\naccessKeys:\n  primary: " + key + "\n  secondary: " + config.DevelopmentKey.Reveal() + "\n", "fanfare.yaml:4:14: accessKeys.secondary: this is the development key, which everyone knows; expected a key of your own, since 10.0.0.1:8080 is not a loopback address"},
		{"strangers with a key", "listen: 0.0.0.0:8080\naccessKeys: { primary: " + key + " }\n", ""},
		{"strangers without local authentication", "listen: 0.0.0.0:8080\ndisableLocalAuth: true\n", ""},
		{"loopback of IPv6", "listen: '[::1]:8080'\n", ""},
		{"loopback by name", "listen: localhost:8080\n", ""},
		{"short key", "accessKeys: { primary: abc }\n", "fanfare.yaml:1:24: accessKeys.primary: has 3 bytes; expected at least 32"},
		{"second key alone", "accessKeys: { secondary: " + key + " }\n", "fanfare.yaml:1:26: accessKeys.secondary: set without accessKeys.primary; expected both or only the primary one"},
		{"origins", "allowedOrigins: ['*', 'HTTPS://App.example.com:443', 'https://*.example.com', 'http://[::1]:3000', 'capacitor://localhost']\n", ""},
		{"an origin without a scheme", "allowedOrigins: [app.example.com]\n", `fanfare.yaml:1:18: allowedOrigins[0]: found "app.example.com"; expected *, or scheme://host with the port if it is not the scheme's own, such as https://app.example.com or https://*.example.com`},
		{"an origin with a path", "hubs: { chat: { allowedOrigins: ['https://a.example.com', 'https://a.example.com/'] } }\n", `fanfare.yaml:1:59: hubs.chat.allowedOrigins[1]: found "https://a.example.com/"; expected *, or scheme://host with the port if it is not the scheme's own, such as https://app.example.com or https://*.example.com`},
		{"an origin of a socket", "allowedOrigins: ['wss://a.example.com']\n", `fanfare.yaml:1:18: allowedOrigins[0]: found "wss://a.example.com"; an origin is that of the page, so its scheme is http or https`},
		{"the opaque origin", "allowedOrigins: ['null']\n", `fanfare.yaml:1:18: allowedOrigins[0]: found null, which every sandboxed page sends; expected *, or scheme://host with the port if it is not the scheme's own, such as https://app.example.com or https://*.example.com`},
		{"keep-alive of zero", "hubs: { chat: { webSocketKeepAliveIntervalInSeconds: 0 } }\n", "fanfare.yaml:1:54: hubs.chat.webSocketKeepAliveIntervalInSeconds: found 0; expected 1 to 120"},
		{"keep-alive at its ends", "hubs: { a: { webSocketKeepAliveIntervalInSeconds: 1 }, b: { webSocketKeepAliveIntervalInSeconds: 120 } }\n", ""},
		{"handler that matches nothing", "hubs: { chat: { eventHandlers: [ { urlTemplate: 'http://a/' } ] } }\n", "fanfare.yaml:1:36: hubs.chat.eventHandlers[0]: matches no event; expected userEventPattern, systemEvents or both"},
		{"certificate without key", "tls: { certFile: a.pem }\n", "fanfare.yaml:1:18: tls.certFile: set without tls.keyFile; expected both or none"},
		{"key without certificate", "tls: { keyFile: a.pem }\n", "fanfare.yaml:1:17: tls.keyFile: set without tls.certFile; expected both or none"},
		{"a tenant", "entra: { tenantId: 11111111-aaaa-4bbb-8ccc-222222222222, roleAssignments: [ { principalId: ops, role: Web PubSub Service Reader, hub: '*' } ] }\n", ""},
		{"a tenant by name", "entra: { tenantId: contoso.com }\n", `fanfare.yaml:1:20: entra.tenantId: "contoso.com" is no tenant's id: expected a GUID. Tokens of every tenant (common, organizations) cannot be asked for, since anybody may have one`},
		{"an authority in clear", "entra: { authority: 'http://id.example.com' }\n", "fanfare.yaml:1:21: entra.authority: The authority is not usable: expected an https:// URL such as https://login.microsoftonline.com, or an http:// one of a loopback address"},
		{"an empty audience", "entra: { audiences: [''] }\n", `fanfare.yaml:1:22: entra.audiences[0]: found ""; expected what tokens are for, such as https://webpubsub.azure.com`},
		{"keys kept for no time", "entra: { keepKeys: 0s }\n", "fanfare.yaml:1:20: entra.keepKeys: found 0s; expected 1m to 720h"},
		{"a role that nobody knows", "entra: { roleAssignments: [ { principalId: ops, role: Owner, hub: '*' } ] }\n", `fanfare.yaml:1:55: entra.roleAssignments[0].role: There is no role "Owner"; expected Web PubSub Service Owner, Web PubSub Service Reader, Communication and Email Service Owner or one that was defined`},
		{"a role without a hub", "entra: { roleAssignments: [ { principalId: ops, role: Web PubSub Service Owner } ] }\n", `fanfare.yaml:1:31: entra.roleAssignments[0].hub: "" is not a hub; expected a hub's name, or * for every hub`},
		{"a role for nobody", "entra: { roleAssignments: [ { role: Web PubSub Service Owner, hub: chat } ] }\n", "fanfare.yaml:1:31: entra.roleAssignments[0].principalId: A principal's id has 1 to 512 characters and no blanks around it"},
		{"a role of one's own", "entra: { roleDefinitions: [ { name: Sender, dataActions: [hub/send/action] } ], roleAssignments: [ { principalId: ops, role: sender, hub: chat } ] }\n", ""},
		{"a role of users", "entra: { tenantId: 11111111-aaaa-4bbb-8ccc-222222222222, roleAssignments: [ { principalId: ops, role: Communication and Email Service Owner, hub: '*' } ] }\n", ""},
		{"a role of users in one hub", "entra: { roleAssignments: [ { principalId: ops, role: communication and email service owner, hub: chat } ] }\n", `fanfare.yaml:1:99: entra.roleAssignments[0].hub: The role "Communication and Email Service Owner" is about users, who are of no hub, so it gives nothing in hub chat; expected *`},
		{"actions on users", "entra: { roleDefinitions: [ { name: Clerk, dataActions: [identity/write, Microsoft.Communication/CommunicationServices/identity/token/action] } ], roleAssignments: [ { principalId: ops, role: Clerk, hub: '*' } ] }\n", ""},
		{"an action on users in the other's name", "entra: { roleDefinitions: [ { name: Clerk, dataActions: [Microsoft.SignalRService/WebPubSub/identity/write] } ] }\n", `fanfare.yaml:1:31: entra.roleDefinitions[0]: "Microsoft.SignalRService/WebPubSub/identity/write" is no data action; expected one such as hub/send/action, or a pattern such as group/*`},
		{"an action that nobody knows", "entra: { roleDefinitions: [ { name: Sender, dataActions: [hub/shout] } ] }\n", `fanfare.yaml:1:31: entra.roleDefinitions[0]: "hub/shout" is no data action; expected one such as hub/send/action, or a pattern such as group/*`},
		{"metrics on the same port", "metrics: { listen: 127.0.0.1:8080 }\n", "fanfare.yaml:1:20: metrics.listen: found the address of listen; expected another one"},
		{"total below one", "limits: { totalOutboundBytes: 5 }\n", "fanfare.yaml:1:31: limits.totalOutboundBytes: found 5, less than limits.outboundBytes (16777216); expected at least that, or 0"},
		{"no time for a message", "limits: { messageTimeout: 0s }\n", "fanfare.yaml:1:27: limits.messageTimeout: found 0s; expected 100ms to 24h"},
		{"unfinished below one client's", "limits: { totalUnfinishedBytes: 1048576 }\n", "fanfare.yaml:1:33: limits.totalUnfinishedBytes: found 1048576, less than twice limits.messageBytes (1048576), which one client can take; expected at least that, or 0"},
		{"no pings", "limits: { controlRate: 0 }\n", "fanfare.yaml:1:24: limits.controlRate: found 0; expected 1 to 1000000"},
		{"no room for names of groups", "limits: { groupBytesPerConnection: 0 }\n", "fanfare.yaml:1:36: limits.groupBytesPerConnection: found 0; expected 1 to 1073741824"},
		{"negative room for groups", "limits: { totalGroupBytes: -1 }\n", "fanfare.yaml:1:28: limits.totalGroupBytes: found -1; expected 0 or more"},
		{"negative room for a connection's events", "limits: { pendingEventBytes: -1 }\n", "fanfare.yaml:1:30: limits.pendingEventBytes: found -1; expected 0 or more"},
		{"negative room for a user's events", "limits: { pendingEventBytesPerUser: -1 }\n", "fanfare.yaml:1:37: limits.pendingEventBytesPerUser: found -1; expected 0 or more"},
		{"negative room for a hub's events", "limits: { pendingEventBytesPerHub: -1 }\n", "fanfare.yaml:1:36: limits.pendingEventBytesPerHub: found -1; expected 0 or more"},
		{"negative room for events", "limits: { totalPendingEventBytes: -1 }\n", "fanfare.yaml:1:35: limits.totalPendingEventBytes: found -1; expected 0 or more"},
		{"merge key", "x: &x { enabled: true }\ncompression: { <<: *x }\n", "fanfare.yaml:1:1: x: unknown key; known ones are listen, publicEndpoint, audienceHosts, trustedProxies, clientCertHeader, allowedOrigins, cors, compression, tls, accessKeys, disableLocalAuth, entra, identity, keyVault, users, store, hubs, limits, drain, metrics, log"},
		{"certificates that nobody asks for", "tls: { clientCertEnabled: true }\n", "fanfare.yaml:1:27: tls.clientCertEnabled: set without tls.certFile, so nobody is asked; expected TLS here, or clientCertHeader for a proxy that does TLS"},
		{"an endpoint with a path", "publicEndpoint: https://example.com/rt/v1.0/\n", ""},
		{"an endpoint behind a path of the node's", "publicEndpoint: https://example.com/api/v1\n", notBefore},
		{"an endpoint with an escape", "publicEndpoint: https://example.com/a%2Fb\n", notBefore},
		{"an endpoint with dots", "publicEndpoint: https://example.com/a/../b\n", notBefore},
		{"an endpoint with two slashes", "publicEndpoint: https://example.com/a//b\n", notBefore},
		{"an endpoint with a blank", "publicEndpoint: https://example.com/a b\n", notBefore},
		{"an endpoint with a long path", "publicEndpoint: https://example.com/" + strings.Repeat("a", 256) + "\n", notBefore},
		{"origins of pages", "cors: { allowedOrigins: ['*', 'https://App.example.com', 'https://*.example.com', 'http://localhost:3000', 'http://[::1]:80'] }\n", ""},
		{"an origin with a path in cors", "cors: { allowedOrigins: ['https://app.example.com/x'] }\n", `fanfare.yaml:1:26: cors.allowedOrigins[0]: found "https://app.example.com/x"; expected *, or scheme://host with the port if it is not the scheme's own, such as https://app.example.com or https://*.example.com`},
		{"a header that nobody writes", "clientCertHeader: Client-Cert\n", "fanfare.yaml:1:19: clientCertHeader: set without trustedProxies; expected the addresses of those who write it"},
		{"another header", "clientCertHeader: X-SSL-Cert\ntrustedProxies: [10.0.0.1]\n", "fanfare.yaml:1:19: clientCertHeader: found \"X-SSL-Cert\"; expected Client-Cert or X-ARR-ClientCert"},
		{"certificates of nobody", "hubs: { chat: { clientCertificates: { roles: [a] } } }\n", "fanfare.yaml:1:39: hubs.chat.clientCertificates: trusts nobody; expected caFile, thumbprints or both"},
		{"an empty section", "hubs: { chat: { clientCertificates: {} } }\n", "fanfare.yaml:1:37: hubs.chat.clientCertificates: trusts nobody; expected caFile, thumbprints or both"},
		{"a misspelt section", "hubs: { chat: { clientCertificates: { cafile: a } } }\n", "fanfare.yaml:1:39: hubs.chat.clientCertificates.cafile: unknown key; the nearest known one is caFile"},
		{"a name that is none", "hubs: { chat: { clientCertificates: { thumbprints: [" + pin + "], user: subject } } }\n", "fanfare.yaml:1:126: hubs.chat.clientCertificates.user: found \"subject\"; expected cn or san:dns or san:uri or san:email or thumbprint"},
		{"lists of nobody", "hubs: { chat: { clientCertificates: { thumbprints: [" + pin + "], crlFile: a.crl } } }\n", "fanfare.yaml:1:129: hubs.chat.clientCertificates.crlFile: set without caFile; expected the authorities that signed the lists"},
		{"a thumbprint that is none", "hubs: { chat: { clientCertificates: { thumbprints: [abc] } } }\n", "fanfare.yaml:1:52: hubs.chat.clientCertificates.thumbprints: \"abc\" is no thumbprint: expected 64 hexadecimal digits (SHA-256) or 40 (SHA-1)"},
		{"authorities that are not there", "hubs: { chat: { clientCertificates: { caFile: testdata/none.pem } } }\n", "fanfare.yaml:1:47: hubs.chat.clientCertificates.caFile: cannot read \"testdata/none.pem\": no such file or directory"},
		{"authorities in the settings", "hubs: { chat: { clientCertificates: { caFile: '-----BEGIN CERTIFICATE-----' } } }\n", "fanfare.yaml:1:47: hubs.chat.clientCertificates.caFile: holds what belongs into a file; expected the file's name"},
		{"authorities that are no PEM", "hubs: { chat: { clientCertificates: { caFile: testdata/mistakes.yaml } } }\n", "fanfare.yaml:1:47: hubs.chat.clientCertificates.caFile: Not certificates in PEM: found no block \"CERTIFICATE\""},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := strings.Join(lines(t, test.text), "\n"); got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}

// What other rooms judge is told with its place, and without what was written.
func TestJudgedElsewhere(t *testing.T) {
	const key = "0123456789012345678901234567890123456789"
	template := func(s string) string {
		return "hubs: { chat: { eventHandlers: [ { urlTemplate: '" + s + "', userEventPattern: '*' } ] } }\n"
	}
	for name, test := range map[string]struct{ text, where string }{
		"parameter in the host": {template("https://{hub}.example.com/?code=" + key), "fanfare.yaml:1:49: hubs.chat.eventHandlers[0].urlTemplate: "},
		"open brace":            {template("https://a/{hub?code=" + key), "fanfare.yaml:1:49: hubs.chat.eventHandlers[0].urlTemplate: "},
		"no URL":                {template("/hook?code=" + key), "fanfare.yaml:1:49: hubs.chat.eventHandlers[0].urlTemplate: "},
		"other scheme":          {template("ftp://a/?code=" + key), "fanfare.yaml:1:49: hubs.chat.eventHandlers[0].urlTemplate: "},
		"key with a semicolon":  {"accessKeys: { primary: '" + key + ";' }\n", "fanfare.yaml:1:24: accessKeys.primary: "},
		"key with blanks":       {"accessKeys: { primary: ' " + key + "' }\n", "fanfare.yaml:1:24: accessKeys.primary: "},
		"bad pattern": {"hubs: { chat: { eventHandlers: [ { urlTemplate: 'http://a/', userEventPattern: 'a,b\\' } ] } }\n",
			"fanfare.yaml:1:80: hubs.chat.eventHandlers[0].userEventPattern: "},
	} {
		t.Run(name, func(t *testing.T) {
			got := lines(t, test.text)
			if len(got) != 1 || !strings.HasPrefix(got[0], test.where) || len(got[0]) < len(test.where)+10 {
				t.Errorf("got %q; want one line that begins with %s", got, test.where)
			}
			if strings.Contains(strings.Join(got, "\n"), key) {
				t.Error("a secret shows")
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	_, _, err := config.Load(config.Sources{File: "testdata/no-such.yaml"})
	if want := "testdata/no-such.yaml: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("got %v; want %s", err, want)
	}
}

// A file of every kind of value is read as it was meant.
func TestFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	os.WriteFile(file, []byte(`
listen: 127.0.0.1:0
publicEndpoint: https://rt.example.com/
trustedProxies: [10.1.2.3, 10.0.0.0/8, "::1"]
accessKeys:
  primary: 01234567890123456789012345678901
entra:
  tenantId: 11111111-aaaa-4bbb-8ccc-222222222222
  audiences: [https://webpubsub.azure.com, api://fanfare]
  roleDefinitions: [ { name: Sender, dataActions: [hub/send/action, group/*] } ]
  roleAssignments: [ { principalId: ops, role: Sender, hub: "*" } ]
hubs:
  "*": &all
    anonymousConnectPolicy: Allow
  Chat:
    <<: *all
    webSocketKeepAliveIntervalInSeconds: 7
    eventHandlers:
      - urlTemplate: https://app.example.com/{hub}/{event}?code=abc
        systemEvents: [Connect]
        userEventPattern: "*"
limits: { handshakeTimeout: 1m30s, messageBytes: 2_000_000 }
log: { level: DEBUG }
`), 0o600)
	c, warnings, err := config.Load(config.Sources{File: file})
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	want := config.Default()
	want.Listen = "127.0.0.1:0"
	want.PublicEndpoint = "https://rt.example.com"
	want.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	want.AccessKeys.Primary = "01234567890123456789012345678901"
	want.Entra.TenantID, want.Entra.Audiences = "11111111-aaaa-4bbb-8ccc-222222222222", []string{"https://webpubsub.azure.com", "api://fanfare"}
	want.Entra.RoleAssignments = []config.RoleAssignment{{PrincipalID: "ops", Role: "Sender", Hub: "*"}}
	want.Entra.RoleDefinitions = []config.RoleDefinition{{Name: "Sender", DataActions: []string{"hub/send/action", "group/*"}}}
	want.Hubs = map[string]config.Hub{
		"*": {AnonymousConnectPolicy: "allow", ClientCertificates: config.ClientCerts{User: "cn"}, KeepAlive: 20},
		"chat": {AnonymousConnectPolicy: "allow", ClientCertificates: config.ClientCerts{User: "cn"}, KeepAlive: 7, EventHandlers: []config.EventHandler{{
			URLTemplate: "https://app.example.com/{hub}/{event}?code=abc", SystemEvents: []string{"connect"},
			UserEventPattern: "*", Auth: config.Auth{Type: "None"},
		}}},
	}
	want.Limits.HandshakeTimeout, want.Limits.MessageBytes = 90*time.Second, 2_000_000
	want.Log.Level = slog.LevelDebug
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %#v\nwant %#v", c, want)
	}
	if got := c.Hub("other"); got.AnonymousConnectPolicy != "allow" || got.KeepAlive != 20 {
		t.Errorf("a hub that is not named has %+v; want the settings of *", got)
	}
	if got := config.Default().Hub("other"); got.AnonymousConnectPolicy != "deny" || got.KeepAlive != 20 {
		t.Errorf("without any hubs a hub has %+v; want the defaults", got)
	}
}

// Flag over environment over file over default.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	os.WriteFile(file, []byte("listen: 127.0.0.1:2\nlog: { level: error }\ndrain: { timeout: 5s }\n"), 0o600)
	env := []string{"FANFARE_LISTEN=127.0.0.1:3", "FANFARE_LOG_LEVEL=warn", "FANFARE_DRAIN_TIMEOUT="}
	c, _, err := config.Load(config.Sources{File: file, Environ: env, Flags: []config.Flag{{Name: "listen", Key: "listen", Value: "127.0.0.1:4"}}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:4" || c.Log.Level != slog.LevelWarn || c.Drain.Timeout != 5*time.Second || c.Log.Format != "text" {
		t.Errorf("got %s, %s, %s, %s; want the flag's, the environment's, the file's and the default", c.Listen, c.Log.Level, c.Drain.Timeout, c.Log.Format)
	}
	_, _, err = config.Load(config.Sources{Flags: []config.Flag{{Name: "listen", Key: "listen", Value: "x"}}, Environ: []string{"FANFARE_LOG_FORMAT=xml"}})
	want := "environment FANFARE_LOG_FORMAT: log.format: found \"xml\"; expected text or json\nflag --listen: listen: found \"x\"; expected HOST:PORT, such as 127.0.0.1:8080 or :8080"
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

// samples are values that differ from the defaults and pass every rule, for the
// keys that not any text of their type will do for.
var samples = map[string]string{
	"allowedOrigins": "https://app.example.com,http://localhost:3000", "hubs.*.allowedOrigins": "https://*.example.com:8443",
	"listen":                        "127.0.0.1:9",
	"publicEndpoint":                "https://rt.example.com",
	"audienceHosts":                 "a.example.com, b.example.com",
	"trustedProxies":                "10.0.0.0/8",
	"cors.allowedOrigins":           "https://app.example.com, *",
	"tls.certFile":                  "cert.pem", // does not exist: must be complained about, so it arrived
	"tls.keyFile":                   "key.pem",
	"accessKeys.primary":            strings.Repeat("p", 32),
	"accessKeys.secondary":          strings.Repeat("s", 32),
	"entra.tenantId":                "11111111-aaaa-4bbb-8ccc-222222222222",
	"entra.authority":               "https://id.example.com",
	"entra.keepKeys":                "3h",
	"entra.roleAssignments":         `[{principalId: ops, role: Web PubSub Service Owner, hub: "*"}]`,
	"entra.roleDefinitions":         `[{name: Sender, dataActions: [hub/send/action]}]`,
	"hubs":                          `{"chat": {"anonymousConnectPolicy": "allow"}}`,
	"hubs.*.eventHandlers":          `[{urlTemplate: "https://app.example.com/{event}", userEventPattern: "*"}]`,
	"clientCertHeader":              "client-cert",
	"limits.messageBytes":           "4096",
	"limits.outboundBytes":          "33554432",
	"limits.totalOutboundBytes":     "33554432",
	"limits.handshakeTimeout":       "3s",
	"limits.messageTimeout":         "3s",
	"limits.totalUnfinishedBytes":   "33554432",
	"drain.timeout":                 "3s",
	"metrics.listen":                "127.0.0.1:9100",
	"log.level":                     "debug",
	"log.format":                    "json",
	"hubs.*.anonymousConnectPolicy": "allow",
	"identity.type":                 "SystemAssigned",
	"keyVault.allowedHosts":         "vault.example.com",
	"users.closeOnRevoke":           "false",
	"users.clockSkew":               "3m",
	"users.signingAlgorithm":        "rs256",
	"users.keyRotation":             "48h",

	"users.scopes.chat.hubs":              "a, b",
	"users.scopes.chat.join.hubs":         "a, b",
	"users.scopes.chat.join.limited.hubs": "a, b",
	"users.scopes.voip.hubs":              "a, b",
	"users.scopes.voip.join.hubs":         "*",

	"hubs.*.clientCertificates.thumbprints": strings.Repeat("ab", 32),
	"hubs.*.clientCertificates.user":        "SAN:URI",
}

// companions are keys without which another is a mistake.
func companions(path string) (environ []string) {
	switch {
	case path == "accessKeys.secondary":
		return []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + samples["accessKeys.primary"]}
	case path == "clientCertHeader":
		return []string{"FANFARE_TRUSTED_PROXIES=10.0.0.0/8"}
	case strings.HasPrefix(path, "users.scopes.") && !strings.HasSuffix(path, ".hubs"):
		scope := strings.ToUpper(strings.ReplaceAll(path[:strings.LastIndexByte(path, '.')], ".", "_"))
		return []string{"FANFARE_" + scope + "_HUBS=chat"}
	case path == "identity.defaultResource":
		return []string{"FANFARE_IDENTITY_TYPE=Local"}
	case strings.HasPrefix(path, "hubs.*.clientCertificates."):
		environ = append(companions("clientCertHeader"), "FANFARE_CLIENT_CERT_HEADER=Client-Cert")
		if !strings.HasSuffix(path, ".thumbprints") {
			environ = append(environ, "FANFARE_HUBS_CLIENT_CERTIFICATES_THUMBPRINTS="+samples["hubs.*.clientCertificates.thumbprints"])
		}
	}
	return environ
}

// Every key of the file has a variable, and setting it changes just that.
// Where only the origin tells a user's own pages from others, "*" is worth a word.
func TestOpenOrigins(t *testing.T) {
	const key = "accessKeys: { primary: 0123456789012345678901234567890123456789 }\n"
	for _, test := range []struct{ text, want string }{
		{"allowedOrigins: ['*']\n", "fanfare.yaml:1:17: allowedOrigins: * lets every page that a user opens connect with the development key, which everyone knows"},
		{"hubs: { chat: { allowedOrigins: ['https://a.example', '*'] } }\n", "fanfare.yaml:1:33: hubs.chat.allowedOrigins: * lets every page that a user opens connect with the development key, which everyone knows"},
		{"allowedOrigins: ['https://*.example.com']\n", ""},
		{key + "allowedOrigins: ['*']\nhubs: { chat: {} }\n", ""},
		{key + "allowedOrigins: ['*']\nhubs: { chat: CERTS }\n", "fanfare.yaml:2:17: allowedOrigins: * lets every page that a user opens connect with the user's certificate to hub chat"},
		{key + "hubs: { chat: CERTS, news: { allowedOrigins: ['*'] } }\n", ""},
		{key + "allowedOrigins: ['*']\nhubs: { chat: { allowedOrigins: ['https://a.example'], clientCertificates: { thumbprints: [PIN] } } }\n", ""},
	} {
		file := filepath.Join(t.TempDir(), "fanfare.yaml")
		text := strings.ReplaceAll(test.text, "CERTS", "{ clientCertificates: { thumbprints: [PIN] } }")
		text = strings.ReplaceAll(text, "PIN", strings.Repeat("01", 32))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, warnings, err := config.Load(config.Sources{File: file})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range warnings {
			if strings.HasSuffix(w.Path, "llowedOrigins") {
				got = append(got, strings.ReplaceAll(w.String(), filepath.Dir(file)+"/", ""))
			}
		}
		if strings.Join(got, "\n") != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.text, strings.Join(got, "\n"), test.want)
		}
	}
}

func TestEveryKeyByEnvironment(t *testing.T) {
	// What the struct holds, found by another way than the one that Keys takes.
	fields := map[string]bool{}
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, path string) {
		for f := range typ.Fields() {
			here := strings.TrimPrefix(path+"."+f.Tag.Get("key"), ".")
			switch {
			case f.Type.Kind() == reflect.Map:
				fields[here] = true
				walk(f.Type.Elem(), here+".*")
			case f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[netip.Prefix]():
				walk(f.Type, here)
			default:
				fields[here] = true
			}
		}
	}
	walk(reflect.TypeFor[config.Config](), "")

	known := map[string]config.Key{}
	for _, k := range config.Keys() {
		if k.Doc == "" {
			t.Errorf("%s says nothing of itself", k.Path)
		}
		known[k.Path] = k
	}
	for path := range fields {
		k, ok := known[path]
		if !ok || k.Env == "" {
			t.Errorf("%s has no variable", path)
			continue
		}
		value, ok := samples[path]
		if !ok {
			value = map[string]string{"false": "true"}[k.Default]
			if value == "" {
				value = "77"
			}
		}
		t.Run(k.Env, func(t *testing.T) {
			environ := append([]string{k.Env + "=" + value}, companions(path)...)
			plain, _, err := config.Load(config.Sources{Environ: environ[1:]})
			if err != nil {
				t.Fatal(err)
			}
			c, warnings, err := config.Load(config.Sources{Environ: environ})
			if strings.HasPrefix(path, "tls.") || strings.HasSuffix(path, ".caFile") || strings.HasSuffix(path, ".crlFile") ||
				strings.HasPrefix(path, "identity.") && strings.HasSuffix(path, "Id") { // alone, they must be complained about
				if err == nil || !strings.Contains(err.Error(), "environment "+k.Env+": "+path) {
					t.Fatalf("got %v; want a complaint about %s", err, path)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				if w.Path != path && w.Path != "entra.roleAssignments" { // a tenant alone is worth a word
					t.Errorf("unexpected warning: %s", w)
				}
			}
			if reflect.DeepEqual(c, plain) {
				t.Errorf("%s=%s changes nothing", k.Env, value)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	c, warnings, err := config.Load(config.Sources{Environ: []string{
		`FANFARE_HUBS={news: {anonymousConnectPolicy: allow}}`,
		`FANFARE_HUBS_MY_CHAT_WEB_SOCKET_KEEP_ALIVE_INTERVAL_IN_SECONDS=9`,
		`FANFARE_HUBS_MY_CHAT_EVENT_HANDLERS=[{"urlTemplate":"http://127.0.0.1:1/{event}","systemEvents":["connect"]}]`,
		`FANFARE_HUBS_ANONYMOUS_CONNECT_POLICY=allow`,
		`FANFARE_AUDIENCE_HOSTS=["a.example.com", b.example.com:8443]`,
		`FANFARE_CONNECTION_STRING=x`, `FANFARE_CONFIG=y`,
		`FANFARE_PORT=tcp://10.0.0.1:80`, `FANFARE_SERVICE_HOST=10.0.0.1`, `FANFARE_PORT_80_TCP_ADDR=10.0.0.1`,
		`FANFARE_LISTN=127.0.0.1:1`,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || warnings[0].String() != "environment FANFARE_LISTN: no setting has this variable; it is not used (the nearest one is FANFARE_LISTEN)" {
		t.Errorf("got the warnings %v; want one about FANFARE_LISTN", warnings)
	}
	if got := c.Hub("news").AnonymousConnectPolicy; got != "allow" {
		t.Errorf("news: %s", got)
	}
	if got := c.Hub("my_chat"); got.KeepAlive != 9 || len(got.EventHandlers) != 1 || got.EventHandlers[0].URLTemplate.Reveal() != "http://127.0.0.1:1/{event}" {
		t.Errorf("my_chat: %+v", got)
	}
	if got := c.Hub("unnamed").AnonymousConnectPolicy; got != "allow" {
		t.Errorf("unnamed: %s", got)
	}
	if got := fmt.Sprint(c.AudienceHosts); got != "[a.example.com b.example.com:8443]" {
		t.Error(got)
	}

	for variable, want := range map[string]string{
		"FANFARE_CLUSTER_NATS=nats://x":               "environment FANFARE_CLUSTER_NATS: cluster: clustering is not in this build of Fanfare; unset the variable",
		"FANFARE_TLS_CLIENT_CERT_ENABLED=true":        "environment FANFARE_TLS_CLIENT_CERT_ENABLED: tls.clientCertEnabled: set without tls.certFile, so nobody is asked; expected TLS here, or clientCertHeader for a proxy that does TLS",
		"FANFARE_HUBS_CHAT_CLIENT_CERTIFICATES={}":    "environment FANFARE_HUBS_CHAT_CLIENT_CERTIFICATES: hubs.chat.clientCertificates: trusts nobody; expected caFile, thumbprints or both",
		"FANFARE_HUBS_CHAT_EVENT_LISTENERS=[]":        "environment FANFARE_HUBS_CHAT_EVENT_LISTENERS: hubs.*.eventListeners: sending events to Event Hubs is not in this build of Fanfare; unset the variable",
		"FANFARE_LIMITS_HANDSHAKE_TIMEOUT=10":         `environment FANFARE_LIMITS_HANDSHAKE_TIMEOUT: limits.handshakeTimeout: found "10"; expected a duration such as 10s, 500ms or 2m`,
		"FANFARE_HUBS=[1]":                            "environment FANFARE_HUBS: hubs: found a list; expected a map from hub names to settings",
		"FANFARE_HUBS={a: {x: 1}}":                    "environment FANFARE_HUBS: hubs.a.x: unknown key; known ones are anonymousConnectPolicy, allowedOrigins, clientCertificates, webSocketKeepAliveIntervalInSeconds, eventHandlers",
		"FANFARE_HUBS={a":                             "environment FANFARE_HUBS: hubs: not valid YAML: ",
		"FANFARE_HUBS_1A_ANONYMOUS_CONNECT_POLICY=no": `environment FANFARE_HUBS_1A_ANONYMOUS_CONNECT_POLICY: hubs: "1a" is not a hub name; expected a letter followed by at most 127 letters, digits or _`,
	} {
		_, _, err := config.Load(config.Sources{Environ: []string{variable}})
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\ngot  %v\nwant %s", variable, err, want)
		}
	}
}

// A secret does not show however it is printed.
func TestSecret(t *testing.T) {
	c := config.Default()
	c.AccessKeys.Primary = "hush-hush-hush-hush"
	c.Hubs = map[string]config.Hub{"a": {EventHandlers: []config.EventHandler{{URLTemplate: "https://x/?code=hush-hush"}}}}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", c.AccessKeys.Primary, "all", c, "some", c.AccessKeys)
	json, _ := c.AccessKeys.Primary.MarshalText()
	for _, got := range []string{
		fmt.Sprint(c.AccessKeys), fmt.Sprintf("%v %+v %#v %s %q", *c, *c, *c, c.AccessKeys.Primary, c.AccessKeys.Primary), log.String(), string(json),
		fmt.Sprintf("%x %X", c.AccessKeys.Primary, c.AccessKeys.Primary),
	} {
		if strings.Contains(got, "hush") || strings.Contains(strings.ToLower(got), "68757368") {
			t.Errorf("the secret shows in %s", got)
		}
	}
	if c.AccessKeys.Primary.Reveal() != "hush-hush-hush-hush" {
		t.Error("Reveal does not reveal")
	}
}

// Aliases that multiply are refused, not carried out.
func TestBomb(t *testing.T) {
	text := "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
	for c := 'b'; c < 'k'; c++ {
		text += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	got := lines(t, text)
	if len(got) != 1 || !strings.Contains(got[0], "too deep or too long") {
		t.Errorf("got %q", got)
	}
}

// Nothing that a file can hold makes Load panic, and no problem spans lines.
func FuzzLoad(f *testing.F) {
	for _, file := range []string{"testdata/mistakes.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("hubs: { chat: { eventHandlers: [ { urlTemplate: 'http://a/{hub', userEventPattern: '*' } ] } }"))
	f.Add([]byte("a: &a\n  b: *a\n"))
	f.Add([]byte("? [x]\n: y\n<<: [*b, {c: d}]\n--- !!str &x 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, _, err := config.Load(config.Sources{File: file})
		if (c == nil) == (err == nil) {
			t.Fatal("want either settings or an error")
		}
		problems, _ := errors.AsType[config.Problems](err)
		for _, p := range problems {
			if strings.ContainsAny(p.String(), "\n\r") {
				t.Errorf("a problem of several lines: %q", p)
			}
		}
	})
}
