package config_test

import (
	"strings"
	"testing"
)

// An identity is selected by one id, and the one that is the machine's own by none.
func TestIdentity05OneSelector(t *testing.T) {
	selectors := []string{"clientId", "objectId", "resourceId"}
	settings := func(kind string, keys ...string) string {
		text := "identity:\n  type: " + kind + "\n"
		for _, key := range keys {
			text += "  " + key + ": a\n"
		}
		return text
	}
	refused := func(target string, got []string) {
		t.Helper()
		if len(got) != 1 || !strings.Contains(got[0], ": identity."+target+": ") {
			t.Errorf("got %q; want one about %s", got, target)
		}
	}
	for i, one := range selectors {
		if got := lines(t, settings("UserAssigned", one)); got != nil {
			t.Errorf("%s alone: %q", one, got)
		}
		refused(one, lines(t, settings("SystemAssigned", one)))
		for _, other := range selectors[i+1:] {
			refused(other, lines(t, settings("UserAssigned", one, other)))
			refused(other, lines(t, settings("UserAssigned", other, one)))
		}
	}
	refused("objectId", lines(t, settings("UserAssigned", selectors...)))
	if got := lines(t, settings("SystemAssigned")); got != nil {
		t.Errorf("none: %q", got)
	}
	for text, want := range map[string]string{
		settings("SystemAssigned", "clientId"): "fanfare.yaml:3:13: identity.clientId: A system-assigned identity is not selected by an id; " +
			"without one, or with the type UserAssigned, this would pass",
		settings("UserAssigned", "clientId", "resourceId"): "fanfare.yaml:4:15: identity.resourceId: There is clientId besides; " +
			"exactly one of clientId, objectId and resourceId selects the identity",
	} {
		if got := strings.Join(lines(t, text), "\n"); got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	}
	// Whichever source names the second.
	refused("objectId", lines(t, settings("UserAssigned", "clientId"), "FANFARE_IDENTITY_OBJECT_ID=b"))
}

// There is one identity at most, and whoever relies on it says for what; every
// mistake is told with its place.
func TestIdentity(t *testing.T) {
	handler := func(identity, auth string) string {
		return identity + "\nhubs: { chat: { eventHandlers: [ { urlTemplate: 'http://127.0.0.1/', userEventPattern: '*', auth: " + auth + " } ] } }\n"
	}
	secret := func(settings, uri string) string {
		return settings + "\nhubs: { chat: { eventHandlers: [ { urlTemplate: 'https://app.example.com/?code={@Microsoft.KeyVault(SecretUri=" + uri + ")}', userEventPattern: '*' } ] } }\n"
	}
	const (
		types  = "None or SystemAssigned or UserAssigned or WorkloadIdentity or Local"
		others = "SystemAssigned, UserAssigned, WorkloadIdentity, Local"
		auth   = "{ type: ManagedIdentity, managedIdentity: { resource: 'api://x' } }"
	)
	for _, test := range []struct{ name, text, want string }{
		{"none", "identity: { type: None }\n", ""},
		{"system", handler("identity: { type: systemassigned }", auth), ""},
		{"user by client id", "identity: { type: UserAssigned, clientId: a }\n", ""},
		{"user by object id", "identity: { type: UserAssigned, objectId: a }\n", ""},
		{"user by resource id", "identity: { type: UserAssigned, resourceId: a }\n", ""},
		{"workload", "identity: { type: WorkloadIdentity }\n", ""},
		{"workload by client id", "identity: { type: WorkloadIdentity, clientId: a }\n", ""},
		{"local", handler("identity: { type: Local }", auth), ""},
		{"default resource", handler("identity: { type: Local, defaultResource: 'api://x' }", "{ type: ManagedIdentity }"), ""},
		{"unknown type", "identity: { type: Both }\n", `fanfare.yaml:1:19: identity.type: found "Both"; expected ` + types},
		{"user, not selected", "identity: { type: UserAssigned }\n", "fanfare.yaml:1:19: identity.type: A user-assigned identity is selected by clientId, objectId or resourceId; exactly one must be set"},
		{"workload, selected", "identity: { type: WorkloadIdentity, objectId: a }\n", "fanfare.yaml:1:47: identity.objectId: A workload identity is selected by clientId, or by AZURE_CLIENT_ID in the environment"},
		{"local, selected", "identity: { type: Local, clientId: a }\n", "fanfare.yaml:1:36: identity.clientId: selects an identity of Azure's; not used with identity.type Local"},
		{"selected without a type", "identity: { objectId: a }\n", "fanfare.yaml:1:23: identity.objectId: selects an identity of Azure's; not used with identity.type None"},
		{"default resource of nobody", "identity: { defaultResource: a }\n", "fanfare.yaml:1:30: identity.defaultResource: set without an identity; expected identity.type to be " + others},
		{"default resource with a blank", "identity: { type: Local, defaultResource: a b }\n", "fanfare.yaml:1:43: identity.defaultResource: The resource of a token holds a blank, or what is not printable ASCII; expected an App ID URI such as api://my-handler, or a GUID, of at most 1024 bytes"},
		{"handler without an identity", handler("", auth), "fanfare.yaml:2:107: hubs.chat.eventHandlers[0].auth.type: the node has no identity; expected identity.type to be " + others + ", or no authentication here"},
		{"handler without a resource", handler("identity: { type: Local }", "{ type: ManagedIdentity }"), "fanfare.yaml:2:107: hubs.chat.eventHandlers[0].auth.type: names no resource; expected one in managedIdentity.resource, such as api://my-handler, or in identity.defaultResource"},
		{"resource without a type", handler("identity: { type: Local }", "{ managedIdentity: { resource: x } }"), "fanfare.yaml:2:130: hubs.chat.eventHandlers[0].auth.managedIdentity.resource: set without hubs.chat.eventHandlers[0].auth.type ManagedIdentity; expected both or none"},
		{"unknown auth", handler("", "{ type: Basic }"), `fanfare.yaml:2:107: hubs.chat.eventHandlers[0].auth.type: found "Basic"; expected None or ManagedIdentity`},
		{"token in the clear", "identity: { type: Local, defaultResource: x }\nhubs: { chat: { eventHandlers: [ { urlTemplate: 'http://192.0.2.1/', userEventPattern: '*', auth: { type: ManagedIdentity } } ] } }\n",
			"fanfare.yaml:2:49: hubs.chat.eventHandlers[0].urlTemplate: A bearer token is sent to an event handler over https, or over http to this machine alone: the handler is at http://192.0.2.1; https://, or a loopback address, would pass"},

		{"secret of Azure's", secret("identity: { type: SystemAssigned }", "https://v.vault.azure.net/secrets/code"), ""},
		{"secret of an allowed vault", secret("identity: { type: Local }\nkeyVault: { allowedHosts: [vault.example.com] }", "https://vault.example.com/secrets/code/1"), ""},
		{"secret without an identity", secret("", "https://v.vault.azure.net/secrets/code"), "fanfare.yaml:2:49: hubs.chat.eventHandlers[0].urlTemplate: refers to a secret, and the node has no identity to read it with; expected identity.type to be " + others},
		{"secret of Azure's by a local identity", secret("identity: { type: Local }", "https://v.vault.azure.net/secrets/code"), "fanfare.yaml:2:49: hubs.chat.eventHandlers[0].urlTemplate: refers to a vault of Azure's, which takes no tokens of identity.type Local; expected one of Azure's identities"},
		{"secret of a stranger's vault", secret("identity: { type: SystemAssigned }", "https://vault.example.com/secrets/code"), "fanfare.yaml:2:49: hubs.chat.eventHandlers[0].urlTemplate: The vault vault.example.com may not be asked: it is none of Azure's (*.vault.azure.net, *.vault.azure.cn, *.vault.usgovcloudapi.net) and not among the allowed hosts"},
		{"no secret's name", secret("identity: { type: SystemAssigned }", "https://v.vault.azure.net/secrets/a/b/c"), "fanfare.yaml:2:49: hubs.chat.eventHandlers[0].urlTemplate: What should be the URI of a secret is not: its path is not that of a secret; expected https://VAULT/secrets/NAME, optionally followed by /VERSION"},
		{"no host", "keyVault: { allowedHosts: [a, 'https://b'] }\n", `fanfare.yaml:1:31: keyVault.allowedHosts[1]: Not the host of a vault: "https://b" is not a host; expected a host name, with a port if it is not 443, such as vault.example.com`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := strings.Join(lines(t, test.text), "\n"); got != test.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, test.want)
			}
		})
	}
}
