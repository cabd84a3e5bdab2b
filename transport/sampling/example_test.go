package sampling_test

import (
	"log/slog"
	"os"

	"github.com/fanfare/fanfare/transport/sampling"
)

func Example() {
	lines := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "in" {
			return slog.Attr{}
		}
		return a
	}})
	sampled := sampling.New(lines, &sampling.Options{Whole: 2})
	log := slog.New(sampled)
	for range 1000 {
		log.Info("refused a client", "rule", "token.missing", "remote", "192.0.2.1:4711")
	}
	sampled.Flush()
	// Output:
	// level=INFO msg="refused a client" rule=token.missing remote=192.0.2.1:4711
	// level=INFO msg="refused a client" rule=token.missing remote=192.0.2.1:4711
	// level=INFO msg="refusals were left out of the log" refusal="refused a client" rule=token.missing from=192.0.2.0/24 leftOut=998 logged=2
}
