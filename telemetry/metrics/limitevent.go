package metrics

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	binnacle "github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

// Events takes what an operator should know. The manager's event log is one.
type Events interface {
	Append(context.Context, api.Event) (api.Event, error)
}

const (
	// tellEvery is how often one sender's series limit is told; it is in every
	// partial success and in the counters all the time.
	tellEvery = time.Hour
	// toldAtOnce bounds the events of one round: a mistake in what all nodes
	// do shows in a few of them.
	toldAtOnce = 5
)

// limitEvent is the data of a series limit event.
type limitEvent struct {
	Sender string `json:"sender"`
	Series int64  `json:"series"`
	Limit  int64  `json:"limit"`
	// Metric has the most series of the sender, Attribute the most different
	// values among these, as a label.
	Metric    string   `json:"metric,omitempty"`
	Attribute string   `json:"attribute,omitempty"`
	Values    int      `json:"values,omitempty"`
	Examples  []string `json:"examples,omitempty"`
}

// tellLimits appends an event for each sender that was refused series since
// the last call and was not told of lately.
func (s *Store) tellLimits(ctx context.Context, now time.Time) {
	for _, o := range s.table.takeLimited(now, toldAtOnce) {
		d, message := s.blame(o)
		s.log.Warn("a sender has reached its series limit", "sender", d.Sender, "series", d.Series, "limit", d.Limit, "metric", d.Metric, "attribute", d.Attribute, "values", d.Values)
		if s.opts.Events == nil {
			continue
		}
		data, err := json.Marshal(d)
		if err != nil {
			data = nil // strings and numbers: cannot be
		}
		e := api.Event{Kind: events.MetricsSeriesLimit, Actor: "manager", Message: message, Data: data}
		if o.managed {
			e.Node = binnacle.NodeID(o.instance)
		}
		if _, err := s.opts.Events.Append(ctx, e); err != nil {
			s.log.Error("record an event", "kind", e.Kind, "error", err)
		}
	}
}

// blame finds what takes the room under the limit that o has reached: the
// metric with the most series, and its label with the most values. Where the
// limit is one that senders share, it looks at the largest of them.
func (s *Store) blame(o *owner) (limitEvent, string) {
	d := limitEvent{Sender: o.name, Series: o.series.Load(), Limit: o.max}
	if o == s.table.all {
		d.Series = int64(s.db.Head().NumSeries())
	}
	of := ""
	largest := s.table.largest(o)
	if largest != o && largest != nil {
		of = ", most of them by " + largest.name
	}
	message := fmt.Sprintf("%s: %d series in memory, at most %d are allowed%s; points that need more are refused", o.name, d.Series, d.Limit, of)
	if largest == nil {
		return d, message
	}
	c := s.table.census(largest)
	d.Metric, d.Attribute, d.Values, d.Examples = c.worst()
	if d.Attribute == "" {
		return d, message
	}
	return d, message + fmt.Sprintf("; attribute %q of %s has %d values, such as %q: send fewer, or raise the limit", d.Attribute, d.Metric, d.Values, d.Examples[0])
}

// census counts the series of an owner.
type census struct {
	metrics map[string]int                            // series by metric name
	values  map[string]map[string]map[string]struct{} // metric -> label -> values
}

func (c *census) add(lbls labels.Labels) {
	name := lbls.Get(nameLabel)
	c.metrics[name]++
	if c.values[name] == nil {
		c.values[name] = map[string]map[string]struct{}{}
	}
	lbls.Range(func(l labels.Label) {
		// le and quantile make series that cost no attribute.
		if l.Name == nameLabel || l.Name == leLabel || l.Name == quantileLabel || slices.Contains(identityLabels, l.Name) && l.Name != binnacle.LabelProcess {
			return
		}
		vs := c.values[name][l.Name]
		if vs == nil {
			vs = map[string]struct{}{}
			c.values[name][l.Name] = vs
		}
		if len(vs) < maxCounted {
			vs[l.Value] = struct{}{}
		}
	})
}

// maxCounted bounds the values counted of one label.
const maxCounted = 100_000

// worst returns the metric with the most series, the label of it with the most
// values, and a few of these. The attribute is "" where nothing differs.
func (c *census) worst() (metric, attribute string, values int, examples []string) {
	for _, name := range slices.Sorted(maps.Keys(c.metrics)) {
		if c.metrics[name] > c.metrics[metric] {
			metric = name
		}
	}
	for _, l := range slices.Sorted(maps.Keys(c.values[metric])) {
		if n := len(c.values[metric][l]); n > max(values, 1) {
			attribute, values = l, n
		}
	}
	if attribute == "" {
		return metric, "", 0, nil
	}
	examples = slices.Sorted(maps.Keys(c.values[metric][attribute]))
	return metric, attribute, values, examples[:min(3, len(examples))]
}

// takeLimited returns the owners whose limit was hit since the last call, at
// most n, without those told of lately.
func (t *table) takeLimited(now time.Time, n int) []*owner {
	if !t.limited.Swap(false) {
		return nil
	}
	t.ownersMu.Lock()
	defer t.ownersMu.Unlock()
	hit := []*owner{t.all, t.unmanaged}
	for _, k := range slices.Sorted(maps.Keys(t.owners)) {
		hit = append(hit, t.owners[k])
	}
	hit = slices.DeleteFunc(hit, func(o *owner) bool { return !o.limited.Swap(false) || now.Sub(o.told) < tellEvery })
	hit = hit[:min(n, len(hit))]
	for _, o := range hit {
		o.told = now
	}
	return hit
}

// largest returns the owner with the most series among those that share o's
// limit; that is o itself where nobody shares it.
func (t *table) largest(o *owner) *owner {
	if o != t.all && o != t.unmanaged {
		return o
	}
	t.ownersMu.Lock()
	defer t.ownersMu.Unlock()
	var among []*owner
	for _, other := range t.owners {
		if o == t.all || other.parent == o {
			among = append(among, other)
		}
	}
	if len(among) == 0 {
		return nil
	}
	return slices.MaxFunc(among, func(a, b *owner) int {
		return cmp.Or(cmp.Compare(a.series.Load(), b.series.Load()), cmp.Compare(b.name, a.name))
	})
}

// census counts the series of o. It goes through the whole table, a shard at a
// time: some tens of milliseconds at a million series, once an hour at most.
func (t *table) census(o *owner) *census {
	c := &census{metrics: map[string]int{}, values: map[string]map[string]map[string]struct{}{}}
	for i := range t.shards {
		sh := &t.shards[i]
		sh.mu.Lock()
		for _, chain := range sh.buckets {
			for s := chain.head; s != nil; s = s.next {
				if s.owner == o {
					c.add(s.lbls)
				}
			}
		}
		sh.mu.Unlock()
	}
	return c
}
