package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle/api"
)

// Check says every reason why raw would be refused: it parses with positions,
// initializes and builds completely, without opening a port. nil means that
// Apply would take it. It never panics and leaves nothing running.
//
// References (${env:NAME}, ${file:PATH}) count as present: their values are
// known on the nodes only.
func Check(ctx context.Context, raw []byte) []api.Fault {
	resolved, err := resolve(raw, func(string, string) (string, error) { return "placeholder", nil })
	if err != nil {
		return faultsOf(err)
	}
	g, err := build(ctx, resolved, buildOptions{log: discard, dry: true})
	if err != nil {
		return faultsOf(err)
	}
	g.release()
	return nil
}

func faultsOf(err error) []api.Fault {
	var be *BuildError
	if errors.As(err, &be) {
		return be.Faults
	}
	return []api.Fault{{Stage: stageBuild, Message: err.Error()}}
}

// BuildError is a configuration that could not be built.
type BuildError struct {
	// Faults has at least one entry.
	Faults []api.Fault
}

// Error joins the faults, one after another.
func (e *BuildError) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = faultText(f)
	}
	return strings.Join(texts, "; ")
}

func faultText(f api.Fault) string {
	switch {
	case f.Line != 0 && f.Path != "":
		return fmt.Sprintf("line %d column %d (%s): %s", f.Line, f.Column, f.Path, f.Message)
	case f.Line != 0:
		return fmt.Sprintf("line %d column %d: %s", f.Line, f.Column, f.Message)
	case f.Path != "":
		return f.Path + ": " + f.Message
	}
	return f.Message
}

// discard is the logger of those who have none.
var discard = slog.New(slog.DiscardHandler)

// Warnings lists what is accepted but has no effect: unknown keys, durations
// that do not parse and so count as 0, and namespaces of extra_config that
// nothing here reads (each once) or that stand where nothing reads them. It is
// empty for what does not parse.
func Warnings(raw []byte) []api.Fault {
	if checkSyntax(raw) != nil {
		return nil
	}
	var doc map[string]any
	if json.Unmarshal(raw, &doc) != nil {
		return nil
	}
	w := &warner{pos: locate(raw), seen: map[string]bool{}}
	w.object("", atService, doc, serviceKeys)
	if doc["plugin"] != nil {
		w.add("/plugin", "plugins are not loaded: the gateway is built without support for them")
	}
	for i, e := range objects(doc, "endpoints") {
		at := fmt.Sprintf("/endpoints/%d", i)
		w.object(at, atEndpoint, e, endpointKeys)
		for j, b := range objects(e, "backend") {
			w.object(fmt.Sprintf("%s/backend/%d", at, j), atBackend, b, backendKeys)
		}
	}
	return w.faults
}

// objects yields the objects in the array at key with their index, in order.
func objects(m map[string]any, key string) iter.Seq2[int, map[string]any] {
	return func(yield func(int, map[string]any) bool) {
		list, _ := m[key].([]any)
		for i, v := range list {
			if o, ok := v.(map[string]any); ok && !yield(i, o) {
				return
			}
		}
	}
}

// The keys that Lura reads on each level, and the duration keys among them.
//
// Source: luraproject lura, config/parser.go.
var (
	serviceKeys = keySet(`$schema name endpoints async_agent host port listen_ip version extra_config output_encoding
		max_header_bytes disable_keep_alives disable_compression disable_rest max_idle_connections max_idle_connections_per_host
		debug_endpoint echo_endpoint plugin tls client_tls use_h2c sequential_start`,
		`timeout cache_ttl read_timeout write_timeout idle_timeout read_header_timeout idle_connection_timeout response_header_timeout
		expect_continue_timeout dialer_timeout dialer_fallback_delay dialer_keep_alive dns_cache_ttl max_shutdown_wait_time`)
	endpointKeys = keySet(`endpoint method backend concurrent_calls input_query_strings extra_config input_headers output_encoding`,
		`timeout cache_ttl`)
	backendKeys = keySet(`group method host disable_host_sanitize url_pattern allow deny mapping encoding is_collection target
		extra_config sd input_headers sd_scheme input_query_strings`, ``)
)

// keySet maps each key to whether it is a duration.
func keySet(plain, durations string) map[string]bool {
	m := map[string]bool{}
	for _, k := range strings.Fields(plain) {
		m[k] = false
	}
	for _, k := range strings.Fields(durations) {
		m[k] = true
	}
	return m
}

type warner struct {
	pos    positions
	seen   map[string]bool // namespaces
	faults []api.Fault
}

func (w *warner) add(path, format string, args ...any) {
	if len(w.faults) >= maxFaults {
		return
	}
	line, column := w.pos.lineColumn(path)
	w.faults = append(w.faults, api.Fault{Stage: stageSchema, Line: line, Column: column, Path: path, Message: fmt.Sprintf(format, args...)})
}

func (w *warner) object(at string, l level, o map[string]any, known map[string]bool) {
	for _, k := range slices.Sorted(maps.Keys(o)) {
		path := at + "/" + escapePointer(k)
		duration, ok := known[strings.ToLower(k)] // as encoding/json matches them
		switch {
		case !ok && !isComment(k):
			w.add(path, "unknown key %q is ignored", k)
		case duration:
			w.duration(path, k, o[k])
		}
	}
	if e, ok := o[keyExtraConfig].(map[string]any); ok {
		w.namespaces(at+"/"+keyExtraConfig, l, e)
		w.telemetry(at+"/"+keyExtraConfig, l, e)
	}
}

func (w *warner) duration(path, key string, v any) {
	s, ok := v.(string)
	if !ok || s == "" || reference.MatchString(s) {
		return
	}
	if _, err := time.ParseDuration(s); err != nil {
		w.add(path, "%s: %q is no duration such as 3s or 500ms and counts as 0", key, s)
	}
}

// telemetry says which keys of the telemetry block have no effect on that level.
func (w *warner) telemetry(at string, l level, e map[string]any) {
	block, ok := e[nsTelemetry]
	if !ok {
		return
	}
	at += "/" + escapePointer(nsTelemetry)
	only := map[string]any{nsTelemetry: block}
	var keys []string
	var err error
	switch l {
	case atEndpoint:
		_, keys, err = endpointTelemetryOf(only)
	case atBackend:
		_, keys, err = backendTelemetryOf(only)
	default:
		_, keys, err = telemetrySettings(only)
	}
	for _, k := range keys {
		w.add(at+"/"+k, "%s of %q has no effect here and is ignored", strings.ReplaceAll(k, "/", "."), nsTelemetry)
	}
	if err != nil {
		w.add(at, "%v", err)
	}
}
