package managed_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/fanfare/fanfare/authn/managed"
)

// endpoint is a token endpoint of one of Azure's forms. It answers a request that
// it finds in order with the next of its answers, and with a token once there are
// none left.
type endpoint struct {
	check func(r *http.Request) string // what is wrong with it, as an error code

	mu      sync.Mutex
	answers []answer
	asked   []url.Values
}

type answer struct {
	status int
	body   string
}

// token is a reply of both forms, with the resource in the token.
func token(resource string, lifetime time.Duration) string {
	now := time.Now()
	text, _ := json.Marshal(map[string]string{
		"access_token": "token-for-" + resource, "refresh_token": "", "resource": resource, "token_type": "Bearer",
		"expires_in": fmt.Sprint(int(lifetime.Seconds())), "expires_on": fmt.Sprint(now.Add(lifetime).Unix()), "not_before": fmt.Sprint(now.Unix()),
		"client_id": "00000000-0000-0000-0000-00000000c11d",
	})
	return string(text)
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	query := r.URL.Query()
	e.asked = append(e.asked, query)
	w.Header().Set("Content-Type", "application/json")
	a := answer{200, token(query.Get("resource"), 24*time.Hour)}
	if wrong := e.check(r); wrong != "" {
		a = answer{400, `{"error":"` + wrong + `","error_description":"as it stands"}`}
	} else if len(e.answers) > 0 {
		a, e.answers = e.answers[0], e.answers[1:]
	}
	w.WriteHeader(a.status)
	fmt.Fprint(w, a.body)
}

// Asked returns the queries of the requests so far.
func (e *endpoint) Asked() []url.Values {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.asked)
}

// oneSelector reports whether at most one of the names is in a query, and none
// that is not among them.
func oneSelector(query url.Values, names ...string) bool {
	n := 0
	for name := range query {
		if name != "api-version" && name != "resource" {
			if n++; !slices.Contains(names, name) {
				return false
			}
		}
	}
	return n <= 1
}

// outside clears what the environment says of identities.
func outside(t *testing.T) {
	t.Helper()
	for _, name := range []string{"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT"} {
		t.Setenv(name, "")
	}
}

// imds starts a metadata service, and returns the transport that finds it where
// it really is: nothing of the environment moves it.
func imds(t *testing.T, answers ...answer) (*endpoint, policy.Transporter) {
	t.Helper()
	outside(t)
	e := &endpoint{answers: answers, check: func(r *http.Request) string {
		switch query := r.URL.Query(); {
		case r.Header.Get("Metadata") != "true":
			return "bad_request_102"
		case r.URL.Path != "/metadata/identity/oauth2/token" || query.Get("api-version") != "2018-02-01":
			return "invalid_request"
		case query.Get("resource") == "":
			return "invalid_resource"
		case !oneSelector(query, "client_id", "object_id", "msi_res_id", "mi_res_id"):
			return "invalid_request"
		}
		return ""
	}}
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	return e, moved{strings.TrimPrefix(s.URL, "http://")}
}

// moved sends what is for the metadata service to another host.
type moved struct{ host string }

func (m moved) Do(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "169.254.169.254" {
		return nil, fmt.Errorf("a request for %s", r.URL.Host)
	}
	r = r.Clone(r.Context())
	r.URL.Host, r.Host = m.host, ""
	return http.DefaultClient.Do(r)
}

// direct carries requests to a handler without a network, so that time can be a
// test's own.
type direct struct{ h http.Handler }

func (d direct) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.h.ServeHTTP(w, r)
	resp := w.Result()
	resp.Request = r
	return resp, r.Context().Err()
}

// appService starts the endpoint of App Service, which the environment names.
func appService(t *testing.T, answers ...answer) *endpoint {
	t.Helper()
	outside(t)
	const secret = "header-secret"
	e := &endpoint{answers: answers, check: func(r *http.Request) string {
		switch query := r.URL.Query(); {
		case r.Header.Get("X-IDENTITY-HEADER") != secret:
			return "unauthorized_client"
		case r.URL.Path != "/msi/token" || query.Get("api-version") != "2019-08-01":
			return "invalid_request"
		case query.Get("resource") == "":
			return "invalid_resource"
		case !oneSelector(query, "client_id", "object_id", "principal_id", "mi_res_id"):
			return "invalid_request"
		}
		return ""
	}}
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	t.Setenv("IDENTITY_ENDPOINT", s.URL+"/msi/token")
	t.Setenv("IDENTITY_HEADER", secret)
	return e
}

// authority is Microsoft Entra ID as workload identities meet it.
type authority struct {
	assertion string

	mu    sync.Mutex
	forms []url.Values
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	base := "https://" + r.Host + "/tenant"
	w.Header().Set("Content-Type", "application/json")
	switch r.Method + " " + r.URL.Path {
	case "GET /tenant/v2.0/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer":"%[1]s/v2.0","authorization_endpoint":"%[1]s/oauth2/v2.0/authorize","token_endpoint":"%[1]s/oauth2/v2.0/token"}`, base)
	case "POST /tenant/oauth2/v2.0/token":
		r.ParseForm()
		a.mu.Lock()
		a.forms = append(a.forms, r.PostForm)
		a.mu.Unlock()
		if r.PostForm.Get("client_assertion") != a.assertion {
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":"invalid_client","error_description":"AADSTS70021: No matching federated identity record found."}`)
			return
		}
		resource, _, _ := strings.Cut(r.PostForm.Get("scope"), "/.default")
		fmt.Fprintf(w, `{"token_type":"Bearer","expires_in":3599,"access_token":"token-for-%s"}`, resource)
	default:
		http.NotFound(w, r)
	}
}

func (a *authority) Forms() []url.Values {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.forms)
}

// fresh returns a resource that no test has asked for: the library remembers.
func fresh(t *testing.T) string {
	t.Helper()
	used.Lock()
	defer used.Unlock()
	used.n++
	return fmt.Sprintf("api://resource-%d-%d", os.Getpid(), used.n)
}

var used struct {
	sync.Mutex
	n int
}

// tokensOf returns the tokens of an identity.
func tokensOf(t *testing.T, i managed.Identity, o *managed.CredentialOptions) *managed.Tokens {
	t.Helper()
	c, err := i.Credential(o)
	if err != nil {
		t.Fatal(err)
	}
	tokens := managed.NewTokens(c, nil)
	t.Cleanup(func() { tokens.Close() })
	return tokens
}

func want(t *testing.T, tokens interface {
	Token(context.Context, string) (string, error)
}, resource string) {
	t.Helper()
	if got, err := tokens.Token(t.Context(), resource); err != nil || got != "token-for-"+resource {
		t.Errorf("got %q, %v; want the token for %s", got, err, resource)
	}
}
