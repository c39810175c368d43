package otlp

import (
	"errors"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/binnacle-project/binnacle"
)

// Media types of OTLP/HTTP.
const (
	mediaProto = "application/x-protobuf"
	mediaJSON  = "application/json"
)

// HTTPHandler serves OTLP/HTTP for senders that identify knows: POST
// /v1/metrics and /v1/traces, protobuf and JSON, plain, gzip and zstd. POST
// /v1/logs answers that logs are not supported.
func (r *Receiver) HTTPHandler(identify Identify) http.Handler {
	mux := http.NewServeMux()
	for _, sig := range []signal{metricsSignal, tracesSignal, logsSignal} {
		mux.Handle("/v1/"+string(sig), &httpHandler{r: r, sig: sig, identify: identify})
	}
	return mux
}

// HTTPServer returns a server for HTTPHandler with the header and time limits
// that an open port needs. The caller serves and shuts it down.
func (r *Receiver) HTTPServer(identify Identify) *http.Server {
	return &http.Server{
		Handler:           r.HTTPHandler(identify),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       bodyTime + 5*time.Second, // bodies have their own, see movingBody
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
}

// httpHandler serves one path.
type httpHandler struct {
	r        *Receiver
	sig      signal
	identify Identify
}

func (h *httpHandler) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	start := time.Now()
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if req.Method != http.MethodPost {
		h.r.meters.done(h.sig, overHTTP, start, Result{}, badRequest)
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "OTLP is sent with POST", http.StatusMethodNotAllowed)
		return
	}
	media := req.Header.Get("Content-Type")
	if m, _, err := mime.ParseMediaType(media); err == nil {
		media = m
	}
	if media != mediaProto && media != mediaJSON {
		h.r.meters.done(h.sig, overHTTP, start, Result{}, badMedia)
		w.Header().Set("Accept-Post", mediaProto+", "+mediaJSON)
		http.Error(w, "Content-Type "+strconv.Quote(media)+" is not supported: use "+mediaProto+" or "+mediaJSON, http.StatusUnsupportedMediaType)
		return
	}
	json := media == mediaJSON
	body, res, err := h.serve(w, req, json)
	why := accepted
	if err != nil {
		ref := classify(err)
		why = ref.reason
		if why == internal {
			h.r.log.Error("batch not kept", "signal", string(h.sig), "error", err)
		}
		writeRefusal(w, ref, media)
	} else {
		writeBody(w, http.StatusOK, media, body)
	}
	h.r.meters.done(h.sig, overHTTP, start, res, why)
}

// serve takes one request and returns the body of the answer.
func (h *httpHandler) serve(w http.ResponseWriter, req *http.Request, json bool) ([]byte, Result, error) {
	var none Result
	ctx := req.Context()
	origin, err := identifyHTTP(h.identify, req)
	if err != nil {
		return nil, none, err
	}
	if h.sig == logsSignal {
		return nil, none, errLogs
	}
	if err := h.r.gate.enter(); err != nil {
		return nil, none, err
	}
	defer h.r.gate.leave()
	sh := h.r.budget.reserve(origin.Peer)
	defer sh.release()
	body, err := h.r.bodies.read(ctx, w, req, h.r.o.MaxBytes, sh)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			h.r.meters.busy.stalled.Inc()
		}
		return nil, none, err
	}
	defer h.r.bodies.put(body)
	b := newBatch(h.sig)
	defer b.release()
	var res Result
	receive := func() { res, err = h.r.receive(ctx, h.sig, origin, body, json, b, sh) }
	if h.sig == metricsSignal {
		h.r.gather.do(req.RemoteAddr, len(body), receive)
	} else {
		receive()
	}
	if err != nil {
		return nil, none, err
	}
	answer, err := b.response(res, json)
	return answer, res, err
}

var errLogs = refuse(unsupported, "logs are not supported: Binnacle keeps metrics and traces; turn the exporter of logs off")

// identifyHTTP asks who sends req.
func identifyHTTP(identify Identify, req *http.Request) (binnacle.Origin, error) {
	peer, _ := netip.ParseAddrPort(req.RemoteAddr) // zero where it is none
	return runIdentify(identify, req.Context(), Sender{Peer: peer, TLS: req.TLS, Header: req.Header.Get})
}

// writeRefusal answers with a Status in the media type of the request.
//
// Source: OTLP specification, "OTLP/HTTP Response".
func writeRefusal(w http.ResponseWriter, ref *refusal, media string) {
	if ref.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(ref.retry.Seconds()))))
	}
	switch ref.reason {
	case unauthenticated:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case badMedia:
		w.Header().Set("Accept-Encoding", "gzip, zstd, identity")
	}
	body := ref.marshalStatus()
	if media == mediaJSON {
		var err error
		if body, err = protojson.Marshal(ref.status()); err != nil {
			body = []byte("{}")
		}
	}
	writeBody(w, reasons[ref.reason].http, media, body)
}

func writeBody(w http.ResponseWriter, status int, media string, body []byte) {
	w.Header().Set("Content-Type", media)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // a client that has left is no error
}
