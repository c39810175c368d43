// Package promapi mounts Prometheus's own HTTP API over a store. It leaves to its
// one importer, package metrics, which calls are let through and how many at
// once.
//
// It is a package of its own for the compiler's sake: the API builds an OpenAPI
// document with a library of generic types, some 11,000 instantiated functions,
// which every package from whose types the API's can be reached compiles anew.
// No type of this package leads to the API's.
package promapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/binnacle-project/binnacle"
)

// Options say what the API reads.
type Options struct {
	Engine    promql.QueryEngine
	Parser    parser.Parser
	Lookback  time.Duration
	Queryable storage.SampleAndChunkQueryable
	Exemplars storage.ExemplarQueryable
	DB        *tsdb.DB             // for the status calls
	Registry  *prometheus.Registry // of the DB and the engine
	Started   time.Time
	Retention time.Duration
	Log       *slog.Logger
}

// Handler serves the API below prefix, which begins with a slash.
func Handler(prefix string, o Options) http.Handler {
	r := route.New().WithPrefix(prefix)
	newAPI(o).Register(r)
	return r
}

// newAPI makes Prometheus's API. Its parts that do not exist here are given as
// empty ones where a route that is served asks for them.
func newAPI(o Options) *v1.API {
	return v1.NewAPI(
		o.Engine,
		o.Queryable,
		nil, nil, // appenders: nothing is written here
		o.Exemplars,
		nil, nil, nil, // scrape pools, targets, alert managers
		func() config.Config { return config.DefaultConfig },
		map[string]string{},
		v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		adminStats{o.DB},
		"",
		false, // no admin calls
		o.Log.With("part", "api"),
		func(context.Context) v1.RulesRetriever { return noRules{} },
		0, 0, 0, // remote read, which is not routed
		false,
		regexp.MustCompile(`^$`), // no origin is allowed
		func() (v1.RuntimeInfo, error) { return runtimeInfo(o) },
		buildInfo(),
		nil, nil, // notifications
		o.Registry, prometheus.NewRegistry(), // what remote read registers would clash with a second Handler's
		nil,
		false, nil, // remote write
		false, false, false, // OTLP
		false,
		o.Lookback,
		false,
		false,
		nil,
		nil,
		v1.OpenAPIOptions{},
		o.Parser,
	)
}

// noRules says that there are neither rules nor alerts.
type noRules struct{}

func (noRules) RuleGroups() []*rules.Group           { return nil }
func (noRules) AlertingRules() []*rules.AlertingRule { return nil }

// adminStats is the part of the TSDB that the status calls read.
type adminStats struct{ db *tsdb.DB }

var errNoAdmin = errors.New("not served")

func (a adminStats) CleanTombstones() error { return errNoAdmin }
func (a adminStats) Delete(context.Context, int64, int64, ...*labels.Matcher) error {
	return errNoAdmin
}
func (a adminStats) Snapshot(string, bool) error { return errNoAdmin }
func (a adminStats) Stats(byLabel string, limit int) (*tsdb.Stats, error) {
	return a.db.Head().Stats(byLabel, limit), nil
}
func (a adminStats) WALReplayStatus() (tsdb.WALReplayStatus, error) {
	return tsdb.WALReplayStatus{}, nil // the store answers only after the replay
}
func (a adminStats) BlockMetas() ([]tsdb.BlockMeta, error) { return a.db.BlockMetas(), nil }

func runtimeInfo(o Options) (v1.RuntimeInfo, error) {
	host, err := os.Hostname()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("runtime information: %w", err)
	}
	info := v1.RuntimeInfo{
		StartTime:        o.Started.UTC(),
		Hostname:         host,
		ServerTime:       time.Now().UTC(),
		GoroutineCount:   runtime.NumGoroutine(),
		GOMAXPROCS:       runtime.GOMAXPROCS(0),
		GOMEMLIMIT:       debug.SetMemoryLimit(-1),
		GOGC:             os.Getenv("GOGC"),
		StorageRetention: o.Retention.String(),
	}
	if info.GOMEMLIMIT == math.MaxInt64 {
		info.GOMEMLIMIT = 0
	}
	return info, nil
}

// buildInfo names the Prometheus whose API this is, because clients choose
// calls by that version, and us as the branch.
func buildInfo() *v1.PrometheusVersion {
	v := &v1.PrometheusVersion{Version: "3.0.0", Branch: "binnacle " + binnacle.Version, GoVersion: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/prometheus/prometheus" {
				v.Version = serverVersion(d.Version)
			}
		}
	}
	return v
}

// serverVersion turns a module version (v0.312.0) into the one that the server
// has under its own name (3.12.0).
func serverVersion(module string) string {
	parts := strings.Split(strings.TrimPrefix(module, "v"), ".")
	if len(parts) == 3 && parts[0] == "0" {
		if n, err := strconv.Atoi(parts[1]); err == nil && n >= 300 {
			return fmt.Sprintf("%d.%d.%s", n/100, n%100, parts[2])
		}
	}
	return module
}
