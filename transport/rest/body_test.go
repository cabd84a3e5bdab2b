package rest_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/engine"
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

// UTF-16 is read in the order that its mark says, and the mark is no text.
func TestUTF16(t *testing.T) {
	s := start(t, nil)
	c := s.connect("c1", "")
	for _, body := range []string{"h\x00i\x00", "\xff\xfeh\x00i\x00", "\xfe\xff\x00h\x00i"} {
		if r := s.do("POST /api/hubs/chat/:send", body, "Content-Type: text/plain; charset=UTF-16"); r.status != 202 {
			t.Errorf("%q: %d %s", body, r.status, r.body)
		}
	}
	c.expect("text hi", "text hi", "text hi")
}

// A name that is not UTF-8 is refused, not mended into another name.
func TestBulkBodiesAreNotMended(t *testing.T) {
	s := start(t, nil)
	s.connect("c1", "")
	for contentType, want := range map[string]int{"application/json": 400, "application/json; charset=klingon": 415} {
		if r := s.do("POST /api/hubs/chat/:addToGroups", "{\"groups\":[\"a\xff\"]}", "Content-Type: "+contentType); r.status != want {
			t.Errorf("%s: %d, want %d", contentType, r.status, want)
		}
	}
	if ok, _ := s.hub.GroupExists(t.Context(), "a\uFFFD"); ok {
		t.Error("the connection is in a group that nobody named")
	}
}

// A message that waits holds on to its bytes, and to no more.
func TestMessagesHoldNoSpareRoom(t *testing.T) {
	s := start(t, nil)
	sub, err := s.hub.Subscribe(t.Context(), &engine.SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	for _, size := range []int{128, 1 << 20} {
		for _, chunked := range []bool{false, true} {
			r := httptest.NewRequest("POST", "/api/hubs/chat/:send", strings.NewReader(strings.Repeat("x", size)))
			if chunked {
				r.ContentLength = -1
			}
			r.Header.Set("Authorization", "Bearer owner")
			w := httptest.NewRecorder()
			s.handler.ServeHTTP(w, r)
			m, err := sub.Receive(t.Context())
			for err == nil && m.Kind != engine.KindData {
				m, err = sub.Receive(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			if n, room := len(m.Payload.Data), cap(m.Payload.Data); n != size || room > n+n/8 {
				t.Errorf("%d bytes hold %d", n, room)
			}
		}
	}
}
