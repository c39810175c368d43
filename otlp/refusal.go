package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// reason is why a request was refused; it is a label of
// binnacle_otlp_requests_total and decides both answers.
type reason uint8

const (
	accepted reason = iota
	badRequest
	tooLarge
	badMedia
	unauthenticated
	forbidden
	unsupported
	busy     // retryable
	gone     // the client left, or its time was over
	internal // our fault, not retryable
	numReasons
)

var reasons = [numReasons]struct {
	label string
	http  int
	grpc  codes.Code
}{
	accepted:        {"ok", http.StatusOK, codes.OK},
	badRequest:      {"bad_request", http.StatusBadRequest, codes.InvalidArgument},
	tooLarge:        {"too_large", http.StatusRequestEntityTooLarge, codes.ResourceExhausted},
	badMedia:        {"bad_media", http.StatusUnsupportedMediaType, codes.InvalidArgument},
	unauthenticated: {"unauthenticated", http.StatusUnauthorized, codes.Unauthenticated},
	forbidden:       {"forbidden", http.StatusForbidden, codes.PermissionDenied},
	unsupported:     {"unsupported", http.StatusNotImplemented, codes.Unimplemented},
	busy:            {"busy", http.StatusServiceUnavailable, codes.Unavailable},
	gone:            {"gone", http.StatusServiceUnavailable, codes.DeadlineExceeded},
	internal:        {"internal", http.StatusInternalServerError, codes.Internal},
}

// refusal is an error with its answer. Over both protocols a sender sees its
// message.
type refusal struct {
	reason reason
	retry  time.Duration // 0: not retryable
	err    error
}

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

func refuse(why reason, format string, args ...any) error {
	return &refusal{reason: why, err: fmt.Errorf(format, args...)}
}

func refuseBusy(format string, args ...any) error {
	return &refusal{reason: busy, retry: time.Second, err: fmt.Errorf(format, args...)}
}

// classify turns any error into a refusal: the one place where errors become
// answers. The message of an internal error stays here; the caller logs it.
func classify(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	switch after := retryAfter(err); {
	case after > 0:
		return &refusal{reason: busy, retry: after, err: err}
	case isPermanent(err):
		return &refusal{reason: badRequest, err: err}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &refusal{reason: gone, retry: time.Second, err: err}
	}
	return &refusal{reason: internal, err: errors.New("the manager could not keep the batch; its log says why")}
}

// classifyIdentity classes the error of an Identify.
func classifyIdentity(err error) *refusal {
	if after := retryAfter(err); after > 0 {
		return &refusal{reason: busy, retry: after, err: err}
	}
	if errors.Is(err, ErrForbidden) {
		return &refusal{reason: forbidden, err: err}
	}
	return &refusal{reason: unauthenticated, err: err}
}

// status is the refusal as a google.rpc.Status, with RetryInfo where it is
// retryable.
//
// Source: OTLP specification, "Failures" of both protocols.
func (e *refusal) status() *spb.Status {
	// A decoder's error may quote the bytes that it could not read, and a message
	// must be UTF-8 to be sent.
	st := &spb.Status{Code: int32(reasons[e.reason].grpc), Message: strings.ToValidUTF8(e.Error(), "\uFFFD")}
	if e.retry > 0 {
		info := &errdetails.RetryInfo{RetryDelay: durationpb.New(e.retry)}
		if a, err := anypb.New(info); err == nil {
			st.Details = append(st.Details, a)
		}
	}
	return st
}

// grpc is the refusal as the error of a gRPC handler.
func (e *refusal) grpc() error { return grpcstatus.ErrorProto(e.status()) }

// marshalStatus encodes the status for a body in protobuf.
func (e *refusal) marshalStatus() []byte {
	b, err := proto.Marshal(e.status())
	if err != nil {
		return nil // the status code still says it
	}
	return b
}
