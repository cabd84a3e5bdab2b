//go:build unix

package filestore

import (
	"errors"
	"os"
)

// syncFolder makes a new file's name outlive a crash of the machine.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
