package rest_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
)

func compressed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A body with a content coding is refused by each operation that reads one, and
// nobody receives it. The reply says what would pass (RFC 9110, section 15.5.16).
func TestContentCodingsAreRefused(t *testing.T) {
	s := start(t, nil)
	ann := s.connect("c1", "ann", "g")
	for _, coding := range []string{"gzip", "GZIP", "br", "deflate", "identity, gzip", "x", `"`} {
		for _, path := range []string{":send", "groups/g/:send", "users/ann/:send", "connections/c1/:send", ":addToGroups", ":removeFromGroups"} {
			for _, contentType := range []string{"text/plain", "application/json", "application/octet-stream", ""} {
				r := s.do("POST /api/hubs/chat/"+path, compressed(t, `{"groups":["g"]}`), "Content-Type: "+contentType, "Content-Encoding: "+coding)
				_, message, _ := r.fields(t)
				if r.status != 415 || r.header.Get("Accept-Encoding") != "identity" ||
					!strings.Contains(r.body, "rest.contentEncoding") || !strings.Contains(message, "expected") {
					t.Errorf("%s with %s: %d %v %s", path, coding, r.status, r.header, r.body)
				}
			}
		}
	}
	for _, coding := range []string{"identity", "Identity", "", " , "} {
		if r := s.do("POST /api/hubs/chat/:send", "plain", "Content-Type: text/plain", "Content-Encoding: "+coding); r.status != 202 {
			t.Errorf("%q: %d %s", coding, r.status, r.body)
		}
	}
	ann.expect("text plain", "text plain", "text plain", "text plain")
}

func TestIdentityContentCodingsAreRefused(t *testing.T) {
	s := startIdentity(t, nil)
	s.create()
	assignment := "/access/teamsExtension/tenants/" + tenant + "/assignments/" + ann + "?api-version=2025-06-30"
	for _, line := range []string{
		"POST /identities", "POST /identities/8:acs:resource_1/:issueAccessToken", "POST /teamsUser/:exchangeAccessToken", "PUT " + assignment,
	} {
		r := s.do(line, compressed(t, `{}`), "Content-Encoding: gzip")
		if r.status != 415 || r.header.Get("Accept-Encoding") != "identity" || !strings.Contains(r.body, "rest.contentEncoding") {
			t.Errorf("%s: %d %v %s", line, r.status, r.header, r.body)
		}
	}
}
