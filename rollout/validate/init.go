package validate

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/luraproject/lura/v2/config"

	"github.com/binnacle-project/binnacle/api"
)

// checkInit has Lura read and initialize the configuration. Lura stops at the
// first fault, so that after one each endpoint is tried alone.
func checkInit(raw []byte) []api.Fault {
	whole := luraInit(raw)
	if whole == nil {
		return nil
	}
	faults := []api.Fault{initFault(raw, whole)}
	if faults[0].Line == 0 { // else it is placed: a value of the wrong type
		if each := checkEndpoints(raw); len(each) > 0 {
			faults = each
		}
	}
	place(raw, faults)
	return faults
}

// luraInit is Lura's reading of a file. Whatever panics in it is a fault of the
// file.
func luraInit(raw []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it makes the gateway's parser panic: %v", p)
		}
	}()
	_, err = config.NewParserWithFileReader(func(string) ([]byte, error) { return raw, nil }).Parse("krakend.json")
	return err
}

// initFault explains an error of luraInit.
func initFault(raw []byte, err error) api.Fault {
	var parse *config.ParseError
	if errors.As(err, &parse) {
		err = parse.Err
	}
	var typ *json.UnmarshalTypeError
	if errors.As(err, &typ) {
		f := faultAt(raw, int(typ.Offset)-1, "", fmt.Sprintf("the value of %q is a JSON %s; want what fits into %s", typ.Field, typ.Value, typ.Type))
		f.Stage = stageInit
		return f
	}
	message := strings.TrimPrefix(err.Error(), "'krakend.json': ")
	// Lura speaks of ignoring, but refuses the whole file.
	message = strings.TrimPrefix(message, "ignoring ")
	return api.Fault{Stage: stageInit, Message: message}
}

// checkEndpoints tries the configuration without endpoints and then with each of
// them alone, and returns the faults with their paths. None means that the
// fault is in how endpoints go together.
func checkEndpoints(raw []byte) []api.Fault {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil
	}
	var endpoints []json.RawMessage
	if err := json.Unmarshal(top["endpoints"], &endpoints); err != nil {
		return nil
	}
	try := func(list []json.RawMessage) error {
		top["endpoints"] = marshal(list)
		return luraInit(marshal(top))
	}
	if try([]json.RawMessage{}) != nil {
		return nil
	}
	var faults []api.Fault
	for i, e := range endpoints {
		if len(faults) > maxFaults {
			break
		}
		if err := try([]json.RawMessage{e}); err != nil {
			f := initFault(raw, err)
			f.Path, f.Line, f.Column = fmt.Sprintf("/endpoints/%d", i), 0, 0
			faults = append(faults, f)
		}
	}
	return faults
}

// endpointFaults has Lura look at each endpoint of a configuration that has
// faults already, so that one push shows them all. Endpoints with a known fault
// are left out.
func endpointFaults(raw []byte, known []api.Fault) []api.Fault {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(raw, &top); err != nil {
		return nil
	}
	top["version"] = json.RawMessage(fmt.Sprint(wantVersion)) // its fault is told
	faults := slices.DeleteFunc(checkEndpoints(marshal(top)), func(f api.Fault) bool {
		return slices.ContainsFunc(known, func(k api.Fault) bool {
			return k.Path == f.Path || strings.HasPrefix(k.Path, f.Path+"/")
		})
	})
	place(raw, faults)
	return faults
}
