package webhook_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fanfare/fanfare/transport/webhook"
)

// A check in the background shares nothing that changes with the event that
// began it; the race detector tells.
func TestTokenBesideValidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{}
		over := pipes(t, u)(nil) // without TLS
		c := newClient(t, "https://h.example/?code=x", &webhook.Options{
			Wrap: func(http.RoundTripper) http.RoundTripper {
				return roundTripper(func(r *http.Request) (*http.Response, error) {
					r = r.Clone(r.Context())
					r.URL.Scheme = "http"
					return over.RoundTrip(r)
				})
			},
			Tokens: tokens(func(string) (string, error) { return "token", nil }), Resource: "api://x",
		})
		for range 5 {
			if _, err := c.UserEvent(t.Context(), text("x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(61 * time.Second)
		}
	})
}
