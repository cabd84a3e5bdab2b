package identity

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/fanfare/fanfare/authn/internal/signing"
	"github.com/fanfare/fanfare/engine"
)

// Options are the knobs of [Users]. Nil and zero mean the defaults.
type Options struct {
	// Resource is the UUID that stands for this service in its users' ids. By default
	// the store keeps one, made when it is first used.
	Resource string
	// Issuer is what tokens call their issuer, in printable ASCII without quotes,
	// backslashes and ">?~". Default "urn:fanfare:users:" and the resource.
	Issuer string
}

// Users are those that the service keeps. It is safe for concurrent use, also of one
// store by several of the same resource and keys.
type Users struct {
	store    Store
	resource string
	issuer   string
	keys     atomic.Pointer[keyring]

	created, deleted, issued, revoked, accepted atomic.Int64
}

// New returns the users of a store. Of the keys, at least one, the first signs and all
// are accepted. It may ask the store.
func New(ctx context.Context, store Store, o *Options, keys ...Key) (*Users, error) {
	if o == nil {
		o = &Options{}
	}
	u := &Users{store: store, resource: strings.ToLower(o.Resource), issuer: o.Issuer}
	if err := u.Use(keys...); err != nil {
		return nil, err
	}
	if u.resource == "" {
		var err error
		if u.resource, err = ownResource(ctx, store); err != nil {
			return nil, err
		}
	}
	if !canonical(u.resource) {
		return nil, fmt.Errorf("identity: the resource %s is no UUID", excerpt(u.resource))
	}
	if u.issuer == "" {
		u.issuer = "urn:fanfare:users:" + u.resource
	}
	if len(u.issuer) > 512 || strings.ContainsFunc(u.issuer, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"\>?~`, r) }) {
		return nil, fmt.Errorf("identity: the issuer is %s; up to 512 characters of printable ASCII without blanks, quotes, backslashes and >?~ would pass", excerpt(u.issuer))
	}
	return u, nil
}

// ownResource returns the resource that the store keeps, and makes it if there is none.
func ownResource(ctx context.Context, store Store) (string, error) {
	const key = "resource"
	for {
		value, _, err := store.Get(ctx, key)
		if err == nil {
			return string(value), nil
		}
		if errors.Is(err, ErrNotFound) {
			_, err = store.Put(ctx, key, []byte(uuid.NewString()), 0)
		}
		if err != nil && !errors.Is(err, ErrConflict) { // of a conflict the winner's counts
			return "", fmt.Errorf("identity: the store's resource: %w", err)
		}
	}
}

// Resource returns the UUID that is in all ids.
func (u *Users) Resource() string { return u.resource }

// Create makes a user without tokens. Like all verbs that ask the store, it refuses
// with engine.CodeUnavailable and the rule user.store if that fails.
func (u *Users) Create(ctx context.Context) (engine.UserID, error) {
	number, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("identity: %w", err)
	}
	if _, err := u.store.Put(ctx, keyOfUser(number), encodeRecord(1), 0); err != nil {
		return "", failed("create a user", err)
	}
	u.created.Add(1)
	return u.idOf(number), nil
}

// Issue signs a token for a user, with at least one scope, that lives for 60 to 1440
// whole minutes; 0 means 1440. The store keeps nothing of it. An error may be of
// engine.CodeInvalid (user.id, user.scopes, user.lifetime) or engine.CodeNotFound
// (user.unknown).
func (u *Users) Issue(ctx context.Context, id engine.UserID, scopes []string, lifetime time.Duration) (token string, expires time.Time, err error) {
	number, err := u.number(id)
	if err != nil {
		return "", time.Time{}, err
	}
	if scopes, err = foldScopes(scopes); err != nil {
		return "", time.Time{}, err
	}
	if lifetime, err = checkLifetime(lifetime); err != nil {
		return "", time.Time{}, err
	}
	generation, _, err := u.find(ctx, keyOfUser(number))
	if err != nil {
		return "", time.Time{}, u.missing(id, "issue a token", err)
	}
	token, expires, err = u.mint(id, scopes, lifetime, generation, time.Now())
	if err == nil {
		u.issued.Add(1)
	}
	return token, expires, err
}

// Revoke ends all tokens that the user has; those issued afterwards count. An error
// may be of engine.CodeInvalid (user.id) or engine.CodeNotFound (user.unknown).
func (u *Users) Revoke(ctx context.Context, id engine.UserID) error {
	err := u.change(ctx, id, "revoke tokens", func(key string, generation, revision uint64) error {
		_, err := u.store.Put(ctx, key, encodeRecord(generation+1), revision)
		return err
	})
	if err == nil {
		u.revoked.Add(1)
	}
	return err
}

// Delete removes a user and ends all its tokens. Its id never comes back. Errors are
// those of [Users.Revoke]: whom there is not cannot be deleted.
func (u *Users) Delete(ctx context.Context, id engine.UserID) error {
	err := u.change(ctx, id, "delete a user", func(key string, _, revision uint64) error {
		return u.store.Delete(ctx, key, revision)
	})
	if err == nil {
		u.deleted.Add(1)
	}
	return err
}

// change does something with the record of a user, again if another was faster.
func (u *Users) change(ctx context.Context, id engine.UserID, what string, do func(key string, generation, revision uint64) error) error {
	number, err := u.number(id)
	if err != nil {
		return err
	}
	key := keyOfUser(number)
	for {
		generation, revision, err := u.find(ctx, key)
		if err == nil {
			err = do(key, generation, revision)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ErrConflict) || ctx.Err() != nil:
			return u.missing(id, what, err)
		}
	}
}

// find returns a user's record.
func (u *Users) find(ctx context.Context, key string) (generation, revision uint64, err error) {
	value, revision, err := u.store.Get(ctx, key)
	if err != nil {
		return 0, 0, err
	}
	generation, ok := decodeRecord(value)
	if !ok {
		return 0, 0, fmt.Errorf("the record %s is in no known format", key)
	}
	return generation, revision, nil
}

// A record is the number of its format and the user's generation.
const recordFormat = 1

func encodeRecord(generation uint64) []byte {
	return binary.AppendUvarint([]byte{recordFormat}, generation)
}

func decodeRecord(value []byte) (generation uint64, ok bool) {
	if len(value) < 2 || value[0] != recordFormat {
		return 0, false
	}
	generation, n := binary.Uvarint(value[1:])
	return generation, n == len(value)-1
}

func (u *Users) missing(id engine.UserID, what string, err error) error {
	if errors.Is(err, ErrNotFound) {
		return unknown(id)
	}
	return failed(what, err)
}

func failed(what string, err error) error {
	return &engine.Error{
		Code: engine.CodeUnavailable, Rule: "user.store", Message: "The users of this service cannot be reached at present.",
		Detail: "While about to " + what + ".", Err: err,
	}
}

// Ended returns a channel of the users whose tokens are revoked or who are deleted
// from now on, here or by others on the same store, for their connections to be
// ended. Of a user to whom this happens again before the channel is read, one word
// comes. It is closed when ctx ends, and with the store.
func (u *Users) Ended(ctx context.Context) (<-chan engine.UserID, error) {
	ctx, cancel := context.WithCancel(ctx)
	changes, err := u.store.Watch(ctx, userKeys)
	if err != nil {
		cancel()
		return nil, failed("watch users", err)
	}
	ended := make(chan engine.UserID)
	go func() { // ends with ctx or the store
		defer cancel()
		defer close(ended)
		for c := range changes {
			number, ok := numberOfKey(c.Key)
			if generation, known := decodeRecord(c.Value); !ok || known && generation == 1 {
				continue // a new one
			}
			select {
			case ended <- u.idOf(number):
			case <-ctx.Done():
				return
			}
		}
	}()
	return ended, nil
}

// Handler serves the public keys as a JWKS, whatever the path: it is for the embedder
// to say where.
func (u *Users) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signing.ServePage(w, r, u.keys.Load().published)
	})
}

// Stats are the counters of [Users], since it was made.
type Stats struct {
	Created, Deleted int64 // users
	Issued, Accepted int64 // tokens
	Revoked          int64 // calls of Revoke that took effect
}

// Stats returns a snapshot of the counters.
func (u *Users) Stats() Stats {
	return Stats{
		Created: u.created.Load(), Deleted: u.deleted.Load(), Issued: u.issued.Load(),
		Accepted: u.accepted.Load(), Revoked: u.revoked.Load(),
	}
}
