package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fanfare/fanfare/authn/accesskey"
)

// reloaded sends SIGHUP and returns what the node logs of the reload, which ends
// with either word.
func reloaded(t *testing.T, n *command) string {
	t.Helper()
	const followed, kept = "the settings were read again", "the last valid ones stay in force"
	before := len(n.err.String())
	n.signals <- syscall.SIGHUP
	said := func() string { return n.err.String()[before:] }
	eventually(t, "the reload ends", func() bool { return strings.Contains(said(), followed) || strings.Contains(said(), kept) })
	return said()
}

// attackReload is what a broken copy, a full disk or a hasty edit does to the
// settings file of a node behind a proxy. Each row states what the development key
// gets afterwards, and the key or rule that the log names. The node's own key, and
// the connect handler that refuses a user, count before and after every row.
func attackReload(t *testing.T) {
	up := newUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Userid") == "eve" {
			w.WriteHeader(http.StatusForbidden)
		}
	}
	keys := "accessKeys: { primary: " + ownKey + " }\n"
	handlers := "hubs:\n  chat:\n    eventHandlers:\n      - { urlTemplate: '" + up.URL + "', systemEvents: [connect] }\n"
	head := "listen: 127.0.0.1:0\nmetrics: { listen: 127.0.0.1:0 }\n"
	whole := head + keys + handlers
	path := file(t, "fanfare.yaml", whole)
	n := startNode(t, nil, "--config", path)
	page := metricsAt.FindStringSubmatch(n.out.String())[1]
	as := func(key, user string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			c, err := dial(t, n.environ(key), "--hub", "chat", "--user", user)
			return answered(t, c, err)
		}
	}
	holds := func(t *testing.T) {
		t.Helper()
		letIn(t, 101, as(ownKey, "ann"))
		letIn(t, 403, as(ownKey, "eve"))
	}
	holds(t)
	replace := func(text string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			rewrite(t, path, text)
			said := reloaded(t, n)
			status, _ := as(accesskey.DevelopmentKey, "eve")(t)
			holds(t)
			return status, said
		}
	}
	const empty = "holds no settings; expected the whole file"
	rows := []attack{
		{"no byte is left", replace(""), 401, empty},
		{"comments are left", replace("# settings\n"), 401, empty},
		{"a null is left", replace("null\n"), 401, empty},
		{"cut behind the first lines", replace(head), 401, "accessKeys.primary"},
		{"cut behind the keys", replace(head + keys), 401, "hubs.chat.eventHandlers"},
		{"cut in the hub", replace(head + keys + "hubs:\n  chat:\n"), 401, "hubs.chat.eventHandlers"},
		{"cut in a line", replace(strings.TrimSuffix(whole, "\n")), 401, "ends in the middle of a line"},
		{"keys without text", replace(head + "accessKeys: { primary: '' }\n" + handlers), 401, "accessKeys.primary"},
		{"the development key as the second", replace(head + "accessKeys: { primary: " + ownKey + ", secondary: " + accesskey.DevelopmentKey + " }\n" + handlers), 401, "accessKeys.secondary"},
		{"keys removed with local authentication", replace(head + "disableLocalAuth: true\n" + handlers), 401, "accessKeys.primary"},
		{"the file is gone", func(t *testing.T) (int, string) {
			t.Helper()
			os.Remove(path)
			said := reloaded(t, n)
			status, _ := as(accesskey.DevelopmentKey, "eve")(t)
			holds(t)
			return status, said
		}, 401, "no such file"},
	}
	attackAll(t, rows)
	if got := samples(t, page)[`fanfare_config_reloads_total{outcome="failed"}`]; got != float64(len(rows)) {
		t.Errorf("%v failed reloads are counted; want %d", got, len(rows))
	}
	// A file that is right is followed afterwards.
	const nextKey = "next-next-next-next-next-next-next-next-next"
	rewrite(t, path, strings.Replace(whole, ownKey, nextKey, 1))
	if said := reloaded(t, n); !strings.Contains(said, "were read again") {
		t.Fatal(said)
	}
	letIn(t, 101, as(nextKey, "ann"))
	letIn(t, 401, as(ownKey, "ann"))

	attackReloadedFiles(t)
}

// attackReloadedFiles is the same with the files that settings name: what they held
// before stays in force.
func attackReloadedFiles(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, caFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	cert := writeCertificate(t, certFile, keyFile, 7)
	writeCertificate(t, caFile, filepath.Join(dir, "ca.key"), 8)
	whole := map[string]string{}
	for _, f := range []string{certFile, keyFile, caFile} {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		whole[f] = string(text)
	}
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", fmt.Sprintf(`listen: 127.0.0.1:0
accessKeys: { primary: %s }
tls: { certFile: %s, keyFile: %s, clientCertEnabled: true }
hubs: { chat: { clientCertificates: { caFile: %s } } }
`, ownKey, certFile, keyFile, caFile)))
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	health := func(t *testing.T) int {
		t.Helper()
		c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
		r, err := c.Get("https://" + n.address + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		io.Copy(io.Discard, r.Body)
		return r.StatusCode
	}
	cut := func(file, text string) func(t *testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			t.Helper()
			rewrite(t, file, text)
			defer rewrite(t, file, whole[file])
			said := reloaded(t, n)
			if !strings.Contains(said, "stay in force") {
				t.Error("the reload was followed")
			}
			return health(t), said
		}
	}
	half := func(file string) string { return whole[file][:len(whole[file])/2] }
	attackAll(t, []attack{
		{"an empty certificate", cut(certFile, ""), 200, "tls.certFile"},
		{"half a certificate", cut(certFile, half(certFile)), 200, "tls.certFile"},
		{"an empty private key", cut(keyFile, ""), 200, "tls.certFile"},
		{"half a private key", cut(keyFile, half(keyFile)), 200, "tls.certFile"},
		{"no authorities", cut(caFile, ""), 200, "hubs.chat.clientCertificates.caFile"},
		{"half an authority", cut(caFile, half(caFile)), 200, "hubs.chat.clientCertificates.caFile"},
	})
}
