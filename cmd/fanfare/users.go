package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/filestore"
	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/engine"
)

// users are those that the service keeps, and where it keeps them.
type users struct {
	*identity.Users
	node   *node
	store  closingStore
	kept   *identity.Keys               // in the store; nil where that is memory
	ownKey func() (identity.Key, error) // where nothing is kept and no secret of the service's own is there

	life    context.Context // ends with close
	end     context.CancelFunc
	running sync.WaitGroup
}

// closingStore is a store that is let go of in the end.
type closingStore interface {
	identity.Store
	Close() error
}

// storeFile is the file in the store's folder.
const storeFile = "fanfare.db"

// openStore opens the store that the settings name.
func openStore(c *config.Config) (closingStore, error) {
	if c.Store.Dir == "" {
		return identity.NewMemoryStore(), nil
	}
	if err := os.MkdirAll(c.Store.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("store.dir: %w", err)
	}
	return filestore.Open(filepath.Join(c.Store.Dir, storeFile))
}

// newUsers opens the store and returns its users, whose keys are those of c. The
// caller ends it with close.
func newUsers(n *node, c *config.Config) (*users, error) {
	u := &users{node: n, ownKey: sync.OnceValues(func() (identity.Key, error) { return identity.GenerateKey(c.Users.SigningAlgorithm) })}
	u.life, u.end = context.WithCancel(context.Background())
	var err error
	if u.store, err = openStore(c); err != nil {
		return nil, err
	}
	var keys []identity.Key
	if c.Store.Dir == "" {
		keys, err = u.derived(c)
	} else if u.kept, err = identity.OpenKeys(u.life, u.store, &identity.KeysOptions{
		Algorithm: c.Users.SigningAlgorithm, Every: c.Users.KeyRotation, Logger: n.log.With("room", "identity"),
	}, secrets(c)...); err == nil {
		keys = u.kept.Current()
	}
	if err == nil {
		u.Users, err = identity.New(u.life, u.store, &identity.Options{Issuer: n.endpoint(c) + usersPath}, keys...)
	}
	if err != nil {
		return nil, errors.Join(err, u.store.Close())
	}
	return u, nil
}

// usersPath is where everything about users is.
const usersPath = "/identities"

// use turns to the keys of other settings.
func (u *users) use(c *config.Config) error {
	if u.kept != nil {
		// What stems from an access key that is gone counts no more, also where the
		// store fails; that is tried again.
		if err := u.kept.Bind(u.life, secrets(c)...); err != nil {
			u.node.log.Error("no key to sign user access tokens by", "error", err)
		}
		return nil
	}
	keys, err := u.derived(c)
	if err != nil {
		return err
	}
	return u.Use(keys...)
}

// derived returns what signs tokens where nothing is kept, as [node.serviceKeys] has it
// for handlers' tokens.
func (u *users) derived(c *config.Config) (keys []identity.Key, err error) {
	if u.node.started.Users.SigningAlgorithm == identity.ES256 { // which alone can be derived
		for _, secret := range lastingSecrets(c) {
			k, err := identity.DeriveKey(secret)
			if err != nil {
				return nil, err
			}
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	own, err := u.ownKey()
	return []identity.Key{own}, err
}

// secrets returns the access keys in force, to which what the store keeps is bound.
func secrets(c *config.Config) (all [][]byte) {
	for _, k := range c.Keys() {
		all = append(all, []byte(k.Reveal()))
	}
	return all
}

// watch closes the connections of users whose tokens end, and has keys give way to
// each other, until close.
func (u *users) watch() error {
	ended, err := u.Ended(u.life)
	if err != nil {
		return err
	}
	u.running.Go(func() { // ends with life
		for id := range ended {
			if u.node.settings.Load().config.Users.CloseOnRevoke {
				u.disconnect(id)
			}
		}
	})
	if u.kept != nil {
		u.running.Go(func() { // ends with life
			if err := u.kept.Follow(u.life, u.Users); err != nil {
				u.node.log.Error("the keys of user access tokens stay as they are", "error", err)
			}
		})
	}
	return nil
}

// disconnect closes the connections of a user in all hubs. Who is on its way in is
// turned away by its admission (engine.Identity.Standing).
func (u *users) disconnect(id engine.UserID) {
	for _, hub := range u.node.engine.Hubs() {
		if err := hub.CloseUser(u.life, id, "The access tokens of the user were revoked."); err != nil && u.life.Err() == nil {
			u.node.log.Error("connections of a user whose tokens were revoked may be open still", "hub", hub.Name(), "user", id, "error", err)
		}
	}
}

// close ends what is under way and lets go of the store.
func (u *users) close() error {
	u.end()
	u.running.Wait()
	return u.store.Close()
}
