package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The SDKs for text messages call the service of examples/guard, as its README has
// it. Nothing in them is ours: they sign, and ask for tokens, as they do of Azure.

func guardFolder(language string) string {
	return filepath.Join("..", "..", "..", "examples", "guard", language)
}

func TestGuardInJavaScript(t *testing.T) {
	folder := guardFolder("javascript")
	nodejs, modules := need(t, "node"), nodeModules(t, folder)
	testGuard(t, func(certs) *exec.Cmd {
		cmd := exec.Command(nodejs, filepath.Join(folder, "send.js"))
		cmd.Env = []string{"NODE_PATH=" + modules}
		return cmd
	})
}

func TestGuardInPython(t *testing.T) {
	folder := guardFolder("python")
	python := pythonWith(t, folder)
	testGuard(t, func(certs) *exec.Cmd {
		return exec.Command(python, "-B", filepath.Join(folder, "send.py"))
	})
}

func TestGuardInJava(t *testing.T) {
	folder := guardFolder("java")
	java := need(t, "java")
	classPath := compiled(t, jars(t, folder), filepath.Join(folder, "*.java"))
	var trust []string // made once, since keytool takes its time
	testGuard(t, func(c certs) *exec.Cmd {
		if trust == nil {
			trust = trusting(t, c.caFile)
		}
		return exec.Command(java, slices.Concat(trust, []string{"-XX:TieredStopAtLevel=1", "-cp", classPath, "Send"})...)
	})
}

// guardLine finds the connection string of a service that has made its own key.
var guardLine = regexp.MustCompile(`^connection string: (endpoint=https://127\.0\.0\.1:\d+/;accesskey=\S+)$`)

// testGuard runs a program, which sends a text to a good number and to a bad one,
// against the service, and sees what it prints and what the carrier has. program
// makes the command, which is to trust the certificates' CA.
func testGuard(t *testing.T, program func(certs) *exec.Cmd) {
	c := certificates(t)
	authority := startIssuer(t, c)
	path := filepath.Join(t.TempDir(), "guard")
	if out, err := exec.Command("go", slices.Concat([]string{"build"}, buildFlags, []string{"-o", path, "../../../examples/guard"})...).CombinedOutput(); err != nil {
		t.Fatalf("go build ./examples/guard: %v\n%s", err, out)
	}
	cmd := exec.Command(path, "-listen", "127.0.0.1:0", "-cert", c.certFile, "-key", c.keyFile, "-tenant", entraTenant, "-authority", authority, "-allow", entraOwner)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "ACCESS_KEY=") }), "SSL_CERT_FILE="+c.caFile)
	service := start(t, cmd)
	service.inOrder = true
	connectionString := service.waitFor(t, guardLine)
	endpoint, _, _ := strings.Cut(strings.TrimPrefix(connectionString, "endpoint="), ";")
	trust := (&node{CAFile: c.caFile}).env()
	directory := func(object string) []string {
		return []string{"CONNECTION_STRING=", "ENDPOINT=" + strings.TrimSuffix(endpoint, "/"), "AZURE_AUTHORITY_HOST=" + authority,
			"AZURE_TENANT_ID=" + entraTenant, "AZURE_CLIENT_ID=" + object, "AZURE_CLIENT_SECRET=a secret of the test"}
	}

	sent := []string{"sent to +14255550123 202", "not sent to 4255550123 400"}
	for _, test := range []struct {
		name   string
		env    []string
		prints []string
		caller string // for whom a text is sent; empty: none is
	}{
		{"access key", []string{"CONNECTION_STRING=" + connectionString}, sent, "primary"},
		{"Entra ID", directory(entraOwner), sent, entraOwner},
		{"another key", []string{"CONNECTION_STRING=endpoint=" + endpoint + ";accesskey=" + randomKey()}, []string{"refused: 401 signed.signature"}, ""},
		{"Entra ID, not listed", directory(entraReader), []string{"refused: 403 Forbidden"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			cmd := program(c)
			cmd.Env = slices.Concat(os.Environ(), cmd.Env, trust, test.env)
			start(t, cmd).prints(t, test.prints...)
			if test.caller != "" {
				if got := service.waitFor(t, regexp.MustCompile(`^text from "\+14255550100" to \+14255550123 for "(.+)": "hello"$`)); got != test.caller {
					t.Errorf("sent for %s; want %s", got, test.caller)
				}
			}
		})
	}
	if n := strings.Count(service.printed(), "text from "); n != 2 {
		t.Errorf("%d texts were sent; want 2", n)
	}
}
