package configfile

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// maxRepeat bounds what repeat, indent and until make.
const maxRepeat = 100_000

// functions returns what templates can call besides Go's own: KrakenD's two,
// and the functions of sprig that configurations use, by sprig's names and in
// sprig's order of arguments, in which the subject comes last.
func (f Flexible) functions() template.FuncMap {
	return template.FuncMap{
		"marshal": toJSON,
		"include": f.include,
		"env": func(name string) string {
			if f.Env == nil {
				return ""
			}
			return f.Env(name)
		},

		"default": func(d any, v ...any) any {
			if len(v) == 0 || empty(v[0]) {
				return d
			}
			return v[0]
		},
		"coalesce": func(vs ...any) any {
			for _, v := range vs {
				if !empty(v) {
					return v
				}
			}
			return nil
		},
		"empty":   empty,
		"ternary": ternary,
		"fail":    func(msg string) (string, error) { return "", errors.New(msg) },
		"kindOf":  kindOf,
		"kindIs":  func(kind string, v any) bool { return kindOf(v) == kind },

		"toJson":       toJSON,
		"toRawJson":    toJSON,
		"toPrettyJson": func(v any) (string, error) { b, err := json.MarshalIndent(v, "", "  "); return string(b), err },
		"fromJson":     func(s string) (v any, err error) { err = json.Unmarshal([]byte(s), &v); return v, err },
		"b64enc":       func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"b64dec":       func(s string) (string, error) { b, err := base64.StdEncoding.DecodeString(s); return string(b), err },
		"sha256sum":    func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) },

		"quote":      func(vs ...any) string { return each(vs, func(s string) string { return strconv.Quote(s) }) },
		"squote":     func(vs ...any) string { return each(vs, func(s string) string { return "'" + s + "'" }) },
		"upper":      strings.ToUpper,
		"lower":      strings.ToLower,
		"trim":       strings.TrimSpace,
		"trimAll":    func(cut, s string) string { return strings.Trim(s, cut) },
		"trimPrefix": func(p, s string) string { return strings.TrimPrefix(s, p) },
		"trimSuffix": func(p, s string) string { return strings.TrimSuffix(s, p) },
		"replace":    func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
		"contains":   func(sub, s string) bool { return strings.Contains(s, sub) },
		"hasPrefix":  func(p, s string) bool { return strings.HasPrefix(s, p) },
		"hasSuffix":  func(p, s string) bool { return strings.HasSuffix(s, p) },
		"repeat":     repeat,
		"trunc":      trunc,
		"indent":     indent,
		"nindent":    func(n int, s string) (string, error) { out, err := indent(n, s); return "\n" + out, err },
		"splitList":  func(sep, s string) []string { return strings.Split(s, sep) },
		"join":       func(sep string, list any) (string, error) { return join(sep, list) },
		"sortAlpha":  func(list any) ([]string, error) { s, err := texts(list); slices.Sort(s); return s, err },
		"toString":   text,
		"regexMatch": regexp.MatchString,
		"regexReplaceAll": func(re, s, with string) (string, error) {
			r, err := regexp.Compile(re)
			if err != nil {
				return "", err
			}
			return r.ReplaceAllString(s, with), nil
		},

		"list":    func(vs ...any) []any { return vs },
		"first":   func(list any) (any, error) { return at(list, 0) },
		"last":    func(list any) (any, error) { return at(list, -1) },
		"append":  func(list any, v any) ([]any, error) { l, err := elements(list); return append(slices.Clone(l), v), err },
		"prepend": func(list any, v any) ([]any, error) { l, err := elements(list); return append([]any{v}, l...), err },
		"concat":  concat,
		"has":     has,
		"uniq":    uniq,
		"until":   func(n int) ([]int, error) { return steps(0, n, 1) },
		"untilStep": func(from, to, step int) ([]int, error) {
			return steps(from, to, step)
		},

		"dict":   dict,
		"get":    func(m map[string]any, k string) any { return m[k] },
		"set":    func(m map[string]any, k string, v any) map[string]any { m[k] = v; return m },
		"unset":  func(m map[string]any, k string) map[string]any { delete(m, k); return m },
		"hasKey": func(m map[string]any, k string) bool { _, ok := m[k]; return ok },
		"keys":   func(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) },
		"merge":  merge,

		"int":   func(v any) int { return int(number(v)) },
		"int64": number,
		"atoi":  func(s string) int { n, _ := strconv.Atoi(s); return n },
		"add":   func(vs ...any) int64 { return fold(vs, func(a, b int64) int64 { return a + b }) },
		"add1":  func(v any) int64 { return number(v) + 1 },
		"sub":   func(a, b any) int64 { return number(a) - number(b) },
		"mul":   func(vs ...any) int64 { return fold(vs, func(a, b int64) int64 { return a * b }) },
		"div":   func(a, b any) (int64, error) { return divide(a, b, func(a, b int64) int64 { return a / b }) },
		"mod":   func(a, b any) (int64, error) { return divide(a, b, func(a, b int64) int64 { return a % b }) },
		"max":   func(vs ...any) int64 { return fold(vs, func(a, b int64) int64 { return max(a, b) }) },
		"min":   func(vs ...any) int64 { return fold(vs, func(a, b int64) int64 { return min(a, b) }) },
	}
}

func toJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

func empty(v any) bool {
	truth, ok := template.IsTrue(v)
	return !ok || !truth
}

func ternary(yes, no any, cond bool) any {
	if cond {
		return yes
	}
	return no
}

func kindOf(v any) string {
	if v == nil {
		return "invalid"
	}
	return reflect.TypeOf(v).Kind().String()
}

// text is v as a template prints it.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	case error:
		return v.Error()
	}
	return fmt.Sprint(v)
}

func each(vs []any, f func(string) string) string {
	out := make([]string, 0, len(vs))
	for _, v := range vs {
		if v != nil {
			out = append(out, f(text(v)))
		}
	}
	return strings.Join(out, " ")
}

func repeat(n int, s string) (string, error) {
	if n < 0 || n > maxRepeat || n*len(s) > maxBytes {
		return "", fmt.Errorf("repeat %d times: too often", n)
	}
	return strings.Repeat(s, n), nil
}

func indent(n int, s string) (string, error) {
	pad, err := repeat(n, " ")
	return pad + strings.ReplaceAll(s, "\n", "\n"+pad), err
}

// trunc keeps the first n bytes of s, or the last -n.
func trunc(n int, s string) string {
	switch {
	case n < 0 && -n < len(s):
		return s[len(s)+n:]
	case n >= 0 && n < len(s):
		return s[:n]
	}
	return s
}

// elements returns those of any slice or array.
func elements(list any) ([]any, error) {
	if l, ok := list.([]any); ok {
		return l, nil
	}
	v := reflect.ValueOf(list)
	if !v.IsValid() || v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return nil, fmt.Errorf("%s is no list", kindOf(list))
	}
	out := make([]any, v.Len())
	for i := range out {
		out[i] = v.Index(i).Interface()
	}
	return out, nil
}

func texts(list any) ([]string, error) {
	l, err := elements(list)
	out := make([]string, len(l))
	for i, v := range l {
		out[i] = text(v)
	}
	return out, err
}

func join(sep string, list any) (string, error) {
	s, err := texts(list)
	return strings.Join(s, sep), err
}

// at returns the element at i, counted from the end if negative; nil without
// one.
func at(list any, i int) (any, error) {
	l, err := elements(list)
	if err != nil || len(l) == 0 {
		return nil, err
	}
	return l[(i+len(l))%len(l)], nil
}

func concat(lists ...any) ([]any, error) {
	var out []any
	for _, list := range lists {
		l, err := elements(list)
		if err != nil {
			return nil, err
		}
		out = append(out, l...)
	}
	return out, nil
}

func has(v any, list any) (bool, error) {
	l, err := elements(list)
	return slices.ContainsFunc(l, func(e any) bool { return reflect.DeepEqual(e, v) }), err
}

func uniq(list any) ([]any, error) {
	l, err := elements(list)
	var out []any
	for _, v := range l {
		if in, _ := has(v, out); !in { // out is a list
			out = append(out, v)
		}
	}
	return out, err
}

func steps(from, to, step int) ([]int, error) {
	if step == 0 || (to-from)/step > maxRepeat {
		return nil, fmt.Errorf("from %d to %d by %d: too many steps", from, to, step)
	}
	var out []int
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		out = append(out, i)
	}
	return out, nil
}

// dict makes an object of keys and values in turn.
func dict(vs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i < len(vs); i += 2 {
		m[text(vs[i])] = nil
		if i+1 < len(vs) {
			m[text(vs[i])] = vs[i+1]
		}
	}
	return m
}

// merge adds to dst what it does not have, of each source in turn.
func merge(dst map[string]any, sources ...map[string]any) map[string]any {
	for _, src := range sources {
		for k, v := range src {
			if old, ok := dst[k]; !ok {
				dst[k] = v
			} else if a, isMap := old.(map[string]any); isMap {
				if b, isMap := v.(map[string]any); isMap {
					merge(a, b)
				}
			}
		}
	}
	return dst
}

// number is v as a whole number; 0 for what is none.
func number(v any) int64 {
	switch v := v.(type) {
	case string:
		n, _ := strconv.ParseInt(v, 0, 64) // 0, as sprig has it
		return n
	case bool:
		if v {
			return 1
		}
		return 0
	}
	r := reflect.ValueOf(v)
	switch {
	case !r.IsValid():
		return 0
	case r.CanInt():
		return r.Int()
	case r.CanUint():
		return int64(r.Uint())
	case r.CanFloat():
		return int64(r.Float())
	}
	return 0
}

func fold(vs []any, f func(a, b int64) int64) int64 {
	if len(vs) == 0 {
		return 0
	}
	n := number(vs[0])
	for _, v := range vs[1:] {
		n = f(n, number(v))
	}
	return n
}

func divide(a, b any, f func(a, b int64) int64) (int64, error) {
	if number(b) == 0 {
		return 0, errors.New("division by zero")
	}
	return f(number(a), number(b)), nil
}
