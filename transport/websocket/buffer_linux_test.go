package websocket_test

import "golang.org/x/sys/unix"

func setWriteBuffer(fd uintptr, size int) {
	unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, size)
}
