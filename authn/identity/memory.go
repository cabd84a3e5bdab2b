package identity

import (
	"context"
	"sync"

	"github.com/fanfare/fanfare/authn/identity/internal/watch"
)

// MemoryStore is a [Store] that ends with the process. A user takes some 150 bytes, of
// which 100 stay until there are new users in the place of those who are deleted.
type MemoryStore struct {
	hub watch.Hub[Change]

	mu       sync.RWMutex // guards the rest
	values   map[string]item
	revision uint64
	closed   bool
}

// item has its value as a string, which takes a word less than a slice.
type item struct {
	value    string
	revision uint64
}

var _ Store = (*MemoryStore)(nil)

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{values: map[string]item{}} }

// Get implements [Store].
func (s *MemoryStore) Get(_ context.Context, key string) ([]byte, uint64, error) {
	if err := CheckKey(key); err != nil {
		return nil, 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	i, ok := s.values[key]
	switch {
	case s.closed:
		return nil, 0, ErrClosed
	case !ok:
		return nil, 0, ErrNotFound
	}
	return []byte(i.value), i.revision, nil
}

// Put implements [Store].
func (s *MemoryStore) Put(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if err := CheckKey(key); err != nil {
		return 0, err
	}
	if err := CheckValue(value); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, ErrClosed
	case s.values[key].revision != revision:
		return 0, ErrConflict
	}
	s.revision++
	i := item{string(value), s.revision}
	s.values[key] = i
	s.hub.Tell(key, Change{Key: key, Value: []byte(i.value), Revision: i.revision})
	return i.revision, nil
}

// Delete implements [Store].
func (s *MemoryStore) Delete(_ context.Context, key string, revision uint64) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.values[key]
	switch {
	case s.closed:
		return ErrClosed
	case !ok:
		return ErrNotFound
	case i.revision != revision:
		return ErrConflict
	}
	delete(s.values, key)
	s.hub.Tell(key, Change{Key: key})
	return nil
}

// Watch implements [Store].
func (s *MemoryStore) Watch(ctx context.Context, prefix string) (<-chan Change, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, ErrClosed
	}
	return s.hub.Watch(ctx, prefix), nil
}

// Close ends the store and those who watch it. It may be called twice.
func (s *MemoryStore) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.hub.Close()
	return nil
}
