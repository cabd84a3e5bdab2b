package sdktest

import (
	"bytes"
	"context"
	"crypto/sha1" // what connect events call a thumbprint
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

// language is how the programs of one folder of examples/authenticate are run.
type language struct {
	// program makes the command that runs one of them. n is the node it is to
	// trust the certificate of, or nil.
	program func(t *testing.T, n *node, name string) *exec.Cmd
	// badge makes a certificate for a client, and the environment it finds it by.
	badge func(t *testing.T, name string) (*x509.Certificate, []string)
}

func authenticateFolder(language string) string {
	return filepath.Join("..", "..", "..", "examples", "authenticate", language)
}

func TestAuthenticateInJavaScript(t *testing.T) {
	folder := authenticateFolder("javascript")
	nodejs, modules := need(t, "node"), nodeModules(t, folder)
	testAuthenticate(t, language{
		program: func(_ *testing.T, _ *node, name string) *exec.Cmd {
			cmd := exec.Command(nodejs, filepath.Join(folder, name+".js"))
			cmd.Env = []string{"NODE_PATH=" + modules}
			return cmd
		},
		badge: pemBadge,
	})
}

func TestAuthenticateInPython(t *testing.T) {
	folder := authenticateFolder("python")
	python := pythonWith(t, folder)
	testAuthenticate(t, language{
		program: func(_ *testing.T, _ *node, name string) *exec.Cmd {
			return exec.Command(python, "-B", filepath.Join(folder, strings.ReplaceAll(name, "-", "_")+".py"))
		},
		badge: pemBadge,
	})
}

func TestAuthenticateInJava(t *testing.T) {
	folder := authenticateFolder("java")
	java := need(t, "java")
	classPath := compiled(t, jars(t, folder), filepath.Join(folder, "*.java"))
	trust := map[string][]string{} // by CA, since keytool takes its time
	testAuthenticate(t, language{
		program: func(t *testing.T, n *node, name string) *exec.Cmd {
			// They are too short for the better compiler to pay.
			args := []string{"-XX:TieredStopAtLevel=1", "-cp", classPath, regexp.MustCompile(`(^|-)[a-z]`).ReplaceAllStringFunc(name, func(s string) string {
				return strings.ToUpper(strings.TrimPrefix(s, "-"))
			})}
			if n == nil || n.CAFile == "" {
				return exec.Command(java, args...)
			}
			if _, made := trust[n.CAFile]; !made {
				trust[n.CAFile] = trusting(t, n.CAFile)
			}
			return exec.Command(java, slices.Concat(trust[n.CAFile], args)...)
		},
		badge: storeBadge,
	})
}

// pemBadge makes a certificate in PEM files.
func pemBadge(t *testing.T, name string) (*x509.Certificate, []string) {
	t.Helper()
	c, certFile, keyFile := clientCertificate(t, name)
	return c, []string{"CERT_FILE=" + certFile, "KEY_FILE=" + keyFile}
}

// storeBadge makes a certificate in a PKCS #12 file, which is what Java reads.
func storeBadge(t *testing.T, name string) (*x509.Certificate, []string) {
	t.Helper()
	keytool, store := need(t, "keytool"), filepath.Join(t.TempDir(), "client.p12")
	run(t, time.Minute, exec.Command(keytool, "-genkeypair", "-keyalg", "EC", "-alias", "client", "-dname", "CN="+name,
		"-keystore", store, "-storetype", "PKCS12", "-storepass", storePassword))
	der, err := exec.Command(keytool, "-exportcert", "-alias", "client", "-keystore", store, "-storepass", storePassword).Output()
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, []string{"P12_FILE=" + store, "P12_PASSWORD=" + storePassword}
}

// testAuthenticate runs each program against a node and sees what it prints, and
// what others hear of it.
func testAuthenticate(t *testing.T, l language) {
	t.Run("connection string", l.connectionString)
	t.Run("client token", l.clientToken)
	t.Run("Entra ID", l.entraID)
	t.Run("certificate", l.certificate)
}

// start runs a program until the test ends.
func (l language) start(t *testing.T, n *node, name string, env ...string) *process {
	t.Helper()
	cmd := l.program(t, n, name)
	cmd.Env = append(append(os.Environ(), cmd.Env...), env...)
	if n != nil {
		cmd.Env = append(append(cmd.Env, n.env()...), "CONNECTION_STRING="+n.ConnectionString(), "ENDPOINT="+n.Endpoint)
	}
	return start(t, cmd)
}

func (l language) connectionString(t *testing.T) {
	n := startNode(t, plain, nil)
	ann, bo := n.guest(t, "chat", token.Claims{User: "ann"}), n.guest(t, "chat", token.Claims{User: "bo"})
	l.start(t, n, "connection-string").prints(t, "ann is here: true", "bo is here: false")
	ann.hears(t, `: {"text":"hello, everybody"}`, ": hello, ann", "news: hello, readers")
	bo.hears(t, `: {"text":"hello, everybody"}`)
	e, err := bo.next(t)
	if end, ok := e.(client.Disconnected); !ok || !strings.HasSuffix(end.Text, "it is late") {
		t.Errorf("bo gets %#v, %v; want to be told that it is late", e, err)
	}
}

func (l language) clientToken(t *testing.T) {
	n := startNode(t, plain, nil)
	bo := n.guest(t, "chat", token.Claims{User: "bo", Groups: []engine.GroupName{"room"}, Roles: []string{"webpubsub.sendToGroup"}})
	ann := l.start(t, n, "client-token")
	bo.hears(t, "room ann: hello from ann")
	if err := bo.SendToGroup(t.Context(), "room", engine.Payload{Type: engine.Text, Data: []byte("hello from bo")}, nil); err != nil {
		t.Fatal(err)
	}
	ann.prints(t, "connected as ann", "received: hello from bo")
}

// The credential is the one that the program would have in production: the
// variables point it to an authority of the test's.
func (l language) entraID(t *testing.T) {
	n, authority := startEntraNode(t, map[string]any{"chat": map[string]string{"anonymousConnectPolicy": "allow"}})
	anyone := n.enter(t, n.clientURL("chat"))
	p := l.start(t, n, "entra-id", "CONNECTION_STRING=", "AZURE_AUTHORITY_HOST="+authority,
		"AZURE_TENANT_ID="+entraTenant, "AZURE_CLIENT_ID="+entraOwner, "AZURE_CLIENT_SECRET=a secret of the test")
	url := p.waitFor(t, regexp.MustCompile(`^ann may connect with (wss://\S+)$`))
	p.prints(t)
	anyone.hears(t, ": hello from a server without a key")
	if user := n.enter(t, url).UserID(); user != "ann" {
		t.Errorf("with the URL that was printed one is %q; want ann", user)
	}
}

// One hub asks the example's server, which knows the SHA-1 of one certificate; the
// node itself knows its SHA-256 in the other one.
func (l language) certificate(t *testing.T) {
	known, env := l.badge(t, "drill-1")
	_, strange := l.badge(t, "drill-1")
	var colons []string // as openssl prints it
	for _, b := range sha1.Sum(known.Raw) {
		colons = append(colons, fmt.Sprintf("%02X", b))
	}
	server := l.start(t, nil, "certificate-server", "THUMBPRINT="+strings.Join(colons, ":"), "PORT=0").waitFor(t, listening)

	c := certificates(t)
	n := &node{Key: randomKey(), CAFile: c.caFile}
	pin := sha256.Sum256(known.Raw)
	n.Endpoint = serve(t, map[string]any{
		"accessKeys": map[string]string{"primary": n.Key},
		"tls":        map[string]any{"certFile": c.certFile, "keyFile": c.keyFile, "clientCertEnabled": true},
		"hubs": map[string]any{
			"guarded": map[string]any{
				"anonymousConnectPolicy": "allow",
				"eventHandlers":          []eventHandler{{URLTemplate: server + "/eventhandler", SystemEvents: []string{"connect"}}},
			},
			"pinned": map[string]any{
				"clientCertificates": map[string]any{"thumbprints": []string{hex.EncodeToString(pin[:])}},
			},
		},
	}).waitFor(t, endpointLine)

	for _, hub := range []struct {
		name, target string
		stranger     int // the status that refuses a certificate which nobody knows
	}{{"guarded", "guarded/groups/drills", 403}, {"pinned", "pinned", 401}} {
		url := "URL=" + n.clientURL(hub.name)
		drill := l.start(t, n, "certificate-client", append(env, url)...)
		stranger := l.start(t, n, "certificate-client", append(strange, url)...)
		nobody := l.start(t, n, "certificate-client", url)
		drill.waitFor(t, regexp.MustCompile(`^connected as (drill-1)$`))
		n.sender(t, hub.target)("turn left")
		drill.prints(t, "received: turn left")
		stranger.ends(t, fmt.Sprint("refused: ", hub.stranger))
		nobody.ends(t, "refused: 401")
	}
}

// guest is a client of the test's own.
type guest struct{ *client.Client }

// guest connects to a hub with a token of the node's key.
func (n *node) guest(t *testing.T, hub engine.HubName, claims token.Claims) guest {
	t.Helper()
	cs, err := accesskey.ParseConnectionString(n.ConnectionString())
	if err != nil {
		t.Fatal(err)
	}
	url, err := cs.ClientURL(hub, claims)
	if err != nil {
		t.Fatal(err)
	}
	return n.enter(t, url)
}

// enter connects to a URL.
func (n *node) enter(t *testing.T, url string) guest {
	t.Helper()
	c, err := client.Dial(t.Context(), url, &client.Options{Subprotocol: client.JSON, TLS: n.trust(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	g := guest{c}
	if e, err := g.next(t); err != nil {
		t.Fatalf("the first event is %#v, %v", e, err)
	}
	return g
}

// clientURL is where clients of a hub connect, without a token.
func (n *node) clientURL(hub string) string {
	return "ws" + strings.TrimPrefix(n.Endpoint, "http") + "/client/hubs/" + hub
}

// next waits for an event.
func (g guest) next(t *testing.T) (client.Event, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return g.Receive(ctx)
}

// hears expects messages, each as "GROUP USER: TEXT" without what it lacks.
func (g guest) hears(t *testing.T, want ...string) {
	t.Helper()
	for _, want := range want {
		e, err := g.next(t)
		m, ok := e.(client.Message)
		data := bytes.NewBuffer(m.Payload.Data)
		if m.Payload.Type == engine.JSON { // which languages space differently
			data = new(bytes.Buffer)
			err = errors.Join(err, json.Compact(data, m.Payload.Data))
		}
		got := strings.TrimSpace(m.Group+" "+m.FromUserID) + ": " + data.String()
		if err != nil || !ok || got != want {
			t.Fatalf("%s hears %#v, %v; want %q", g.UserID(), e, err, want)
		}
	}
}

// prints expects a program to end with status 0, and these lines until then.
func (p *process) prints(t *testing.T, want ...string) {
	t.Helper()
	p.inOrder = true
	p.ends(t, want...)
}

// ends expects the lines that a program prints until it ends; in upper or lower
// case, which languages differ in.
func (p *process) ends(t *testing.T, want ...string) {
	t.Helper()
	var got []string
	deadline := time.After(time.Minute)
	for {
		select {
		case line, more := <-p.lines:
			if more {
				got = append(got, line)
				continue
			}
			if !slices.EqualFunc(got, want, strings.EqualFold) {
				t.Errorf("%s prints %q; want %q", p.name, got, want)
			}
			return
		case <-deadline:
			t.Fatalf("%s has not ended within a minute; it has printed %q", p.name, got)
		}
	}
}
