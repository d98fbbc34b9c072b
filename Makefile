# Vitrine. `make run` starts a demonstration, `make test` runs all tests, `make help` lists all targets.

.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vitrine
TOOLS   := $(CACHE)/bin
LDFLAGS := -X main.version=$(VERSION)

# Versions of tools, which are built into the cache. .ci/tools/go.mod has the versions of the chart's tools.
GOLANGCI_LINT := v2.15.0
GOTESTSUM     := v1.13.0
PROMTOOL      := v0.316.0

# make test: minimum coverage in percent of statements; more flags for go test; packages.
COVER_MIN  ?= 94
TEST_FLAGS ?=
TEST_PKGS  ?= ./...
# make images: tag of the images; make images-push: registry.
TAG      ?= dev
REGISTRY ?=
# make bench: the program, which prints "ratio NAME N" lines at its end.
BENCH_PKGS ?= ./pkg/test/bench
# make bench-flood: flags, such as -flood-images (pkg/test/bench/flood_test.go).
FLOOD_FLAGS ?=
# make chaos: one seed, or the number of seeds from 1 on; more flags (bin/chaos -help).
SEED        ?=
SEEDS       ?=
CHAOS_FLAGS ?=
# make bench-backfill: flags of the benchmark.
BACKFILL_FLAGS ?=
# make fuzz-images: number of damaged images per format; random seed.
FUZZ_IMAGES      ?= 3000
FUZZ_IMAGES_SEED ?= 1
# make e2e: stages, namespace, tag of the images, more values for helm's --set, and more flags of the program.
STAGES        ?= install,autoscaling,healing,outage,reload,upgrade
NAMESPACE     ?= vitrine-e2e
E2E_IMAGE_TAG ?= dev
E2E_SET       ?=
E2E_FLAGS     ?=

.PHONY: run
run: deps-run build ## Build everything and start a demonstration on :8080 with its own Postgres; Ctrl-C stops it
	@exec bin/vitrine dev

.PHONY: test
test: deps-test deps-gotestsum ## Run all tests on real servers with -race, and check the minimum coverage
	@COVER_MIN='$(COVER_MIN)' TEST_FLAGS='$(TEST_FLAGS)' TEST_PKGS='$(TEST_PKGS)' GOTESTSUM='$(TOOLS)/gotestsum' .ci/test.sh

.PHONY: test-short
test-short: deps-run ## Run the tests that need no server
	@$(GO) test -short $(TEST_FLAGS) $(TEST_PKGS)

.PHONY: check
check: deps-run ## Static checks: format, vet, lint, layers, go.mod, generated files, builds without cgo, the chart
	@.ci/step.sh "gofmt" .ci/fmt.sh
	@.ci/step.sh "go mod tidy" $(GO) mod tidy -diff
	@.ci/step.sh "builds without cgo" env CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/api ./cmd/worker ./cmd/vitrine ./cmd/controller
	@.ci/step.sh "go vet" $(GO) vet ./...
	@.ci/step.sh "layers and budgets" $(GO) test ./pkg
	@$(MAKE) lint verify check-chart

.PHONY: lint
lint: deps-lint ## Run golangci-lint
	@.ci/step.sh "golangci-lint" $(TOOLS)/golangci-lint run ./...

.PHONY: check-chart
check-chart: deps-chart ## Check the Helm chart without a cluster
	@.ci/step.sh "helm lint" .ci/chart.sh lint
	@.ci/step.sh "kubeconform" .ci/chart.sh schemas
	@.ci/step.sh "helm-unittest" .ci/chart.sh unit
	@.ci/step.sh "network policies, pod security, refused values" .ci/chart.sh policies
	@.ci/step.sh "alerts" .ci/chart.sh alerts
	@.ci/step.sh "golden renders" .ci/chart.sh golden
	@.ci/step.sh "chart README" .ci/chart.sh docs

.PHONY: chart-golden
chart-golden: deps-chart ## Update the golden renders of the chart
	@.ci/chart.sh golden-update

.PHONY: chart-docs
chart-docs: deps-chart ## Update the chart's README
	@.ci/chart.sh docs-update

.PHONY: chart-schemas
chart-schemas: ## Update the schemas for the checks of the chart; downloads 100 MB
	@.ci/chart-schemas.sh

.PHONY: fmt
fmt: ## Format all Go files
	@gofmt -w $$(git ls-files --cached --others --exclude-standard -- '*.go')

.PHONY: build
build: ## Build the programs into bin/; only the codec needs a C compiler
	@.ci/alive.sh "building" env CGO_ENABLED=0 $(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/api ./cmd/worker ./cmd/vitrine ./cmd/controller
	@test -e bin/codec || echo "building the codec (the first build takes a minute or two: the C bindings of libvips)"
	@.ci/alive.sh "building the codec" env CGO_ENABLED=1 $(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/codec

.PHONY: images
images: ## Build vitrine-api, vitrine-controller and vitrine-worker with docker or buildah (TAG=dev), and check their sizes
	@TAG='$(TAG)' VERSION='$(VERSION)' .ci/images.sh build

.PHONY: images-standin
images-standin: ## Build vitrine-worker-standin, a worker whose codec sleeps (TAG=dev)
	@TAG='$(TAG)' VERSION='$(VERSION)' .ci/images.sh standin

.PHONY: images-e2e
images-e2e: images-standin ## Build the additional images of make e2e: vitrine-worker-standin and vitrine-e2e (TAG=dev)
	@TAG='$(TAG)' VERSION='$(VERSION)' .ci/images.sh e2e

.PHONY: images-push
images-push: ## Push the images of make images (TAG=dev REGISTRY=registry.example/team)
	@TAG='$(TAG)' REGISTRY='$(REGISTRY)' .ci/images.sh push

.PHONY: images-save
images-save: ## Save the images of make images to dist/, for clusters without a registry (TAG=dev)
	@TAG='$(TAG)' OUT=dist .ci/images.sh save

.PHONY: bench
bench: deps-test build ## Run the benchmarks on real servers
	@$(GO) run ./pkg/test/withservers -- $(GO) run $(BENCH_PKGS)

.PHONY: chaos
chaos: deps-test ## Crash programs and servers and check that no data is lost: SEED=7, or SEEDS=200, which can be resumed
	@.ci/alive.sh "building the harness" $(GO) build -o bin/ ./pkg/test/chaos
	@bin/chaos -version '$(VERSION)' $(if $(SEED),-seed '$(SEED)',-seeds '$(or $(SEEDS),4)') $(CHAOS_FLAGS)

.PHONY: fuzz-images
fuzz-images: deps-run ## Decode damaged images with real codecs: FUZZ_IMAGES=3000 per format, FUZZ_IMAGES_SEED=1
	@mkdir -p bin/fuzz-images
	@FUZZ_IMAGES='$(FUZZ_IMAGES)' FUZZ_IMAGES_SEED='$(FUZZ_IMAGES_SEED)' $(GO) test -count=1 -timeout 60m -v \
		-run '^TestMutatedImages$$' -artifacts -outputdir "$$PWD/bin/fuzz-images" ./cmd/codec

.PHONY: bench-outbox
bench-outbox: deps-test ## Measure how fast an outbox of a million messages is drained
	@$(GO) run ./pkg/test/withservers -- $(GO) run ./pkg/test/bench -outbox

.PHONY: bench-flood
bench-flood: deps-test ## Measure ten images of a user beside 100,000 of another: FLOOD_FLAGS='-flood-images=60000'
	@$(GO) run ./pkg/test/withservers -- $(GO) run ./pkg/test/bench -flood -- $(FLOOD_FLAGS)

.PHONY: bench-backfill
bench-backfill: deps-test ## Measure images of clients beside a backfill of 20,000 among a million: BACKFILL_FLAGS='-backfill-images=100000'
	@$(GO) run ./pkg/test/withservers -- $(GO) run ./pkg/test/bench -backfill -- $(BACKFILL_FLAGS)

.PHONY: bench-images
bench-images: deps-bench-images ## Compare the speed and memory of image processing with a C loop and sharp
	@$(GO) run ./pkg/test/withservers -- $(GO) run ./pkg/test/bench -images

.PHONY: e2e
e2e: deps-promtool ## Test the chart on the cluster of kubectl's current context (docs/e2e.md)
	@$(GO) run ./pkg/test/e2e -promtool '$(TOOLS)/promtool' -stages '$(STAGES)' -namespace '$(NAMESPACE)' -set '$(E2E_SET)' \
		-tag '$(E2E_IMAGE_TAG)' -helper 'vitrine-e2e:$(E2E_IMAGE_TAG)' -standin 'vitrine-worker-standin:$(E2E_IMAGE_TAG)' $(E2E_FLAGS)

.PHONY: cover
cover: ## Write the coverage of the last make test to bin/coverage.html
	@$(GO) tool cover -html=coverage/all.out -o bin/coverage.html && echo bin/coverage.html

.PHONY: references
references: ## Update the reference data from other implementations; needs cargo and npm
	@.ci/references.sh

.PHONY: generate
generate: ## Update the generated files
	@.ci/generate.sh

.PHONY: verify
verify: ## Fail if a generated file is out of date
	@.ci/step.sh "generated files" .ci/verify.sh

.PHONY: deps-run
deps-run: ## Install the dependencies of make run (Debian, Ubuntu)
	@.ci/install.sh run

.PHONY: deps-test
deps-test: ## Install the dependencies of make test: the programs of the servers
	@.ci/install.sh test

.PHONY: deps-bench-images
deps-bench-images: ## Install the dependencies of make bench-images: photographs, Node.js and sharp
	@.ci/install.sh bench-images

.PHONY: deps-tools
deps-tools: deps-lint deps-gotestsum deps-chart ## Build the tools into the cache

.PHONY: deps-lint
deps-lint:
	@.ci/tool.sh golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint github.com/golangci/golangci-lint/v2 $(GOLANGCI_LINT)

.PHONY: deps-gotestsum
deps-gotestsum:
	@.ci/tool.sh gotestsum gotest.tools/gotestsum gotest.tools/gotestsum $(GOTESTSUM)

.PHONY: deps-chart
deps-chart: deps-promtool
	@.ci/chart-tools.sh

# Without service discovery, which is most of the program and not needed to check rules.
.PHONY: deps-promtool
deps-promtool:
	@TOOL_FLAGS=-tags=remove_all_sd .ci/tool.sh promtool github.com/prometheus/prometheus/cmd/promtool \
		github.com/prometheus/prometheus $(PROMTOOL)

.PHONY: clean
clean: ## Remove built files (keeps the demonstration's data in .vitrine/)
	@rm -rf bin coverage

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
