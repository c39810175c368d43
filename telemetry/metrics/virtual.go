package metrics

import "github.com/prometheus/prometheus/storage"

func (s *Store) queryable() storage.SampleAndChunkQueryable { return s.db }

func (s *Store) exemplarQueryable() storage.ExemplarQueryable { return s.db }
