package accesskey_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fanfare/fanfare/authn/accesskey"
)

//go:generate go test ../../cmd/fanfare/sdktest -count=1 -run TestIdentity -record ../../../authn/accesskey/testdata

// recording is a file of testdata: what an SDK of the identity service has signed, of
// each operation. "go generate ./authn/accesskey" has the SDKs sign again.
type recording struct {
	SDK      string
	Key      string
	Requests []struct {
		Method, Scheme, Host, Target, Body string
		Date, ContentHash, Authorization   string
	}
}

// What the SDKs have really signed is what the formula says of what they sent, and
// passes for as long as its date does. They differ in what they send: Java's client
// names a host without its port, and it and Python's asynchronous one leave the colons
// of an id as they are, which the others escape. The first versions sign the Date header
// and have no exchange of tokens; testdata/*-1.0.0.json is what they sent to a server of
// the test's own, once, from npm's and PyPI's packages.
func TestRecordedSDKs(t *testing.T) {
	for _, sdk := range []string{"javascript", "python", "java", "javascript-1.0.0", "python-1.0.0"} {
		text, err := os.ReadFile(filepath.Join("testdata", sdk+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var r recording
		if err := json.Unmarshal(text, &r); err != nil {
			t.Fatal(err)
		}
		s := accesskey.NewSigned(accesskey.NewRing(accesskey.Generate(), parseKey(t, r.Key)), nil)
		operations := map[string]bool{}
		for _, q := range r.Requests {
			date, err := time.Parse(http.TimeFormat, q.Date)
			if err != nil {
				t.Fatal(err)
			}
			sent := request{q.Method, q.Scheme, q.Host, q.Target, q.Body, map[string][]string{
				"X-Ms-Date": {q.Date}, "X-Ms-Content-Sha256": {q.ContentHash}, "Authorization": {q.Authorization},
			}}
			target := q.Target
			if sdk == "python-1.0.0" {
				target = strings.TrimPrefix(target, "/") // which it cuts off over http
			}
			want := signRequest(r.Key, q.Method, target, q.Host, q.Body, date)
			if strings.HasSuffix(sdk, "-1.0.0") {
				byDate(sent.header)
				byDate(want)
				sent.header["Authorization"] = []string{q.Authorization}
			}
			if !maps.EqualFunc(sent.header, want, slices.Equal) {
				t.Errorf("%s: %s %s is signed with %v; by the formula %v", r.SDK, q.Method, q.Target, sent.header, want)
			}
			path, _, _ := strings.Cut(q.Target, "?")
			operation := path[strings.LastIndexByte(path, '/')+1:]
			if strings.HasPrefix(operation, "8") {
				operation = q.Method // the user itself
			}
			operations[operation] = true

			authorize := func(sent request) string {
				if _, err := s.Authorize(ctx, sent.server()); err != nil {
					return ruleOf(err)
				}
				return ""
			}
			other, more := sent, sent
			other.target += "x"
			more.body += " "
			at(t, q.Date, func(t *testing.T) {
				time.Sleep(5 * time.Minute) // virtual
				for rule, sent := range map[string]request{"": sent, "signed.signature": other, "signed.body": more} {
					if got := authorize(sent); got != rule {
						t.Errorf("%s: %s %s: rule %q; want %q", r.SDK, sent.method, sent.target, got, rule)
					}
				}
				time.Sleep(time.Second)
				if got := authorize(sent); got != "signed.skew" {
					t.Errorf("%s: %s %s, late: rule %q", r.SDK, sent.method, sent.target, got)
				}
			})
		}
		all := []string{":exchangeAccessToken", ":issueAccessToken", ":revokeAccessTokens", "DELETE", "identities"}
		if strings.HasSuffix(sdk, "-1.0.0") {
			all = all[1:]
		}
		if got := slices.Sorted(maps.Keys(operations)); !slices.Equal(got, all) {
			t.Errorf("%s: the operations are %q", r.SDK, got)
		}
	}
}
