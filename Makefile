# Every target sets up what it needs: the first one makes .venv and fetches the jars, later ones find them ready.
#   SOURCE=synthetic|live|PATH  EVENTS=N  WIKISTREAM_<SETTING>=VALUE   may follow any target and reach what it runs.

.DEFAULT_GOAL := help
.PHONY: help demo dev up down health test test-unit check audit faults soak bench bench-long doctor clean

# Values from the command line reach the recipes through the environment, letter by letter: pasted into a recipe, a file's name would
# be a piece of shell, and make itself would expand a '$' in it.
$(foreach name,SOURCE EVENTS CONFIRM PYTEST_ARGS $(filter WIKISTREAM_%,$(.VARIABLES)),\
  $(if $(filter-out undefined,$(origin $(name))),$(eval override export $(name) := $$(value $(name)))))

# With PYTHONHOME Python does not start at all; what else was meant for another Python or Spark, the programs drop themselves.
unexport PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE PYTHONWARNINGS

PYTHON_ENV := .venv/bin
READY := .venv/.ready
WIKISTREAM := $(PYTHON_ENV)/wikistream
PYTEST := PYTEST_ADDOPTS="$$PYTEST_ADDOPTS $$PYTEST_ARGS" $(PYTHON_ENV)/python -m pytest
DG := VIRTUAL_ENV="$$PWD/.venv" PATH="$$PWD/.venv/bin:$$PATH" DG_CLI_CONFIG=infra/dg.toml PYTHONWARNINGS=ignore dg

$(READY): pyproject.toml requirements.lock wikistream_assets/embedded/jars.lock infra/scripts/bootstrap.sh
	@infra/scripts/bootstrap.sh

help: ## Show the targets
	@echo "WikiStream: the public Wikimedia edit stream as audited Iceberg tables"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  SOURCE=synthetic (the default), live, or the path of a capture; 'up' and 'dev' go on with their last one."
	@echo "  EVENTS=N is how many events 'demo' makes or reads."
	@echo "  Settings are WIKISTREAM_* variables, e.g. make demo WIKISTREAM_HOME=/tmp/lake WIKISTREAM_KAFKA_PORT=19192"

demo: $(READY) ## Run the whole job once: events in, audited tables out, a summary at the end
	$(WIKISTREAM) demo $${SOURCE:+"--source=$$SOURCE"} $${EVENTS:+"--events=$$EVENTS"}

dev: $(READY) ## Start the whole pipeline, with the Dagster UI in front; Ctrl-C stops the UI only
	$(WIKISTREAM) dev $${SOURCE:+"--source=$$SOURCE"}

up: $(READY) ## Start the whole pipeline without the UI: broker, source, producer, Bronze stream, Dagster
	$(WIKISTREAM) up $${SOURCE:+"--source=$$SOURCE"}

down: $(READY) ## Stop everything of this home; the data stays
	$(WIKISTREAM) down

health: $(READY) ## Tell whether the pipeline is well: programs, lag, newest snapshots, gates
	$(WIKISTREAM) health

test: $(READY) ## Run the tests on two cores, without the long fault cases; PYTEST_ARGS="-k name" adds options
	$(PYTEST) -m "not (faults or long) or short" -n 2 --dist loadfile

test-unit: $(READY) ## Run the tests that need neither a JVM nor a broker nor a process: under a minute
	$(PYTEST) -m unit -n 2 --dist loadfile

check: $(READY) ## Lint, check the format and the types, look for secrets, check that the generated documents are fresh
	$(PYTHON_ENV)/python -m ruff check
	$(PYTHON_ENV)/python -m ruff format --check
	$(PYTHON_ENV)/python -m mypy
	env $(DG) check defs
	env $(DG) list defs --json >/dev/null
	$(WIKISTREAM) dictionary --check
	$(WIKISTREAM) metrics document --check
	git ls-files -z | xargs -0 $(PYTHON_ENV)/python -m detect_secrets.pre_commit_hook

audit: $(READY) ## Look the dependencies up in the lists of known holes (needs the network)
	$(PYTHON_ENV)/python -m pip_audit --progress-spinner off --no-deps --disable-pip -r requirements.lock

faults: $(READY) ## Run every fault case in full, going on where a run was broken off; writes docs/RELIABILITY.md
	failed=0; \
	$(PYTHON_ENV)/python -m pytest -m "(faults or long) and not alone" --full --resume --timeout=5400 -n 2 --dist loadfile || failed=1; \
	$(PYTHON_ENV)/python -m pytest -m alone --full --resume --timeout=5400 || failed=1; \
	$(PYTHON_ENV)/python -m wikistream_assets_tests.faults.report && exit $$failed

soak: $(READY) ## Run the pipeline for an hour at 500 events/s; prints what grew and what became of every event
	$(PYTHON_ENV)/python -m bench.soak

bench: $(READY) ## Measure, side by side; prints ratios and appends a JSON line each
	$(PYTHON_ENV)/python -m bench

bench-long: $(READY) ## Measure the running pipeline: latency and recovery, then catching up; appends a JSON line each
	$(PYTHON_ENV)/python -m bench.always_on
	$(PYTHON_ENV)/python -m bench.catch_up

doctor: $(READY) ## Check this machine and say how to fix what is wrong
	$(WIKISTREAM) doctor

clean: ## Remove .venv and caches; the lake only after a question, or with CONFIRM=1
	@infra/scripts/clean.sh
