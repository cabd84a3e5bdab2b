package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/fanfare/fanfare/engine"
)

// MaxName is how many bytes a user's name may have.
const MaxName = 2 << 10

// nameKeys begins the keys of names in a store.
const nameKeys = "name."

const hashLen = sha256.Size

// nameFormat begins the record of a name. The user's number follows.
const nameFormat = 1

// patience is how long is spent on tidying up after a caller who may be gone.
const patience = 5 * time.Second

// hashOf is what is kept of a name, or of several parts of one, in place of it. Who
// has the store can try guesses on it, and read nothing.
func hashOf(purpose string, parts ...string) []byte {
	h := sha256.New()
	h.Write([]byte("fanfare: " + purpose))
	for _, p := range parts { // none of which holds a zero, but the last
		h.Write([]byte{0})
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

func keyOfName(hash []byte) string { return nameKeys + keyEncoding.EncodeToString(hash) }

// Named returns the user of a name of 1 to 2048 bytes, and makes one if there is none
// or it has been deleted. All who ask for one name get the same user, however many do
// so at a time. Of the name its hash alone is kept. An error may be of
// engine.CodeInvalid (user.name).
//
// The name's record leads to the user, whose own record is written first, so that it
// never leads to one who has not been there. A crash between the two leaves a user
// whose id nobody has been told.
func (u *Users) Named(ctx context.Context, name string) (engine.UserID, error) {
	if name == "" || len(name) > MaxName {
		return "", invalid("user.name", "customId", "The name of a user has %d bytes: expected 1 to %d.", len(name), MaxName)
	}
	hash := hashOf("name of a user", name)
	key := keyOfName(hash)
	var mine made
	for {
		number, revision, alive, err := u.holder(ctx, key)
		switch {
		case err != nil:
			return "", failed("look up a name", err)
		case alive && mine.revision != 0 && number != mine.number:
			u.abandon(ctx, mine) // another was faster
			fallthrough
		case alive:
			return u.idOf(number), nil
		}
		if mine.revision == 0 {
			if mine, err = u.make(ctx, record{generation: 1, name: hash}); err != nil {
				return "", err
			}
		}
		_, err = u.store.Put(ctx, key, append([]byte{nameFormat}, mine.number[:]...), revision)
		switch {
		case err == nil:
			u.created.Add(1)
			return u.idOf(mine.number), nil
		case !errors.Is(err, ErrConflict):
			// The name may lead to the user all the same, who therefore stays.
			return "", failed("name a user", err)
		}
	}
}

// made is a user's record as it was written first.
type made struct {
	number   uuid.UUID
	revision uint64
}

// holder returns the user that a name leads to, the revision of the name's record,
// which is 0 if there is none, and whether that user is there.
func (u *Users) holder(ctx context.Context, key string) (number uuid.UUID, revision uint64, alive bool, err error) {
	number, revision, err = u.readName(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return number, 0, false, nil
	}
	if err != nil {
		return number, 0, false, err
	}
	_, _, err = u.find(ctx, keyOfUser(number))
	if errors.Is(err, ErrNotFound) {
		return number, revision, false, nil
	}
	return number, revision, err == nil, err
}

func (u *Users) readName(ctx context.Context, key string) (number uuid.UUID, revision uint64, err error) {
	value, revision, err := u.store.Get(ctx, key)
	if err != nil {
		return number, 0, err
	}
	if len(value) != 1+len(number) || value[0] != nameFormat {
		return number, 0, unreadable(key)
	}
	return uuid.UUID(value[1:]), revision, nil
}

// abandon removes a user whose id nobody has been told. If that fails, it stays and
// harms nobody.
func (u *Users) abandon(ctx context.Context, m made) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_ = u.store.Delete(ctx, keyOfUser(m.number), m.revision)
}

// forget removes the record of a name that leads to a user who has been deleted. If
// that fails, it leads to nobody until the name is asked for again.
func (u *Users) forget(ctx context.Context, hash []byte, number uuid.UUID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	key := keyOfName(hash)
	if holder, revision, err := u.readName(ctx, key); err == nil && holder == number {
		_ = u.store.Delete(ctx, key, revision) // a conflict means that it leads to another by now
	}
}
