package main

import (
	"os"
	"path/filepath"
)

// contender is one way to run a store.
type contender struct {
	name   string
	binary string
	ours   bool
	// histograms is what it is sent.
	histograms histogramForm
	// instance is the label of service.instance.id, if it is not instance.
	instance string
	// setup prepares s.dir, sets the addresses of s and returns the arguments.
	setup func(s *server) ([]string, error)
}

// self is the name of this program as a contender's binary.
const self = "bench"

var (
	binnacleNative  = manager("binnacle", "native")
	binnacleClassic = manager("binnacle classic", "classic")
	promClassic     = prometheus("prometheus", false)
	promNative      = prometheus("prometheus nhcb", true)
	victoria        = victoriaMetrics("victoriametrics")

	binnacleExpo = ofExponential(manager("binnacle, exponential", "native"))
	promExpo     = ofExponential(prometheus("prometheus, exponential", false))
	victoriaExpo = ofExponential(victoriaMetrics("victoriametrics, exponential"))
)

// ofExponential is c with another payload.
func ofExponential(c contender) contender {
	c.histograms = exponentialHistograms
	return c
}

func manager(name, form string) contender {
	return contender{name: name, binary: "binnacle-manager", ours: true, setup: func(s *server) ([]string, error) {
		args := []string{"run", "--data-dir", filepath.Join(s.dir, "data"), "--gossip-addr", "off", "--otlp-grpc-addr", "",
			"--metrics-histograms", form, "--metrics-max-series", "8000000"}
		var addrs [3]string
		for i, flag := range []string{"--http-addr", "--node-addr", "--otlp-http-addr"} {
			var err error
			if addrs[i], err = freeAddr(); err != nil {
				return nil, err
			}
			args = append(args, flag, addrs[i])
		}
		s.ready = "http://" + addrs[0] + "/readyz"
		s.api = "http://" + addrs[0] + "/prometheus"
		s.write = "http://" + addrs[2] + "/v1/metrics"
		return args, nil
	}}
}

// prometheus runs Prometheus as its guide to OpenTelemetry advises: the OTLP
// receiver, a window for late samples, and the labels that ours has.
func prometheus(name string, nhcb bool) contender {
	return contender{name: name, binary: "prometheus", setup: func(s *server) ([]string, error) {
		config := "global:\n  scrape_interval: 15s\nstorage:\n  tsdb:\n    out_of_order_time_window: 30m\notlp:\n  translation_strategy: UnderscoreEscapingWithSuffixes\n"
		if nhcb {
			config += "  convert_histograms_to_nhcb: true\n"
		}
		file := filepath.Join(s.dir, "prometheus.yml")
		if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
			return nil, err
		}
		addr, err := freeAddr()
		s.ready, s.api, s.write = "http://"+addr+"/-/ready", "http://"+addr, "http://"+addr+"/api/v1/otlp/v1/metrics"
		return []string{"--config.file", file, "--storage.tsdb.path", filepath.Join(s.dir, "data"),
			"--web.listen-address", addr, "--web.enable-otlp-receiver", "--web.max-connections", "16384"}, err
	}}
}

func victoriaMetrics(name string) contender {
	return contender{name: name, binary: "victoria-metrics", instance: "service_instance_id", setup: func(s *server) ([]string, error) {
		addr, err := freeAddr()
		s.ready, s.api, s.write = "http://"+addr+"/health", "http://"+addr+"/prometheus", "http://"+addr+"/opentelemetry/v1/metrics"
		return []string{"-storageDataPath", filepath.Join(s.dir, "data"), "-httpListenAddr", addr,
			"-opentelemetry.usePrometheusNaming", "-search.latencyOffset", "0s", "-search.disableCache"}, err
	}}
}
