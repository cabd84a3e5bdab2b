package main

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/client"
)

// keyOf returns an access key as Azure issues them: base64 of 32 bytes.
func keyOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// asServer calls the identity endpoints as an application server that has an access
// key, and returns the status and the reply.
func asServer(t *testing.T, n *command, key, line, body string) (int, map[string]any) {
	t.Helper()
	status, text := asServerWith(t, n, key, line, body, nil)
	var read map[string]any
	if text != "" {
		if err := json.Unmarshal([]byte(text), &read); err != nil {
			t.Fatalf("%s: %d, %s: %v", line, status, text, err)
		}
	}
	return status, read
}

// asServerWith is asServer with something done to the request once it is signed, at
// a time.
func asServerWith(t *testing.T, n *command, key, line, body string, change func(r *http.Request, at time.Time)) (int, string) {
	t.Helper()
	r := newRequest(t, "http://"+n.address, line, body)
	at := time.Now()
	signing{key: key, at: at}.sign(t, r, body)
	if change != nil {
		change(r, at.UTC())
	}
	return answer(t, r, nil)
}

// newRequest returns a request to identity endpoints that nobody has signed.
func newRequest(t *testing.T, endpoint, line, body string) *http.Request {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	r, err := http.NewRequest(method, endpoint+target+"?api-version=2023-10-01", nil)
	if err != nil {
		t.Fatal(err)
	}
	setBody(r, body)
	r.Header.Set("Content-Type", "application/json")
	return r
}

// signing says what a request is signed with. Empty and zero mean what the request has,
// and now.
type signing struct {
	key, target, host string
	at                time.Time
}

func (s signing) sign(t *testing.T, r *http.Request, body string) {
	t.Helper()
	secret, err := base64.StdEncoding.DecodeString(s.key)
	if err != nil {
		t.Fatal(err)
	}
	if s.at.IsZero() {
		s.at = time.Now()
	}
	sum := sha256.Sum256([]byte(body))
	hash, date := base64.StdEncoding.EncodeToString(sum[:]), s.at.UTC().Format(http.TimeFormat)
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "%s\n%s\n%s;%s;%s", r.Method, cmp.Or(s.target, r.URL.RequestURI()), date, cmp.Or(s.host, r.Host), hash)
	r.Header.Set("x-ms-date", date)
	r.Header.Set("x-ms-content-sha256", hash)
	r.Header.Set("Authorization", "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="+base64.StdEncoding.EncodeToString(h.Sum(nil)))
}

// answer returns the status and the text of a node's answer. roots vouch for a node
// with TLS.
func answer(t *testing.T, r *http.Request, roots *x509.CertPool) (int, string) {
	t.Helper()
	c := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	reply, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

func setBody(r *http.Request, body string) {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
}

// account is a user of the service with a token.
type account struct{ id, token string }

// newUser makes a user with a token.
func newUser(t *testing.T, n *command, key string, scopes ...string) account {
	t.Helper()
	list, err := json.Marshal(scopes)
	if err != nil {
		t.Fatal(err)
	}
	status, reply := asServer(t, n, key, "POST /identities", `{"createTokenWithScopes":`+string(list)+`}`)
	id, _ := reply["identity"].(map[string]any)
	token, _ := reply["accessToken"].(map[string]any)
	if status != http.StatusCreated || id == nil || token == nil {
		t.Fatalf("no user was made: %d %v", status, reply)
	}
	return account{id["id"].(string), token["token"].(string)}
}

// path returns where the user is.
func (u account) path() string { return "/identities/" + strings.ReplaceAll(u.id, ":", "%3A") }

// renew returns another token of the user.
func (u account) renew(t *testing.T, n *command, key string) account {
	t.Helper()
	status, reply := asServer(t, n, key, "POST "+u.path()+"/:issueAccessToken", `{"scopes":["chat"]}`)
	if status != http.StatusOK {
		t.Fatalf("no token was issued: %d %v", status, reply)
	}
	return account{u.id, reply["token"].(string)}
}

// mustDo makes a request that must be answered with 204.
func mustDo(t *testing.T, n *command, key, line string) {
	t.Helper()
	if status, reply := asServer(t, n, key, line, ""); status != http.StatusNoContent {
		t.Fatalf("%s: %d %v", line, status, reply)
	}
}

// comesIn lets a user in.
func comesIn(t *testing.T, n *command, u account) *client.Client {
	t.Helper()
	c, err := enter(t, n, u.token)
	if err != nil {
		t.Fatal(err)
	}
	if hello := mustReceive[client.Connected](t, c); hello.UserID != u.id {
		t.Errorf("the user of the connection is %q; want %q", hello.UserID, u.id)
	}
	return c
}

// staysOut checks that a token is refused, by a rule.
func staysOut(t *testing.T, n *command, u account, status int, rule string) {
	t.Helper()
	_, err := enter(t, n, u.token)
	refused, ok := errors.AsType[*client.HandshakeError](err)
	if !ok || refused.Status != status || !strings.Contains(fmt.Sprint(refused), rule) {
		t.Errorf("came in, or not refused by %s: %v", rule, err)
	}
}

// end returns the last words that a client hears.
func end(t *testing.T, c *client.Client) string {
	t.Helper()
	for {
		e, err := receive(t, c)
		if d, ok := e.(client.Disconnected); ok {
			return d.Text
		}
		if err != nil {
			return err.Error()
		}
	}
}

// A token opens the hubs of its scopes, with their roles, and its user is the whole
// id. Revoking ends it, and the user's connections with it, and no one else's.
func TestUsers(t *testing.T) {
	const settings = `
users:
  scopes:
    chat: { hubs: [Chat], roles: [webpubsub.joinLeaveGroup, webpubsub.sendToGroup] }
    voip: { hubs: [calls] }
    chat.join: { hubs: ["*"], roles: [webpubsub.sendToGroup.lobby], groups: [lobby] }
`
	key := keyOf("one")
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", "listen: 127.0.0.1:0\naccessKeys: { primary: "+key+" }\n"+settings))
	ann, bob := newUser(t, n, key, "chat", "voip"), newUser(t, n, key, "chat.join")
	if ann.id == bob.id || !strings.HasPrefix(ann.id, "8:acs:") {
		t.Errorf("the ids are %s and %s", ann.id, bob.id)
	}
	a, b := comesIn(t, n, ann), comesIn(t, n, bob)
	if err := a.JoinGroup(t.Context(), "other"); err != nil {
		t.Errorf("a scope's role is missing: %v", err)
	}
	if err := b.JoinGroup(t.Context(), "other"); err == nil {
		t.Error("a scope without the role joins groups")
	}
	if err := a.JoinGroup(t.Context(), "lobby"); err != nil {
		t.Fatal(err)
	}
	if err := a.SendToGroup(t.Context(), "lobby", text("hello"), &client.SendOptions{NoEcho: true}); err != nil {
		t.Fatal(err)
	}
	if m := mustReceive[client.Message](t, b); m.FromUserID != ann.id {
		t.Errorf("the message is from %q", m.FromUserID)
	}
	staysOut(t, n, newUser(t, n, key, "voip"), http.StatusForbidden, "user.hub")
	staysOut(t, n, newUser(t, n, key, "voip.join"), http.StatusForbidden, "user.hub")

	again := ann.renew(t, n, key)
	mustDo(t, n, key, "POST "+ann.path()+"/:revokeAccessTokens")
	if said := end(t, a); !strings.Contains(said, "revoked") {
		t.Errorf("the client of a revoked token hears %q", said)
	}
	staysOut(t, n, ann, http.StatusUnauthorized, "user.revoked")
	staysOut(t, n, again, http.StatusUnauthorized, "user.revoked")
	comesIn(t, n, ann.renew(t, n, key))
	if err := b.Ping(t.Context()); err != nil {
		t.Errorf("another user was closed: %v", err)
	}
	mustDo(t, n, key, "DELETE "+bob.path())
	end(t, b)
	staysOut(t, n, bob, http.StatusUnauthorized, "user.deleted")
	if status, _ := asServer(t, n, key, "POST "+bob.path()+"/:issueAccessToken", `{"scopes":["chat"]}`); status != http.StatusNotFound {
		t.Errorf("a token for a deleted user: %d", status)
	}
}

// A token that is revoked while its client comes in lets nobody in, and one that was
// revoked while its client was away brings nobody back.
func TestRevokedOnTheWay(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	up := newUpstream(t)
	up.answer = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Ce-Eventname") == "connect" {
			held <- struct{}{}
			<-release
		}
		w.WriteHeader(http.StatusNoContent)
	}
	key := keyOf("one")
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", "listen: 127.0.0.1:0\naccessKeys: { primary: "+key+
		" }\nhubs: { slow: { eventHandlers: [ { urlTemplate: \""+up.URL+"\", systemEvents: [connect] } ] } }\n"))
	ann := newUser(t, n, key, "chat")
	came := make(chan error, 1)
	go func() {
		c, err := client.Dial(t.Context(), "ws://"+n.address+"/client/hubs/slow?access_token="+ann.token, nil)
		for err == nil {
			_, err = c.Receive(t.Context())
		}
		came <- err
	}()
	<-held
	mustDo(t, n, key, "POST "+ann.path()+"/:revokeAccessTokens")
	close(release)
	if err := <-came; !strings.Contains(err.Error(), "1008") || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("the client ends with %v", err)
	}

	c := comesIn(t, n, ann.renew(t, n, key))
	mustDo(t, n, key, "POST "+ann.path()+"/:revokeAccessTokens")
	end(t, c)
	ok, err := n.node.engine.Hub("chat").UserExists(t.Context(), engine.UserID(ann.id))
	if ok || err != nil {
		t.Errorf("the user is still there: %v", err)
	}
}

// closeOnRevoke: false leaves connections as they are.
func TestRevokingLeavesConnections(t *testing.T) {
	key := keyOf("one")
	n := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key, "FANFARE_USERS_CLOSE_ON_REVOKE=false"})
	ann := newUser(t, n, key, "chat")
	c := comesIn(t, n, ann)
	mustDo(t, n, key, "POST "+ann.path()+"/:revokeAccessTokens")
	staysOut(t, n, ann, http.StatusUnauthorized, "user.revoked")
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("the connection was closed: %v", err)
	}
}

// With a store users, their tokens and what was revoked outlive the node.
func TestUsersOutliveTheNode(t *testing.T) {
	key, dir := keyOf("one"), t.TempDir()
	// The tokens' issuer is the node's address, which changes here from one to the next.
	environ := []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key, "FANFARE_STORE_DIR=" + dir, "FANFARE_PUBLIC_ENDPOINT=http://rt.example.com"}
	n := startNode(t, environ)
	ann, bob, eve := newUser(t, n, key, "chat"), newUser(t, n, key, "chat"), newUser(t, n, key, "chat")
	mustDo(t, n, key, "POST "+bob.path()+"/:revokeAccessTokens")
	mustDo(t, n, key, "DELETE "+eve.path())
	if code, _, said := finish(t, environ, "--listen", "127.0.0.1:0"); code == exitOK || !strings.Contains(said, dir) {
		t.Errorf("a second node on the same store: exit code %d: %s", code, said)
	}
	n.signals <- syscall.SIGTERM
	if code := n.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, n.err)
	}
	n = startNode(t, environ)
	comesIn(t, n, ann)
	staysOut(t, n, bob, http.StatusUnauthorized, "user.revoked")
	comesIn(t, n, bob.renew(t, n, key))
	staysOut(t, n, eve, http.StatusUnauthorized, "user.deleted")
}

// Who regenerates an access key ends the tokens that were made while it was the
// primary one, with a store and without.
func TestRegeneratedKeysEndUserTokens(t *testing.T) {
	for _, store := range []string{"", "store: { dir: " + t.TempDir() + " }\n"} {
		settings := func(primary, secondary string) string {
			return "listen: 127.0.0.1:0\naccessKeys: { primary: " + keyOf(primary) + ", secondary: " + keyOf(secondary) + " }\n" + store
		}
		path := file(t, "fanfare.yaml", settings("one", "two"))
		n := startNode(t, nil, "--config", path)
		ann := newUser(t, n, keyOf("two"), "chat")
		first := comesIn(t, n, ann)
		reread(t, n, path, settings("two", "one")) // turned round: both are there
		comesIn(t, n, ann)
		second := ann.renew(t, n, keyOf("one"))
		reread(t, n, path, settings("two", "three"))
		staysOut(t, n, ann, http.StatusUnauthorized, "user.kid")
		if store == "" { // one that is kept signs until its successor has been published for a while
			comesIn(t, n, second)
		}
		comesIn(t, n, ann.renew(t, n, keyOf("two")))
		if err := first.Ping(t.Context()); err != nil {
			t.Errorf("a connection was dropped with its token's key: %v", err)
		}
		if status, _ := asServer(t, n, keyOf("one"), "POST /identities", ""); status != http.StatusUnauthorized {
			t.Errorf("a key that is gone signs requests: %d", status)
		}
		if status, _ := asServer(t, n, keyOf("three"), "POST /identities", ""); status != http.StatusCreated {
			t.Errorf("the new key signs no requests: %d", status)
		}
	}
}

// By option tokens are signed by RS256, in memory and in a store.
func TestUserTokensByRS256(t *testing.T) {
	key := keyOf("one")
	for _, dir := range []string{"", t.TempDir()} {
		n := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key, "FANFARE_USERS_SIGNING_ALGORITHM=RS256", "FANFARE_STORE_DIR=" + dir})
		ann := newUser(t, n, key, "chat")
		head, err := base64.RawURLEncoding.DecodeString(strings.Split(ann.token, ".")[0])
		if err != nil || !strings.Contains(string(head), `"alg":"RS256"`) {
			t.Errorf("the token's header is %s, %v", head, err)
		}
		if _, keys := get(t, "http://"+n.address+usersPath+"/.well-known/jwks.json"); !strings.Contains(keys, `"kty":"RSA"`) {
			t.Errorf("the keys are %s", keys)
		}
		comesIn(t, n, ann)
	}
}
