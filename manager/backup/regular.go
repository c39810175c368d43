package backup

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Options of Regular.
type Options struct {
	Source
	// Every is the time between two backups; 0 makes none by itself. Keep is how
	// many are kept.
	Every time.Duration
	Keep  int

	Log     *slog.Logger
	Metrics *metrics.Set
}

// Regular makes backups again and again. It is safe for
// concurrent use.
type Regular struct {
	o            Options
	log          *slog.Logger
	made, failed *metrics.Counter

	mu   sync.Mutex // one at a time; guards last
	last time.Time
}

// NewRegular looks at what backups there are. One process at a time makes
// backups in one folder.
func NewRegular(o Options) *Regular {
	r := &Regular{
		o: o, log: o.Log.With("component", "backup"),
		made: o.Metrics.NewCounter("binnacle_backups_total"), failed: o.Metrics.NewCounter("binnacle_backups_failed_total"),
	}
	if left, err := filepath.Glob(filepath.Join(o.Dir, unfinished+"*")); err == nil {
		for _, dir := range left { // of a manager that was killed
			_ = os.RemoveAll(dir)
		}
	}
	if list, err := List(o.Dir); err != nil {
		r.log.Warn("the backups made before could not be listed", "err", err)
	} else if len(list) > 0 {
		r.last = list[len(list)-1].Taken
	}
	o.Metrics.NewGauge("binnacle_backup_age_seconds", func() float64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.last.IsZero() {
			return -1
		}
		return time.Since(r.last).Seconds()
	})
	return r
}

// Now makes a backup, and deletes those beyond Keep.
func (r *Regular) Now(ctx context.Context) (Info, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, err := Write(ctx, r.o.Source, time.Now())
	if err != nil {
		r.failed.Inc()
		return b, err
	}
	r.made.Inc()
	r.last = b.Taken
	r.log.Info("backup made", "path", b.Path, "keys", b.Keys)
	if err := Prune(r.o.Dir, r.o.Keep); err != nil {
		r.log.Warn("old backups could not be deleted", "err", err)
	}
	return b, nil
}

// againAfter is the pause after a backup that failed.
const againAfter = 5 * time.Minute

// Run makes backups until ctx ends. A failure is told and tried again, and stops
// nothing.
func (r *Regular) Run(ctx context.Context) error {
	if r.o.Every == 0 {
		return nil
	}
	r.mu.Lock()
	wait := time.Until(r.last.Add(r.o.Every))
	r.mu.Unlock()
	for {
		// Not in the first seconds of a start, when there is more to do.
		timer := time.NewTimer(max(wait, min(r.o.Every, 10*time.Second)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = r.o.Every
		if _, err := r.Now(ctx); err != nil && ctx.Err() == nil {
			r.log.Error("no backup was made; trying again in a while", "err", err)
			wait = min(wait, againAfter)
		}
	}
}
