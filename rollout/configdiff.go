package rollout

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/rollout/validate"
)

const (
	// trafficFor is the window of the traffic beside a diff.
	trafficFor = 24 * time.Hour
	// maxDiffValue bounds a value that is shown.
	maxDiffValue = 200
	// maxDiffFields bounds the fields shown of one endpoint or of the service.
	maxDiffFields = 100
)

// Diff compares two revisions of a group, with the traffic of the endpoints that
// differ. A from of 0 means what the group should run, a to of 0 its newest
// revision.
func (s *Service) Diff(ctx context.Context, g binnacle.Group, from, to binnacle.Revision) (api.Diff, error) {
	s.mu.Lock()
	l := s.lines[g]
	if l == nil || len(l.revisions) == 0 {
		s.mu.Unlock()
		return api.Diff{}, notFound("group %s has no revisions to compare", g)
	}
	if from == 0 {
		from = l.desired.Number
	}
	if to == 0 {
		to = l.revisions[len(l.revisions)-1].Number
	}
	s.mu.Unlock()
	_, raw, err := s.Revision(ctx, g, to)
	if err != nil {
		return api.Diff{}, err
	}
	return s.diff(ctx, g, from, to, raw)
}

// DiffConfig compares what the group should run with a configuration, which need
// be no revision.
func (s *Service) DiffConfig(ctx context.Context, g binnacle.Group, raw []byte) (api.Diff, error) {
	s.mu.Lock()
	from := binnacle.Revision(0)
	if l := s.lines[g]; l != nil {
		from = l.desired.Number
	}
	s.mu.Unlock()
	return s.diff(ctx, g, from, 0, raw)
}

// diff compares revision from of a group with raw. A from of 0 is each node's
// own file: all of raw is new then.
func (s *Service) diff(ctx context.Context, g binnacle.Group, from, to binnacle.Revision, raw []byte) (api.Diff, error) {
	at := now()
	d := api.Diff{Group: g, From: from, To: to, TrafficFrom: at.Add(-trafficFor), TrafficTo: at}
	old := []byte("{}")
	if from > 0 {
		var err error
		if _, old, err = s.Revision(ctx, g, from); err != nil {
			return d, err
		}
	} else {
		d.Note = "the group runs each node's own file, which the manager does not know: everything is shown as added"
	}
	var fault error
	if d.Endpoints, d.Service, fault = diffConfigs(old, raw); fault != nil {
		// Not JSON, as of a group of another format: by lines.
		d.Endpoints, d.Service = []api.EndpointDiff{}, []api.FieldDiff{}
		d.Lines = diffLines(string(old), string(raw))
		return d, nil
	}
	if s.o.Telemetry == nil {
		d.Note = strings.TrimPrefix(d.Note+"; the manager has no telemetry to read traffic from", "; ")
		return d, nil
	}
	traffic, err := s.trafficOf(ctx, g, d.TrafficFrom, d.TrafficTo)
	if err != nil {
		s.log.Warn("the traffic beside a diff could not be read", "group", g, "err", err)
		d.Note = strings.TrimPrefix(d.Note+"; the traffic could not be read", "; ")
		return d, nil
	}
	for i := range d.Endpoints {
		e := &d.Endpoints[i]
		t := traffic[e.Endpoint]
		e.Traffic = &t
		d.RemovesTraffic = d.RemovesTraffic || e.Change == changeRemoved && t.Requests > 0
	}
	return d, nil
}

// The changes of an endpoint.
const (
	changeAdded   = "added"
	changeRemoved = "removed"
	changeChanged = "changed"
)

// diffConfigs compares two configurations: endpoints by method and path,
// everything else by field. Both lists are never nil.
func diffConfigs(before, after []byte) ([]api.EndpointDiff, []api.FieldDiff, error) {
	oldTop, oldEnds, err := splitConfig(before)
	if err != nil {
		return nil, nil, err
	}
	newTop, newEnds, err := splitConfig(after)
	if err != nil {
		return nil, nil, err
	}
	ends := []api.EndpointDiff{}
	for _, name := range sortedKeys(oldEnds) {
		if _, ok := newEnds[name]; !ok {
			ends = append(ends, api.EndpointDiff{Endpoint: name, Change: changeRemoved})
		}
	}
	for _, name := range sortedKeys(newEnds) {
		was, ok := oldEnds[name]
		if !ok {
			ends = append(ends, api.EndpointDiff{Endpoint: name, Change: changeAdded})
			continue
		}
		if fields := diffValues("", was, newEnds[name], nil); len(fields) > 0 {
			ends = append(ends, api.EndpointDiff{Endpoint: name, Change: changeChanged, Fields: cutFields(fields)})
		}
	}
	order := map[string]int{changeRemoved: 0, changeChanged: 1, changeAdded: 2}
	slices.SortStableFunc(ends, func(a, b api.EndpointDiff) int {
		return cmp.Or(cmp.Compare(order[a.Change], order[b.Change]), strings.Compare(a.Endpoint, b.Endpoint))
	})
	service := cutFields(diffValues("", oldTop, newTop, nil))
	if service == nil {
		service = []api.FieldDiff{}
	}
	return ends, service, nil
}

// splitConfig returns the endpoints of a configuration by "GET /users/{id}", and
// the rest.
func splitConfig(raw []byte) (rest map[string]any, endpoints map[string]any, err error) {
	if err := json.Unmarshal(raw, &rest); err != nil {
		return nil, nil, err
	}
	endpoints = make(map[string]any)
	for key, v := range rest {
		if !strings.EqualFold(key, "endpoints") {
			continue
		}
		delete(rest, key)
		list, _ := v.([]any)
		for i, e := range list {
			endpoints[nameOf(e, i)] = e
		}
	}
	return rest, endpoints, nil
}

func nameOf(e any, i int) string {
	fields, _ := e.(map[string]any)
	path, method := "", "GET"
	for key, v := range fields {
		s, _ := v.(string)
		switch {
		case strings.EqualFold(key, "endpoint"):
			path = "/" + strings.TrimPrefix(s, "/")
		case strings.EqualFold(key, "method") && s != "":
			method = strings.ToUpper(s)
		}
	}
	if path == "" {
		path = "#" + strconv.Itoa(i)
	}
	return method + " " + path
}

// diffValues appends what differs between two JSON values, below a pointer. Lists
// are compared by position.
func diffValues(pointer string, before, after any, out []api.FieldDiff) []api.FieldDiff {
	switch b := before.(type) {
	case map[string]any:
		a, ok := after.(map[string]any)
		if !ok {
			break
		}
		keys := make(map[string]bool, len(a)+len(b))
		for k := range b {
			keys[k] = true
		}
		for k := range a {
			keys[k] = true
		}
		for _, k := range sortedKeys(keys) {
			was, had := b[k]
			is, has := a[k]
			below := pointer + "/" + validate.EscapePointer(k)
			switch {
			case !had:
				out = append(out, api.FieldDiff{Path: below, After: valueText(is)})
			case !has:
				out = append(out, api.FieldDiff{Path: below, Before: valueText(was)})
			default:
				out = diffValues(below, was, is, out)
			}
		}
		return out
	case []any:
		a, ok := after.([]any)
		if !ok {
			break
		}
		for i := range max(len(a), len(b)) {
			below := pointer + "/" + strconv.Itoa(i)
			switch {
			case i >= len(b):
				out = append(out, api.FieldDiff{Path: below, After: valueText(a[i])})
			case i >= len(a):
				out = append(out, api.FieldDiff{Path: below, Before: valueText(b[i])})
			default:
				out = diffValues(below, b[i], a[i], out)
			}
		}
		return out
	}
	if was, is := encode(before), encode(after); string(was) != string(is) {
		out = append(out, api.FieldDiff{Path: pointer, Before: cutText(string(was)), After: cutText(string(is))})
	}
	return out
}

func valueText(v any) string { return cutText(string(encode(v))) }

func cutText(s string) string {
	if len(s) > maxDiffValue {
		return strings.ToValidUTF8(s[:maxDiffValue], "") + " …"
	}
	return s
}

func cutFields(fields []api.FieldDiff) []api.FieldDiff {
	if len(fields) <= maxDiffFields {
		return fields
	}
	more := len(fields) - maxDiffFields
	return append(fields[:maxDiffFields:maxDiffFields], api.FieldDiff{Path: fmt.Sprintf("… and %d more", more)})
}

// diffLines compares texts by lines: what both begin and end with is left out
// but for three lines.
func diffLines(before, after string) string {
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	head := 0
	for head < min(len(a), len(b)) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < min(len(a), len(b))-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	if head == len(a) && head == len(b) {
		return ""
	}
	const around = 3
	var out strings.Builder
	from := max(0, head-around)
	fmt.Fprintf(&out, "@@ -%d,%d +%d,%d @@\n", head+1, len(a)-tail-head, head+1, len(b)-tail-head)
	write := func(mark string, lines []string) {
		for _, l := range lines {
			out.WriteString(mark + l + "\n")
		}
	}
	write(" ", a[from:head])
	write("-", a[head:len(a)-tail])
	write("+", b[head:len(b)-tail])
	write(" ", a[len(a)-tail:min(len(a), len(a)-tail+around)])
	const most = 64 << 10
	if out.Len() > most {
		return strings.ToValidUTF8(out.String()[:most], "") + "\n… (the rest is cut off)\n"
	}
	return out.String()
}
