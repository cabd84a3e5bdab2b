package rest_test

import (
	"strings"
	"testing"

	"github.com/fanfare/fanfare/transport/rest"
)

// UTF-8 under another of its names is not mended either.
func TestCharsets(t *testing.T) {
	s := start(t, nil)
	for _, tt := range []struct {
		charset, body string
		status        int
	}{
		{"utf8", "\xff", 400}, {"unicode-1-1-utf-8", "a\xc3", 400}, {"\"UTF-8\"", "\xff", 400}, {"utf8", "ä", 202},
	} {
		if r := s.do("POST /api/hubs/chat/:send", tt.body, "Content-Type: text/plain; charset="+tt.charset); r.status != tt.status {
			t.Errorf("%s %q: %d, want %d", tt.charset, tt.body, r.status, tt.status)
		}
	}
}

// A message may be no longer than the limit after it was turned into UTF-8, too.
func TestTranscodedBodiesAreBounded(t *testing.T) {
	s := start(t, &rest.Options{MaxBody: 100})
	for body, want := range map[string]int{strings.Repeat("\x80", 33): 202, strings.Repeat("\x80", 34): 400} {
		if r := s.do("POST /api/hubs/chat/:send", body, "Content-Type: text/plain; charset=windows-1252"); r.status != want {
			t.Errorf("%d bytes: %d, want %d", len(body), r.status, want)
		}
	}
}

// Each link that is handed out can be followed.
func TestLinksCanBeFollowed(t *testing.T) {
	s := start(t, nil)
	s.connect("c1", "", "g")
	s.connect("c2", "", "g")
	r := s.do("GET http://h/api/hubs/chat/groups/g/connections?maxpagesize=%2B1", "")
	_, link, _ := strings.Cut(r.body, `"nextLink":"`)
	link, _, ok := strings.Cut(link, `"`)
	if !ok {
		if r.status != 400 {
			t.Errorf("%d %s", r.status, r.body)
		}
		return
	}
	if r := s.do("GET "+link, ""); r.status != 200 {
		t.Errorf("%s: %d %s", link, r.status, r.body)
	}
}

func TestBulkBodyOfAnotherShape(t *testing.T) {
	s := start(t, nil)
	r := s.do("POST /api/hubs/chat/:addToGroups", `["a"]`, "Content-Type: application/json")
	if _, message, _ := r.fields(t); strings.Contains(message, "  ") {
		t.Errorf("the message is %q", message)
	}
}
