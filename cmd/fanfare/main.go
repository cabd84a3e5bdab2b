// Command fanfare runs a node: a real-time pub/sub service that speaks the Azure
// Web PubSub protocols. Without a command it serves.
//
//	fanfare                                     serve with defaults on 127.0.0.1:8080
//	fanfare --config fanfare.yaml               the same, from a file
//	fanfare check --config fanfare.yaml         every mistake of a file, at once
//	fanfare token --hub chat                    a client access URL
//	fanfare sub --hub chat --group lobby        print what a client receives
//	fanfare pub --hub chat --group lobby hello  publish once, through REST
//	fanfare version                             what this is
//	fanfare help config                         every setting
//
// The exit code is 0 if it stopped in order, 1 if it failed while running, and 2
// for bad flags or settings. SIGTERM and SIGINT drain a node, and a second one
// cuts; SIGHUP makes it read its file again.
//
// wiring.go shows how the rooms of Fanfare are put together: an embedder's own
// main does the same with fewer parts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/fanfare/fanfare/engine/memory"
)

func main() {
	// Room for two: one asks to drain, the next to cut.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go memory.Run(context.Background(), nil) // ends with the process, whose memory it is about
	os.Exit(run(context.Background(), &world{
		Self: self(os.Args[0]), Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
		Release: func() { signal.Stop(signals) },
	}, os.Args[1:]...))
}

// self returns what to type to run this program again.
func self(arg0 string) string {
	if strings.Contains(arg0, "go-build") { // by 'go run', which puts it nowhere on the path
		return "go run ./cmd/fanfare"
	}
	return "fanfare"
}

// world is what a command may touch of the process around it.
type world struct {
	// Self is what to type to run this program.
	Self           string
	Environ        []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal
	// Release gives signals their usual effect back, for commands that have
	// nothing to put in order; nil where there is none to give.
	Release func()
	// Node gets the node that serve made, once it listens; nil for nobody.
	Node func(*node)
}

func (w *world) getenv(name string) string {
	value := ""
	for _, kv := range w.Environ {
		if len(kv) > len(name) && kv[:len(name)] == name && kv[len(name)] == '=' {
			value = kv[len(name)+1:] // the last one counts, as in a shell
		}
	}
	return value
}

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake on the command line or in the settings.
type usageError struct {
	err  error
	hint string // the command whose help says more; empty for none
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// run carries out one command line and returns the exit code.
func run(ctx context.Context, w *world, args ...string) int {
	root := newRoot(w)
	root.SetArgs(append([]string{}, args...)) // never nil, which would mean the process's own
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if told := (*toldError)(nil); errors.As(err, &told) {
		return told.code
	}
	fmt.Fprintf(w.Stderr, "fanfare: %v\n", err)
	if usage := (*usageError)(nil); errors.As(err, &usage) {
		if usage.hint != "" {
			fmt.Fprintf(w.Stderr, "Run '%s --help' to see what is possible.\n", usage.hint)
		}
		return exitUsage
	}
	return exitFailed
}

// toldError ends a command whose failure has been printed.
type toldError struct{ code int }

func (e *toldError) Error() string { return fmt.Sprintf("exit code %d", e.code) }
