package sdktest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	stdtls "crypto/tls"
)

// "go generate ./authn/accesskey" records what is kept there.
var recordings = flag.String("record", "", "folder for the signed requests that the identity SDKs send, a file for each SDK")

// recording is what one SDK sends. It is a file of authn/accesskey/testdata.
type recording struct {
	SDK      string          `json:"sdk"` // with its version
	Key      string          `json:"key"`
	Requests []signedRequest `json:"requests"`
}

// signedRequest is a request as it came.
type signedRequest struct {
	Method        string `json:"method"`
	Scheme        scheme `json:"scheme"`
	Host          string `json:"host"`
	Target        string `json:"target"`
	Body          string `json:"body"`
	Date          string `json:"date"`
	ContentHash   string `json:"contentHash"`
	Authorization string `json:"authorization"`

	sdk    string // with its version, and what it runs on
	status int    // of the answer
}

// recorder opens ways to nodes of the same keys, and notes the requests that one SDK
// signs. Of each it works out by the scheme's formula whether one of the keys signed
// it, and fails the test if the node thinks otherwise.
type recorder struct {
	t       *testing.T
	keys    [2]string
	tooMany chan struct{} // if made, closed when a request is answered with 429

	mu       sync.Mutex // guards the rest
	requests []signedRequest
}

// open returns the endpoint of a way to n; of a node that speaks TLS, with its own
// certificate.
func (r *recorder) open(n *node) string {
	r.t.Helper()
	to, err := url.Parse(n.Endpoint)
	if err != nil {
		r.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: n.trust(r.t), MaxIdleConnsPerHost: 8}
	s := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(to)
			p.Out.Host = p.In.Host // which is signed
		},
		Transport: roundTripper(func(q *http.Request) (*http.Response, error) { return r.pass(q, transport) }),
	})
	if n.certs.certFile == "" {
		s.Start()
	} else {
		pair, err := stdtls.LoadX509KeyPair(n.certs.certFile, n.certs.keyFile)
		if err != nil {
			r.t.Fatal(err)
		}
		s.TLS = &stdtls.Config{Certificates: []stdtls.Certificate{pair}, MinVersion: stdtls.VersionTLS12}
		s.StartTLS()
	}
	r.t.Cleanup(func() {
		s.Close()
		transport.CloseIdleConnections()
	})
	return s.URL
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

// pass carries a request to the node and judges the answer before anybody has it.
func (r *recorder) pass(q *http.Request, next http.RoundTripper) (*http.Response, error) {
	var body []byte
	if q.Body != nil {
		var err error
		if body, err = io.ReadAll(q.Body); err != nil {
			return nil, err
		}
		q.Body = io.NopCloser(bytes.NewReader(body))
	}
	a, err := next.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	a.Body = io.NopCloser(bytes.NewReader(answer))
	if err == nil && strings.HasPrefix(q.Header.Get("Authorization"), "HMAC-SHA256 ") {
		r.judge(signedRequest{
			Method: q.Method, Scheme: scheme(q.URL.Scheme), Host: q.Host, Target: q.URL.RequestURI(), Body: string(body),
			Date: q.Header.Get("X-Ms-Date"), ContentHash: q.Header.Get("X-Ms-Content-Sha256"), Authorization: q.Header.Get("Authorization"),
			sdk: q.UserAgent(), status: a.StatusCode,
		}, answer)
	}
	return a, err
}

// judge compares what the node answered to a request with what it is to think of
// its signature, and keeps the request if the primary key signed it.
func (r *recorder) judge(q signedRequest, answer []byte) {
	primary := q.signedBy(r.t, r.keys[0])
	signed := primary || q.signedBy(r.t, r.keys[1])
	// A token in the body may be refused with 401 too, and with another code.
	if denied := q.status == http.StatusUnauthorized && bytes.Contains(answer, []byte(`"Denied"`)); signed == denied {
		r.t.Errorf("%s %s: the node answers %d, and the signature is good: %v", q.Method, q.Target, q.status, signed)
	}
	if !primary {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, q)
	if r.tooMany != nil && q.status == http.StatusTooManyRequests {
		close(r.tooMany)
		r.tooMany = nil
	}
}

// signedBy reports whether key signed the request as it came: the target, the host.
func (q *signedRequest) signedBy(t *testing.T, key string) bool {
	return q.ContentHash == hashOf(q.Body) && strings.HasSuffix(q.Authorization, "&Signature="+q.signature(t, key))
}

// signature is what the scheme's formula makes of the request.
func (q *signedRequest) signature(t *testing.T, key string) string {
	secret, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Error(err)
	}
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(q.Method + "\n" + q.Target + "\n" + q.Date + ";" + q.Host + ";" + q.ContentHash))
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// operation names what a request asks for, by its method and its path without the
// id in it.
func (q *signedRequest) operation() string {
	path, _, _ := strings.Cut(q.Target, "?")
	name := q.Method + " " + regexp.MustCompile(`^/identities/[^/]+`).ReplaceAllString(path, "/identities/ID")
	if strings.Contains(q.Body, "createTokenWithScopes") {
		name += " with a token"
	}
	return name
}

// operations are those that every SDK has.
var operations = []string{
	"DELETE /identities/ID",
	"POST /identities",
	"POST /identities with a token",
	"POST /identities/ID/:issueAccessToken",
	"POST /identities/ID/:revokeAccessTokens",
	"POST /teamsUser/:exchangeAccessToken",
}

// finish checks that the SDK has succeeded with each operation, and writes one request
// of each kind to the file of that name where that was asked for.
func (r *recorder) finish(name string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	kinds, seen := map[string]signedRequest{}, map[string]bool{}
	for _, q := range r.requests {
		if q.status >= 300 {
			continue
		}
		seen[q.operation()] = true
		kind := fmt.Sprint(q.Scheme, q.operation(), strings.Contains(q.Target, "%")) // one of Python's clients sends no escapes
		if _, known := kinds[kind]; !known {
			kinds[kind] = q
		}
	}
	if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, operations) {
		r.t.Fatalf("the operations were %q; want %q", got, operations)
	}
	kept := recording{Key: r.keys[0]}
	kept.SDK, _, _ = strings.Cut(r.requests[0].sdk, " ")
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		kept.Requests = append(kept.Requests, kinds[kind])
	}
	r.t.Logf("%s: recomputed the signatures of %d requests", kept.SDK, len(r.requests))
	if *recordings != "" {
		kept.write(r.t, filepath.Join(*recordings, name+".json"))
	}
}

func (r *recording) write(t *testing.T, path string) {
	t.Helper()
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
