package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Bounds of what a [Store] is given.
const (
	MaxKey   = 128     // bytes of a key
	MaxValue = 4 << 10 // bytes of a value
)

// Store keeps values by key, each with a revision that is never 0 and grows with
// every change of its key, across deletions too. Package storetest has the
// behaviour that every store must show.
//
// All methods may be called concurrently and may block until ctx ends. What one of
// them has acknowledged, all later calls see, wherever they are made. A change that
// fails with an error other than ErrConflict, ErrNotFound and ErrClosed may have
// happened all the same. Get is asked for every token that is checked, so it answers
// from nearby.
type Store interface {
	// Get returns a key's value, which the caller must not change, and its revision;
	// ErrNotFound if there is none.
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Put sets a key's value if its revision is the given one, where 0 stands for a key
	// that does not exist, and returns the new one; ErrConflict if it is another. It
	// does not keep value.
	Put(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	// Delete removes a key if its revision is the given one; ErrNotFound if it does not
	// exist, ErrConflict if its revision is another.
	Delete(ctx context.Context, key string, revision uint64) error
	// Watch returns a channel of the changes made from now on to keys that begin with
	// prefix. Of a key that changes faster than the channel is read, the last change
	// comes and others may not. The channel is closed when ctx ends, and with the store.
	Watch(ctx context.Context, prefix string) (<-chan Change, error)
}

// Change is one that a [Store] tells of.
type Change struct {
	Key string
	// Value is the new one, nil for a key that was deleted. The reader must not change
	// it.
	Value []byte
	// Revision is the new one; 0 for a key that was deleted.
	Revision uint64
}

// The errors that a [Store]'s callers tell apart.
var (
	ErrNotFound = errors.New("the key does not exist")
	ErrConflict = errors.New("the key has another revision")
	ErrClosed   = errors.New("the store is closed")
)

// CheckKey returns an error unless a key is 1 to 128 letters, digits and characters
// out of "-_=./", which every kind of store can take. Stores call it.
func CheckKey(key string) error {
	const others = "-_=./"
	if key == "" || len(key) > MaxKey || strings.ContainsFunc(key, func(r rune) bool {
		return (r < 'a' || 'z' < r) && (r < 'A' || 'Z' < r) && (r < '0' || '9' < r) && !strings.ContainsRune(others, r)
	}) {
		return fmt.Errorf("identity: %.140q is no key: expected 1 to %d letters, digits and characters out of %s", key, MaxKey, others)
	}
	return nil
}

// CheckValue returns an error if a value has more than 4 KiB. Stores call it.
func CheckValue(value []byte) error {
	if len(value) > MaxValue {
		return fmt.Errorf("identity: a value has %d bytes; at most %d would pass", len(value), MaxValue)
	}
	return nil
}
