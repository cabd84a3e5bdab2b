// Command nats runs nats-server in a process of its own, for bench to measure
// beside a Fanfare node. It is a module of its own, so that the product does not
// depend on what it is compared with. Bench builds and starts it.
package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

func run() error {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true,
		Authorization: "bench-token",
		Websocket:     server.WebsocketOpts{Host: "127.0.0.1", Port: -1, NoTLS: true},
	})
	if err != nil {
		return err
	}
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		return fmt.Errorf("the server does not start")
	}
	u, err := url.Parse(s.WebsocketURL())
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]string{"Addr": u.Host}); err != nil {
		return err
	}
	// Commands and answers are those of bench/control.go.
	in := json.NewDecoder(os.Stdin)
	for {
		var c struct{ Do string }
		if in.Decode(&c) != nil {
			return nil // bench has hung up
		}
		if c.Do == "gc" {
			runtime.GC()
			debug.FreeOSMemory()
		}
		var ru syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
			return err
		}
		var ms runtime.MemStats
		runtime.ReadMemStats(&ms)
		err := out.Encode(map[string]any{
			"CPU":        ru.Utime.Nano() + ru.Stime.Nano(),
			"Goroutines": runtime.NumGoroutine(), "Heap": ms.HeapAlloc,
			"Stats": map[string]any{"Connections": s.NumClients(), "Memberships": s.NumSubscriptions()},
		})
		if err != nil {
			return err
		}
	}
}
