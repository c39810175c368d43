// Command bench measures a whole binnacle-manager beside the stores that people
// use today, Prometheus and VictoriaMetrics, as processes on loopback with the
// same payloads in the same run. Everything is interleaved, and what counts is
// the CPU time of the server processes, so that a shared machine gives honest
// ratios.
//
//	bench ingest   CPU seconds per million OTLP data points; also of the floor,
//	               the least that any server on net/http and the TSDB takes
//	bench churn    the same when each series is new
//	bench pace     share of a core and memory at the true export interval
//	bench query    range queries over an hour of what senders sent
//	bench rollups  the dashboards' queries over an hour of 1,000 nodes
//
// It takes the binaries as it finds them: `make bench-ingest` builds ours, and
// the peers from bench/peers, a module of its own, so that theirs are no
// dependencies of the product. It uses public protocols only; benchmarks of
// single packages stand beside their code.
package main
