package engine

import (
	"bytes"
	"encoding"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/binnacle-project/binnacle/api/configschema"
)

type jsonObject = map[string]any

// typed is a schema of one type. Lura and the modules take null for a value that
// is not there.
func typed(name, description string) jsonObject {
	o := jsonObject{"type": []string{name, "null"}}
	if description != "" {
		o["description"] = description
	}
	return o
}

func listOf(items jsonObject, description string) jsonObject {
	o := typed("array", description)
	o["items"] = items
	return o
}

// duration is what time.ParseDuration takes; Lura takes what it cannot read for
// none, without a word.
func duration(description string) jsonObject {
	o := typed("string", description)
	o["pattern"] = `^$|^[+-]?0$|^[+-]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`
	return o
}

func must(o jsonObject, keys ...string) jsonObject { o["required"] = keys; return o }

// coreSchema is the part that Lura reads.
func coreSchema() jsonObject {
	str, num, flag := func(d string) jsonObject { return typed("string", d) }, func(d string) jsonObject { return typed("integer", d) }, func(d string) jsonObject { return typed("boolean", d) }
	strs := func(d string) jsonObject { return listOf(typed("string", ""), d) }
	ref := func(name string) jsonObject { return jsonObject{"$ref": "#/$defs/" + name} }
	of := func(properties jsonObject) jsonObject { return jsonObject{"type": "object", "properties": properties} }
	client := jsonObject{
		"max_idle_connections": num(""), "max_idle_connections_per_host": num(""), "idle_connection_timeout": duration(""), "response_header_timeout": duration(""),
		"expect_continue_timeout": duration(""), "dialer_timeout": duration(""), "dialer_fallback_delay": duration(""), "dialer_keep_alive": duration(""),
		"disable_keep_alives": flag(""), "disable_compression": flag(""),
	}
	service := jsonObject{
		"$schema": str("Where this schema is found, for editors."), "version": jsonObject{"const": 3, "description": "The version of the format."},
		"name": str("A name for people."), "port": num("The port; it belongs to each node."), "listen_ip": str("The address; it belongs to each node."),
		"host": strs("Hosts of backends that name none."), "timeout": duration("The longest time of an endpoint that sets none, such as 2s."), "cache_ttl": duration("The Cache-Control of answers."),
		"read_timeout": duration(""), "write_timeout": duration(""), "idle_timeout": duration(""), "read_header_timeout": duration(""), "max_header_bytes": num(""),
		"output_encoding": str("json, json-collection, xml, negotiate, string or no-op."), "endpoints": listOf(ref("endpoint"), "The routes."), "async_agent": listOf(jsonObject{"type": "object"}, ""),
		"extra_config": ref("service_extra"), "debug_endpoint": flag(""), "echo_endpoint": flag(""), "disable_rest": flag("Allows paths that are not RESTful."), "sequential_start": flag(""),
		"use_h2c": flag(""), "max_shutdown_wait_time": duration(""),
		"plugin": typed("object", "It belongs to each node."), "tls": typed("object", "It belongs to each node."), "client_tls": typed("object", ""), "dns_cache_ttl": duration(""),
	}
	maps.Copy(service, client)
	return jsonObject{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://binnacle.invalid/schema/config/" + configschema.Version,
		"title": "A gateway's configuration, as Binnacle's nodes take it", "type": "object", "properties": service, "required": []string{"version"},
		"$defs": jsonObject{
			"endpoint": must(of(jsonObject{
				"endpoint": str("The path, such as /users/{id}."), "method": str("GET when not set."), "backend": listOf(ref("backend"), "What is asked for an answer."),
				"concurrent_calls": num(""), "timeout": duration(""), "cache_ttl": duration(""), "input_query_strings": strs("Query parameters that go to the backends."),
				"input_headers": strs("Headers that go to the backends."), "output_encoding": str(""), "extra_config": ref("endpoint_extra"),
			}), "endpoint", "backend"),
			"backend": of(jsonObject{
				"url_pattern": str("The path at the backend."), "host": strs("Where it is, one or several."), "method": str(""), "encoding": str("json, safejson, xml, rss, string, no-op."),
				"is_collection": flag("The answer is an array."), "target": str("The part of the answer that is kept."), "allow": strs(""), "deny": strs(""), "group": str("The key under which the answer stands."),
				"mapping": typed("object", "New names of keys."), "sd": str("static or dns."), "sd_scheme": str(""), "disable_host_sanitize": flag(""),
				"input_headers": strs(""), "input_query_strings": strs(""), "extra_config": ref("backend_extra"),
			}),
		},
	}
}

// shapeSchema is what encoding/json decodes into a type.
func shapeSchema(t reflect.Type, depth int) jsonObject {
	open := reflect.TypeFor[json.Unmarshaler]()
	text := reflect.TypeFor[encoding.TextUnmarshaler]()
	if t.Implements(open) || reflect.PointerTo(t).Implements(open) || t.Implements(text) || reflect.PointerTo(t).Implements(text) || depth > 6 {
		return jsonObject{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return shapeSchema(t.Elem(), depth+1)
	case reflect.String:
		return typed("string", "")
	case reflect.Bool:
		return typed("boolean", "")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return typed("integer", "")
	case reflect.Float32, reflect.Float64:
		return typed("number", "")
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return jsonObject{}
		}
		return listOf(shapeSchema(t.Elem(), depth+1), "")
	case reflect.Map:
		o := typed("object", "")
		o["additionalProperties"] = shapeSchema(t.Elem(), depth+1)
		return o
	case reflect.Struct:
		o := typed("object", "")
		properties := jsonObject{}
		fields(t, properties, depth)
		o["properties"] = properties
		return o
	}
	return jsonObject{}
}

func fields(t reflect.Type, into jsonObject, depth int) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == "-" || !f.IsExported() && !f.Anonymous:
		case f.Anonymous && tag == "" && f.Type.Kind() == reflect.Struct:
			fields(f.Type, into, depth)
		case strings.Contains(options, "string"):
			into[cmpOr(tag, f.Name)] = jsonObject{}
		default:
			into[cmpOr(tag, f.Name)] = shapeSchema(f.Type, depth+1)
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// extraSchema has the namespaces of one level by all their names.
func extraSchema(l level) jsonObject {
	properties := jsonObject{}
	for i := range namespaces {
		n := &namespaces[i]
		if n.levels&l == 0 {
			continue
		}
		o := jsonObject{}
		if n.support == supported && n.shape != nil {
			o = shapeSchema(reflect.TypeOf(n.shape), 0)
			o["type"] = "object"
		}
		switch {
		case n.support == ignored:
			o["description"] = "Ignored: " + n.note
		case n.support == refused:
			o["description"] = "Refused, for without it " + n.note
		case n.note != "":
			o["description"] = n.note
		}
		for _, name := range n.names() {
			properties[name] = o
		}
	}
	return jsonObject{"type": []string{"object", "null"}, "properties": properties}
}

// TestSchema holds the published schema against the tables.
func TestSchema(t *testing.T) {
	schema := coreSchema()
	defs := schema["$defs"].(jsonObject)
	defs["service_extra"], defs["endpoint_extra"], defs["backend_extra"] = extraSchema(atService), extraSchema(atEndpoint), extraSchema(atBackend)
	want, err := json.MarshalIndent(schema, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("../../api/configschema/krakend.schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(want, configschema.JSON) {
		t.Error("api/configschema/krakend.schema.json is not the tables': run go test ./gateway/engine -run Schema -update, and raise its version if it became stricter")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(want))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := c.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	// What the engine takes is valid.
	files, err := filepath.Glob("testdata/corpus/*.json")
	if err != nil {
		t.Fatal(err)
	}
	files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, ".requests.json") })
	if len(files) < 20 {
		t.Fatalf("%d files of the corpus", len(files))
	}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		inst, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			t.Logf("%s: %v", f, err)
			continue
		}
		if err := compiled.Validate(inst); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}
