# Binnacle's few verbs. `make help` lists them.

GO          ?= go
NPM         ?= npm
BIN         := bin
BINARIES    := binnacle-manager binnacle-gateway binnacle
# Pure Go throughout: one static binary each, the same on every Linux.
export CGO_ENABLED := 0
# Seconds a package's tests may take, the whole-binary runs included.
TEST_TIMEOUT ?= 20m
DEMO_ARGS    ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the verbs.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: web binaries ## Build the page and the three binaries into bin/.

.PHONY: web
web: web/dist/index.html

web/node_modules: web/package.json web/package-lock.json
	cd web && $(NPM) ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: web/node_modules $(shell find web/src web/public -type f 2>/dev/null) \
		web/index.html web/login.html web/vite.config.ts web/tsconfig.json web/dev/size.mjs
	cd web && $(NPM) run --silent build

.PHONY: binaries
binaries:
	@mkdir -p $(BIN)
	$(GO) build -o $(BIN)/ $(addprefix ./cmd/,$(BINARIES))

.PHONY: run
run: build ## Build everything and start a demo cluster.
	$(BIN)/binnacle demo --dir demo-data $(DEMO_ARGS)

.PHONY: test
test: build ## Run all tests: the page's, then Go's, then whole processes.
	@scripts/test

.PHONY: race
race: ## Run the Go tests of our packages under the race detector.
	CGO_ENABLED=1 $(GO) test -race -short -timeout $(TEST_TIMEOUT) $$($(GO) list ./... | grep -v /e2e)

.PHONY: load-list
load-list: ## The list of 5,000 nodes while they poll, report and send telemetry.
	@scripts/load ./manager TestListUnderLoad

.PHONY: sim
sim: ## Membership simulated at 300 members too: some 20 minutes. SEED=n repeats one.
	BINNACLE_HEAVY=1 $(GO) test -count=1 -timeout 90m -run TestSim -v ./membership -sim.seed $${SEED:-0}

.PHONY: test-net
test-net: binaries ## Membership with real processes in network namespaces; needs root, ip and iptables.
	BINNACLE_NET=1 $(GO) test -count=1 -timeout 30m -run '^TestNet' -v ./e2e

.PHONY: lint
lint: ## gofmt, go vet, staticcheck and the page's type check.
	@scripts/lint

.PHONY: cross
cross: ## Compile for the systems that no test runs on: all for macOS, the command line for Windows.
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/binnacle-manager
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/binnacle-gateway
	GOOS=darwin GOARCH=arm64 $(GO) build -o /dev/null ./cmd/binnacle
	GOOS=windows GOARCH=amd64 $(GO) build -o /dev/null ./cmd/binnacle

.PHONY: bench
bench: ## Run the Go benchmarks.
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: load-swap
load-swap: ## 100 revisions and 500 more swaps on a node under 200 strict clients.
	@scripts/load ./gateway/agent TestLoadSwap

.PHONY: load-restart
load-restart: ## 10 restart orders to a node under 200 strict clients.
	@scripts/load ./gateway/agent TestLoadRestart

.PHONY: bench-node
bench-node: ## CPU per request of a whole gateway process by telemetry, beside a plain reverse proxy and krakend-otel.
	@mkdir -p $(BIN)
	cd bench/krakendotel && $(GO) build -o ../../$(BIN)/krakendotel .
	@BINNACLE_KRAKENDOTEL=$(CURDIR)/$(BIN)/krakendotel scripts/load ./gateway/worker TestNodeCPU

.PHONY: bench-traces
bench-traces: ## Ten million spans into a real manager: CPU, bytes on disk, query times.
	@scripts/load ./e2e TestLoadTraces

.PHONY: test-power
test-power: ## Cut the power of a manager's disk while telemetry comes in; needs root, mkfs.ext4 and loop mounts.
	@scripts/load ./e2e TestPowerLoss

.PHONY: reference
reference: ## Rewrite what is generated from the code: docs/reference and the dashboards.
	$(GO) test . ./cmd/binnacle ./cmd/binnacle-manager ./cmd/binnacle-gateway ./manager ./grafana ./gateway/engine -count=1 -run 'Reference|TestGolden|TestSchema' -update

.PHONY: man
man: ## Write man pages of the three commands into bin/man/.
	@rm -rf $(BIN)/man
	$(GO) test ./cmd/binnacle ./cmd/binnacle-manager ./cmd/binnacle-gateway -count=1 -run TestReference -man $(CURDIR)/$(BIN)/man

# The peers of bench-ingest and bench-query: a module of its own, so that their
# dependencies are not ours. VictoriaMetrics as it is released: with cgo.
.PHONY: bench-peers
bench-peers:
	@mkdir -p $(BIN)
	cd bench/peers && $(GO) build -tags remove_all_sd -o ../../$(BIN)/prometheus github.com/prometheus/prometheus/cmd/prometheus
	cd bench/peers && CGO_ENABLED=1 $(GO) build -o ../../$(BIN)/victoria-metrics github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics

BENCH_ARGS ?=

.PHONY: bench-ingest
bench-ingest: binaries bench-peers ## CPU per OTLP data point beside Prometheus and VictoriaMetrics: known series, explicit and exponential, then new ones.
	$(GO) run ./bench ingest $(BENCH_ARGS)
	$(GO) run ./bench ingest -exponential -reps 3 $(BENCH_ARGS)
	$(GO) run ./bench churn -reps 3 $(BENCH_ARGS)

.PHONY: bench-pace
bench-pace: binaries bench-peers ## Share of a core and memory of 1,000 nodes at 15 s.
	$(GO) run ./bench pace -nodes 1000 -only '^binnacle$$' $(BENCH_ARGS)

.PHONY: bench-query
bench-query: binaries bench-peers ## Range queries over an hour beside Prometheus and VictoriaMetrics.
	$(GO) run ./bench query -nodes 20 $(BENCH_ARGS)
	$(GO) run ./bench rollups

.PHONY: screenshots
screenshots: build ## Take the pictures in docs/images/ from a demo cluster (about eight minutes).
	@scripts/screenshots

.PHONY: bench-gc
bench-gc: ## CPU per request and memory of a whole gateway process by GOGC.
	@scripts/load ./gateway/worker TestNodeGC

.PHONY: bench-gates
bench-gates: ## Play 260,000 gates with fresh seeds: false failures, and what is caught (half an hour and more).
	@scripts/load ./rollout/gate '(TestExactPower|TestKnownPower|TestFalseFailures|TestPower)'
	@scripts/load ./rollout/gate TestScenarios

.PHONY: bench-rollback
bench-rollback: ## Time from the first bad point to the order to roll back, at 500 requests/s a side.
	@scripts/load ./e2e TestRollbackIsOrdered

.PHONY: bench-polls
bench-polls: ## 1,000 and 10,000 nodes that wait for a revision, over mutual TLS.
	@scripts/load ./e2e TestPolls

.PHONY: fuzz
fuzz: ## Fuzz every decoder of outside bytes, FUZZTIME each (default 20s).
	@scripts/fuzz $${FUZZTIME:-20s}

.PHONY: tidy
tidy: ## Check that go.mod and go.sum are tidy.
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: check
check: lint tidy test ## What CI runs, and lint and tidy before it.

.PHONY: clean
clean: ## Remove what was built.
	rm -rf $(BIN) web/node_modules web/dist/assets web/dist/*.html
