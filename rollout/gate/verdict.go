package gate

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/binnacle-project/binnacle/api"
)

// keptComparisons of endpoints are kept as evidence, the strongest first.
const keptComparisons = 20

const (
	controlNodes  = "nodes"
	controlBefore = "before"
	testName      = "mixture of sequential likelihood ratios over relative risk, given the number of bad requests at each look (e-value, valid at any number of looks); errors of all traffic also by the most powerful unconditional test against 2 points more, at 500, 2000, 8000 and 32000 requests, directed by the hours before where they are known"
	testBefore    = "mixture of likelihood ratios over relative risk, given the number of bad requests, against the same nodes before the step (e-value at each look); errors of all traffic also by Fisher's exact test at 500, 2000, 8000 and 32000 requests"
)

// conclude sums the comparisons up.
func conclude(all []api.Comparison, s Sides, before bool) (api.VerdictResult, string) {
	control, name := s.Control.Requests, "control"
	if before {
		control, name = s.Baseline.Requests, "the minutes before the step"
	}
	var failed, open []api.Comparison
	for _, c := range all {
		switch c.Result {
		case api.VerdictFail:
			failed = append(failed, c)
		case api.VerdictInconclusive:
			open = append(open, c)
		}
	}
	strongest := func(cs []api.Comparison) api.Comparison {
		return slices.MaxFunc(cs, func(a, b api.Comparison) int { return cmp.Compare(a.Evidence/a.Needed, b.Evidence/b.Needed) })
	}
	switch {
	case len(failed) > 0:
		reason := describe(strongest(failed))
		if len(failed) > 1 {
			reason += "; worse by " + comparisons(len(failed)-1, "more ")
		}
		return api.VerdictFail, reason
	case s.Canary.Requests < EnoughRequests || control < EnoughRequests:
		return api.VerdictInconclusive, fmt.Sprintf("too few requests: %.0f on the canary, %.0f on %s; %d on each side are the least", s.Canary.Requests, control, name, EnoughRequests)
	case len(open) > 0:
		return api.VerdictInconclusive, "not shown to be as good: " + describe(strongest(open))
	}
	return api.VerdictPass, fmt.Sprintf("%s over %.0f requests on the canary and %.0f on %s found nothing worse", comparisons(len(all), ""), s.Canary.Requests, control, name)
}

// comparisons says how many there are, such as "1 more comparison".
func comparisons(n int, more string) string {
	if n == 1 {
		return "1 " + more + "comparison"
	}
	return fmt.Sprintf("%d %scomparisons", n, more)
}

// describe says one comparison in words.
func describe(c api.Comparison) string {
	what := map[string]string{
		whatErrors: "errors", what401: "answers 401", what403: "answers 403", what404: "answers 404",
		whatClient: "other client errors", whatAnyClient: "client errors",
		whatSlow50: "slow requests (over the p50)", whatSlow99: "slow requests (over the p99)",
	}[c.What]
	if c.Threshold > 0 {
		what += fmt.Sprintf(", slower than %.0f ms", c.Threshold*1e3)
	}
	where := ""
	if c.Endpoint != "" {
		where = " on " + c.Endpoint
	}
	return fmt.Sprintf("%s%s: %s of %.0f on the canary, %s of %.0f on the control", what, where,
		percent(Counts(c.Canary)), c.Canary.Requests, percent(Counts(c.Control)), c.Control.Requests)
}

func percent(c Counts) string { return fmt.Sprintf("%.3g %%", 100*c.Share()) }

// keep returns the comparisons of all traffic and, of those of endpoints, the
// ones with the strongest evidence.
func keep(all []api.Comparison) (kept []api.Comparison, leftOut int) {
	var endpoints []api.Comparison
	for _, c := range all {
		if c.Endpoint == "" {
			kept = append(kept, c)
		} else {
			endpoints = append(endpoints, c)
		}
	}
	slices.SortStableFunc(endpoints, func(a, b api.Comparison) int { return cmp.Compare(b.Evidence/b.Needed, a.Evidence/a.Needed) })
	leftOut = max(0, len(endpoints)-keptComparisons)
	return append(kept, endpoints[:len(endpoints)-leftOut]...), leftOut
}
