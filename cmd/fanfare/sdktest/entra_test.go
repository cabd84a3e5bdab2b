package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

const (
	entraTenant = "11111111-aaaa-4bbb-8ccc-222222222222"
	entraOwner  = "aaaaaaaa-0000-4000-8000-000000000001"
	entraReader = "bbbbbbbb-0000-4000-8000-000000000001"
)

var listeningTLS = regexp.MustCompile(`listening on (https://127\.0\.0\.1:\d+)`)

// TestEntra runs what folder entra holds: the service SDKs with a credential that
// gets its tokens from oauth2-mock-server, against a node without local
// authentication. All of it speaks TLS, since the SDKs send no token otherwise.
func TestEntra(t *testing.T) {
	n, authority := startEntraNode(t, nil)
	env := append(os.Environ(), "NODE_PATH="+nodeModules(t, "entra"), "ENTRA_TENANT="+entraTenant)
	env = append(append(env, n.env()...), "ENTRA_AUTHORITY="+authority, "ENTRA_OWNER="+entraOwner, "ENTRA_READER="+entraReader)

	t.Run("Python", func(t *testing.T) {
		cmd := exec.Command(pythonWith(t, "python"), "-B", "-W", "ignore::ResourceWarning", filepath.Join("entra", "test_entra.py"), "--verbose")
		cmd.Env = env
		run(t, 2*time.Minute, cmd)
	})
	t.Run("JavaScript", func(t *testing.T) {
		cmd := exec.Command(need(t, "node"), nodeTest(filepath.Join("entra", "entra.test.js"))...)
		cmd.Env = env
		run(t, 2*time.Minute, cmd)
	})
	t.Run("Java", func(t *testing.T) {
		java := need(t, "java")
		classPath := compiled(t, jars(t, "java"), filepath.Join("entra", "*.java"), filepath.Join("java", "Check.java"), filepath.Join("java", "Wire.java"))
		cmd := exec.Command(java, append(trusting(t, n.CAFile), "-Dfile.encoding=UTF-8", "-cp", classPath, "EntraSuite")...)
		cmd.Env = env
		run(t, 2*time.Minute, cmd)
	})
}

// startEntraNode runs an authority, and a node that lets servers in by its tokens
// alone; hubs are the settings of the node's hubs.
func startEntraNode(t *testing.T, hubs map[string]any) (n *node, authority string) {
	t.Helper()
	c := certificates(t)
	authority = startIssuer(t, c)

	n = &node{Key: randomKey(), CAFile: c.caFile}
	p := serve(t, map[string]any{
		"tls":              map[string]string{"certFile": c.certFile, "keyFile": c.keyFile},
		"accessKeys":       map[string]string{"primary": n.Key},
		"disableLocalAuth": true,
		"entra": map[string]any{
			"tenantId": entraTenant, "authority": authority,
			"roleAssignments": []map[string]string{
				{"principalId": entraOwner, "role": "Web PubSub Service Owner", "hub": "*"},
				{"principalId": entraReader, "role": "Web PubSub Service Reader", "hub": "chat"},
			},
		},
		"hubs": hubs,
	}, "SSL_CERT_FILE="+c.caFile) // the node trusts its issuer as it would any other host
	// Without local authentication there is no connection string to print.
	n.Endpoint = p.waitFor(t, regexp.MustCompile(`Health +(https://[^/\s]+)/healthz`))
	t.Logf("node: %s", n.Endpoint)
	return n, authority
}

// startIssuer runs the authority: oauth2-mock-server in the place of Entra ID.
func startIssuer(t *testing.T, c certs) (authority string) {
	t.Helper()
	issuer := exec.Command(need(t, "node"), filepath.Join("entra", "issuer.js"))
	issuer.Env = append(os.Environ(), "NODE_PATH="+nodeModules(t, "entra"), "ENTRA_TENANT="+entraTenant,
		"ENTRA_CERT_FILE="+c.certFile, "ENTRA_KEY_FILE="+c.keyFile)
	return start(t, issuer).waitFor(t, listeningTLS)
}
