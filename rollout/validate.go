package rollout

import (
	"context"
	"fmt"

	"github.com/binnacle-project/binnacle/api"
)

// Stages of the validation, in their order. Each lists all faults that it can
// find. A later one is only tried when the earlier found none, since it would
// repeat them; Lura's look at single endpoints, which repeats nothing, follows
// faults of the schema, too.
const (
	stageParse  = "parse"
	stageSchema = "schema"
	stageInit   = "init"
	stageBuild  = "build"
)

// maxFaults bounds a report; a reader has enough after that many.
const maxFaults = 100

// validate checks a configuration in all stages. err is for what is not the
// configuration's fault.
func (s *Service) validate(ctx context.Context, raw []byte) (faults, warnings []api.Fault, err error) {
	if faults = checkSyntax(raw); len(faults) > 0 {
		return faults, nil, nil
	}
	faults, warnings = checkShape(raw)
	filled, refs, bad := fillReferences(raw)
	faults = append(faults, bad...)
	faults = append(faults, without(checkSchema(raw, filled), faults)...)
	if len(faults) > 0 {
		return cut(append(faults, endpointFaults(filled, faults)...)), nil, nil
	}
	if refs > 0 {
		warnings = append(warnings, api.Fault{Stage: stageSchema, Message: fmt.Sprintf("%s to ${env:…} or ${file:…} %s filled in by each node, and no such value was checked", count(refs, "reference"), are(refs))})
	}
	if faults = checkInit(filled); len(faults) > 0 {
		return cut(faults), nil, nil
	}
	if s.o.GatewayBinary == "" {
		return nil, append(warnings, api.Fault{Stage: stageBuild, Message: "the build was not tried: the manager has no binnacle-gateway beside it; give it one with --gateway-binary"}), nil
	}
	select { // one at a time: a build may take a core and some 100 MB
	case s.builds <- struct{}{}:
		defer func() { <-s.builds }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	faults, more, err := dryBuild(ctx, s.o.GatewayBinary, filled)
	return cut(faults), append(warnings, more...), err
}

// cut bounds the list and says so.
func cut(faults []api.Fault) []api.Fault {
	if len(faults) <= maxFaults {
		return faults
	}
	more := len(faults) - maxFaults
	return append(faults[:maxFaults:maxFaults], api.Fault{Stage: faults[maxFaults].Stage, Message: fmt.Sprintf("and %d more", more)})
}
