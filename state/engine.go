package state

import "context"

// Engine is what a Store runs on. Keys include the reserved ones, which begin
// with Reserved. An engine keeps the order of commits and gives each of them
// once to its Feed, in that order. It answers with the errors of this package.
type Engine interface {
	Get(ctx context.Context, key string) (KV, error)
	// Scan calls fn for each key in [from, end), in order, as of one moment.
	Scan(ctx context.Context, from, end string, fn func(KV) error) error
	// Commit does all of ops if all of conds hold, exactly once, and returns the
	// version that all keys written have.
	Commit(ctx context.Context, conds []Cond, ops []Op) (int64, error)
	Close() error
}

// Feed is where an engine tells of commits. It never blocks.
type Feed interface {
	// Publish gives the changes of one commit, or of a few. The engine may use
	// the slice and the values again.
	Publish([]Change)
	// Resync says that changes are missing.
	Resync()
}

// Reserved begins the keys that are no caller's: those of this package and of
// the engines. Callers' keys are from FirstKey on and before it.
const (
	FirstKey = "\x00"
	Reserved = "~"
)
