package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"
)

// theFloor is the least that a server on net/http and the Prometheus TSDB can take
// for these payloads: it reads a request's body without looking at it, and
// appends to the TSDB, by reference and in memory that is used again, what such a
// request says. No attribute is looked at, nothing is checked, counted or made of
// the points. What Binnacle takes beyond it is its own work.
var theFloor = contender{name: "floor", binary: self, histograms: explicitHistograms, setup: func(s *server) ([]string, error) {
	addr, err := freeAddr()
	s.ready, s.write = "http://"+addr+"/", "http://"+addr+"/"
	return []string{"floor-server", "-dir", filepath.Join(s.dir, "data"), "-listen", addr}, err
}}

// floorServer serves until ctx ends.
func floorServer(ctx context.Context, o options) error {
	opts := tsdb.DefaultOptions()
	opts.WALCompression = compression.Snappy
	opts.OutOfOrderTimeWindow = (6 * time.Hour).Milliseconds() // as ours
	db, err := tsdb.Open(o.dir, slog.New(slog.DiscardHandler), nil, opts, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	f := &floor{db: db, nodes: map[int]*floorNode{}, buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }}}
	srv := &http.Server{Handler: f}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	if err := srv.Serve(ln); ctx.Err() == nil {
		return err
	}
	return nil
}

type floor struct {
	db      *tsdb.DB
	buffers sync.Pool // *bytes.Buffer

	mu    sync.Mutex // guards nodes
	nodes map[int]*floorNode
}

// ServeHTTP takes the export of the node that the header says.
func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		return
	}
	b := f.buffers.Get().(*bytes.Buffer)
	defer f.buffers.Put(b)
	b.Reset()
	_, err := io.Copy(b, r.Body)
	node, convErr := strconv.Atoi(r.Header.Get(nodeHeader))
	if err != nil || convErr != nil {
		http.Error(w, fmt.Sprint(err, convErr), http.StatusBadRequest)
		return
	}
	if err := f.node(node).append(f.db); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func (f *floor) node(n int) *floorNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nodes[n] == nil {
		f.nodes[n] = newFloorNode(n)
	}
	return f.nodes[n]
}

// floorNode is what one node's exports make in the TSDB.
type floorNode struct {
	mu         sync.Mutex
	rng        *rand.Rand
	histograms []floorHistogram
	numbers    []floorNumber
}

type floorHistogram struct {
	labels labels.Labels
	ref    storage.SeriesRef
	counts []int64
	turn   [2]histogram.Histogram // the TSDB holds the newest
	n      int
}

type floorNumber struct {
	labels labels.Labels
	ref    storage.SeriesRef
	value  float64
}

func newFloorNode(n int) *floorNode {
	node := &floorNode{rng: rand.New(rand.NewPCG(1, uint64(n)))}
	base := func(name string, more ...string) labels.Labels {
		return labels.FromStrings(append(more, "__name__", name, "job", "binnacle-gateway", "instance", nodeName(n, 0))...)
	}
	add := func(l labels.Labels) {
		h := floorHistogram{labels: l, counts: make([]int64, len(bounds)+1)}
		for i := range h.turn {
			h.turn[i] = histogram.Histogram{
				Schema: histogram.CustomBucketsSchema, CustomValues: bounds,
				PositiveSpans:   []histogram.Span{{Length: uint32(len(h.counts))}},
				PositiveBuckets: make([]int64, len(h.counts)),
			}
		}
		node.histograms = append(node.histograms, h)
	}
	for i := range 60 {
		add(base("http_server_request_duration_seconds", "http_request_method", "GET", "http_route", fmt.Sprintf("/api/v1/resource-%d/{id}", i/3), "http_response_status_code", []string{"200", "404", "500"}[i%3], "url_scheme", "http"))
	}
	for i := range 20 {
		add(base("http_client_request_duration_seconds", "http_request_method", "GET", "server_address", fmt.Sprintf("backend-%d.internal", (i/2+n)%200), "server_port", "8080", "http_response_status_code", []string{"200", "503"}[i%2]))
	}
	for i := range 30 {
		node.numbers = append(node.numbers, floorNumber{labels: base(fmt.Sprintf("go_number_%d", i), "state", "used")})
	}
	return node
}

// append stores one export, raised as fleet.exportNode raises it.
func (n *floorNode) append(db *tsdb.DB) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	app := db.AppenderV2(context.Background())
	t := time.Now().UnixMilli()
	var err error
	for i := range n.histograms {
		s := &n.histograms[i]
		s.n++
		h := &s.turn[s.n%2]
		more, before := n.rng.Uint64(), int64(0)
		last := &s.turn[(s.n+1)%2]
		h.Count, h.Sum = last.Count, last.Sum
		for k := range s.counts {
			c := more >> (2 * k) & 3
			s.counts[k] += int64(c)
			h.PositiveBuckets[k] = s.counts[k] - before
			before = s.counts[k]
			h.Count += c
			h.Sum += float64(c) / 16
		}
		if s.ref, err = app.Append(s.ref, s.labels, 0, t, 0, h, nil, storage.AppendV2Options{}); err != nil {
			_ = app.Rollback()
			return err
		}
	}
	for i := range n.numbers {
		s := &n.numbers[i]
		if i%2 == 0 {
			s.value += float64(n.rng.IntN(1000))
		} else {
			s.value = float64(n.rng.IntN(1 << 20))
		}
		if s.ref, err = app.Append(s.ref, s.labels, 0, t, s.value, nil, nil, storage.AppendV2Options{}); err != nil {
			_ = app.Rollback()
			return err
		}
	}
	return app.Commit()
}
