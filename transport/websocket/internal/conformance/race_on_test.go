//go:build race

package conformance_test

// underRace says that the race detector is there, which makes everything ten times as long:
// there are few rounds, and no large messages. All of them are in the runs without it.
const underRace = true
