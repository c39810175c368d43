// Package validate finds what is wrong with a gateway's configuration before any node
// sees it: its syntax, its shape and the schema, what the engine's own reading of it
// says, and what a build by the gateway's binary says. Each fault tells where it is.
package validate

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/binnacle-project/binnacle/api"
)

// Stages of the validation, in their order. Each lists all faults that it can
// find. A later one is only tried when the earlier found none, since it would
// repeat them; Lura's look at single endpoints, which repeats nothing, follows
// faults of the schema, too.
const (
	StageParse  = "parse"
	stageSchema = "schema"
	stageInit   = "init"
	StageBuild  = "build"
)

// maxFaults bounds a report; a reader has enough after that many.
const maxFaults = 100

// Validator checks configurations. It is safe for concurrent use.
type Validator struct {
	gateway string
	builds  chan struct{} // held during a dry build: one may take a core and some 100 MB
}

// New returns a Validator that has the gateway's binary try builds. With an
// empty name no build is tried, which each check then says.
func New(gatewayBinary string) *Validator {
	return &Validator{gateway: gatewayBinary, builds: make(chan struct{}, 1)}
}

// Check checks a configuration in all stages and lists what is wrong with it, and
// what is only to be known. err is for what is not the configuration's fault.
func (v *Validator) Check(ctx context.Context, raw []byte) (faults, warnings []api.Fault, err error) {
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
		warnings = append(warnings, api.Fault{Stage: stageSchema, Message: referencesNote(refs)})
	}
	if faults = checkInit(filled); len(faults) > 0 {
		return cut(faults), nil, nil
	}
	if v.gateway == "" {
		return nil, append(warnings, api.Fault{Stage: StageBuild, Message: "the build was not tried: the manager has no binnacle-gateway beside it; give it one with --gateway-binary"}), nil
	}
	select {
	case v.builds <- struct{}{}:
		defer func() { <-v.builds }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	faults, more, err := dryBuild(ctx, v.gateway, filled)
	return cut(faults), append(warnings, more...), err
}

// referencesNote says that references were not followed.
func referencesNote(n int) string {
	const rest = "filled in by each node, and no such value was checked"
	if n == 1 {
		return "1 reference to ${env:…} or ${file:…} is " + rest
	}
	return fmt.Sprintf("%d references to ${env:…} or ${file:…} are %s", n, rest)
}

// marshal is for what always marshals.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("BUG: %T does not marshal: %v", v, err))
	}
	return b
}

// cut bounds the list and says so.
func cut(faults []api.Fault) []api.Fault {
	if len(faults) <= maxFaults {
		return faults
	}
	more := len(faults) - maxFaults
	return append(faults[:maxFaults:maxFaults], api.Fault{Stage: faults[maxFaults].Stage, Message: fmt.Sprintf("and %d more", more)})
}
