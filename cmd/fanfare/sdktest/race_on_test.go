//go:build race

package sdktest

// buildFlags makes the node like the test that runs it: with the race detector,
// which ends a node that races with a status other than 0.
var buildFlags = []string{"-race"}
