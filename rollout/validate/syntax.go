package validate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/binnacle-project/binnacle/api"
)

// maxDepth bounds the nesting of a configuration. KrakenD's own go to ten or so.
const maxDepth = 200

// checkSyntax finds what is not strict JSON: one document, in UTF-8, an object,
// with no key twice in one object. Gateways read such files too, but by luck: of
// two equal keys the last wins, without a word.
func checkSyntax(raw []byte) []api.Fault {
	if bytes.HasPrefix(raw, []byte("\xef\xbb\xbf")) {
		return []api.Fault{{Stage: StageParse, Line: 1, Column: 1, Message: "the file begins with a byte order mark: save it as UTF-8 without one"}}
	}
	if i := invalidUTF8(raw); i >= 0 {
		return []api.Fault{faultAt(raw, i, "", "the bytes here are not UTF-8")}
	}
	var any json.RawMessage
	if err := json.Unmarshal(raw, &any); err != nil {
		return []api.Fault{syntaxFault(raw, err)}
	}
	w := walker{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw))}
	w.dec.UseNumber()
	w.value("", 0)
	if len(w.faults) == 0 && bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		w.faults = append(w.faults, api.Fault{Stage: StageParse, Line: 1, Column: 1, Message: "a configuration is a JSON object: it begins with {"})
	}
	return w.faults
}

// syntaxFault places an error of encoding/json.
func syntaxFault(raw []byte, err error) api.Fault {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return api.Fault{Stage: StageParse, Message: err.Error()}
	}
	at := max(0, int(syntax.Offset)-1) // it counts the offending byte, too
	message := syntax.Error()
	switch {
	case message == "unexpected end of JSON input":
		at = len(raw)
		message = "the file ends in the middle: a bracket or a quote is not closed"
	case strings.Contains(message, "after top-level value"):
		message += ": one file holds one configuration, and nothing follows it"
	case at+1 < len(raw) && (raw[at] == '{' || raw[at] == '%') && raw[at+1] == raw[at],
		at > 0 && raw[at] == '{' && raw[at-1] == '{':
		message += ": templates of flexible configuration are rendered before the push"
	}
	return faultAt(raw, at, "", message)
}

func invalidUTF8(raw []byte) int {
	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRune(raw[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// walker goes through a document that is known to be valid JSON.
type walker struct {
	raw    []byte
	dec    *json.Decoder
	faults []api.Fault
	// visit, if set, is called with each value's pointer and the offset that it
	// begins at. False ends the walk.
	visit func(pointer string, at int) bool
	done  bool
}

// value reads one value and reports whether the walk goes on.
func (w *walker) value(pointer string, depth int) bool {
	if w.done || len(w.faults) > maxFaults {
		return false
	}
	if w.visit != nil && !w.visit(pointer, w.begin()) {
		w.done = true
		return false
	}
	tok, err := w.dec.Token()
	if err != nil {
		w.faults = append(w.faults, syntaxFault(w.raw, err))
		return false
	}
	if depth > maxDepth {
		w.faults = append(w.faults, faultAt(w.raw, int(w.dec.InputOffset())-1, pointer, fmt.Sprintf("the nesting is deeper than %d", maxDepth)))
		return false
	}
	switch tok {
	case json.Delim('{'):
		return w.object(pointer, depth)
	case json.Delim('['):
		for i := 0; w.dec.More(); i++ {
			if !w.value(pointer+"/"+strconv.Itoa(i), depth+1) {
				return false
			}
		}
		_, err := w.dec.Token()
		return err == nil
	}
	return true
}

func (w *walker) object(pointer string, depth int) bool {
	seen := make(map[string]bool)
	for w.dec.More() {
		at := w.begin()
		tok, err := w.dec.Token()
		if err != nil {
			w.faults = append(w.faults, syntaxFault(w.raw, err))
			return false
		}
		key, _ := tok.(string)
		below := pointer + "/" + EscapePointer(key)
		if seen[key] {
			w.faults = append(w.faults, faultAt(w.raw, at, below, fmt.Sprintf("the key %q stands twice in one object", key)))
		}
		seen[key] = true
		if !w.value(below, depth+1) {
			return false
		}
	}
	_, err := w.dec.Token()
	return err == nil
}

// begin returns the offset at which the next token begins.
func (w *walker) begin() int {
	at := int(w.dec.InputOffset())
	for at < len(w.raw) && strings.IndexByte(" \t\r\n,:", w.raw[at]) >= 0 {
		at++
	}
	return at
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// EscapePointer is a key as a part of a JSON pointer (RFC 6901).
func EscapePointer(key string) string {
	return pointerEscapes.Replace(key)
}

// faultAt makes a fault at a byte offset. Columns count characters.
func faultAt(raw []byte, at int, pointer, message string) api.Fault {
	at = min(max(at, 0), len(raw))
	start := bytes.LastIndexByte(raw[:at], '\n') + 1
	return api.Fault{
		Stage:   StageParse,
		Line:    bytes.Count(raw[:start], []byte{'\n'}) + 1,
		Column:  utf8.RuneCount(raw[start:at]) + 1,
		Path:    pointer,
		Message: message,
	}
}

// place fills in line and column of faults that have a path. raw is valid JSON;
// a path that is not in it leaves its fault without a place.
func place(raw []byte, faults []api.Fault) {
	want := make(map[string][]int)
	for i, f := range faults {
		if f.Path != "" && f.Line == 0 {
			want[f.Path] = append(want[f.Path], i)
		}
	}
	if len(want) == 0 {
		return
	}
	w := walker{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw))}
	w.dec.UseNumber()
	w.visit = func(pointer string, at int) bool {
		for _, i := range want[pointer] {
			f := faultAt(raw, at, pointer, "")
			faults[i].Line, faults[i].Column = f.Line, f.Column
		}
		delete(want, pointer)
		return len(want) > 0
	}
	w.value("", 0)
	slices.SortStableFunc(faults, func(a, b api.Fault) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
}
