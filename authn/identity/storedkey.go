package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// storedKeys begins the keys of signing keys in a store, which has 16 places for them.
const storedKeys = "key."

func placeKey(place int) string { return fmt.Sprintf("%s%x", storedKeys, place) }

// storedKey is a key as the store has it.
type storedKey struct {
	place    int
	revision uint64
	key      Key
	signs    time.Time // from when on
	bound    fingerprint
}

// The record of a key is the number of its format, when it begins to sign in Unix
// seconds, what it is bound to, and the private half as PKCS #8: 1.3 KB with RSA.
const (
	keyFormat = 1
	keyHead   = 1 + 8 + sha256.Size
)

func (s storedKey) encode() ([]byte, error) {
	private, err := x509.MarshalPKCS8PrivateKey(s.key.signing.Private())
	if err != nil {
		return nil, err
	}
	value := binary.BigEndian.AppendUint64([]byte{keyFormat}, uint64(s.signs.Unix()))
	value = append(value, s.bound[:]...)
	return append(value, private...), nil
}

// decodeKey is the reverse of encode.
func decodeKey(value []byte) (s storedKey, err error) {
	if len(value) <= keyHead || value[0] != keyFormat {
		return s, errors.New("it is in no known format")
	}
	private, err := x509.ParsePKCS8PrivateKey(value[keyHead:])
	if err != nil {
		return s, errors.New("its private half is not PKCS #8") // the error may quote it
	}
	s.signs = time.Unix(int64(binary.BigEndian.Uint64(value[1:9])), 0)
	s.bound = fingerprint(value[9:keyHead])
	s.key, err = NewKey(private)
	return s, err
}

// load reads all keys, the one that signs last at the end.
func (k *Keys) load(ctx context.Context) ([]storedKey, error) {
	var all []storedKey
	for place := range maxKeys {
		value, revision, err := k.store.Get(ctx, placeKey(place))
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("identity: read keys: %w", err)
		}
		s, err := decodeKey(value)
		if err != nil {
			return nil, fmt.Errorf("identity: read the key %s: %w", placeKey(place), err)
		}
		s.place, s.revision = place, revision
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b storedKey) int {
		return cmp.Or(a.signs.Compare(b.signs), strings.Compare(a.key.ID(), b.key.ID()))
	})
	return all, nil
}

func keysOf(list []storedKey) []Key {
	keys := make([]Key, len(list))
	for i, s := range list {
		keys[i] = s.key
	}
	return keys
}
