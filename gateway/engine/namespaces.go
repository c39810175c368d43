package engine

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/luraproject/lura/v2/config"
)

// support is what the engine does with a namespace of extra_config.
type support uint8

const (
	// supported namespaces do here what they do in KrakenD.
	supported support = iota
	// ignored ones have no effect, which a warning says; traffic is the same
	// without them.
	ignored
	// refused ones forbid requests, make them possible or change answers.
	// Ignoring one would let through what the file keeps out, so a
	// configuration that has one is not taken.
	refused
)

// String returns the words of the table in the documentation.
func (s support) String() string {
	switch s {
	case supported:
		return "supported"
	case ignored:
		return "ignored with a warning"
	case refused:
		return "refused"
	}
	return fmt.Sprintf("support(%d)", uint8(s))
}

// level says where in a configuration an extra_config stands.
type level uint8

const (
	atService level = 1 << iota
	atEndpoint
	atBackend
	atAgent
)

// String joins the names of the levels.
func (l level) String() string {
	var names []string
	for _, k := range []struct {
		level level
		name  string
	}{{atService, "service"}, {atEndpoint, "endpoint"}, {atBackend, "backend"}, {atAgent, "async agent"}} {
		if l&k.level != 0 {
			names = append(names, k.name)
		}
	}
	return strings.Join(names, ", ")
}

// namespace is one row of the table of what KrakenD's files can hold.
type namespace struct {
	// name is KrakenD 2's; aliases are the others that KrakenD reads too.
	name    string
	aliases []string
	// module is the name that the code which reads the block looks for; empty
	// is name.
	module string
	levels level
	support
	enterprise bool
	// note completes the row: what is different here, what stands in for it,
	// or, for a refused one, what would happen without it.
	note string
	// shape is a zero value of what the block decodes into; nil is anything.
	// The modules skip what has the wrong type or name, which can mean no
	// limit and no check; here that is a fault or a warning.
	shape any
	// exact says that the module reads keys in their exact case.
	exact bool
}

func (n *namespace) key() string {
	if n.module != "" {
		return n.module
	}
	return n.name
}

// names returns all that the block may be called in a file.
func (n *namespace) names() []string {
	return append([]string{n.name, n.key()}, n.aliases...)
}

// byName finds a row by any of its names.
var byName = func() map[string]*namespace {
	m := map[string]*namespace{}
	for i := range namespaces {
		for _, name := range namespaces[i].names() {
			m[name] = &namespaces[i]
		}
	}
	return m
}()

// unalias renames the keys of e to those that Lura and the modules read. Where
// a block stands under several of its names, KrakenD's newest one wins.
func unalias(e config.ExtraConfig) {
	for _, name := range slices.Sorted(maps.Keys(e)) {
		n := byName[name]
		if n == nil || name == n.key() {
			continue
		}
		block := e[name]
		delete(e, name)
		if _, taken := e[n.key()]; !taken || name == n.name {
			e[n.key()] = block
		}
	}
}

// isComment reports whether KrakenD's schema sets a key aside for others, as
// the cluster block's.
func isComment(key string) bool { return key != "" && strings.IndexByte("@$_#", key[0]) >= 0 }

// namespaces checks the blocks of one extra_config: it refuses what must not
// be ignored or has the wrong shape, and notes what is ignored.
func (b *builder) namespaces(at string, l level, e config.ExtraConfig) {
	for _, name := range slices.Sorted(maps.Keys(e)) {
		n := byName[name]
		switch {
		case isComment(name):
		case n == nil:
			b.gen.warnings = append(b.gen.warnings, name)
		case n.support == ignored:
			b.gen.warnings = append(b.gen.warnings, n.name)
		case n.support == refused:
			b.fault(b.blockPath(at, n), "extra_config %q is not supported, and without it %s", n.name, n.note)
		case n.levels&l == 0:
			b.gen.warnings = append(b.gen.warnings, n.name)
		default:
			if err := n.check(e[name]); err != nil {
				b.fault(b.blockPath(at, n), "extra_config %q: %v", n.name, err)
			}
		}
	}
}

// blockPath is the pointer to a block, by the name that the file calls it.
func (b *builder) blockPath(at string, n *namespace) string {
	for _, name := range n.names() {
		path := at + "/" + keyExtraConfig + "/" + escapePointer(name)
		if _, ok := b.pos.at[path]; ok {
			return path
		}
	}
	return at
}

// check compares a block with its shape.
func (n *namespace) check(block any) error {
	if n.shape == nil {
		return nil
	}
	if _, ok := block.(map[string]any); !ok {
		return errors.New("want an object")
	}
	return remarshal(block, reflect.New(reflect.TypeOf(n.shape)).Interface())
}

// unknownKeys returns the keys of a block that nothing reads, sorted.
func (n *namespace) unknownKeys(block any) []string {
	m, ok := block.(map[string]any)
	if n.shape == nil || !ok {
		return nil
	}
	known := jsonKeys(reflect.TypeOf(n.shape))
	var unknown []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if isComment(k) || slices.ContainsFunc(known, func(s string) bool {
			return s == k || !n.exact && strings.EqualFold(s, k)
		}) {
			continue
		}
		unknown = append(unknown, k)
	}
	return unknown
}

// jsonKeys returns the keys that encoding/json decodes into a struct.
func jsonKeys(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "":
			keys = append(keys, jsonKeys(f.Type)...)
		case name == "":
			keys = append(keys, f.Name)
		default:
			keys = append(keys, name)
		}
	}
	return keys
}

// warnings says of an extra_config what is accepted without an effect.
func (w *warner) namespaces(at string, l level, e map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(e)) {
		path := at + "/" + escapePointer(name)
		n := byName[name]
		switch {
		case isComment(name):
		case n == nil:
			w.once(name, path, "extra_config %q is not known and is ignored", name)
		case n.support == ignored:
			w.once(n.name, path, "extra_config %q is ignored: %s", n.name, n.note)
		case n.support == refused: // a fault
		case n.levels&l == 0:
			w.add(path, "extra_config %q has no effect at the %s level; it belongs to: %s", n.name, l, n.levels)
		default:
			for _, k := range n.unknownKeys(e[name]) {
				w.add(path+"/"+escapePointer(k), "unknown key %q of %q is ignored", k, n.name)
			}
		}
	}
}

// once adds a warning about a namespace the first time only.
func (w *warner) once(name, path, format string, args ...any) {
	if !w.seen[name] {
		w.seen[name] = true
		w.add(path, format, args...)
	}
}
