//go:build !unix

package main

// fileLimit returns 0: there is no limit to go by.
func fileLimit() int { return 0 }
