//go:build race

package entra_test

const raceEnabled = true
