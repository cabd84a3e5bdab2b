package sdktest

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// The three app servers of examples/chatapp serve one page; each is tried with
// that page in two tabs of a browser, and its messages checked there.

func TestChatAppInJavaScript(t *testing.T) {
	folder := filepath.Join("..", "..", "..", "examples", "chatapp", "javascript")
	testChatApp(t, func(t *testing.T) *exec.Cmd {
		cmd := exec.Command(need(t, "node"), filepath.Join(folder, "server.js"))
		cmd.Env = []string{"NODE_PATH=" + nodeModules(t, folder)}
		return cmd
	})
}

func TestChatAppInPython(t *testing.T) {
	folder := filepath.Join("..", "..", "..", "examples", "chatapp", "python")
	testChatApp(t, func(t *testing.T) *exec.Cmd {
		return exec.Command(pythonWith(t, folder), "-B", filepath.Join(folder, "server.py"))
	})
}

func TestChatAppInJava(t *testing.T) {
	folder := filepath.Join("..", "..", "..", "examples", "chatapp", "java")
	testChatApp(t, func(t *testing.T) *exec.Cmd {
		cmd := exec.Command(need(t, "java"), "-cp", jars(t, folder), "Server.java")
		cmd.Dir = folder
		return cmd
	})
}

// testChatApp starts a node and an app server, and has two tabs chat. server
// makes the command that starts the app server.
func testChatApp(t *testing.T, server func(t *testing.T) *exec.Cmd) {
	need(t, "chromium", "chromium-browser", "google-chrome")
	cmd := server(t) // installs what it needs before anything waits for it

	// The node must know where its handler is before the app server, which must
	// know where the node is, has a port.
	handler := newRelay(t)
	n := startNode(t, plain, map[string][]eventHandler{"chat": allEvents("http://" + handler.addr() + "/eventhandler")})
	cmd.Env = append(append(os.Environ(), cmd.Env...), "CONNECTION_STRING="+n.ConnectionString(), "PORT=0")
	url := start(t, cmd).waitFor(t, listening)
	handler.forwardTo(url[len("http://"):])

	shot := filepath.Join(t.TempDir(), "chat.png")
	inBrowser(t, "chat.test.js", "CHATAPP_URL="+url, "CHATAPP_SCREENSHOT="+shot)
	if info, err := os.Stat(shot); err != nil || info.Size() < 1000 {
		t.Errorf("the screenshot %s: %v, want a picture", shot, err)
	}
	if keep := os.Getenv("SDKTEST_SCREENSHOTS"); keep != "" { // a folder, for those who want to look
		if err := os.Rename(shot, filepath.Join(keep, t.Name()+".png")); err != nil {
			t.Error(err)
		}
	}
}

// relay is a TCP address that is known before what it leads to.
type relay struct {
	listener net.Listener
	target   chan string // holds the target once it is known

	mu    sync.Mutex
	conns map[net.Conn]bool // guarded by mu; nil once the relay has ended
	wg    sync.WaitGroup
}

// newRelay listens until the test ends.
func newRelay(t *testing.T) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: make(chan string, 1), conns: map[net.Conn]bool{}}
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		for c := range r.conns {
			_ = c.Close()
		}
		r.conns = nil
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// forwardTo says where connections lead. It is called once.
func (r *relay) forwardTo(addr string) { r.target <- addr }

// accept ends when the listener is closed.
func (r *relay) accept() {
	var target string
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		if target == "" {
			select {
			case target = <-r.target:
			default: // too early: there is nobody to answer
				_ = in.Close()
				continue
			}
		}
		out, err := net.Dial("tcp", target)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.pass(in, out)
		r.pass(out, in)
	}
}

// pass copies one way until either end closes, and then closes both.
func (r *relay) pass(from, to net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == nil {
		_ = from.Close()
		return
	}
	r.conns[from] = true
	r.wg.Go(func() {
		_, _ = io.Copy(to, from)
		_, _ = from.Close(), to.Close()
		r.mu.Lock()
		delete(r.conns, from)
		r.mu.Unlock()
	})
}
