package rest

import (
	"encoding/json"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readDescription reads one of the service's OpenAPI descriptions.
func readDescription(t *testing.T, name string, doc any) {
	t.Helper()
	text, err := os.ReadFile("../../../shared/spec/openapi/" + name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("the OpenAPI description is not here: ", err)
	}
	if err := json.Unmarshal(text, doc); err != nil {
		t.Fatal(err)
	}
}

// The table of operations is what the service's OpenAPI description says:
// operations, query parameters, success statuses.
func TestOperationsAreThoseOfTheDescription(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []struct {
				Name, In, CollectionFormat string
				Ref                        string `json:"$ref"`
			}
			Responses map[string]any
		}
		Parameters map[string]struct{ Name, In string }
	}
	readDescription(t, "webpubsub-2024-12-01.json", &doc)
	described := 0
	for path, methods := range doc.Paths {
		for method, d := range methods {
			described++
			i := slices.IndexFunc(operations, func(op operation) bool {
				return op.path == path && strings.EqualFold(op.method, method)
			})
			if i < 0 {
				t.Errorf("%s %s is missing", strings.ToUpper(method), path)
				continue
			}
			op := operations[i]
			if _, name, _ := strings.Cut(d.OperationID, "_"); name != op.name {
				t.Errorf("%s %s is called %s, not %s", op.method, path, op.name, name)
			}
			for status := range d.Responses {
				n := 0
				if status != "default" {
					if err := json.Unmarshal([]byte(status), &n); err != nil {
						t.Fatal(err)
					}
				}
				if n >= 200 && n < 300 && n != op.success {
					t.Errorf("%s: success is %d, described as %s", op.name, op.success, status)
				}
				if n == 404 && op.missing == "" {
					t.Errorf("%s has no error code for the 404 that is described", op.name)
				}
			}
			var want, got []string
			for _, p := range d.Parameters {
				if p.In == "query" && p.Name != "api-version" {
					if p.CollectionFormat == "multi" {
						p.Name += "*"
					}
					want = append(want, p.Name)
				}
			}
			for _, p := range op.params {
				name := p.name
				if p.many {
					name += "*"
				}
				got = append(got, name)
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s takes %q, described as %q", op.name, got, want)
			}
		}
	}
	if described != 25 || len(operations) != described {
		t.Errorf("%d operations are described, %d are here; both should be 25", described, len(operations))
	}
}

// So are the operations, scopes and bounds of the identity API.
func TestIdentityOperationsAreThoseOfTheDescription(t *testing.T) {
	type property struct{ Minimum, Maximum, Default int }
	var doc struct {
		Info  struct{ Version string }
		Paths map[string]map[string]struct {
			OperationID string
			Parameters  []struct{ Name, In string }
			Responses   map[string]any
		}
		Definitions map[string]struct {
			Enum       []string
			Properties map[string]property
		}
	}
	readDescription(t, "communication-identity.json", &doc)
	if latest := identityVersions[len(identityVersions)-1]; doc.Info.Version != latest {
		t.Errorf("the latest version is %s, described as %s", latest, doc.Info.Version)
	}
	described := 0
	for path, methods := range doc.Paths {
		for method, d := range methods {
			described++
			i := slices.IndexFunc(identityOperations, func(op identityOperation) bool {
				return op.path == path && strings.EqualFold(op.method, method)
			})
			if i < 0 {
				t.Errorf("%s %s is missing", strings.ToUpper(method), path)
				continue
			}
			op := identityOperations[i]
			if name := strings.Replace(d.OperationID, "Operations_", "_", 1); name != op.name {
				t.Errorf("%s %s is called %s, not %s", op.method, path, op.name, name)
			}
			if _, ok := d.Responses[strconv.Itoa(op.success)]; !ok {
				t.Errorf("%s: success is %d, described as %v", op.name, op.success, d.Responses)
			}
			var want []string
			for _, p := range d.Parameters {
				if p.In == "path" {
					want = append(want, p.Name)
				} else if p.In == "query" {
					t.Errorf("%s takes the query parameter %s", op.name, p.Name)
				}
			}
			rt, _, err := identityRoutes.match(path)
			if err != nil || !slices.Equal(rt.params, want) {
				t.Errorf("%s has the names %q, described as %q (%v)", op.name, rt.params, want, err)
			}
		}
	}
	// The description of the stable versions does not have what a preview brought.
	stable := slices.DeleteFunc(slices.Clone(identityOperations), func(op identityOperation) bool { return strings.HasSuffix(op.since, "-preview") })
	if described != 9 || len(stable) != described {
		t.Errorf("%d operations are described, %d are here; both should be 9", described, len(stable))
	}
	var scopes []string
	for _, s := range tokenScopes {
		scopes = append(scopes, s.name)
	}
	if want := doc.Definitions["CommunicationIdentityTokenScope"].Enum; !slices.Equal(scopes, want) {
		t.Errorf("the scopes are %q, described as %q", scopes, want)
	}
	for _, want := range doc.Definitions["TeamsExtensionPrincipalType"].Enum {
		if got := principalTypes[want]; got != want {
			t.Errorf("the type of principal %s is %q", want, got)
		}
	}
	for _, request := range []string{"CommunicationIdentityCreateRequest", "CommunicationIdentityAccessTokenRequest"} {
		if p := doc.Definitions[request].Properties["expiresInMinutes"]; p != (property{minLifetime, maxLifetime, maxLifetime}) {
			t.Errorf("a token's life in minutes is described as %+v", p)
		}
	}
}

// Path segments are decoded once; nothing is cleaned.
func TestMatch(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/api/hubs/chat/:send", "/api/hubs/{hub}/:send chat"},
		{"/api/hubs/chat/%3Asend", "/api/hubs/{hub}/:send chat"},
		{"/api/hubs/chat/groups/a%2Fb/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a/b"},
		{"/api/hubs/chat/groups/a%2fb/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a/b"},
		{"/api/hubs/chat/groups/a%2F%2Fb%2F/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a//b/"},
		{"/api/hubs/chat/groups/%2F:send", "/api/hubs/{hub}/groups/{group} chat|/:send"},
		{"/api/hubs/chat%2Fgroups%2Fa/:send", "/api/hubs/{hub}/:send chat/groups/a"},
		{"/api/hubs/chat/groups/a%2F:send", "/api/hubs/{hub}/groups/{group} chat|a/:send"},
		{"/api/hubs/chat/groups/a%252Fb/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a%2Fb"},
		{"/api/hubs/chat/groups/a%25252Fb/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a%252Fb"},
		{"/api/hubs/chat/groups/a%20b+c/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a b+c"},
		{"/api/hubs/chat/groups/../:send", "/api/hubs/{hub}/groups/{group}/:send chat|.."},
		{"/api/hubs/chat/groups/%2e/:send", "/api/hubs/{hub}/groups/{group}/:send chat|."},
		{"/api/hubs/chat/groups//:send", "/api/hubs/{hub}/groups/{group}/:send chat|"},
		{"/api/hubs/chat/groups/:send/:send", "/api/hubs/{hub}/groups/{group}/:send chat|:send"},
		{"/api/hubs/a%5B1%5D.b%60/:send", "/api/hubs/{hub}/:send a[1].b`"},
		{"/api/hubs/chat/groups/%zz/:send", "error"},
		{"/api/hubs/chat/groups/a%2/:send", "error"},
		{"/api/hubs/chat/groups/a/b/:send", "none"},
		{"/api/hubs/chat", "none"},
		{"/api/hubs/chat/:send/", "none"},
		{"/api/", "none"},
		{"/api", "none"},
		{"/api/hubs/chat/groups/a/connections/b/c/d/e/f/g", "none"},
	} {
		got := "none"
		if rt, values, err := routes.match(tt.path); err == nil {
			got = rt.ops[0].path + " "
			for i, v := range values {
				if i > 0 {
					got += "|"
				}
				d, err := decodeSegment(v)
				if err != nil {
					got = "error"
					break
				}
				got += d
			}
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.path, got, tt.want)
		}
	}
}

// No path, however it is escaped, breaks the matcher, and a name is what net/url makes
// of its segment.
func FuzzMatch(f *testing.F) {
	f.Add("/api/hubs/chat/groups/a%2Fb/connections/%252F")
	f.Add("/api/hubs/%/x")
	f.Fuzz(func(t *testing.T, path string) {
		if !strings.HasPrefix(path, "/") {
			return
		}
		_, values, err := routes.match(path)
		if err != nil {
			return
		}
		for _, v := range values {
			d, err := decodeSegment(v)
			if want, wrong := url.PathUnescape(v); (err == nil) != (wrong == nil) || err == nil && d != want {
				t.Errorf("%q decodes to %q, %v; want %q, %v", v, d, err, want, wrong)
			}
		}
	})
}

// A token opens only what it was sealed for.
func FuzzContinuationToken(f *testing.F) {
	p := pager{[]byte("key")}
	f.Add(p.seal("chat", "g", "c1"))
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		after, err := p.open(token, "chat", "g")
		if err == nil && p.seal("chat", "g", after) != token {
			t.Errorf("%q opens as %q, which seals differently", token, after)
		}
		if _, err := p.open(token, "chat", "h"); err == nil {
			t.Errorf("%q opens another group", token)
		}
	})
}
