package manager

import (
	"bytes"
	"context"
	"math"
	"net/http"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// A poll that waits is taken from the HTTP server (Hijack) and held here, because
// ten thousand of them are what a manager's memory goes into: the server keeps
// buffers of 10 KiB, the request, and the large stacks of two goroutines; here a
// poll has a small one, which waits for the connection to break, and whose read
// times out when there is something to tell (hold.go). After its answer the
// connection goes back to the server when the next request begins (nodeconn.go).

// polls are those that are held.
type polls struct {
	max  int
	soft uint64 // bytes in use beyond which none is taken; 0 is no bound
	used func() uint64

	answering chan struct{} // holds one of each poll that is being answered

	mu       sync.Mutex // guards what follows
	held     map[*hold]struct{}
	licenses int // changes of the license
	stopping bool
	looked   time.Time // when used was asked
	short    bool      // what it said

	wg                     sync.WaitGroup // counts held
	tooMany, shortOfMemory *metrics.Counter
}

// spareFiles are the file descriptors that the manager keeps for all else than
// nodes.
const spareFiles = 1024

// nodeBounds is how many polls are held and how many connections nodes may have,
// if so many polls are wanted and so many files may be open. A node has a second
// connection for all that is no poll, most of the time; where files are few, it
// may find none, and polls come first.
func nodeBounds(want int, files uint64) (polls, conns int) {
	free := max(int(min(files, math.MaxInt32))-spareFiles, 8)
	polls = min(want, free*3/4)
	return polls, min(2*polls+maxHandshakes, free)
}

// openFiles is how many files this process may open.
func openFiles() uint64 {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return math.MaxInt32
	}
	return files.Cur
}

// pollsMemoryShare is how much of the process's soft limit (GOMEMLIMIT) may be in use
// while polls are still taken. What is beyond it is for answers and for a push.
const pollsMemoryShare = 0.9

// maxAnswering is how many polls are answered at a time. It is work for the
// processors alone, but for a node that reads nothing at all (answerTimeout).
const maxAnswering = 256

// memoryInterval is how old a reading of the memory may be.
const memoryInterval = 100 * time.Millisecond

func newPolls(most int, set *metrics.Set) *polls {
	p := &polls{
		max: most, used: func() uint64 { m := readMemory(); return m.live + m.stacks }, held: make(map[*hold]struct{}),
		answering:     make(chan struct{}, maxAnswering),
		tooMany:       set.GetOrCreateCounter(`binnacle_node_shed_total{what="poll",reason="polls"}`),
		shortOfMemory: set.GetOrCreateCounter(`binnacle_node_shed_total{what="poll",reason="memory"}`),
	}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		p.soft = uint64(float64(limit) * pollsMemoryShare)
	}
	set.GetOrCreateGauge(`binnacle_polls_held`, func() float64 { return float64(p.count()) })
	return p
}

func (p *polls) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.held)
}

// seen returns a mark of the license in force, for take.
func (p *polls) seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.licenses
}

// take takes up a poll that was decided on when the license was the one of seen,
// or refuses it with an answer that has Retry-After. release must follow.
func (p *polls) take(h *hold, seen int, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.soft > 0 && now.Sub(p.looked) > memoryInterval {
		p.looked, p.short = now, p.used() > p.soft
	}
	switch {
	case p.stopping:
		return fail(http.StatusServiceUnavailable, "the manager stops: ask again later")
	case len(p.held) >= p.max:
		p.tooMany.Inc()
		return fail(http.StatusServiceUnavailable, "the manager holds %d polls, which is all that --max-polls or its file descriptors allow: ask again later", p.max)
	case p.short:
		p.shortOfMemory.Inc()
		return fail(http.StatusServiceUnavailable, "the manager is short of memory (more than %d MiB in use, nine tenths of GOMEMLIMIT): ask again later", p.soft>>20)
	}
	p.held[h] = struct{}{}
	p.wg.Add(1)
	if p.licenses != seen {
		h.answerBy(now)
	}
	return nil
}

func (p *polls) release(h *hold) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.held, h)
	p.wg.Done()
}

// licenseChanged has all polls answered, each after its share of a time.
func (p *polls) licenseChanged(share func(phase float64) time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.licenses++
	now := time.Now()
	for h := range p.held {
		h.answerBy(now.Add(share(h.phase)))
	}
}

// stop has all polls answered now, and takes no other.
func (p *polls) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
	now := time.Now()
	for h := range p.held {
		h.answerBy(now)
	}
}

func (p *polls) isStopping() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopping
}

// wait returns when all polls are answered, or ctx ends.
func (p *polls) wait(ctx context.Context) {
	done := make(chan struct{})
	go func() { p.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// answer is an http.ResponseWriter that keeps what is written.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func newAnswer() *answer { return &answer{status: http.StatusOK, header: make(http.Header)} }

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
