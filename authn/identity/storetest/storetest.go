// Package storetest is the behaviour that every identity.Store must show.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fanfare/fanfare/authn/identity"
)

// TestStore runs the kit. open returns an empty store; if it is an io.Closer, the kit
// closes it.
func TestStore(t *testing.T, open func(t *testing.T) identity.Store) {
	for name, run := range map[string]func(*testing.T, identity.Store){
		"Values": values, "Revisions": revisions, "Bounds": bounds, "Races": races, "Many": many,
		"Watch": watch, "SlowWatcher": slowWatcher, "Close": closing,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			if c, ok := s.(io.Closer); ok {
				t.Cleanup(func() {
					if err := c.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
			}
			run(t, s)
		})
	}
}

func put(t *testing.T, s identity.Store, key, value string, revision uint64) uint64 {
	t.Helper()
	next, err := s.Put(t.Context(), key, []byte(value), revision)
	if err != nil || next <= revision {
		t.Fatalf("put %s at %d: %d, %v", key, revision, next, err)
	}
	return next
}

// holds checks what a key holds; an empty wish is for a key that does not exist.
func holds(t *testing.T, s identity.Store, key, want string, revision uint64) {
	t.Helper()
	value, got, err := s.Get(t.Context(), key)
	if want == "" {
		if !errors.Is(err, identity.ErrNotFound) {
			t.Errorf("%s: %q, %v; want that it does not exist", key, value, err)
		}
		return
	}
	if err != nil || string(value) != want || got != revision {
		t.Errorf("%s: %q at %d, %v; want %q at %d", key, value, got, err, want, revision)
	}
}

func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: %v; want %v", what, err, target)
	}
}

func values(t *testing.T, s identity.Store) {
	holds(t, s, "a", "", 0)
	mine := []byte("one")
	one, err := s.Put(t.Context(), "a", mine, 0)
	if err != nil || one == 0 {
		t.Fatal(one, err)
	}
	mine[0] = 'X' // the store has kept none of it
	holds(t, s, "a", "one", one)
	two := put(t, s, "b", "two", 0)
	holds(t, s, "b", "two", two)
	holds(t, s, "a", "one", one)
	one = put(t, s, "a", "three", one)
	holds(t, s, "a", "three", one)
	if err := s.Delete(t.Context(), "a", one); err != nil {
		t.Error(err)
	}
	holds(t, s, "a", "", 0)
	holds(t, s, "b", "two", two)
	empty, err := s.Put(t.Context(), "c", nil, 0)
	if value, revision, got := s.Get(t.Context(), "c"); err != nil || got != nil || len(value) != 0 || revision != empty {
		t.Errorf("an empty value: %q at %d, %v", value, revision, got)
	}
}

func revisions(t *testing.T, s identity.Store) {
	ctx := t.Context()
	_, err := s.Put(ctx, "a", nil, 7)
	want(t, "change of a key that does not exist", err, identity.ErrConflict)
	want(t, "deletion of a key that does not exist", s.Delete(ctx, "a", 7), identity.ErrNotFound)
	first := put(t, s, "a", "one", 0)
	_, err = s.Put(ctx, "a", []byte("x"), 0)
	want(t, "creation of a key that exists", err, identity.ErrConflict)
	second := put(t, s, "a", "two", first)
	_, err = s.Put(ctx, "a", []byte("x"), first)
	want(t, "change of an old revision", err, identity.ErrConflict)
	want(t, "deletion of an old revision", s.Delete(ctx, "a", first), identity.ErrConflict)
	holds(t, s, "a", "two", second)
	if err := s.Delete(ctx, "a", second); err != nil {
		t.Fatal(err)
	}
	// Whoever has seen it before the deletion cannot change what comes after.
	third := put(t, s, "a", "three", 0)
	if third <= second {
		t.Errorf("revision %d after %d", third, second)
	}
	_, err = s.Put(ctx, "a", []byte("x"), second)
	want(t, "change of a revision before the deletion", err, identity.ErrConflict)
	holds(t, s, "a", "three", third)
}

func bounds(t *testing.T, s identity.Store) {
	ctx := t.Context()
	for _, key := range []string{"", "a b", "ä", "a*", "a\x00", strings.Repeat("k", identity.MaxKey+1)} {
		_, err := s.Put(ctx, key, nil, 0)
		_, _, got := s.Get(ctx, key)
		if deleted := s.Delete(ctx, key, 1); err == nil || got == nil || deleted == nil {
			t.Errorf("%q passes as a key: %v, %v, %v", key, err, got, deleted)
		}
	}
	if _, err := s.Put(ctx, "a", make([]byte, identity.MaxValue+1), 0); err == nil {
		t.Error("a value that is too long passes")
	}
	largest, key := strings.Repeat("v", identity.MaxValue), strings.Repeat("k", identity.MaxKey-6)+"-_=./9"
	holds(t, s, key, largest, put(t, s, key, largest, 0))
}

// races has many change one key: of each revision, one wins.
func races(t *testing.T, s identity.Store) {
	const writers, each = 8, 20
	put(t, s, "n", "0", 0)
	var wins, losses atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				value, revision, err := s.Get(t.Context(), "n")
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(value), &n) //nolint:errcheck // the count below tells
				switch _, err := s.Put(t.Context(), "n", fmt.Append(nil, n+1), revision); {
				case err == nil:
					wins.Add(1)
					done++
				case errors.Is(err, identity.ErrConflict):
					losses.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if value, _, err := s.Get(t.Context(), "n"); err != nil || string(value) != fmt.Sprint(writers*each) {
		t.Errorf("%s after %d wins and %d losses, %v", value, wins.Load(), losses.Load(), err)
	}
}

func many(t *testing.T, s identity.Store) {
	const writers, each = 16, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := range each {
				key := fmt.Sprintf("k.%d.%d", w, n)
				revision, err := s.Put(t.Context(), key, []byte(key), 0)
				if err == nil && n%2 == 0 {
					err = s.Delete(t.Context(), key, revision)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for w := range writers {
		for n := range each {
			key := fmt.Sprintf("k.%d.%d", w, n)
			value, _, err := s.Get(t.Context(), key)
			if gone := n%2 == 0; gone && !errors.Is(err, identity.ErrNotFound) || !gone && (err != nil || string(value) != key) {
				t.Errorf("%s: %q, %v", key, value, err)
			}
		}
	}
}

func watch(t *testing.T, s identity.Store) {
	before := put(t, s, "user.before", "x", 0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes, err := s.Watch(ctx, "user.")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(key, value string, revision uint64) {
		t.Helper()
		c, ok := <-changes
		if !ok || c.Key != key || !bytes.Equal(c.Value, []byte(value)) || c.Revision != revision || (c.Value == nil) != (revision == 0) {
			t.Errorf("%+v; want %s %q at %d", c, key, value, revision)
		}
	}
	put(t, s, "other", "x", 0)
	a := put(t, s, "user.a", "one", 0)
	expect("user.a", "one", a)
	a = put(t, s, "user.a", "two", a)
	expect("user.a", "two", a)
	if err := s.Delete(ctx, "user.before", before); err != nil {
		t.Fatal(err)
	}
	expect("user.before", "", 0)
	cancel()
	for range changes { // until it is closed
	}
}

// slowWatcher reads nothing while much happens; it holds nobody up, and of every key
// it hears the end.
func slowWatcher(t *testing.T, s identity.Store) {
	changes, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	last := map[string]uint64{}
	for range 50 {
		for _, key := range []string{"a", "b", "c"} {
			last[key] = put(t, s, key, "x", last[key])
		}
	}
	if err := s.Delete(t.Context(), "c", last["c"]); err != nil {
		t.Fatal(err)
	}
	last["c"] = 0
	seen := map[string]uint64{}
	for heard := 0; ; heard++ {
		if heard > 200 {
			t.Fatal("more was told than has happened")
		}
		c := <-changes
		if seen[c.Key] = c.Revision; maps.Equal(seen, last) {
			return
		}
	}
}

func closing(t *testing.T, s identity.Store) {
	c, ok := s.(io.Closer)
	if !ok {
		t.Log("this store cannot be closed")
		return
	}
	revision := put(t, s, "a", "one", 0)
	changes, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range changes { // until it is closed
	}
	_, _, err = s.Get(t.Context(), "a")
	want(t, "get", err, identity.ErrClosed)
	_, err = s.Put(t.Context(), "a", nil, revision)
	want(t, "put", err, identity.ErrClosed)
	want(t, "delete", s.Delete(t.Context(), "a", revision), identity.ErrClosed)
	_, err = s.Watch(t.Context(), "")
	want(t, "watch", err, identity.ErrClosed)
}
