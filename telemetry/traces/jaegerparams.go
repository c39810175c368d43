package traces

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
)

// parseTraceID takes up to 32 hexadecimal digits; leading zeros may be missing.
func parseTraceID(text string) (id pcommon.TraceID, err error) {
	if len(text) == 0 || len(text) > 32 {
		return id, badQuery("trace id %q must have 1 to 32 hexadecimal digits", text)
	}
	b, err := hex.DecodeString(strings.Repeat("0", 32-len(text)) + text)
	if err != nil {
		return id, badQuery("trace id %q must have 1 to 32 hexadecimal digits", text)
	}
	copy(id[:], b)
	return id, nil
}

// parseQuery reads the parameters of GET /api/traces: service, operation,
// start and end (Unix microseconds) or lookback ("1h", "2d"), minDuration and
// maxDuration ("1.2s", "100ms", "500us"), limit, tags (a JSON object) and tag
// ("key:value", repeated).
func parseQuery(f url.Values, now time.Time) (q Query, err error) {
	q = Query{Service: f.Get("service"), Operation: f.Get("operation"), Tags: map[string]string{}}
	if q.Start, err = parseMicros(f, "start"); err != nil {
		return q, err
	}
	if q.End, err = parseMicros(f, "end"); err != nil {
		return q, err
	}
	if lb := f.Get("lookback"); q.Start.IsZero() && lb != "" && lb != "custom" {
		d, err := parseLookback(lb)
		if err != nil {
			return q, err
		}
		q.Start = now.Add(-d)
	}
	for name, p := range map[string]*time.Duration{"minDuration": &q.MinDuration, "maxDuration": &q.MaxDuration} {
		text := f.Get(name)
		if text == "" {
			continue
		}
		if *p, err = time.ParseDuration(text); err != nil || *p < 0 {
			return q, badQuery("%s %q is not a duration such as 1.2s, 100ms or 500us", name, text)
		}
	}
	if q.MaxDuration > 0 && q.MinDuration > q.MaxDuration {
		return q, badQuery("minDuration %v is more than maxDuration %v", q.MinDuration, q.MaxDuration)
	}
	if text := f.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 0 {
			return q, badQuery("limit %q is not a number of traces", text)
		}
	}
	return q, parseTags(f, q.Tags)
}

// parseWindow reads the start and end that may stand beside a trace id: in
// microseconds as everywhere, or in milliseconds, as Grafana sends them.
func parseWindow(f url.Values) (window, error) {
	start, err := parseMicros(f, "start")
	if err != nil {
		return window{}, err
	}
	end, err := parseMicros(f, "end")
	if err != nil {
		return window{}, err
	}
	const lowest = 1e14 // in 1973 as microseconds, in 5138 as milliseconds
	for _, t := range []*time.Time{&start, &end} {
		if n := t.UnixMicro(); !t.IsZero() && n < lowest {
			*t = time.UnixMilli(n)
		}
	}
	return windowOf(start, end)
}

func parseMicros(f url.Values, name string) (time.Time, error) {
	text := f.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return time.Time{}, badQuery("%s %q is not a time in Unix microseconds", name, text)
	}
	return time.UnixMicro(n), nil
}

// parseLookback also takes days, which Jaeger's page sends.
func parseLookback(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, badQuery("lookback %q is not a duration such as 30m, 1h or 2d", text)
	}
	return d, nil
}

// maxTags bounds the tags of one search.
const maxTags = 32

func parseTags(f url.Values, into map[string]string) error {
	if err := parseTagObject("tags", f.Get("tags"), into); err != nil {
		return err
	}
	for _, text := range f["tag"] {
		k, v, ok := strings.Cut(text, ":")
		if !ok {
			return badQuery("tag %q is not key:value", text)
		}
		into[k] = v
	}
	return tooManyTags(into)
}

// parseTagObject reads tags as a JSON object.
func parseTagObject(name, text string, into map[string]string) error {
	if text == "" {
		return nil
	}
	var values map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		return badQuery("%s %q is not a JSON object: %w", name, text, err)
	}
	for k, v := range values {
		into[k] = fmt.Sprint(v) // the page sends strings; people send true and 500
	}
	return tooManyTags(into)
}

func tooManyTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return badQuery("at most %d tags at once", maxTags)
	}
	return nil
}
