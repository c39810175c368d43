package gateway

import (
	"context"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/gateway/engine"
)

// Check says every reason why a configuration file would not run here, and
// what would be ignored. It opens no port. An error means that the file could
// not be read.
func Check(ctx context.Context, file string) (faults, warnings []api.Fault, err error) {
	raw, err := readOwn(file)
	if err != nil {
		return nil, nil, err
	}
	faults = engine.Check(ctx, raw)
	// What does not parse has its fault already.
	if len(faults) == 0 || faults[0].Stage != "parse" {
		if _, err := ParseBlock(raw); err != nil {
			faults = append(faults, api.Fault{Stage: "init", Path: "/extra_config/" + binnacle.ConfigBlock, Message: err.Error()})
		}
	}
	return faults, engine.Warnings(raw), nil
}
