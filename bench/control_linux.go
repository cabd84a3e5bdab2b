package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/fanfare/fanfare/engine"
)

// roleVariable, in the environment, makes this program a child: what is
// measured runs in a process of its own, which answers commands on its standard
// input with a line of JSON each on its standard output.
const roleVariable = "FANFARE_BENCH_ROLE"

// ready is a child's first line.
type ready struct {
	Addr netip.AddrPort
	// Key signs the access tokens of a node's clients.
	Key string `json:",omitempty"`
	// Roots is the PEM certificate of a node that speaks TLS.
	Roots string `json:",omitempty"`
}

// command is a line to a child.
type command struct {
	// Do is "mark" (report), "gc" (collect twice, then report), "write"
	// and "accept" (bare loop only), "heap" (node only: leave a heap profile), "open", "create", "issue" and "delete"
	// (users only).
	Do    string
	Write *writeJob `json:",omitempty"`
	Count int       `json:",omitempty"` // of users or tokens
}

// mark is a child's report about itself.
type mark struct {
	Err        string        `json:",omitempty"`
	CPU        time.Duration // of the process, user and system
	Goroutines int
	Heap       uint64 // bytes in use
	Stats      engine.Stats
}

// measure fills in what every child can say.
func measure(stats func() engine.Stats) mark {
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	m := mark{CPU: cpuTime(), Goroutines: runtime.NumGoroutine(), Heap: ms.HeapAlloc}
	if stats != nil {
		m.Stats = stats()
	}
	return m
}

// answer serves commands until the parent hangs up. do handles those that only
// one kind of child knows.
func answer(in io.Reader, out io.Writer, hello ready, stats func() engine.Stats, do func(command) error) error {
	enc := json.NewEncoder(out)
	if err := enc.Encode(hello); err != nil {
		return err
	}
	dec := json.NewDecoder(in)
	for {
		var c command
		if err := dec.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a command: %w", err)
		}
		var m mark
		switch c.Do {
		case "mark":
			m = measure(stats)
		case "gc":
			runtime.GC()
			debug.FreeOSMemory() // collects once more
			m = measure(stats)
		default:
			err := errors.ErrUnsupported
			if do != nil {
				err = do(c)
			}
			m = measure(stats)
			if err != nil {
				m.Err = err.Error()
			}
		}
		if err := enc.Encode(m); err != nil {
			return err
		}
	}
}

// child is a process that is measured, as its parent sees it.
type child struct {
	ready
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

// spawn starts this program again in the given role.
func spawn(role string, settings ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start the %s: %w", role, err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Env = append(cmd.Env, settings...)
	return start(cmd, role)
}

// start starts a child that is ready to be commanded.
func start(cmd *exec.Cmd, role string) (*child, error) {
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the %s: %w", role, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the %s: %w", role, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s: %w", role, err)
	}
	c := &child{cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(bufio.NewReader(out))}
	if err := c.dec.Decode(&c.ready); err != nil {
		c.stop()
		return nil, fmt.Errorf("start the %s: it said nothing: %w", role, err)
	}
	return c, nil
}

// tell sends a command and waits for the report.
func (c *child) tell(cmd command) (mark, error) {
	if err := c.enc.Encode(cmd); err != nil {
		return mark{}, fmt.Errorf("tell the child %q: %w", cmd.Do, err)
	}
	var m mark
	if err := c.dec.Decode(&m); err != nil {
		return mark{}, fmt.Errorf("tell the child %q: %w", cmd.Do, err)
	}
	if m.Err != "" {
		return mark{}, fmt.Errorf("tell the child %q: %s", cmd.Do, m.Err)
	}
	return m, nil
}

func (c *child) mark() (mark, error) { return c.tell(command{Do: "mark"}) }

// settled collects the child's garbage, asks until ok agrees with the report, and
// returns it: closing connections takes a server a moment.
func (c *child) settled(ok func(mark) bool) (mark, error) {
	deadline := time.Now().Add(2 * patience)
	for {
		m, err := c.tell(command{Do: "gc"})
		if err != nil || ok(m) {
			return m, err
		}
		time.Sleep(20 * time.Millisecond)
		if time.Now().After(deadline) {
			return m, fmt.Errorf("the child has not settled after %v: %+v", 2*patience, m)
		}
	}
}

// rss returns the child's resident memory in bytes: user memory only.
func (c *child) rss() (int64, error) { return c.memory("Rss") }

// memory returns bytes of the child's resident memory: "Rss" is all of it, and
// "Anonymous" is without what is a file's.
func (c *child) memory(kind string) (int64, error) { return residentMemory(c.cmd.Process.Pid, kind) }

// residentMemory returns bytes of a process's resident memory, as memory does.
func residentMemory(pid int, kind string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == kind+":" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("smaps_rollup has no %s", kind)
}

// stop hangs up and waits for the child's end.
func (c *child) stop() error {
	c.in.Close()
	timer := time.AfterFunc(patience, func() { c.cmd.Process.Kill() })
	defer timer.Stop()
	return c.cmd.Wait()
}
