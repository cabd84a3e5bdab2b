package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const (
	entraPubSub = "bbbbbbbb-0000-4000-8000-000000000002" // an application that may do all but manage users
	entraUser   = "cccccccc-0000-4000-8000-000000000001"
	entraClient = "dddddddd-0000-4000-8000-000000000001" // the application that the user signed in to
)

// TestIdentity runs what folder identity holds: the SDKs of the identity service, by
// access key and, over TLS, by tokens of oauth2-mock-server; and clients whose
// credentials are the tokens that were issued. What the SDKs sign is recomputed on
// its way to the nodes, which have the same keys.
func TestIdentity(t *testing.T) {
	c := certificates(t)
	authority := startIssuer(t, c)
	keys := [2]string{randomKey(), randomKey()}
	nodes := map[scheme]*node{}
	for _, s := range []scheme{plain, tls} {
		nodes[s] = startUsersNode(t, s, keys, c, authority)
	}
	busy := startUsersNode(t, tls, keys, c, authority)
	env := append(os.Environ(),
		"ENTRA_AUTHORITY="+authority, "ENTRA_TENANT="+entraTenant, "ENTRA_OWNER="+entraOwner, "ENTRA_PUBSUB="+entraPubSub,
		"ENTRA_USER="+entraUser, "ENTRA_CLIENT="+entraClient, "NODE_EXTRA_CA_CERTS="+c.caFile, "SSL_CERT_FILE="+c.caFile)
	// through returns the environment of a suite whose requests pass r.
	through := func(r *recorder, s scheme) []string {
		return slices.Concat(env, nodes[s].env(), []string{"IDENTITY_ENDPOINT=" + r.open(nodes[s]), "FANFARE_PAST=" + startPast(r.t, nodes[s])})
	}

	t.Run("JavaScript", func(t *testing.T) {
		nodejs, modules := need(t, "node"), nodeModules(t, "javascript")
		r := &recorder{t: t, keys: keys}
		bothSchemes(t, func(t *testing.T, s scheme) {
			suites := []string{filepath.Join("identity", "identity.test.js"), filepath.Join("identity", "clients.test.js")}
			if s == tls { // once is enough for what takes its time
				suites = append(suites, filepath.Join("identity", "refresh.test.js"), filepath.Join("identity", "signin.test.js"))
			}
			cmd := exec.Command(nodejs, nodeTest(suites...)...)
			cmd.Env = append(through(r, s), "NODE_PATH="+modules)
			run(t, 2*time.Minute, cmd)
		})
		r.finish("javascript")
		t.Run("too many", func(t *testing.T) {
			cmd := exec.Command(nodejs, filepath.Join("identity", "five-users.js"))
			cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
			testThrottled(t, busy, true, cmd)
		})
	})
	t.Run("Python", func(t *testing.T) {
		python := pythonWith(t, "python")
		r := &recorder{t: t, keys: keys}
		bothSchemes(t, func(t *testing.T, s scheme) {
			cmd := exec.Command(python, "-B", "-W", "ignore::ResourceWarning", "-m", "unittest", "discover", "--verbose", "--start-directory", "identity")
			cmd.Env = append(through(r, s), "PYTHONPATH=python")
			run(t, 2*time.Minute, cmd)
		})
		r.finish("python")
		t.Run("too many", func(t *testing.T) {
			testThrottled(t, busy, false, exec.Command(python, "-B", filepath.Join("identity", "five_users.py")))
		})
	})
	t.Run("Java", func(t *testing.T) { // over TLS, since this SDK takes no other endpoint
		java := need(t, "java")
		classPath := compiled(t, jars(t, "java"), filepath.Join("identity", "*.java"), filepath.Join("java", "Check.java"))
		r := &recorder{t: t, keys: keys}
		args := append(trusting(t, c.caFile), "-Dfile.encoding=UTF-8", "-XX:TieredStopAtLevel=1", "-cp", classPath)
		cmd := exec.Command(java, append(args, "IdentitySuite")...)
		cmd.Env = through(r, tls)
		run(t, 2*time.Minute, cmd)
		r.finish("java")
		t.Run("too many", func(t *testing.T) {
			testThrottled(t, busy, false, exec.Command(java, append(args[:len(args):len(args)], "FiveUsers")...))
		})
	})
}

// startUsersNode runs a node that keeps users in memory. Servers are let in by its
// access keys, and by tokens of the authority.
func startUsersNode(t *testing.T, s scheme, keys [2]string, c certs, authority string) *node {
	t.Helper()
	n := &node{Key: keys[0], Secondary: keys[1]}
	anything := []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"}
	settings := map[string]any{
		"accessKeys": map[string]string{"primary": n.Key, "secondary": n.Secondary},
		"users": map[string]any{
			"scopes": map[string]any{
				"chat":      map[string]any{"hubs": []string{"talk"}, "roles": anything},
				"chat.join": map[string]any{"hubs": []string{"talk"}, "roles": anything[:1]},
			},
		},
		"entra": map[string]any{
			"tenantId": entraTenant, "authority": authority,
			"roleAssignments": []map[string]string{
				{"principalId": entraOwner, "role": "Communication and Email Service Owner", "hub": "*"},
				{"principalId": entraPubSub, "role": "Web PubSub Service Owner", "hub": "*"},
			},
		},
	}
	if s == tls {
		n.CAFile, n.certs = c.caFile, c
		settings["tls"] = map[string]string{"certFile": c.certFile, "keyFile": c.keyFile}
	}
	n.Endpoint = serve(t, settings, "SSL_CERT_FILE="+c.caFile).waitFor(t, endpointLine)
	t.Logf("node: %s", n.Endpoint)
	return n
}
