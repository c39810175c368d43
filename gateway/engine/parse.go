package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/luraproject/lura/v2/config"

	"github.com/binnacle-project/binnacle/api"
)

// The stages in which a configuration can fail, as api.Fault has them.
const (
	stageParse = "parse"
	stageInit  = "init"
	stageBuild = "build"
	// stageSchema is for what is accepted but not understood.
	stageSchema = "schema"
)

// maxFaults bounds a report; a reader has enough after that many.
const maxFaults = 50

// parse reads and initializes a configuration as Lura does. On failure it
// returns every fault it can find.
func parse(raw []byte) (cfg config.ServiceConfig, faults []api.Fault) {
	if f := checkSyntax(raw); f != nil {
		return cfg, []api.Fault{*f}
	}
	cfg, err := luraParse(raw)
	if err == nil {
		for _, e := range allExtraConfigs(&cfg) {
			unalias(e)
		}
		return cfg, nil
	}
	if f := typeFault(raw, err); f != nil {
		return cfg, []api.Fault{*f}
	}
	return cfg, initFaults(raw, err)
}

// unexpectedEnd is what encoding/json says of a document that was cut off.
const unexpectedEnd = "unexpected end of JSON input"

// checkSyntax finds what is no JSON object.
func checkSyntax(raw []byte) *api.Fault {
	var doc map[string]json.RawMessage
	err := json.Unmarshal(raw, &doc)
	var syntax *json.SyntaxError
	switch {
	case err == nil && doc == nil:
		return &api.Fault{Stage: stageParse, Line: 1, Column: 1, Message: "the configuration is null; want a JSON object"}
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		at := int(syntax.Offset) - 1 // it counts the offending byte too,
		if syntax.Error() == unexpectedEnd {
			at = len(raw) // except where there is none
		}
		line, column := lineColumn(raw, at)
		return &api.Fault{Stage: stageParse, Line: line, Column: column, Message: syntax.Error()}
	}
	if f := typeFault(raw, err); f != nil {
		return f
	}
	return &api.Fault{Stage: stageParse, Message: err.Error()}
}

// typeFault explains a value of the wrong type; nil when err is something
// else.
func typeFault(raw []byte, err error) *api.Fault {
	var parse *config.ParseError
	if errors.As(err, &parse) { // it has no Unwrap
		err = parse.Err
	}
	var typ *json.UnmarshalTypeError
	if !errors.As(err, &typ) {
		return nil
	}
	line, column := lineColumn(raw, int(typ.Offset)-1)
	return &api.Fault{Stage: stageParse, Line: line, Column: column, Message: typeText(typ)}
}

func typeText(typ *json.UnmarshalTypeError) string {
	text := fmt.Sprintf("found a JSON %s, want %s", typ.Value, typeName(typ.Type.String()))
	if typ.Field != "" {
		text = typ.Field + ": " + text
	}
	return text
}

// typeName says a Go type in JSON's words.
func typeName(goType string) string {
	switch {
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "a whole number"
	case strings.HasPrefix(goType, "float"):
		return "a number"
	case goType == "bool":
		return "true or false"
	case goType == "string":
		return "a string"
	case strings.HasPrefix(goType, "[]"):
		return "an array"
	}
	return "an object"
}

// luraParse runs Lura's parser, which panics on some inputs.
func luraParse(raw []byte) (cfg config.ServiceConfig, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the parser cannot read this; is an endpoint or a backend null? (%v)", r)
		}
	}()
	return config.NewParserWithFileReader(func(string) ([]byte, error) { return raw, nil }).Parse("")
}

// luraWords turns what Lura says of its errors into what they mean here: it
// names no file, and it ignores nothing.
var luraWords = strings.NewReplacer(
	"'': ", "",
	"ignoring the ' ", "endpoint '", // without a method
	"ignoring the '", "endpoint '",
	"' endpoint, since it has 0 backends defined!", "' has no backend",
	"' endpoint, since it is invalid!!!", "' has a path that is reserved, lacks its leading slash or has a * before a dot",
	"' endpoint due to a parsing error", "' does not parse",
)

func initMessage(err error) string { return luraWords.Replace(err.Error()) }

// initFaults finds all endpoints that do not initialize. Lura stops at the
// first, so each is tried alone.
func initFaults(raw []byte, first error) []api.Fault {
	pos := locate(raw)
	fault := func(path string, err error) api.Fault {
		line, column := pos.lineColumn(path)
		return api.Fault{Stage: stageInit, Line: line, Column: column, Path: path, Message: initMessage(err)}
	}
	var doc map[string]json.RawMessage
	var endpoints []json.RawMessage
	if json.Unmarshal(raw, &doc) != nil || json.Unmarshal(doc["endpoints"], &endpoints) != nil {
		return []api.Fault{fault(topLevelPath(first), first)}
	}
	doc["endpoints"] = json.RawMessage("[]")
	if err := parsesAlone(doc); err != nil {
		return []api.Fault{fault(topLevelPath(err), err)}
	}
	var faults []api.Fault
	for i, e := range endpoints {
		doc["endpoints"] = json.RawMessage("[" + string(e) + "]")
		if err := parsesAlone(doc); err != nil && len(faults) < maxFaults {
			faults = append(faults, fault(fmt.Sprintf("/endpoints/%d", i), err))
		}
	}
	if len(faults) == 0 { // each is fine alone
		return []api.Fault{fault("/endpoints", first)}
	}
	return faults
}

func parsesAlone(doc map[string]json.RawMessage) error {
	raw, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	_, err = luraParse(raw)
	return err
}

// topLevelPath guesses the key that a service-wide error is about.
func topLevelPath(err error) string {
	msg := initMessage(err)
	switch {
	case strings.HasPrefix(msg, "unsupported version"):
		return "/version"
	case strings.HasPrefix(msg, "invalid ip address"):
		return "/listen_ip"
	case strings.HasPrefix(msg, "host "):
		return "/host"
	}
	return ""
}

// allExtraConfigs returns the extra_config blocks of all levels.
func allExtraConfigs(cfg *config.ServiceConfig) []config.ExtraConfig {
	all := []config.ExtraConfig{cfg.ExtraConfig}
	for _, e := range cfg.Endpoints {
		all = append(all, e.ExtraConfig)
		for _, b := range e.Backend {
			all = append(all, b.ExtraConfig)
		}
	}
	return all
}
