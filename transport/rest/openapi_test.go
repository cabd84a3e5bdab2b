package rest

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// The table of operations is what the service's OpenAPI description says:
// operations, query parameters, success statuses.
func TestOperationsAreThoseOfTheDescription(t *testing.T) {
	const path = "../../../shared/spec/openapi/webpubsub-2024-12-01.json"
	text, err := os.ReadFile(path)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("the OpenAPI description is not here: ", err)
	}
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
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
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

// Path segments are decoded once, but for %2F; nothing is cleaned.
func TestMatch(t *testing.T) {
	for _, tt := range []struct{ path, want string }{
		{"/api/hubs/chat/:send", "/api/hubs/{hub}/:send chat"},
		{"/api/hubs/chat/%3Asend", "/api/hubs/{hub}/:send chat"},
		{"/api/hubs/chat/groups/a%2Fb/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a%2Fb"},
		{"/api/hubs/chat/groups/a%2fb/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a%2fb"},
		{"/api/hubs/chat/groups/a%252Fb/:send", "/api/hubs/{hub}/groups/{group}/:send chat|a%2Fb"},
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

// No path, however it is escaped, breaks the matcher, and what is decoded holds
// no separator that was not one.
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
			if d, err := decodeSegment(v); err == nil && strings.Contains(d, "/") {
				t.Errorf("%q decodes to %q", v, d)
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
