package engine

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/luraproject/lura/v2/logging"
)

// luraLog is Lura's logger over slog. Lura calls "error" what one request went
// through, so its levels move one down: Error here means that a person should
// act.
//
// While a configuration is built, what Lura logs as an error (an unreadable CA
// file, for instance) is collected: Lura would serve on without it, the engine
// refuses. It is safe for concurrent use.
type luraLog struct {
	log *slog.Logger
	// sink takes the lines instead when the configuration has a log of its
	// own; nil otherwise.
	sink atomic.Pointer[logSink]

	mu       sync.Mutex
	building bool
	errors   []string
}

// fatal is what Fatal panics with. Lura expects the process to end; the build
// recovers it instead.
type fatal struct{ message string }

func (l *luraLog) say(level slog.Level, as func(logging.Logger, string), v []any) {
	if s := l.sink.Load(); s != nil && !s.failed.Load() {
		s.put(logLine{as, text(v)})
		return
	}
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, text(v))
	}
}

func text(v []any) string { return strings.TrimSpace(fmt.Sprintln(v...)) }

func (l *luraLog) Debug(v ...any)   { l.say(slog.LevelDebug, asDebug, v) }
func (l *luraLog) Info(v ...any)    { l.say(slog.LevelDebug, asInfo, v) }
func (l *luraLog) Warning(v ...any) { l.say(slog.LevelInfo, asWarning, v) }

func (l *luraLog) Error(v ...any) {
	if !l.collect(v) {
		l.say(slog.LevelWarn, asError, v)
	}
}

func (l *luraLog) Critical(v ...any) {
	if !l.collect(v) {
		l.say(slog.LevelError, asCritical, v)
	}
}

// Lura's levels, for a log of the configuration's own.
func asDebug(l logging.Logger, text string)    { l.Debug(text) }
func asInfo(l logging.Logger, text string)     { l.Info(text) }
func asWarning(l logging.Logger, text string)  { l.Warning(text) }
func asError(l logging.Logger, text string)    { l.Error(text) }
func asCritical(l logging.Logger, text string) { l.Critical(text) }

func (l *luraLog) Fatal(v ...any) { panic(fatal{text(v)}) }

func (l *luraLog) collect(v []any) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.building {
		l.errors = append(l.errors, text(v))
	}
	return l.building
}

// take returns what was collected since the last call.
func (l *luraLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs := l.errors
	l.errors = nil
	return errs
}

// built ends the collecting.
func (l *luraLog) built() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.building = false
}
