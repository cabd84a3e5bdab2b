package managed_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/fanfare/fanfare/authn/internal/calls"
	"github.com/fanfare/fanfare/authn/managed"
	"github.com/fanfare/fanfare/engine"
)

var system = managed.Identity{Type: managed.SystemAssigned}

// A service has one identity, selected in one way.
func TestCheck(t *testing.T) {
	long := strings.Repeat("x", 1025)
	for _, test := range []struct {
		name   string
		i      managed.Identity
		target string // at fault; empty if it passes
	}{
		{"system", system, ""},
		{"by client id", managed.Identity{Type: managed.UserAssigned, ClientID: "c"}, ""},
		{"by object id", managed.Identity{Type: managed.UserAssigned, ObjectID: "o"}, ""},
		{"by resource id", managed.Identity{Type: managed.UserAssigned, ResourceID: "r"}, ""},
		{"workload", managed.Identity{Type: managed.WorkloadIdentity}, ""},
		{"workload by client id", managed.Identity{Type: managed.WorkloadIdentity, ClientID: "c"}, ""},
		{"no type", managed.Identity{}, "type"},
		{"another type", managed.Identity{Type: "Certificate"}, "type"},
		{"not selected", managed.Identity{Type: managed.UserAssigned}, "type"},
		{"selected twice", managed.Identity{Type: managed.UserAssigned, ClientID: "c", ObjectID: "o"}, "objectId"},
		{"selected thrice", managed.Identity{Type: managed.UserAssigned, ClientID: "c", ObjectID: "o", ResourceID: "r"}, "objectId"},
		{"client and resource", managed.Identity{Type: managed.UserAssigned, ClientID: "c", ResourceID: "r"}, "resourceId"},
		{"system, selected", managed.Identity{Type: managed.SystemAssigned, ClientID: "c"}, "clientId"},
		{"workload by object id", managed.Identity{Type: managed.WorkloadIdentity, ObjectID: "o"}, "objectId"},
		{"long", managed.Identity{Type: managed.UserAssigned, ResourceID: long}, "resourceId"},
	} {
		err := test.i.Check()
		e, _ := errors.AsType[*engine.Error](err)
		if test.target == "" && err != nil || test.target != "" && (e == nil || e.Target != test.target || e.Code != engine.CodeInvalid) {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, cerr := test.i.Credential(nil); err != nil && cerr == nil {
			t.Errorf("%s: a credential was made", test.name)
		}
	}
}

// quick repeats as often as the default, without its pauses.
var quick = policy.RetryOptions{RetryDelay: time.Millisecond, MaxRetryDelay: 2 * time.Millisecond}

// The metadata service takes the id of a resource under the name that its documents
// have and under the one that the library sends, and only from who says Metadata.
func TestIdentity01MetadataService(t *testing.T) {
	e, transport := imds(t)
	const id = "/subscriptions/1/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one"
	want(t, tokensOf(t, managed.Identity{Type: managed.UserAssigned, ResourceID: id}, &managed.CredentialOptions{Transport: transport}), fresh(t))
	if query := e.Asked()[0]; query.Get("msi_res_id") != id || query.Has("mi_res_id") {
		t.Errorf("the library asks by %v", query)
	}
	for _, name := range []string{"msi_res_id", "mi_res_id"} {
		for metadata, status := range map[string]int{"true": 200, "": 400} {
			r := httptest.NewRequest("GET", "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=api://x&"+name+"="+url.QueryEscape(id), nil)
			if metadata != "" {
				r.Header.Set("Metadata", metadata)
			}
			w := httptest.NewRecorder()
			e.ServeHTTP(w, r)
			if w.Code != status {
				t.Errorf("%s with Metadata %q: %d %s", name, metadata, w.Code, w.Body)
			}
		}
	}
}

// The environment alone says where App Service has its tokens, over plain HTTP. What
// was fetched for a resource is there for every credential of the process.
func TestIdentity02AppService(t *testing.T) {
	e := appService(t)
	first, second := fresh(t), fresh(t)
	for _, step := range []struct {
		resource string
		requests int
	}{{first, 1}, {first, 1}, {second, 2}} {
		want(t, tokensOf(t, system, nil), step.resource)
		if n := len(e.Asked()); n != step.requests {
			t.Errorf("%s: %d requests; want %d", step.resource, n, step.requests)
		}
	}
}

// A slash at the end of a resource is part of it, also where the name of a scope
// follows, as in what all SDKs ask for Communication Services.
func TestIdentity03SlashBeforeDefault(t *testing.T) {
	for form := range strings.SplitSeq("IMDS/App Service", "/") {
		o := &managed.CredentialOptions{}
		var e *endpoint
		if form == "IMDS" {
			e, o.Transport = imds(t)
		} else {
			e = appService(t)
		}
		// The resource is what it is; it is the identity that nobody has had yet.
		i := managed.Identity{Type: managed.UserAssigned, ClientID: fresh(t)}
		const resource = "https://communication.azure.com/"
		got, err := tokensOf(t, i, o).Token(t.Context(), "https://communication.azure.com//.default")
		if err != nil || got != "token-for-"+resource {
			t.Errorf("%s: got %q, %v", form, got, err)
		}
		if asked := e.Asked(); len(asked) != 1 || asked[0].Get("resource") != resource {
			t.Errorf("%s was asked %v", form, asked)
		}
	}
}

// imdsTest is what the metadata service answers before it has a token, and what
// comes of that.
type imdsTest struct {
	name    string
	answers []answer
	calls   int
	fails   string // in the error; empty for a token
}

const updating = `{"error":"updating"}`

// The metadata service is asked again where it is updated or too busy, and not where
// it refuses.
func TestIdentity04Retries(t *testing.T) {
	testIMDS(t, []imdsTest{
		{"404", []answer{{404, updating}}, 2, ""},
		{"429", []answer{{429, `{"error":"throttled"}`}}, 2, ""},
		{"400", []answer{{400, `{"error":"invalid_resource","error_description":"AADSTS500011:\r\n not found"}`}}, 1, "AADSTS500011"},
	})
}

// What else the metadata service may answer.
func TestIMDS(t *testing.T) {
	testIMDS(t, []imdsTest{
		{"at once", nil, 1, ""},
		{"410", []answer{{410, updating}, {410, updating}}, 3, ""},
		{"500", []answer{{500, "oops"}, {503, ""}, {504, ""}}, 4, ""},
		{"404 for good", updatingForGood(), 7, "answered 404: updating"},
		{"401", []answer{{401, `{"error":"unknown_source"}`}}, 1, "answered 401: unknown_source"},
		{"403 of a proxy", []answer{{403, "connecting to 169.254.169.254: network is unreachable"}}, 1, "unreachable"},
		{"no JSON", []answer{{200, "<html>s3cret</html>"}}, 1, "no token"},
		{"no token", []answer{{200, `{"expires_in":"3600"}`}}, 1, "no token"},
		{"no end", []answer{{200, `{"access_token":"s3cret","token_type":"Bearer"}`}}, 1, "expires_in"},
		{"over when it comes", []answer{{200, `{"access_token":"s3cret","expires_on":"1000000000"}`}}, 1, "expired"},
		{"unsendable", []answer{{200, `{"access_token":"s3cret\r\nX: y","expires_in":"3600"}`}}, 1, "header"},
		{"too long a token", []answer{{200, `{"access_token":"` + strings.Repeat("s3cret", 3000) + `","expires_in":"3600"}`}}, 1, "18000 bytes"},
	})
}

func testIMDS(t *testing.T, tests []imdsTest) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e, transport := imds(t, test.answers...)
			tokens := tokensOf(t, system, &managed.CredentialOptions{Transport: transport, Retry: quick})
			resource := fresh(t)
			got, err := tokens.Token(t.Context(), resource)
			if test.fails == "" && (err != nil || got != "token-for-"+resource) {
				t.Errorf("got %q, %v", got, err)
			}
			if test.fails != "" && (err == nil || got != "" || !strings.Contains(err.Error(), test.fails)) {
				t.Errorf("got %q, %v; want an error about %q", got, err, test.fails)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.ContainsAny(err.Error(), "\r\n")) {
				t.Errorf("the error shows too much: %q", err)
			}
			if n := len(e.Asked()); n != test.calls {
				t.Errorf("%d requests; want %d", n, test.calls)
			}
			// The next one is answered at once, by the token or by the failure.
			if _, again := tokens.Token(t.Context(), resource); fmt.Sprint(again) != fmt.Sprint(err) || len(e.Asked()) != test.calls {
				t.Errorf("then %v, after %d requests", again, len(e.Asked()))
			}
		})
	}
}

func updatingForGood() []answer {
	var all []answer
	for range 20 {
		all = append(all, answer{404, updating})
	}
	return all
}

// Each way to tell the end of a token is understood.
func TestIdentity04ExpiryForms(t *testing.T) {
	end := time.Now().Add(2 * time.Hour)
	for name, members := range map[string]string{
		"text":            fmt.Sprintf(`"expires_in":"7200","expires_on":"%d"`, end.Unix()),
		"numbers":         fmt.Sprintf(`"expires_in":7200,"expires_on":%d`, end.Unix()),
		"only expires_in": `"expires_in":"7200"`,
		"only expires_on": fmt.Sprintf(`"expires_on":"%d"`, end.Unix()),
		"and refresh_in":  `"expires_in":"7200","refresh_in":"3600"`,
	} {
		t.Run(name, func(t *testing.T) {
			_, transport := imds(t, answer{200, `{"access_token":"x","token_type":"Bearer",` + members + `}`})
			c, err := system.Credential(&managed.CredentialOptions{Transport: transport})
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{fresh(t) + "/.default"}})
			if off := got.ExpiresOn.Sub(end).Abs(); err != nil || got.Token != "x" || off > time.Minute {
				t.Errorf("%q ends at %s, %v; want %s", got.Token, got.ExpiresOn, err, end)
			}
		})
	}
}

// A request says which identity and which resource are meant, in the words of
// each form.
func TestRequests(t *testing.T) {
	for _, test := range []struct {
		name        string
		i           managed.Identity
		imds, owner string // the query's selector
	}{
		{"system", system, "", ""},
		{"client id", managed.Identity{Type: managed.UserAssigned, ClientID: "c-1"}, "client_id=c-1", "client_id=c-1"},
		{"object id", managed.Identity{Type: managed.UserAssigned, ObjectID: "o-1"}, "object_id=o-1", "object_id=o-1"},
		{"resource id", managed.Identity{Type: managed.UserAssigned, ResourceID: "/subscriptions/1"}, "msi_res_id=%2Fsubscriptions%2F1", "mi_res_id=%2Fsubscriptions%2F1"},
	} {
		for form, selector := range map[string]string{"IMDS": test.imds, "App Service": test.owner} {
			t.Run(test.name+" of "+form, func(t *testing.T) {
				var e *endpoint
				o := &managed.CredentialOptions{}
				if form == "IMDS" {
					e, o.Transport = imds(t)
				} else {
					e = appService(t)
				}
				// With its slash, and without what makes a scope of it.
				resource := fresh(t) + "/"
				tokens := tokensOf(t, test.i, o)
				if got, err := tokens.Token(t.Context(), resource+"/.default"); err != nil || got != "token-for-"+resource {
					t.Errorf("got %q, %v", got, err)
				}
				query := e.Asked()[0]
				if got := query.Get("resource"); got != resource {
					t.Errorf("asked for %q; want %q", got, resource)
				}
				query.Del("resource")
				query.Del("api-version")
				if got := query.Encode(); got != selector {
					t.Errorf("selected by %q; want %q", got, selector)
				}
			})
		}
	}
}

// The library keeps tokens for the process: other Tokens of the same identity
// need no request for the same resource.
func TestOneCacheInTheProcess(t *testing.T) {
	e := appService(t)
	one, other := fresh(t), fresh(t)
	want(t, tokensOf(t, system, nil), one)
	want(t, tokensOf(t, system, nil), one)
	if n := len(e.Asked()); n != 1 {
		t.Errorf("%d requests for one resource", n)
	}
	want(t, tokensOf(t, system, nil), other)
	if n := len(e.Asked()); n != 2 {
		t.Errorf("%d requests for two resources", n)
	}
}

// The header of App Service is read at each request, since it changes.
func TestAppServiceHeader(t *testing.T) {
	e := appService(t)
	tokens := tokensOf(t, system, &managed.CredentialOptions{Retry: quick})
	t.Setenv("IDENTITY_HEADER", "another")
	if _, err := tokens.Token(t.Context(), fresh(t)); err == nil || !strings.Contains(err.Error(), "answered 400: unauthorized_client: as it stands") {
		t.Error(err)
	}
	t.Setenv("IDENTITY_HEADER", "header-secret")
	want(t, tokens, fresh(t))
	if len(e.Asked()) != 2 {
		t.Error("the endpoint was not asked")
	}
}

// A reply without end is not read to its end.
func TestEndlessReply(t *testing.T) {
	appService(t, answer{200, `{"x":"` + strings.Repeat("y", 1<<20) + `"}`}, answer{200, `{"x":"` + strings.Repeat("y", 1<<20) + `"}`},
		answer{200, `{"x":"` + strings.Repeat("y", 1<<20) + `"}`}, answer{200, `{"x":"` + strings.Repeat("y", 1<<20) + `"}`})
	tokens := tokensOf(t, system, &managed.CredentialOptions{Retry: policy.RetryOptions{MaxRetries: -1}})
	if _, err := tokens.Token(t.Context(), fresh(t)); err == nil || !strings.Contains(err.Error(), "more than 262144 bytes") {
		t.Error(err)
	}
}

// A workload identity exchanges the token in its file for one of the resource.
func TestWorkloadIdentity(t *testing.T) {
	outside(t)
	a := &authority{assertion: "kubernetes-token"}
	s := httptest.NewTLSServer(a)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(a.assertion), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"AZURE_CLIENT_ID": "from-environment", "AZURE_TENANT_ID": "tenant", "AZURE_FEDERATED_TOKEN_FILE": file, "AZURE_AUTHORITY_HOST": s.URL,
	} {
		t.Setenv(name, value)
	}
	o := &managed.CredentialOptions{Transport: calls.NewClient(calls.Options{TLS: &tls.Config{RootCAs: roots}, MaxBody: 1 << 20}), Retry: quick}

	for _, test := range []struct{ configured, client string }{{"", "from-environment"}, {"configured", "configured"}} {
		resource := fresh(t)
		want(t, tokensOf(t, managed.Identity{Type: managed.WorkloadIdentity, ClientID: test.configured}, o), resource)
		forms := a.Forms()
		form := forms[len(forms)-1]
		if form.Get("client_id") != test.client || form.Get("grant_type") != "client_credentials" ||
			form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || !strings.HasPrefix(form.Get("scope"), resource+"/.default") {
			t.Errorf("asked by %v", form)
		}
	}

	if err := os.WriteFile(file, []byte("a stranger's"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens := tokensOf(t, managed.Identity{Type: managed.WorkloadIdentity}, o)
	if _, err := tokens.Token(t.Context(), fresh(t)); err == nil || !strings.Contains(err.Error(), "answered 401: invalid_client: AADSTS70021") ||
		strings.Contains(err.Error(), "stranger") {
		t.Error(err)
	}

	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", "")
	os.Unsetenv("AZURE_FEDERATED_TOKEN_FILE")
	if _, err := (managed.Identity{Type: managed.WorkloadIdentity}).Credential(o); err == nil || !strings.Contains(err.Error(), "token file") {
		t.Error(err)
	}
}

// A certificate that nobody vouches for ends it: nothing is sent.
func TestWorkloadIdentityUntrusted(t *testing.T) {
	outside(t)
	a := &authority{assertion: "kubernetes-token"}
	s := httptest.NewUnstartedServer(a)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "token")
	os.WriteFile(file, []byte(a.assertion), 0o600)
	t.Setenv("AZURE_TENANT_ID", "tenant")
	t.Setenv("AZURE_FEDERATED_TOKEN_FILE", file)
	t.Setenv("AZURE_AUTHORITY_HOST", s.URL)
	tokens := tokensOf(t, managed.Identity{Type: managed.WorkloadIdentity, ClientID: "c"}, &managed.CredentialOptions{Retry: quick})
	if _, err := tokens.Token(t.Context(), fresh(t)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Error(err)
	}
	if len(a.Forms()) != 0 {
		t.Error("the assertion was sent")
	}
}

// Service Fabric's certificate is pinned, for which the library takes the client.
func TestServiceFabric(t *testing.T) {
	outside(t)
	t.Setenv("IDENTITY_ENDPOINT", "https://127.0.0.1:1/")
	t.Setenv("IDENTITY_HEADER", "x")
	t.Setenv("IDENTITY_SERVER_THUMBPRINT", strings.Repeat("ab", 20))
	if _, err := system.Credential(nil); err != nil {
		t.Error(err)
	}
}

// credential is a source of tokens that live for a while.
type credential struct {
	mu                sync.Mutex
	n                 int
	err               error
	lifetime, refresh time.Duration // refresh 0: the issuer suggests nothing
}

func (c *credential) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	t := azcore.AccessToken{Token: fmt.Sprintf("token-%d", c.n), ExpiresOn: time.Now().Add(c.lifetime)}
	if c.refresh > 0 {
		t.RefreshOn = time.Now().Add(c.refresh)
	}
	if len(o.Scopes) != 1 {
		return t, errors.New("not one scope")
	}
	return t, c.err
}

// A token is renewed ahead of its end, beside its use; while it cannot be, the one
// before it is used to its last half minute, and the log says why.
func TestRenewal(t *testing.T) {
	for _, test := range []struct {
		name              string
		lifetime, refresh time.Duration
		renewed           time.Duration
	}{
		{"5 minutes ahead", time.Hour, 0, 55*time.Minute + 10*time.Second},
		{"when the issuer suggests", 24 * time.Hour, 12 * time.Hour, 12 * time.Hour},
		{"half of a short life", 4*time.Minute + 30*time.Second, 0, 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &credential{lifetime: test.lifetime, refresh: test.refresh}
				var log strings.Builder
				tokens := managed.NewTokens(c, &managed.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				defer tokens.Close()
				is := func(want string) {
					t.Helper()
					got, err := tokens.Token(t.Context(), "api://x")
					if got != want || err != nil {
						t.Errorf("got %q, %v; want %q", got, err, want)
					}
					synctest.Wait()
				}
				is("token-1")
				time.Sleep(test.renewed - time.Second)
				is("token-1")
				time.Sleep(time.Second)
				is("token-1") // and begins the renewal
				is("token-2")

				c.mu.Lock()
				c.err = errors.New("an outage")
				c.mu.Unlock()
				time.Sleep(test.renewed)
				is("token-2")
				time.Sleep(test.lifetime - test.renewed - 31*time.Second)
				is("token-2")
				time.Sleep(time.Second)
				if got, err := tokens.Token(t.Context(), "api://x"); got != "" || err == nil || !strings.Contains(err.Error(), "an outage") {
					t.Errorf("half a minute before its end: %q, %v", got, err)
				}
				if got := log.String(); !strings.Contains(got, "an outage") || !strings.Contains(got, "api://x") {
					t.Errorf("the log says %s", got)
				}
				if s := tokens.Stats(); s.Kept != 1 || s.Failures == 0 || s.Fetches <= s.Failures {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// The library keeps a token too, and gives the same one until 5 minutes before its
// end; the renewal is asked for when it does.
func TestRenewalThroughTheLibrary(t *testing.T) {
	e, _ := imds(t)
	synctest.Test(t, func(t *testing.T) {
		c, err := system.Credential(&managed.CredentialOptions{Transport: direct{e}})
		if err != nil {
			t.Fatal(err)
		}
		tokens := managed.NewTokens(c, nil)
		defer tokens.Close()
		resource := fresh(t)
		for _, step := range []struct {
			after    time.Duration
			requests int
		}{{0, 1}, {13 * time.Hour, 1}, {10*time.Hour + 55*time.Minute, 1}, {10 * time.Second, 2}, {23 * time.Hour, 2}, {55*time.Minute + 10*time.Second, 3}} {
			time.Sleep(step.after)
			want(t, tokens, resource)
			synctest.Wait()
			if n := len(e.Asked()); n != step.requests {
				t.Errorf("after %s more: %d requests; want %d", step.after, n, step.requests)
			}
		}
	})
}

// What is no resource is refused before anybody is asked.
func TestResources(t *testing.T) {
	tokens := managed.NewTokens(&credential{lifetime: time.Hour}, nil)
	for _, resource := range []string{"", "/.default", "a b", "a\nb", "ä", strings.Repeat("x", 1025)} {
		if _, err := tokens.Token(t.Context(), resource); err == nil {
			t.Errorf("%.20q was accepted", resource)
		}
	}
	if s := tokens.Stats(); s.Fetches != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := tokens.Token(t.Context(), "api://x"); err != nil {
		t.Error(err)
	}
	tokens.Close()
	tokens.Close()
	if _, err := tokens.Token(t.Context(), "api://x"); err == nil {
		t.Error("a token after the end")
	}
}

// Redirects are not followed: the header that opens the endpoint would go along.
func TestRedirect(t *testing.T) {
	outside(t)
	followed := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			followed = true
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(s.Close)
	t.Setenv("IDENTITY_ENDPOINT", s.URL)
	t.Setenv("IDENTITY_HEADER", "x")
	if _, err := tokensOf(t, system, nil).Token(t.Context(), fresh(t)); err == nil || !strings.Contains(err.Error(), "answered 307") {
		t.Error(err)
	}
	if followed {
		t.Error("followed")
	}
}
