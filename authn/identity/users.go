package identity

import (
	"context"
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
	m, err := u.make(ctx, record{generation: 1})
	if err != nil {
		return "", err
	}
	u.created.Add(1)
	return u.idOf(m.number), nil
}

// make writes the first record of a user.
func (u *Users) make(ctx context.Context, r record) (made, error) {
	number, err := uuid.NewV7()
	if err != nil {
		return made{}, fmt.Errorf("identity: %w", err)
	}
	revision, err := u.store.Put(ctx, keyOfUser(number), r.encode(), 0)
	if err != nil {
		return made{}, failed("create a user", err)
	}
	return made{number, revision}, nil
}

// Issue signs a token for a user, with at least one scope, that lives for 60 to 1440
// whole minutes; 0 means 1440. The store keeps nothing of it. An error may be of
// engine.CodeInvalid (user.id, user.scopes, user.lifetime) or engine.CodeNotFound
// (user.unknown).
func (u *Users) Issue(ctx context.Context, id engine.UserID, scopes []string, lifetime time.Duration) (token string, expires time.Time, err error) {
	if lifetime, err = checkLifetime(lifetime); err != nil {
		return "", time.Time{}, err
	}
	now := time.Now()
	return u.issue(ctx, id, scopes, now, now.Add(lifetime))
}

// IssueUntil is [Users.Issue] with an end in place of a lifetime: at least a minute and
// at most 24 hours ahead, of which the whole seconds count.
func (u *Users) IssueUntil(ctx context.Context, id engine.UserID, scopes []string, expires time.Time) (token string, _ time.Time, err error) {
	now := time.Now()
	if err := checkEnd(now, expires); err != nil {
		return "", time.Time{}, err
	}
	return u.issue(ctx, id, scopes, now, expires)
}

func (u *Users) issue(ctx context.Context, id engine.UserID, scopes []string, now, expires time.Time) (token string, _ time.Time, err error) {
	number, err := u.number(id)
	if err != nil {
		return "", time.Time{}, err
	}
	if scopes, err = foldScopes(scopes); err != nil {
		return "", time.Time{}, err
	}
	r, _, err := u.find(ctx, keyOfUser(number))
	if err != nil {
		return "", time.Time{}, u.missing(id, "issue a token", err)
	}
	expires = time.Unix(expires.Unix(), 0)
	token, err = u.mint(id, scopes, now, expires, r.generation)
	if err != nil {
		return "", time.Time{}, err
	}
	u.issued.Add(1)
	return token, expires, nil
}

// Revoke ends all tokens that the user has; those issued afterwards count. An error
// may be of engine.CodeInvalid (user.id) or engine.CodeNotFound (user.unknown).
func (u *Users) Revoke(ctx context.Context, id engine.UserID) error {
	err := u.change(ctx, id, "revoke tokens", func(number uuid.UUID, r record, revision uint64) error {
		r.generation++
		_, err := u.store.Put(ctx, keyOfUser(number), r.encode(), revision)
		return err
	})
	if err == nil {
		u.revoked.Add(1)
	}
	return err
}

// Delete removes a user, and the name that it was made for, and ends all its tokens.
// Its id never comes back. Errors are those of [Users.Revoke]: whom there is not cannot
// be deleted.
func (u *Users) Delete(ctx context.Context, id engine.UserID) error {
	err := u.change(ctx, id, "delete a user", func(number uuid.UUID, r record, revision uint64) error {
		err := u.store.Delete(ctx, keyOfUser(number), revision)
		if err == nil && r.name != nil {
			u.forget(ctx, r.name, number)
		}
		return err
	})
	if err == nil {
		u.deleted.Add(1)
	}
	return err
}

// change does something with the record of a user, again if another was faster.
func (u *Users) change(ctx context.Context, id engine.UserID, what string, do func(number uuid.UUID, r record, revision uint64) error) error {
	number, err := u.number(id)
	if err != nil {
		return err
	}
	for {
		r, revision, err := u.find(ctx, keyOfUser(number))
		if err == nil {
			err = do(number, r, revision)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, ErrConflict) || ctx.Err() != nil:
			return u.missing(id, what, err)
		}
	}
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
			if r, known := decodeRecord(c.Value); !ok || known && r.generation == 1 {
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

// claimNames are those of every token.
var claimNames = []string{"iss", "skypeid", "scp", "csi", "iat", "exp", "acsScope", "resourceId", "gen"}

// Discovery serves, below the path of an issuer that is an http or https URL, what
// readers find the keys by (OpenID Connect Discovery 1.0), and the keys: with the
// issuer https://rt.example.com/identities at
//
//	/identities/.well-known/openid-configuration
//	/identities/.well-known/jwks.json
//
// It hands all other requests to fallback, which may be nil for not found.
func (u *Users) Discovery(fallback http.Handler) http.Handler {
	return signing.Discovery(u.issuer, claimNames, func() signing.KeySet { return u.keys.Load().published }, fallback)
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
