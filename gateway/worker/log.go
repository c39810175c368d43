package worker

import (
	"io"
	"log/slog"
)

// NewLogger returns the logger of a gateway process. format is text or json;
// level is as slog.Level prints it. What it does not know becomes text and
// INFO: a logger must not keep a process from starting.
func NewLogger(w io.Writer, format, level string) *slog.Logger {
	var l slog.Level
	if l.UnmarshalText([]byte(level)) != nil {
		l = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
