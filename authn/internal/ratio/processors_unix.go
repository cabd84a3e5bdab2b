//go:build unix

package ratio

import (
	"syscall"
	"time"
)

// processors returns how much of the processors' time this process has used.
func processors() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // there is no reason for one
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
