# A fresh machine needs Python 3.11 or later, pip, make and git; the rest is set up in .venv.

PYTHON := $(or $(shell command -v python3.11),$(shell command -v python3),python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DELETE_ON_ERROR:
.PHONY: install demo test lint bench bench-online chaos soak overload lock

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "inferay needs Python 3.11 or later; $(PYTHON) is %d.%d" % sys.version_info[:2])'
	@echo "installing into .venv (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# Real images through a batch and an online endpoint, from nothing; KEEP=1 leaves the workspace up.
demo: install
	@$(BIN)/python examples/digits/demo.py

# Two processes, however many cores there are: one for the tests with Ray (tests/conftest.py).
test: install
	$(BIN)/pytest --numprocesses 2 --no-loadscope-reorder --durations 25 --durations-min 5

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests benchmarks examples
	$(BIN)/pytest -q tests/test_imports.py

# Batch beside what one would use without inferay; WORKS="w1 w5" REPETITIONS=5 PARTS=plain SCALE=0.1
# measure a part, and parts of one commit gather in one table of benchmarks/RESULTS.md. The peers
# have pins of their own, so an environment of their own.
bench: .venv-bench/.installed
	PYTHONPATH=. .venv-bench/bin/python -m benchmarks.batch $(WORKS) \
	  $(if $(REPETITIONS),--repetitions $(REPETITIONS)) $(if $(PARTS),--parts $(PARTS)) \
	  $(if $(SCALE),--scale $(SCALE))

.venv-bench/.installed: benchmarks/requirements.lock pyproject.toml
	@echo "installing into .venv-bench (a few minutes the first time)"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/python -m pip --disable-pip-version-check --quiet install \
	  --require-hashes -r benchmarks/requirements.lock
	@.venv-bench/bin/python -m pip --disable-pip-version-check --quiet install \
	  --no-deps --no-build-isolation -e .
	@touch $@

# Online endpoints beside other servers, each peer in an environment of its own; WORKS="table mirror"
# ROUNDS=5 SECONDS=4 measure a part, and parts of one commit gather in one table of RESULTS.md.
PEERS := mlserver litserve bentoml mlflow

bench-online: .venv-bench/.installed $(PEERS:%=.venv-bench-%/.installed)
	PYTHONPATH=. .venv-bench/bin/python -m benchmarks.online $(WORKS) \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS))

# A peer that cannot be installed on this machine is told as such in the table.
.venv-bench-%/.installed: benchmarks/serving/locks/%.lock
	@echo "installing into .venv-bench-$* (a minute the first time)"
	@$(PYTHON) -m venv .venv-bench-$*
	@.venv-bench-$*/bin/python -m pip --disable-pip-version-check --quiet install \
	  --require-hashes -r $< || { echo "$* cannot be installed"; rm -rf .venv-bench-$*/bin; }
	@mkdir -p .venv-bench-$* && touch $@

# Whole jobs under kills, checked byte by byte; parts of one commit add up in benchmarks/RESULTS.md.
TRIALS := 100
FROM := 0

chaos: install
	@# All pairs of crash points belong to the first part; `make test` takes a sample.
	test $(FROM) != 0 || CRASH_PAIRS=all $(BIN)/python -m pytest -q \
	  tests/chaos/test_crash_points.py tests/control/test_online_crashes.py
	PYTHONPATH=. $(BIN)/python -m tests.chaos --trials $(TRIALS) --from $(FROM)

# An online endpoint under load while everything behind it dies or changes: ten minutes.
soak: install
	PYTHONPATH=. $(BIN)/python -m tests.soak $(SOAK_FLAGS)

# Ten times what a deployment takes for a minute, 500 slow clients, a body of 1 GB.
overload: install
	PYTHONPATH=. $(BIN)/python -m tests.soak.overload $(OVERLOAD_FLAGS)

# Pins what pyproject.toml asks for. Pins that still fit stay; UV_FLAGS=--upgrade renews all.
lock: install
	@$(PIP) install uv
	$(BIN)/uv pip compile pyproject.toml --extra demo --group dev --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --quiet $(UV_FLAGS) --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra demo --extra triton --group bench --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --quiet $(UV_FLAGS) --output-file benchmarks/requirements.lock
	@for peer in $(PEERS); do \
	  $(BIN)/uv pip compile benchmarks/serving/locks/$$peer.in --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet $(UV_FLAGS) \
	    --output-file benchmarks/serving/locks/$$peer.lock || exit 1; \
	done
