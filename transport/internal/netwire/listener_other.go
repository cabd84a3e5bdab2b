//go:build !linux

package netwire

import "net"

// NewListener returns l: there are no Descriptors on this system.
func NewListener(l net.Listener) net.Listener { return l }
