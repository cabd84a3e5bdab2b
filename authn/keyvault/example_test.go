package keyvault_test

import (
	"context"
	"fmt"

	"github.com/fanfare/fanfare/authn/keyvault"
)

// A template refers to a secret by its URI; here a small vault stands in for
// Azure's, and a fixed token for the service's identity.
func Example() {
	secrets := keyvault.New(&tokens{}, &keyvault.Options{Transport: direct{newVault()}})
	defer secrets.Close()
	code, err := secrets.Secret(context.Background(), "https://v.vault.azure.net/secrets/code")
	fmt.Println(code, err)

	_, err = secrets.Secret(context.Background(), "https://vault.example.com/secrets/code")
	fmt.Println(err)
	// Output:
	// s3cret-1 <nil>
	// The vault vault.example.com may not be asked: it is none of Azure's (*.vault.azure.net, *.vault.azure.cn, *.vault.usgovcloudapi.net) and not among the allowed hosts. [keyvault.host]
}
