package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// Secrets written where they do not belong do not show.
func TestMisplacedSecretsAreNotShown(t *testing.T) {
	const secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
	for _, text := range []string{
		"accessKeys: { " + secret + " }",
		"accessKeys: { " + secret + ", " + secret + "2 }",
		"accessKeys:\n  " + secret + ":\n",
		"accessKeys: { primary: *" + secret + " }",
		"accessKeys: { primary: &" + secret + " *x }",
		"accessKeys: { primary: !" + secret + " }",
		"accessKeys: { primary: \"" + secret + " }",
		"accessKeys: { primary: '" + secret + "\n",
		"accessKeys: { primary: " + secret + ": x }",
		"accessKeys: [" + secret + "]",
		"accessKeys: " + secret,
		"accessKeys:\n\tprimary: " + secret,
		"accessKeys: { primary: @" + secret + " }",
		"accessKeys: { primary: `" + secret + " }",
		"accessKeys: { primary: %" + secret + " }",
		"accessKeys: { primary: \"\\" + secret + "\" }",
		"accessKeys:\n  primary: |x" + secret + "\n",
		"accessKeys:\n  primary: >" + secret + "\n",
		"accessKeys:\n primary: a\n" + secret + "\n",
		"accessKeys:\n primary: a\n  " + secret + "\n",
		"accessKeys: { primary: [" + secret + " }",
		"? " + secret + "\n",
		"tls: { certFile: x, keyFile: \"-----BEGIN PRIVATE KEY-----\\n" + secret + "\\n\" }",
		"hubs: { chat: { eventHandlers: [ { urlTemplate: [http://x/?code=" + secret + "] } ] } }",
		"hubs: { chat: { eventHandlers: { urlTemplate: http://x/?code=" + secret + " } } }",
		"hubs: { chat: { eventHandlers: [ http://x/?code=" + secret + " ] } }",
		"hubs: { chat: { eventHandlers: [ { urlTemplate: \"http://x/%zz?code=" + secret + "\" } ] } }",
		"hubs: { chat: { eventHandlers: [ { urlTemplate: \"http://x/{" + secret + "}\" } ] } }",
		"publicEndpoint: https://u:" + secret + "@x/",
		"publicEndpoint: https://x:" + secret + "/",
	} {
		path := filepath.Join(t.TempDir(), "f.yaml")
		os.WriteFile(path, []byte(text), 0o600)
		_, warnings, err := config.Load(config.Sources{File: path})
		said := warnings.Error()
		if err != nil {
			said += err.Error()
		}
		if strings.Contains(said, secret[:16]) {
			t.Errorf("%q shows the secret: %s", text, said)
		}
	}
}
