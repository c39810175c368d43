package metrics

import "strings"

// pointRoom is where new points and their keys lie: many in one piece of memory,
// because where every series is new, as when a gateway has restarted, allocating
// them one by one is a good part of the work, and of the collector's. A piece lives
// as long as one point in it; those of one sender mostly come and go together. The
// zero value is ready. Not safe for concurrent use.
type pointRoom struct {
	plain  []point
	shaped []shapedPoint
	keys   strings.Builder
}

// shapedPoint is a point of several values.
type shapedPoint struct {
	point
	its shape
}

const (
	// pointPiece is how many points a piece has room for.
	pointPiece = 16
	// keyPiece is the size of a piece of keys.
	keyPiece = 2 << 10
)

// next returns an empty point, the same one until taken is called.
func (r *pointRoom) next(shaped bool) *point {
	if !shaped {
		if len(r.plain) == 0 {
			r.plain = make([]point, pointPiece)
		}
		r.plain[0] = point{}
		return &r.plain[0]
	}
	if len(r.shaped) == 0 {
		r.shaped = make([]shapedPoint, pointPiece)
	}
	r.shaped[0] = shapedPoint{}
	p := &r.shaped[0]
	p.point.shape = &p.its
	return &p.point
}

// taken says that the point of next is in use.
func (r *pointRoom) taken(p *point) {
	if p.shape == nil {
		r.plain = r.plain[1:]
	} else {
		r.shaped = r.shaped[1:]
	}
}

// key returns a copy of key.
func (r *pointRoom) key(key []byte) string {
	if r.keys.Cap()-r.keys.Len() < len(key) {
		r.keys.Reset()
		r.keys.Grow(max(keyPiece, len(key)))
	}
	begin := r.keys.Len()
	r.keys.Write(key)
	return r.keys.String()[begin:]
}
