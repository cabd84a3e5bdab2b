package main

import (
	"io"
	"log/slog"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
	"github.com/fanfare/fanfare/transport/sampling"
)

// newLogger returns the log of a node, which samples refusals. level can be changed while
// it runs. The caller calls flush at the end.
func newLogger(w io.Writer, c config.Log, level *slog.LevelVar) (log *slog.Logger, flush func()) {
	level.Set(c.Level)
	o := &slog.HandlerOptions{Level: level}
	var lines slog.Handler = slog.NewTextHandler(w, o)
	if c.Format == "json" {
		lines = slog.NewJSONHandler(w, o)
	}
	sampled := sampling.New(lines, nil)
	return slog.New(sampled), sampled.Flush
}
