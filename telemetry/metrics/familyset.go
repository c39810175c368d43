package metrics

// familySet holds the families of one resource by their keys. Most senders have
// some tens of them, and find them by the order in which they come (writer.family),
// so that a list is enough; an index is made for those with many. The zero value is
// ready. Not safe for concurrent use.
type familySet struct {
	list  []*family
	index map[familyKey]*family // of all in list; nil up to fewFamilies
}

// fewFamilies is how many are looked through faster than an index of them is made.
const fewFamilies = 48

// get returns the family of key, or nil.
func (s *familySet) get(key familyKey) *family {
	if s.index != nil {
		return s.index[key]
	}
	for _, f := range s.list {
		if f.key == key {
			return f
		}
	}
	return nil
}

// add takes in a family whose key is in no other.
func (s *familySet) add(f *family) {
	s.list = append(s.list, f)
	switch {
	case s.index != nil:
		s.index[f.key] = f
	case len(s.list) > fewFamilies:
		s.index = make(map[familyKey]*family, 2*len(s.list))
		for _, f := range s.list {
			s.index[f.key] = f
		}
	}
}

// drop takes out the families that gone returns true for.
func (s *familySet) drop(gone func(*family) bool) {
	kept := s.list[:0]
	for _, f := range s.list {
		if gone(f) {
			delete(s.index, f.key)
			continue
		}
		kept = append(kept, f)
	}
	clear(s.list[len(kept):])
	s.list = kept
}
