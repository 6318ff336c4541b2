# `make demo` shows the product, `make test` checks it; both set up whatever they need.

CACHE := $(or $(LABFUNCTIONS_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/labfunctions)
UV := $(or $(shell command -v uv),$(CACHE)/uv/bin/uv)
RUN := $(UV) run --frozen
# The cluster's own binaries (helm, kubectl, versitygw) come first on PATH.
PYTEST = eval "$$($(RUN) python -m dev.cluster env)" && $(RUN) pytest

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(CACHE)/uv/bin/uv:
	@echo "installing uv into $(CACHE)/uv"
	@python3 -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet uv

.PHONY: setup
setup: $(UV)
	@$(UV) sync --frozen --quiet

.PHONY: demo
demo: setup ## Start a cluster, install the operator, build a project and run its notebooks
	@$(RUN) python -m dev.demo

.PHONY: cluster-up cluster-down cluster-status
cluster-up: setup ## Start the local cluster, or bring it back
	@$(RUN) python -m dev.cluster up

cluster-down: setup ## End the local cluster and all it started
	@$(RUN) python -m dev.cluster down

cluster-status: setup ## Say what of the local cluster runs
	@$(RUN) python -m dev.cluster status

.PHONY: install
install: setup ## Build the images and install the operator into the local cluster
	@$(RUN) python -m dev.install

.PHONY: generate
generate: setup ## Write what is generated from code: the CRDs, docs/metrics.md
	@$(RUN) python -m labfunctions_operator.api.crd crds
	@$(RUN) python -m labfunctions_operator.metrics docs/metrics.md

.PHONY: simulate
simulate: setup ## Compare policies for nodes without a cluster; writes docs/nodegroups.md's table
	@MPLBACKEND=svg $(RUN) python -m dev.simulation

.PHONY: golden
golden: setup ## Write the expected manifests and Dockerfiles anew; review the difference
	@export UPDATE_GOLDEN=1 && $(PYTEST) tests/unit/desired -q

.PHONY: fmt
fmt: setup ## Format the code
	@$(RUN) ruff check --fix --quiet .
	@$(RUN) ruff format --quiet .

.PHONY: lint
lint: setup ## Check format, style, types and layers
	@$(RUN) ruff format --check --quiet .
	@$(RUN) ruff check --quiet .
	@$(RUN) mypy
	@$(RUN) lint-imports --no-logo 2>/dev/null || $(RUN) lint-imports
	@$(RUN) yamllint --strict .

.PHONY: test test-unit test-servers test-component test-e2e
test: lint test-unit test-servers test-component test-e2e ## Everything, in the order of cost

test-unit: setup tools ## Pure tests: seconds
	@$(PYTEST) tests/unit -n 2

test-servers: setup tools ## Chart, builder, runner, git and store, with the real programs and servers
	@$(PYTEST) tests/chart tests/builder tests/runner tests/providers -n 2 --dist loadfile

test-component: setup tools ## The operator against a real control plane with fake nodes
	@$(PYTEST) tests/component --ignore tests/component/operator
	@$(PYTEST) tests/component/operator -n 2 --dist loadfile

test-e2e: setup ## The whole path on the local cluster
	@$(PYTEST) tests/e2e

.PHONY: bench
bench: setup tools ## Measure what no test asserts: ticks of a thousand schedules, beside CronJobs
	@$(PYTEST) tests/perf -s -q

.PHONY: tools
tools: setup # what tests find on disk: OS packages and the cluster's binaries
	@$(RUN) python -m dev.cluster tools
