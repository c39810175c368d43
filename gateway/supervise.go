package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle/gateway/agent"
)

// SuperviseOptions say how to run any other gateway as the worker of a node.
type SuperviseOptions struct {
	// Block is what an @cluster block would say; relative paths are relative to
	// the working directory.
	Block Block
	// ConfigFile is the program's configuration file, which must exist: as it is
	// now, it is the node's own file.
	ConfigFile    string
	Program       agent.Program
	DieWithParent bool
	Log           *slog.Logger
	Metrics       *metrics.Set
	// Reload asks to look at the file again; nil never does.
	Reload <-chan os.Signal
}

// Supervise runs the program until ctx ends, then stops it in order.
func Supervise(ctx context.Context, o SuperviseOptions) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ConfigFile == "" {
		return fmt.Errorf("supervise: name the program's configuration file (--config-file)")
	}
	file, err := filepath.Abs(o.ConfigFile)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", o.ConfigFile, err)
	}
	if err := o.Block.check(); err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	// Flags are relative to where they were typed, unlike keys of a file.
	for _, p := range []*string{&o.Block.TokenFile, &o.Block.StateDir} {
		if *p == "" {
			continue
		}
		if *p, err = filepath.Abs(*p); err != nil {
			return fmt.Errorf("supervise: %w", err)
		}
	}
	ao := o.Block.Options(file)
	if _, _, ok := strings.Cut(ao.Advertise, ":"); !ok && o.Program.Health == "" {
		return fmt.Errorf("supervise: say where the program serves, by --advertise HOST:PORT or --health ADDRESS: others find the node there")
	}
	ao.Program = &o.Program
	ao.DieWithParent = o.DieWithParent
	ao.Log, ao.Metrics = o.Log, o.Metrics
	return runAgent(ctx, ao, o.Reload)
}
