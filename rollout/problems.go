package rollout

import (
	"fmt"
	"net/http"

	"github.com/binnacle-project/binnacle/api"
)

// problem makes the error that a caller of the API sees.
func problem(status int, title, detail string, args ...any) *api.Problem {
	return &api.Problem{Title: title, Status: status, Detail: fmt.Sprintf(detail, args...)}
}

func notFound(detail string, args ...any) *api.Problem {
	return problem(http.StatusNotFound, "Not found", detail, args...)
}

func conflict(detail string, args ...any) *api.Problem {
	return problem(http.StatusConflict, "Conflict", detail, args...)
}

func invalid(detail string, args ...any) *api.Problem {
	return problem(http.StatusUnprocessableEntity, "Not valid", detail, args...)
}
