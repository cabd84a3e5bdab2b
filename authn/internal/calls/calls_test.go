package calls_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/authn/internal/calls"
)

// A body of up to the bound is read whole, a longer one fails, and nothing is
// followed.
func TestClient(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "/5", http.StatusFound)
			return
		}
		n, _ := strconv.Atoi(r.URL.Path[1:])
		io.WriteString(w, strings.Repeat("x", n))
	}))
	defer s.Close()
	c := calls.NewClient(calls.Options{MaxBody: 100_000})
	defer c.CloseIdleConnections()
	for path, want := range map[string]struct {
		status int
		ok     bool
	}{
		"/0": {200, true}, "/5": {200, true}, "/100000": {200, true}, "/100001": {200, false}, "/3000000": {200, false}, "/away": {302, true},
	} {
		resp, err := c.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want.status || (err == nil) != want.ok || len(text) > 100_000 {
			t.Errorf("%s: %d, %d bytes, %v", path, resp.StatusCode, len(text), err)
		}
		if err != nil && !strings.Contains(err.Error(), "100000 bytes") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
