package sdktest

import (
	"context"
	"io"
	"net/http"
	"os/exec"
	"testing"
	"time"
)

// testThrottled has program make five users of n, while others take all that the limit
// leaves, which is 1,000 at once and as many again in 30 s: its SDK is to wait for as
// long as it is told to, and to succeed then. repeats says that it sends the signature
// of the first try again, rather than signing anew.
func testThrottled(t *testing.T, n *node, repeats bool, program *exec.Cmd) {
	tooMany := make(chan struct{})
	r := &recorder{t: t, keys: [2]string{n.Key, n.Secondary}, tooMany: tooMany}
	program.Env = append(append(program.Environ(), n.env()...), "IDENTITY_ENDPOINT="+r.open(n))
	stop := n.exhaust(t)
	p := start(t, program)
	select {
	case <-tooMany:
	case <-time.After(time.Minute):
		t.Error("no request of the SDK was refused within a minute")
	}
	stop()
	p.prints(t, "made five users")

	r.mu.Lock()
	defer r.mu.Unlock()
	for i, q := range r.requests {
		if q.status != http.StatusTooManyRequests {
			continue
		}
		if i+1 == len(r.requests) {
			t.Fatalf("%s was refused and did not come back", q.operation())
		}
		if next := r.requests[i+1]; (next.Authorization == q.Authorization) != repeats {
			t.Errorf("the refused request had %s of %s, the next one %s of %s; want it repeated: %v",
				q.Authorization, q.Date, next.Authorization, next.Date, repeats)
		}
	}
}

// exhaust creates users until none is left of the limit, and then whenever there is
// one more, until the caller stops it.
func (n *node) exhaust(t *testing.T) (stop func()) {
	t.Helper()
	q := signedRequest{
		Method: http.MethodPost, Host: n.Endpoint[len("https://"):], Target: "/identities?api-version=2023-10-01",
		Date: time.Now().UTC().Format(http.TimeFormat), ContentHash: hashOf(""),
	}
	transport := &http.Transport{TLSClientConfig: n.trust(t)}
	create := func(ctx context.Context) (status int, err error) {
		req, err := http.NewRequestWithContext(ctx, q.Method, n.Endpoint+q.Target, nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("X-Ms-Date", q.Date)
		req.Header.Set("X-Ms-Content-Sha256", q.ContentHash)
		req.Header.Set("Authorization", "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="+q.signature(t, n.Key))
		res, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode, res.Body.Close()
	}
	began, created := time.Now(), 0
	for {
		status, err := create(t.Context())
		if err != nil || status != http.StatusCreated && status != http.StatusTooManyRequests {
			t.Fatalf("create: %d, %v", status, err)
		}
		if status == http.StatusTooManyRequests {
			break
		}
		created++
	}
	took := time.Since(began).Seconds()
	t.Logf("%d users in %.1f s, and then there were too many", created, took)
	if most := 1001 + int(took*1000/30); created > most {
		t.Errorf("%d users in %.1f s; the limit allows %d", created, took, most)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		for ctx.Err() == nil {
			if status, err := create(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("create: %d, %v", status, err)
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
		transport.CloseIdleConnections()
	}
}
