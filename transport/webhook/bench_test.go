package webhook_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/fanfare/fanfare/transport/webhook"
)

// One user event over loopback and back, beside a bare POST of the same body.
func BenchmarkUserEvent(b *testing.B) {
	server := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			w.Header().Set("WebHook-Allowed-Origin", "*")
			return
		}
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, "world")
	})
	b.Run("case=bare", func(b *testing.B) {
		url := serve(b, server)
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		b.ReportAllocs()
		for b.Loop() {
			r, err := http.NewRequest(http.MethodPost, url, http.NoBody)
			if err != nil {
				b.Fatal(err)
			}
			resp, err := tr.RoundTrip(r)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	for _, state := range []string{"none", "cookies"} {
		b.Run("case=event/state="+state, func(b *testing.B) {
			c := newClient(b, serve(b, server)+"/{hub}/{event}", &webhook.Options{Signer: signer("s")})
			e := text("hello")
			if state == "cookies" {
				e.State = stateWithCookies(b)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.UserEvent(b.Context(), e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func stateWithCookies(b *testing.B) []byte {
	u := &upstream{reply: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ce-connectionState", "eyJhIjoxfQ==")
		w.Header().Add("Set-Cookie", "route=node-7; Path=/")
		w.Header().Add("Set-Cookie", "session=0123456789abcdef; Path=/; HttpOnly")
	}}
	reply, err := newClient(b, serve(b, u), nil).UserEvent(b.Context(), text("x"))
	if err != nil {
		b.Fatal(err)
	}
	return reply.UpdateState(nil)
}
