package etcd

import (
	"context"
	"log/slog"
	"os"

	"github.com/binnacle-project/binnacle/state/diskspace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// harmless are messages of every normal start and stop of an etcd without
// listeners. They would only worry people.
var harmless = map[string]bool{
	"setting up serving from embedded etcd failed.":                                                    true,
	"setting up serving from embedded etcd failed":                                                     true,
	"failed to update storage version":                                                                 true,
	"Failed to detect storage schema version. Please wait till wal snapshot before upgrading cluster.": true,
	// At the very first start there is no version to detect.
	"Failed to detect schema version":                                                      true,
	"simple token is not cryptographically signed":                                         true,
	"Running http and grpc server on single port. This is not recommended for production.": true,
}

// newZapLogger returns the logger that etcd gets: its messages go to log, Info
// as Debug, because etcd reports there what only its developers read.
func newZapLogger(log *slog.Logger, dir string) *zap.Logger {
	return zap.New(&zapCore{log: log.With("source", "etcd")}, zap.WithFatalHook(fatalHook{log, dir}))
}

// fatalHook runs where etcd can not go on, as when the disk is full. Nothing in
// the process can be trusted to store anything afterwards, and what was
// acknowledged is on disk: end, and let the supervisor start anew.
type fatalHook struct {
	log *slog.Logger
	dir string
}

func (h fatalHook) OnWrite(entry *zapcore.CheckedEntry, _ []zapcore.Field) {
	free, _ := diskspace.Free(h.dir)
	h.log.Error("control state can not go on and ends the process; check the disk, then start again", "cause", entry.Message, "dir", h.dir, "free_bytes", free)
	os.Exit(1)
}

// zapCore is a zapcore.Core on top of slog.
type zapCore struct{ log *slog.Logger }

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l <= zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// Enabled is true for fatal messages in any case: the hook hangs on them.
func (c *zapCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.DPanicLevel || c.log.Enabled(context.Background(), slogLevel(l))
}

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log.With(slogAttrs(fields)...)}
}

func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) && !harmless[e.Message] {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), slogLevel(e.Level), e.Message, slogAttrs(fields)...)
	return nil
}

func (c *zapCore) Sync() error { return nil }

func slogAttrs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	attrs := make([]any, 0, 2*len(fields))
	for _, f := range fields {
		f.AddTo(enc)
		if v, ok := enc.Fields[f.Key]; ok {
			attrs = append(attrs, f.Key, v)
		}
	}
	return attrs
}
