package identity

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fanfare/fanfare/authn/internal/signing"
)

// Bounds of [Keys].
const (
	// MinAhead is how long at least a key is published before it signs, but for one that
	// no other could sign in place of.
	MinAhead = signing.CacheFor

	DefaultEvery = 30 * 24 * time.Hour
	MinEvery     = 6 * time.Hour
	MaxEvery     = 366 * 24 * time.Hour

	maxSecrets = 16

	// ahead is how long a key is published before it signs: readers may cache for half
	// of it, and clocks of nodes be off by the other.
	ahead = MinAhead + skew
	skew  = 5 * time.Minute
	// kept is how long a key counts after another has begun to sign.
	kept = MaxLifetime + skew

	// retry is how long until the store is asked again that failed to answer within
	// respite.
	retry   = time.Minute
	respite = 15 * time.Second
)

// KeysOptions are the knobs of [Keys]. Nil and zero mean the defaults.
type KeysOptions struct {
	// Algorithm is that of keys to be made: ES256, or RS256 with 2048 bits. Default
	// ES256. If the key that signs has another one as Keys are opened, a successor is
	// made at once.
	Algorithm string
	// Every is how long a key signs, 6 hours to 366 days. Default 30 days.
	Every time.Duration
	// Logger hears of keys that come and go, and of a store that fails. Default none.
	Logger *slog.Logger
}

// Keys are signing keys of users' tokens that are kept in the users' store and give
// way to each other in time. All nodes on one store have the same, if they have the
// same options and access keys. It is safe for concurrent use, and shows no secret to
// anybody.
//
// A key is published 10 minutes before it signs, then signs for KeysOptions.Every, and
// counts for a day and 5 minutes more, when the last token that it signed has expired;
// then it is removed. The first of all signs at once.
//
// A key is bound to the access key that was primary when it was made, by a
// fingerprint. When that access key is one of the service's no more, the key is
// removed and what it has signed counts no more. So that this does not befall a key
// that still signs, it gets a successor as soon as another access key is primary. One
// that was made when there was no access key is bound to none.
type Keys struct {
	store     Store
	algorithm string
	every     time.Duration
	log       *slog.Logger

	asking chan struct{} // of room for one: held while asking the store, before mu
	again  chan struct{} // of room for one: Follow is to look again

	mu       sync.Mutex // guards the rest
	ring     ring
	sweeping bool        // keys bound to foreign access keys are to be removed
	renewing bool        // the newest key, once it signs, gets a successor if it is outdated
	stored   []storedKey // as they were read last
	inUse    []storedKey // the signer first, then the newest
	users    *Users      // who follow; nil until they do

	made, removed, failures atomic.Int64
}

// OpenKeys reads the keys of a store, and makes one if there is none that counts.
// Secrets are the service's access keys, the primary first; there may be none, and
// empty ones stand for none. Keys that are bound to others are removed.
func OpenKeys(ctx context.Context, store Store, o *KeysOptions, secrets ...[]byte) (*Keys, error) {
	if o == nil {
		o = &KeysOptions{}
	}
	k := &Keys{
		store: store, algorithm: cmp.Or(o.Algorithm, ES256), every: cmp.Or(o.Every, DefaultEvery), log: o.Logger,
		asking: make(chan struct{}, 1), again: make(chan struct{}, 1), sweeping: true, renewing: true,
	}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.algorithm != ES256 && k.algorithm != RS256 {
		return nil, fmt.Errorf("identity: keys cannot sign by %s; %s and %s would pass", excerpt(k.algorithm), ES256, RS256)
	}
	if k.every < MinEvery || k.every > MaxEvery {
		return nil, fmt.Errorf("identity: keys cannot be changed every %s; %s to %s would pass", k.every, MinEvery, MaxEvery)
	}
	var err error
	if k.ring, err = newRing(secrets); err != nil {
		return nil, err
	}
	if _, err := k.settle(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Current returns the keys that count now, at least one unless [Keys.Bind] has failed,
// for [New]: the first signs.
func (k *Keys) Current() []Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return keysOf(k.inUse)
}

// Bind turns to other access keys, the primary first: keys that are bound to none of
// them count no more when it returns, whatever the store does, with the users that
// [Keys.Follow] has been given. Another is made if none is left. If that fails there is
// an error, users are issued no tokens, and Follow tries again.
func (k *Keys) Bind(ctx context.Context, secrets ...[]byte) error {
	r, err := newRing(secrets)
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.ring, k.sweeping, k.renewing = r, true, true
	k.turn(time.Now())
	k.mu.Unlock()
	_, err = k.settle(ctx)
	select {
	case k.again <- struct{}{}:
	default:
	}
	return err
}

// Follow gives users the keys that count, now and at each change, by [Users.Use], and
// makes and removes keys in time. It blocks until ctx ends, when it returns nil, or the
// store is closed. What the store fails to do is logged and tried again.
func (k *Keys) Follow(ctx context.Context, users *Users) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, err := k.store.Watch(ctx, storedKeys)
	if err != nil {
		return fmt.Errorf("identity: watch keys: %w", err)
	}
	k.mu.Lock()
	k.users = users
	users.turn(keysOf(k.inUse))
	k.mu.Unlock()
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-k.again:
		case _, open := <-changes:
			switch {
			case ctx.Err() != nil:
				return nil
			case !open:
				return fmt.Errorf("identity: watch keys: %w", ErrClosed)
			}
		}
		wake, err := k.attempt(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			k.failures.Add(1)
			k.log.ErrorContext(ctx, "keys of user access tokens cannot be looked after", slog.Any("error", err))
			wake = time.Now().Add(retry)
		}
		wait.Reset(time.Until(wake))
	}
}

func (k *Keys) attempt(ctx context.Context) (wake time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, respite)
	defer cancel()
	return k.settle(ctx)
}

// settle reads the keys, makes the next one if it is time to, removes those that are
// over, and returns when to look again. Once after the ring has changed, keys that are
// bound to foreign access keys are over too. Nodes whose ring has not yet changed may
// make such keys afterwards; these are left to them, and otherwise removed at the end
// of their time, lest two nodes remove each other's for ever.
func (k *Keys) settle(ctx context.Context) (wake time.Time, err error) {
	select {
	case k.asking <- struct{}{}:
		defer func() { <-k.asking }()
	case <-ctx.Done():
		return time.Time{}, fmt.Errorf("identity: keys: %w", ctx.Err())
	}
	for {
		stored, err := k.load(ctx)
		if err != nil {
			return time.Time{}, err
		}
		now := time.Now()
		k.mu.Lock()
		k.stored = stored
		p, r, sweeping, renewing := k.turn(now), k.ring, k.sweeping, k.renewing
		k.mu.Unlock()

		wanted := !now.Before(p.due) || renewing && p.signs() && k.outdated(p.newest, r)
		if wanted && p.free >= 0 {
			err := k.make(ctx, p, r, now)
			if err == nil || errors.Is(err, ErrConflict) { // ours, or another node's
				continue
			}
			return time.Time{}, fmt.Errorf("identity: make a key: %w", err)
		}
		over := p.over
		if sweeping {
			over = append(over, p.foreign...)
		}
		// Only now, so that whoever looks for the place of the next key finds the last.
		if err := k.remove(ctx, over); err != nil {
			return time.Time{}, err
		}
		switch {
		case wanted && len(over) > 0:
			continue // there are places again
		case wanted:
			return time.Time{}, fmt.Errorf("identity: make a key: all %d places in the store are taken", maxKeys)
		}
		k.mu.Lock()
		if slices.Equal(k.ring.all, r.all) { // else it has changed meanwhile
			k.sweeping, k.renewing = false, renewing && !p.signs() && k.outdated(p.newest, r)
		}
		k.mu.Unlock()
		return p.wake, nil
	}
}

// turn works out which keys count, and gives them to the users. mu is held.
func (k *Keys) turn(now time.Time) plan {
	p := k.ring.plan(k.stored, k.every, now)
	was := ""
	if len(k.inUse) > 0 {
		was = k.inUse[0].key.ID()
	}
	k.inUse = p.inUse
	if len(p.inUse) > 0 && p.inUse[0].key.ID() != was {
		k.log.Info("another key signs user access tokens", slog.Any("key", p.inUse[0].key), slog.Int("keys", len(p.inUse)))
	}
	if k.users != nil {
		k.users.turn(keysOf(p.inUse))
	}
	return p
}

// make puts the next key into the first free place behind the newest, where all nodes
// look for one, so that of several that make one the first wins.
func (k *Keys) make(ctx context.Context, p plan, r ring, now time.Time) error {
	next, err := GenerateKey(k.algorithm)
	if err != nil {
		return err
	}
	s := storedKey{key: next, signs: now, bound: r.primary}
	if len(p.inUse) > 0 {
		s.signs = now.Add(ahead)
		if on := p.newest.signs.Add(k.every); on.After(s.signs) && !k.outdated(p.newest, r) {
			s.signs = on
		}
	}
	value, err := s.encode()
	if err != nil {
		return err
	}
	if _, err := k.store.Put(ctx, placeKey(p.free), value, 0); err != nil {
		return err
	}
	k.made.Add(1)
	k.log.InfoContext(ctx, "made a key for user access tokens", slog.Any("key", next), slog.Time("signs", s.signs))
	return nil
}

// outdated reports whether a key would be another one if it were made now.
func (k *Keys) outdated(s storedKey, r ring) bool {
	return s.bound != r.primary || s.key.signing.Algorithm() != k.algorithm
}

func (k *Keys) remove(ctx context.Context, over []storedKey) error {
	for _, s := range over {
		err := k.store.Delete(ctx, placeKey(s.place), s.revision)
		if err == nil {
			k.removed.Add(1)
			k.log.InfoContext(ctx, "removed a key of user access tokens", slog.Any("key", s.key))
		} else if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrConflict) { // of which another node was faster
			return fmt.Errorf("identity: remove a key: %w", err)
		}
	}
	return nil
}

// KeysStats are counters of [Keys].
type KeysStats struct {
	Keys          int64 // that count now
	Made, Removed int64 // by this node, since the keys were opened
	Failures      int64 // of the store, in Follow
}

// Stats returns a snapshot of the counters.
func (k *Keys) Stats() KeysStats {
	k.mu.Lock()
	defer k.mu.Unlock()
	return KeysStats{Keys: int64(len(k.inUse)), Made: k.made.Load(), Removed: k.removed.Load(), Failures: k.failures.Load()}
}

// String shows the ids of the keys that count.
func (k *Keys) String() string {
	var ids []string
	for _, key := range k.Current() {
		ids = append(ids, key.ID())
	}
	return "keys " + strings.Join(ids, " ")
}

// GoString is String, for %#v.
func (k *Keys) GoString() string { return k.String() }

// LogValue is String, for slog.
func (k *Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }
