package identity

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// fingerprint tells an access key from others and nothing else of it. The zero one
// stands for none.
type fingerprint [sha256.Size]byte

// ring is the fingerprints of the service's access keys.
type ring struct {
	primary fingerprint
	all     []fingerprint
}

func newRing(secrets [][]byte) (r ring, err error) {
	if len(secrets) > maxSecrets {
		return ring{}, fmt.Errorf("identity: %d access keys were given; at most %d would pass", len(secrets), maxSecrets)
	}
	for _, secret := range secrets {
		if len(secret) == 0 {
			continue
		}
		sum, err := hkdf.Key(sha256.New, secret, nil, "fanfare: fingerprint that keys of user access tokens are bound to", sha256.Size)
		if err != nil {
			return ring{}, fmt.Errorf("identity: %w", err)
		}
		r.all = append(r.all, fingerprint(sum))
	}
	if len(r.all) > 0 {
		r.primary = r.all[0]
	}
	return r, nil
}

// has reports whether what is bound to an access key counts.
func (r ring) has(bound fingerprint) bool {
	return bound == fingerprint{} || slices.Contains(r.all, bound)
}

// plan is what stored keys mean at a time.
type plan struct {
	inUse   []storedKey // those that count: the signer first, then the newest
	newest  storedKey   // of these, the one that signs last
	over    []storedKey // their time has passed
	foreign []storedKey // they are bound to access keys that are not the service's

	free int // the first free place behind the newest of all; -1 if none is

	due  time.Time // when the next one is to be made
	wake time.Time // when the plan may be another
}

// signs reports whether the newest key signs.
func (p plan) signs() bool { return p.inUse[0].place == p.newest.place }

// plan looks at keys in the order in which they sign.
func (r ring) plan(stored []storedKey, every time.Duration, now time.Time) plan {
	p := plan{free: -1, due: now}
	last, taken := maxKeys-1, [maxKeys]bool{}
	var mine []storedKey
	for _, s := range stored {
		last, taken[s.place] = s.place, true
		switch {
		case r.has(s.bound):
			mine = append(mine, s)
		case !now.Before(s.signs.Add(every + ahead + kept)):
			p.over = append(p.over, s)
		default:
			p.foreign = append(p.foreign, s)
		}
	}
	for n := maxKeys; n > 0; n-- {
		if place := (last + n) % maxKeys; !taken[place] {
			p.free = place
		}
	}
	p.wake = now.Add(every) // or sooner
	sooner := func(t time.Time) {
		if t.After(now) && t.Before(p.wake) {
			p.wake = t
		}
	}
	signer := 0
	for i, s := range mine {
		sooner(s.signs)
		if !s.signs.After(now) {
			signer = i
		}
		if i+1 == len(mine) {
			p.newest = s
			p.due = s.signs.Add(every - ahead)
			sooner(p.due)
			continue
		}
		end := mine[i+1].signs.Add(kept)
		sooner(end)
		if !now.Before(end) {
			p.over = append(p.over, s)
		}
	}
	for i, s := range slices.Backward(mine) {
		if i == signer {
			p.inUse = slices.Insert(p.inUse, 0, s)
		} else if i+1 == len(mine) || now.Before(mine[i+1].signs.Add(kept)) {
			p.inUse = append(p.inUse, s)
		}
	}
	return p
}
