package rest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/rest"
)

// Those numbered are the behaviours of the Identity service that a door alone can show.
// The others stand with access keys and users, with the service's own tokens and secrets,
// with whole nodes, and with the SDKs.

func TestIdentity14CreateWithoutBody(t *testing.T) {
	s := startIdentity(t, nil)
	var ids []string
	for _, body := range []string{"", "{}", " {\n} ", `{"createTokenWithScopes":[]}`, `{"createTokenWithScopes":null}`, `{"expiresInMinutes":60}`} {
		var c created
		r := s.must(201, &c, "POST /identities", body)
		if c.AccessToken != nil || strings.Contains(r.body, "accessToken") || !strings.HasPrefix(c.Identity.ID, "8:acs:") {
			t.Errorf("%q creates %s", body, r.body)
		}
		ids = append(ids, c.Identity.ID)
	}
	for _, contentType := range []string{"", "text/plain", ";"} { // of nothing
		s.must(201, nil, "POST /identities", "", "Content-Type: "+contentType)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 6 || len(s.users.tokens) != 0 {
		t.Errorf("the ids are %q, the tokens %v", ids, s.users.tokens)
	}
}

func TestIdentity15Lifetimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startIdentity(t, nil)
		id := s.create()
		for minutes, want := range map[string]int{"60": 60, "61": 61, "1440": 1440, "null": 1440, "": 1440, " 60 ": 60} {
			member := ""
			if minutes != "" {
				member = `,"expiresInMinutes":` + minutes
			}
			var c created
			var issued token
			s.must(201, &c, "POST /identities", `{"createTokenWithScopes":["chat"]`+member+`}`)
			s.must(200, &issued, "POST /identities/"+id+"/:issueAccessToken", `{"scopes":["chat"]`+member+`}`)
			end := time.Now().Add(time.Duration(want) * time.Minute)
			for _, got := range []*token{c.AccessToken, &issued} {
				if got == nil || got.ExpiresOn != end.UTC().Format("2006-01-02T15:04:05.0000000")+"+00:00" {
					t.Errorf("%s minutes end at %v, want %s", minutes, got, end)
				} else if proof, _ := s.users.standing(t, got.Token); proof.lifetime != time.Duration(want)*time.Minute {
					t.Errorf("%s minutes are %s", minutes, proof.lifetime)
				}
			}
		}
		issued := len(s.users.tokens)
		for _, minutes := range []string{"59", "1441", `"60"`, "60.5", "60.0", "6e1", "-60", "0", "true", "[60]", "{}", "99999999999999999999"} {
			for line, body := range map[string]string{
				"POST /identities":                              `{"createTokenWithScopes":["chat"],"expiresInMinutes":` + minutes + `}`,
				"POST /identities?api-version=2023-10-01":       `{"expiresInMinutes":` + minutes + `}`,
				"POST /identities/" + id + "/:issueAccessToken": `{"scopes":["chat"],"expiresInMinutes":` + minutes + `}`,
			} {
				f := s.must(400, nil, line, body).failure(t)
				if f.Code != "ValidationError" || f.Target != "expiresInMinutes" || f.Inner.Code != "rest.expiresInMinutes" ||
					!strings.Contains(f.Message, "from 60 to 1440") {
					t.Errorf("%s %s: %+v", line, body, f)
				}
			}
		}
		if len(s.users.tokens) != issued || s.users.created != 7 {
			t.Errorf("%d tokens and %d users came of refused requests", len(s.users.tokens)-issued, s.users.created-7)
		}
		// A version that does not know the member ignores it.
		for _, version := range []string{"2021-03-07", "2022-06-01"} {
			var got token
			s.must(200, &got, "POST /identities/"+id+"/:issueAccessToken?api-version="+version, `{"scopes":["chat"],"expiresInMinutes":"59"}`)
			if proof, _ := s.users.standing(t, got.Token); proof.lifetime != 24*time.Hour {
				t.Errorf("%s: the token lives for %s", version, proof.lifetime)
			}
		}
	})
}

func TestIdentity16Scopes(t *testing.T) {
	s := startIdentity(t, nil)
	id := s.create()
	issue := "POST /identities/" + id + "/:issueAccessToken"
	for body, want := range map[string][]string{
		`{"scopes":["chat"]}`:                                                    {"chat"},
		`{"scopes":["voip","chat","voip","chat"]}`:                               {"voip", "chat"},
		`{"scopes":["chat","voip","chat.join","chat.join.limited","voip.join"]}`: {"chat", "voip", "chat.join", "chat.join.limited", "voip.join"},
		`{"scopes":["ch\u0061t"],"other":{"scopes":[1]},"Scopes":3}`:             {"chat"},
	} {
		var got token
		r := s.must(200, &got, issue, body)
		if proof, _ := s.users.standing(t, got.Token); !slices.Equal(proof.scopes, want) {
			t.Errorf("%s: the token has %q", body, proof.scopes)
		}
		if r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("the token may be kept: %v", r.header)
		}
	}
	for _, body := range []string{
		"", `{}`, `{"scopes":[]}`, `{"scopes":null}`, `{"scopes":["video"]}`, `{"scopes":["chat","Chat"]}`, `{"scopes":[""]}`, `{"scopes":[null]}`,
		`{"scopes":[["chat"]]}`, `{"scopes":"chat"}`, `{"scopes":{"chat":true}}`, `{"scopes":[1]}`, `{"scopes":["` + strings.Repeat("x", 9999) + `"]}`,
	} {
		f := s.must(400, nil, issue, body).failure(t)
		if f.Code != "ValidationError" || f.Target != "scopes" || f.Inner.Code != "rest.scopes" || !strings.Contains(f.Message, "scopes") || len(f.Message) > 400 {
			t.Errorf("%.50s: %+v", body, f)
		}
	}
	// What a version's scopes are, it says.
	for version, joins := range map[string]bool{
		"2021-03-07": false, "2022-06-01": false, "2022-10-01": false, "2023-10-01": true, "2025-03-02-preview": true, "2025-06-30": true, "2026-07-22": true, "2026-09-23": true,
	} {
		for _, scope := range []string{"chat", "voip", "chat.join", "chat.join.limited", "voip.join"} {
			r := s.do("POST /identities?api-version="+version, `{"createTokenWithScopes":["`+scope+`"]}`)
			if want := joins || !strings.Contains(scope, "join"); (r.status == 201) != want {
				t.Errorf("%s of %s: %d", scope, version, r.status)
			} else if !want {
				if f := r.failure(t); f.Target != "createTokenWithScopes" || !strings.Contains(f.Message, "chat, voip, which are what the api-version "+version+" has") {
					t.Errorf("%s of %s: %+v", scope, version, f)
				}
			}
		}
	}
}

func TestIdentity17Statuses(t *testing.T) {
	s := startIdentity(t, nil)
	id := s.create()
	empty := func(r reply) {
		t.Helper()
		if r.body != "" || r.header.Get("Content-Type") != "" {
			t.Errorf("204 has the body %q", r.body)
		}
	}
	var c created
	s.must(201, &c, "POST /identities", `{"createTokenWithScopes":["chat","voip"]}`)
	s.must(200, new(token), "POST /identities/"+id+"/:issueAccessToken", `{"scopes":["chat"]}`)
	empty(s.must(204, nil, "POST /identities/"+id+"/:revokeAccessTokens", "", "Content-Type: "))
	empty(s.must(204, nil, "POST /identities/"+id+"/:revokeAccessTokens", "{}")) // more than it asks for
	empty(s.must(204, nil, "DELETE /identities/"+id, ""))
	if _, ok := s.users.standing(t, c.AccessToken.Token); !ok {
		t.Error("another user's token does not count any more")
	}
}

func TestIdentity18RevokedAndDeleted(t *testing.T) {
	s := startIdentity(t, nil)
	id := s.create()
	issue := func() string {
		t.Helper()
		var got token
		s.must(200, &got, "POST /identities/"+id+"/:issueAccessToken", `{"scopes":["chat"]}`)
		return got.Token
	}
	before := issue()
	s.must(204, nil, "POST /identities/"+id+"/:revokeAccessTokens", "")
	after := issue()
	if _, ok := s.users.standing(t, before); ok {
		t.Error("the token from before counts")
	}
	if _, ok := s.users.standing(t, after); !ok {
		t.Error("the token from afterwards does not count")
	}
	s.must(204, nil, "DELETE /identities/"+id, "")
	if _, ok := s.users.standing(t, after); ok {
		t.Error("a token of nobody counts")
	}
	for _, line := range []string{"POST /identities/" + id + "/:issueAccessToken", "POST /identities/" + id + "/:revokeAccessTokens", "DELETE /identities/" + id} {
		f := s.must(404, nil, line, `{"scopes":["chat"]}`).failure(t)
		if f.Code != "IdentityNotFound" || f.Inner.Code != "user.unknown" {
			t.Errorf("%s: %+v", line, f)
		}
	}
}

func TestIdentity20TooManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startIdentity(t, nil)
		for range 1000 {
			s.create()
		}
		r := s.do("POST /identities", "")
		f := r.failure(t)
		if r.status != 429 || r.header.Get("Retry-After") != "1" || f.Code != "TooManyRequests" || f.Inner.Code != "rest.rate" {
			t.Fatalf("the 1001st create is answered with %d %v %+v", r.status, r.header, f)
		}
		s.must(429, nil, "POST /identities", `{"`) // before what is wrong with it
		s.must(201, nil, "POST /identities", `{"createTokenWithScopes":["chat"]}`)
		time.Sleep(time.Second) // as the header says
		s.create()
		time.Sleep(29 * time.Second)
		for range 999 {
			s.create()
		}
		if s.users.created != 2001 {
			t.Errorf("%d users were created", s.users.created)
		}
	})
}

// The service's numbers, by operation; each counts for itself.
func TestIdentityLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startIdentity(t, nil)
		s.must(201, nil, "PUT /access/teamsExtension/tenants/"+tenant+"/assignments/"+ann, `{"principalType":"user","clientIds":["`+app+`"]}`)
		id := s.create()
		run := func(limit, spent int, ok int, line, body string, headers ...string) {
			t.Helper()
			for i := range limit - spent {
				if r := s.do(line, body, headers...); r.status != ok {
					t.Fatalf("%s %d: %d %s", line, i, r.status, r.body)
				}
			}
			if r := s.do(line, body, headers...); r.status != 429 || r.header.Get("Retry-After") != "1" {
				t.Errorf("%s %d: %d %v", line, limit+1, r.status, r.header)
			}
		}
		run(1000, 0, 201, "POST /identities", `{"createTokenWithScopes":["chat"]}`)
		run(1000, 1, 201, "POST /identities", "")
		run(1000, 0, 200, "POST /identities/"+id+"/:issueAccessToken", `{"scopes":["chat"]}`)
		run(500, 0, 204, "POST /identities/"+id+"/:revokeAccessTokens", "")
		run(500, 0, 404, "DELETE /identities/8:acs:nobody", "") // what fails counts
		run(500, 0, 200, "POST /teamsUser/:exchangeAccessToken", `{"token":"ann","appId":"`+app+`","userId":"`+ann+`"}`)
		run(500, 0, 200, "POST /access/teamsExtension/:exchangeAccessToken", "{}", "Authorization: Bearer ann")
		run(500, 1, 200, "GET /access/teamsExtension/tenants/"+tenant+"/assignments/"+ann, "")

		// Strangers use up nothing.
		time.Sleep(30 * time.Second)
		s.bearer = "nobody"
		for range 1001 {
			s.must(401, nil, "POST /identities", "")
		}
		s.bearer = "owner"
		s.create()
	})
}

func TestIdentityLimitsByOption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startIdentity(t, &rest.IdentityOptions{Limits: rest.IdentityLimits{Create: 2, Delete: -1}})
		s.create()
		s.create()
		if r := s.must(429, nil, "POST /identities", ""); r.header.Get("Retry-After") != "15" || !strings.Contains(r.failure(t).Message, "2 are allowed in 30 seconds") {
			t.Errorf("got %v %s", r.header, r.body)
		}
		time.Sleep(14 * time.Second)
		s.must(429, nil, "POST /identities", "")
		time.Sleep(time.Second)
		s.create()
		for range 2000 {
			s.must(404, nil, "DELETE /identities/8:acs:nobody", "")
		}
	})
}

// One limit holds for all who ask at once.
func TestIdentityLimitsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := startIdentity(t, &rest.IdentityOptions{Limits: rest.IdentityLimits{Create: 100}})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					r := httptest.NewRequest("POST", "/identities?api-version=2026-09-23", http.NoBody)
					r.Header.Set("Authorization", "Bearer owner")
					s.handler.ServeHTTP(httptest.NewRecorder(), r)
				}
			})
		}
		wg.Wait()
		if s.users.created != 100 {
			t.Errorf("%d of 400 were created, want 100", s.users.created)
		}
	})
}

func TestIdentityCustomID(t *testing.T) {
	s := startIdentity(t, nil)
	create := func(body string) (c created) {
		t.Helper()
		s.must(201, &c, "POST /identities?api-version=2025-03-02-preview", body)
		return c
	}
	first := create(`{"customId":"ann@contoso"}`)
	again := create(`{"customId":"ann@contoso","createTokenWithScopes":["chat"]}`)
	if first.Identity.ID != again.Identity.ID || again.Identity.CustomID != "ann@contoso" || again.AccessToken == nil {
		t.Errorf("first %+v, then %+v", first, again)
	}
	if c := create(`{"customId":"Ann@contoso"}`); c.Identity.ID == first.Identity.ID {
		t.Error("case does not matter")
	}
	if a, b := create(`{"customId":null}`), create(""); a.Identity.ID == b.Identity.ID || a.Identity.CustomID != "" {
		t.Errorf("without one: %+v, %+v", a, b)
	}
	if s.users.names["custom/ann@contoso"] != engine.UserID(first.Identity.ID) {
		t.Errorf("the names are %v", s.users.names)
	}
	create(`{"customId":"` + strings.Repeat("ä", 256) + `"}`)
	for _, id := range []string{`""`, `"` + strings.Repeat("ä", 257) + `"`, "7", "[]", `"\ud800"`} {
		f := s.must(400, nil, "POST /identities?api-version=2025-03-02-preview", `{"customId":`+id+`}`).failure(t)
		if f.Target != "customId" || f.Inner.Code != "rest.customId" {
			t.Errorf("%s: %+v", id, f)
		}
	}
	// No stable version knows the member.
	for _, version := range []string{"2021-03-07", "2023-10-01", "2025-06-30", "2026-09-23"} {
		var c created
		if s.must(201, &c, "POST /identities?api-version="+version, `{"customId":"ann@contoso"}`); c.Identity.ID == first.Identity.ID || c.Identity.CustomID != "" {
			t.Errorf("%s: %+v", version, c)
		}
	}
}

type identityLine struct{ line, since string }

// identityLines are all operations, and the versions that brought them.
var identityLines = []identityLine{
	{"POST /identities", "2021-03-07"},
	{"DELETE /identities/8:acs:x", "2021-03-07"},
	{"POST /identities/8:acs:x/:issueAccessToken", "2021-03-07"},
	{"POST /identities/8:acs:x/:revokeAccessTokens", "2021-03-07"},
	{"POST /teamsUser/:exchangeAccessToken", "2022-06-01"},
	{"POST /access/teamsExtension/:exchangeAccessToken", "2025-06-30"},
	{"POST /access/entra/:exchangeAccessToken", "2025-03-02-preview"},
	{"GET /access/teamsExtension/tenants/" + tenant + "/assignments/" + ann, "2025-06-30"},
	{"PUT /access/teamsExtension/tenants/" + tenant + "/assignments/" + ann, "2025-06-30"},
	{"DELETE /access/teamsExtension/tenants/" + tenant + "/assignments/" + ann, "2025-06-30"},
}

// latest is the last version that has the operation.
func (l identityLine) latest() string {
	if strings.HasSuffix(l.since, "-preview") {
		return l.since
	}
	return "2026-09-23"
}

// Which version has which operation.
func TestIdentityVersions(t *testing.T) {
	s := startIdentity(t, nil)
	for _, tt := range identityLines {
		for _, version := range []string{"2021-03-07", "2022-06-01", "2022-10-01", "2023-10-01", "2025-03-02-preview", "2025-06-30", "2026-07-22", "2026-09-23"} {
			r := s.do(tt.line+"?api-version="+version, "")
			unsupported := r.status == 400 && strings.Contains(r.body, "UnsupportedApiVersion")
			if unsupported != (version < tt.since || strings.Contains(tt.since, "preview") && version > tt.since) {
				t.Errorf("%s of %s: %d %s", tt.line, version, r.status, r.body)
			}
			if unsupported {
				if f := r.failure(t); !strings.Contains(f.Message, "expected one of "+tt.since) || f.Target != "api-version" {
					t.Errorf("%s of %s: %+v", tt.line, version, f)
				}
			}
		}
		if r := s.do(tt.line+"?API-Version="+strings.Replace(tt.latest(), "-", "%2D", 1)+"&other=%20", ""); strings.Contains(r.body, "rest.api-version") {
			t.Errorf("%s: %s", tt.line, r.body)
		}
	}
}

// A version that nobody knows is refused by every operation, which says those that it has.
func TestIdentityUnknownVersion(t *testing.T) {
	s := startIdentity(t, nil)
	for _, tt := range identityLines {
		for query, says := range map[string]string{
			"?api-version=2021-10-31-preview": `The api-version "2021-10-31-preview" is not supported: expected one of ` + tt.since,
			"?api-version=2099-01-01":         `The api-version "2099-01-01" is not supported: expected one of ` + tt.since,
			"?api-version=2026-09-23x":        `The api-version "2026-09-23x" is not supported: expected one of ` + tt.since,
			"?api-version=":                   tt.since,
			"?":                               "The api-version is missing: expected one of " + tt.since,
			"?version=2026-09-23":             "The api-version is missing: expected one of " + tt.since,
			"?api-version=2026-09-23&api-version=2026-09-23": "api-version",
		} {
			f := s.must(400, nil, tt.line+query, "").failure(t)
			if f.Code != "UnsupportedApiVersion" || f.Target != "api-version" || f.Inner.Code != "rest.api-version" || !strings.Contains(f.Message, says) {
				t.Errorf("%s%s: %+v", tt.line, query, f)
			}
		}
	}
}

// An id in a path may have its colons escaped or not, and is decoded once.
func TestIdentityIDsInPaths(t *testing.T) {
	s := startIdentity(t, nil)
	for _, tt := range []struct{ segment, id string }{
		{"8:acs:resource_%d", "8:acs:resource_%d"},
		{"8%%3Aacs%%3Aresource_%d", "8:acs:resource_%d"},
		{"8%%3aacs:resource%%5F%d", "8:acs:resource_%d"},
	} {
		s.create()
		n := s.users.created
		segment := fmt.Sprintf(tt.segment, n)
		var got token
		s.must(200, &got, "POST /identities/"+segment+"/:issueAccessToken", `{"scopes":["chat"]}`)
		if proof, _ := s.users.standing(t, got.Token); string(proof.id) != fmt.Sprintf(tt.id, n) {
			t.Errorf("%s is %s", segment, proof.id)
		}
		s.must(204, nil, "POST /identities/"+segment+"/%3ArevokeAccessTokens", "")
		s.must(204, nil, "DELETE /identities/"+segment, "")
	}
	for segment, id := range map[string]string{"a%2Fb": `"a/b"`, "a%2fb": `"a/b"`, "a%20b": `"a b"`, "..": `".."`, "a%252Fb": `"a%2Fb"`, ":issueAccessToken": `":issueAccessToken"`} {
		f := s.must(400, nil, "POST /identities/"+segment+"/:issueAccessToken", `{"scopes":["chat"]}`).failure(t)
		if f.Code != "ValidationError" || f.Target != "id" || f.Inner.Code != "user.id" || !strings.Contains(f.Message, id) {
			t.Errorf("%s: %+v", segment, f)
		}
	}
}

// What is wrong is named, in one order, and nothing happens.
func TestIdentityRefusals(t *testing.T) {
	const preview = "?api-version=2025-03-02-preview"
	long := strings.Repeat("x", 1025)
	assignment := "/access/teamsExtension/tenants/" + tenant + "/assignments/" + ann
	for _, tt := range []struct {
		line, body string
		headers    []string
		status     int
		code       string
		target     string
		rule       string
		message    string // a part of it
	}{
		{"GET /identities", "", nil, 405, "MethodNotAllowed", "", "rest.method", "POST"},
		{"GET /identities/8:acs:x" + preview, "", nil, 405, "MethodNotAllowed", "", "rest.method", "DELETE"},
		{"PATCH " + assignment, "", nil, 405, "MethodNotAllowed", "", "rest.method", "GET, PUT, DELETE"},
		{"POST /identities/8:acs:x/:other", "", nil, 404, "NotFound", "", "rest.path", "/identities/8:acs:x/:other"},
		{"POST /access/entra/:exchangeAccessToken", "", nil, 400, "UnsupportedApiVersion", "api-version", "rest.api-version", "does not have Entra_ExchangeToken: expected one of 2025-03-02-preview."},
		{"GET /access/entra/assignments" + preview, "", nil, 404, "NotFound", "", "rest.path", "identity API"},
		{"POST /identities//a/b/c/d/e/f/g", "", nil, 404, "NotFound", "", "rest.path", ""},
		{"POST /identities?api-version=2026-09-23&%zz", "", nil, 400, "ValidationError", "", "rest.query", "%zz"},
		{"DELETE /identities/", "", nil, 400, "ValidationError", "id", "rest.id", "1 to 1024 characters"},
		{"DELETE /identities/%20", "", nil, 400, "ValidationError", "id", "rest.id", "white space"},
		{"DELETE /identities/%ff", "", nil, 400, "ValidationError", "id", "rest.id", "UTF-8"},
		{"DELETE /identities/" + long, "", nil, 400, "ValidationError", "id", "rest.id", "1025 bytes"},
		{"GET /access/teamsExtension/tenants/t/assignments/" + ann, "", nil, 400, "ValidationError", "tenantId", "rest.tenantId", "UUID"},
		{"GET /access/teamsExtension/tenants/" + tenant + "/assignments/urn:uuid:" + ann, "", nil, 400, "ValidationError", "objectId", "rest.objectId", "UUID"},

		{"POST /identities", `{`, nil, 400, "ValidationError", "", "rest.json", "exactly one JSON value"},
		{"POST /identities", `{} {}`, nil, 400, "ValidationError", "", "rest.json", "exactly one JSON value"},
		{"POST /identities", `{},`, nil, 400, "ValidationError", "", "rest.json", "exactly one JSON value"},
		{"POST /identities", `{"a":1,}`, nil, 400, "ValidationError", "", "rest.json", "exactly one JSON value"},
		{"POST /identities", `[]`, nil, 400, "ValidationError", "", "rest.json", "an array, expected a JSON object"},
		{"POST /identities", ` "x"`, nil, 400, "ValidationError", "", "rest.json", "a string"},
		{"POST /identities", `null`, nil, 400, "ValidationError", "", "rest.json", "null"},
		{"POST /identities", `-7`, nil, 400, "ValidationError", "", "rest.json", "-7"},
		{"POST /identities", `{"createTokenWithScopes":["chat"],"expiresInMinutes":60,"createTokenWithScopes":[]}`, nil, 400, "ValidationError",
			"createTokenWithScopes", "rest.createTokenWithScopes", "comes twice"},
		{"POST /identities", `{"a b":1,"a b":1}`, nil, 400, "ValidationError", "", "rest.json", `"a b" comes twice`},
		{"POST /identities", "{\"a\":\"\xff\"}", nil, 400, "ValidationError", "", "rest.charset", "UTF-8"},
		{"POST /identities", "{\"a\":\"\xff\"}", []string{"Content-Type: "}, 400, "ValidationError", "", "rest.charset", "UTF-8"},
		{"POST /identities", `{}`, []string{"Content-Type: text/plain"}, 415, "UnsupportedMediaType", "", "rest.contentType", "application/json"},
		{"POST /identities", `{}`, []string{"Content-Type: ;"}, 415, "UnsupportedMediaType", "", "rest.contentType", ""},
		{"POST /identities", `{"a":"` + strings.Repeat("x", 64<<10) + `"}`, nil, 413, "RequestTooLarge", "", "rest.bodyBytes", "65536"},

		{"POST /teamsUser/:exchangeAccessToken", "", nil, 400, "ValidationError", "token", "rest.token", "missing"},
		{"POST /teamsUser/:exchangeAccessToken", `{"token":"ann"}`, nil, 400, "ValidationError", "appId", "rest.appId", "missing"},
		{"POST /teamsUser/:exchangeAccessToken", `{"token":"ann","appId":"` + app + `","userId":null}`, nil, 400, "ValidationError", "userId", "rest.userId", "missing"},
		{"POST /teamsUser/:exchangeAccessToken", `{"token":7}`, nil, 400, "ValidationError", "token", "rest.token", "is 7, expected a string"},
		{"POST /access/teamsExtension/:exchangeAccessToken", `[]`, []string{"Authorization: Bearer ann"}, 400, "ValidationError", "", "rest.json", "an array"},

		{"PUT " + assignment, "", nil, 400, "ValidationError", "principalType", "rest.principalType", "user or resourceAccount"},
		{"PUT " + assignment, `{"principalType":"group"}`, nil, 400, "ValidationError", "principalType", "rest.principalType", `"group"`},
		{"PUT " + assignment, `{"principalType":"user","clientIds":["x"]}`, nil, 400, "ValidationError", "clientIds", "rest.clientIds", "UUID"},
		{"PUT " + assignment, `{"principalType":"user","clientIds":"` + app + `"}`, nil, 400, "ValidationError", "clientIds", "rest.clientIds", "an array of strings"},
		{"PUT " + assignment, `{"principalType":"user","clientIds":["` + app + strings.Repeat(`","`+app, 250) + `"]}`, nil, 400, "ValidationError", "clientIds", "rest.clientIds", "at most 250"},
		{"GET " + assignment, "", nil, 404, "AssignmentNotFound", "", "assignment.unknown", ""},
		{"DELETE " + assignment, "", nil, 404, "AssignmentNotFound", "", "assignment.unknown", ""},

		// The first thing wrong is what is told.
		{"GET /identities/x/y?api-version=x", "[", []string{"Authorization: "}, 404, "NotFound", "", "rest.path", ""},
		{"GET /identities?api-version=x", "[", []string{"Authorization: "}, 405, "MethodNotAllowed", "", "rest.method", ""},
		{"DELETE /identities/%20?api-version=x", "[", []string{"Authorization: "}, 400, "UnsupportedApiVersion", "api-version", "rest.api-version", ""},
		{"DELETE /identities/%20", "[", []string{"Authorization: "}, 400, "ValidationError", "id", "rest.id", ""},
		{"POST /identities", "[", []string{"Authorization: "}, 401, "Denied", "", "token.missing", ""},
		{"POST /identities", "[", []string{"Authorization: Bearer reader"}, 403, "Forbidden", "", "role", ""},
		{"POST /identities", "[", nil, 400, "ValidationError", "", "rest.json", ""},
	} {
		name := tt.line + " " + tt.body
		if len(name) > 100 {
			name = name[:100]
		}
		t.Run(name, func(t *testing.T) {
			s := startIdentity(t, nil)
			r := s.do(tt.line, tt.body, tt.headers...)
			f := r.failure(t)
			if r.status != tt.status || f.Code != tt.code || f.Target != tt.target || f.Inner.Code != tt.rule || !strings.Contains(f.Message, tt.message) {
				t.Errorf("got %d %+v %+v", r.status, f, *f.Inner)
			}
			if tt.status == 405 && tt.message != "" && r.header.Get("Allow") != tt.message {
				t.Errorf("Allow is %q", r.header.Get("Allow"))
			}
			if s.users.created != 0 || len(s.users.assignments) != 0 {
				t.Error("a refused request changed something")
			}
		})
	}
}

func TestIdentityCredentials(t *testing.T) {
	assignment := "/access/teamsExtension/tenants/" + tenant + "/assignments/" + ann
	for _, tt := range []struct {
		bearer, line, body string
		status             int
	}{
		{"nobody", "POST /identities", "", 401},
		{"nobody", "DELETE /identities/8:acs:resource_1", "", 401},
		{"nobody", "GET " + assignment, "", 401},
		{"reader", "POST /identities", "", 403},
		{"reader", "DELETE /identities/8:acs:resource_1", "", 403},
		{"reader", "POST /identities/8:acs:resource_1/:issueAccessToken", `{"scopes":["chat"]}`, 403},
		{"reader", "POST /identities/8:acs:resource_1/:revokeAccessTokens", "", 403},
		{"reader", "POST /teamsUser/:exchangeAccessToken", `{"token":"ann","appId":"` + app + `","userId":"` + ann + `"}`, 403},
		{"reader", "PUT " + assignment, `{"principalType":"user"}`, 403},
		{"reader", "DELETE " + assignment, "", 403},
		{"reader", "GET " + assignment, "", 200},
		{"writer", "GET " + assignment, "", 403},
		{"writer", "POST /identities/8:acs:resource_1/:issueAccessToken", `{"scopes":["chat"]}`, 403},
		{"writer", "POST /identities", "", 201},
		{"writer", "POST /identities", `{"createTokenWithScopes":[]}`, 201},
		{"writer", "POST /identities", `{"createTokenWithScopes":["chat"]}`, 403}, // writing alone makes no tokens
		{"writer", "DELETE /identities/8:acs:resource_1", "", 204},
		{"hash", "POST /identities", `{"createTokenWithScopes":["chat"]}`, 201},
	} {
		s := startIdentity(t, nil)
		s.create()
		s.must(201, nil, "PUT "+assignment, `{"principalType":"user"}`)
		users := s.users.created
		s.bearer = tt.bearer
		r := s.do(tt.line, tt.body)
		if r.status != tt.status {
			t.Errorf("%s as %s: %d, want %d", tt.line, tt.bearer, r.status, tt.status)
		}
		switch r.status {
		case 401:
			// As authn.Guard has it.
			want := `{"error":{"code":"Denied","message":"Denied by the resource provider.","innererror":{"code":"token.missing","message":"No token was sent."}}}`
			if r.body != want {
				t.Errorf("the body is %s", r.body)
			}
			if got := r.header["Www-Authenticate"]; !slices.Equal(got, []string{`Bearer error="invalid_token", error_description="token.missing: No token was sent."`, "HMAC-SHA256"}) {
				t.Errorf("WWW-Authenticate is %q", got)
			}
		case 403:
			if f := r.failure(t); f.Code != "Forbidden" || f.Inner.Code != "role" || !strings.HasSuffix(f.Message, "may not.") {
				t.Errorf("got %+v", f)
			}
		}
		if r.status > 400 && (s.users.created != users || len(s.users.tokens) != 0 || len(s.users.assignments) != 1) {
			t.Errorf("%s as %s changed something", tt.line, tt.bearer)
		}
	}
}

// An authorizer sees the request as it was sent, and may ask for the body's hash.
func TestIdentityAuthorizerSeesTheRequest(t *testing.T) {
	s := startIdentity(t, &rest.IdentityOptions{Origin: func(*http.Request) (string, string) { return "https", "rt.example:8443" }})
	s.bearer = "hash"
	s.create()
	const target = "/identities/8%3Aacs%3Aresource_1/:issueAccessToken?api-version=2023-10-01"
	const body = `{"scopes":["chat"]}`
	s.must(200, nil, "POST "+target, body)
	got := s.auth.seen
	want := sha256.Sum256([]byte(body))
	if sum, err := got.BodyHash(); err != nil || string(sum) != string(want[:]) ||
		got.Method != "POST" || got.Scheme != "https" || got.Host != "rt.example:8443" || got.Target != target {
		t.Errorf("it saw %+v, %x, %v", got, sum, err)
	}
}

func TestTeamsUserExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := entra{
			"ann":      entraUser(time.Hour, "Teams.ManageCalls", "Teams.ManageChats", "User.Read"),
			"calls":    entraUser(5*time.Minute, "Teams.ManageCalls"),
			"days":     entraUser(72*time.Hour, "Teams.ManageChats"),
			"reads":    entraUser(time.Hour, "User.Read"),
			"nothing":  entraUser(time.Hour),
			"late":     entraUser(59*time.Second, "Teams.ManageCalls"),
			"nowhere":  {Expires: time.Now().Add(time.Hour), Claims: map[string][]string{"oid": {ann}, "appid": {app}, "scp": {"Teams.ManageCalls"}}},
			"anything": {Expires: time.Now().Add(time.Hour), Claims: map[string][]string{"oid": {"../x"}, "tid": {tenant}, "appid": {app}, "scp": {"Teams.ManageCalls"}}},
		}
		s := startIdentity(t, &rest.IdentityOptions{EntraUsers: p})
		line := "POST /teamsUser/:exchangeAccessToken?api-version=2022-06-01"
		body := func(token, app, user string) string {
			return fmt.Sprintf(`{"token":%q,"appId":%q,"userId":%q}`, token, app, user)
		}
		for shown, want := range map[string]struct {
			scopes   []string
			lifetime time.Duration
		}{
			"ann":   {[]string{"chat", "voip"}, time.Hour},
			"calls": {[]string{"voip"}, 5 * time.Minute},
			"days":  {[]string{"chat"}, 24 * time.Hour},
		} {
			var got token
			r := s.must(200, &got, line, body(shown, strings.ToUpper(app), ann))
			proof, ok := s.users.standing(t, got.Token)
			if !ok || !slices.Equal(proof.scopes, want.scopes) || proof.lifetime != want.lifetime || proof.id != s.users.names["entra/"+tenant+"/"+ann] {
				t.Errorf("%s is exchanged for %+v", shown, proof)
			}
			if end := time.Now().Add(want.lifetime).UTC().Format("2006-01-02T15:04:05.0000000") + "+00:00"; got.ExpiresOn != end || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %s, want %s; %v", shown, got.ExpiresOn, end, r.header)
			}
		}
		if s.users.created != 1 {
			t.Errorf("Ann is %d users", s.users.created)
		}
		for _, tt := range []struct {
			body                 string
			status               int
			code, rule, target   string
			message, explanation string
		}{
			{body("forged", app, ann), 401, "InvalidAccessToken", "entra.malformed", "token", "Provided access token is not valid.", "This is no token."},
			{body("", app, ann), 401, "InvalidAccessToken", "entra.malformed", "token", "Provided access token is not valid.", ""},
			{body("late", app, ann), 401, "InvalidAccessToken", "rest.userToken", "token", "Provided access token is not valid.", "a minute"},
			{body("nowhere", app, ann), 401, "InvalidAccessToken", "rest.userToken", "token", "Provided access token is not valid.", `tid ""`},
			{body("anything", app, ann), 401, "InvalidAccessToken", "rest.userToken", "token", "Provided access token is not valid.", `oid "../x"`},
			{body("ann", ann, ann), 400, "ValidationError", "rest.appId", "appId", "expected the token's appid, " + app, ""},
			{body("ann", "", ann), 400, "ValidationError", "rest.appId", "appId", "", ""},
			{body("ann", app, app), 400, "ValidationError", "rest.userId", "userId", "expected the token's oid, " + ann, ""},
			{body("reads", app, ann), 403, "Forbidden", "rest.entraScopes", "", "Teams.ManageCalls", "User.Read"},
			{body("nothing", app, ann), 403, "Forbidden", "rest.entraScopes", "", "Teams.ManageChats", ""},
		} {
			r := s.must(tt.status, nil, line, tt.body)
			f := r.failure(t)
			if f.Code != tt.code || f.Inner.Code != tt.rule || f.Target != tt.target || !strings.Contains(f.Message, tt.message) || !strings.Contains(f.Inner.Message, tt.explanation) {
				t.Errorf("%s: %+v %+v", tt.body, f, *f.Inner)
			}
			if tt.status == 401 && r.header.Get("WWW-Authenticate") == "" {
				t.Error("401 names no scheme")
			}
		}
		if len(s.users.tokens) != 3 || s.users.created != 1 {
			t.Errorf("%d tokens, %d users", len(s.users.tokens), s.users.created)
		}
	})
}

// A user exchanges its own token where an assignment lets it.
func TestUsersExchangeTheirTokens(t *testing.T) {
	for _, tt := range []struct {
		line, others string   // and a scope of the other exchange
		asked, want  []string // scopes
	}{
		{"POST /access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30", "VoIP", []string{"TeamsExtension.ManageCalls"}, []string{"voip"}},
		{"POST /access/entra/:exchangeAccessToken?api-version=2025-03-02-preview", "Teams.ManageChats", []string{"VoIP"}, []string{"voip"}},
		{
			"POST /access/entra/:exchangeAccessToken?api-version=2025-03-02-preview", "TeamsExtension.ManageCalls",
			[]string{"User.Read", "Chat", "Chat.Join", "Chat.Join.Limited", "VoIP", "VoIP.Join"}, []string{"chat", "chat.join", "chat.join.limited", "voip", "voip.join"},
		},
	} {
		t.Run(strings.Join(tt.asked, " "), func(t *testing.T) { testExchange(t, tt.line, tt.others, tt.asked, tt.want) })
	}
}

func testExchange(t *testing.T, line, others string, asked, want []string) {
	synctest.Test(t, func(t *testing.T) {
		p := entra{
			"ann":   entraUser(time.Hour, asked...),
			"other": entraUser(time.Hour, asked...),
			"reads": entraUser(time.Hour, "User.Read", others),
		}
		p["other"].Claims["appid"] = []string{ann}
		s := startIdentity(t, &rest.IdentityOptions{EntraUsers: p})
		put := func(body string) {
			t.Helper()
			if r := s.do("PUT /access/teamsExtension/tenants/"+strings.ToUpper(tenant)+"/assignments/"+strings.ToUpper(ann), body); r.status > 201 {
				t.Fatalf("%d %s", r.status, r.body)
			}
		}
		refused := func(bearer, rule string, status int) {
			t.Helper()
			r := s.must(status, nil, line, "{}", "Authorization: "+bearer)
			if f := r.failure(t); f.Inner.Code != rule {
				t.Errorf("%s: %+v %+v", bearer, f, *f.Inner)
			}
			if got := r.header["Www-Authenticate"]; status == 401 && (len(got) != 1 || !strings.HasPrefix(got[0], "Bearer ")) {
				t.Errorf("WWW-Authenticate is %q", got)
			}
		}
		refused("", "rest.userToken", 401)
		refused("HMAC-SHA256 SignedHeaders=x&Signature=x", "rest.userToken", 401)
		refused("Bearer owner", "entra.malformed", 401) // a server is no user
		refused("Bearer", "entra.malformed", 401)
		refused("Bearer ann", "rest.assignment", 403)
		put(`{"principalType":"user"}`)
		refused("Bearer ann", "rest.assignment", 403) // no application is named
		put(`{"principalType":"user","clientIds":["` + tenant + `","` + strings.ToUpper(app) + `"]}`)
		refused("Bearer other", "rest.assignment", 403)
		refused("Bearer reads", "rest.entraScopes", 403)

		twice := s.must(401, nil, line, "{}", "Authorization: Bearer ann", "Authorization: Bearer other").failure(t)
		if twice.Inner.Code != "rest.userToken" || !strings.Contains(twice.Inner.Message, "2 Authorization headers") {
			t.Errorf("two tokens: %+v", *twice.Inner)
		}

		var c created
		for _, body := range []string{"", "{}", `{"anything":["at all"]}`} {
			s.must(200, &c, line, body, "Authorization: bearer ann")
			proof, ok := s.users.standing(t, c.AccessToken.Token)
			if !ok || string(proof.id) != c.Identity.ID || proof.id != s.users.names["entra/"+tenant+"/"+ann] ||
				!slices.Equal(proof.scopes, want) || proof.lifetime != time.Hour {
				t.Errorf("%q: %+v %+v", body, c, proof)
			}
		}
		s.must(204, nil, "DELETE /access/teamsExtension/tenants/"+tenant+"/assignments/"+ann, "")
		refused("Bearer ann", "rest.assignment", 403)
		s.users.down = engine.Errorf(engine.CodeUnavailable, "user.store", "Not at present.")
		refused("Bearer ann", "user.store", 503)
	})
}

// Without somebody to prove users of Entra ID, their tokens cannot be exchanged.
func TestExchangeWithoutEntra(t *testing.T) {
	h := rest.NewIdentityHandler(newUsers(), &authorizer{}, nil)
	for target, body := range map[string]string{
		"/teamsUser/:exchangeAccessToken?api-version=2026-09-23":             `{"token":"ann","appId":"` + app + `","userId":"` + ann + `"}`,
		"/access/teamsExtension/:exchangeAccessToken?api-version=2026-09-23": "{}",
		"/access/entra/:exchangeAccessToken?api-version=2025-03-02-preview":  "{}",
	} {
		r := httptest.NewRequest("POST", target, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer owner")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		f := reply{w.Code, w.Header(), w.Body.String()}.failure(t)
		if w.Code != 501 || f.Code != "NotImplemented" || f.Inner.Code != "rest.entraUsers" || !strings.Contains(f.Message, "tenant") {
			t.Errorf("%s: %d %+v", target, w.Code, f)
		}
	}
}

func TestAssignments(t *testing.T) {
	s := startIdentity(t, nil)
	line := " /access/teamsExtension/tenants/" + strings.ToUpper(tenant) + "/assignments/" + ann
	want := func(r reply, kind, clients string) {
		t.Helper()
		if r.body != `{"objectId":"`+ann+`","tenantId":"`+tenant+`","principalType":"`+kind+`","clientIds":`+clients+`}` {
			t.Errorf("got %s", r.body)
		}
	}
	want(s.must(201, nil, "PUT"+line, `{"principalType":"user","clientIds":["`+strings.ToUpper(app)+`","`+app+`"]}`), "user", `["`+app+`"]`)
	want(s.must(200, nil, "GET"+line, ""), "user", `["`+app+`"]`)
	want(s.must(200, nil, "PUT"+line, `{"principalType":"resourceAccount"}`), "resourceAccount", "[]")
	want(s.must(200, nil, "PUT"+line, `{"principalType":"teamsResourceAccount","clientIds":[]}`), "resourceAccount", "[]")
	want(s.must(200, nil, "GET"+line, ""), "resourceAccount", "[]")
	if r := s.must(204, nil, "DELETE"+line, ""); r.body != "" {
		t.Errorf("204 has the body %q", r.body)
	}
	s.must(404, nil, "GET"+line, "")
	s.must(201, nil, "PUT"+line, `{"principalType":"user"}`)
}

// Where the users cannot be asked, callers are told to try again.
func TestIdentityStoreOutage(t *testing.T) {
	assignment := "/access/teamsExtension/tenants/" + tenant + "/assignments/" + ann
	s := startIdentity(t, nil)
	for _, tt := range []struct {
		down   error
		status int
		code   string
		rule   string
	}{
		{engine.Errorf(engine.CodeUnavailable, "user.store", "The users cannot be reached."), 503, "ServiceUnavailable", "user.store"},
		{engine.Errorf(engine.CodeTimeout, "user.store", "It takes too long."), 503, "ServiceUnavailable", "user.store"},
		{errors.New("a secret"), 500, "InternalServerError", "rest.internal"},
	} {
		s.users.down = tt.down
		for line, body := range map[string]string{
			"POST /identities": `{"createTokenWithScopes":["chat"]}`,
			"POST /identities?api-version=2025-03-02-preview": `{"customId":"x"}`,
			"POST /identities/8:acs:x/:issueAccessToken":      `{"scopes":["chat"]}`,
			"POST /identities/8:acs:x/:revokeAccessTokens":    "",
			"DELETE /identities/8:acs:x":                      "",
			"POST /teamsUser/:exchangeAccessToken":            `{"token":"ann","appId":"` + app + `","userId":"` + ann + `"}`,
			"GET " + assignment:                               "",
			"PUT " + assignment:                               `{"principalType":"user"}`,
			"DELETE " + assignment:                            "",
		} {
			r := s.must(tt.status, nil, line, body)
			if f := r.failure(t); f.Code != tt.code || f.Inner.Code != tt.rule || strings.Contains(r.body, "secret") {
				t.Errorf("%s: %s", line, r.body)
			}
			if retry := r.header.Get("Retry-After"); (retry == "1") != (tt.status == 503) {
				t.Errorf("%s: Retry-After is %q", line, retry)
			}
		}
	}
}

// What is nobody's here, or published by another handler, goes to the fallback.
func TestIdentityFallback(t *testing.T) {
	s := startIdentity(t, &rest.IdentityOptions{Fallback: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) })})
	plain := startIdentity(t, nil)
	for path, ours := range map[string]bool{
		"/identities": true, "/identities/": true, "/identities/x/y/z": true, "/teamsUser/x": true, "/access/teamsExtension/x": true, "/access/entra/assignments": true,
		"/": false, "/identitiesx": false, "/teamsUser": false, "/access/": false, "/access/card": false, "/api/hubs/chat/:send": false,
		"/identities/.well-known/jwks.json": false, "/identities/.well-known/openid-configuration": false, "/identities/.well-known": true,
	} {
		for h, nobody := range map[http.Handler]int{s.handler: 418, plain.handler: 404} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code == 200 || (w.Header().Get("Api-Supported-Versions") != "") != ours || !ours && w.Code != nobody {
				t.Errorf("%s: %d, ours %v", path, w.Code, ours)
			}
		}
	}
}

// A caller who asks for it is told which request is answered, of refusals too.
func TestIdentityRequestID(t *testing.T) {
	s := startIdentity(t, nil)
	const id = "X-Ms-Client-Request-Id: 00000000-0000-4000-8000-000000000000"
	for _, tt := range []struct {
		headers []string
		want    string
	}{
		{[]string{id, "X-Ms-Return-Client-Request-Id: true"}, "00000000-0000-4000-8000-000000000000"},
		{[]string{id, "X-Ms-Return-Client-Request-Id: True"}, "00000000-0000-4000-8000-000000000000"},
		{[]string{id, "X-Ms-Return-Client-Request-Id: false"}, ""},
		{[]string{id}, ""},
		{[]string{"X-Ms-Return-Client-Request-Id: true"}, ""},
		{[]string{"X-Ms-Client-Request-Id: a\x01", "X-Ms-Return-Client-Request-Id: true"}, ""},
		{[]string{"X-Ms-Client-Request-Id: " + strings.Repeat("x", 129), "X-Ms-Return-Client-Request-Id: true"}, ""},
	} {
		for _, line := range []string{"POST /identities", "GET /identities/none/of/these"} {
			if got := s.do(line, "", tt.headers...).header.Get("X-Ms-Client-Request-Id"); got != tt.want {
				t.Errorf("%q: %q, want %q", tt.headers, got, tt.want)
			}
		}
	}
}

func TestIdentityObserver(t *testing.T) {
	var replies, refusals []string
	var log bytes.Buffer
	s := startIdentity(t, &rest.IdentityOptions{
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Observer: rest.Observer{
			Replied: func(op string, status int, _ time.Duration) { replies = append(replies, fmt.Sprint(op, " ", status)) },
			Refused: func(op, rule string) { refusals = append(refusals, op+" "+rule) },
		},
		MaxBody: 20,
	})
	s.create()
	s.must(413, nil, "POST /identities", strings.Repeat(" ", 21))
	s.do("GET /identities/none/of/these", "")
	s.do("PUT /access/teamsExtension/tenants/"+tenant+"/assignments/"+ann, "")
	s.do("POST /teamsUser/:exchangeAccessToken", `{"token":"SECRET"`)
	s.must(401, nil, "POST /access/teamsExtension/:exchangeAccessToken", "", "Authorization: Bearer SECRET")
	s.bearer = "SECRET"
	s.do("DELETE /identities/x", "")
	if want := []string{"Identity_Create 201", "Identity_Create 413", " 404", "TeamsExtension_UpsertAssignment 400", "TeamsUser_ExchangeTeamsUserAccessToken 400",
		"TeamsExtension_ExchangeToken 401", "Identity_Delete 401"}; !slices.Equal(replies, want) {
		t.Errorf("replies %q, want %q", replies, want)
	}
	if want := []string{"TeamsExtension_ExchangeToken entra.malformed", "Identity_Delete token.missing"}; !slices.Equal(refusals, want) {
		t.Errorf("refusals %q, want %q", refusals, want)
	}
	if text := log.String(); strings.Count(text, "\n") != 5 || strings.Contains(text, "SECRET") || !strings.Contains(text, "operation=Identity_Delete") { // a 404 is for those who look closely
		t.Errorf("the log is\n%s", text)
	}
}

// A caller who did not wait is noted as such.
func TestIdentityCallerIsGone(t *testing.T) {
	var status int
	s := startIdentity(t, &rest.IdentityOptions{Observer: rest.Observer{Replied: func(_ string, st int, _ time.Duration) { status = st }}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.users.down = &engine.Error{Code: engine.CodeUnavailable, Rule: "user.store", Err: ctx.Err()}
	r := httptest.NewRequest("POST", "/identities?api-version=2026-09-23", nil).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer owner")
	s.handler.ServeHTTP(httptest.NewRecorder(), r)
	if status != 499 {
		t.Errorf("the status is %d", status)
	}
}

// FuzzIdentityRequest sends what a stranger and a server may send: every answer is one of
// ours, and no refusal changes anything.
func FuzzIdentityRequest(f *testing.F) {
	f.Add("POST", "/identities?api-version=2023-10-01", "application/json", `{"createTokenWithScopes":["chat"],"expiresInMinutes":60}`, "owner")
	f.Add("POST", "/identities/8%3Aacs%3Aresource_1/:issueAccessToken?api-version=2026-09-23", "application/json; charset=utf-16", "{\x00}\x00", "owner")
	f.Add("POST", "/identities?api-version=2025-03-02-preview", "", `{"customId":"x","customId":null}`, "owner")
	f.Add("PUT", "/access/teamsExtension/tenants/"+tenant+"/assignments/"+ann+"?api-version=2025-06-30", "application/json", `{"principalType":"user","clientIds":["`+app+`"]}`, "owner")
	f.Add("POST", "/teamsUser/:exchangeAccessToken?api-version=2022-06-01", "application/json", `{"token":"ann","appId":"`+app+`","userId":"`+ann+`"}`, "owner")
	f.Add("POST", "/access/teamsExtension/:exchangeAccessToken?api-version=2026-09-23", "application/json", `{"a":1e999}`, "ann")
	f.Add("DELETE", "/identities/%2F?api-version=2021-03-07", "", "", "reader")
	none := rest.IdentityLimits{Create: -1, CreateWithToken: -1, Issue: -1, Delete: -1, Revoke: -1, Exchange: -1, Assign: -1}
	f.Fuzz(func(t *testing.T, method, target, contentType, body, bearer string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		s := startIdentity(t, &rest.IdentityOptions{Limits: none})
		s.create()
		s.users.assignments[tenant+"/"+ann] = assigned{"user", []string{app}}
		r := httptest.NewRequest("GET", "/", strings.NewReader(body))
		r.Method, r.URL, r.RequestURI = method, u, target
		r.Header["Content-Type"] = []string{contentType}
		r.Header["Authorization"] = []string{"Bearer " + bearer}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Header().Get("Api-Supported-Versions") == "" {
			return // the fallback's
		}
		switch {
		case w.Code >= 500:
			t.Errorf("%s %q: %d %s", method, target, w.Code, w.Body)
		case w.Code >= 400 && method != "HEAD":
			reply{w.Code, w.Header(), w.Body.String()}.failure(t)
			if s.users.created != 1 || len(s.users.tokens) != 0 || len(s.users.generations) != 1 || len(s.users.assignments) != 1 {
				t.Errorf("%s %q: %d, but something changed", method, target, w.Code)
			}
		}
	})
}

func ExampleNewIdentityHandler() {
	h := rest.NewIdentityHandler(newUsers(), &authorizer{}, &rest.IdentityOptions{Fallback: http.NotFoundHandler()})
	r := httptest.NewRequest("POST", "/identities?api-version=2023-10-01", http.NoBody)
	r.Header.Set("Authorization", "Bearer owner")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output: 201 {"identity":{"id":"8:acs:resource_1"}}
}
