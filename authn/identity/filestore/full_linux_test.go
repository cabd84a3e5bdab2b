package filestore_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fanfare/fanfare/authn/identity/filestore"
)

// fullVariable, in the environment, makes the test binary a process whose disk is full.
const fullVariable = "FANFARE_FILESTORE_FULL"

// full writes until the system takes no more, which is a limit on the size of files,
// and goes on when there is room again.
func full(path string) error {
	signal.Ignore(unix.SIGXFSZ)
	s, err := filestore.Open(path)
	if err != nil {
		return err
	}
	defer s.Close()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	set := func(current uint64) error {
		return unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: current, Max: limit.Max})
	}
	if err := set(100_000); err != nil {
		return err
	}
	value := make([]byte, 1000)
	n, refused := 0, error(nil)
	for ; n < 1000 && refused == nil; n++ {
		_, refused = s.Put(context.Background(), benchKey(n), value, 0)
	}
	if refused == nil || n < 10 {
		return fmt.Errorf("change %d of 1000 is answered with %w", n, refused)
	}
	n--
	for range 3 {
		if _, err := s.Put(context.Background(), benchKey(n), value, 0); err == nil {
			return fmt.Errorf("first %w, then nothing is the matter", refused)
		}
	}
	if err := set(limit.Cur); err != nil {
		return err
	}
	for last := n + 100; n < last; n++ {
		if _, err := s.Put(context.Background(), benchKey(n), value, 0); err != nil {
			return fmt.Errorf("there is room again: %w", err)
		}
	}
	fmt.Println(n)
	fmt.Fprintln(os.Stderr, refused)
	return nil
}

// A full disk refuses changes and harms nothing: what was acknowledged before is there,
// and when there is room the same store takes changes again.
func TestFull(t *testing.T) {
	if path := os.Getenv(fullVariable); path != "" {
		if err := full(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	path := file(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFull$")
	cmd.Env = append(os.Environ(), fullVariable+"="+path)
	var refused strings.Builder
	cmd.Stderr = &refused
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, &refused)
	}
	if !strings.Contains(refused.String(), "filestore: commit: ") {
		t.Errorf("refused by %q", &refused)
	}
	var n int
	if _, err := fmt.Sscan(string(out), &n); err != nil {
		t.Fatal(err)
	}
	s := open(t, path)
	for i := range n {
		if value, _, err := s.Get(t.Context(), benchKey(i)); err != nil || len(value) != 1000 {
			t.Errorf("key %d of %d: %d bytes, %v", i, n, len(value), err)
		}
	}
	t.Logf("%d keys; refused by: %s", n, &refused)
}
