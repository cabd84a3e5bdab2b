package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// halfMade ends the name under which a file is made.
const halfMade = ".new"

// errDamaged is what a file is that bbolt cannot have left so, however it ended.
var errDamaged = errors.New("the file is damaged")

// create makes an empty file. It has its name when it is whole and the disk has it: a
// process that is killed in between leaves half a file under another name, which the
// next one to come puts right.
func create(path string) error {
	half := path + halfMade
	db, _, err := openFile(half)
	if errors.Is(err, errDamaged) { // nothing was ever in it
		if err = os.Remove(half); err == nil {
			db, _, err = openFile(half)
		}
	}
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	err = os.Rename(half, path)
	if _, missing := os.Stat(path); errors.Is(err, fs.ErrNotExist) && missing == nil {
		err = nil // another process has just made it
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	return nil
}

// openFile opens a file for writing, with the bucket in it, and returns the last
// revision. It reads the file first, without trust: bbolt takes pages for what they
// should be, and maps a file that was cut off beyond its end, where reading ends the
// process.
func openFile(path string) (db *bbolt.DB, last uint64, err error) {
	if err := check(path); err != nil {
		return nil, 0, err
	}
	if db, err = bolt(path, false); err != nil {
		return nil, 0, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketName)
		if err == nil {
			last = b.Sequence()
		}
		return err
	})
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("make %s: %w", path, err), db.Close())
	}
	return db, last, nil
}

// check returns an error that wraps errDamaged unless all values can be read that the
// file has, if there is one.
func check(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0:
		return nil
	case err != nil:
		return err // it names the file
	}
	db, err := bolt(path, true)
	if err != nil {
		return err
	}
	return errors.Join(distrust(path, func() error { return db.View(checkValues) }), db.Close())
}

func checkValues(tx *bbolt.Tx) error {
	info, err := os.Stat(tx.DB().Path())
	if err != nil {
		return err
	}
	if info.Size() < tx.Size() {
		return fmt.Errorf("it has %d bytes, and its last page ends at %d", info.Size(), tx.Size())
	}
	b := tx.Bucket(bucketName)
	if b == nil {
		return nil // it has just been made
	}
	var last []byte
	return b.ForEach(func(key, stored []byte) error {
		if revision, _ := split(stored); revision == 0 || revision > b.Sequence() || bytes.Compare(key, last) <= 0 {
			return fmt.Errorf("the key %.140q, after %.140q, has the revision %d of %d", key, last, revision, b.Sequence())
		}
		last = key
		return nil
	})
}

// bolt opens a file, the way that is the same whatever for.
func bolt(path string, readOnly bool) (db *bbolt.DB, err error) {
	var f *os.File
	var refused error // by the system
	err = distrust(path, func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			ReadOnly: readOnly,
			Timeout:  lockWait,
			// The list of free pages is made anew from the others when the file is opened. In
			// the file it would be written with every change, 8 bytes for each page that
			// deletions have left.
			NoFreelistSync: true,
			FreelistType:   bbolt.FreelistMapType,
			NoStatistics:   true, // which take a lock for every Get
			OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
				f, err = os.OpenFile(name, flag, mode)
				return f, err
			},
		})
		if errors.As(err, new(syscall.Errno)) || errors.Is(err, berrors.ErrTimeout) {
			refused, err = err, nil
		}
		return err // about what is in the file
	})
	switch {
	case err != nil:
		f.Close() // with its lock, in case bbolt has not; nothing was written
		return nil, err
	case errors.Is(refused, berrors.ErrTimeout):
		return nil, fmt.Errorf("another process has %s open: %w", path, refused)
	case refused != nil:
		return nil, fmt.Errorf("open %s: %w", path, refused)
	}
	return db, nil
}

// distrust calls do, which reads a file. What it returns wraps errDamaged, also if do
// panics or reads where the file has nothing.
func distrust(path string, do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %w: %v", path, errDamaged, p)
		}
	}()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w: %w", path, errDamaged, err)
	}
	return nil
}
