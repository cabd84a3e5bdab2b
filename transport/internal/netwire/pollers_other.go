//go:build !linux

package netwire

import "net"

// Space is the memory of a wire that needs little. Here they all need more.
type Space struct{}

// pollers are there on Linux alone.
type pollers struct{}

func (*pollers) take(net.Conn, []byte, Reader, *Space) Wire { return nil }
