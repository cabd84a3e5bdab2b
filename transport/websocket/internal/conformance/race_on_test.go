//go:build race

package conformance_test

// raceRounds is how many of 1000 rounds there are with the race detector, which makes each
// ten times as long. All of them are in the runs without it.
const raceRounds = 20
