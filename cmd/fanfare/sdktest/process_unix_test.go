//go:build unix

package sdktest

import (
	"os/exec"
	"syscall"
)

// ownGroup makes cmd the head of a process group, so that nothing it started
// outlives it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// interrupt asks cmd to stop.
func interrupt(cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGTERM) }

// kill ends cmd and all it started.
func kill(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
