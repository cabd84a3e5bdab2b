package sdktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestChatUsers has people chat in a browser by the tokens that the service of
// examples/chat-users hands out, against a node with the example's own settings.
func TestChatUsers(t *testing.T) {
	need(t, "chromium", "chromium-browser", "google-chrome")
	folder := filepath.Join("..", "..", "..", "examples", "chat-users")
	cmd := exec.Command(need(t, "node"), filepath.Join(folder, "server.js"))
	modules := nodeModules(t, folder)

	text, err := os.ReadFile(filepath.Join(folder, "fanfare.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]any
	if err := yaml.Unmarshal(text, &settings); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	n := &node{Key: randomKey()}
	settings["accessKeys"] = map[string]string{"primary": n.Key}
	settings["store"] = map[string]string{"dir": data}
	n.Endpoint = serve(t, settings).waitFor(t, endpointLine)

	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "PORT=0", "ACCOUNTS_FILE="+filepath.Join(data, "accounts.json"),
		"CONNECTION_STRING=endpoint="+n.Endpoint+";accesskey="+n.Key)
	url := start(t, cmd).waitFor(t, listening)
	env := append(n.env(), "CHAT_USERS_URL="+url)
	if keep := os.Getenv("SDKTEST_SCREENSHOTS"); keep != "" { // a folder, for those who want to look
		env = append(env, "CHAT_USERS_SCREENSHOT="+filepath.Join(keep, t.Name()+".png"))
	}
	inBrowser(t, "chat-users.test.js", env...)

	accounts, err := os.ReadFile(filepath.Join(data, "accounts.json"))
	if err != nil || strings.Contains(string(accounts), "the password of") {
		t.Errorf("the file of accounts (%v) holds %s; want no password", err, accounts)
	}
}
