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
	java := need(t, "java")
	classPath := jars(t, "java")
	servicePath := compiled(t, classPath, filepath.Join("java", "*.java"))
	bothSchemes(t, func(t *testing.T, s scheme) {
		n := startNode(t, s, nil)
		args := []string{"-Dfile.encoding=UTF-8", "-cp", servicePath}
		if s == tls {
			args = append(args, trusting(t, n.CAFile)...)
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
	clientPath := compiled(t, library+string(os.PathListSeparator)+classPath, filepath.Join("java", "client", "*.java"))
	t.Run("client", func(t *testing.T) { // over plain HTTP: this client trusts every certificate
		// It acknowledges 5 s after its last recovery, so perhaps never, and may
		// leave 1,000 messages unacknowledged.
		testReliable(t, plain, exec.Command(java, "-cp", clientPath, "ReliableClient"),
			ordeal{kills: min(*kills, 50), messages: min(*messages, 900), inOrder: true})
	})
}

// compiled compiles the sources that the patterns match and returns the class path
// of their classes and of what they need.
func compiled(t *testing.T, classPath string, patterns ...string) string {
	t.Helper()
	classes := t.TempDir()
	args := []string{"-encoding", "UTF-8", "-cp", classPath, "-d", classes}
	for _, pattern := range patterns {
		sources, err := filepath.Glob(pattern)
		if err != nil || len(sources) == 0 {
			t.Fatalf("no sources are %s (%v)", pattern, err)
		}
		args = append(args, sources...)
	}
	run(t, 2*time.Minute, exec.Command(need(t, "javac"), args...))
	return classes + string(os.PathListSeparator) + classPath
}

// storePassword opens stores that hold nothing secret; keytool wants one.
const storePassword = "changeit"

// trusting returns the options of a JVM that trusts one CA and no other.
func trusting(t *testing.T, caFile string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trust.p12")
	run(t, time.Minute, exec.Command(need(t, "keytool"), "-importcert", "-noprompt", "-alias", "test-ca",
		"-file", caFile, "-keystore", path, "-storetype", "PKCS12", "-storepass", storePassword))
	return []string{"-Djavax.net.ssl.trustStore=" + path, "-Djavax.net.ssl.trustStorePassword=" + storePassword}
}
