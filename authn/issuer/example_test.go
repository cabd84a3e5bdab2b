package issuer_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/fanfare/fanfare/authn/issuer"
)

// A node signs with a key that stems from its access key, and serves the public
// half where handlers look for it.
func Example() {
	key, err := issuer.DeriveKey([]byte("the access key of this service"))
	if err != nil {
		fmt.Println(err)
		return
	}
	i, err := issuer.New("https://rt.example.com", nil, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/", i.Handler(nil))

	token, err := i.Token(context.Background(), "api://my-handler")
	fmt.Println(strings.Count(token, "."), err)
	// Output: 2 <nil>
}
