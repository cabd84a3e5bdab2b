package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// program is a running cmd/fanfare: the whole node as people run it, in a process
// of its own.
type program struct {
	// Addr is the host and port of its listener.
	Addr string
	dir  string // temporary; holds the configuration
	cmd  *exec.Cmd
	log  sync.WaitGroup // readers of its output

	mu     sync.Mutex // guards logged
	logged int64      // bytes that it has written to its log
}

// buildProgram builds cmd/fanfare into dir, or returns b.binary if one was named,
// so that two versions can be measured with the same load.
func (b *bench) buildProgram(dir string) (string, error) {
	if b.binary != "" {
		return b.binary, nil
	}
	binary := filepath.Join(dir, "fanfare")
	cmd := exec.CommandContext(b.ctx, "go", "build", "-o", binary, "github.com/fanfare/fanfare/cmd/fanfare")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/fanfare (run bench from the repository): %w\n%s", err, out)
	}
	return binary, nil
}

// startProgram starts cmd/fanfare on a free port of the loopback address with the
// given configuration (YAML, without listen) and waits until it serves.
func (b *bench) startProgram(configuration string) (_ *program, err error) {
	dir, err := os.MkdirTemp("", "bench-fanfare-")
	if err != nil {
		return nil, err
	}
	p := &program{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.stop())
		}
	}()
	binary, err := b.buildProgram(dir)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "fanfare.yaml")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:0\n"+configuration), 0o600); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(binary, "--config", file, "--log-format", "text")
	p.cmd.Stdout = io.Discard
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return nil, err
	}
	addr := make(chan string, 1)
	p.log.Go(func() { p.follow(errs, addr) })
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	select {
	case p.Addr = <-addr:
		if p.Addr == "" {
			return nil, errors.New("cmd/fanfare ended before it served")
		}
		return p, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("cmd/fanfare does not serve: %w", ctx.Err())
	}
}

// follow counts what the program logs and finds its address in it.
func (p *program) follow(r io.Reader, addr chan<- string) {
	defer close(addr)
	in := bufio.NewReaderSize(r, 64<<10)
	found := false
	for {
		line, err := in.ReadString('\n')
		p.mu.Lock()
		p.logged += int64(len(line))
		p.mu.Unlock()
		if !found && strings.Contains(line, "msg=serving") {
			for _, field := range strings.Fields(line) {
				if a, ok := strings.CutPrefix(field, "address="); ok {
					found = true
					addr <- a
				}
			}
		} else if !found {
			fmt.Fprint(os.Stderr, line) // why it does not start
		}
		if err != nil {
			return
		}
	}
}

// logBytes returns how many bytes the program has logged.
func (p *program) logBytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.logged
}

// rss returns the program's resident memory in bytes.
func (p *program) rss() (int64, error) { return residentMemory(p.cmd.Process.Pid, "Rss") }

// cpu returns the CPU time of the program so far, user and system.
func (p *program) cpu() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold spaces; utime and stime are the 14th and
	// 15th fields (proc(5)), in hundredths of a second.
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", p.cmd.Process.Pid, len(f))
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

// stop ends the program and removes its files.
func (p *program) stop() error {
	defer os.RemoveAll(p.dir)
	if p.cmd == nil {
		return nil
	}
	for range 2 { // the second signal cuts the drain short
		p.cmd.Process.Signal(syscall.SIGTERM)
	}
	timer := time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	p.log.Wait()
	p.cmd.Wait()
	return nil
}
