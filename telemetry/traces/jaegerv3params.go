package traces

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// paramsV3 are the parameters of a call of api_v3. Each has its name as protobuf's
// JSON spells it, query.serviceName, and as the proto does, query.service_name, which
// came first and which pages of Jaeger still send. An empty value is none.
type paramsV3 struct{ url.Values }

// get returns a parameter by the name in JSON, and the name under which it came.
func (p paramsV3) get(name string) (value, as string) {
	for _, as := range []string{name, snake(name)} {
		if v := p.Get(as); v != "" {
			return v, as
		}
	}
	return "", name
}

// snake spells a name in JSON as the proto does.
func snake(name string) string {
	var b strings.Builder
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}

func malformed(as, value, want string) error {
	return badQuery("malformed parameter %s: %q is not %s", as, value, want)
}

func (p paramsV3) time(name string) (time.Time, error) {
	v, as := p.get(name)
	if v == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		return t, malformed(as, v, "a time such as 2006-01-02T15:04:05Z")
	}
	return clampTime(t), nil
}

func (p paramsV3) duration(name string) (time.Duration, error) {
	v, as := p.get(name)
	if v == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, malformed(as, v, "a duration such as 1.2s, 100ms or 500us")
	}
	return d, nil
}

// bool checks a parameter that changes nothing here: traces are as they came, always.
func (p paramsV3) bool(name string) error {
	v, as := p.get(name)
	if _, err := strconv.ParseBool(v); v != "" && err != nil {
		return malformed(as, v, "true or false")
	}
	return nil
}

// span reads two times that must be there and in order.
func (p paramsV3) span(prefix, start, end string) (from, to time.Time, err error) {
	if from, err = p.time(prefix + start); err != nil {
		return from, to, err
	}
	if to, err = p.time(prefix + end); err != nil {
		return from, to, err
	}
	switch {
	case from.IsZero() || to.IsZero():
		return from, to, badQuery("parameters %s and %s are required", prefix+start, prefix+end)
	case !from.Before(to):
		return from, to, badQuery("%s must be before %s", prefix+start, prefix+end)
	}
	return from, to, nil
}

// window reads the hints that may stand beside a trace id.
func (p paramsV3) window() (window, error) {
	start, err := p.time("startTime")
	if err != nil {
		return window{}, err
	}
	end, err := p.time("endTime")
	if err != nil {
		return window{}, err
	}
	return windowOf(start, end)
}

// query reads the parameters of a search. What would narrow it and is not served is
// refused: an answer of more than was asked for would look right.
func (p paramsV3) query() (q Query, err error) {
	for _, name := range []string{"query.filter", "query.pagination.pageSize", "query.pagination.pageToken"} {
		if v, as := p.get(name); v != "" {
			return q, badQuery("%s is not supported: use query.attributes, and query.searchDepth for the number of traces", as)
		}
	}
	q.Tags = map[string]string{}
	q.Service, _ = p.get("query.serviceName")
	if q.Operation, _ = p.get("query.operationName"); q.Operation == "" {
		q.Operation, _ = p.get("query.spanName") // some versions of the page
	}
	if q.Start, q.End, err = p.span("query.", "startTimeMin", "startTimeMax"); err != nil {
		return q, err
	}
	q.End = q.End.Add(-1) // exclusive
	for name, d := range map[string]*time.Duration{"query.durationMin": &q.MinDuration, "query.durationMax": &q.MaxDuration} {
		if *d, err = p.duration(name); err != nil {
			return q, err
		}
	}
	if q.MaxDuration > 0 && q.MinDuration > q.MaxDuration {
		return q, badQuery("query.durationMin %v is more than query.durationMax %v", q.MinDuration, q.MaxDuration)
	}
	depth, as := p.get("query.searchDepth")
	if depth == "" {
		depth, as = p.get("query.numTraces") // its first name
	}
	if depth != "" {
		n, err := strconv.ParseUint(depth, 10, 31)
		if err != nil {
			return q, malformed(as, depth, "a number of traces")
		}
		q.Limit = int(n)
	}
	if err := p.bool("query.rawTraces"); err != nil {
		return q, err
	}
	attributes, as := p.get("query.attributes")
	return q, parseTagObject(as, attributes, q.Tags)
}
