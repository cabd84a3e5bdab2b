package identity

import (
	"encoding/base32"
	"strings"

	"github.com/google/uuid"

	"github.com/fanfare/fanfare/engine"
)

// prefix begins the ids of users of Azure's public cloud. SDKs tell kinds of
// identities by it, and a second underscore behind it would be another kind.
const prefix = "8:acs:"

// userKeys begins the keys of users in a store.
const userKeys = "user."

// The spelling of a user's number in a store: in the order of the numbers, so that
// new users come last.
var keyEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

func (u *Users) idOf(number uuid.UUID) engine.UserID {
	return engine.UserID(prefix + u.resource + "_" + number.String())
}

func keyOfUser(number uuid.UUID) string {
	return userKeys + keyEncoding.EncodeToString(number[:])
}

// numberOfKey is the reverse of keyOfUser.
func numberOfKey(key string) (number uuid.UUID, ok bool) {
	raw, err := keyEncoding.DecodeString(strings.TrimPrefix(key, userKeys))
	if err != nil || len(raw) != len(number) {
		return number, false
	}
	return uuid.UUID(raw), true
}

// number returns the user's number of an id, for which there is one spelling.
func (u *Users) number(id engine.UserID) (uuid.UUID, error) {
	rest, ok := strings.CutPrefix(string(id), prefix)
	resource, user, both := strings.Cut(rest, "_")
	if !ok || !both || !canonical(resource) || !canonical(user) {
		return uuid.UUID{}, invalid("user.id", "id", "%s is no user's id: expected %s, a UUID, an underscore and a UUID, both in lower case.", excerpt(string(id)), prefix)
	}
	if resource != u.resource {
		return uuid.UUID{}, unknown(id)
	}
	return uuid.MustParse(user), nil
}

func canonical(text string) bool {
	parsed, err := uuid.Parse(text)
	return err == nil && parsed.String() == text
}

func unknown(id engine.UserID) error {
	e := engine.Errorf(engine.CodeNotFound, "user.unknown", "There is no user %s: it was never created here, or has been deleted.", excerpt(string(id)))
	e.Target = "id"
	return e
}
