package managed_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/fanfare/fanfare/authn/managed"
)

// In App Service the environment names the endpoint that has the tokens of the
// app's identity; here a small server stands in for it.
func Example() {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"access_token":"a-token-for-%s","expires_in":"3600","token_type":"Bearer"}`, r.URL.Query().Get("resource"))
	}))
	defer s.Close()
	os.Setenv("IDENTITY_ENDPOINT", s.URL)
	os.Setenv("IDENTITY_HEADER", "secret")
	defer os.Unsetenv("IDENTITY_ENDPOINT")
	defer os.Unsetenv("IDENTITY_HEADER")

	credential, err := managed.Identity{Type: managed.SystemAssigned}.Credential(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	tokens := managed.NewTokens(credential, nil)
	defer tokens.Close()
	token, err := tokens.Token(context.Background(), "api://my-handler")
	fmt.Println(token, err)
	// Output: a-token-for-api://my-handler <nil>
}
