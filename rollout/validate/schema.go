package validate

import (
	"bytes"
	"fmt"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/api/configschema"
)

// compiledSchema is the published schema, which the build has tested.
var compiledSchema = sync.OnceValue(func() *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(configschema.JSON))
	c := jsonschema.NewCompiler()
	if err == nil {
		err = c.AddResource("config.json", doc)
	}
	var s *jsonschema.Schema
	if err == nil {
		s, err = c.Compile("config.json")
	}
	if err != nil {
		panic(fmt.Sprintf("BUG: the schema of configurations does not compile: %v", err))
	}
	return s
})

// checkSchema lists what in a configuration is not of the published schema, all
// of it. Lura would tell of the first wrong type alone, and take a duration that
// it cannot read for none. filled is raw without references.
func checkSchema(raw, filled []byte) []api.Fault {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(filled))
	if err != nil {
		return nil // the stages before this one have said so
	}
	invalid, ok := compiledSchema().Validate(doc).(*jsonschema.ValidationError)
	if !ok {
		return nil
	}
	var faults []api.Fault
	p := message.NewPrinter(language.English)
	var walk func(*jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		for _, cause := range e.Causes {
			walk(cause)
		}
		if len(e.Causes) > 0 || len(faults) > maxFaults {
			return
		}
		path := ""
		for _, part := range e.InstanceLocation {
			path += "/" + EscapePointer(part)
		}
		faults = append(faults, api.Fault{Stage: stageSchema, Path: path, Message: clip(e.ErrorKind.LocalizedString(p), 300)})
	}
	walk(invalid)
	place(raw, faults)
	return faults
}

// clip bounds a text that quotes what was pushed.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " …"
}

// without leaves out faults at places that have one already.
func without(faults, known []api.Fault) []api.Fault {
	has := make(map[string]bool, len(known))
	for _, f := range known {
		has[f.Path] = true
	}
	var out []api.Fault
	for _, f := range faults {
		if !has[f.Path] {
			out = append(out, f)
		}
	}
	return out
}
