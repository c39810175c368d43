package traces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/ptrace"
)

// Rule says which share of some traces is kept. A trace is of a rule when one
// of its spans fulfils all conditions; the first rule of the list that a trace
// is of decides.
type Rule struct {
	// Name stands in metrics: lower-case letters, digits, "-" and "_".
	Name string
	// Share of the traces that are kept, 0 to 1.
	Share      float64
	conditions []condition
}

// Rules are tried in order. A trace that no rule is for is kept.
type Rules []Rule

// condition reports on one span of a block.
type condition func(*block, *span) bool

// maxRules is the number of bits that a trace under decision has for them.
const maxRules = 64

// ParseRules reads rules from texts, each with one or more, parted by ";" or
// line breaks:
//
//	errors: status=error keep=100%
//	slow:   duration>=1s keep=100%
//	health: service=gateway route=/health* keep=0.1%
//	rest:   keep=5%
//
// A condition is KEY=VALUE or KEY!=VALUE; "*" in the value stands for any text,
// and a value with spaces stands in double quotes. The keys are service,
// operation (the span's name), route (http.route), status (error, ok, unset,
// an HTTP status such as 404, or a class such as 5xx), and every key with a dot
// in it, which is an attribute of the span or its resource. duration is
// compared by >=, >, <= and <.
//
// The error names the rule and what is wrong with it.
func ParseRules(texts ...string) (Rules, error) {
	var rules Rules
	for _, text := range texts {
		for _, line := range splitOutside(text, ";\n") {
			if strings.TrimSpace(line) == "" {
				continue
			}
			r, err := parseRule(line)
			if err != nil {
				return nil, fmt.Errorf("rule %q: %w", strings.TrimSpace(line), err)
			}
			if slices.ContainsFunc(rules, func(o Rule) bool { return o.Name == r.Name }) {
				return nil, fmt.Errorf("rule %q: there is a rule named %q already", strings.TrimSpace(line), r.Name)
			}
			rules = append(rules, r)
		}
	}
	if len(rules) > maxRules {
		return nil, fmt.Errorf("%d rules: want at most %d", len(rules), maxRules)
	}
	return rules, nil
}

var ruleName = regexp.MustCompile(`^[a-z0-9_-]{1,40}$`)

// unmatched is the name in metrics of traces that no rule is for.
const unmatched = "unmatched"

func parseRule(line string) (r Rule, err error) {
	name, rest, ok := strings.Cut(line, ":")
	r.Name = strings.TrimSpace(name)
	if !ok || !ruleName.MatchString(r.Name) || r.Name == unmatched {
		return r, errors.New(`want "NAME: CONDITIONS keep=PERCENT%", the name of lower-case letters, digits, "-" and "_"`)
	}
	kept := false
	for _, word := range splitOutside(rest, " \t\r") {
		if word == "" {
			continue
		}
		if share, ok := strings.CutPrefix(word, "keep="); ok {
			if kept {
				return r, errors.New("keep= stands there twice")
			}
			kept = true
			if r.Share, err = parseShare(share); err != nil {
				return r, err
			}
			continue
		}
		c, err := parseCondition(word)
		if err != nil {
			return r, err
		}
		r.conditions = append(r.conditions, c)
	}
	if !kept {
		return r, errors.New("keep= is missing: say which share is kept, such as keep=10%")
	}
	return r, nil
}

func parseShare(text string) (float64, error) {
	digits, ok := strings.CutSuffix(text, "%")
	p, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(p >= 0 && p <= 100) {
		return 0, fmt.Errorf("keep=%s: want a percentage from 0%% to 100%%", text)
	}
	return p / 100, nil
}

var conditionForm = regexp.MustCompile(`^([A-Za-z0-9_.@/-]+)(!=|>=|<=|=|>|<)(.*)$`)

func parseCondition(word string) (condition, error) {
	m := conditionForm.FindStringSubmatch(word)
	if m == nil {
		return nil, fmt.Errorf("%q is no condition: want KEY=VALUE, KEY!=VALUE or duration>=TIME", word)
	}
	key, op, value := m[1], m[2], m[3]
	if strings.HasPrefix(value, `"`) {
		unquoted, err := strconv.Unquote(value)
		if err != nil {
			return nil, fmt.Errorf("%s: the quotes do not match", word)
		}
		value = unquoted
	}
	if key == "duration" {
		return durationCondition(op, value)
	}
	if op != "=" && op != "!=" {
		return nil, fmt.Errorf("%s: only duration is compared by %s", word, op)
	}
	c, err := textCondition(key, value)
	if err != nil {
		return nil, err
	}
	if op == "!=" {
		return func(b *block, s *span) bool { return !c(b, s) }, nil
	}
	return c, nil
}

func durationCondition(op, value string) (condition, error) {
	want, err := time.ParseDuration(value)
	if err != nil || want < 0 {
		return nil, fmt.Errorf("duration%s%s: want a time such as 500ms or 2s", op, value)
	}
	cmp := map[string]func(d time.Duration) bool{
		">=": func(d time.Duration) bool { return d >= want },
		">":  func(d time.Duration) bool { return d > want },
		"<=": func(d time.Duration) bool { return d <= want },
		"<":  func(d time.Duration) bool { return d < want },
	}[op]
	if cmp == nil {
		return nil, fmt.Errorf("duration%s%s: compare it by >=, >, <= or <", op, value)
	}
	return func(_ *block, s *span) bool { return cmp(time.Duration(min(s.duration(), 1<<62))) }, nil
}

func textCondition(key, value string) (condition, error) {
	like := newLike(value)
	switch {
	case key == "service":
		return func(b *block, s *span) bool { return like(b.strs.list[b.resources[s.resource].service]) }, nil
	case key == "operation":
		return func(b *block, s *span) bool { return like(b.strs.list[s.name]) }, nil
	case key == "status":
		return statusCondition(value)
	case key == "route":
		key = "http.route"
	case !strings.Contains(key, "."):
		return nil, fmt.Errorf("%s: want service, operation, route, status, duration or the name of an attribute, which has a dot in it", key)
	}
	return func(b *block, s *span) bool {
		a, ok := b.get(s.attrs, key)
		if !ok {
			a, ok = b.get(b.resources[s.resource].attrs, key)
		}
		return ok && like(b.valueString(a))
	}, nil
}

var httpStatus = regexp.MustCompile(`^[1-5](xx|[0-9][0-9])$`)

func statusCondition(value string) (condition, error) {
	for code, name := range map[ptrace.StatusCode]string{ptrace.StatusCodeError: "error", ptrace.StatusCodeOk: "ok", ptrace.StatusCodeUnset: "unset"} {
		if value == name {
			return func(_ *block, s *span) bool { return ptrace.StatusCode(s.status) == code }, nil
		}
	}
	if !httpStatus.MatchString(value) {
		return nil, fmt.Errorf("status=%s: want error, ok, unset, an HTTP status such as 404, or a class such as 5xx", value)
	}
	class := value[0]
	exact, _ := strconv.ParseInt(value, 10, 64) // 0 for a class
	return func(b *block, s *span) bool {
		a, ok := b.get(s.attrs, "http.response.status_code")
		if !ok {
			a, ok = b.get(s.attrs, "http.status_code")
		}
		if !ok {
			return false
		}
		var n int64
		switch a.typ {
		case typeInt:
			n = int64(a.n)
		case typeString:
			n, _ = strconv.ParseInt(b.strs.list[a.n], 10, 64)
		}
		return n == exact || exact == 0 && n/100 == int64(class-'0')
	}, nil
}

// newLike returns the test of a text against a pattern in which "*" stands for
// any text.
func newLike(pattern string) func(string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return func(s string) bool { return s == pattern }
	}
	first, middle, last := parts[0], parts[1:len(parts)-1], parts[len(parts)-1]
	return func(s string) bool {
		s, ok := strings.CutPrefix(s, first)
		if !ok || !strings.HasSuffix(s, last) {
			return false
		}
		s = s[:len(s)-len(last)]
		for _, p := range middle {
			i := strings.Index(s, p)
			if i < 0 {
				return false
			}
			s = s[i+len(p):]
		}
		return true
	}
}

// splitOutside splits text at any of seps that stand outside of double quotes.
func splitOutside(text, seps string) []string {
	quoted, escaped := false, false
	return strings.FieldsFunc(text, func(c rune) bool {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		default:
			return !quoted && strings.ContainsRune(seps, c)
		}
		return false
	})
}

// matches has a bit set for each rule that the span fulfils.
func (rs Rules) matches(b *block, s *span) (bits uint64) {
next:
	for i := range rs {
		for _, c := range rs[i].conditions {
			if !c(b, s) {
				continue next
			}
		}
		bits |= 1 << i
		if len(rs[i].conditions) == 0 {
			break // no later one decides
		}
	}
	return bits
}

// randomness is the part of a trace id that is random by the W3C's word, as a
// number below 2^56.
//
// Source: W3C Trace Context level 2, "Random Trace ID Flag".
func randomness(id pcommon.TraceID) uint64 { return binary.BigEndian.Uint64(id[8:]) & (1<<56 - 1) }

// inShare reports whether a trace belongs to a share. The same trace does for
// every share that is larger, and alike on all managers and samplers that
// follow OpenTelemetry's consistent sampling.
//
// Source: OpenTelemetry specification, "TraceState: Probability Sampling".
func inShare(id pcommon.TraceID, share float64) bool {
	return share >= 1 || float64(randomness(id)) >= (1-share)*(1<<56)
}
