package gateway

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/binnacle-project/binnacle/gateway/agent"
)

// ErrStandalone is returned for a file without the @cluster block: a
// standalone gateway has no agent to ask.
var ErrStandalone = errors.New("the file has no @cluster block: this gateway runs standalone, ask its health page")

// Status asks the agent of the node whose own file is configFile, or, if
// stateDir is given, the one that uses that folder.
func Status(ctx context.Context, configFile, stateDir string) (agent.NodeStatus, error) {
	if stateDir == "" {
		file, err := filepath.Abs(configFile)
		if err != nil {
			return agent.NodeStatus{}, err
		}
		raw, err := readOwn(file)
		if err != nil {
			return agent.NodeStatus{}, err
		}
		block, err := ParseBlock(raw)
		if err != nil {
			return agent.NodeStatus{}, fmt.Errorf("%s: %w", file, err)
		}
		if block == nil {
			return agent.NodeStatus{}, fmt.Errorf("%s: %w", file, ErrStandalone)
		}
		stateDir = block.Options(file).StateDir
	}
	return agent.AskStatus(ctx, stateDir)
}
