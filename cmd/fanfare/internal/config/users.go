package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/engine"
	"github.com/fanfare/fanfare/transport/rest"
)

// Users is about the users that the service keeps, and their access tokens.
type Users struct {
	Scopes           Scopes        `key:"scopes"`
	CloseOnRevoke    bool          `key:"closeOnRevoke" doc:"true: the connections of a user are closed when its tokens are revoked or it is deleted"`
	ClockSkew        time.Duration `key:"clockSkew" doc:"how far the date of a signed request may be off this node's clock, 1s to 15m"`
	SigningAlgorithm string        `key:"signingAlgorithm" doc:"what signs user access tokens: ES256 or RS256"`
	KeyRotation      time.Duration `key:"keyRotation" doc:"how long a signing key that is kept in the store signs before the next one takes over, 24h to 8760h"`
	Audiences        []string      `key:"audiences" doc:"what tokens of application servers that manage users must be for, beside entra's other conditions; default: https://communication.azure.com"`
	Exchange         Exchange      `key:"exchange"`
	RateLimits       RateLimits    `key:"rateLimits"`
}

// Scopes say what a user access token of each scope is worth at the client doors.
type Scopes struct {
	Chat            Scope `key:"chat"`
	ChatJoin        Scope `key:"chat.join"`
	ChatJoinLimited Scope `key:"chat.join.limited"`
	VoIP            Scope `key:"voip"`
	VoIPJoin        Scope `key:"voip.join"`
}

// Scope is what one scope is worth.
type Scope struct {
	Hubs   []string `key:"hubs" doc:"hubs that tokens of this scope open; \"*\" means every one; default: every one for chat, none for others"`
	Roles  []string `key:"roles" doc:"what their clients may do; default for chat: webpubsub.joinLeaveGroup and webpubsub.sendToGroup"`
	Groups []string `key:"groups" doc:"groups that their clients are in from the start"`
}

// Exchange is about tokens of Microsoft Entra ID's users that are exchanged for
// user access tokens.
type Exchange struct {
	Audiences []string `key:"audiences" doc:"what such tokens must be for; default: https://auth.msft.communication.azure.com, https://communication.azure.com/clients and https://communication.azure.com"`
}

// RateLimits bound the requests about users, of all callers together.
type RateLimits struct {
	Create   int `key:"create" doc:"requests in 30 s that create users, and as many that create them with a token; 0: no limit"`
	Issue    int `key:"issue" doc:"requests in 30 s that issue tokens; 0: no limit"`
	Revoke   int `key:"revoke" doc:"requests in 30 s that revoke tokens; 0: no limit"`
	Delete   int `key:"delete" doc:"requests in 30 s that delete users; 0: no limit"`
	Exchange int `key:"exchange" doc:"requests in 30 s of each kind that exchange tokens, or say who may; 0: no limit"`
}

// Limits returns the limits as the door knows them.
func (r RateLimits) Limits() rest.IdentityLimits {
	limit := func(n int) int {
		if n == 0 {
			return -1
		}
		return n
	}
	return rest.IdentityLimits{
		Create: limit(r.Create), CreateWithToken: limit(r.Create), Issue: limit(r.Issue),
		Delete: limit(r.Delete), Revoke: limit(r.Revoke), Exchange: limit(r.Exchange), Assign: limit(r.Exchange),
	}
}

// Store is where the node keeps what outlives it.
type Store struct {
	Dir string `key:"dir" doc:"folder for users, revocations and signing keys, of this node alone; default: they are kept in memory and end with the node"`
}

// defaultUsers holds the service's own limits.
func defaultUsers() Users {
	return Users{
		Scopes: Scopes{Chat: Scope{
			Hubs: []string{"*"}, Roles: []string{"webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"},
		}},
		CloseOnRevoke: true, ClockSkew: 5 * time.Minute, SigningAlgorithm: "ES256", KeyRotation: 720 * time.Hour,
		RateLimits: RateLimits{Create: 1000, Issue: 1000, Revoke: 500, Delete: 500, Exchange: 500},
	}
}

// each calls f with every scope and its key.
func (s *Scopes) each(f func(key string, of *Scope)) {
	f(identity.ScopeChat, &s.Chat)
	f(identity.ScopeChatJoin, &s.ChatJoin)
	f(identity.ScopeChatJoinLimited, &s.ChatJoinLimited)
	f(identity.ScopeVoIP, &s.VoIP)
	f(identity.ScopeVoIPJoin, &s.VoIPJoin)
}

// Grants returns what the scopes are worth, those alone that open something.
func (s *Scopes) Grants() map[string]identity.Grant {
	grants := map[string]identity.Grant{}
	s.each(func(key string, of *Scope) {
		if len(of.Hubs) == 0 {
			return
		}
		g := identity.Grant{Roles: of.Roles}
		for _, h := range of.Hubs {
			g.Hubs = append(g.Hubs, engine.HubName(h))
		}
		if slices.Contains(of.Hubs, "*") {
			g.Hubs = nil
		}
		for _, name := range of.Groups {
			g.Groups = append(g.Groups, engine.GroupName(name))
		}
		grants[key] = g
	})
	return grants
}

// users checks what is said about users and where they are kept.
func (d *decoder) users(c *Config) {
	u := &c.Users
	u.SigningAlgorithm = d.oneOf(u.SigningAlgorithm, "users.signingAlgorithm", "ES256", "RS256")
	if u.ClockSkew < time.Second || u.ClockSkew > 15*time.Minute {
		d.bad("users.clockSkew", "found %s; expected 1s to 15m", span(u.ClockSkew))
	}
	if u.KeyRotation < 24*time.Hour || u.KeyRotation > 8760*time.Hour {
		d.bad("users.keyRotation", "found %s; expected 24h to 8760h", span(u.KeyRotation))
	}
	for path, list := range map[string][]string{"users.audiences": u.Audiences, "users.exchange.audiences": u.Exchange.Audiences} {
		for i, audience := range list {
			if audience == "" || strings.TrimSpace(audience) != audience {
				d.bad(fmt.Sprintf("%s[%d]", path, i), "found %s; expected what tokens are for, such as https://communication.azure.com", quote(audience))
			}
		}
	}
	for _, bound := range []struct {
		key string
		got int
	}{
		{"create", u.RateLimits.Create}, {"issue", u.RateLimits.Issue}, {"revoke", u.RateLimits.Revoke},
		{"delete", u.RateLimits.Delete}, {"exchange", u.RateLimits.Exchange},
	} {
		if bound.got < 0 || bound.got > 1<<30 {
			d.bad("users.rateLimits."+bound.key, "found %d; expected 0 to %d", bound.got, 1<<30)
		}
	}
	for path, unused := range map[string]string{"users.audiences": "entra.tenantId", "users.exchange.audiences": "entra.tenantId", "users.keyRotation": "store.dir"} {
		at, ok := d.places[path]
		if ok && (unused == "store.dir" && c.Store.Dir == "" || unused == "entra.tenantId" && !c.Entra.Enabled()) {
			d.warn(at, path, "not used while %s is not set", unused)
		}
	}
	u.Scopes.each(func(key string, of *Scope) { d.scope(of, join("users.scopes", key)) })
}

// scope checks what one scope opens, and brings hubs into their one form.
func (d *decoder) scope(s *Scope, path string) {
	for i, h := range s.Hubs {
		name, err := hubName(h)
		if err != nil {
			d.bad(fmt.Sprintf("%s[%d]", join(path, "hubs"), i), "found %s; expected a hub's name, or \"*\" for every hub", quote(h))
			continue
		}
		s.Hubs[i] = name
	}
	for i, g := range s.Groups {
		if _, err := engine.ParseGroupName(g); err != nil {
			d.bad(fmt.Sprintf("%s[%d]", join(path, "groups"), i), "%s", said(err))
		}
	}
	if len(s.Hubs) > 0 {
		return
	}
	for _, key := range []string{"roles", "groups"} {
		if at, ok := d.places[join(path, key)]; ok {
			d.warn(at, join(path, key), "not used: tokens of this scope open no hub; expected some in %s", join(path, "hubs"))
		}
	}
}
