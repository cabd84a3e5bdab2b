package netwire

import (
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NewListener returns a listener on l's socket, whose connections a [Group] makes a
// [Descriptor] of at less cost than of those that l accepts. l is closed. If l is not
// a *net.TCPListener, or there is no descriptor to spare, it is returned as it is.
func NewListener(l net.Listener) net.Listener {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return l
	}
	own, err := newListener(tcp)
	if err != nil {
		return l
	}
	tcp.Close() // the socket lives on in own
	return own
}

// listener accepts connections that the runtime's poller does not know of.
type listener struct {
	addr    *net.TCPAddr
	file    *os.File // the listening socket
	raw     syscall.RawConn
	pollers pollers

	accepting sync.Mutex // guards the rest, which Accept would have to allocate
	try       func(uintptr) bool
	from      unix.RawSockaddrAny
	fd        int32
	errno     unix.Errno
}

func newListener(l *net.TCPListener) (*listener, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, err := -1, error(nil)
	if cerr := raw.Control(func(old uintptr) {
		if err = setOptions(int(old)); err == nil {
			fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		}
	}); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, err
	}
	own := &listener{addr: l.Addr().(*net.TCPAddr), file: os.NewFile(uintptr(fd), "listener")}
	own.try = own.accept
	own.raw, err = own.file.SyscallConn()
	if err == nil {
		err = own.file.SetDeadline(time.Time{}) // fails for what the runtime does not poll
	}
	if err != nil {
		own.file.Close()
		return nil, err
	}
	return own, nil
}

// setOptions sets on a listening socket what package net sets on each connection. On Linux
// connections have it from there.
func setOptions(fd int) error {
	for _, o := range [...]struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	l.accepting.Lock()
	defer l.accepting.Unlock()
	err := l.raw.Read(l.try)
	switch {
	case err != nil:
		err = net.ErrClosed // there is no other reason
	case l.errno != 0:
		err = os.NewSyscallError("accept4", l.errno)
	}
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
	}
	c := newConn(l, l.pollers.pick(), l.fd)
	c.came(&l.from)
	return c, nil
}

// accept takes a connection, if one waits. It reports whether Accept is done.
func (l *listener) accept(socket uintptr) bool {
	for {
		l.fd, l.errno = accept(socket, &l.from)
		if l.errno != unix.EINTR && l.errno != unix.ECONNABORTED {
			return l.errno != unix.EAGAIN
		}
	}
}

// came sets where c comes from.
func (c *conn) came(from *unix.RawSockaddrAny) {
	port := func(p *uint16) int {
		b := (*[2]byte)(unsafe.Pointer(p))
		return int(b[0])<<8 | int(b[1])
	}
	switch from.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		c.remote.IP, c.remote.Port = append(c.ip[:0], sa.Addr[:]...), port(&sa.Port)
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(from))
		c.remote.IP, c.remote.Port, c.remote.Zone = append(c.ip[:0], sa.Addr[:]...), port(&sa.Port), zone(sa.Scope_id)
	}
}

// zone returns the name of an IPv6 address's zone.
func zone(index uint32) string {
	if index == 0 {
		return ""
	}
	if i, err := net.InterfaceByIndex(int(index)); err == nil {
		return i.Name
	}
	return strconv.Itoa(int(index))
}

// Close implements [net.Listener]. Connections that were accepted stay.
func (l *listener) Close() error {
	if err := l.file.Close(); err != nil {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
	return nil
}

// Addr implements [net.Listener].
func (l *listener) Addr() net.Addr { return l.addr }
