package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

const (
	ownKey   = "own-own-own-own-own-own-own-own-own-own-own"
	onePin   = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	otherKey = "other-other-other-other-other-other-other-other"

	tenant  = "entra: { tenantId: 11111111-aaaa-4bbb-8ccc-222222222222, roleAssignments: [ { principalId: ops, role: Web PubSub Service Reader, hub: '*' } ] }\n"
	keyed   = "accessKeys: { primary: " + ownKey + " }\n"
	connect = "      - { urlTemplate: 'https://app.example.com/connect', systemEvents: [connect] }\n"
	users   = "      - { urlTemplate: 'https://app.example.com/user', userEventPattern: '*' }\n"
	chat    = "hubs:\n  chat:\n    eventHandlers:\n"
)

// replacement loads the settings of one file in place of those of another, and
// returns the problem, without the file's path.
func replacement(t *testing.T, running, next string, environ ...[]string) string {
	t.Helper()
	said := ""
	synctest.Test(t, func(t *testing.T) { // a reload waits for the file to stay as it is
		path := filepath.Join(t.TempDir(), "fanfare.yaml")
		sources := config.Sources{File: path}
		if len(environ) > 0 {
			sources.Environ = environ[0]
		}
		var r config.Reloader
		write(t, path, running)
		c, _, err := r.Load(sources)
		if err != nil {
			t.Fatal(err)
		}
		r.Use(c)
		if len(environ) > 1 {
			sources.Environ = environ[1]
		}
		write(t, path, next)
		if _, _, err := r.Load(sources); err != nil {
			said = strings.ReplaceAll(err.Error(), path, "fanfare.yaml")
		}
	})
	return said
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Settings that would let in more than those in force, because something is missing
// in them, are refused with the key that is missing and what would pass.
func TestReloadRefusesLostProtection(t *testing.T) {
	for name, test := range map[string]struct {
		running, next, path, reason string
	}{
		"no bytes":                                {keyed, "", "fanfare.yaml: ", "holds no settings"},
		"only blanks":                             {keyed, "\n \n", "fanfare.yaml: ", "holds no settings"},
		"only comments":                           {keyed, "# the settings\n", "fanfare.yaml: ", "holds no settings"},
		"only a null":                             {keyed, "---\nnull\n", "fanfare.yaml: ", "holds no settings"},
		"an empty map":                            {keyed, "{}\n", "fanfare.yaml: ", "holds no settings"},
		"empty, and so that in force":             {"# nothing yet\n", "# nothing yet\n", "fanfare.yaml: ", "holds no settings"},
		"cut in a line":                           {keyed + "log: { level: debug }\n", keyed + "log: { level: debug }", "fanfare.yaml: ", "in the middle of a line"},
		"cut in a URL":                            {keyed + chat + "      - systemEvents: [connect]\n        urlTemplate: https://app.example.com/connect\n", keyed + chat + "      - systemEvents: [connect]\n        urlTemplate: https://app.example.co", "fanfare.yaml: ", "in the middle of a line"},
		"no key":                                  {"log: { level: info }\n" + keyed, "log: { level: info }\n", "accessKeys.primary", "would open this node"},
		"an empty key":                            {keyed, "accessKeys: { primary: '' }\n", "accessKeys.primary", "would open this node"},
		"the key is null":                         {keyed, "accessKeys:\nlog: { level: info }\n", "accessKeys.primary", "would open this node"},
		"the development key":                     {keyed, "accessKeys: { primary: " + config.DevelopmentKey.Reveal() + " }\n", "accessKeys.primary", "would open this node"},
		"the development key as the second":       {keyed, "accessKeys: { primary: " + ownKey + ", secondary: " + config.DevelopmentKey.Reveal() + " }\n", "accessKeys.secondary", "would open this node"},
		"keys emptied beside disableLocalAuth":    {"disableLocalAuth: true\n" + tenant + keyed, "disableLocalAuth: true\n" + tenant + "accessKeys: {}\n", "accessKeys.primary", "would be removed"},
		"disableLocalAuth missing, without a key": {tenant + "disableLocalAuth: true\n", tenant, "accessKeys.primary", "would open this node"},
		"disableLocalAuth missing":                {keyed + tenant + "disableLocalAuth: true\n", keyed + tenant, "disableLocalAuth", "would open this node again"},
		"disableLocalAuth false over the development key": {"disableLocalAuth: true\naccessKeys: { primary: " + config.DevelopmentKey.Reveal() + " }\n", "disableLocalAuth: false\naccessKeys: { primary: " + config.DevelopmentKey.Reveal() + " }\n", "accessKeys.primary", "would open this node"},
		"entra emptied beside disableLocalAuth":           {keyed + "disableLocalAuth: true\n" + tenant, keyed + "disableLocalAuth: true\nentra: {}\n", "entra.tenantId", "no way in"},
		"another issuer":                                  {keyed + "entra:\n  tenantId: 11111111-aaaa-4bbb-8ccc-222222222222\n  authority: https://id.example.com\n", keyed + "entra:\n  tenantId: 11111111-aaaa-4bbb-8ccc-222222222222\n", "entra.authority", "its default"},
		"more hubs for users":                             {keyed + "users: { scopes: { chat: { hubs: [a] } } }\n", keyed + "users: {}\nlog: {}\n", "users.scopes.chat.hubs", "its default"},
		"the hub is gone":                                 {keyed + chat + connect, keyed, "hubs.chat.eventHandlers", "that it refuses would get in"},
		"the hub's handlers are gone":                     {keyed + chat + connect, keyed + "hubs:\n  chat:\n    anonymousConnectPolicy: allow\n", "hubs.chat.eventHandlers", "that it refuses would get in"},
		"the list is cut before connect":                  {keyed + chat + users + connect, keyed + chat + users, "hubs.chat.eventHandlers", "that it refuses would get in"},
		"all handlers cut off":                            {keyed + chat + users, keyed + "hubs:\n  chat:\n", "hubs.chat.eventHandlers", "the beginning of the one in force"},
		"a new hub without the handlers of *":             {keyed + "hubs:\n  '*':\n    eventHandlers:\n" + connect, keyed + "hubs:\n  '*':\n    eventHandlers:\n" + connect + "  vip:\n    webSocketKeepAliveIntervalInSeconds: 5\n", "hubs.vip.eventHandlers", "that it refuses would get in"},
		"a hub falls to * that is open":                   {keyed + "hubs:\n  '*': { anonymousConnectPolicy: allow }\n  chat: { anonymousConnectPolicy: deny }\n", keyed + "hubs:\n  '*': { anonymousConnectPolicy: allow }\n", "hubs.chat.anonymousConnectPolicy", "without a token"},
		"origins of pages":                                {keyed + "allowedOrigins: ['https://app.example.com']\n", keyed + "log: {}\n", "allowedOrigins", "its default"},
		"origins of a hub's pages":                        {keyed + "hubs: { chat: { allowedOrigins: ['https://app.example.com'] } }\n", keyed + "hubs: { chat: {} }\n", "hubs.chat.allowedOrigins", "could connect"},
		"a hub falls to * that trusts certificates":       {"hubs: { '*': { clientCertificates: { thumbprints: [" + onePin + "] } }, chat: {} }\n", "hubs: { '*': { clientCertificates: { thumbprints: [" + onePin + "] } } }\n", "hubs.chat.clientCertificates", "would let clients in"},
		"the name of users":                               {"hubs: { chat: { clientCertificates: { thumbprints: [" + onePin + "], user: thumbprint } } }\n", "hubs: { chat: { clientCertificates: { thumbprints: [" + onePin + "] } } }\n", "hubs.chat.clientCertificates.user", "other users"},
	} {
		t.Run(name, func(t *testing.T) {
			said := replacement(t, test.running, test.next)
			if !strings.Contains(said, test.path) || !strings.Contains(said, test.reason) || !strings.Contains(said, "expected") {
				t.Errorf("got %q; want %q, %q and what was expected", said, test.path, test.reason)
			}
			if strings.Contains(said, ownKey) {
				t.Error("a secret shows")
			}
		})
	}
}

// What operators do to running nodes passes.
func TestReloadFollowsEdits(t *testing.T) {
	for name, test := range map[string]struct{ running, next string }{
		"nothing":                                    {keyed + chat + connect, keyed + chat + connect},
		"another key":                                {keyed, "accessKeys: { primary: " + otherKey + " }\n"},
		"a hub's origins become the node's":          {keyed + "hubs: { chat: { allowedOrigins: ['https://app.example.com'] } }\n", keyed + "allowedOrigins: ['https://app.example.com']\n"},
		"all origins, said so":                       {keyed + "allowedOrigins: ['https://app.example.com']\n", keyed + "allowedOrigins: []\n"},
		"a rotation":                                 {"accessKeys: { primary: " + ownKey + ", secondary: " + otherKey + " }\n", "accessKeys: { primary: " + otherKey + " }\n"},
		"a first key":                                {"log: { level: info }\n", keyed},
		"the development key stays":                  {"log: { level: info }\n", "log: { level: debug }\n"},
		"the last handler of a list":                 {keyed + chat + connect + users, keyed + chat + connect},
		"the first handler of a list":                {keyed + chat + connect + users, keyed + chat + users},
		"all handlers, said so":                      {keyed + chat + connect, keyed + "hubs:\n  chat:\n    eventHandlers: []\n"},
		"all handlers, and something else":           {keyed + chat + users, keyed + "hubs:\n  chat: {}\nlog: { level: debug }\n"},
		"a hub without handlers":                     {keyed + "hubs: { chat: { anonymousConnectPolicy: allow } }\n", keyed + "log: {}\n"},
		"anonymous clients, said so":                 {keyed + "hubs: { chat: {} }\n", keyed + "hubs: { chat: { anonymousConnectPolicy: allow } }\n"},
		"local auth again, said so":                  {keyed + tenant + "disableLocalAuth: true\n", keyed + tenant + "disableLocalAuth: false\n"},
		"local auth off":                             {keyed, keyed + tenant + "disableLocalAuth: true\n"},
		"a node that everybody uses loses a handler": {"log: {}\n" + chat + users, "log: {}\n"},
		"Entra ID given up":                          {keyed + "entra:\n  tenantId: 11111111-aaaa-4bbb-8ccc-222222222222\n  audiences: [api://a]\n", keyed + "log: {}\n"},
		"no line feed in either":                     {strings.TrimSuffix(keyed, "\n"), "accessKeys: { primary: " + otherKey + " }"},
	} {
		t.Run(name, func(t *testing.T) {
			if said := replacement(t, test.running, test.next); said != "" {
				t.Error(said)
			}
		})
	}
}

// A key that came from the environment is missed, too, and a file that is gone.
func TestReloadMissesOtherSources(t *testing.T) {
	said := replacement(t, "log: { level: info }\n", "log: { level: debug }\n", []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + ownKey}, nil)
	if !strings.Contains(said, "accessKeys.primary: the development key") {
		t.Errorf("got %q", said)
	}
	if said := replacement(t, "log: { level: info }\n", "log: { level: debug }\n", []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + ownKey}); said != "" {
		t.Errorf("the same environment: %s", said)
	}
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fanfare.yaml")
		write(t, path, keyed)
		var r config.Reloader
		c, _, err := r.Load(config.Sources{File: path})
		if err != nil {
			t.Fatal(err)
		}
		r.Use(c)
		os.Remove(path)
		if _, _, err := r.Load(config.Sources{File: path}); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("the file is gone: %v", err)
		}
	})
}

// A file that is written while it is read is read again until it stays as it is.
func TestReloadWaitsForTheWriter(t *testing.T) {
	for name, test := range map[string]struct {
		writes int // one each 20 ms
		said   string
	}{
		"soon done":  {5, ""},
		"never done": {1000, "it changed each of 10 times it was read; expected a file that is complete"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "fanfare.yaml")
				write(t, path, keyed)
				var r config.Reloader
				c, _, err := r.Load(config.Sources{File: path})
				if err != nil {
					t.Fatal(err)
				}
				r.Use(c)
				whole := keyed + strings.Repeat("# more\n", test.writes)
				done := make(chan struct{})
				go func() { // ends with the writes
					defer close(done)
					for i := range test.writes {
						write(t, path, whole[:len(keyed)+7*i])
						time.Sleep(20 * time.Millisecond)
					}
					write(t, path, strings.Replace(whole, ownKey, otherKey, 1))
				}()
				time.Sleep(10 * time.Millisecond)
				c, _, err = r.Load(config.Sources{File: path})
				switch {
				case test.said != "":
					if err == nil || !strings.Contains(err.Error(), test.said) {
						t.Errorf("got %v; want %q", err, test.said)
					}
				case err != nil:
					t.Error(err)
				case c.AccessKeys.Primary != otherKey:
					t.Error("the file was taken before it was complete")
				}
				<-done
			})
		})
	}
}

// Kubernetes replaces a file by renaming the symbolic link of its folder.
func TestReloadFollowsSymbolicLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "fanfare.yaml")
		for version, key := range []string{ownKey, otherKey} {
			data := filepath.Join(dir, []string{"one", "two"}[version])
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(data, "fanfare.yaml"), "accessKeys: { primary: "+key+" }\n")
		}
		link := func(to string) {
			t.Helper()
			next := filepath.Join(dir, "..next")
			if err := os.Symlink(to, next); err != nil {
				t.Skip(err)
			}
			if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		link("one")
		if err := os.Symlink(filepath.Join("..data", "fanfare.yaml"), path); err != nil {
			t.Skip(err)
		}
		var r config.Reloader
		c, _, err := r.Load(config.Sources{File: path})
		if err != nil {
			t.Fatal(err)
		}
		r.Use(c)
		link("two")
		if c, _, err = r.Load(config.Sources{File: path}); err != nil || c.AccessKeys.Primary != otherKey {
			t.Errorf("%v", err)
		}
	})
}
