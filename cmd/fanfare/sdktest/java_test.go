package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestJava runs what folder java holds: azure-messaging-webpubsub, with the
// JDK's own WebSocket to see what clients receive.
func TestJava(t *testing.T) {
	java, javac := need(t, "java"), need(t, "javac")
	classPath := jars(t, "java")
	compiled := func(folder, classPath string) string {
		sources, err := filepath.Glob(filepath.Join(folder, "*.java"))
		if err != nil || len(sources) == 0 {
			t.Fatalf("no sources in folder %s (%v)", folder, err)
		}
		classes := t.TempDir()
		run(t, 2*time.Minute, exec.Command(javac, append([]string{"-encoding", "UTF-8", "-cp", classPath, "-d", classes}, sources...)...))
		return classes + string(os.PathListSeparator) + classPath
	}
	servicePath := compiled("java", classPath)
	bothSchemes(t, func(t *testing.T, s scheme) {
		n := startNode(t, s, nil)
		args := []string{"-Dfile.encoding=UTF-8", "-cp", servicePath}
		if s == tls {
			args = append(args, "-Djavax.net.ssl.trustStore="+trustStore(t, n.CAFile), "-Djavax.net.ssl.trustStorePassword="+storePassword)
		}
		cmd := exec.Command(java, append(args, "ServiceSuite")...)
		cmd.Env = append(os.Environ(), n.env()...)
		run(t, 5*time.Minute, cmd)
	})

	// The client library is tried where there is one: CI's Maven repository has none.
	library := os.Getenv("FANFARE_JAVA_CLIENT_JAR")
	if library == "" {
		t.Log("azure-messaging-webpubsub-client was NOT tried: FANFARE_JAVA_CLIENT_JAR, the class path of it and what it needs, is not set")
		return
	}
	clientPath := compiled(filepath.Join("java", "client"), library+string(os.PathListSeparator)+classPath)
	t.Run("client", func(t *testing.T) { // over plain HTTP: this client trusts every certificate
		// It acknowledges 5 s after its last recovery, so perhaps never, and may
		// leave 1,000 messages unacknowledged.
		testReliable(t, plain, exec.Command(java, "-cp", clientPath, "ReliableClient"),
			ordeal{kills: min(*kills, 50), messages: min(*messages, 900), inOrder: true})
	})
}

// storePassword opens a trust store that holds nothing secret; keytool wants one.
const storePassword = "changeit"

// trustStore makes a Java trust store that holds one CA.
func trustStore(t *testing.T, caFile string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trust.p12")
	run(t, time.Minute, exec.Command(need(t, "keytool"), "-importcert", "-noprompt", "-alias", "test-ca",
		"-file", caFile, "-keystore", path, "-storetype", "PKCS12", "-storepass", storePassword))
	return path
}
