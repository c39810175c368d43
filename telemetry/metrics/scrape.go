package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	vm "github.com/VictoriaMetrics/metrics"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// Scrape copies the values of sets into the store, each series with lbls added,
// so that the manager's own counters can be queried like everything else. A
// label that the counter has itself wins over one of lbls.
//
// It is not under the limits of senders. Safe for concurrent use, but only the
// samples of calls with rising times are all kept.
func (s *Store) Scrape(ctx context.Context, sets []*vm.Set, lbls labels.Labels, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.ScrapeFrom(ctx, func(w io.Writer) {
		for _, set := range sets {
			set.WritePrometheus(w)
		}
	}, lbls, at)
}

// ScrapeFrom is Scrape for what write puts out in Prometheus text form.
func (s *Store) ScrapeFrom(ctx context.Context, write func(io.Writer), lbls labels.Labels, at time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var text bytes.Buffer
	write(&text)
	n, err := s.scrapeText(text.Bytes(), lbls, at.UnixMilli())
	s.self.ownSamples.Add(n)
	if err != nil {
		s.self.ownFailed.Inc()
	}
	return err
}

// scrapeText appends each line of a text exposition. A line that cannot be
// read is skipped and told in the error, with the rest stored.
func (s *Store) scrapeText(text []byte, lbls labels.Labels, t int64) (stored int, _ error) {
	if err := s.space.check(time.Now()); err != nil {
		return 0, err
	}
	app := s.db.AppenderV2(context.Background())
	var bad error
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name, v, err := splitSample(line)
		if err == nil {
			var h *Series
			if h, err = s.scraped.get(name, lbls); err == nil {
				err = h.appendFloat(app, t, v, storage.AppendV2Options{})
			}
		}
		if err != nil {
			if bad == nil {
				bad = fmt.Errorf("copy own metric %q: %w", line, err)
			}
			continue
		}
		stored++
	}
	if err := app.Commit(); err != nil {
		return 0, s.commitFailed(err)
	}
	return stored, bad
}

// splitSample splits `name{labels} value [time]`; the name keeps its labels.
func splitSample(line []byte) (name []byte, v float64, err error) {
	end := bytes.LastIndexByte(line, '}') + 1
	if end == 0 {
		if end = bytes.IndexAny(line, " \t"); end < 0 {
			return nil, 0, errors.New("no value")
		}
	}
	fields := bytes.Fields(line[end:])
	if len(fields) == 0 {
		return nil, 0, errors.New("no value")
	}
	v, err = strconv.ParseFloat(string(fields[0]), 64)
	return line[:end], v, err
}

// scrapeCache holds the handle of each own series by its text. Safe for
// concurrent use.
type scrapeCache struct {
	mu sync.Mutex
	m  map[scrapeKey]*scrapeEntry
}

type scrapeKey struct {
	text string // name and labels as written
	with string // the labels added
}

type scrapeEntry struct {
	series *Series
	used   bool // since the last sweep
}

func newScrapeCache() *scrapeCache { return &scrapeCache{m: map[scrapeKey]*scrapeEntry{}} }

func (c *scrapeCache) get(text []byte, with labels.Labels) (*Series, error) {
	var buf [512]byte
	key := scrapeKey{string(text), string(with.Bytes(buf[:0]))}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.m[key]; e != nil {
		e.used = true
		return e.series, nil
	}
	lbls, err := parseSeries(key.text, with)
	if err != nil {
		return nil, err
	}
	e := &scrapeEntry{series: &Series{lbls: lbls}, used: true}
	c.m[key] = e
	return e.series, nil
}

// sweep drops the handles that were not used since the call before.
func (c *scrapeCache) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.m {
		if !e.used {
			delete(c.m, k)
		}
		e.used = false
	}
}

// parseSeries reads `name{a="b",…}` and adds the labels of with that it lacks.
func parseSeries(text string, with labels.Labels) (labels.Labels, error) {
	b := labels.NewBuilder(with)
	name, rest, has := strings.Cut(text, "{")
	b.Set(nameLabel, strings.TrimSpace(name))
	for has {
		rest = strings.TrimLeft(rest, ", ")
		if rest == "}" {
			break
		}
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			return labels.EmptyLabels(), fmt.Errorf("label without value at %q", rest)
		}
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil {
			return labels.EmptyLabels(), fmt.Errorf("label %s has no quoted value at %q", key, after)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return labels.EmptyLabels(), fmt.Errorf("label %s: %w", key, err)
		}
		b.Set(key, value)
		rest = after[len(quoted):]
	}
	return b.Labels(), nil
}
