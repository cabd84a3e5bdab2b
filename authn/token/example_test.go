package token_test

import (
	"fmt"
	"time"

	"github.com/fanfare/fanfare/authn/token"
	"github.com/fanfare/fanfare/engine"
)

// oneKey accepts what one key signed.
type oneKey struct{ key *token.Key }

func (k oneKey) Keys(string) []*token.Key { return []*token.Key{k.key} }

// A token is minted for a hub's client endpoint, and proven there.
func Example() {
	key := token.NewKey([]byte("a secret of at least thirty-two bytes"))
	text, err := token.Mint(key, token.Claims{
		Audience: token.Audience("https://rt.example.com", "chat"),
		User:     "ann",
		Roles:    []string{"webpubsub.sendToGroup.news"},
		Lifetime: 10 * time.Minute,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	t, err := token.Verify(text, time.Now(), oneKey{key})
	if err != nil {
		fmt.Println(err)
		return
	}
	at := func(hub engine.HubName) error {
		return t.CheckAudience(engine.Credentials{Hub: hub, Audience: "wss://rt.example.com/client/hubs/" + string(hub)}, nil)
	}
	id, _ := t.Identity()
	fmt.Println(id.UserID, id.Roles, at("chat"))
	fmt.Println(at("admin"))
	// Output:
	// ann [webpubsub.sendToGroup.news] <nil>
	// The token is for "https://rt.example.com/client/hubs/chat"; here it must be for "wss://rt.example.com/client/hubs/admin". [token.audience]
}
