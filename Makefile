# The verbs of this repository. CI calls the same ones.
# PYTHON makes the virtual environment and must be 3.11 or 3.12; once made, it is kept.
PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)
DEVSTACK = PYTHONPATH=services .venv/bin/python -m devstack
CLUSTER = PYTHONPATH=services .venv/bin/python -m control_plane
# Where a machine turns bytecode off for all, each of the many processes here compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: env
env: ## make the virtual environment from the locks (done by the other verbs)
	@PYTHONPATH=services $(PYTHON) -m devstack.bootstrap

.PHONY: up
up: env ## run the whole platform here; Ctrl-C ends it
	@exec env $(DEVSTACK) up

.PHONY: start
start: env ## the same, detached: returns when everything is ready
	@$(DEVSTACK) start

.PHONY: stop
stop: env ## end the detached platform and wait for its end
	@$(DEVSTACK) stop

.PHONY: status
status: env ## show every component
	@$(DEVSTACK) status

.PHONY: logs
logs: env ## show the last log lines; ARGS="-f worker" follows one component
	@$(DEVSTACK) logs $(ARGS)

.PHONY: demo
demo: env ## place orders and follow them to their end; ARGS="--count 200 --rate 50"
	@$(DEVSTACK) demo $(ARGS)

.PHONY: loadtest
loadtest: env ## decide by load: SCENARIO=spike runs one on a stack of its own, none lists them; HOST= ARGS=
	@.venv/bin/python -m loadtest $(SCENARIO) $(if $(HOST),--host $(HOST)) $(ARGS)

.PHONY: environment
environment: ## print the running platform's variables for a shell: eval "$(make environment)"
	@$(DEVSTACK) environment

.PHONY: observe
observe: env ## add Prometheus and Alertmanager to the running platform and say where they are
	@$(DEVSTACK) observe

.PHONY: alerts-drill
alerts-drill: env ## break a stack of its own, fault after fault, and show which alerts fired; ARGS="redis api" for some, ARGS=--help
	@PYTHONPATH=.:services:operator:observability .venv/bin/python -m loadtest.drill $(ARGS)

.PHONY: collector
collector: env ## try the collector's configuration in a real one; builds it once (minutes)
	.venv/bin/pytest -m collector tests/observability $(ARGS)

.PHONY: overhead
overhead: env ## measure what telemetry costs a request
	@PYTHONPATH=.:services .venv/bin/python -m loadtest.drill.overhead

OBSERVABILITY = PYTHONPATH=observability .venv/bin/python -m
.PHONY: rules
rules: env ## write the Prometheus rules anew; RUNBOOKS= and GRAFANA= are the URLs that alerts link to
	@$(OBSERVABILITY) orderservice_observability observability \
	    $(if $(RUNBOOKS),--runbook-base-url $(RUNBOOKS)) $(if $(GRAFANA),--dashboard-base-url $(GRAFANA))

.PHONY: dashboards
dashboards: env ## write the dashboards anew
	@$(OBSERVABILITY) orderservice_dashboards observability/orderservice_observability/dashboards

.PHONY: dashboards-preview
dashboards-preview: env ## draw the dashboards from the running stack's Prometheus; URL=http://...
	@$(OBSERVABILITY) orderservice_dashboards.preview $(or $(URL),http://127.0.0.1:29090) docs/observability 10

.PHONY: clean-state
clean-state: env ## remove the databases, logs and secrets of the local platform
	@$(DEVSTACK) clean-state

.PHONY: cluster-binaries
cluster-binaries: env ## build Kubernetes for the tests, once (10 minutes); ARGS="node tools" for more
	@$(CLUSTER) build $(or $(ARGS),control)

.PHONY: cluster-up
cluster-up: env ## start a Kubernetes control plane, detached; prints its kubeconfig
	@$(CLUSTER) up

.PHONY: cluster-down
cluster-down: env ## end it and leave nothing
	@$(CLUSTER) down

.PHONY: bench-operator
bench-operator: env ## measure the operator on a real control plane (10 minutes, a quiet machine)
	.venv/bin/pytest -m figures tests/operator/cluster $(ARGS)

.PHONY: check
check: env ## lint, format, types, import contracts
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy charts services operator/orderservice_operator loadtest observability tests
	PYTHONPATH=.:services:operator:observability .venv/bin/lint-imports

.PHONY: test
test: env ## everything: check, then unit, contract, integration and end-to-end tests on real servers
	@# Beside the check, on its idle core: else five processes compile the same 2,000 files at once.
	@.venv/bin/pytest --collect-only --quiet >/dev/null 2>&1 & \
		$(MAKE) --no-print-directory check; checked=$$?; wait; exit $$checked
	.venv/bin/pytest --numprocesses 5 --dist loadfile --no-loadscope-reorder $(ARGS) || \
		{ [ $$? -eq 1 ] && $(MAKE) --no-print-directory test-again; }

.PHONY: test-again
test-again: env ## run alone what failed in the last `make test`; what passes now is unstable, and to be mended
	@echo "== Once more, alone. What passes now is UNSTABLE: mend it (CONTRIBUTING.md)."
	.venv/bin/pytest --verbose --exitfirst --last-failed --last-failed-no-failures none

.PHONY: fuzz
fuzz: env ## try the HTTP parser with generated requests under AddressSanitizer; MINUTES=60
	@PYTHONPATH=tests:services .venv/bin/python -m fuzz --minutes $(or $(MINUTES),60) $(ARGS)

.PHONY: attack
attack: env ## attack a stack with hostile requests, figures included; MINUTES=5 or INPUTS= SEED= ARGS=
	@exec env PYTHONPATH=tests:services .venv/bin/python -m attack $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(INPUTS),--inputs $(INPUTS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

SPECTRAL = tests/contract/spectral
.PHONY: openapi-lint
openapi-lint: env ## lint the OpenAPI document with spectral (needs npm; a minute)
	@npm ci --prefix $(SPECTRAL) --ignore-scripts --no-audit --no-fund --loglevel=error
	@PYTHONPATH=tests:services .venv/bin/python -m contract.documents $(SPECTRAL)/node_modules/.openapi
	$(SPECTRAL)/node_modules/.bin/spectral lint --ruleset $(SPECTRAL)/ruleset.yaml \
		--fail-severity hint $(SPECTRAL)/node_modules/.openapi/*.json

.PHONY: failover
failover: env ## promotions, freezes and long outages under load, checked (45 minutes); ARGS="-k promotions"
	.venv/bin/pytest -m failover --verbose --durations=0 --durations-min=5 tests/failover \
		tests/integration/test_redis_engines.py tests/integration/test_rabbitmq_cluster.py \
		tests/integration/test_racing_cancels.py tests/integration/test_migration_in_use.py \
		tests/integration/test_name_server.py $(ARGS)

.PHONY: torture
torture: env ## break a stack at random and check what clients saw; MINUTES=5 SEED= PLAN= ARGS=--help
	@exec env PYTHONPATH=tests:services .venv/bin/python -m torture --minutes $(or $(MINUTES),5) \
		$(if $(SEED),--seed $(SEED)) $(if $(PLAN),--plan $(PLAN)) \
		$(if $(SHRINK),--shrink $(SHRINK)) $(ARGS)

.PHONY: torture-proof
torture-proof: env ## plant each mutant and let torture find it (an hour); MUTANT="some names" ARGS=--resume
	@exec env PYTHONPATH=tests:services .venv/bin/python -m torture.proof $(MUTANT) $(ARGS)

.PHONY: torture-plans
torture-plans: env ## run every plan again that ever failed
	.venv/bin/pytest -m torture --verbose tests/torture $(ARGS)

.PHONY: model
model: env ## check the model of an order's life with TLC (minutes); ARGS="--only 'lost commits' --trace"
	@PYTHONPATH=services:tests .venv/bin/python -m model $(ARGS)

.PHONY: bench
bench: env ## measure the order path beside what bounds it, 16 minutes; ARGS="--quick --only post"
	@PYTHONPATH=.:services .venv/bin/python -m loadtest.bench $(ARGS)

.PHONY: charts
charts: env ## write the charts' schemas and READMEs from their sources
	@PYTHONPATH=charts .venv/bin/python -m upkeep

.PHONY: release
release: env ## show what VERSION=0.2.0 changes, charts, images and package together; ARGS=--write does it
	@PYTHONPATH=charts .venv/bin/python -m upkeep.release $(VERSION) $(ARGS)

.PHONY: skaffold-check
skaffold-check: env ## build the real skaffold (once, 15 minutes) and hold skaffold.yaml to it
	@$(CLUSTER) build charts skaffold
	.venv/bin/pytest tests/charts/test_skaffold.py $(ARGS)

.PHONY: images
images: env ## build the images without a registry and try every process (10 minutes; root, Debian 12)
	.venv/bin/pytest tests/images $(ARGS)

.PHONY: e2e
e2e: env ## both charts on real pods: install, load, faults, drain, uninstall (root; Debian 12, or Docker)
	@$(CLUSTER) build control node tools charts
	.venv/bin/pytest --exitfirst --verbose --capture=no tests/e2e $(ARGS)

.PHONY: lock
lock: env ## choose the newest allowed versions and write the locks anew
	@PYTHONPATH=services .venv/bin/python -m devstack.lock

SUPPLY_CHAIN = PYTHONPATH=services .venv/bin/python -m devstack.supply_chain
.PHONY: sbom
sbom: env ## write what each image is made of (CycloneDX) into .sbom/ and list the licences
	@$(SUPPLY_CHAIN) bill

.PHONY: audit
audit: env ## hold the locks against a folder of advisories (OSV files); ADVISORIES=folder
	@$(SUPPLY_CHAIN) audit $(ADVISORIES)
