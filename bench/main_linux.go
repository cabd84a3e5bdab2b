package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

func main() {
	if handled, err := asChild(); handled {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	var usage *usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// asChild is the whole life of a process that was started to be measured.
func asChild() (bool, error) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		return false, nil
	case "node":
		return true, runNode(os.Stdin, os.Stdout)
	case "bare":
		return true, bareLoop(os.Stdin, os.Stdout)
	case "upgrader":
		return true, runUpgrader(os.Stdin, os.Stdout)
	case "users":
		return true, runUsers(os.Stdin, os.Stdout)
	default:
		return true, fmt.Errorf("%s=%s: no such role", roleVariable, role)
	}
}

const help = `Bench measures a Fanfare node from another process, checking every delivery.

Usage: go run ./bench SCENARIO [flags]

Scenarios
  fanout    one publisher, one group of all members, beside the bare write loop
  bare      the bare write loop alone: the floor
  chat      members that publish in turn, each to all others (noEcho)
  groups    many groups of ten, published to in turn, beside one large group
  reliable  fanout in the reliable JSON subprotocol, beside the plain one
  stalled   a member that stops reading, and what it does to the others
  idle      memory for each idle, joined connection
  idle-tls  the same over TLS
  churn     connect, verify, join, drop: CPU time, beside a bare net/http server that
            upgrades, writes a frame, reads one and closes: the floor
  users     users and their tokens in memory and in a file below $TMPDIR: time and
            bytes (not part of all)
  hostile   what hostile clients can make the whole node do, and what they cost the
            others; --case names one (not part of all)
  nats      fanout beside nats-server over WebSocket, which is built for it from
            bench/peers/nats (not part of all)
  all       everything, into a dated file below bench/results

Exit status: 0 measured, 1 failed or not exact, 2 wrong usage.

Flags
`

// usageError is a mistake on the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

func run(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(progress)
	fs.Usage = func() {
		fmt.Fprint(progress, help)
		fs.PrintDefaults()
	}
	var (
		members  = fs.String("members", "", "members of the group, connections: a number or several with commas (default 1,100,1000 for fanout, 10000 for idle, 2000 for idle-tls, 100 for stalled, 1000 otherwise)")
		payload  = fs.String("payload", "", "bytes of a message, at least 64: a number or several with commas (default 128,1024 for fanout, 1024 for stalled, 128 otherwise)")
		rate     = fs.String("rate", "", "deliveries a second, or saturated: one or several with commas (default saturated,100000 for fanout, saturated for chat and reliable, 100000 otherwise)")
		protocol = fs.String("protocol", plainJSON, "subprotocol of the members, for the scenario fanout: "+plainJSON+", "+reliableJSON+", or both with a comma")
		groups   = fs.Int("groups", 10_000, "groups, for the scenario groups")
		users    = fs.Int("users", 1_000_000, "users, and as many tokens, for the scenario users")
		rounds   = fs.Int("rounds", 5, "rounds, of which the medians are compared")
		attempts = fs.Int("attempts", 3, "how often a measurement at a fixed rate is made, if the rate was not kept")
		duration = fs.Duration("duration", 2*time.Second, "how long one measurement lasts")
		warmup   = fs.Duration("warmup", 500*time.Millisecond, "how long each is warmed up")
		rest     = fs.Duration("rest", 30*time.Second, "how long connections have been idle when their memory is measured, for the scenarios idle and idle-tls")
		inFlight = fs.Int("inflight", 64, "messages that a saturating publisher keeps under way")
		readers  = fs.Int("readers", 2, "goroutines that read the members' sockets")
		portable = fs.Bool("portable", false, "make the node use its portable path instead of bare descriptors")
		hostile  = fs.String("case", "", "cases of the scenario hostile, one or several with commas (default all): "+hostileCaseNames())
		binary   = fs.String("binary", "", "measure this build of cmd/fanfare instead of the one of this tree, for the scenarios that run the whole node")
		profiles = fs.String("profile", "", "leave CPU and heap profiles of the measured nodes in this directory")
		path     = fs.String("out", "", "also write the results to this file (default for all: a dated one below bench/results)")
	)
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		if err := fs.Parse(args); err != nil {
			return err
		}
		fs.Usage()
		return usagef("which scenario?")
	}
	scenario := args[0]
	if err := fs.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return usagef("%w", err)
	}
	if fs.NArg() > 0 {
		return usagef("what is %q?", fs.Arg(0))
	}
	if *rounds < 1 || *duration <= 0 || *warmup <= 0 || *rest < 0 || *inFlight < 1 || *inFlight >= ring || *readers < 1 || *groups < 1 || *users < 1 {
		return usagef("rounds, duration, warmup, inflight (below %d), readers, groups and users must be positive, and rest must not be negative", ring)
	}
	files, err := fileLimit()
	if err != nil {
		return err
	}
	ints := func(flagged, def string, least, most int) []int {
		if flagged == "" {
			flagged = def
		}
		var list []int
		for _, s := range strings.Split(flagged, ",") {
			n, e := strconv.Atoi(strings.TrimSpace(s))
			if (e != nil || n < least || n > most) && err == nil {
				err = usagef("%q is not a number from %d to %d", s, least, most)
			}
			list = append(list, n)
		}
		return list
	}
	conns := func(def string) []int { return ints(*members, def, 1, files-200) }
	sizes := func(def string) []int { return ints(*payload, def, minPayload, maxFrame-1024) }
	rates := func(def string) (list []float64) {
		flagged := *rate
		if flagged == "" {
			flagged = def
		}
		for _, s := range strings.Split(flagged, ",") {
			v := 0.0
			if s = strings.TrimSpace(s); s != "saturated" {
				var e error
				if v, e = strconv.ParseFloat(s, 64); (e != nil || v <= 0) && err == nil {
					err = usagef("%q is neither a rate nor saturated", s)
				}
			}
			list = append(list, v)
		}
		return list
	}
	var protocols []string
	for _, s := range strings.Split(*protocol, ",") {
		if s = strings.TrimSpace(s); s != plainJSON && s != reliableJSON {
			return usagef("%q is neither %s nor %s", s, plainJSON, reliableJSON)
		}
		protocols = append(protocols, s)
	}

	b := &bench{
		ctx: ctx, progress: progress, rounds: *rounds, attempts: *attempts, warmup: *warmup, duration: *duration,
		readers: *readers, inFlight: *inFlight, rest: *rest, portable: *portable, profile: *profiles, binary: *binary,
	}
	if scenario == "all" && *path == "" {
		*path = resultPath()
	}
	var steps []func() error
	step := func(f func() error) { steps = append(steps, f) }
	known := false
	if is := func(name string) bool {
		ok := scenario == name || scenario == "all"
		known = known || ok
		return ok
	}; true {
		if is("fanout") {
			n, p, r := conns("1,100,1000"), sizes("128,1024"), rates("saturated,100000")
			step(func() error { return b.fanout(n, p, r, protocols) })
		}
		if scenario == "bare" {
			known = true
			n, p, r := conns("1000"), sizes("128"), rates("saturated,100000")
			step(func() error { return b.bares(n, p, r) })
		}
		if scenario == "nats" {
			known = true
			n, p, r := conns("1000"), sizes("128"), rates("saturated,100000,400000")
			step(func() error { return b.versusNATS(n, p, r) })
		}
		if scenario == "users" {
			known = true
			step(func() error { return b.users(*users) })
		}
		if scenario == "hostile" {
			known = true
			cases, e := findHostileCases(*hostile)
			if e != nil {
				return e
			}
			for _, c := range cases {
				step(func() error { return c.run(b) })
			}
		}
		if is("chat") {
			n, p, r := conns("1000"), sizes("128"), rates("saturated")
			step(func() error { return b.chat(n[len(n)-1], p[0], r[0]) })
		}
		if is("reliable") {
			n, p, r := conns("1000"), sizes("128"), rates("saturated")
			step(func() error { return b.reliable(n[len(n)-1], p[0], r[0]) })
		}
		if is("groups") {
			n, p, r := conns("1000"), sizes("128"), rates("100000")
			step(func() error { return b.groups(n[len(n)-1], p[0], *groups, r[len(r)-1]) })
		}
		if is("stalled") {
			n, p, r := conns("100"), sizes("1024"), rates("100000")
			step(func() error { return b.stalled(n[len(n)-1], p[len(p)-1], r[len(r)-1]) })
		}
		if is("churn") {
			n := conns("2000")
			step(func() error { return b.churn(n[len(n)-1]) })
		}
		if is("idle") {
			n := conns("10000")
			step(func() error { return b.idle(n[len(n)-1]) })
		}
		if is("idle-tls") {
			n := conns("2000")
			step(func() error { return b.idleTLS(n[len(n)-1]) })
		}
	}
	if !known {
		return usagef("there is no scenario %q; --help lists them", scenario)
	}
	if err != nil {
		return err
	}

	b.report = &report{header: header(args)}
	if *path != "" {
		if err := os.MkdirAll(filepath.Dir(*path), 0o755); err != nil {
			return err
		}
		f, err := os.Create(*path)
		if err != nil {
			return err
		}
		defer func() {
			if e := f.Close(); err == nil {
				err = e
			}
			b.say("results are in %s", *path)
		}()
		out = io.MultiWriter(out, f)
	}
	b.report.out = out
	fmt.Fprint(out, b.report.header)
	// The load generator's own collections are noise for the node beside it.
	debug.SetGCPercent(400)
	for _, f := range steps {
		if err := f(); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.say("%v", err)
			b.failures = append(b.failures, err)
		}
	}
	b.report.summary(out)
	for _, err := range b.failures {
		fmt.Fprintf(out, "# NO FIGURE: %v\n", err)
	}
	return errors.Join(b.failures...)
}
