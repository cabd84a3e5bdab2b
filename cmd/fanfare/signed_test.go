package main

import (
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/entra"
)

// denied checks that a request is refused as the service refuses all that are not signed
// as they should be.
func denied(t *testing.T, what string, status int, text string) {
	t.Helper()
	var said struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		t.Errorf("%s: %d %s: %v", what, status, text, err)
	}
	if status != http.StatusUnauthorized || said.Error.Code != "Denied" || said.Error.Message != "Denied by the resource provider." {
		t.Errorf("%s: %d %s", what, status, text)
	}
}

// The port of a node is signed by JavaScript's SDK and not by Java's, which leaves it out
// of the Host header too, unless its HTTP client puts it back.
func TestIdentity10PortOfTheHost(t *testing.T) {
	key := keyOf("one")
	n := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key})
	name, _, err := net.SplitHostPort(n.address)
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []struct{ sent, signed string }{{n.address, n.address}, {n.address, name}, {name, name}} {
		r := newRequest(t, "http://"+n.address, "POST /identities", "{}")
		r.Host = form.sent
		signing{key: key, host: form.signed}.sign(t, r, "{}")
		if status, text := answer(t, r, nil); status != http.StatusCreated {
			t.Errorf("%s signed, %s sent: %d %s", form.signed, form.sent, status, text)
		}
	}
}

// Behind a proxy requests are signed for what the service is called there.
func TestSignedForThePublicEndpoint(t *testing.T) {
	key := keyOf("one")
	n := startNode(t, []string{
		"FANFARE_ACCESS_KEYS_PRIMARY=" + key, "FANFARE_PUBLIC_ENDPOINT=https://rt.example.com", "FANFARE_AUDIENCE_HOSTS=old.example.com:8443",
	})
	for host, want := range map[string]int{"rt.example.com": 201, "old.example.com:8443": 201, "old.example.com": 201, "eve.example": 401} {
		r := newRequest(t, "http://"+n.address, "POST /identities", "{}")
		signing{key: key, host: host}.sign(t, r, "{}")
		if status, text := answer(t, r, nil); status != want {
			t.Errorf("signed for %s: %d %s; want %d", host, status, text, want)
		}
	}
}

// Of the colons in an id their escapes may be signed, or they themselves. A path without
// its first slash, which Python's SDK has signed over plain HTTP, passes there alone.
func TestIdentity11EscapedPath(t *testing.T) {
	key := keyOf("one")
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	roots := x509.NewCertPool()
	roots.AddCert(writeCertificate(t, certFile, keyFile, 1))
	environ := []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + key}
	open := startNode(t, environ)
	secure := startNode(t, append(environ, "FANFARE_TLS_CERT_FILE="+certFile, "FANFARE_TLS_KEY_FILE="+keyFile))
	for endpoint, plain := range map[string]bool{"http://" + open.address: true, "https://" + secure.address: false} {
		create := newRequest(t, endpoint, "POST /identities", "")
		signing{key: key}.sign(t, create, "")
		status, text := answer(t, create, roots)
		var made struct{ Identity struct{ ID string } }
		if err := json.Unmarshal([]byte(text), &made); err != nil || status != http.StatusCreated {
			t.Fatal(status, text, err)
		}
		const body = `{"scopes":["chat"]}`
		issue := "POST " + account{id: made.Identity.ID}.path() + "/:issueAccessToken"
		raw := newRequest(t, endpoint, issue, body).URL.RequestURI()
		decoded, err := url.PathUnescape(raw)
		if err != nil || !strings.HasPrefix(raw, "/identities/8%3Aacs%3A") || !strings.HasPrefix(decoded, "/identities/8:acs:") {
			t.Fatal(raw, decoded, err)
		}
		for target, passes := range map[string]bool{raw: true, decoded: true, raw[1:]: plain} {
			r := newRequest(t, endpoint, issue, body)
			signing{key: key, target: target}.sign(t, r, body)
			status, text := answer(t, r, roots)
			if !passes {
				denied(t, target+" at "+endpoint, status, text)
			} else if status != http.StatusOK {
				t.Errorf("%s at %s: %d %s", target, endpoint, status, text)
			}
		}
	}
}

// What is not as it was signed, or was signed at another time or with another key, is
// denied. Both keys sign.
func TestIdentity12Denied(t *testing.T) {
	const body = `{"createTokenWithScopes":["chat"]}`
	primary, secondary := keyOf("one"), keyOf("two")
	n := startNode(t, []string{"FANFARE_ACCESS_KEYS_PRIMARY=" + primary, "FANFARE_ACCESS_KEYS_SECONDARY=" + secondary})
	send := func(s signing, change func(*http.Request)) (int, string) {
		r := newRequest(t, "http://"+n.address, "POST /identities", body)
		s.sign(t, r, body)
		if change != nil {
			change(r)
		}
		return answer(t, r, nil)
	}
	now := time.Now()
	for name, s := range map[string]signing{
		"primary":          {key: primary},
		"secondary":        {key: secondary},
		"under 5 min late": {key: primary, at: now.Add(-5*time.Minute + patience)},
		"under 5 min soon": {key: primary, at: now.Add(5*time.Minute - patience)},
	} {
		if status, text := send(s, nil); status != http.StatusCreated {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	for name, refused := range map[string]struct {
		s      signing
		change func(*http.Request)
	}{
		"another body":    {signing{key: primary}, func(r *http.Request) { setBody(r, strings.Replace(body, "chat", "voip", 1)) }},
		"over 5 min late": {signing{key: primary, at: now.Add(-5*time.Minute - time.Second)}, nil},
		"over 5 min soon": {signing{key: primary, at: now.Add(5*time.Minute + patience)}, nil},
		"another key":     {signing{key: keyOf("three")}, nil},
		"no hash":         {signing{key: primary}, func(r *http.Request) { r.Header.Del("x-ms-content-sha256") }},
	} {
		status, text := send(refused.s, refused.change)
		denied(t, name, status, text)
	}
}

// Servers that manage users come in by tokens for the service's name, with the slash at
// its end that SDKs ask for and without, and for what the settings say besides.
func TestIdentityAudienceSlash(t *testing.T) {
	const guid = "dddddddd-0000-4000-8000-000000000001"
	d := newDirectoryServer(t)
	for settings, audiences := range map[string][]string{
		"": {entra.AudienceCommunication + "/", entra.AudienceCommunication},
		"users: { audiences: [ " + entra.AudienceCommunication + ", " + guid + " ] }\n": {
			entra.AudienceCommunication + "/", entra.AudienceCommunication, guid,
		},
	} {
		n := startNode(t, nil, "--config", file(t, "fanfare.yaml", "listen: 127.0.0.1:0\nentra:\n  tenantId: "+entraTenant+"\n  authority: "+d.URL+
			"\n  roleAssignments: [ { principalId: "+entraOwner+", role: "+entra.RoleCommunicationOwner+", hub: '*' } ]\n"+settings))
		for _, audience := range audiences {
			for version, iss := range map[string]string{"1.0": "https://sts.windows.net/" + entraTenant + "/", "2.0": d.URL + "/" + entraTenant + "/v2.0"} {
				token := d.token(t, entraOwner, jwt.MapClaims{"aud": audience, "ver": version, "iss": iss})
				r := newRequest(t, "http://"+n.address, "POST /identities", "")
				r.Header.Set("Authorization", "Bearer "+token)
				if status, text := answer(t, r, nil); status != http.StatusCreated {
					t.Errorf("version %s for %s: %d %s", version, audience, status, text)
				}
			}
		}
	}
}
