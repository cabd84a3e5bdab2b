// Package filestore keeps users in one file: an identity.Store for a node that is
// alone, and whose users outlive it.
//
// The file is a bbolt database, written by one process at a time. Changes that are
// under way at the same time are committed together, and each is acknowledged when the
// file has been synchronised with the disk. So what was acknowledged outlives the
// process, however that ends, and the loss of power where the disk keeps its word; and
// what was not is there afterwards entirely or not at all.
//
// Space that deletions leave is used again, and never given back: the file stays as
// large as it has been. Its size and the memory for its pages, which are the system's
// to take back, are those of users, for tokens leave no trace: some 67 bytes of file
// for each of a million users, and next to nothing of the heap (go run ./bench users).
package filestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/fanfare/fanfare/authn/identity"
	"github.com/fanfare/fanfare/authn/identity/internal/watch"
)

const (
	// maxBatch is how many changes are committed together at most.
	maxBatch = 1024
	// yields is how often the writer lets others run at most before it commits.
	yields = 8
	// lockWait is how long Open waits for another process to leave the file.
	lockWait = time.Second
	// fill is how full pages are before they are split. New users come behind all
	// others, where what is left empty stays so.
	fill = 0.9
)

// The one bucket of the file. Its sequence is the last revision that was given.
var bucketName = []byte("values")

// Store is an [identity.Store] in a file. It is safe for concurrent use.
type Store struct {
	db      *bbolt.DB
	hub     watch.Hub[identity.Change]
	changes chan *change
	done    chan struct{} // closed when the writer has ended
	stop    chan struct{} // closed to end it
	closing func() error

	syncing sync.RWMutex  // held by the writer while it commits
	durable atomic.Uint64 // the last revision that the disk is known to have

	commits, committed atomic.Int64
}

var _ identity.Store = (*Store)(nil)

// Open opens a file, and makes it if there is none, readable and writable by this
// user alone. It fails after a second if another process has it open, and if the file
// is damaged, for which it reads all of it.
func Open(path string) (*Store, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = create(path)
	}
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	db, last, err := openFile(path)
	if err != nil {
		return nil, fmt.Errorf("filestore: %w", err)
	}
	s := &Store{db: db, changes: make(chan *change, maxBatch), done: make(chan struct{}), stop: make(chan struct{})}
	s.durable.Store(last)
	s.closing = sync.OnceValue(s.close)
	go s.write() // ends with Close, which waits
	return s, nil
}

// change is one that waits to be committed.
type change struct {
	key      []byte
	value    []byte
	revision uint64 // which the key must have
	deletes  bool

	next uint64 // the revision that it got
	err  error
	done chan struct{} // closed when it is committed or refused
}

// Get implements [identity.Store]. A value that it returns, the disk has: bbolt shows
// changes before that, and who acts on one that the loss of power takes back has acted on what
// never was. A token, say, would be of a generation that comes about once more when
// tokens are revoked again, and would outlive that.
func (s *Store) Get(_ context.Context, key string) (value []byte, revision uint64, err error) {
	if err := identity.CheckKey(key); err != nil {
		return nil, 0, err
	}
	value, revision, err = s.get(key)
	if revision > s.durable.Load() {
		s.syncing.RLock() // until the commit under way is done
		defer s.syncing.RUnlock()
		value, revision, err = s.get(key)
	}
	return value, revision, err
}

func (s *Store) get(key string) (value []byte, revision uint64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		revision, value = split(tx.Bucket(bucketName).Get([]byte(key)))
		if revision == 0 {
			return identity.ErrNotFound
		}
		value = append([]byte{}, value...) // what it points to ends with the transaction
		return nil
	})
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		err = identity.ErrClosed
	}
	if err != nil {
		return nil, 0, err
	}
	return value, revision, nil
}

// split takes apart what the file has for a key: the revision and the value.
func split(stored []byte) (revision uint64, value []byte) {
	if len(stored) < 8 {
		return 0, nil
	}
	return binary.BigEndian.Uint64(stored), stored[8:]
}

// Put implements [identity.Store]. It returns when the disk has the change.
func (s *Store) Put(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if err := identity.CheckKey(key); err != nil {
		return 0, err
	}
	if err := identity.CheckValue(value); err != nil {
		return 0, err
	}
	stored := append(make([]byte, 8, 8+len(value)), value...)
	c := &change{key: []byte(key), value: stored, revision: revision}
	err := s.submit(ctx, c)
	if err != nil {
		return 0, err
	}
	return c.next, nil
}

// Delete implements [identity.Store]. It returns when the disk has the change.
func (s *Store) Delete(ctx context.Context, key string, revision uint64) error {
	if err := identity.CheckKey(key); err != nil {
		return err
	}
	return s.submit(ctx, &change{key: []byte(key), revision: revision, deletes: true})
}

// submit hands a change to the writer and waits for it.
func (s *Store) submit(ctx context.Context, c *change) error {
	c.done = make(chan struct{})
	select {
	case <-s.stop:
		return identity.ErrClosed
	default:
	}
	select {
	case s.changes <- c:
	case <-s.stop:
		return identity.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
	}
	select {
	case <-c.done: // by the writer's last commit
		return c.err
	default:
		return identity.ErrClosed
	}
}

// write commits what has come while it was committing what came before. So a lone
// change waits for nobody, and many share the cost of a synchronisation.
func (s *Store) write() {
	defer close(s.done)
	batch := make([]*change, 0, maxBatch)
	for {
		select {
		case c := <-s.changes:
			batch = append(batch[:0], c)
		case <-s.stop:
			return
		}
		// Those whose changes have just been acknowledged are about to come with their
		// next ones. If they were not let run first, each commit would have half of the
		// callers, and the other half would wait for it (BenchmarkPut, changes/commit).
		for range yields {
			seen := len(s.changes)
			if runtime.Gosched(); len(s.changes) == seen {
				break
			}
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case c := <-s.changes:
				batch = append(batch, c)
			default:
				more = false
			}
		}
		s.commit(batch)
		clear(batch)
	}
}

// commit makes one transaction of a batch, in which a change that does not fit its
// key's revision is refused without harm to the others.
func (s *Store) commit(batch []*change) {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	var last uint64
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketName)
		b.FillPercent = fill
		for _, c := range batch {
			if c.err = c.apply(b); c.err != nil && !errors.Is(c.err, identity.ErrConflict) && !errors.Is(c.err, identity.ErrNotFound) {
				return c.err
			}
		}
		last = b.Sequence()
		return nil
	})
	if err == nil {
		s.durable.Store(last)
	}
	s.commits.Add(1)
	for _, c := range batch {
		if err != nil {
			c.err = fmt.Errorf("filestore: commit: %w", err)
		}
		if c.err == nil {
			s.committed.Add(1)
			s.hub.Tell(string(c.key), c.told())
		}
		close(c.done)
	}
}

// apply makes the change in a transaction.
func (c *change) apply(b *bbolt.Bucket) error {
	revision, _ := split(b.Get(c.key))
	switch {
	case c.deletes && revision == 0:
		return identity.ErrNotFound
	case revision != c.revision:
		return identity.ErrConflict
	case c.deletes:
		return b.Delete(c.key)
	}
	var err error
	if c.next, err = b.NextSequence(); err != nil {
		return err
	}
	binary.BigEndian.PutUint64(c.value, c.next)
	return b.Put(c.key, c.value)
}

// told is the change as watchers see it.
func (c *change) told() identity.Change {
	if c.deletes {
		return identity.Change{Key: string(c.key)}
	}
	return identity.Change{Key: string(c.key), Value: c.value[8:], Revision: c.next}
}

// Watch implements [identity.Store].
func (s *Store) Watch(ctx context.Context, prefix string) (<-chan identity.Change, error) {
	select {
	case <-s.stop:
		return nil, identity.ErrClosed
	default:
		return s.hub.Watch(ctx, prefix), nil
	}
}

// Stats are the counters of a [Store], since it was opened.
type Stats struct {
	Commits int64 // synchronisations with the disk
	Changes int64 // that they have committed
	Bytes   int64 // of the file
}

// Stats returns a snapshot of the counters.
func (s *Store) Stats() Stats {
	st := Stats{Commits: s.commits.Load(), Changes: s.committed.Load()}
	if info, err := os.Stat(s.db.Path()); err == nil {
		st.Bytes = info.Size()
	}
	return st
}

// Close commits the batch under way, refuses what waits behind it, ends those who
// watch, and closes the file. It may be called twice.
func (s *Store) Close() error { return s.closing() }

func (s *Store) close() error {
	close(s.stop)
	<-s.done
	s.hub.Close()
	return s.db.Close()
}
