package identity_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fanfare/fanfare/authn"
	"github.com/fanfare/fanfare/authn/accesskey"
	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// A client is the user of its token, with what its scopes are worth in the hub.
func TestClients(t *testing.T) {
	u := newUsers(t, identity.NewMemoryStore())
	ann := create(t, u)
	clients := identity.NewClients(u, map[string]identity.Grant{
		identity.ScopeChat:     {Roles: []string{"webpubsub.sendToGroup", "webpubsub.joinLeaveGroup"}, Hubs: []engine.HubName{"chat", "news"}},
		identity.ScopeChatJoin: {Roles: []string{"webpubsub.joinLeaveGroup"}, Groups: []engine.GroupName{"lobby"}, Hubs: []engine.HubName{"chat"}},
		identity.ScopeVoIP:     {},
	})
	knock := func(text string, hub engine.HubName) (engine.Identity, error) {
		return clients.Authenticate(t.Context(), engine.Credentials{Hub: hub, Token: text})
	}
	id, err := knock(issue(t, u, ann, identity.ScopeChatJoin, identity.ScopeChat), "chat")
	if err != nil || id.UserID != ann || id.Scheme != "UserToken" || id.Expires.IsZero() ||
		!slices.Equal(id.Roles, []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"}) || !slices.Equal(id.Groups, []engine.GroupName{"lobby"}) {
		t.Errorf("%+v, %v", id, err)
	}
	if got := id.Claims["acsScope"]; !slices.Equal(got, []string{"chat.join,chat"}) {
		t.Errorf("claims %v", id.Claims)
	}
	if id, err := knock(issue(t, u, ann, identity.ScopeVoIP, identity.ScopeChatJoin), "other"); err != nil || id.Roles != nil || id.Groups != nil {
		t.Errorf("%+v, %v", id, err)
	}
	_, err = knock(issue(t, u, ann, identity.ScopeChatJoin, identity.ScopeVoIPJoin), "news")
	if ruleOf(err) != "user.hub" || engine.CodeOf(err) != engine.CodeForbidden || !strings.Contains(err.Error(), "expected one of chat, voip") {
		t.Error(err)
	}
	text := issue(t, u, ann)
	if err := u.Revoke(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	if _, err := knock(text, "chat"); ruleOf(err) != "user.revoked" {
		t.Error(err)
	}
}

// A client whose token has been proven stands until its tokens are revoked, it is
// deleted, or the key of the token is left out, also between its proof and its entry.
func TestStanding(t *testing.T) {
	s := newFrailStore()
	u := newUsers(t, s)
	clients := identity.NewClients(u, map[string]identity.Grant{identity.ScopeChat: {}})
	enter := func(user engine.UserID) engine.Identity {
		t.Helper()
		id, err := clients.Authenticate(t.Context(), engine.Credentials{Hub: "chat", Token: issue(t, u, user)})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	stands := func(id engine.Identity, rule string) {
		t.Helper()
		err := id.Standing(t.Context())
		if rule == "" && err != nil || rule != "" && ruleOf(err) != rule {
			t.Errorf("%v; want rule %q", err, rule)
		}
	}
	ann, bo := create(t, u), named(t, u, "bo")
	anns, bos := enter(ann), enter(bo)
	stands(anns, "")
	stands(bos, "")
	other := newUsers(t, s) // another node
	if err := other.Revoke(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	stands(anns, "user.revoked")
	stands(bos, "")
	stands(enter(ann), "") // with a token issued since
	if err := other.Delete(t.Context(), bo); err != nil {
		t.Fatal(err)
	}
	stands(bos, "user.deleted")
	if again := named(t, u, "bo"); again == bo {
		t.Errorf("%s is back", bo)
	}
	stands(bos, "user.deleted")

	third := enter(ann)
	s.fail(true)
	if err := third.Standing(t.Context()); ruleOf(err) != "user.store" || engine.CodeOf(err) != engine.CodeUnavailable {
		t.Error(err)
	}
	s.fail(false)
	stands(third, "")
	if err := u.Use(derive(t, 2)); err != nil {
		t.Fatal(err)
	}
	stands(third, "user.kid")
}

// In a chain each kind of token finds its scheme, whatever the order of the two.
func TestChain(t *testing.T) {
	u := newUsers(t, identity.NewMemoryStore())
	users := identity.NewClients(u, map[string]identity.Grant{identity.ScopeChat: {}})
	key := accesskey.Generate()
	ring := accesskey.NewRing(key, accesskey.Key{})
	generated := token.NewIssuer(ring.IssuerKeys, nil)
	app := accesskey.ConnectionString{Endpoint: "https://rt.example.com", Key: key}
	const audience = "https://rt.example.com/client/hubs/chat"
	byKey, err := app.ClientToken("chat", token.Claims{User: "bo"})
	if err != nil {
		t.Fatal(err)
	}
	byNode, err := generated.IssueClientToken(t.Context(), engine.Identity{UserID: "cy"}, audience, 0)
	if err != nil {
		t.Fatal(err)
	}
	ann := create(t, u)
	for _, chain := range []authn.Authenticator{
		authn.Clients(users, generated, accesskey.NewClients(ring, nil)), authn.Clients(generated, users, accesskey.NewClients(ring, nil)),
	} {
		for text, want := range map[string]engine.UserID{byKey: "bo", byNode: "cy", issue(t, u, ann): ann} {
			id, err := chain.Authenticate(t.Context(), engine.Credentials{Hub: "chat", Audience: audience, Token: text})
			if err != nil || id.UserID != want {
				t.Errorf("%+v, %v; want %s", id, err, want)
			}
		}
	}
}

// A service that keeps its users itself: ann chats, until her tokens are revoked.
func Example() {
	ctx := context.Background()
	key, err := identity.DeriveKey([]byte("an access key, or 16 bytes and more of another secret"))
	if err != nil {
		fmt.Println(err)
		return
	}
	users, err := identity.New(ctx, identity.NewMemoryStore(), nil, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	clients := identity.NewClients(users, map[string]identity.Grant{
		identity.ScopeChat: {Hubs: []engine.HubName{"chat"}, Roles: []string{"webpubsub.sendToGroup"}},
	})

	ann, err := users.Create(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	token, _, err := users.Issue(ctx, ann, []string{identity.ScopeChat}, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	id, err := clients.Authenticate(ctx, engine.Credentials{Hub: "chat", Token: token})
	fmt.Println(id.UserID == ann, id.Roles, err)

	fmt.Println(users.Revoke(ctx, ann))
	_, err = clients.Authenticate(ctx, engine.Credentials{Hub: "chat", Token: token})
	fmt.Println(err)
	// Output:
	// true [webpubsub.sendToGroup] <nil>
	// <nil>
	// The token has been revoked; ask for a new one. [user.revoked]
}
