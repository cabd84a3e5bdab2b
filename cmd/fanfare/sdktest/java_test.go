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
	sources, err := filepath.Glob(filepath.Join("java", "*.java"))
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources in folder java (%v)", err)
	}
	classes := t.TempDir()
	run(t, 2*time.Minute, exec.Command(javac, append([]string{"-encoding", "UTF-8", "-cp", classPath, "-d", classes}, sources...)...))
	bothSchemes(t, func(t *testing.T, s scheme) {
		n := startNode(t, s, nil)
		args := []string{"-Dfile.encoding=UTF-8", "-cp", classes + string(os.PathListSeparator) + classPath}
		if s == tls {
			args = append(args, "-Djavax.net.ssl.trustStore="+trustStore(t, n.CAFile), "-Djavax.net.ssl.trustStorePassword="+storePassword)
		}
		cmd := exec.Command(java, append(args, "ServiceSuite")...)
		cmd.Env = append(os.Environ(), n.env()...)
		run(t, 5*time.Minute, cmd)
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
