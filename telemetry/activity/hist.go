package activity

import "math"

// scale is the finest resolution of latency that is kept here, and that of all
// windows: each power of two is cut into 2^scale buckets, so that a bucket's
// bounds are 9.05 % apart and the middle of one is at most 4.4 % from any value
// in it. That is finer than what a reader of a p99 acts on, and twice as coarse as
// scale 4, which would double the buckets to store, write and query.
const scale = 3

// maxCoarser is how many steps coarser than scale roll-ups may be: down to two
// buckets for a power of two. A roll-up is as coarse as the coarsest of what is
// added up in it, as PromQL's sums are: finer buckets would be made up, and each
// costs in every sample, on disk, and in each query.
const maxCoarser = 2

// Buckets are numbered as OTLP does: bucket i holds (2^(i/8), 2^((i+1)/8)]
// seconds. Those outside of minIndex..maxIndex, i.e. of 60 ns to 18 hours, are
// booked on the nearest one.
const (
	minIndex   = -24 << scale
	maxIndex   = 16<<scale - 1
	numIndexes = maxIndex - minIndex + 1
)

func clampIndex(i int) int { return min(max(i, minIndex), maxIndex) }

// lowerBound returns the exclusive lower bound of bucket i in seconds.
func lowerBound(i int) float64 { return math.Exp2(float64(i) / (1 << scale)) }

// indexOf returns the bucket that holds v, which must be positive.
func indexOf(v float64) int {
	frac, exp := math.Frexp(v) // v = frac * 2^exp, frac in [0.5, 1)
	if frac == 0.5 {           // a power of two is the upper bound of its bucket
		return clampIndex((exp-1)<<scale - 1)
	}
	return clampIndex(int(math.Ceil(math.Log2(v)*(1<<scale))) - 1)
}

// bucket is one filled bucket of an increase.
type bucket struct {
	index int
	n     uint64
}

// increase is what happened between two points of a stream. The counts of
// buckets and zero add up to count. Buckets rise, and one may come twice.
type increase struct {
	count   uint64
	sum     float64 // seconds
	zero    uint64  // observations of (nearly) no time
	buckets []bucket
	coarser uint8 // how many steps coarser than scale the sender's buckets are
	// lo to hi is where the sender's buckets reach, if spread is set: more of the same
	// may fall anywhere there.
	lo, hi int32
	spread bool
}
