package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/transport/client"
)

// byECDSA signs as ES256 does.
func byECDSA(key *ecdsa.PrivateKey) signer {
	return func(signed string) []byte {
		sum, err := jwt.SigningMethodES256.Sign(signed, key)
		if err != nil {
			panic(err)
		}
		return sum
	}
}

// What is tried with users' tokens, at the doors of clients and of servers.
func attackUsers(t *testing.T) {
	d, e := newDirectoryServer(t), newEve(t)
	key := keyOf("one")
	settings := d.settings("accessKeys: { primary: " + key + " }\nidentity: { type: Local }\nusers: { scopes: { chat: { hubs: [chat] } } }\n")
	n := startNode(t, nil, "--config", file(t, "fanfare.yaml", settings))
	n.err.wait(t, "the issuer's keys were read")
	ann, bob, gone := newUser(t, n, key, "chat"), newUser(t, n, key, "chat"), newUser(t, n, key, "chat")
	mustDo(t, n, key, "POST "+bob.path()+"/:revokeAccessTokens")
	mustDo(t, n, key, "DELETE "+gone.path())
	renewed := bob.renew(t, n, key)

	good := ann.token
	claims, head := claimsOf(t, good), strings.Split(good, ".")[0]
	rawHead, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Kid, Typ string }
	if err := json.Unmarshal(rawHead, &header); err != nil {
		t.Fatal(err)
	}
	mallory, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw := func(header, claims string, by signer) func(*testing.T) (int, string) {
		return asClient(n, forged(header, claims, by), "")
	}
	of := func(alg, more string) string {
		return `{"alg":"` + alg + `","kid":"` + header.Kid + `","typ":"` + header.Typ + `"` + more + `}`
	}
	// The public key, as whoever reads the JWKS has it.
	_, keys := get(t, "http://"+n.address+"/identities/.well-known/jwks.json")
	var set struct{ Keys []struct{ X, Y string } }
	if err := json.Unmarshal([]byte(keys), &set); err != nil || len(set.Keys) == 0 {
		t.Fatalf("no keys: %s", keys)
	}
	x, err := base64.RawURLEncoding.DecodeString(set.Keys[0].X)
	if err != nil {
		t.Fatal(err)
	}
	edited := func(old, with string) func(*testing.T) (int, string) {
		if !strings.Contains(claims, old) {
			t.Fatalf("the claims have no %s: %s", old, claims)
		}
		signature := good[strings.LastIndexByte(good, '.')+1:]
		return asClient(n, head+"."+base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(claims, old, with, 1)))+"."+signature, "")
	}

	for _, way := range []func(*testing.T) (int, string){asClient(n, good, ""), asClient(n, "", good), asClient(n, renewed.token, "")} {
		letIn(t, http.StatusSwitchingProtocols, way)
	}
	const send, create = "POST /api/hubs/chat/:send", "POST /identities?api-version=2023-10-01"
	owner := d.token(t, entraOwner, nil)
	manager := jwt.MapClaims{"aud": entra.AudienceCommunication + "/"}
	attackAll(t, []attack{
		{"revoked", asClient(n, bob.token, ""), 401, "user.revoked"},
		{"of a deleted user", asClient(n, gone.token, ""), 401, "user.deleted"},
		{"a revoked token in the query, a good one in the header", asClient(n, bob.token, good), 401, "user.revoked"},
		{"alg none", raw(of("none", ""), claims, unsigned), 401, "user.alg"},
		{"no signature", raw(of("ES256", ""), claims, unsigned), 401, "user.signature"},
		{"a signature of zeros", raw(of("ES256", ""), claims, func(string) []byte { return make([]byte, 64) }), 401, "user.signature"},
		{"HS256 by the public key", raw(of("HS256", ""), claims, byHMAC(x)), 401, "user.alg"},
		{"RS256 under the key's id", raw(of("RS256", ""), claims, byRSA(eveKey())), 401, "user.alg"},
		{"a foreign key under the key's id", raw(of("ES256", ""), claims, byECDSA(mallory)), 401, "user.signature"},
		{"a key in the header", raw(of("ES256", `,"jwk":`+eveJWK()), claims, byECDSA(mallory)), 401, "user.signature"},
		{"jku", raw(of("ES256", `,"jku":"`+e.URL+`/keys"`), claims, byECDSA(mallory)), 401, "user.signature"},
		{"critical extensions", raw(of("ES256", `,"crit":["b64"],"b64":false`), claims, byECDSA(mallory)), 401, "user.malformed"},
		{"a kid of its own", raw(`{"alg":"ES256","kid":"eve","typ":"`+header.Typ+`"}`, claims, byECDSA(mallory)), 401, "user.kid"},
		{"an access token's type, by an access key", raw(`{"alg":"HS256","typ":"`+header.Typ+`"}`, claims, byHMAC([]byte(key))), 401, "user.kid"},
		{"its claims, signed by an access key", raw(`{"alg":"HS256","typ":"JWT"}`, claims, byHMAC([]byte(key))), 401, "token.audience"},
		{"another user", edited(ann.id[2:], bob.id[2:]), 401, "user.signature"},
		{"another generation", edited(`"gen":1`, `"gen":2`), 401, "user.signature"},
		{"more scopes", edited(`"acsScope":"chat"`, `"acsScope":"chat,voip"`), 401, "user.signature"},
		{"another end", edited(`"exp":`, `"exp":9`), 401, "user.signature"},
		{"a signature with loose bits", asClient(n, loosened(good), ""), 401, "user.malformed"},
		{"another hub", func(t *testing.T) (int, string) {
			c, err := client.Dial(t.Context(), "ws://"+n.address+"/client/hubs/other?access_token="+good, nil)
			return answered(t, c, err)
		}, 403, "user.hub"},
		{"at the data plane", atREST(n, send, good), 401, "entra.alg"},
		{"at the door of those who manage users", atREST(n, create, good), 401, "Denied"},
		{"an access key's token there", atREST(n, create, serverToken(t, n, key, "/identities?api-version=2023-10-01")), 401, "Denied"},
		{"a client's token there", atREST(n, create, sign(t, key, "http://"+n.address+"/identities", time.Now().Add(time.Hour))), 401, "Denied"},
		{"a token of Entra ID for the data plane there", atREST(n, create, owner), 401, "entra.audience"},
		{"a token of Entra ID without the role there", atREST(n, create, d.token(t, entraOwner, manager)), 403, "entra.role"},
		{"nothing there", atREST(n, create, ""), 401, "signed.missing"},
		{"a token of Entra ID for users at the data plane", atREST(n, send, d.token(t, entraOwner, manager)), 401, "entra.audience"},
		{"an exchange of a server's token", atREST(n, "POST /access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30", owner), 401, "entra.audience"},
	})

	signed := func(change func(r *http.Request, at time.Time)) func(*testing.T) (int, string) {
		return func(t *testing.T) (int, string) {
			return asServerWith(t, n, key, "POST /identities", "{}", change)
		}
	}
	letIn(t, http.StatusCreated, signed(nil))
	attackAll(t, []attack{
		{"another body", signed(func(r *http.Request, _ time.Time) { setBody(r, `{"createTokenWithScopes":["chat"]}`) }), 401, "signed.body"},
		{"another body and its hash", signed(func(r *http.Request, _ time.Time) {
			setBody(r, `{"createTokenWithScopes":["chat"]}`)
			sum := sha256.Sum256([]byte(`{"createTokenWithScopes":["chat"]}`))
			r.Header.Set("x-ms-content-sha256", base64.StdEncoding.EncodeToString(sum[:]))
		}), 401, "signed.signature"},
		{"no hash", signed(func(r *http.Request, _ time.Time) { r.Header.Del("x-ms-content-sha256") }), 401, "signed.body"},
		{"another path", signed(func(r *http.Request, _ time.Time) { r.URL.Path += "/" + ann.id + "/:revokeAccessTokens" }), 401, "signed.signature"},
		{"another query", signed(func(r *http.Request, _ time.Time) { r.URL.RawQuery = "api-version=2026-09-23" }), 401, "signed.signature"},
		{"another method", signed(func(r *http.Request, _ time.Time) { r.Method, r.URL.Path = "DELETE", ann.path() }), 401, "signed.signature"},
		{"another host", signed(func(r *http.Request, _ time.Time) { r.Host = "eve.example" }), 401, "signed.signature"},
		{"a later date", signed(func(r *http.Request, at time.Time) {
			r.Header.Set("x-ms-date", at.Add(time.Minute).Format(http.TimeFormat))
		}), 401, "signed.signature"},
		{"a date of six minutes ago", signed(func(r *http.Request, at time.Time) {
			r.Header.Set("x-ms-date", at.Add(-6*time.Minute).Format(http.TimeFormat))
		}), 401, "signed.skew"},
		{"a date to come", signed(func(r *http.Request, at time.Time) {
			r.Header.Set("x-ms-date", at.Add(6*time.Minute).Format(http.TimeFormat))
		}), 401, "signed.skew"},
		{"no date", signed(func(r *http.Request, _ time.Time) { r.Header.Del("x-ms-date") }), 401, "signed.date"},
		{"two dates", signed(func(r *http.Request, _ time.Time) { r.Header.Add("x-ms-date", r.Header.Get("x-ms-date")) }), 401, "signed.date"},
		{"fewer headers signed", signed(func(r *http.Request, _ time.Time) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "x-ms-date;host;x-ms-content-sha256", "host", 1))
		}), 401, "signed.header"},
		{"no signature", signed(func(r *http.Request, _ time.Time) {
			text, _, _ := strings.Cut(r.Header.Get("Authorization"), "&")
			r.Header.Set("Authorization", text)
		}), 401, "signed.header"},
		{"the key as its text", func(t *testing.T) (int, string) {
			return asServerWith(t, n, base64.StdEncoding.EncodeToString([]byte(key)), "POST /identities", "{}", nil)
		}, 401, "signed.signature"},
		{"another's key", func(t *testing.T) (int, string) {
			return asServerWith(t, n, keyOf("eve"), "POST /identities", "{}", nil)
		}, 401, "signed.signature"},
	})

	// What was tried has changed nothing.
	letIn(t, http.StatusSwitchingProtocols, asClient(n, good, ""))
	letIn(t, http.StatusSwitchingProtocols, asClient(n, renewed.token, ""))
}
