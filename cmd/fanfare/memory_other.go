//go:build !linux

package main

// memoryLimits returns nothing: GOMEMLIMIT is all there is to go by.
func memoryLimits() []uint64 { return nil }
