package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = "testdata/" + name
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant (%s):\n%s", got, name, want)
	}
}

// What a person types wrongly is told with exit code 2 and a way on; what fails
// while running has exit code 1.
func TestExitCodes(t *testing.T) {
	broken := file(t, "f.yaml", "lisetn: 1\n")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := []string{"FANFARE_CONNECTION_STRING=Endpoint=http://" + free.Addr().String() + ";AccessKey=" + accesskey.DevelopmentKey + ";Version=1.0;"}
	free.Close()

	for _, test := range []struct {
		line    string
		environ []string
		code    int
		says    string
	}{
		{line: "version", code: exitOK},
		{line: "--version", code: exitOK},
		{line: "--help", code: exitOK},
		{line: "help config", code: exitOK},
		{line: "check", code: exitOK},
		{line: "chekc", code: exitUsage, says: `fanfare: there is no command "chekc"; the nearest one is check`},
		{line: "dev --nodes 3", code: exitUsage, says: "--nodes"},
		{line: "cluster status", code: exitUsage, says: `there is no command "cluster"`},
		{line: "--lisetn x", code: exitUsage, says: "unknown flag: --lisetn\nRun 'fanfare --help' to see what is possible."},
		{line: "version now", code: exitUsage, says: `found the argument "now"; expected none`},
		{line: "--listen nowhere", code: exitUsage, says: `flag --listen: listen: found "nowhere"`},
		{line: "--log-level loud", code: exitUsage, says: `flag --log-level: log.level: found "loud"`},
		{line: "--config " + broken, code: exitUsage, says: broken + ":1:1: lisetn: unknown key; the nearest known one is listen"},
		{line: "--config /no/such/file", code: exitUsage, says: "/no/such/file: no such file or directory"},
		{line: "check --config " + broken, code: exitFailed, says: "1 mistake"},
		{line: "--listen " + taken.Addr().String(), code: exitFailed, says: "another program has it"},
		{line: "token", code: exitUsage, says: "--hub is missing\nRun 'fanfare token --help'"},
		{line: "token --hub 1", code: exitUsage, says: "--hub: "},
		{line: "token --hub a --minutes 0", code: exitUsage, says: "--minutes: found 0"},
		{line: "token --hub a --minutes x", code: exitUsage, says: "invalid argument"},
		{line: "token --hub a --connection-string x", code: exitUsage, says: "--connection-string: "},
		{line: "token --hub a --config " + broken, code: exitUsage, says: "lisetn: unknown key"},
		{line: "token --hub a", environ: []string{"FANFARE_CONNECTION_STRING=x"}, code: exitUsage, says: "FANFARE_CONNECTION_STRING: "},
		{line: "token --hub a", environ: []string{"FANFARE_DISABLE_LOCAL_AUTH=true"}, code: exitUsage, says: "disableLocalAuth"},
		{line: "token --hub a", environ: []string{"FANFARE_LISTEN=127.0.0.1:0"}, code: exitUsage, says: "the node's port is chosen as it starts"},
		{line: "token --hub a --address x", code: exitUsage, says: "--address: found"},
		{line: "sub --hub a --transport quic", code: exitUsage, says: "quic is not in this build of Fanfare"},
		{line: "sub --hub a --transport smoke", code: exitUsage, says: "--transport: found"},
		{line: "sub --hub a --protocol mqtt", code: exitUsage, says: `--protocol: found "mqtt"; expected json.reliable, json, protobuf.reliable, protobuf`},
		{line: "sub --hub a --group lobby", environ: nobody, code: exitFailed, says: "no node answers at " + free.Addr().String() + ": start one with 'fanfare'"},
		{line: "pub --hub a --group lobby x", environ: nobody, code: exitFailed, says: "no node answers at " + free.Addr().String() + ": start one with 'fanfare'"},
		{line: "pub --hub a --group lobby", code: exitUsage, says: "found 0 arguments; expected one"},
		{line: "pub --hub a x", code: exitUsage, says: "found 0 targets; expected exactly one"},
		{line: "pub --hub a --all --group x x", code: exitUsage, says: "found 2 targets; expected exactly one"},
		{line: "pub --hub a --all --type x x", code: exitUsage, says: "--type: found"},
	} {
		t.Run(test.line, func(t *testing.T) {
			code, stdout, stderr := finish(t, test.environ, strings.Fields(test.line)...)
			if code != test.code {
				t.Errorf("exit code %d; want %d", code, test.code)
			}
			if !strings.Contains(stderr, test.says) {
				t.Errorf("it said:\n%s\nwant:\n%s", stderr, test.says)
			}
			if code == exitOK && (stdout == "" || stderr != "") {
				t.Errorf("said %q and, on standard error, %q", stdout, stderr)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	_, help, _ := finish(t, nil, "--help")
	golden(t, "help.golden", help)
	_, help, _ = finish(t, nil, "help", "config")
	golden(t, "help_config.golden", help)
}

// check tells all that is wrong and all that is worth knowing, and shows no
// secret.
func TestCheck(t *testing.T) {
	code, stdout, stderr := finish(t, nil, "check", "--config", "testdata/wrong.yaml")
	if code != exitFailed || stdout != "" {
		t.Errorf("exit code %d and %q; want 1 and nothing", code, stdout)
	}
	golden(t, "check_wrong.golden", stderr)
	if strings.Contains(stderr, "hush") {
		t.Error("a secret shows")
	}

	code, stdout, stderr = finish(t, []string{"FANFARE_LISTN=x", "FANFARE_LISTEN=0.0.0.0:80"}, "check", "--config", "testdata/nolocalauth.yaml")
	if code != exitOK || stdout != "testdata/nolocalauth.yaml: no mistakes; listens on 0.0.0.0:80, 1 hub set\n" {
		t.Errorf("exit code %d and %q", code, stdout)
	}
	golden(t, "check_warnings.golden", stderr)

	// The flags of the server count for check, too.
	if code, _, stderr := finish(t, nil, "check", "--listen", "0.0.0.0:80"); code != exitFailed || !strings.Contains(stderr, "FANFARE_ACCESS_KEYS_PRIMARY=") {
		t.Errorf("exit code %d and %q; want 1 and a key to copy", code, stderr)
	}
}

// A node that strangers reach does not start without a key of its own, and
// offers one, each time another; with it, it starts.
func TestStrangers(t *testing.T) {
	var keys []string
	for range 2 {
		code, stdout, stderr := finish(t, nil, "--listen", "0.0.0.0:0")
		_, rest, ok := strings.Cut(stderr, "    FANFARE_ACCESS_KEYS_PRIMARY=")
		key, _, _ := strings.Cut(rest, "\n")
		if code != exitUsage || stdout != "" || !ok || len(key) != 44 {
			t.Fatalf("exit code %d, %q, %q; want 2 and a key to copy", code, stdout, stderr)
		}
		keys = append(keys, key)
	}
	if keys[0] == keys[1] {
		t.Error("the same key twice")
	}
	n := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + keys[0]}, "--listen", "0.0.0.0:0")
	if out := n.out.String() + n.err.String(); strings.Contains(out, keys[0]) || !strings.Contains(out, "AccessKey=<accessKeys.primary>") {
		t.Errorf("the key shows, or what stands for it does not:\n%s", out)
	}
	code, _, stderr := finish(t, nil, "--listen", "0.0.0.0:0", "--access-key", accesskey.DevelopmentKey)
	if code != exitUsage || !strings.Contains(stderr, "this is the development key, which everyone knows") {
		t.Errorf("the development key serves strangers: exit code %d, %q", code, stderr)
	}
}

// A message crosses: sub prints what pub sends, to a group, a user, a connection
// and all.
func TestMessageCrosses(t *testing.T) {
	n := startNode(t, nil)
	environ := n.environ(accesskey.DevelopmentKey)
	sub := start(t, environ, "sub", "--hub", "Chat", "--group", "lobby", "--group", "a b+ü", "--user", "ann", "--count", "6")
	said := sub.err.wait(t, "as connection ")
	_, id, _ := strings.Cut(strings.TrimSpace(said), "as connection ")

	for _, args := range [][]string{
		{"--group", "lobby", "hello"},
		{"--group", "a b+ü", "--type", "json", `{"n": [1, "<"]}`},
		{"--user", "ann", "--type", "binary", "bytes"},
		{"--connection", id, "-"},
		{"--all", "two\nlines"},
		{"--group", "others", "not for us"},
		{"--all", "--type", "json", `"the last one"`},
	} {
		if code, _, stderr := finish(t, environ, append([]string{"pub", "--hub", "chat"}, args...)...); code != exitOK {
			t.Fatalf("pub %q: exit code %d: %s", args, code, stderr)
		}
	}
	if code := sub.wait(t); code != exitOK {
		t.Errorf("sub: exit code %d: %s", code, sub.err)
	}
	want := `{"group":"lobby","dataType":"text","data":"hello"}
{"group":"a b+ü","dataType":"json","data":{"n":[1,"<"]}}
{"dataType":"binary","data":"Ynl0ZXM="}
{"dataType":"text","data":"from standard input"}
{"dataType":"text","data":"two\nlines"}
{"dataType":"json","data":"the last one"}
`
	if got := sub.out.String(); got != want {
		t.Errorf("sub printed:\n%s\nwant:\n%s", got, want)
	}
	for line := range strings.Lines(want) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	// A wrong key is told as what it is.
	code, _, stderr := finish(t, n.environ(strings.Repeat("x", 40)), "pub", "--hub", "chat", "--all", "x")
	if code != exitFailed || !strings.Contains(stderr, "status 401") || !strings.Contains(stderr, "token.signature") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	code, _, stderr = finish(t, n.environ(strings.Repeat("x", 40)), "sub", "--hub", "chat")
	if code != exitFailed || !strings.Contains(stderr, "status 401") || !strings.Contains(stderr, "token.signature") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// SIGINT ends sub in order.
func TestSubEnds(t *testing.T) {
	n := startNode(t, nil)
	sub := start(t, n.environ(accesskey.DevelopmentKey), "sub", "--hub", "chat")
	sub.err.wait(t, "connected to hub chat as connection")
	sub.signals <- os.Interrupt
	if code := sub.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, sub.err)
	}
	eventually(t, "the connection is gone", func() bool { return n.node.engine.Stats().Connections == 0 })
}

// sub comes back when the node does, says so, and is in its groups again.
func TestSubReconnects(t *testing.T) {
	const endpoint = "FANFARE_PUBLIC_ENDPOINT=http://rt.example.com"
	environ := []string{"FANFARE_CONNECTION_STRING=Endpoint=http://rt.example.com;AccessKey=" + accesskey.DevelopmentKey}
	first := startNode(t, []string{endpoint})
	r := startRelay(t, first.address)
	sub := start(t, environ, "sub", "--hub", "chat", "--group", "lobby", "--address", r.address, "--count", "1")
	sub.err.wait(t, "connected to hub chat, in lobby, as connection")
	first.signals <- syscall.SIGTERM
	if code := first.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, first.err)
	}
	sub.err.wait(t, "the connection was lost and a new one is being made")
	second := startNode(t, []string{endpoint})
	r.leadTo(second.address)
	eventually(t, "sub is back", func() bool { return strings.Count(sub.err.String(), "connected to hub chat, in lobby") == 2 })
	if code, _, stderr := finish(t, environ, "pub", "--hub", "chat", "--group", "lobby", "--address", second.address, "again"); code != exitOK {
		t.Fatal(stderr)
	}
	if code := sub.wait(t); code != exitOK || !strings.Contains(sub.out.String(), `"again"`) {
		t.Errorf("exit code %d, %s", code, sub.out)
	}
}

// relay passes on what goes between clients and a node, until it is cut.
type relay struct {
	address string

	mu    sync.Mutex
	to    string
	links []net.Conn
}

// leadTo has those who come from now on reach another node.
func (r *relay) leadTo(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = address
}

func startRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: l.Addr().String(), to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			to := r.to
			r.mu.Unlock()
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			r.mu.Lock()
			r.links = append(r.links, near, far)
			r.mu.Unlock()
			wg.Go(func() { io.Copy(near, far); near.Close() })
			wg.Go(func() { io.Copy(far, near); far.Close() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cut()
		wg.Wait()
	})
	return r
}

// cut breaks all wires.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, link := range r.links {
		link.Close()
	}
	r.links = nil
}

// A wire of sub breaks: with a reliable protocol it misses nothing, and says so;
// with another it says what it may have missed.
func TestSubRecovers(t *testing.T) {
	n := startNode(t, nil)
	environ := n.environ(accesskey.DevelopmentKey)
	for protocol, says := range map[string]string{
		"json.reliable":     "the connection was lost and is recovered; nothing was missed",
		"protobuf.reliable": "the connection was lost and is recovered; nothing was missed",
		"json":              "what is sent meanwhile is missed",
		"protobuf":          "what is sent meanwhile is missed",
	} {
		t.Run(protocol, func(t *testing.T) {
			r := startRelay(t, n.address)
			sub := start(t, environ, "sub", "--hub", "chat", "--group", "lobby", "--address", r.address, "--protocol", protocol, "--count", "1")
			sub.err.wait(t, "connected to hub chat, in lobby, as connection")
			r.cut()
			sub.err.wait(t, says)
			if !strings.HasSuffix(protocol, "reliable") {
				eventually(t, "sub is back", func() bool { return strings.Count(sub.err.String(), "connected to hub chat, in lobby") == 2 })
			}
			if code, _, stderr := finish(t, environ, "pub", "--hub", "chat", "--group", "lobby", "again"); code != exitOK {
				t.Fatal(stderr)
			}
			if code := sub.wait(t); code != exitOK || !strings.Contains(sub.out.String(), `"again"`) {
				t.Errorf("exit code %d, %s", code, sub.out)
			}
		})
	}
}

// A printed URL is all that a client needs; the token says who it is and what it
// may do.
func TestToken(t *testing.T) {
	n := startNode(t, nil)
	environ := n.environ(accesskey.DevelopmentKey)
	ann, err := dial(t, environ, "--hub", "chat", "--user", "ann", "--group", "lobby", "--role", "webpubsub.sendToGroup.lobby")
	if err != nil {
		t.Fatal(err)
	}
	if hello := mustReceive[client.Connected](t, ann); hello.UserID != "ann" {
		t.Errorf("the user is %q", hello.UserID)
	}
	if err := ann.SendToGroup(t.Context(), "lobby", text("hi"), nil); err != nil {
		t.Error(err)
	}
	if m := mustReceive[client.Message](t, ann); m.Group != "lobby" || m.FromUserID != "ann" || string(m.Payload.Data) != "hi" {
		t.Errorf("received %+v", m)
	}
	if err := ann.SendToGroup(t.Context(), "other", text("hi"), nil); err == nil {
		t.Error("the token lets its client send anywhere")
	}

	// --address changes where the URL leads, and not whom the token is for.
	_, url, _ := finish(t, environ, "token", "--hub", "chat", "--address", "127.0.0.1:1")
	if !strings.HasPrefix(url, "ws://127.0.0.1:1/client/hubs/chat?access_token=") {
		t.Errorf("token --address prints %s", url)
	}
	_, url, _ = finish(t, nil, "token", "--hub", "chat", "--connection-string", "Endpoint=https://rt.example.com;AccessKey="+accesskey.DevelopmentKey)
	if !strings.HasPrefix(url, "wss://rt.example.com/client/hubs/chat?access_token=") {
		t.Errorf("token prints %s", url)
	}
	// Without a connection string the node's own settings are used.
	_, url, _ = finish(t, nil, "token", "--hub", "chat")
	if !strings.HasPrefix(url, "ws://127.0.0.1:8080/client/hubs/chat?access_token=") {
		t.Errorf("token prints %s", url)
	}
	config := file(t, "f.yaml", "publicEndpoint: https://rt.example.com\naccessKeys: { primary: "+strings.Repeat("k", 40)+" }\n")
	_, url, _ = finish(t, nil, "token", "--hub", "chat", "--config", config)
	if !strings.HasPrefix(url, "wss://rt.example.com/client/hubs/chat?access_token=") {
		t.Errorf("token prints %s", url)
	}
}

// --address reaches a door that is not where the endpoint says.
func TestAddress(t *testing.T) {
	n := startNode(t, []string{"FANFARE_PUBLIC_ENDPOINT=http://rt.example.com"})
	environ := []string{"FANFARE_CONNECTION_STRING=Endpoint=http://rt.example.com;AccessKey=" + accesskey.DevelopmentKey}
	sub := start(t, environ, "sub", "--hub", "chat", "--group", "lobby", "--address", n.address, "--count", "1")
	sub.err.wait(t, "connected")
	if code, _, stderr := finish(t, environ, "pub", "--hub", "chat", "--group", "lobby", "--address", n.address, "x"); code != exitOK {
		t.Fatal(stderr)
	}
	if code := sub.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, sub.err)
	}
	// The token is for the endpoint, and good at the address, too.
	c, err := dial(t, environ, "--hub", "chat", "--address", n.address)
	if err != nil {
		t.Fatal(err)
	}
	mustReceive[client.Connected](t, c)
}

// The program as a process: it serves, and a signal drains it with exit code 0.
func TestProcess(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, stderr := newOutput(), newOutput()
	cmd := exec.Command(program, "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "RUN_AS_PROGRAM=1")
	cmd.Stdout, cmd.Stderr = out, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	stderr.wait(t, "msg=serving")
	address := listening.FindStringSubmatch(out.wait(t, "Health"))[1]
	if status, body := get(t, "http://"+address+"/readyz"); status != 200 || body != "ready\n" {
		t.Errorf("/readyz: %d %q", status, body)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%v: %s", err, stderr)
		}
	case <-time.After(patience):
		t.Fatalf("it does not end: %s", stderr)
	}

	cmd = exec.Command(program, "--listen", "0.0.0.0:0")
	cmd.Env = append(os.Environ(), "RUN_AS_PROGRAM=1")
	var told bytes.Buffer
	cmd.Stderr = &told
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitUsage {
		t.Errorf("exit code %d: %s", code, &told)
	}
}

func TestSelf(t *testing.T) {
	for arg0, want := range map[string]string{
		"/tmp/go-build123/b001/exe/fanfare": "go run ./cmd/fanfare", "/usr/bin/fanfare": "fanfare", "fanfare": "fanfare",
	} {
		if got := self(arg0); got != want {
			t.Errorf("%s: %s; want %s", arg0, got, want)
		}
	}
}

// What sub cannot take for JSON is a line all the same.
func TestLine(t *testing.T) {
	got := string(line(client.Message{Payload: engine.Payload{Type: engine.JSON, Data: []byte("{")}, Metadata: map[string]string{"k": "v"}}))
	if want := `{"dataType":"text","data":"{","metadata":{"k":"v"}}` + "\n"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
}
