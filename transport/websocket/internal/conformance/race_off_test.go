//go:build !race

package conformance_test

const raceRounds = 0 // all of them
