package main

import (
	"io"
	"log/slog"

	"github.com/fanfare/fanfare/cmd/fanfare/internal/config"
)

// newLogger returns the log of a node. level can be changed while it runs.
func newLogger(w io.Writer, c config.Log, level *slog.LevelVar) *slog.Logger {
	level.Set(c.Level)
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
