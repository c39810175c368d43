package otlp

import (
	"context"
	"net"
	"net/netip"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // registers the decompressor
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/binnacle-project/binnacle"
)

// An interceptor of gRPC runs after decoding, and the handler of a unary method
// after its message was read and inflated, so guards that stand there protect
// nothing. Ours stand in the tap handle, which sees the headers before the stream
// exists; before the reading of the message, for which the methods are registered
// as streams (on the wire there is no difference); and in the codec, which is
// given the bytes: generated services are not used, the request type is our own.

// GRPCServer returns a server of the OTLP services for senders that identify
// knows. extra adds options such as credentials; the caller serves and stops
// it.
func (r *Receiver) GRPCServer(identify Identify, extra ...grpc.ServerOption) *grpc.Server {
	opts := append([]grpc.ServerOption{
		grpc.InTapHandle(r.tap(identify)),
		grpc.StatsHandler(watch{r}),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2(proto.Name)}),
		grpc.MaxRecvMsgSize(int(r.o.MaxBytes)), // on the wire and inflated
		grpc.MaxConcurrentStreams(100),
		// What of a message may come before it has its place in reading. Where
		// it has one, gRPC opens the window for all of the message.
		grpc.StaticStreamWindowSize(64 << 10),
		grpc.StaticConnWindowSize(1 << 20),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 15 * time.Minute, Time: 2 * time.Minute, Timeout: 20 * time.Second}),
	}, extra...)
	s := grpc.NewServer(opts...)
	s.RegisterService(r.serviceDesc("metrics.v1.MetricsService", metricsSignal), nil)
	s.RegisterService(r.serviceDesc("trace.v1.TraceService", tracesSignal), nil)
	s.RegisterService(r.serviceDesc("logs.v1.LogsService", logsSignal), nil)
	return s
}

// originKey is the context key of what the tap handle found out, an admitted.
type originKey struct{}

type admitted struct {
	origin binnacle.Origin
	done   context.CancelFunc // ends the time that the message may take
}

// tap identifies the sender and turns it away before the stream exists.
func (r *Receiver) tap(identify Identify) tap.ServerInHandle {
	return func(ctx context.Context, info *tap.Info) (context.Context, error) {
		header := func(name string) string {
			if v := info.Header.Get(name); len(v) > 0 {
				return v[0]
			}
			return ""
		}
		s := Sender{Header: header}
		if p, ok := peer.FromContext(ctx); ok {
			s.Peer = addrPort(p.Addr)
			if t, ok := p.AuthInfo.(credentials.TLSInfo); ok {
				s.TLS = &t.State
			}
		}
		o, err := runIdentify(identify, ctx, s)
		if err == nil {
			err = r.gate.check()
		}
		if err != nil {
			ref := classify(err)
			if sig, ok := signalOf(info.FullMethodName); ok {
				r.meters.done(sig, overGRPC, time.Now(), Result{}, ref.reason)
			}
			return ctx, ref.grpc()
		}
		ctx, cancel := context.WithTimeout(ctx, r.bodies.total)
		return context.WithValue(ctx, originKey{}, admitted{o, cancel}), nil
	}
}

const servicePrefix = "opentelemetry.proto.collector."

func signalOf(method string) (signal, bool) {
	switch method {
	case "/" + servicePrefix + "metrics.v1.MetricsService/Export":
		return metricsSignal, true
	case "/" + servicePrefix + "trace.v1.TraceService/Export":
		return tracesSignal, true
	case "/" + servicePrefix + "logs.v1.LogsService/Export":
		return logsSignal, true
	}
	return "", false
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort()
	}
	if a == nil {
		return netip.AddrPort{}
	}
	ap, _ := netip.ParseAddrPort(a.String()) // zero where it is none
	return ap
}

// serviceDesc describes a service with the one method Export.
func (r *Receiver) serviceDesc(name string, sig signal) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: servicePrefix + name,
		Streams: []grpc.StreamDesc{{StreamName: "Export", Handler: func(_ any, stream grpc.ServerStream) error {
			return r.export(stream, sig)
		}}},
	}
}

// watch counts the calls of gRPC from their first byte to their last: gRPC
// reads and inflates a message before it calls a handler, and answers one that
// is too large without calling any.
type watch struct{ r *Receiver }

// call is one call of gRPC, in its context.
type call struct {
	sig     signal
	start   time.Time
	handled bool // export counts it
}

type callKey struct{}

// TagRPC implements stats.Handler.
func (w watch) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	sig, ok := signalOf(info.FullMethodName)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, callKey{}, &call{sig: sig, start: time.Now()})
}

// HandleRPC implements stats.Handler.
func (w watch) HandleRPC(ctx context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.Begin:
		w.r.gate.inFlight.Add(1)
	case *stats.End:
		w.r.gate.leave()
		if c, ok := ctx.Value(callKey{}).(*call); ok && !c.handled && s.Error != nil {
			w.r.meters.done(c.sig, overGRPC, c.start, Result{}, classify(classifyReceive(s.Error)).reason)
		}
	}
}

// TagConn implements stats.Handler.
func (watch) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (watch) HandleConn(context.Context, stats.ConnStats) {}

// export takes one request and answers it.
func (r *Receiver) export(stream grpc.ServerStream, sig signal) error {
	start := time.Now()
	if c, ok := stream.Context().Value(callKey{}).(*call); ok {
		c.handled = true
	}
	resp, res, err := r.serveGRPC(stream, sig)
	why := accepted
	if err == nil {
		if err = stream.SendMsg(resp); err != nil {
			err = classifyReceive(err) // the sender has left
		}
	}
	if err != nil {
		ref := classify(err)
		why = ref.reason
		if why == internal {
			r.log.Error("batch not kept", "signal", string(sig), "error", err)
		}
		err = ref.grpc()
	}
	r.meters.done(sig, overGRPC, start, res, why)
	return err
}

func (r *Receiver) serveGRPC(stream grpc.ServerStream, sig signal) (*grpcResponse, Result, error) {
	var none Result
	if sig == logsSignal {
		return nil, none, errLogs
	}
	ctx := stream.Context()
	from, ok := ctx.Value(originKey{}).(admitted)
	if !ok {
		return nil, none, refuse(unauthenticated, "the sender was not identified")
	}
	defer from.done()
	if err := r.enterReading(ctx); err != nil {
		return nil, none, err
	}
	defer func() { <-r.reading }()
	sh := r.budget.reserve(from.origin.Peer)
	defer sh.release()
	b := newBatch(sig)
	defer b.release()
	req := &grpcRequest{ctx: ctx, r: r, sig: sig, origin: from.origin, b: b, sh: sh}
	// RecvMsg gives the bytes of the message to the codec, which gives them to
	// grpcRequest.take.
	if err := stream.RecvMsg(req); err != nil {
		return nil, none, classifyReceive(err)
	}
	if req.err != nil {
		return nil, none, req.err
	}
	body, err := req.b.response(req.res, false)
	return &grpcResponse{body}, req.res, err
}

// enterReading waits for a place among the messages that are read, as long as
// a request waits for its share of the budget. The caller leaves it.
func (r *Receiver) enterReading(ctx context.Context) error {
	select {
	case r.reading <- struct{}{}:
		return nil
	default:
	}
	start := time.Now()
	defer r.meters.waits.UpdateDuration(start)
	wait := time.NewTimer(r.o.DecodeWait)
	defer wait.Stop()
	select {
	case r.reading <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		r.meters.busy.reading.Inc()
		return refuseBusy("%d messages are being read already: try again", cap(r.reading))
	}
}

// classifyReceive classes an error of gRPC's own reading of a message. The
// sender has gRPC's words for it.
func classifyReceive(err error) error {
	switch st := grpcstatus.Convert(err); st.Code() {
	case codes.ResourceExhausted:
		return refuse(tooLarge, "%s: send smaller batches", st.Message())
	case codes.Canceled, codes.DeadlineExceeded:
		return &refusal{reason: gone, err: err}
	default:
		return refuse(badRequest, "%s", st.Message())
	}
}

// grpcRequest is what the codec decodes into.
type grpcRequest struct {
	ctx    context.Context // of this one call; the codec's signature has none
	r      *Receiver
	sig    signal
	origin binnacle.Origin
	b      batch
	sh     *share

	res Result
	err error // kept here, since gRPC would flatten it to INTERNAL
}

// take receives the message. The bytes are only valid during the call.
func (q *grpcRequest) take(data mem.BufferSlice) {
	if q.err = q.sh.grow(q.ctx, int64(data.Len())); q.err != nil {
		return
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	q.res, q.err = q.r.receive(q.ctx, q.sig, q.origin, buf.ReadOnlyData(), false, q.b, q.sh)
}

// grpcResponse is an encoded answer.
type grpcResponse struct{ body []byte }

// codec carries our own request and response types, and any other service's
// messages by protobuf's own codec.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if resp, ok := v.(*grpcResponse); ok {
		return mem.BufferSlice{mem.SliceBuffer(resp.body)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if req, ok := v.(*grpcRequest); ok {
		req.take(data)
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}
