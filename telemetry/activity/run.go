package activity

import (
	"context"
	"errors"
	"time"
)

const (
	// rollupStep is how often roll-ups are written; groups in a bake take
	// fineStep.
	rollupStep = 10 * time.Second
	// checkpointRate bounds what checkpoints write, in bytes per second: a large
	// fleet writes them less often. What a crash then loses are windows, never
	// totals.
	checkpointRate = 512 << 10
	// forgetAfter is when silent unmanaged senders, processes, backends and
	// endpoints are forgotten. It is far beyond what a spool holds, because a
	// stream that is forgotten and comes back counts anew.
	forgetAfter = 7 * 24 * time.Hour
	// sweepEvery is how often that is looked at.
	sweepEvery = 10 * time.Minute
)

// loop ticks until ctx ends.
func (a *Aggregator) loop(ctx context.Context) error {
	var buf []byte
	nextCheckpoint, nextSweep := time.Now(), time.Now().Add(sweepEvery)
	for {
		at, ok := a.sleepToStep(ctx)
		if !ok {
			break
		}
		all := at.Unix()%int64(rollupStep/time.Second) == 0
		due := all && a.o.Dir != "" && !at.Before(nextCheckpoint)
		buf = a.tick(at, writes{all: all, news: due, checkpoint: due}, buf)
		if due {
			nextCheckpoint = at.Add(max(rollupStep, time.Duration(len(buf))*time.Second/checkpointRate))
		}
		if !at.Before(nextSweep) {
			a.sweep(at)
			nextSweep = at.Add(sweepEvery)
		}
		a.warm()
	}
	a.warming.Store(false)
	a.tick(time.Now(), writes{all: true, news: true, checkpoint: a.o.Dir != ""}, buf)
	return nil
}

// sleepToStep waits for the next whole fine step, with a little room for
// points of its last moment to arrive.
func (a *Aggregator) sleepToStep(ctx context.Context) (at time.Time, ok bool) {
	const room = 20 * time.Millisecond
	at = time.Now().Truncate(fineStep * time.Second).Add(fineStep * time.Second)
	t := time.NewTimer(time.Until(at.Add(room)))
	defer t.Stop()
	select {
	case <-t.C:
		return at, true
	case <-ctx.Done():
		return at, false
	}
}

// writes says what a tick writes.
type writes struct {
	all        bool // roll-ups of all groups, not only of those in a bake
	news       bool // and every increase, however new the sample before is
	checkpoint bool // needs news: what is not in the store by then is missing in windows after a restart
}

// tick writes the roll-ups of the moment at and the checkpoint, into buf's memory.
// Both are of one moment, so that after a crash streams and roll-ups continue
// together.
func (a *Aggregator) tick(at time.Time, what writes, buf []byte) []byte {
	a.mu.Lock()
	if what.all {
		a.setDelayLocked(at)
	}
	samples, of := a.collectLocked(at, what)
	if what.checkpoint {
		buf = a.encodeLocked(at.UnixNano(), buf)
	}
	a.mu.Unlock()

	var err error
	if len(samples) > 0 {
		err = a.o.Rollups.Append(samples)
	}
	a.mu.Lock()
	for i, r := range of {
		if err != nil {
			r.refused()
		} else if i+1 == len(of) || of[i+1] != r {
			r.stored(samples[i].T, samples[i].Histogram == nil)
		}
	}
	a.mu.Unlock()
	if err != nil {
		a.self.refused.Inc()
		a.log.Warn("roll-ups were not stored: the next tick tries again", "samples", len(samples), "err", err)
	} else {
		a.self.written.Add(len(samples))
	}
	if what.checkpoint {
		if err := a.save(buf); err != nil {
			a.self.failed.Inc()
			a.log.Error("a crash now would cost live windows", "err", err)
		} else {
			a.self.checkpoints.Inc()
		}
	}
	return buf
}

// collectLocked returns the samples due at the moment at, and beside each
// the roll-up it is of.
func (a *Aggregator) collectLocked(at time.Time, what writes) (samples []RollupSample, of []*rollup) {
	if a.o.Rollups == nil || !what.all && len(a.bakes) == 0 {
		return nil, nil
	}
	ms := at.UnixMilli()
	// An increase that begins at the checkpoint spans too much by now to count.
	over := at.UnixNano()-a.restored > minLimit
	for _, r := range a.rollups {
		bake := a.bakes[r.id.group]
		if !what.all && !bake {
			continue
		}
		step := rollupStep.Milliseconds()
		if bake {
			step = fineStep * 1000
		}
		r.settle(over)
		n := len(samples)
		samples = r.next(ms-step, ms, what.news, samples)
		if len(samples) == n {
			continue
		}
		for range len(samples) - n {
			of = append(of, r)
		}
		r.sent()
	}
	return samples, of
}

// setDelayLocked sets the chart's delay to the slowest of the gateways that
// are live.
func (a *Aggregator) setDelayLocked(at time.Time) {
	var slowest int64
	for _, s := range a.senders {
		if !s.managed && !s.info.Gateway {
			continue
		}
		for _, p := range s.processes {
			if at.UnixNano()-p.last <= p.limit(s.managed) {
				slowest = max(slowest, p.interval())
			}
		}
	}
	if slowest > 0 {
		a.chart.setDelay(time.Duration(slowest))
	}
}

// sweep forgets what was silent for long. Managed nodes stay until Forget.
func (a *Aggregator) sweep(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := now.Add(-forgetAfter).UnixNano()
	for id, s := range a.senders {
		for pid, p := range s.processes {
			if p.last < old {
				delete(s.processes, pid)
			}
		}
		for hash, st := range s.streams {
			if st.t < old {
				delete(s.streams, hash)
				st.sender = nil
				a.streams--
			}
		}
		if len(s.streams) == 0 && s.info.LastSeen.UnixNano() < old {
			delete(a.senders, id)
		}
	}
	gone := false
	for id, k := range a.keys.byID {
		switch {
		case k.lastFed >= old || id.kind == kindCluster || id.kind == kindGroup:
		case id.kind == kindNode && a.senders[id.node] != nil && a.senders[id.node].managed:
		default:
			a.keys.drop(id)
			delete(a.endpoints, id.backend)
			gone = true
		}
	}
	for id, r := range a.rollups {
		if r.fed < old && !r.dirty && r.floor == nil {
			delete(a.rollups, id)
			gone = true
		}
	}
	a.forgetPlaces()
	if gone { // targets hold pointers to what was dropped
		for _, s := range a.senders {
			s.forgetTargets()
		}
	}
	for _, k := range a.keys.byID {
		if k.idle(now.Unix()) {
			k.empty()
		}
	}
}

// refill reads the roll-ups of the last hour into the windows, up to the
// checkpoint: from there on streams tell it themselves.
func (a *Aggregator) refill(ctx context.Context) error {
	defer a.settled()
	if a.o.Rollups == nil {
		return nil
	}
	begin := a.started
	to := begin.UnixMilli()
	from := begin.Add(-time.Hour - 5*time.Minute).UnixMilli()
	until := a.restored
	if until == 0 { // no checkpoint: the first points of streams are of unknown age
		until = begin.UnixNano()
	}
	var errs []error
	for kd := range numRollups {
		f := refiller{a: a, kind: kd, until: until}
		if err := a.o.Rollups.Select(ctx, rollupNames[kd], from, to, f.sample); err != nil {
			errs = append(errs, err)
		}
		f.finish()
	}
	return errors.Join(errs...)
}

// settled notes that what the store holds is known.
func (a *Aggregator) settled() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settling = false
	for _, r := range a.rollups {
		if r.floor == nil {
			r.after = nil
		}
	}
}
