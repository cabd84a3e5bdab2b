package entra_test

import (
	"fmt"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/entra"
	"github.com/fanfare/fanfare/engine"
)

// One tenant's application may do everything, and one of its groups may send to
// the hub "news". Access keys go on working beside them.
func Example() {
	issuer, err := entra.NewIssuer(entra.Authority, tenant, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer issuer.Close()

	roles := entra.NewRoles()
	if err := roles.Define("Newsroom", "hub/send/action", "group/send/action"); err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range []struct{ principal, role, hub string }{
		{robotApp, entra.RoleOwner, "*"},
		{crew, "Newsroom", "news"},
	} {
		if err := roles.Assign(a.principal, a.role, a.hub); err != nil {
			fmt.Println(err)
			return
		}
	}

	keys := accesskey.NewRing(accesskey.Generate(), accesskey.Key{})
	servers := authn.Servers(
		entra.NewServers(issuer, []string{entra.Audience}, roles), // knows its tokens by how they are signed
		accesskey.NewServers(keys, nil),
	)
	// What rest.NewHandler asks for each request:
	_, err = servers.Authorize(ctx, engine.ServerRequest{
		Method: "POST", Scheme: "https", Host: "rt.example.com", Target: "/api/hubs/news/:send",
		Header: map[string][]string{"Authorization": {"Bearer eyJhbGciOiJub25lIn0.e30."}},
	})
	fmt.Println(err)
	// Output:
	// The token is signed with "none"; only RS256 is accepted here. [entra.alg]
}
