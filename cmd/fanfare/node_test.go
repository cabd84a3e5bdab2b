package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

// What the banner says of a node with the defaults, and of one that is set up.
func TestBanner(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, 1)
	secret := strings.Repeat("hush", 10)
	for name, environ := range map[string][]string{
		"banner_defaults.golden": nil,
		"banner_set.golden": {
			"FANFARE_ACCESS_KEYS_PRIMARY=" + secret, "FANFARE_PUBLIC_ENDPOINT=https://rt.example.com", "FANFARE_METRICS_LISTEN=127.0.0.1:0",
			"FANFARE_TLS_CERT_FILE=" + cert, "FANFARE_TLS_KEY_FILE=" + key,
		},
		"banner_open.golden": {
			"FANFARE_DISABLE_LOCAL_AUTH=true", "FANFARE_HUBS={chat: {anonymousConnectPolicy: allow}}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, environ)
			got := n.out.String()
			if strings.Contains(got, secret) {
				t.Error("the key shows")
			}
			module, commit := version()
			if commit != "" {
				module += " (" + commit + ")"
			}
			got = strings.Replace(got, "Fanfare "+module+"\n", "Fanfare VERSION\n", 1)
			got = strings.ReplaceAll(got, n.address, "127.0.0.1:PORT")
			if i := strings.Index(got, "  Metrics"); i >= 0 {
				line, rest, _ := strings.Cut(got[i:], "\n")
				head := line[:strings.LastIndex(line, ":")]
				got = got[:i] + head + ":PORT/metrics\n" + rest
			}
			golden(t, name, got)
		})
	}
}

// The doors stand one behind the other, each with its own paths.
func TestDoors(t *testing.T) {
	n := startNode(t, nil)
	at := "http://" + n.address
	for path, want := range map[string]int{
		"/healthz": 200, "/readyz": 200, "/nothing": 404, "/": 404, "/healthz/x": 404,
		"/client/hubs/chat": 400, // not an upgrade
		"/api/health":       404, // HEAD alone
		"/metrics":          404, // on a port of its own
	} {
		status, body := get(t, at+path)
		if status != want && !(path == "/api/health" && status == 405) {
			t.Errorf("GET %s: %d %s; want %d", path, status, body, want)
		}
	}
	r, err := http.Head(at + "/api/health")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 200 {
		t.Errorf("HEAD /api/health: %d", r.StatusCode)
	}
	r, err = http.Post(at+"/readyz", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 405 {
		t.Errorf("POST /readyz: %d", r.StatusCode)
	}
}

// dialAnonymous knocks without a token.
func dialAnonymous(t *testing.T, address string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, "ws://"+address+"/client/hubs/chat", nil)
	if err == nil {
		c.Close()
	}
	return err
}

func refusedWith(err error, status int) bool {
	refused, ok := errors.AsType[*client.HandshakeError](err)
	return ok && refused.Status == status
}

// SIGHUP makes a node follow its file. A file with mistakes changes nothing, and
// all of them are told.
func TestReload(t *testing.T) {
	const one, two = "one-one-one-one-one-one-one-one-one-one", "two-two-two-two-two-two-two-two-two-two"
	up := newUpstream(t)
	settings := func(key, policy, more string) string {
		return "listen: 127.0.0.1:0\naccessKeys: { primary: " + key + " }\nhubs:\n  chat:\n    anonymousConnectPolicy: " + policy + "\n" + more
	}
	path := file(t, "fanfare.yaml", settings(one, "deny", ""))
	n := startNode(t, nil, "--config", path)
	reloads := 0
	reload := func(outcome string) {
		t.Helper()
		reloads++
		n.signals <- syscall.SIGHUP
		eventually(t, "the settings are read again", func() bool {
			return strings.Count(n.err.String(), "the settings were read again")+strings.Count(n.err.String(), "the last valid ones stay in force") == reloads
		})
		if !strings.Contains(n.err.String(), outcome) {
			t.Fatalf("%q is not in the log:\n%s", outcome, n.err)
		}
	}

	ann, err := dial(t, n.environ(one), "--hub", "chat", "--user", "ann")
	if err != nil {
		t.Fatal(err)
	}
	mustReceive[client.Connected](t, ann)
	if err := dialAnonymous(t, n.address); !refusedWith(err, 401) {
		t.Fatalf("without a token: %v; want 401", err)
	}

	// Another policy, another key, and a handler where there was none.
	handler := "    eventHandlers: [ { urlTemplate: '" + up.URL + "/{event}', userEventPattern: '*' } ]\n"
	rewrite(t, path, settings(two, "allow", handler))
	reload("the settings were read again")
	if err := dialAnonymous(t, n.address); err != nil {
		t.Errorf("anonymous clients are allowed now: %v", err)
	}
	if _, err := dial(t, n.environ(one), "--hub", "chat"); !refusedWith(err, 401) {
		t.Errorf("with the old key: %v; want 401", err)
	}
	if _, err := dial(t, n.environ(two), "--hub", "chat"); err != nil {
		t.Errorf("with the new key: %v", err)
	}
	// The connection that was there stays, and its events reach the new handler.
	if err := ann.SendEvent(t.Context(), "ping", text("x"), nil); err != nil {
		t.Error(err)
	}
	if r := up.event(t, "ping"); r.Header.Get("Ce-Userid") != "ann" || !strings.HasPrefix(r.Header.Get("Ce-Signature"), "sha256=") {
		t.Errorf("the handler got %v", r.Header)
	}

	// A broken file: told, line by line, and nothing changes.
	rewrite(t, path, settings("short", "perhaps", "nonsense: 1\n"))
	reload("the last valid ones stay in force")
	for _, want := range []string{path + ":2:24", path + ":5:29", path + ":6:1", "3 mistakes"} {
		if !strings.Contains(n.err.String(), want) {
			t.Errorf("%s is not in the log:\n%s", want, n.err)
		}
	}
	if err := dialAnonymous(t, n.address); err != nil {
		t.Errorf("the last valid settings are not in force: %v", err)
	}
	if _, err := dial(t, n.environ(two), "--hub", "chat"); err != nil {
		t.Errorf("the last valid key is not in force: %v", err)
	}

	// What takes a restart is named; the log's level does not.
	rewrite(t, path, settings(two, "allow", "")+"limits: { messageBytes: 5000 }\nlog: { level: debug, format: json }\n")
	reload("limits, log.format")
	if err := ann.SendEvent(t.Context(), "ping", text("x"), nil); err == nil {
		t.Error("the handler is gone, and still gets events")
	}
	ann.Close()
	n.err.wait(t, "level=DEBUG")
}

// A drain tells clients, lets events under way reach their handler and be
// answered, raises disconnected, and ends with exit code 0.
func TestDrain(t *testing.T) {
	up := newUpstream(t)
	entered, release := make(chan struct{}), make(chan struct{})
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") != "slow" {
			return
		}
		close(entered)
		select {
		case <-release:
		case <-r.Context().Done():
			t.Error("the event was cut")
		}
	}
	n := startNode(t, []string{
		"FANFARE_HUBS_CHAT_EVENT_HANDLERS=[{urlTemplate: '" + up.URL + "', userEventPattern: '*', systemEvents: [disconnected]}]",
		"FANFARE_DRAIN_TIMEOUT=20s",
	})
	idle, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat", "--user", "idle")
	if err != nil {
		t.Fatal(err)
	}
	mustReceive[client.Connected](t, idle)
	busy, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat", "--user", "busy")
	if err != nil {
		t.Fatal(err)
	}
	mustReceive[client.Connected](t, busy)
	if err := busy.SendEvent(t.Context(), "slow", text("x"), &client.SendOptions{FireAndForget: true}); err != nil {
		t.Fatal(err)
	}
	<-entered

	n.signals <- syscall.SIGTERM
	for _, c := range []*client.Client{idle, busy} {
		if d := mustReceive[client.Disconnected](t, c); d.Text == "" {
			t.Error("the client is not told why")
		}
		_, err := receive(t, c)
		if closed, ok := errors.AsType[*client.CloseError](err); !ok || closed.Code != engine.CloseGoingAway {
			t.Errorf("the client's end: %v; want close code 1001", err)
		}
	}
	select {
	case <-n.done:
		t.Fatal("the node ended while an event was under way")
	default:
	}
	if n.node.ready() {
		t.Error("the node is ready while it drains")
	}
	if _, err := net.Dial("tcp", n.address); err == nil {
		t.Error("the node takes connections while it drains")
	}
	close(release)
	if code := n.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, n.err)
	}
	seen := map[string]int{}
	for len(up.events) > 0 {
		r := <-up.events
		seen[r.Header.Get("Ce-Eventname")+" of "+r.Header.Get("Ce-Userid")]++
	}
	for _, want := range []string{"disconnected of idle", "disconnected of busy", "slow of busy"} {
		if seen[want] != 1 {
			t.Errorf("the handler got %v; want %s once", seen, want)
		}
	}
}

// A second signal, or the end of the time, cuts: what is under way is given up,
// and the exit code says so.
func TestCut(t *testing.T) {
	for name, test := range map[string]struct {
		timeout string
		signals int
		says    string
	}{
		"second signal": {"10m", 2, "a second signal came"},
		"time is up":    {"50ms", 1, "drain.timeout has passed"},
	} {
		t.Run(name, func(t *testing.T) {
			up := newUpstream(t)
			entered, release := make(chan struct{}), make(chan struct{})
			up.answer = func(_ http.ResponseWriter, r *http.Request) {
				close(entered)
				<-release
			}
			defer close(release)
			n := startNode(t, []string{
				"FANFARE_HUBS_CHAT_EVENT_HANDLERS=[{urlTemplate: '" + up.URL + "', userEventPattern: '*'}]", "FANFARE_DRAIN_TIMEOUT=" + test.timeout,
			})
			c, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat")
			if err != nil {
				t.Fatal(err)
			}
			mustReceive[client.Connected](t, c)
			if err := c.SendEvent(t.Context(), "stuck", text("x"), &client.SendOptions{FireAndForget: true}); err != nil {
				t.Fatal(err)
			}
			<-entered
			for range test.signals {
				n.signals <- syscall.SIGTERM
			}
			if code := n.wait(t); code != exitFailed || !strings.Contains(n.err.String(), test.says) {
				t.Errorf("exit code %d; want 1 and %q:\n%s", code, test.says, n.err)
			}
		})
	}
}

// A node over TLS: clients and REST come in, over HTTP/2 too, and a new
// certificate is served once its files change. A broken one is not.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first := writeCertificate(t, certFile, keyFile, 1)
	n := startNode(t, []string{"FANFARE_TLS_CERT_FILE=" + certFile, "FANFARE_TLS_KEY_FILE=" + keyFile})
	pool := x509.NewCertPool()
	pool.AddCert(first)

	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}, Timeout: patience}
	defer c.CloseIdleConnections()
	r, err := c.Head("https://" + n.address + "/api/health")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 200 || r.ProtoMajor != 2 {
		t.Errorf("REST over TLS: %s, %s; want 200 over HTTP/2", r.Status, r.Proto)
	}

	environ := []string{"FANFARE_CONNECTION_STRING=Endpoint=https://" + n.address + ";AccessKey=" + accesskey.DevelopmentKey}
	url := clientURL(t, environ, "--hub", "chat", "--user", "ann")
	ann, err := client.Dial(t.Context(), url, &client.Options{TLS: &tls.Config{RootCAs: pool}})
	if err != nil {
		t.Fatal(err)
	}
	defer ann.Close()
	if hello := mustReceive[client.Connected](t, ann); hello.UserID != "ann" {
		t.Errorf("got %+v", hello)
	}

	serial := func() int64 {
		conn, err := tls.Dial("tcp", n.address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Fatalf("the certificate is number %d", got)
	}
	writeCertificate(t, certFile, keyFile, 2)
	eventually(t, "the new certificate is served", func() bool { return serial() == 2 })
	rewrite(t, certFile, "not a certificate")
	eventually(t, "the broken certificate is told of", func() bool {
		return serial() == 2 && strings.Contains(n.err.String(), "the one before it stays")
	})
	// Who does not speak TLS is a line in the log, and no alarm.
	stranger, err := net.Dial("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	io.WriteString(stranger, "SSH-2.0-x\r\n\r\n")
	if said := n.err.wait(t, "TLS handshake error"); strings.Contains(said, "level=ERROR") {
		t.Errorf("an alarm:\n%s", said)
	}
	if err := ann.Ping(t.Context()); err != nil {
		t.Errorf("a connection does not outlive its certificate: %v", err)
	}
}

// A node behind a proxy believes it, and nobody else.
func TestTrustedProxy(t *testing.T) {
	const key = "proxied-proxied-proxied-proxied-proxied"
	post := func(address string, headers map[string]string, endpoint string) (int, string) {
		t.Helper()
		c, err := accesskey.ParseConnectionString("Endpoint=" + endpoint + ";AccessKey=" + key)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := c.ServerToken(c.Endpoint + "/api/hubs/chat/groups/g/connections")
		if err != nil {
			t.Fatal(err)
		}
		r, _ := http.NewRequest(http.MethodGet, "http://"+address+"/api/hubs/chat/groups/g/connections", nil)
		r.Header.Set("Authorization", "Bearer "+signed)
		for k, v := range headers {
			r.Header.Set(k, v)
		}
		reply, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		body, _ := io.ReadAll(reply.Body)
		return reply.StatusCode, string(body)
	}
	forwarded := map[string]string{"X-Forwarded-Host": "rt.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}

	trusting := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key, "FANFARE_TRUSTED_PROXIES=127.0.0.0/8"})
	if status, body := post(trusting.address, forwarded, "https://rt.example.com"); status != 200 {
		t.Errorf("through the proxy: %d %s", status, body)
	}
	if status, _ := post(trusting.address, forwarded, "https://other.example.com"); status != 401 {
		t.Errorf("through the proxy, for another host: %d; want 401", status)
	}
	if got := trusting.err.wait(t, "token.audience"); !strings.Contains(got, "203.0.113.7") {
		t.Errorf("the log does not say who was refused:\n%s", got)
	}

	wary := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key})
	if status, _ := post(wary.address, forwarded, "https://rt.example.com"); status != 401 {
		t.Errorf("headers of a stranger: %d; want 401", status)
	}
	named := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key, "FANFARE_AUDIENCE_HOSTS=rt.example.com"})
	if status, body := post(named.address, nil, "https://rt.example.com"); status != 200 {
		t.Errorf("a host of audienceHosts: %d %s", status, body)
	}
	public := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key, "FANFARE_PUBLIC_ENDPOINT=https://rt.example.com"})
	if status, body := post(public.address, nil, "https://rt.example.com"); status != 200 {
		t.Errorf("the public endpoint: %d %s", status, body)
	}
}

// The log is lines of JSON if that is asked for, one for each refusal.
func TestLogFormat(t *testing.T) {
	n := startNode(t, nil, "--listen", "127.0.0.1:0", "--log-format", "json", "--log-level", "info")
	environ := n.environ(strings.Repeat("x", 40))
	finish(t, environ, "pub", "--hub", "chat", "--all", "x")
	dial(t, environ, "--hub", "chat")
	n.signals <- syscall.SIGTERM
	n.wait(t)
	refusals := map[string]int{}
	for line := range strings.Lines(n.err.String()) {
		var entry struct{ Level, Msg, Room, Rule string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Msg == "" || entry.Level == "" {
			t.Errorf("%v: %s", err, line)
		}
		if entry.Rule != "" {
			refusals[entry.Room+" "+entry.Rule]++
		}
	}
	if len(refusals) != 2 || refusals["rest token.signature"] != 1 || refusals["websocket token.signature"] != 1 {
		t.Errorf("refusals in the log: %v; want one of each door", refusals)
	}
}

// While local authentication is off no key opens anything, not even the
// development key, and events bear no signature.
func TestDisableLocalAuth(t *testing.T) {
	up := newUpstream(t)
	n := startNode(t, []string{
		"FANFARE_DISABLE_LOCAL_AUTH=true",
		"FANFARE_HUBS_CHAT_ANONYMOUS_CONNECT_POLICY=allow",
		"FANFARE_HUBS_CHAT_EVENT_HANDLERS=[{urlTemplate: '" + up.URL + "', systemEvents: [connect]}]",
	})
	n.err.wait(t, "REST has no way in")
	if _, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat"); !refusedWith(err, 401) {
		t.Errorf("a token: %v; want 401", err)
	}
	code, _, stderr := finish(t, n.environ(accesskey.DevelopmentKey), "pub", "--hub", "chat", "--all", "x")
	if code != exitFailed || !strings.Contains(stderr, "accesskey.disabled") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if err := dialAnonymous(t, n.address); err != nil {
		t.Errorf("anonymous: %v", err)
	}
	if r := up.event(t, "connect"); len(r.Header.Values("Ce-Signature")) > 0 {
		t.Errorf("the event is signed: %v", r.Header)
	}
}

// Whatever is set, whatever goes wrong: no key, no code of a handler and no
// token is in what a node and its tools print.
func TestNoSecretShows(t *testing.T) {
	const primary, secondary = "primary-hush-primary-hush-primary-hush", "secondary-hush-secondary-hush-secondary"
	const code, wrong = "handler-code-hush", "wrong-hush-wrong-hush-wrong-hush-wrong"
	up := newUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") == "fail" {
			w.WriteHeader(http.StatusForbidden)
		}
	}
	path := file(t, "fanfare.yaml", fmt.Sprintf(`listen: 127.0.0.1:0
accessKeys: { primary: %s, secondary: %s }
log: { level: debug }
metrics: { listen: 127.0.0.1:0 }
hubs:
  chat: { eventHandlers: [ { urlTemplate: "%s/{event}?code=%s", userEventPattern: "*", systemEvents: [connect, connected, disconnected] } ] }
  dead: { eventHandlers: [ { urlTemplate: "http://127.0.0.1:1/{event}?code=%s", systemEvents: [connected], userEventPattern: "*" } ] }
`, primary, secondary, up.URL, code, code))
	n := startNode(t, nil, "--config", path)
	var said bytes.Buffer
	var tokens []string
	tool := func(key string, args ...string) string {
		_, stdout, stderr := finish(t, n.environ(key), args...)
		said.WriteString(stderr)
		return stdout
	}
	knock := func(key, hub string) *client.Client {
		url := strings.TrimSpace(tool(key, "token", "--hub", hub, "--user", "ann"))
		_, token, _ := strings.Cut(url, "access_token=")
		tokens = append(tokens, token, token[strings.LastIndexByte(token, '.')+1:])
		c, err := client.Dial(t.Context(), url, nil)
		if err != nil {
			fmt.Fprintln(&said, err)
			return nil
		}
		t.Cleanup(func() { c.Close() })
		return c
	}

	for _, key := range []string{primary, secondary} {
		tool(key, "pub", "--hub", "chat", "--all", "x")
		c := knock(key, "chat")
		if c == nil {
			t.Fatal(said.String())
		}
		for _, event := range []string{"good", "fail"} {
			fmt.Fprintln(&said, c.SendEvent(t.Context(), event, text("x"), nil))
		}
	}
	knock(primary, "dead")
	knock(wrong, "chat")
	tool(wrong, "pub", "--hub", "chat", "--all", "x")
	tool(primary, "pub", "--hub", "1", "--all", "x")
	if _, body := get(t, "http://"+n.address+"/client/hubs/chat?access_token="+tokens[0]); strings.Contains(body, tokens[0]) {
		t.Error("a token is shown to who sent it")
	}
	rewrite(t, path, "accessKeys: { primary: "+primary+"\nhubs: ["+code)
	n.signals <- syscall.SIGHUP
	n.err.wait(t, "the last valid ones stay in force")
	_, _, stderr := finish(t, nil, "check", "--config", path)
	said.WriteString(stderr)
	n.signals <- syscall.SIGTERM
	n.signals <- syscall.SIGTERM // the dead handler is not waited for
	n.wait(t)

	all := n.out.String() + n.err.String() + said.String()
	for _, want := range []string{"token.signature", "event.status", "DEBUG"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is not in the output: the test shows too little\n%s", want, all)
		}
	}
	for _, secret := range append(tokens, primary, secondary, code, wrong) {
		if i := strings.Index(all, secret); i >= 0 {
			t.Errorf("a secret shows: %s", all[max(0, i-200):min(len(all), i+200)])
		}
	}
}

// A node leaves nothing behind.
func TestNothingStays(t *testing.T) {
	before := runtime.NumGoroutine()
	func() {
		up := newUpstream(t)
		defer up.Close()
		path := file(t, "fanfare.yaml", "listen: 127.0.0.1:0\nmetrics: { listen: 127.0.0.1:0 }\nhubs: { chat: { eventHandlers: [ { urlTemplate: "+up.URL+", userEventPattern: '*' } ] } }\n")
		n := startNode(t, nil, "--config", path)
		c, err := dial(t, n.environ(accesskey.DevelopmentKey), "--hub", "chat")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SendEvent(t.Context(), "x", text("x"), nil); err != nil {
			t.Error(err)
		}
		rewrite(t, path, "listen: 127.0.0.1:0\n") // the handler's client is retired
		n.signals <- syscall.SIGHUP
		n.err.wait(t, "the settings were read again")
		n.signals <- syscall.SIGTERM
		if code := n.wait(t); code != exitOK {
			t.Errorf("exit code %d: %s", code, n.err)
		}
		c.Close()
	}()
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}
