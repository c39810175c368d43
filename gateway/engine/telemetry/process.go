package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/metrics"
	"strconv"
	"syscall"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/binnacle-project/binnacle"
)

// What is read of the Go runtime. Reading these stops nothing.
const (
	rtGoroutines = "/sched/goroutines:goroutines"
	rtTotal      = "/memory/classes/total:bytes"
	rtReleased   = "/memory/classes/heap/released:bytes"
	rtStacks     = "/memory/classes/heap/stacks:bytes"
	rtAllocated  = "/gc/heap/allocs:bytes"
	rtGoal       = "/gc/heap/goal:bytes"
)

// observeProcess adds the cost of this process to each export: CPU, memory,
// goroutines. The names are those that other OpenTelemetry programs use.
//
// Source: OpenTelemetry semantic conventions, "process" and "Go runtime".
func observeProcess(provider *sdkmetric.MeterProvider) error {
	m := provider.Meter("github.com/binnacle-project/binnacle/gateway/engine/telemetry/process", metric.WithInstrumentationVersion(binnacle.Version))
	var errs [7]error
	cpu, err := m.Float64ObservableCounter("process.cpu.time", metric.WithUnit("s"), metric.WithDescription("CPU seconds of the process, by mode"))
	errs[0] = err
	rss, err := m.Int64ObservableUpDownCounter("process.memory.usage", metric.WithUnit("By"), metric.WithDescription("Resident memory of the process"))
	errs[1] = err
	goroutines, err := m.Int64ObservableUpDownCounter("go.goroutine.count", metric.WithUnit("{goroutine}"), metric.WithDescription("Live goroutines"))
	errs[2] = err
	used, err := m.Int64ObservableUpDownCounter("go.memory.used", metric.WithUnit("By"), metric.WithDescription("Memory that the Go runtime uses, by type"))
	errs[3] = err
	allocated, err := m.Int64ObservableCounter("go.memory.allocated", metric.WithUnit("By"), metric.WithDescription("Bytes allocated on the heap since the start"))
	errs[4] = err
	goal, err := m.Int64ObservableUpDownCounter("go.memory.gc.goal", metric.WithUnit("By"), metric.WithDescription("Heap size at which the next collection ends"))
	errs[5] = err

	user := metric.WithAttributeSet(attribute.NewSet(attribute.String("cpu.mode", "user")))
	system := metric.WithAttributeSet(attribute.NewSet(attribute.String("cpu.mode", "system")))
	stack := metric.WithAttributeSet(attribute.NewSet(attribute.String("go.memory.type", "stack")))
	other := metric.WithAttributeSet(attribute.NewSet(attribute.String("go.memory.type", "other")))
	names := []string{rtGoroutines, rtTotal, rtReleased, rtStacks, rtAllocated, rtGoal}
	samples := make([]metrics.Sample, len(names)) // one export at a time
	for i, n := range names {
		samples[i].Name = n
	}
	_, errs[6] = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err == nil {
			o.ObserveFloat64(cpu, seconds(u.Utime), user)
			o.ObserveFloat64(cpu, seconds(u.Stime), system)
		}
		if n, ok := resident(); ok {
			o.ObserveInt64(rss, n)
		}
		metrics.Read(samples)
		at := func(name string) int64 {
			for _, s := range samples {
				if s.Name == name && s.Value.Kind() == metrics.KindUint64 {
					return int64(s.Value.Uint64())
				}
			}
			return 0
		}
		o.ObserveInt64(goroutines, at(rtGoroutines))
		o.ObserveInt64(used, at(rtStacks), stack)
		o.ObserveInt64(used, at(rtTotal)-at(rtReleased)-at(rtStacks), other)
		o.ObserveInt64(allocated, at(rtAllocated))
		o.ObserveInt64(goal, at(rtGoal))
		return nil
	}, cpu, rss, goroutines, used, allocated, goal)
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("observe the process: %w", err)
		}
	}
	return nil
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// resident reads the resident memory in bytes; false where there is no /proc.
//
// Source: proc_pid_statm(5): the second number, in pages.
func resident() (int64, bool) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0, false
	}
	return pages * int64(os.Getpagesize()), true
}
