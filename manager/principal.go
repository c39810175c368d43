package manager

import (
	"context"

	"github.com/binnacle-project/binnacle/manager/access"
)

type principalKey struct{}

func withPrincipal(ctx context.Context, p access.Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// principal returns who the guard let through.
func principal(ctx context.Context) access.Principal {
	p, _ := ctx.Value(principalKey{}).(access.Principal)
	return p
}
