package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/transport/client"
)

// appService is where an app of App Service gets its tokens: the environment that
// it returns names it.
func appService(t *testing.T) (environ []string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if r.Header.Get("X-IDENTITY-HEADER") != "header-secret" || query.Get("api-version") != "2019-08-01" || strings.Contains(query.Get("resource"), "unknown") {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_resource","error_description":"there is none of that name"}`)
			return
		}
		fmt.Fprintf(w, `{"access_token":"t0ken-for-%s","expires_on":"%d","resource":%q,"token_type":"Bearer"}`,
			query.Get("resource"), time.Now().Add(24*time.Hour).Unix(), query.Get("resource"))
	}))
	t.Cleanup(s.Close)
	return []string{"IDENTITY_ENDPOINT=" + s.URL + "/msi/token", "IDENTITY_HEADER=header-secret"}
}

// asApp makes this process an app of App Service.
func asApp(t *testing.T) {
	t.Helper()
	for _, kv := range appService(t) {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
}

// vault is a key vault on localhost, of a certificate that nobody but its CA file
// vouches for.
type vault struct {
	host, caFile string

	mu     sync.Mutex
	values map[string]string // by path
	moved  string            // where all other secrets are said to be; empty for nowhere
	wrong  []string          // what was wrong with requests
}

func newVault(t *testing.T) *vault {
	t.Helper()
	dir := t.TempDir()
	v := &vault{caFile: filepath.Join(dir, "ca.pem"), values: map[string]string{}}
	keyFile := filepath.Join(dir, "key.pem")
	writeCertificate(t, v.caFile, keyFile, 1)
	pair, err := tls.LoadX509KeyPair(v.caFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(v)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, _ := strings.Cut(s.Listener.Addr().String(), ":")
	v.host = "localhost:" + port
	return v
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	resource := "https://" + v.host
	switch auth := r.Header.Get("Authorization"); {
	case auth == "":
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.example/tenant", resource="`+resource+`"`)
		w.WriteHeader(http.StatusUnauthorized)
	case auth != "Bearer t0ken-for-"+resource:
		v.wrong = append(v.wrong, "Authorization: "+auth)
		w.WriteHeader(http.StatusForbidden)
	case v.values[r.URL.Path] == "" && v.moved != "":
		http.Redirect(w, r, v.moved, http.StatusTemporaryRedirect)
	case v.values[r.URL.Path] == "":
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error":{"code":"SecretNotFound","message":"there is none of that name"}}`)
	default:
		fmt.Fprintf(w, `{"value":%q,"id":%q}`, v.values[r.URL.Path], resource+r.URL.Path)
	}
}

// settings are those of a node that may ask the vault.
func (v *vault) settings(more string) string {
	return "listen: 127.0.0.1:0\nidentity: { type: SystemAssigned }\nkeyVault: { allowedHosts: [\"" + v.host + "\"] }" + more
}

// environ is that of such a node's process: an app of App Service, which trusts the vault.
func (v *vault) environ(t *testing.T) []string {
	t.Helper()
	return append(appService(t), "SSL_CERT_FILE="+v.caFile, "NO_PROXY=localhost")
}

// reference stands for a secret in a URL template.
func (v *vault) reference(path string) string {
	return "{@Microsoft.KeyVault(SecretUri=https://" + v.host + path + ")}"
}

func (v *vault) set(path, value string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.values[path] = value
}

// process is a node that is a process of its own, for what the environment of a
// process decides: whom it trusts.
type process struct {
	*command
	cmd *exec.Cmd
}

// startProcess runs a node with what is added to the environment of this process.
func startProcess(t *testing.T, environ []string, args ...string) *process {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{command: &command{out: newOutput(), err: newOutput(), done: make(chan struct{})}, cmd: exec.Command(program, args...)}
	p.cmd.Env = append(append(os.Environ(), "RUN_AS_PROGRAM=1"), environ...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the process
		p.cmd.Wait()
		p.code = p.cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
	})
	p.err.wait(t, "msg=serving")
	p.address = listening.FindStringSubmatch(p.out.wait(t, "Health"))[1]
	return p
}

// An event handler gets a token with each event, and none with the question whether it
// takes events. An event that there is no token for fails, and is not sent at all.
func TestIdentity06HandlerToken(t *testing.T) {
	asApp(t)
	up := newUpstream(t)
	path := file(t, "fanfare.yaml", `
listen: 127.0.0.1:0
identity: { type: SystemAssigned, defaultResource: "api://unknown" }
hubs:
  chat:
    eventHandlers:
      - urlTemplate: "`+up.URL+`"
        userEventPattern: "*"
        systemEvents: [connect, connected, disconnected]
        auth: { type: ManagedIdentity, managedIdentity: { resource: "api://my-handler" } }
  shut: { eventHandlers: [ { urlTemplate: "`+up.URL+`/shut", systemEvents: [connect], auth: { type: ManagedIdentity } } ] }
  mute: { eventHandlers: [ { urlTemplate: "`+up.URL+`/mute", userEventPattern: "*", auth: { type: ManagedIdentity } } ] }
`)
	n := startNode(t, nil, "--config", path)
	connect := n.environ(accesskey.DevelopmentKey)
	c, err := dial(t, connect, "--hub", "chat")
	if err != nil {
		t.Fatalf("%v: %s", err, n.err)
	}
	if err := c.SendEvent(t.Context(), "x", text("x"), nil); err != nil {
		t.Error(err)
	}
	c.Close()
	got := map[string]string{}
	for range 4 {
		select {
		case r := <-up.events:
			got[r.Header.Get("Ce-Eventname")] = r.Method + " " + r.Header.Get("Authorization")
		case <-time.After(patience):
			t.Fatalf("the handler got %v", got)
		}
	}
	const sent = "POST Bearer t0ken-for-api://my-handler"
	if want := map[string]string{"connect": sent, "connected": sent, "x": sent, "disconnected": sent}; !maps.Equal(got, want) {
		t.Errorf("the handler got %v", got)
	}
	if r := <-up.checks; r.Method != http.MethodOptions || r.Header.Get("Authorization") != "" {
		t.Errorf("the handler was asked by %s with %q", r.Method, r.Header.Get("Authorization"))
	}

	if _, err := dial(t, connect, "--hub", "shut"); !refusedWith(err, http.StatusInternalServerError) {
		t.Errorf("without a token: %v", err)
	}
	mute, err := dial(t, connect, "--hub", "mute")
	if err != nil {
		t.Fatal(err)
	}
	ack, ok := errors.AsType[*client.AckError](mute.SendEvent(t.Context(), "x", text("x"), nil))
	if !ok || ack.Name != "InternalServerError" {
		t.Errorf("without a token: %v", ack)
	}
	n.err.wait(t, "answered 400: invalid_resource")
	n.signals <- syscall.SIGTERM
	if code := n.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, n.err)
	}
	select { // after the node's end nothing is on its way
	case r := <-up.events:
		t.Errorf("the handler got %s %s with %q", r.Method, r.URL, r.Header.Get("Authorization"))
	default:
	}
}

// A secret that has been rotated is picked up while the node runs: when the handler
// refuses the one before it, and when the settings are read again.
func TestIdentity08RotatedSecret(t *testing.T) {
	v := newVault(t)
	up := newUpstream(t)
	var mu sync.Mutex
	code := ""
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Query().Get("code") != code {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	rotate := func(to string) {
		v.set("/secrets/code/", to)
		mu.Lock()
		defer mu.Unlock()
		code = to
	}
	rotate("c0de-1")
	path := file(t, "fanfare.yaml", v.settings(`
hubs: { chat: { eventHandlers: [ { urlTemplate: "`+up.URL+`?code=`+v.reference("/secrets/code")+`", userEventPattern: "*" } ] } }
`))
	n := startProcess(t, v.environ(t), "--config", path)
	c, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat")
	if err != nil {
		t.Fatal(err)
	}
	// send returns the secret that the handler got with an event.
	send := func() (string, error) {
		t.Helper()
		err := c.SendEvent(t.Context(), "x", text("x"), nil)
		return up.event(t, "x").URL.Query().Get("code"), err
	}
	if got, err := send(); got != "c0de-1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}

	rotate("c0de-2")
	if got, err := send(); got != "c0de-1" || err == nil {
		t.Errorf("after the first rotation: %q, %v", got, err)
	}
	// That event is lost; the secret is read again for those that come.
	last := ""
	eventually(t, "the secret is read again", func() bool {
		got, err := send()
		last = got
		return err == nil
	})
	if last != "c0de-2" {
		t.Errorf("accepted with %q", last)
	}
	rotate("c0de-3")
	n.cmd.Process.Signal(syscall.SIGHUP)
	n.err.wait(t, "the settings were read again")
	if got, err := send(); got != "c0de-3" || err != nil {
		t.Errorf("after the second rotation: %q, %v", got, err)
	}
}

// A template may refer to several secrets. Where one of them cannot be had the event
// fails, and nobody is sent a URL with a reference in it. No secret shows.
func TestIdentity09TwoSecrets(t *testing.T) {
	v := newVault(t)
	v.set("/secrets/code/", "c0de-1")
	v.set("/secrets/more/v1", "m0re=1&x=2")
	up := newUpstream(t)
	code, more, unknown := v.reference("/secrets/code"), v.reference("/secrets/more/v1"), v.reference("/secrets/unknown")
	path := file(t, "fanfare.yaml", v.settings(`
log: { level: debug }
hubs:
  chat: { eventHandlers: [ { urlTemplate: "`+up.URL+`/{event}?code=`+code+`&`+more+`", userEventPattern: "*", systemEvents: [connect] } ] }
  shut: { eventHandlers: [ { urlTemplate: "`+up.URL+`/shut?code=`+code+`&`+unknown+`", systemEvents: [connect] } ] }
  mute: { eventHandlers: [ { urlTemplate: "`+up.URL+`/mute?code=`+unknown+`&`+more+`", userEventPattern: "*" } ] }
`))
	if exit, out, said := finish(t, nil, "check", "--config", path); exit != exitOK {
		t.Fatal(exit, out, said)
	}
	n := startProcess(t, v.environ(t), "--config", path)
	connect := n.environ(accesskey.DevelopmentKey)
	c, err := dial(t, connect, "--hub", "chat")
	if err != nil {
		t.Fatalf("%v: %s", err, n.err)
	}
	if err := c.SendEvent(t.Context(), "x", text("x"), nil); err != nil {
		t.Error(err)
	}
	for _, event := range []string{"connect", "x"} {
		if got, want := up.event(t, event).URL.String(), "/"+event+"?code=c0de-1&m0re=1&x=2"; got != want {
			t.Errorf("the handler got %s; want %s", got, want)
		}
	}

	if _, err := dial(t, connect, "--hub", "shut"); !refusedWith(err, http.StatusInternalServerError) {
		t.Errorf("without a secret: %v", err)
	}
	mute, err := dial(t, connect, "--hub", "mute")
	if err != nil {
		t.Fatal(err)
	}
	if err := mute.SendEvent(t.Context(), "x", text("x"), nil); err == nil {
		t.Error("an event was accepted without a secret")
	}
	n.err.wait(t, "answered 404: SecretNotFound")
	n.cmd.Process.Signal(syscall.SIGTERM)
	if exit := n.wait(t); exit != exitOK {
		t.Errorf("exit code %d: %s", exit, n.err)
	}
	close(up.checks)
	for r := range up.checks {
		if u := r.URL.String(); !strings.Contains(u, "?code=c0de-1&m0re=1&x=2") {
			t.Errorf("the handler was asked at %s", u)
		}
	}
	select {
	case r := <-up.events:
		t.Errorf("the handler got %s %s", r.Method, r.URL)
	default:
	}
	all := n.out.String() + n.err.String()
	for _, secret := range []string{"c0de", "m0re", "t0ken", "header-secret"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q shows:\n%s", secret, all)
		}
	}
	if len(v.wrong) > 0 {
		t.Errorf("the vault got %v", v.wrong)
	}
}

// Tokens and secrets that are fetched are counted, and those that cannot be had.
func TestIdentityCounters(t *testing.T) {
	v := newVault(t)
	v.set("/secrets/code/", "c0de")
	up := newUpstream(t)
	path := file(t, "fanfare.yaml", v.settings(`
metrics: { listen: 127.0.0.1:0 }
hubs:
  chat:
    eventHandlers:
      - urlTemplate: "`+up.URL+`?code=`+v.reference("/secrets/code")+`"
        systemEvents: [connect]
        auth: { type: ManagedIdentity, managedIdentity: { resource: "api://my-handler" } }
  silent: { eventHandlers: [ { urlTemplate: "`+up.URL+`", systemEvents: [connect], auth: { type: ManagedIdentity, managedIdentity: { resource: "api://unknown" } } } ] }
  closed: { eventHandlers: [ { urlTemplate: "`+up.URL+`?code=`+v.reference("/secrets/unknown")+`", systemEvents: [connect] } ] }
`))
	n := startProcess(t, v.environ(t), "--config", path)
	for hub, passes := range map[string]bool{"chat": true, "silent": false, "closed": false} {
		if _, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", hub); passes != (err == nil) {
			t.Errorf("%s: %v", hub, err)
		}
	}
	page := regexp.MustCompile(`Metrics +(\S+)`).FindStringSubmatch(n.out.String())[1]
	_, counters := get(t, page)
	for _, want := range []string{
		// For the handler, the vault, and one that is unknown; a secret, and one that is unknown.
		"fanfare_identity_token_fetches_total 3", "fanfare_identity_token_failures_total 1",
		"fanfare_keyvault_fetches_total 2", "fanfare_keyvault_failures_total 1",
	} {
		if !strings.Contains(counters, "\n"+want+"\n") {
			t.Errorf("%q is not among\n%s", want, counters)
		}
	}
}

// An identity that cannot be had ends the node before it serves.
func TestIdentityWithoutAnEnvironment(t *testing.T) {
	for _, name := range []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"} {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
	code, _, said := finish(t, []string{"FANFARE_LISTEN=127.0.0.1:0", "FANFARE_IDENTITY_TYPE=WorkloadIdentity"})
	if code == exitOK || !strings.Contains(said, "workload identity: no client ID specified") {
		t.Errorf("exit code %d: %s", code, said)
	}
}

// serviceToken checks a token as an ordinary handler does, which knows no more
// than the issuer's URL.
func serviceToken(t *testing.T, issuer, text string) (jwt.MapClaims, error) {
	t.Helper()
	status, body := get(t, issuer+"/.well-known/openid-configuration")
	var found struct {
		Issuer     string   `json:"issuer"`
		JWKS       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := json.Unmarshal([]byte(body), &found); err != nil || status != 200 || found.Issuer != issuer {
		t.Fatal(status, body, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{found.JWKS})
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	_, err = jwt.ParseWithClaims(text, claims, keys.Keyfunc, jwt.WithValidMethods(found.Algorithms), jwt.WithIssuer(issuer),
		jwt.WithAudience("api://my-handler"), jwt.WithExpirationRequired())
	return claims, err
}

// A node that is its own issuer signs what handlers get, and publishes the keys.
// They stem from the access keys: another node with them publishes the same.
func TestLocalIdentity(t *testing.T) {
	const one, two, three = "one-one-one-one-one-one-one-one-one-one", "two-two-two-two-two-two-two-two-two-two", "three-three-three-three-three-three"
	up := newUpstream(t)
	settings := func(primary, secondary string) string {
		return "listen: 127.0.0.1:0\naccessKeys: { primary: " + primary + ", secondary: " + secondary + " }\nidentity: { type: Local }\n" +
			"hubs: { chat: { eventHandlers: [ { urlTemplate: '" + up.URL + "', userEventPattern: '*', auth: { type: ManagedIdentity, managedIdentity: { resource: 'api://my-handler' } } } ] } }\n"
	}
	path := file(t, "fanfare.yaml", settings(one, two))
	n := startNode(t, nil, "--config", path)
	at := "http://" + n.address
	if !strings.Contains(n.out.String(), "Token issuer        "+at+"\n") {
		t.Errorf("the banner is %s", n.out)
	}
	c, err := dial(t, n.environ(one), "--hub", "chat", "--user", "ann")
	if err != nil {
		t.Fatal(err)
	}
	event := func() string {
		t.Helper()
		if err := c.SendEvent(t.Context(), "x", text("x"), nil); err != nil {
			t.Fatal(err)
		}
		token, ok := strings.CutPrefix(up.event(t, "x").Header.Get("Authorization"), "Bearer ")
		if !ok {
			t.Fatal("no token")
		}
		return token
	}
	first := event()
	if claims, err := serviceToken(t, at, first); err != nil || claims["sub"] != "fanfare" {
		t.Errorf("%v, %v", claims, err)
	}
	if r := <-up.checks; r.Header.Get("Authorization") != "" {
		t.Error("the validation carried a token")
	}
	kids := func(at string) string {
		_, body := get(t, at+"/.well-known/jwks.json")
		var set struct{ Keys []struct{ Kid, Kty string } }
		if err := json.Unmarshal([]byte(body), &set); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(set.Keys)
	}
	other := startNode(t, nil, "--config", file(t, "fanfare.yaml", settings(one, two)))
	before := kids(at)
	if got := kids("http://" + other.address); got != before || strings.Count(got, "EC") != 2 {
		t.Errorf("one node publishes %s, another %s", before, got)
	}

	// The keys are exchanged: the secondary becomes the primary, and signs at once,
	// since it has been published; what the one before it signed is still good.
	rewrite(t, path, settings(two, three))
	n.signals <- syscall.SIGHUP
	n.err.wait(t, "the settings were read again")
	second := event()
	if second == first || strings.Count(kids(at), "EC") != 3 {
		t.Errorf("published are %s", kids(at))
	}
	for _, token := range []string{first, second} {
		if _, err := serviceToken(t, at, token); err != nil {
			t.Error(err)
		}
	}
	n.signals <- syscall.SIGTERM
	if code := n.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, n.err)
	}

	// A node that is no issuer publishes nothing.
	plain := startNode(t, nil)
	if status, _ := get(t, "http://"+plain.address+"/.well-known/jwks.json"); status != http.StatusNotFound {
		t.Errorf("a node without an identity of its own answers %d", status)
	}
}

// Where the only key is one that everybody knows, tokens are signed with one that
// nobody does.
func TestLocalIdentityWithoutAKey(t *testing.T) {
	up := newUpstream(t)
	settings := "listen: 127.0.0.1:0\nidentity: { type: Local, defaultResource: 'api://my-handler' }\n" +
		"hubs: { chat: { eventHandlers: [ { urlTemplate: '" + up.URL + "', systemEvents: [connect], auth: { type: ManagedIdentity } } ] } }\n"
	path := file(t, "fanfare.yaml", settings)
	n := startNode(t, nil, "--config", path)
	at := "http://" + n.address
	if _, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat"); err != nil {
		t.Fatal(err)
	}
	token := strings.TrimPrefix(up.event(t, "connect").Header.Get("Authorization"), "Bearer ")
	if _, err := serviceToken(t, at, token); err != nil {
		t.Error(err)
	}
	other := startNode(t, nil, "--config", path)
	_, here := get(t, at+"/.well-known/jwks.json")
	_, there := get(t, "http://"+other.address+"/.well-known/jwks.json")
	if here == there {
		t.Error("two nodes sign with the same key, which everybody knows")
	}
	n.signals <- syscall.SIGHUP
	n.err.wait(t, "the settings were read again")
	if _, err := serviceToken(t, at, token); err != nil {
		t.Errorf("after settings were read again: %v", err)
	}
}

// An identity that changes with the settings reaches those handlers that rely on it.
func TestReloadedIdentity(t *testing.T) {
	asApp(t)
	up := newUpstream(t)
	handler := "hubs: { chat: { eventHandlers: [ { urlTemplate: '" + up.URL + "', userEventPattern: '*', auth: %s } ] } }\n"
	path := file(t, "fanfare.yaml", "listen: 127.0.0.1:0\n"+fmt.Sprintf(handler, "{}"))
	n := startNode(t, nil, "--config", path)
	c, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat")
	if err != nil {
		t.Fatal(err)
	}
	authorization := func() string {
		t.Helper()
		if err := c.SendEvent(t.Context(), "x", text("x"), nil); err != nil {
			t.Fatal(err)
		}
		return up.event(t, "x").Header.Get("Authorization")
	}
	if got := authorization(); got != "" {
		t.Errorf("without an identity: %q", got)
	}
	for n2, test := range []struct{ identity, want string }{
		{"identity: { type: SystemAssigned, defaultResource: 'api://reloaded-1' }\n", "Bearer t0ken-for-api://reloaded-1"},
		{"identity: { type: SystemAssigned, defaultResource: 'api://reloaded-2' }\n", "Bearer t0ken-for-api://reloaded-2"},
		{"identity: { type: Local, defaultResource: 'api://reloaded-3' }\n", "Bearer ey"},
	} {
		rewrite(t, path, "listen: 127.0.0.1:0\n"+test.identity+fmt.Sprintf(handler, "{ type: ManagedIdentity }"))
		n.signals <- syscall.SIGHUP
		eventually(t, "the settings are read again", func() bool {
			return strings.Count(n.err.String(), "the settings were read again") == n2+1
		})
		if got := authorization(); !strings.HasPrefix(got, test.want) {
			t.Errorf("with %s: %.40q", test.identity, got)
		}
	}
	if status, _ := get(t, "http://"+n.address+"/.well-known/jwks.json"); status != http.StatusOK {
		t.Errorf("the issuer's keys: %d", status)
	}
}
