package rollout

import (
	"bytes"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout/validate"
)

// formatOpaque is for groups of supervised programs, whose configurations only
// those can judge.
const formatOpaque = "opaque"

// formatFor returns the format of a new revision of group g. The first revision
// of a group settles it; asked, if not empty, must be that one.
func (s *Service) formatFor(g binnacle.Group, asked string) (string, error) {
	switch asked {
	case "", formatKrakenD, formatOpaque:
	default:
		return "", invalid("format %.40q is none: want %s, or %s for supervised programs", asked, formatKrakenD, formatOpaque)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[g]
	switch {
	case l == nil || l.group.Last == 0:
		if asked == "" {
			return formatKrakenD, nil
		}
		return asked, nil
	case asked != "" && asked != l.group.Format:
		return "", conflict("group %s is of format %s since its first revision, not %s: use another group", g, l.group.Format, asked)
	}
	return l.group.Format, nil
}

// checkOpaque finds what no program can run. All else is for the check command
// of each node.
func checkOpaque(raw []byte) (faults, warnings []api.Fault) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return []api.Fault{{Stage: validate.StageParse, Message: "the configuration is empty"}}, nil
	}
	return nil, []api.Fault{{Stage: validate.StageBuild, Message: "the group is of format opaque: only the nodes' own check commands judge this configuration"}}
}
