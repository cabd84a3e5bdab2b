package main

import (
	"math"
	"runtime/debug"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// maxConnections returns how many connections a limit of files allows, less a reserve for
// what is no client: listeners, event handlers, REST, metrics, files, and the given number
// of unauthenticated connections. It is 0 where there is no such limit.
func maxConnections(files, unauthenticated int) int {
	if files <= 0 {
		return 0
	}
	reserve := min(max(files/4, 64), max(2000, 2*unauthenticated))
	return max(files-reserve, files/2, 1)
}

// unauthenticatedConnections returns how many connections may be unauthenticated by the
// settings: as many again are for trusted proxies, if there are any.
func unauthenticatedConnections(c *config.Config) int {
	if len(c.TrustedProxies) > 0 {
		return 2 * c.Limits.UnauthenticatedConnections
	}
	return c.Limits.UnauthenticatedConnections
}

// unauthenticatedPlaces returns how many unauthenticated connections there may be: as many
// as was set, or fewer where these would take more than half of the files that clients
// leave.
func unauthenticatedPlaces(c *config.Config, files int) int {
	set, all := c.Limits.UnauthenticatedConnections, unauthenticatedConnections(c)
	if files <= 0 {
		return set
	}
	clients := c.Limits.Connections
	if clients == 0 {
		clients = maxConnections(files, all)
	}
	const least = 16
	return min(set, max((files-clients)/2*set/all, least))
}

// outboundMemory returns a quarter of the memory that this process may use: of
// the least of the machine's, its control group's, and what GOMEMLIMIT says. It
// is 0 where none of them can be known.
func outboundMemory() int {
	memory := uint64(math.MaxInt64)
	for _, limit := range append(memoryLimits(), uint64(debug.SetMemoryLimit(-1))) {
		if limit > 0 {
			memory = min(memory, limit)
		}
	}
	if memory == math.MaxInt64 {
		return 0
	}
	return int(min(memory/4, math.MaxInt))
}
