package telemetry

import (
	"net/http"
	"slices"
	"strings"
)

// HeaderOptions say which headers stand on spans; the zero value is none.
type HeaderOptions struct {
	Report bool
	// Skip names headers that do not, in any case.
	Skip []string
}

const (
	requestHeader  = "http.request.header."
	responseHeader = "http.response.header."

	// maxHeaders of one message stand on a span, the first ones by name, and
	// maxHeaderValue bytes of each value: a client can send thousands.
	maxHeaders     = 48
	maxHeaderValue = 1 << 10
)

// secretWords are parts of the names of headers that carry credentials. Traces
// are read by more people than those may be.
var secretWords = []string{"auth", "cookie", "token", "secret", "password", "passwd", "api-key", "apikey", "credential"}

// headerFilter picks the headers for spans. Nil picks none.
type headerFilter struct{ skip map[string]bool }

func newHeaderFilter(o HeaderOptions) *headerFilter {
	if !o.Report {
		return nil
	}
	// The trace's own are what the span is known by.
	f := &headerFilter{skip: map[string]bool{"traceparent": true, "tracestate": true, "traceresponse": true}}
	for _, name := range o.Skip {
		f.skip[strings.ToLower(name)] = true
	}
	return f
}

// write adds h to the span, as the conventions have it: one attribute with all
// values of a header, its name in lower case.
func (f *headerFilter) write(w *spanWriter, prefix string, h http.Header) {
	if f == nil {
		return
	}
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	n := 0
	for _, name := range names {
		lower := strings.ToLower(name)
		if f.skip[lower] || slices.ContainsFunc(secretWords, func(s string) bool { return strings.Contains(lower, s) }) {
			continue
		}
		if n++; n > maxHeaders {
			return
		}
		w.texts(prefix+lower, h[name])
	}
}
