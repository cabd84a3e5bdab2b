package main

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/fanfare/fanfare/authn/issuer"
	"github.com/fanfare/fanfare/authn/keyvault"
	"github.com/fanfare/fanfare/authn/managed"
	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/transport/webhook"
)

// serviceIdentity is what the service proves itself with to those it calls: to event
// handlers by tokens, to vaults for the secrets in URL templates.
type serviceIdentity struct {
	key identityKey

	tokens  webhook.TokenSource // nil without an identity
	secrets *keyvault.Secrets   // nil likewise
	issuer  *issuer.Issuer      // nil unless the node issues its tokens itself
	managed *managed.Tokens     // nil unless Azure does
}

// identityKey is what an identity is made from.
type identityKey struct {
	identity config.Identity
	hosts    string // further vaults, with commas
	url      string // of the issuer, where the node is one
}

func identityOf(c *config.Config, endpoint string) identityKey {
	k := identityKey{identity: c.Identity, hosts: strings.Join(c.KeyVault.AllowedHosts, ",")}
	k.identity.DefaultResource = "" // a matter of each handler
	if c.Identity.Type == config.IdentityLocal {
		k.url = endpoint
	}
	return k
}

// newIdentity makes the identity of k, and none where there is to be none. keys are
// those of an issuer.
func newIdentity(k identityKey, keys []issuer.Key, log *slog.Logger) (*serviceIdentity, error) {
	id := &serviceIdentity{key: k}
	switch k.identity.Type {
	case config.IdentityNone:
		return id, nil
	case config.IdentityLocal:
		i, err := issuer.New(k.url, nil, keys...)
		if err != nil {
			return nil, err
		}
		id.issuer, id.tokens = i, i
	default:
		credential, err := k.identity.Managed().Credential(nil)
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		id.managed = managed.NewTokens(credential, &managed.Options{Logger: log.With("room", "managed")})
		id.tokens = id.managed
	}
	var further []string
	if k.hosts != "" {
		further = strings.Split(k.hosts, ",")
	}
	hosts, err := keyvault.NewHosts(further...)
	if err != nil {
		id.Close()
		return nil, err
	}
	id.secrets = keyvault.New(id.tokens, &keyvault.Options{Hosts: hosts, Logger: log.With("room", "keyvault")})
	return id, nil
}

var (
	_ io.Closer            = (*serviceIdentity)(nil)
	_ webhook.TokenSource  = (*managed.Tokens)(nil)
	_ webhook.TokenSource  = (*issuer.Issuer)(nil)
	_ webhook.SecretSource = (*keyvault.Secrets)(nil)
)

// again follows settings that were read again and name the same identity.
func (id *serviceIdentity) again(keys []issuer.Key) {
	if id.issuer != nil {
		// There are one or two of them, which an issuer has room for.
		_ = id.issuer.Use(keys...)
	}
	if id.secrets != nil {
		id.secrets.Reload()
	}
}

// Close ends what is under way. It always returns nil.
func (id *serviceIdentity) Close() error {
	if id.secrets != nil {
		id.secrets.Close()
	}
	if id.managed != nil {
		id.managed.Close()
	}
	return nil
}

// serviceKeys returns the keys that sign service tokens where the node issues
// them: derived from its access keys, so that all nodes of a service agree, also
// while local authentication is off. A key that everybody knows would let anybody
// sign; where there is no other, the node has one that lasts as long as it does.
func (n *node) serviceKeys(c *config.Config) ([]issuer.Key, error) {
	if c.Identity.Type != config.IdentityLocal {
		return nil, nil
	}
	var keys []issuer.Key
	for _, secret := range lastingSecrets(c) {
		k, err := issuer.DeriveKey(secret)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) > 0 {
		return keys, nil
	}
	own, err := n.ownKey()
	return []issuer.Key{own}, err
}

// lastingSecrets returns the access keys that are the service's own, the primary
// one first, for keys to be derived from.
func lastingSecrets(c *config.Config) (secrets [][]byte) {
	for _, k := range []config.Secret{c.AccessKeys.Primary, c.AccessKeys.Secondary} {
		if k != "" && k != config.DevelopmentKey {
			secrets = append(secrets, []byte(k.Reveal()))
		}
	}
	return secrets
}

// published serves what the issuers of the node's own tokens and of users' tokens
// publish, below the paths of their URLs. Those of users keep the URL of the start.
func (n *node) published(c *config.Config, fallback http.Handler) http.Handler {
	if publicPath(c) == "" && publicPath(n.started) == "" {
		return n.discovery(n.users.Discovery(fallback))
	}
	users := addPrefix(publicPath(n.started), n.users.Discovery(nil))
	service := addPrefix(publicPath(c), n.discovery(http.NotFoundHandler()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.EscapedPath(); {
		case strings.HasPrefix(path, usersPath+wellKnown):
			users.ServeHTTP(w, r)
		case strings.HasPrefix(path, wellKnown):
			service.ServeHTTP(w, r)
		default:
			fallback.ServeHTTP(w, r)
		}
	})
}

// wellKnown begins the paths that issuers publish, below their own.
const wellKnown = "/.well-known/"

// discovery serves the keys of the node's own tokens, where it has any.
func (n *node) discovery(fallback http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i := n.settings.Load().identity.issuer; i != nil {
			i.Handler(fallback).ServeHTTP(w, r)
			return
		}
		fallback.ServeHTTP(w, r)
	})
}
