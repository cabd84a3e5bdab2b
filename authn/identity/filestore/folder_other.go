//go:build !unix

package filestore

// syncFolder has nothing to do where folders cannot be synchronised.
func syncFolder(string) error { return nil }
