package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
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
