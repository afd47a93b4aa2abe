# The front door: `make` lists the targets. Every target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# steps follow one another, under make -j too
.NOTPARALLEL:

# ---- what a caller may set
TASK     ?=
EVENTS   ?=
READER   ?= $(if $(EVENTS),,demo_shop)
PRESET   ?= small
ARGS     ?=
TRIALS   ?= 30
FOLDS    ?= 3
SIZE     ?= 1000000
DAYS     ?= 90
SEED     ?= 0
PORT     ?= 3000
INTAKE_PORT ?= 8080
SOURCE   ?=
DOCKER   ?= docker
PYTHON   ?= $(firstword $(foreach v,python3 python3.13 python3.12 python3.11,$(if $(shell command -v $(v) && $(v) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null && echo ok),$(v))))

# every shop has its own log, registry and online state under CLICKTRAIL_HOME
SHOP     ?= $(if $(EVENTS),$(basename $(notdir $(READER))),demo)
export CLICKTRAIL_HOME  ?= $(CURDIR)/var
export CLICKTRAIL_SHOP  := $(SHOP)
# the log's own end is "now" for replayed data; a live shop sets wall
export CLICKTRAIL_CLOCK ?= log
export FEAST_USAGE := False
export GX_ANALYTICS_ENABLED := false
export BENTOML_DO_NOT_TRACK := true
export ORT_DISABLE_TELEMETRY := 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)

DEMO     := $(CLICKTRAIL_HOME)/demo
RAW      := $(if $(EVENTS),$(EVENTS),$(DEMO)/raw)
TASKS    := $(if $(TASK),$(TASK),recommendation retention fraud)
TRUTH    := $(if $(EVENTS),,--truth $(DEMO)/truth)
FEAST    := feast -c feature_repo -f $(CLICKTRAIL_HOME)/shops/$(SHOP)/feature_store.yaml
TORCH    := $(shell grep -o 'torch==[0-9.]*' pyproject.toml | head -1)
# set-up is done again only when the locks change: the stamp carries their digest
STAMP    := .venv/.installed-$(shell (cat requirements.lock requirements-uv.lock; echo $(TORCH)) | cksum | tr ' ' -)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  variables: TASK= EVENTS= READER= SHOP= PRESET= SIZE= DAYS= SEED= PORT= INTAKE_PORT= SOURCE= ARGS="

# ---- set-up

$(STAMP):
	@test -n "$(PYTHON)" || { echo "Clicktrail needs Python 3.11, 3.12 or 3.13 on the PATH (or PYTHON=path)"; exit 1; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
	.venv/bin/uv pip install -q --python .venv/bin/python --require-hashes --no-deps -r requirements.lock
	@# torch is pinned by version, its build (CPU, CUDA) is the machine's: pip finds it where the machine says
	.venv/bin/python -m pip install -q --disable-pip-version-check $(TORCH)
	.venv/bin/uv pip install -q --python .venv/bin/python --no-deps --no-build-isolation -e .
	@rm -f .venv/.installed-* && touch $@

.PHONY: setup lock
setup: $(STAMP) ## .venv with the locked dependencies
	@mkdir -p $(CLICKTRAIL_HOME)/shops/$(SHOP) # so that `feast` finds a place for its registry, also outside make

# what a CUDA build of torch brings along is its own: no lock can hold it for every machine
UNLOCKED := torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc \
  cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
lock: setup ## resolve the dependencies of pyproject.toml anew
	.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  $(addprefix --no-emit-package ,$(UNLOCKED)) --extra platform --extra dev pyproject.toml -o requirements.lock
	.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  -c requirements.lock --extra live pyproject.toml -o deploy/live.lock

# ---- the main job

# a bundle knows its shop, home and clock: only what the caller set says otherwise
AS_BUILT  = env $(foreach v,CLICKTRAIL_HOME CLICKTRAIL_CLOCK,$(if $(filter file,$(origin $(v))),-u $(v))) \
  $(if $(filter file,$(origin SHOP)),-u CLICKTRAIL_SHOP)

.PHONY: train tune demo ingest validate features materialize update evaluate bundle serve verify summary
train: setup ## the main job: events in, three verified bundles out (EVENTS=path READER=name TASK=fraud PRESET= ARGS=)
	@began=$$SECONDS; \
	$(MAKE) ingest features && \
	for task in $(TASKS); do python -m training --task $$task --preset $(PRESET) $(TRUTH) $(ARGS) || exit 1; done && \
	$(MAKE) materialize bundle summary && \
	echo "make train took $$((SECONDS - began)) s"

tune: setup ## search for a better configuration (TASK= TRIALS= FOLDS=, PRESET= to start from, ARGS="--seconds 3600")
	@test -n "$(TASK)" || { echo "say which: make tune TASK=fraud, or any other of training/tasks"; exit 2; }
	@$(MAKE) ingest features
	@python -m training.tune --task $(TASK) --preset $(PRESET) --trials $(TRIALS) --folds $(FOLDS) $(ARGS)

demo: setup ## the demo shop's files, as a production collector would leave them (SIZE= DAYS= SEED=)
	@python -m ingestion.demo_shop --out $(DEMO)/raw --truth $(DEMO)/truth --events $(SIZE) --days $(DAYS) --seed $(SEED)

ingest: setup $(if $(EVENTS),,demo) ## raw files through the gate into the event log (EVENTS=path READER=name or mapping file)
	@test -n "$(READER)" || { echo "say how to read EVENTS: READER=taobao, fraud_handbook or a mapping file (docs/guides/bring-your-data.md)"; exit 2; }
	@python -m ingestion --events $(RAW) --reader $(READER) --shop $(SHOP)

validate: setup $(if $(EVENTS),,demo) ## the gate alone: what would be accepted, what quarantined; the log stays as it is
	@python -m ingestion --events $(RAW) --reader $(READER) --shop $(SHOP) --check

features: setup ## register the feature repo (feast apply)
	@python -m clicktrail.feast_repo > /dev/null
	@$(FEAST) apply

materialize: setup ## bring the online state up to the event log (feast materialize-incremental)
	@$(FEAST) materialize-incremental "$$(date -u +%Y-%m-%dT%H:%M:%S)"

update: setup ## keep the online state up to the event log until it is stopped (ARGS="--metrics-port 9465 --rebuild VIEW")
	@exec python -m clicktrail.updater $(ARGS)

evaluate: setup ## render the newest runs' reports again, from their predictions
	@for task in $(TASKS); do python -m training.report $(CLICKTRAIL_HOME)/runs/$$task/latest; done

bundle: setup ## build and verify the Bento of the newest run of each task; a task without a service has none
	@for task in $(TASKS); do python -m serving.build --if-served --task $$task; done

summary: setup ## the closing table
	@python -m training.summary $(if $(TASK),--task $(TASK))

serve: setup ## serve the newest bundle: make serve TASK=fraud PORT=3000
	@test -n "$(TASK)" || { echo "say which: make serve TASK=recommendation, retention or fraud"; exit 2; }
	@exec env OMP_NUM_THREADS=1 $(AS_BUILT) bentoml serve clicktrail-$(TASK):latest --port $(PORT)

verify: setup ## does a bundle prove itself? BUNDLE=tag, folder or exported file (ARGS=--no-state where no state is at hand)
	@test -n "$(BUNDLE)" || { echo "say which: make verify BUNDLE=clicktrail-fraud:latest, a folder or an exported file"; exit 2; }
	@$(AS_BUILT) python -m serving.verify "$(BUNDLE)" $(ARGS)

.PHONY: rollout rollback
rollout: setup ## champion, canary and shadow on one port: TASK=fraud PORT=3000; changed by ARGS="--canary TAG --share 5", --promote TAG, --status
	@test -n "$(TASK)" || { echo "say which: make rollout TASK=recommendation, retention or fraud"; exit 2; }
	@exec $(AS_BUILT) python -m serving.rollout --task $(TASK) --port $(PORT) $(ARGS)

rollback: setup ## the champion before answers again: TASK=fraud PORT=3000
	@test -n "$(TASK)" || { echo "say which: make rollback TASK=recommendation, retention or fraud"; exit 2; }
	@$(AS_BUILT) python -m serving.rollout --task $(TASK) --port $(PORT) --rollback

.PHONY: image
image: setup ## container image of the newest bundle (TASK=fraud), or of intake and updater (no TASK); DOCKER=podman
	@if [ -z "$(TASK)" ]; then exec $(DOCKER) build -f deploy/live.Dockerfile -t clicktrail-live:latest .; fi; \
	folder=$$(bentoml get clicktrail-$(TASK):latest -o path); name=clicktrail-$(TASK); \
	exec $(DOCKER) build -f "$$folder/env/docker/Dockerfile" -t $$name:$$(basename "$$folder") -t $$name:latest "$$folder"

.PHONY: score-batch
score-batch: setup ## answer a file of requests: TASK=retention IN=file.parquet or .csv OUT=file.parquet (BUNDLE=, ARGS=)
	@test -n "$(or $(BUNDLE),$(TASK))" -a -n "$(IN)" -a -n "$(OUT)" || { echo "say which, from where and where to: make score-batch TASK=retention IN=users.csv OUT=scores.parquet"; exit 2; }
	@$(AS_BUILT) python -m serving.score_batch --bundle "$(or $(BUNDLE),clicktrail-$(TASK):latest)" --in "$(IN)" --out "$(OUT)" $(ARGS)

# ---- live events

.PHONY: intake stream
intake: setup ## take events by HTTP into the event log: POST /events on INTAKE_PORT=8080 (SHOP=)
	@exec python -m ingestion.http_intake --port $(INTAKE_PORT) $(ARGS)

stream: setup ## take a stream's events into the event log: SOURCE=redis or kafka (SHOP=, ARGS="--name events")
	@case "$(SOURCE)" in redis|kafka) ;; *) echo "say which: make stream SOURCE=redis or SOURCE=kafka"; exit 2;; esac
	@exec python -m ingestion.stream --source $(SOURCE) $(ARGS)

# ---- looking

.PHONY: plan preview explain catalogue ui gpu-check bench
plan: setup ## what applying the feature repo would change: values on a sample, cost, who reads it; status 2 if refused
	@python -m clicktrail.plan $(ARGS)

preview: setup ## a feature's values for an entity, now or at a time: VIEW=user_recent_v1 ENTITY=u000001 [AT=2026-03-01]
	@python -m clicktrail.preview --view "$(VIEW)" --entity "$(ENTITY)" $(if $(AT),--at "$(AT)")

explain: setup ## why a request was answered as it was: REQUEST=its x-request-id (ARGS="--bundle TAG --json")
	@test -n "$(REQUEST)" || { echo "say which: make explain REQUEST=the x-request-id of the answer"; exit 2; }
	@python -m serving.explain "$(REQUEST)" $(ARGS)

catalogue: setup ## a page of all features: meaning, unit, personal data, owner, lineage, distribution, freshness
	@python -m clicktrail.feature_page

ui: setup ## Feast's user interface on port 8888; one page links it, the catalogue, data docs and reports
	@python -m clicktrail.shop_page
	@$(FEAST) ui --host 127.0.0.1

gpu-check: setup ## train, evaluate and export on a GPU; prints tokens/s and MFU
	@python -m training.gpu_check $(ARGS)

bench: setup ## all measurements of benchmarks/; figures under var/bench
	@python -m benchmarks $(ARGS)

.PHONY: parity forget
parity: setup ## are online reads equal to offline ones, at the same log offset and time? status 1 where a view is over budget
	@python -m validation.parity $(ARGS)

forget: setup ## forget users everywhere: USER=u1,u2 (ARGS=--now erases them from the log's segments at once)
	@test "$(origin USER)" = "command line" || { echo "say whom: make forget USER=u1,u2"; exit 2; }
	@python -m clicktrail.forget "$(USER)" $(ARGS)

# ---- keeping house

.PHONY: test test-fast lint lint-features readers format clean
test: setup ## everything that CI runs
	@python -m pytest -n 2 --dist loadgroup $(ARGS)

test-fast: setup ## the tests that need under a minute together
	@python -m pytest -n 2 --dist loadgroup -m "not slow" $(ARGS)

lint: setup ## ruff, mypy, import-linter, the feature repo
	@ruff check . && ruff format --check . && mypy && lint-imports && $(MAKE) lint-features

lint-features: setup ## names, owners, units, personal data and deprecations of the feature repo
	@python -m clicktrail.lint

readers: setup ## who still reads a view: VIEW=user_recent_v1
	@test -n "$(VIEW)" || { echo "say which: make readers VIEW=user_recent_v1"; exit 2; }
	@python -m clicktrail.lint --readers "$(VIEW)"

format: setup ## let ruff format the code
	@ruff check --fix . && ruff format .

clean: ## remove what runs produced under var/ (not .venv, and no other CLICKTRAIL_HOME)
	rm -rf var .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
