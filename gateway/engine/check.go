package engine

import (
	"context"

	"github.com/binnacle-project/binnacle/api"
)

// Check says every reason why raw would be refused: it parses with positions,
// initializes and builds completely, without opening a port. nil means that
// Apply would take it. It never panics and leaves nothing running.
func Check(ctx context.Context, raw []byte) []api.Fault { return nil }

// Warnings lists what would be accepted but ignored: unknown keys and unknown
// namespaces of extra_config, each once. It is empty for what does not parse.
func Warnings(raw []byte) []api.Fault { return nil }

// BuildError is a configuration that could not be built.
type BuildError struct {
	// Faults has at least one entry.
	Faults []api.Fault
}

// Error joins the faults, one after another.
func (e *BuildError) Error() string { return "" }
