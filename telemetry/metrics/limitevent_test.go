package metrics

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

// eventList is an event log in memory.
type eventList struct{ all []api.Event }

func (l *eventList) Append(_ context.Context, e api.Event) (api.Event, error) {
	l.all = append(l.all, e)
	return e, nil
}

// TestSeriesLimitEvents wants one event an hour for each limit that was hit,
// with the attribute to blame.
func TestSeriesLimitEvents(t *testing.T) {
	for _, c := range []struct {
		name    string
		limits  func(*Options)
		origin  binnacle.Origin
		message []string
		node    binnacle.NodeID
	}{
		{"one node", func(o *Options) { o.MaxSeriesPerInstance = 20 }, node1,
			[]string{`instance "n-1": 20 series`, `attribute "user_id" of requests_total has 17 values, such as "u-0"`}, "n-1"},
		{"unmanaged senders", func(o *Options) { o.MaxSeriesUnmanaged = 20 }, binnacle.Origin{},
			[]string{`all unmanaged senders together: 20 series`, `most of them by instance "n-1"`, `"user_id"`}, ""},
		{"everybody", func(o *Options) { o.MaxSeries = 20; o.MaxSeriesUnmanaged = 100 }, node1,
			[]string{`all senders together: 20 series`, `most of them by instance "n-1"`, `"user_id"`}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &eventList{}
			s := openStore(t, c.limits, func(o *Options) { o.Events = log })
			burst := func() {
				md, ms := gateway("n-1")
				gauge(ms, "other", now, 1)
				for i := range 40 {
					if i < 2 {
						gauge(ms, "state", now, 1, "state", fmt.Sprint(i))
					}
					counter(ms, "requests", now.Add(-time.Minute), now, 1, "user.id", fmt.Sprint("u-", i), "http.route", fmt.Sprint("/", i%3))
				}
				if n, _, err := send(t.Context(), s, c.origin, md); n == 0 || err != nil {
					t.Fatalf("%d points refused, error %v; want some and none", n, err)
				}
			}
			for i := range 3 {
				burst()
				s.tellLimits(t.Context(), now.Add(time.Duration(i)*time.Minute))
			}
			if len(log.all) != 1 {
				t.Fatalf("%d events in three minutes; want 1: %+v", len(log.all), log.all)
			}
			e := log.all[0]
			for _, want := range c.message {
				if !strings.Contains(e.Message, want) {
					t.Errorf("message %q lacks %q", e.Message, want)
				}
			}
			if e.Kind != events.MetricsSeriesLimit || e.Node != c.node {
				t.Errorf("event %q of node %q; want %q of %q", e.Kind, e.Node, events.MetricsSeriesLimit, c.node)
			}
			var d limitEvent
			if err := json.Unmarshal(e.Data, &d); err != nil || d.Attribute != "user_id" || d.Metric != "requests_total" || len(d.Examples) != 3 {
				t.Errorf("data %s: %v", e.Data, err)
			}
			burst()
			s.tellLimits(t.Context(), now.Add(2*time.Hour))
			if len(log.all) != 2 {
				t.Errorf("%d events after an hour; want 2", len(log.all))
			}
		})
	}
}
