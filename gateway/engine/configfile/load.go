package configfile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/toml"
	"github.com/knadh/koanf/parsers/yaml"
)

// maxBytes bounds a file and what is rendered from it; it is far more than any
// configuration needs.
const maxBytes = 16 << 20

// envPrefix begins the variables that override top-level keys.
const envPrefix = "KRAKEND_"

// Load reads the configuration in file and returns it as JSON. Its form is
// told by its extension: .yaml and .yml, .toml, and JSON for all others.
//
// environ holds NAME=value pairs, as os.Environ returns them. With FC_ENABLE
// set the file is rendered as a template first, see Flexible; KRAKEND_KEY
// overrides the top-level key "key" if it is one that holds a string, a number
// or a truth value. nil means neither.
//
// A JSON file without either comes back byte for byte, so that the positions
// of faults in it are those of the file; broken JSON is not an error here.
func Load(file string, environ []string) ([]byte, error) {
	env := environment(environ)
	raw, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if env["FC_ENABLE"] != "" {
		f := Flexible{
			Settings: env["FC_SETTINGS"], Partials: env["FC_PARTIALS"], Templates: env["FC_TEMPLATES"], Out: env["FC_OUT"],
			Env: func(name string) string { return env[name] },
		}
		if raw, err = f.Render(file); err != nil {
			return nil, err
		}
	}
	raw, err = ToJSON(file, raw)
	if err != nil {
		return nil, err
	}
	return override(raw, env)
}

func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, pair := range environ {
		if k, v, ok := strings.Cut(pair, "="); ok {
			env[k] = v
		}
	}
	return env
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxBytes {
		return nil, fmt.Errorf("%s has more than %d MiB", path, maxBytes>>20)
	}
	return raw, nil
}

// ToJSON converts raw, in the form that the extension of name tells. JSON is
// returned as it is.
func ToJSON(name string, raw []byte) (out []byte, err error) {
	var doc map[string]any
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml":
		doc, err = unmarshal(yaml.Parser().Unmarshal, raw)
	case ".toml":
		doc, err = unmarshal(toml.Parser().Unmarshal, raw)
	default:
		return raw, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if out, err = json.MarshalIndent(clean(doc), "", "  "); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// unmarshal guards against parsers that panic on outside bytes.
func unmarshal(parse func([]byte) (map[string]any, error), raw []byte) (doc map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			doc, err = nil, fmt.Errorf("the parser cannot read this: %v", r)
		}
	}()
	return parse(raw)
}

// clean makes what a parser returns fit for JSON.
func clean(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			v[k] = clean(e)
		}
		return v
	case map[any]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[fmt.Sprint(k)] = clean(e)
		}
		return m
	case []any:
		for i, e := range v {
			v[i] = clean(e)
		}
		return v
	case []map[string]any: // TOML's arrays of tables
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = clean(e)
		}
		return list
	}
	return v
}

// scalars are the top-level keys that the environment can override.
var scalars = strings.Fields(`name port listen_ip version timeout cache_ttl output_encoding max_header_bytes
	read_timeout write_timeout idle_timeout read_header_timeout idle_connection_timeout response_header_timeout
	expect_continue_timeout dialer_timeout dialer_fallback_delay dialer_keep_alive dns_cache_ttl max_shutdown_wait_time
	disable_keep_alives disable_compression disable_rest max_idle_connections max_idle_connections_per_host
	debug_endpoint echo_endpoint use_h2c sequential_start`)

// override lays the variables of the environment over the document.
func override(raw []byte, env map[string]string) ([]byte, error) {
	values := map[string]string{}
	for name, v := range env {
		key, ok := strings.CutPrefix(name, envPrefix)
		if key = strings.ToLower(key); ok && slices.Contains(scalars, key) {
			values[key] = v
		}
	}
	if len(values) == 0 {
		return raw, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var doc map[string]any
	if dec.Decode(&doc) != nil || doc == nil {
		return raw, nil // whoever reads it says what is wrong
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		doc[key] = scalar(values[key], doc[key])
	}
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("override keys by the environment: %w", err)
	}
	return out, nil
}

// scalar is text as the kind of value that it replaces, or, where there was
// none, as what it looks like.
func scalar(text string, old any) any {
	if _, ok := old.(string); ok {
		return text
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if b, err := strconv.ParseBool(text); err == nil {
		return b
	}
	return text
}
