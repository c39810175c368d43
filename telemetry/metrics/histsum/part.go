package histsum

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// resultName begins the names by which the engine reads results.
const resultName = "__binnacle_histsum_"

// part is an expression that is evaluated here.
type part struct {
	name     string // of its result
	text     string // the expression
	what     string // histogram_quantile, histogram_count or histogram_sum
	quantile float64
	by       []string
	rate     bool // else increase
	matchers []*labels.Matcher
	window   time.Duration
	// call is the function's, for the hints to the store.
	call string
}

// takeOut replaces the parts of an expression by selectors of their results.
func takeOut(e parser.Expr) (parser.Expr, []part) {
	var parts []part
	e = replace(e, &parts)
	return e, parts
}

func replace(e parser.Expr, parts *[]part) parser.Expr {
	if p, ok := partOf(e); ok {
		p.name = fmt.Sprint(resultName, len(*parts))
		*parts = append(*parts, p)
		return &parser.VectorSelector{
			Name:          p.name,
			LabelMatchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, p.name)},
		}
	}
	// Not into subqueries, which have steps of their own.
	switch n := e.(type) {
	case *parser.ParenExpr:
		n.Expr = replace(n.Expr, parts)
	case *parser.UnaryExpr:
		n.Expr = replace(n.Expr, parts)
	case *parser.BinaryExpr:
		n.LHS, n.RHS = replace(n.LHS, parts), replace(n.RHS, parts)
	case *parser.AggregateExpr:
		n.Expr = replace(n.Expr, parts)
	case *parser.Call:
		for i := range n.Args {
			n.Args[i] = replace(n.Args[i], parts)
		}
	}
	return e
}

// partOf reports whether an expression is one that is evaluated here.
func partOf(e parser.Expr) (p part, ok bool) {
	call, ok := bare(e).(*parser.Call)
	if !ok {
		return p, false
	}
	p.what = call.Func.Name
	arg := 0
	switch p.what {
	case "histogram_count", "histogram_sum":
	case "histogram_quantile":
		q, ok := bare(call.Args[0]).(*parser.NumberLiteral)
		if !ok || !(q.Val >= 0 && q.Val <= 1) { // the engine warns
			return p, false
		}
		p.quantile, arg = q.Val, 1
	default:
		return p, false
	}
	sum, ok := bare(call.Args[arg]).(*parser.AggregateExpr)
	if !ok || sum.Op != parser.SUM || sum.Without {
		return p, false
	}
	p.by = sum.Grouping
	for _, l := range p.by {
		if l == model.MetricNameLabel || l == labels.BucketLabel {
			return p, false
		}
	}
	rate, ok := bare(sum.Expr).(*parser.Call)
	if !ok || rate.Func.Name != "rate" && rate.Func.Name != "increase" {
		return p, false
	}
	p.rate, p.call = rate.Func.Name == "rate", rate.Func.Name
	m, ok := bare(rate.Args[0]).(*parser.MatrixSelector)
	if !ok || m.RangeExpr != nil || m.Range <= 0 {
		return p, false
	}
	v, ok := m.VectorSelector.(*parser.VectorSelector)
	if !ok || v.OriginalOffset != 0 || v.OriginalOffsetExpr != nil || v.Timestamp != nil || v.StartOrEnd != 0 || v.Anchored || v.Smoothed {
		return p, false
	}
	p.window, p.matchers = m.Range, v.LabelMatchers
	// Of one name only: the engine complains where two series differ in that.
	for _, m := range p.matchers {
		if m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			p.text = e.String()
			return p, !virtual(m.Value)
		}
	}
	return p, false
}

// virtual reports whether a name may be that of a classic series which the
// store makes when samples are read: its chunks do not have them.
func virtual(name string) bool {
	for _, suffix := range []string{"_count", "_sum", "_bucket"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

func bare(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}
