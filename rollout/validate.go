package rollout

import "context"

import "github.com/binnacle-project/binnacle/api"

func (s *Service) validate(ctx context.Context, raw []byte) (faults, warnings []api.Fault, err error) {
	return nil, nil, nil
}
