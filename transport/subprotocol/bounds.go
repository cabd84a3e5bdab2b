package subprotocol

import "time"

// Bounds of what clients name and say beside their data. The lengths are in bytes;
// Azure documents none of them.
const (
	maxStreamID     = 256
	maxInvocationID = 256

	// maxStreamIdle is the longest that a stream may ask to live without a sign of
	// its publisher.
	maxStreamIdle = 24 * time.Hour

	// maxStreamMessage and maxStreamCode hold for what a publisher says when it
	// gives up.
	maxStreamMessage = 4096
	maxStreamCode    = 256

	// maxState holds for all keys and values of a state together. The engine takes
	// far less of it; this one keeps what waits for the engine small.
	maxState = 16 << 10
)
