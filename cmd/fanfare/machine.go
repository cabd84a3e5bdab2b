package main

import (
	"math"
	"runtime/debug"
)

// maxConnections returns how many connections the process's file limit allows,
// less a reserve for what is no client: listeners, event handlers, REST,
// metrics, files. It is 0 where there is no such limit.
func maxConnections() int {
	files := fileLimit()
	if files <= 0 {
		return 0
	}
	reserve := min(max(files/10, 64), 2000)
	return max(files-reserve, files/2, 1)
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
