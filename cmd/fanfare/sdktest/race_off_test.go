//go:build !race

package sdktest

var buildFlags []string
