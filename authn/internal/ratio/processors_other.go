//go:build !unix

package ratio

import "time"

var birth = time.Now()

// processors returns the clock's time, which on a machine that does nothing else
// says as much.
func processors() time.Duration { return time.Since(birth) }
