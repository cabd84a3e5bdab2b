package netwire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below do not tell the Go scheduler that a system call is under way.
// They are for descriptors that do not block, and for little work: then the call is
// over in a few microseconds, which is less than it costs to give the processor to
// another thread and to take it back, as the scheduler otherwise does with calls of
// more than 20 µs, and on a busy machine with shorter ones (bench, scenario churn).

// maxQuick is the most bytes that are read or written without telling the
// scheduler.
const maxQuick = 16 << 10

// write is write(2) for a descriptor that does not block.
func write(fd int32, p []byte) (int, error) {
	if len(p) == 0 || len(p) > maxQuick {
		return unix.Write(int(fd), p)
	}
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// read is read(2) for a descriptor that does not block. A message is mostly small,
// whatever there is room for.
func read(fd int32, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// unsent returns how many bytes of a socket the far end has not acknowledged
// (ioctl(2) with TIOCOUTQ), 0 if that is not known.
func unsent(fd int32) int32 {
	var n int32
	if _, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCOUTQ, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return 0
	}
	return n
}

// epollAdd is epoll_ctl(2) with EPOLL_CTL_ADD.
func epollAdd(epoll int, fd int32, ev *unix.EpollEvent) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// epollPoll is epoll_wait(2) that does not wait.
func epollPoll(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// closeSocket is close(2) for a socket that does not linger.
func closeSocket(fd int32) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// epollModify is epoll_ctl(2) with EPOLL_CTL_MOD.
func epollModify(epoll int, fd int32, ev *unix.EpollEvent) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), unix.EPOLL_CTL_MOD, uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// accept is accept4(2) of a socket that does not block; nor does what it accepts.
func accept(socket uintptr, from *unix.RawSockaddrAny) (int32, unix.Errno) {
	size := uint32(unix.SizeofSockaddrAny)
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, socket, uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int32(fd), errno
}
