package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/gzip"
)

const (
	// maxPending bounds what waits in memory to be written to a queue.
	maxPending = 16 << 20
	// writeInterval is half of what is promised: on disk within a second.
	writeInterval = 500 * time.Millisecond
	firstBackoff  = time.Second
	maxBackoff    = 30 * time.Second
)

// lane is the way of one signal: from memory to the queue on disk, and from
// there, in order, to the remote.
type lane struct {
	signal signal
	log    *slog.Logger
	queue  *queue
	remote remote

	mu           sync.Mutex // guards what waits to be written
	pending      []record
	pendingBytes int

	written chan struct{} // holds one element after a write to the queue
	meters  laneMeters
}

// laneMeters count items of binnacle_forward_items_total by their result.
type laneMeters struct {
	sent     *metrics.Counter
	refused  *metrics.Counter // by the remote, for good
	dropped  *metrics.Counter // for want of room in the queue
	overflow *metrics.Counter // the disk was slower than the senders
	torn     *metrics.Counter // in a part of the queue that cannot be read

	retries, damaged *metrics.Counter
}

func newLane(s signal, q *queue, out remote, log *slog.Logger, set *metrics.Set) *lane {
	l := &lane{signal: s, queue: q, remote: out, log: log.With("component", "forward", "signal", s.String()), written: make(chan struct{}, 1)}
	name := func(format string) string { return fmt.Sprintf(format, s) }
	items := func(result string) *metrics.Counter {
		return set.GetOrCreateCounter(fmt.Sprintf("binnacle_forward_items_total{signal=%q,result=%q}", s, result))
	}
	l.meters = laneMeters{
		sent: items("sent"), refused: items("refused"), dropped: items("dropped"), overflow: items("overflow"), torn: items("damaged"),
		retries: set.GetOrCreateCounter(name("binnacle_forward_retries_total{signal=%q}")),
		damaged: set.GetOrCreateCounter(name("binnacle_forward_damaged_segments_total{signal=%q}")),
	}
	set.GetOrCreateGauge(name("binnacle_forward_queue_bytes{signal=%q}"), func() float64 { return float64(q.bytes()) })
	set.GetOrCreateGauge(name("binnacle_forward_memory_bytes{signal=%q}"), func() float64 {
		l.mu.Lock()
		defer l.mu.Unlock()
		return float64(l.pendingBytes)
	})
	set.GetOrCreateGauge(name("binnacle_forward_queue_items{signal=%q}"), func() float64 { return float64(q.items()) })
	return l
}

// take accepts one request; what does not fit in memory is dropped and counted.
func (l *lane) take(items int, body []byte, err error) {
	if items == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil || l.pendingBytes+len(body) > maxPending {
		l.meters.overflow.Add(items)
		return
	}
	l.pending = append(l.pending, record{uint32(items), body})
	l.pendingBytes += len(body)
}

// run writes and sends until ctx ends.
func (l *lane) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { l.send(ctx) })
	tick := time.NewTicker(writeInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		l.write()
	}
	wg.Wait()
}

// write moves what waits to the queue.
func (l *lane) write() {
	l.mu.Lock()
	records := l.pending
	l.mu.Unlock()
	if len(records) > 0 {
		packed := make([]record, len(records))
		for i, r := range records {
			packed[i] = record{r.items, pack(r.body)}
		}
		lost, err := l.queue.append(packed)
		if err != nil {
			l.log.Error("the queue of what is forwarded cannot be written, will try again", "dir", l.queue.dir, "error", err)
			return // they wait on; take bounds them
		}
		if lost > 0 {
			l.meters.dropped.Add(int(lost))
			l.log.Warn("the queue of what is forwarded is full: the oldest were dropped", "items", lost, "max_bytes", l.queue.limit)
		}
		l.mu.Lock()
		l.pending = l.pending[len(records):]
		l.pendingBytes = 0
		for _, r := range l.pending {
			l.pendingBytes += len(r.body)
		}
		l.mu.Unlock()
		select {
		case l.written <- struct{}{}:
		default:
		}
	}
	if err := l.queue.savePosition(); err != nil {
		l.log.Warn("place in the queue not kept: some will be sent twice after a restart", "error", err)
	}
}

func pack(b []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	_, err = w.Write(b)
	if err = errors.Join(err, w.Close()); err != nil {
		panic("BUG: " + err.Error()) // a buffer takes all
	}
	return out.Bytes()
}

// send passes on what is in the queue, in order, until ctx ends. A request that
// the remote may still take is tried again, and holds up what is behind it,
// until the queue drops it.
func (l *lane) send(ctx context.Context) {
	backoff, broken := firstBackoff, 0
	for ctx.Err() == nil {
		r, after, ok, err := l.queue.next()
		if err != nil {
			l.meters.damaged.Inc()
			if d, ok := errors.AsType[*damage](err); ok {
				l.meters.torn.Add(int(d.lost))
			}
			l.log.Error("a part of the queue of what is forwarded is damaged and left out", "error", err)
			continue
		}
		if !ok {
			select {
			case <-l.written:
			case <-ctx.Done():
			}
			continue
		}
		a := l.remote.post(ctx, l.signal, r.body)
		if a.verdict == broke {
			if broken++; broken >= maxBroken {
				a.verdict = no
			}
		}
		if a.verdict == yes || a.verdict == no {
			l.done(r, a)
			l.queue.advance(after, r)
			backoff, broken = firstBackoff, 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		l.meters.retries.Inc()
		if backoff == firstBackoff {
			l.log.Warn("forwarding fails, will try again", "url", l.remote.url, "error", a.err)
		}
		// Between half and all of it, so that many do not come at once.
		pause := max(a.wait, backoff/2+rand.N(backoff/2))
		backoff = min(2*backoff, maxBackoff)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// done counts a request that will not be sent again.
func (l *lane) done(r record, a answer) {
	rejected := min(a.rejected, int(r.items))
	switch {
	case a.verdict == no:
		rejected = int(r.items)
		l.log.Warn("the remote refused what was forwarded", "items", r.items, "error", a.err)
	case rejected > 0:
		l.log.Warn("the remote refused a part of what was forwarded", "items", rejected, "of", r.items, "message", a.message)
	}
	l.meters.refused.Add(rejected)
	l.meters.sent.Add(int(r.items) - rejected)
}
