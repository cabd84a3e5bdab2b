package websocket

import (
	"net"

	"github.com/fanfare/fanfare/transport/internal/netwire"
)

// NewListener returns a listener on l's socket for the HTTP server of a [Handler],
// which takes a connection over from it with a third of the system calls. It is worth
// it where clients come and go. The connections are not *net.TCPConn, but have the
// options that package net sets, such as TCP keep-alive. l belongs to the listener
// returned, and is closed.
//
// It is for plain TCP on Linux: anything else is returned as it is.
func NewListener(l net.Listener) net.Listener { return netwire.NewListener(l) }
