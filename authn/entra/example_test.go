package entra_test

import (
	"errors"
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

// A user who has no account at the service shows a token of the tenant's, to get one
// of the service's in exchange. It must have been made for that: one for the data
// plane is of no use.
func ExampleUsers() {
	p := newProvider() // stands in for Entra ID
	issuer, err := entra.NewIssuer(p.url, tenant, p.inMemory())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer issuer.Close()

	users := entra.NewUsers(issuer, nil)
	for _, audience := range []string{entra.AudienceClients, entra.Audience} {
		id, err := users.VerifyUser(ctx, p.token("one", user, with{"aud": audience, "scp": "VoIP Chat"}))
		if refused, ok := errors.AsType[*engine.Error](err); ok {
			fmt.Println("refused:", refused.Rule)
			continue
		}
		fmt.Println(id.UserID, "may be given", id.Claims["scp"])
	}
	// Output:
	// bbbbbbbb-0000-4000-8000-000000000001 may be given [VoIP Chat]
	// refused: entra.audience
}
