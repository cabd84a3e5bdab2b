//go:build unix

package main

import (
	"math"

	"golang.org/x/sys/unix"
)

// fileLimit returns how many files the process may have open. The runtime has
// raised the soft limit to the hard one as the process started.
func fileLimit() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	if uint64(limit.Cur) > math.MaxInt32 {
		return 0 // no limit
	}
	return int(limit.Cur)
}
